"""Training over two processes on CPUs: an epoch of 10 million rows against one process, and the losses of both.

    python tests/benchmarks/bench_processes.py            # about 2 minutes, 2 cores, 4 GB

One thread a process. The wall time of an epoch is the median of the epochs after the first; the processes' own CPU
seconds stand beside it, since on a busy machine the wall time says little. `rows=200000` on the command line makes it
smaller.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def train(rows: int, bs: int | None, epochs: int) -> dict:
    "Seconds (wall, CPU) of each epoch, and the losses. No dummy validation: 1000 rows of their own."
    import torch
    from fastai.basics import Callback, set_seed
    from torch import nn

    from fastcourse.learner import history, tensor_learner

    class Times(Callback):
        def before_fit(self): self.at = [(time.perf_counter(), time.process_time())]
        def after_epoch(self): self.at.append((time.perf_counter(), time.process_time()))

    set_seed(1)
    x = torch.randn(rows, 8)
    y = x.sum(1, keepdim=True).sin()
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    times = Times()
    lrnr = tensor_learner(x, y, net, nn.MSELoss(), valid=(x[:1000], y[:1000]), bs=bs and bs//WORLD, lr=1e-2, cbs=times)
    lrnr.remove_cb(lrnr.progress)
    lrnr.logger = lambda *a: None
    with lrnr.distrib_ctx(): lrnr.fit(epochs)
    each = [[b-a for a, b in zip(p, q)] for p, q in zip(times.at, times.at[1:])][1:]
    return dict(wall=statistics.median(o[0] for o in each), cpu=statistics.median(o[1] for o in each),
                losses=history(lrnr)[["train_loss", "valid_loss"]].values.flatten().tolist())


def measure(world: int, args: list) -> dict:
    "One run in `world` processes."
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(world)] if world > 1 else []
        child = [sys.executable, *launch, __file__, "--child", json.dumps(args), str(out)]
        subprocess.run(child, check=True, capture_output=True)
        return json.loads(out.read_text())


def main():
    from common import machine, table
    rows = next((int(o[5:]) for o in sys.argv if o.startswith("rows=")), 10_000_000)
    lines = []
    for name, args in ((f"{rows:,} rows, full batch", [rows, None, 3]),
                       (f"{rows:,} rows, shuffled, {rows//20:,} a step", [rows, rows//20, 2]),
                       ("20,000 rows, full batch", [20_000, None, 200]), ("63 rows, 20 a step", [63, 20, 20])):
        one, two = measure(1, args), measure(2, args)
        apart = max(abs(a-b)/abs(a) for a, b in zip(one["losses"], two["losses"]))
        lines.append([name, f"{one['wall']:.4f}", f"{two['wall']:.4f}", f"{two['wall']/one['wall']:.2f}",
                      f"{two['cpu']/one['cpu']:.2f}", f"{apart:.1e}"])
    print(machine())
    print(table(["training", "1 process, s an epoch", "2 processes", "ratio", "ratio of CPU s (process 0)",
                 "losses apart"], lines))


if __name__ == "__main__":
    if "--child" in sys.argv:
        found = train(*json.loads(sys.argv[2]))
        if RANK == 0: Path(sys.argv[3]).write_text(json.dumps(found))
    else: main()
