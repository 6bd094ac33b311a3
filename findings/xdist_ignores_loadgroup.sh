#!/usr/bin/env bash
# pytest-xdist 3.8.0 with pytest 9.2.0: `--dist loadgroup` says nothing and groups nothing; tests with one `xdist_group` run on
# several workers.
#
# A worker tells the scheduler the group by writing `item._nodeid = "…@group"` (xdist/remote.py). pytest 9.2 has no `_nodeid` any
# more, so that writes an attribute which nobody reads, and `item.nodeid`, which is what is sent, has no group. Seen with Python
# 3.11: four tests of one group on two workers. With pytest 8.4.2, and the same pytest-xdist, they are on one.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
cat >"$place/test_group.py" <<'PY'
import time, pytest

@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("i", range(4))
def test_group(i, worker_id):
    time.sleep(0.3)
    with open("workers", "a") as f: f.write(worker_id + "\n")
PY
workers() {  # of pytest in version $1
    "$place/venv/bin/pip" install -q --disable-pip-version-check "pytest==$1" pytest-xdist==3.8.0
    (cd "$place" && rm -f workers && venv/bin/python -m pytest -q -p no:cacheprovider -n 2 --dist loadgroup >/dev/null && sort -u workers | wc -l)
}
old=$(workers 8.4.2) new=$(workers 9.2.0)
echo "workers for one group: pytest 8.4.2: $old, pytest 9.2.0: $new"
[ "$old" = 1 ] && [ "$new" = 2 ] || { echo "the behaviour has changed"; exit 1; }
