#!/usr/bin/env bash
# joblib 1.6.0 with distributed 2026.8.0: where Dask gives a task up, after it has killed some workers (KilledWorker), joblib's Dask
# backend tells nobody, and `Parallel` waits for ever.
#
# Its `_collect` sets the error on a future that nobody reads, and calls the callback for good results only, while joblib takes results
# from the callback. Dask's own `client.submit(...).result()` raises KilledWorker at once. Seen with Python 3.11: the first line is
# printed within seconds, then `timeout` ends the program (code 124). Also: `Client(address, timeout=1)` never returns where a server
# takes the connection and says nothing.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check joblib==1.6.0 distributed==2026.8.0
cat >"$place/try.py" <<'PY'
import os, signal, sys
import dask, joblib
from distributed import Client, LocalCluster
def die(): os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    dask.config.set({"distributed.scheduler.allowed-failures": 0})
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        try: client.submit(die).result()
        except Exception as e: print("Dask alone:", type(e).__name__, flush=True)
        client.wait_for_workers(2) # with one, joblib works in the process of the caller
        with joblib.parallel_config("dask", client=client): joblib.Parallel()([joblib.delayed(die)()])
PY
code=0; timeout 60 "$place/venv/bin/python" "$place/try.py" >"$place/log" 2>/dev/null || code=$?
echo "$(cat "$place/log"); joblib: code $code"
grep -q KilledWorker "$place/log" && [ $code = 124 ] || { echo "the behaviour has changed"; exit 1; }
cat >"$place/deaf.py" <<'PY'
import socket
from distributed import Client
with socket.create_server(("127.0.0.1", 0)) as deaf: Client(f"127.0.0.1:{deaf.getsockname()[1]}", timeout=1)
PY
code=0; timeout 30 "$place/venv/bin/python" "$place/deaf.py" >"$place/log" 2>&1 || code=$?
echo "a deaf server, timeout=1: code $code after 30 s"
[ $code = 124 ] || { echo "the behaviour has changed"; exit 1; }
