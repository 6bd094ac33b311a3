"""How time and memory grow: python tests/benchmarks/bench_growth.py [--picture docs/growth.png] [--rows 7] [--maps 5]

Rows of `tensor_learner`, texts that `generate` writes at once, and pictures whose `cams` go to a file. Each size has a
process of its own, one thread. Time is processor time of the work alone; memory is what it needs more at its most than
before, without mapped files.
By default rows to ten million and pictures to 10^4; `--rows 6` is shorter, `--maps 5` four minutes longer.
"""
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

from bench_cams_file import anonymous, grow
from common import machine, table

class Most:
    "The most memory in the block beyond that before it, MB."
    def __enter__(self):
        self.before, self.most, self.done = anonymous(), anonymous(), threading.Event()
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()
        return self
    def watch(self):
        while not self.done.wait(0.01): self.most = max(self.most, anonymous())
    def __exit__(self, *error):
        self.done.set()
        self.watcher.join()
        self.more = self.most-self.before


def rows(n, epochs=2):
    "Training on `n` rows of ten numbers, in batches of 4096; all of a smaller set at once."
    import torch
    from torch import nn
    from fastcourse.learner import tensor_learner
    torch.manual_seed(0)
    x = torch.randn(n, 10)
    y = x[:, :1].sin()
    def lrnr(x, y):
        net = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1))
        return tensor_learner(x, y, net, nn.MSELoss(), bs=min(len(x), 4096))
    def fit(o, n):
        with o.no_bar(), o.no_logging(): o.fit(n)
    fit(lrnr(x[:1000], y[:1000]), 2)
    with Most() as m:
        o = lrnr(x, y)
        fit(o, 1)
        start = time.process_time()
        fit(o, epochs)
        s = (time.process_time()-start)/epochs
    return dict(n=n, s=s, more=m.more, rate=n/s)


def texts(n, words=60):
    "`n` texts at once, each of `words` words more; the network of the human numbers, untrained."
    import torch
    from fastcourse.data import human_numbers
    from fastcourse.generate import generate
    from fastcourse.text import lm_learner
    torch.manual_seed(0)
    lrnr = lm_learner(human_numbers(40))
    prompts = ["one , two ,"]*n
    generate(lrnr, prompts[:2], n_words=4, seed=1)
    with Most() as m:
        start = time.process_time()
        out = generate(lrnr, prompts, n_words=words, seed=1)
        s = time.process_time()-start
    assert len(out) == n
    return dict(n=n, s=s, more=m.more, rate=n*words/s)


def one(kind, n):
    import torch
    from fastcourse.core import plain_bars
    torch.set_num_threads(1)
    plain_bars()
    print(json.dumps(dict(rows=rows, texts=texts)[kind](n)))


def measure(kind, sizes):
    res = []
    for n in sizes:
        out = subprocess.run([sys.executable, __file__, "--one", kind, str(n)], capture_output=True, text=True)
        assert not out.returncode, out.stderr[-2000:]
        res.append(json.loads(out.stdout.splitlines()[-1]))
    return res


def exponents(o, key):
    "From each size to the next: the value grows with the size to this power."
    res = [""]
    for a, b in zip(o, o[1:]):
        fits = a[key] > 0.5 and b[key] > 0.5 if key == "more" else True  # half a megabyte is chance
        res.append(f"{math.log(b[key]/a[key])/math.log(b['n']/a['n']):.2f}" if fits else "")
    return res


def shown(name, unit, found):
    lines = [[f"{o['n']:,}", f"{o['s']*1e3:.3g} ms" if o["s"] < 1 else f"{o['s']:.3g} s", e, f"{o['rate']:,.0f}",
              f"{o['more']:.1f} MB", m]
             for o, e, m in zip(found, exponents(found, "s"), exponents(found, "more"))]
    return table([name, "time", "exponent", unit, "memory more", "exponent"], lines)


DATA = {"rows": (44, "the data themselves"), "pictures": (5760, "the maps, on the disk")}  # bytes of one


def draw(parts, file):
    from matplotlib import pyplot as plt
    fig, axs = plt.subplots(2, len(parts), figsize=(3.2*len(parts), 5), layout="constrained", sharex="col")
    for (top, low), (name, unit, found) in zip(axs.T, parts):
        n, s, more = ([o[k] for o in found] for k in ("n", "s", "more"))
        top.loglog(n, s, marker="o", color="C0")
        top.loglog(n, [s[-1]*o/n[-1] for o in n], "--", color="0.6", lw=1, label="in proportion")
        top.set(title=name, ylabel="processor seconds")
        what = name.split(",")[0]
        low.loglog(n, [max(o, 0.1) for o in more], marker="s", color="C1", label="needed")  # less is chance
        if what in DATA: low.loglog(n, [o*DATA[what][0]/1e6 for o in n], ":", color="0.4", label=DATA[what][1])
        low.set(xlabel=what, ylabel="MB more than before", ylim=(0.05, 30_000))
        for ax in (top, low): ax.legend(frameon=False, loc="upper left")
    fig.savefig(file, dpi=100)


def option(name, default):
    return sys.argv[sys.argv.index(name)+1] if name in sys.argv else default


def main():
    print(machine(), end="\n\n")
    sizes = [10**k for k in range(3, int(option("--rows", 7))+1)]
    parts = [("rows, an epoch and its validation", "rows a second", measure("rows", sizes)),
             ("texts, 60 words each", "words a second", measure("texts", [1, 4, 16, 64, 256, 1024]))]
    for o in parts: print(shown(*o), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory() as d:
        found = grow(Path(d), [10**k for k in range(2, int(option("--maps", 4))+1)])
    parts.append(("pictures, maps to a file", "pictures a second",
                  [dict(n=o["n"], s=o["cpu"], more=o["most"]-o["before"], rate=o["n"]/o["cpu"]) for o in found]))
    print(shown(*parts[-1]), end="\n\n", flush=True)
    if picture := option("--picture", None): draw(parts, picture)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]: one(sys.argv[2], int(sys.argv[3]))
    else: main()
