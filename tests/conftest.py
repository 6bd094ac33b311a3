"""Every test runs without a network, its child processes too, whoever starts pytest."""
import os
import sys
from pathlib import Path

OFFLINE = Path(__file__).parent/"offline"
os.environ["PYTHONPATH"] = os.pathsep.join([str(OFFLINE), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ.setdefault("MPLBACKEND", "Agg")
if Path(getattr(sys.modules.get("sitecustomize"), "__file__", "") or "").parent != OFFLINE:
    sys.path.insert(0, str(OFFLINE))
    sys.modules.pop("sitecustomize", None)
    import sitecustomize  # noqa: F401
