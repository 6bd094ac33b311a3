"""25 starts together on a GPU against the nested loop there, and their losses against the CPU's: gpu_replicas.py

Run as `python tests/benchmarks/gpu_replicas.py`; it needs a GPU and about a minute, and prints one line of JSON.
`together` and `nested` (one start after another; 1 start, times 25) are seconds for EPOCHS epochs, medians of runs in
turn. `apart` says how far the losses of 20 epochs in float64 are from those on the CPU.
"""
import json
import statistics
import sys
from functools import partial

import torch
from fastai.torch_core import default_device
from torch import nn

from bench_replicas import STARTS, coin, embedding, letters, loss_func, net, one_hot, states
from common import machine, one_by_one, seconds
from fastcourse.replicas import train_replicas

EPOCHS, RUNS = 50, 3
NETS = {"RNN(4,3), 599 steps": (partial(net, nn.RNN, 3), *one_hot(states)),
        "LSTM(4,16), 149 steps": (partial(net, nn.LSTM, 16), *one_hot(coin)),
        "GRU(4,16), 149 steps": (partial(net, nn.GRU, 16), *one_hot(coin)),
        "Embedding-Tanh-Linear, 399 rows": (embedding, letters[:-1], letters[1:])}


def together(name, epochs=EPOCHS, **kwargs):
    make_model, x, y = NETS[name]
    res = train_replicas(make_model, x, y, loss_func, n=STARTS, epochs=epochs, progress=False, **kwargs)
    torch.cuda.synchronize()
    return res


def nested(name):
    make_model, x, y = NETS[name]
    one_by_one(make_model, loss_func, x, y, EPOCHS, 1, default_device())


def apart(name):
    "The largest difference from the losses on the CPU, in float64."
    make_model, x, y = NETS[name]
    x = x.double() if x.is_floating_point() else x
    there, here = (train_replicas(lambda: make_model().double(), x, y, loss_func, n=STARTS, epochs=20, progress=False,
                                  device=d) for d in (default_device(), "cpu"))
    return float((there.losses - here.losses).abs().max().max()), there.alone


def measure(name):
    ways, times = {"together": together, "nested": nested}, {}
    for i in range(RUNS + 1):
        for k, f in [*ways.items()][::1 if i % 2 else -1]:
            s = seconds(partial(f, name))
            if i: times.setdefault(k, []).append(s)  # the first round is not counted
    t = {k: statistics.median(o)*(STARTS if k == "nested" else 1) for k, o in times.items()}
    difference, alone = apart(name)
    return {**{k: round(s, 4) for k, s in t.items()}, "times_as_fast": round(t["nested"]/t["together"], 1),
            "apart": difference, "agrees": difference < 1e-9, **({"alone": alone} if alone else {})}


def main():
    if not torch.cuda.is_available(): sys.exit("no GPU here")
    res = {"machine": machine(), "starts": STARTS, "epochs": EPOCHS}
    for name in NETS:
        try: res[name] = measure(name)
        except Exception as e: res[name] = f"{type(e).__name__}: {e}"[:600]  # the other rows go on
    res["peak_MiB"] = torch.cuda.max_memory_allocated() >> 20
    print(json.dumps(res))


if __name__ == "__main__": main()
