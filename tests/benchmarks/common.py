"""What the benchmarks share: two things timed in turn in one run, compared by their medians.

The machines are noisy, so a time alone says little; a ratio of two medians from alternating runs says much more.
"""
import platform
import statistics
import time
from collections.abc import Callable


def seconds(f: Callable) -> float:
    "Wall time of one call of `f`."
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def paired(
    a: Callable,
    b: Callable,  # The peer that `a` is compared with
    n: int = 5,  # Number of pairs, after one pair that is not counted
) -> tuple[float, float, float]:
    "Median seconds of `a`, of `b`, and median(a) / median(b), from `n` alternating runs."
    a(), b()
    times = {a: [], b: []}
    for i in range(n):
        # who comes second may find the machine warmer
        for f in (a, b) if i % 2 else (b, a): times[f].append(seconds(f))
    ma, mb = (statistics.median(times[f]) for f in (a, b))
    return ma, mb, ma / mb


def raw_loop(model, loss_func: Callable, x, y, opt) -> Callable:
    "The loop by hand: a function that trains `n` epochs more, full batch, and keeps both losses of each."
    import torch

    def train(n):
        losses = []
        for _ in range(n):
            model.train()
            loss = loss_func(model(x), y)
            loss.backward()
            opt.step()
            opt.zero_grad()
            model.eval()
            with torch.no_grad(): valid_loss = loss_func(model(x), y)
            losses.append((loss.item(), valid_loss.item()))

    return train


def one_by_one(make_model: Callable, loss_func: Callable, x, y, epochs: int, starts: int, device) -> list[list[float]]:
    "The loop over starts, and in it the loop over epochs: the losses, (starts, epochs). torch's Adam with lr 0.1."
    import torch
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
        losses.append(torch.stack(own).tolist())  # waits for a GPU
    return losses


def table(headers: list[str], rows: list[list]) -> str:
    "A markdown table."
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)


def machine() -> str:
    "One line about this machine, for the head of a table."
    import torch
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {gpu}"
