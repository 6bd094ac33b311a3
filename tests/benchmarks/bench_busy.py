"""Training on a machine that has other work too: python tests/benchmarks/bench_busy.py

Each job is a process of its own, with as many threads as there are cores, once alone and once beside a process that
keeps one core busy, in turn: as torch starts by itself, and with the wait policy that the command sets.
"""
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path

from common import machine, seconds, table

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = "from fastcourse.data import human_numbers; human_numbers(500).to_csv('numbers.csv', index=False)"
PICTURES = f"""
from pathlib import Path
from fastcourse.tour import picture_part
picture_part(Path({str(ROOT/'images')!r}), Path('.'), epochs=1)"""
LM = "import sys; from fastcourse.cli import main; sys.exit(main())"
JOBS = {"fastcourse lm train, 500 texts, 2 epochs": [LM, "lm", "train", "numbers.csv", "--epochs", "2"],
        "tour's third part, 1 epoch": [PICTURES]}
POLICIES = {"as torch starts": {}, "passive (the command's)": {"OMP_WAIT_POLICY": "passive"}}


@contextmanager
def busy():
    "A process that keeps one core busy."
    p = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try: yield
    finally: p.kill(); p.wait()


def main():
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    with tempfile.TemporaryDirectory() as folder:
        def run(code, more):
            subprocess.run([sys.executable, "-W", "ignore", "-c", *code], check=True, capture_output=True, cwd=folder,
                           env=clean | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"} | more)
        run([NUMBERS], {})
        times = {}
        for _ in range(2):
            for job, code in JOBS.items():
                for policy, more in POLICIES.items():
                    for beside in (nullcontext, busy):
                        with beside(): t = seconds(lambda: run(code, more))
                        times.setdefault((job, policy, beside), []).append(t)
    rows = []
    for job in JOBS:
        first = statistics.median(times[job, "as torch starts", nullcontext])
        for policy in POLICIES:
            alone, beside = (statistics.median(times[job, policy, o]) for o in (nullcontext, busy))
            rows.append([job, policy, f"{alone:.1f} s", f"{alone/first:.2f}", f"{beside:.1f} s", f"{beside/alone:.2f}"])
    print(machine(), table(["job", "wait policy", "alone", "of the first", "beside a busy process", "of alone"], rows),
          sep="\n\n")


if __name__ == "__main__": main()
