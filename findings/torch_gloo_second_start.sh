#!/usr/bin/env bash
# torch 2.15.0: a gloo group that is destroyed and started again in the same processes, as torchrun started them, fails where one of
# them leaves the first group before the other one, as after an exception: the second start finds the addresses of the first one in
# the store, and connects to a port that is being closed.
#
# Two processes: init_process_group('gloo'), all_reduce, destroy_process_group(), and again; one destroys its group a second later. The
# way out: a store of its own for each start, dist.PrefixStore('start 2', store). Without that second it worked.
# Seen with Python 3.11: "turn 1 rank 0 done", "turn 1 rank 1 done", then of the second start "Read error [127.0.0.1]: ...: Connection
# reset by peer", in one process or both.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check torch==2.15.0 numpy==2.4.6
cat >"$place/try.py" <<'PY'
import time
from datetime import timedelta
import torch, torch.distributed as dist
for turn in (1, 2):
    dist.init_process_group('gloo', timeout=timedelta(seconds=20))
    dist.all_reduce(torch.ones(1))
    rank = dist.get_rank()
    if turn == 1: time.sleep(rank)
    dist.destroy_process_group()
    print("turn", turn, "rank", rank, "done", flush=True)
PY
"$place/venv/bin/python" -m torch.distributed.run --nproc_per_node 2 "$place/try.py" >"$place/log" 2>&1 || true
grep -E "^turn|failed to connect|Error" "$place/log" | sort | uniq -c | head -n 12
grep -q "failed to connect\|Timed out\|Connection" "$place/log" || { echo "the behaviour has changed"; exit 1; }
