"""Many starts at once against the nested loop and another build: python tests/benchmarks/bench_replicas.py [OTHER]

OTHER is the folder of another checkout of fastcourse (the environment variable FASTCOURSE_OTHER will do, too). It runs
in a process of its own, which waits while this one works. 25 starts, torch's Adam with lr 0.1, cross entropy, one
thread on a CPU (or a GPU, where there is one). All of a row run in turn, and the ratios are those of the medians.

The nested loop trains one start after another with the same modules, and keeps their losses. Its time grows with the
number of starts, so for the recurrent networks it trains 1 of the 25 and its time is multiplied by 25. The last rows
are all of lesson 4.1: H = 3, 4, 8; 25 starts each; 500 epochs. Growth: bench_replicas_growth.py.
"""
import contextlib
import io
import os
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from fastai.torch_core import default_device
from torch import nn

from common import machine, one_by_one, seconds, table
from fastcourse.nets import SeqNet
from fastcourse.replicas import compare_replicas, train_replicas

STARTS = 25
device, loss_func = default_device(), nn.CrossEntropyLoss()
letters = torch.arange(4).repeat(100)  # 'abcd', 399 pairs
states = torch.tensor([0, 1, 2, 0, 1, 3]*100)  # 'abcabC', 599 pairs
coin = torch.tensor([0, 1, 2]*50)  # as long as in lesson 4.2: 149 pairs


def one_hot(tokens): return F.one_hot(tokens[:-1], 4).float(), tokens[1:]
def embedding(): return nn.Sequential(nn.Embedding(4, 1), nn.Tanh(), nn.Linear(1, 4))
def net(kind, h): return SeqNet(kind(4, h), nn.Linear(h, 4))


# name: (make_model, x, y, epochs, starts that the nested loop trains, runs)
NETS = {"Embedding(4,1)-Tanh-Linear, 399 rows, 50 epochs": (embedding, letters[:-1], letters[1:], 50, STARTS, 9),
        **{f"{kind.__name__}(4,{h})-Linear, {len(x)-1} steps, 100 epochs": (partial(net, kind, h), *one_hot(x), 100, 1,
                                                                            3)
           for kind, h, x in ((nn.RNN, 3, states), (nn.RNN, 8, states), (nn.LSTM, 16, coin), (nn.GRU, 16, coin))}}
ALL_OF_4_1 = "all of lesson 4.1: RNN, H = 3, 4, 8, 500 epochs"


def wait():
    "A GPU works on after Python has gone on."
    if device.type == "cuda": torch.cuda.synchronize()


def together(name):
    if name == ALL_OF_4_1:
        settings = {h: partial(net, nn.RNN, h) for h in (3, 4, 8)}
        compare_replicas(settings, *one_hot(states), loss_func, threshold=0.1, n=STARTS, epochs=500)
    else:
        make_model, x, y, epochs, *_ = NETS[name]
        res = train_replicas(make_model, x, y, loss_func, n=STARTS, epochs=epochs)
        assert not res.alone, res.alone
    wait()


def nested(name):
    "The loop over starts, and in it the loop over epochs."
    make_model, x, y, epochs, starts, _ = NETS[name]
    one_by_one(make_model, loss_func, x, y, epochs, starts, device)


def quiet(f, name):
    with contextlib.redirect_stdout(io.StringIO()): return seconds(partial(f, name))


def work():
    "In the other process: a name comes in, the seconds go out."
    for line in sys.stdin: print(quiet(together, line.rstrip("\n")), flush=True)


class Other:
    "The same rows in another build."
    def __init__(self, folder):
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent)])}
        self.process = subprocess.Popen([sys.executable, __file__, "--work"], env=env, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def __call__(self, name):
        print(name, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def measure(name, other):
    *_, starts, runs = NETS.get(name, (0, 2))
    peers = {"mine": partial(quiet, together), **({"other": other} if other else {}),
             **({"nested": lambda name: quiet(nested, name)*STARTS/starts} if starts else {})}
    times = {k: [] for k in peers}
    for i in range(runs + 1):
        for k in [*peers][::1 if i % 2 else -1]:
            if i or runs > 2: times[k].append(peers[k](name))
            if i == 0: times[k].clear()  # the first round is not counted
    t = {k: statistics.median(o) for k, o in times.items()}
    nested_s = t.get("nested")
    return [name, f"{t['mine']:.3f}", f"{nested_s:.2f}" if nested_s else "",
            f"{nested_s/t['mine']:.1f}" if nested_s else "",
            *([f"{t['other']:.3f}", f"{t['mine']/t['other']:.2f}"] if other else [])]


def main(folder=""):
    torch.set_num_threads(1)
    other = Other(folder) if folder else None
    print(machine())
    heads = ["network", "together, s", "one by one, s", "times as fast",
             *(["other build, s", "time/other"] if other else [])]
    print(table(heads, []))
    for name in (*NETS, ALL_OF_4_1): print(table(measure(name, other), []).split("\n")[0], flush=True)
    if other:
        other.process.stdin.close()
        other.process.wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["--work"]:
        torch.set_num_threads(1)
        work()
    else: main(*(sys.argv[1:] or [os.environ.get("FASTCOURSE_OTHER", "")]))
