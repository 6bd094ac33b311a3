"""How a folder of texts grows: python tests/benchmarks/bench_corpus.py [MILLIONS OF WORDS ...] [--picture FILE.png]

By default 1 and 10 million words of human numbers, in files of about 7 MB, are written to a temporary folder. For each,
a process of its own numbers the words (`lm_dls`), makes 50 updates, and tells its seconds and the most memory that it
needed: "of its own" is memory that no file stands behind (RssAnon); with the parts of the numbers' file that are mapped
it is more, but these the system takes back whenever others need the room. A second process finds the words already
numbered. `100` takes about 15 minutes on one core.
"""
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

from common import table

UPDATES = 50
PROGRAM = """
import json, resource, sys, threading, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
import fastai.text.all
from fastai.callback.core import CancelFitException
from fastai.callback.core import Callback
from fastcourse.text import lm_dls, lm_learner
class Stop(Callback):
    def after_batch(self):
        if self.train_iter == {updates}: raise CancelFitException
def most(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3
def anonymous():
    return next(int(o.split()[1])/1e3 for o in open("/proc/self/status") if o.startswith("RssAnon"))
own, done = [0], threading.Event()
def watch():
    while not done.wait(0.02): own[0] = max(own[0], anonymous())
lm_dls({little!r}, seq_len=7, bs=2)
start = anonymous()
threading.Thread(target=watch, daemon=True).start()
t = time.perf_counter()
dls = lm_dls({folder!r})
numbered = time.perf_counter()-t
n = int(sum(dls.train.lens)+sum(dls.valid.lens))
lrnr = lm_learner(dls)
t = time.perf_counter()
with lrnr.no_bar(), lrnr.no_logging(): lrnr.fit(1, 1e-2, cbs=Stop())
t = time.perf_counter()-t
done.set()
print(json.dumps([n, numbered, t, start, own[0], most()]))
"""


def write(folder, millions):
    from fastcourse.data import human_numbers
    text = "\n".join(human_numbers(6500).text)+"\n"  # 1.8 million words
    folder.mkdir()
    todo, i = int(millions*1e6), 0
    lines, words = text.splitlines(True), 273  # of one line
    while todo > 0:
        some = lines[:max(1, min(len(lines), todo//words))]
        (folder/f"{i:04}.txt").write_text("".join(some))
        todo, i = todo-len(some)*words, i+1


def measure(folder, little):
    program = PROGRAM.format(updates=UPDATES, folder=str(folder), little=str(little))
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not out.returncode, out.stderr[-2000:]
    return json.loads(out.stdout.strip().split("\n")[-1])


def draw(rows, file):
    from matplotlib import pyplot as plt
    words, first, again = zip(*rows)
    fig, axs = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for ax, i, title in ((axs[0], 1, "seconds"), (axs[1], 4, "most memory of its own, MB")):
        for which, name, marker in ((first, "numbered now", "o"), (again, "numbered before", "s")):
            ax.plot(words, [o[i] for o in which], marker=marker, label=name)
        ax.set(xscale="log", xlabel="words", title=title, ylim=(0.005 if i == 1 else 0, None))
        if i == 1: ax.set_yscale("log")
        ax.legend()
    fig.savefig(file, dpi=90)


def main(argv):
    picture = argv[argv.index("--picture")+1] if "--picture" in argv else None
    sizes = [float(o) for o in argv if o.replace(".", "").isdigit()] or [1, 10]
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        little = Path(tmp)/"little"
        write(little, 0.002)
        for name in "abcdef": (little/f"{name}.txt").write_text((little/"0000.txt").read_text())
        for size in sizes:
            folder = Path(tmp)/f"{size:g}"
            write(folder, size)
            now, again = measure(folder, little), measure(folder, little)
            rows.append((now[0], now, again))
    print(table(["words", "numbered in", "words a second", f"{UPDATES} updates", "own memory before", "at the most",
                 "with mapped files", "numbered before"],
                [[f"{n/1e6:.1f} M", f"{a[1]:.0f} s", f"{n/a[1]:.0f}", f"{a[2]:.1f} s", f"{a[3]:.0f} MB",
                  f"{a[4]:.0f} MB", f"{a[5]:.0f} MB", f"{b[4]:.0f} and {b[5]:.0f} MB, {b[1]:.2f} s"]
                 for n, a, b in rows]))
    if len(rows) > 1:
        (n0, a0, _), (n1, a1, _) = rows[0], rows[-1]
        print(f"\nseconds grow with words to the power of {math.log(a1[1]/a0[1])/math.log(n1/n0):.2f}")
    if picture: draw(rows, picture)


if __name__ == "__main__": main(sys.argv[1:])
