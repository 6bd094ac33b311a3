#!/usr/bin/env bash
# pytest-xdist 3.8.0 with pytest 9.2.0: `--dist loadgroup` is silently ignored; the tests of one group run on both workers.
#
# The worker of xdist writes the name of the group behind a test's `_nodeid`. pytest 9.2 has a `nodeid` that no longer reads that
# attribute, so no group reaches the scheduler: no error, no warning. Tests that share a port or a file then fail now and then.
# With pytest 9.0.2 all eight stay together. Seen with Python 3.11: "pytest 9.0.2: 1 worker", then "pytest 9.2.0: 2 workers".
# A way out that works with both: `--dist loadfile`, one file a group.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
mkdir "$place/tests"
cat >"$place/tests/test_group.py" <<'PY'
import os, pathlib, pytest, time
@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("i", range(8))
def test_group(i):
    time.sleep(0.2)
    with open(pathlib.Path(os.environ["LOG"]), "a") as f: f.write(os.environ["PYTEST_XDIST_WORKER"]+"\n")
PY
workers() {
    python3 -m venv "$place/venv$1"
    "$place/venv$1/bin/pip" install -q --disable-pip-version-check pytest=="$1" pytest-xdist==3.8.0
    (cd "$place/tests" && LOG="$place/log$1" "$place/venv$1/bin/python" -m pytest -q -n 2 --dist loadgroup -p no:cacheprovider >/dev/null)
    sort -u "$place/log$1" | wc -l
}
old=$(workers 9.0.2) new=$(workers 9.2.0)
echo "pytest 9.0.2: $old worker"
echo "pytest 9.2.0: $new workers"
[ "$old" = 1 ] && [ "$new" = 2 ] || { echo "the behaviour has changed"; exit 1; }
