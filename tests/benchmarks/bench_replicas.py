"""Many starts at once against the nested loop: python tests/benchmarks/bench_replicas.py

25 starts, torch's Adam with lr 0.1, cross entropy, one thread on a CPU (or a GPU, where there is one). The nested loop
trains one start after another with the same modules, and keeps their losses. Its time grows with the number of starts,
so for the recurrent networks it trains 1 of the 25 and its time is multiplied by 25. Each row is timed in turn with the
loop, and the ratio is that of the medians. For the first row there is a second peer: torch.func's vmap over the starts,
as in torch's own tutorial on ensembles. The last lines are all of row 4.1 of the lessons (H = 3, 4, 8; 500 epochs), on a
CPU in two processes of one thread each.
"""
import time

import torch
import torch.nn.functional as F
from fastai.torch_core import default_device
from joblib import parallel_config
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from common import machine, paired, table
from fastcourse.nets import SeqNet
from fastcourse.replicas import compare_replicas, train_replicas

STARTS = 25
device, loss_func = default_device(), nn.CrossEntropyLoss()


def wait():
    "A GPU works on after Python has gone on."
    if device.type == "cuda": torch.cuda.synchronize()


def nested(make_model, x, y, epochs, starts):
    "The loop over starts, and in it the loop over epochs."
    x, y, losses = x.to(device), y.to(device), []
    for seed in range(starts):
        torch.manual_seed(seed)
        model = make_model().to(device)
        optimizer, own = torch.optim.Adam(model.parameters(), lr=0.1), []
        for _ in range(epochs):
            loss = loss_func(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            own.append(loss.detach())
        losses.append(torch.stack(own).tolist())
    return losses


def by_vmap(make_model, x, y, epochs):
    "torch.func: one function for the loss of a start, vmapped over their stacked parameters."
    x, y, models = x.to(device), y.to(device), []
    for seed in range(STARTS):
        torch.manual_seed(seed)
        models.append(make_model().to(device))
    params, _ = stack_module_state(models)

    def loss(params): return F.cross_entropy(functional_call(models[0], params, (x,)), y)

    step = vmap(grad_and_value(loss))
    optimizer, losses = torch.optim.Adam(params.values(), lr=0.1), []
    for _ in range(epochs):
        grads, own = step(params)
        for k, p in params.items(): p.grad = grads[k]
        optimizer.step()
        losses.append(own.detach())
    return torch.stack(losses, 1).tolist()


letters = torch.arange(4).repeat(100)  # 'abcd', 399 pairs
states = torch.tensor([0, 1, 2, 0, 1, 3]*100)  # 'abcabC', 599 pairs
coin = torch.tensor([0, 1, 2]*50)  # as long as row 4.2: 149 pairs


def one_hot(tokens): return F.one_hot(tokens[:-1], 4).float(), tokens[1:]


def row(name, make_model, x, y, epochs, starts, target, n):
    def together(): (train_replicas(make_model, x, y, loss_func, n=STARTS, epochs=epochs), wait())
    def loop(): (nested(make_model, x, y, epochs, starts), wait())
    mine, theirs, _ = paired(together, loop, n)
    theirs *= STARTS/starts
    return [name, f"{mine:.3f}", f"{theirs:.2f}", f"{theirs/mine:.1f}", target]


def main():
    torch.set_num_threads(1)
    embedding = ("Embedding(4,1)-Tanh-Linear, 399 rows, 50 epochs",
                 lambda: nn.Sequential(nn.Embedding(4, 1), nn.Tanh(), nn.Linear(1, 4)), letters[:-1], letters[1:], 50)
    recurrent = [(f"{kind.__name__}(4,{h})-Linear, {len(y)} steps, 100 epochs",
                  lambda kind=kind, h=h: SeqNet(kind(4, h), nn.Linear(h, 4)), x, y, 100, 1, target, 3)
                 for kind, h, (x, y), target in ((nn.RNN, 3, one_hot(states), "45"), (nn.RNN, 8, one_hot(states), ""),
                                                 (nn.LSTM, 16, one_hot(coin), "3"), (nn.GRU, 16, one_hot(coin), "3"))]
    print(machine())
    rows = [row(*embedding, STARTS, "25", 9)] + [row(*o) for o in recurrent]
    name, *args = embedding
    def together(): (train_replicas(*args[:3], loss_func, epochs=50), wait())
    mine, theirs, _ = paired(together, lambda: (by_vmap(*args), wait()), 9)
    rows.append([name + "; peer: torch.func", f"{mine:.3f}", f"{theirs:.2f}", f"{theirs/mine:.1f}", ""])
    print(table(["network", "together, s", "one by one, s", "times as fast", "at least"], rows))

    x, y = one_hot(states)
    settings = {f"H = {h}": lambda h=h: SeqNet(nn.RNN(4, h), nn.Linear(h, 4)) for h in (3, 4, 8)}
    jobs = 1 if device.type == "cuda" else 2
    start = time.perf_counter()
    with parallel_config(n_jobs=jobs):
        t = compare_replicas(settings, x, y, loss_func, threshold=0.01, n=STARTS, epochs=500)
    wait()
    seconds = time.perf_counter()-start
    print(f"\nRow 4.1, 75 starts, 500 epochs: {seconds:.1f} s in {jobs} process(es), their start included (at most 20 s)\n")
    print(t.drop(columns="replicas").round(3))


if __name__ == "__main__": main()
