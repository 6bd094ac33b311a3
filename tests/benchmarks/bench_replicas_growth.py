"""Time and memory against the number of starts: python tests/benchmarks/bench_replicas_growth.py [PICTURE.png]

25, 100, 400 and 1600 starts of two networks, 20 epochs each, every size in a process of its own (its peak memory is
that of the process, less what it had before). Prints a table and the exponents: a number that doubles with the starts
has 1. Seconds are those of the CPU, which other work on the machine disturbs less. Draws the table where a name for
the picture is given.
"""
import json
import math
import resource
import subprocess
import sys
import time

import torch
from torch import nn

from bench_replicas import embedding, letters, net, one_hot, states
from common import machine, table
from fastcourse.replicas import train_replicas

NETS = {"Embedding-Tanh-Linear, 399 rows": (embedding, letters[:-1], letters[1:]),
        "RNN(4,3)-Linear, 599 steps": (lambda: net(nn.RNN, 3), *one_hot(states))}


def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024  # MiB on Linux


def one(name, n):
    "Seconds and MiB of one run, in this process."
    torch.set_num_threads(1)
    def train(k): train_replicas(*NETS[name], nn.CrossEntropyLoss(), n=k, epochs=20, progress=False)
    train(2)  # what is only loaded once
    before, start = peak(), time.process_time()
    train(n)
    print(json.dumps((time.process_time()-start, peak()-before)))


def draw(rows, picture):
    from matplotlib import pyplot as plt
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for ax, k, label in zip(axes, (2, 4), ("CPU seconds, 20 epochs", "MiB more")):
        for name in NETS:
            points = [(r[1], r[k]) for r in rows if r[0] == name and r[k]]  # 0 MiB has no place on such an axis
            ax.loglog(*zip(*points), marker="o", label=name)
        ax.set(xlabel="starts", ylabel=label)
        ax.set_xticks([25, 100, 400, 1600], ["25", "100", "400", "1600"])
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(loc="upper left", frameon=False)
    fig.savefig(picture, dpi=110)


def main(picture=None):
    print(machine())
    print(table(["network", "starts", "CPU s", "ms a start", "MiB more"], []))
    rows = []
    for name in NETS:
        for n in (25, 100, 400, 1600):
            command = [sys.executable, __file__, "--one", name, str(n)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            s, mib = json.loads(out.splitlines()[-1])
            rows.append([name, n, round(s, 2), round(1000*s/n, 2), round(mib)])
            print(table(rows[-1], []).split("\n")[0], flush=True)
        (_, _, s100, _, mib100), (_, _, s1600, _, mib1600) = rows[-3], rows[-1]
        of_time, of_memory = (math.log(b/a, 16) for a, b in ((s100, s1600), (max(mib100, 1), mib1600)))
        print(f"exponents from 100 to 1600 starts: time {of_time:.2f}, memory {of_memory:.2f}", flush=True)
    if picture: draw(rows, picture)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]: one(sys.argv[2], int(sys.argv[3]))
    else: main(*sys.argv[1:])
