"""No test has a network, nor its children, whoever starts pytest; hypothesis tries the same examples each time."""
import os
import signal
import sys
from pathlib import Path

OFFLINE = Path(__file__).parent/"offline"
os.environ["PYTHONPATH"] = os.pathsep.join([str(OFFLINE), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")   # read when torch is loaded; see nbs/12_main.ipynb
# A script that starts pytest in the background lets it, and all its children, ignore Ctrl-C
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)
if Path(getattr(sys.modules.get("sitecustomize"), "__file__", "") or "").parent != OFFLINE:
    sys.path.insert(0, str(OFFLINE))
    sys.modules.pop("sitecustomize", None)
    import sitecustomize  # noqa: F401

# With it jsonschema, which nbformat loads, builds 38 parsers: a second a process, for addresses that no notebook has
sys.modules.setdefault("rfc3987_syntax", None)

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# A red that comes by lot teaches nobody: `make test` is derandomised. `make test-long` looks for new examples.
LONG = bool(os.environ.get("FASTCOURSE_TEST_LONG"))
settings.register_profile("every time", derandomize=True, deadline=None, database=None,
                          suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", deadline=None, max_examples=500, print_blob=True,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("long" if LONG else "every time")

# A file stays on one worker, for its fixtures: `pytest -n 3 --dist loadfile --no-loadscope-reorder`, as in Makefile.
# These start whole programs: kernels, browsers, terminals, the command, other processes. `make test` leaves them out;
# `make test-all` and CI do not. What takes longest starts first, so that no worker is left alone with it.
PROGRAMS = ["test_lessons_in_kernels", "test_grading", "test_terminal", "test_cli_streams", "test_app", "test_tour",
            "test_play", "test_engines", "test_processes", "test_notebook", "test_page", "test_cli", "test_cli_vision",
            "test_crawl", "test_kills", "test_slides", "test_docs"]
LONG_FIRST = [*PROGRAMS, "test_vision", "test_replicas", "test_cam_metrics", "test_cam", "test_generate",
              "test_learner"]


def pytest_configure(config): config.addinivalue_line("markers", "programs: starts whole programs")


@pytest.hookimpl(tryfirst=True)   # before `-m` looks at the marks
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in PROGRAMS: item.add_marker("programs")
    items.sort(key=lambda o: LONG_FIRST.index(o.path.stem) if o.path.stem in LONG_FIRST else len(LONG_FIRST))
