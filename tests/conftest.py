"""No test has a network, nor its children, whoever starts pytest; hypothesis tries the same examples each time."""
import os
import sys
from pathlib import Path

OFFLINE = Path(__file__).parent/"offline"
os.environ["PYTHONPATH"] = os.pathsep.join([str(OFFLINE), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")   # read when torch is loaded; see nbs/12_main.ipynb
if Path(getattr(sys.modules.get("sitecustomize"), "__file__", "") or "").parent != OFFLINE:
    sys.path.insert(0, str(OFFLINE))
    sys.modules.pop("sitecustomize", None)
    import sitecustomize  # noqa: F401

from hypothesis import HealthCheck, settings  # noqa: E402

# A red that comes by lot teaches nobody: `make test` is derandomised. `make test-long` looks for new examples.
LONG = bool(os.environ.get("FASTCOURSE_TEST_LONG"))
settings.register_profile("every time", derandomize=True, deadline=None, database=None,
                          suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", deadline=None, max_examples=500, print_blob=True,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("long" if LONG else "every time")
