"""Everything that a GPU changes, in one run of a few minutes, as JSON.

python tests/benchmarks/bench_gpu.py [FILE] [--quick]

Learner against the raw loop, generation in words a second and in parts of the memory's speed, maps against the bare
forward pass, resnet34 at 224 pixels plain and with 16 bits. Every ratio is of medians of alternating runs. Without a
GPU it runs too, on the CPU and with less of all, to see that it is whole.
"""
import json
import sys
import time
import warnings
from functools import partial
from pathlib import Path

warnings.simplefilter("ignore")

import torch
from common import machine, paired, raw_loop
from fastai.text.models.awdlstm import awd_lstm_lm_config
from fastai.vision.all import OptimWrapper, default_device, resnet34
from torch import nn

from fastcourse.cam import cams
from fastcourse.core import plain_bars
from fastcourse.data import human_numbers
from fastcourse.generate import generate
from fastcourse.learner import tensor_learner
from fastcourse.text import lm_learner
from fastcourse.vision import cam_learner, folder_dls

IMAGES = Path(__file__).parents[2]/"images"
CUDA = torch.cuda.is_available()
QUICK = "--quick" in sys.argv or not CUDA
device = default_device()
sync = torch.cuda.synchronize if CUDA else (lambda: None)


def waited(f):
    "`f` until the GPU is done"
    def run():
        f()
        sync()
    return run


def ratio(a, b, n=5):
    ma, mb, r = paired(waited(a), waited(b), 1 if QUICK else n)
    return dict(ours=ma, peer=mb, ratio=r)


def learner():
    "tensor_learner against the loop by hand that keeps the same losses"
    n = 5 if QUICK else 100
    torch.manual_seed(0)
    letters = torch.arange(299) % 3
    small = lambda: nn.Sequential(nn.Embedding(3, 1), nn.Tanh(), nn.Linear(1, 3))
    wide = lambda: nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 2))
    res = {}
    for name, make, x, y in (("Embedding-Tanh-Linear, 299 rows", small, letters, (letters+1) % 3),
                             ("784-32-2, 12,396 rows", wide, torch.randn(12396, 784), torch.randint(2, (12396,)))):
        adam, loss_func = partial(OptimWrapper, opt=torch.optim.Adam), nn.CrossEntropyLoss()
        lrnr = tensor_learner(x, y, make(), loss_func, lr=0.01, opt_func=adam)
        model = make().to(device)
        raw = raw_loop(model, loss_func, x.to(device), y.to(device), torch.optim.Adam(model.parameters(), 0.01))
        res[name] = ratio(lambda: lrnr.fit(n), lambda: raw(n))
    return res


def copy_rate():
    "Bytes read a second by a copy that reads and writes 1 GB"
    a = torch.empty((1 << 28) >> (6 if QUICK else 0), device=device)
    b = torch.ones_like(a)
    a.copy_(b)
    sync()
    best = 1e9
    for _ in range(5):
        start = time.perf_counter()
        a.copy_(b)
        sync()
        best = min(best, time.perf_counter()-start)
    return 2*4*a.numel()/best


def generation():
    "Words a second, one text and many; bytes of weights that each word must read, as a part of what the memory gives"
    res, rate = {}, copy_rate()
    n = 20 if QUICK else 500
    small = dict(emb_sz=64, n_hid=128, n_layers=3)
    for name, config in (("AWD_LSTM of fastai, 20 M", awd_lstm_lm_config), ("64/128x3", small)):
        lrnr = lm_learner(human_numbers(20), config=config)
        lrnr.model.to(device)
        named = lrnr.model.named_parameters()
        weights = sum(p.numel() for k, p in named if "encoder.weight" not in k and "_raw" not in k)*4
        for texts in (1, 64, 1024):
            def run(): generate(lrnr, "one, two,", n, n=texts, greedy=True)
            run(), sync()
            start = time.perf_counter()
            run(), sync()
            took = time.perf_counter()-start
            row = dict(words_a_second=n*texts/took, us_a_step=took/n*1e6)
            if texts == 1: row["of_memory_rate"] = weights*n/took/rate
            res[f"{name}, {texts} texts"] = row
        res[f"{name}, fastai's predict"] = dict(us_a_step=fastai_predict(lrnr, 10 if QUICK else 50))
    return res | {"copy, GB a second": rate/1e9}


def fastai_predict(lrnr, n):
    from fastai.text.learner import LMLearner
    LMLearner.predict(lrnr, "one, two,", 5, no_bar=True)
    start = time.perf_counter()
    LMLearner.predict(lrnr, "one, two,", n, no_bar=True)
    sync()
    return (time.perf_counter()-start)/n*1e6


def step_alone():
    "One word of the 20 M network, the choice left out: with and without the recorded step, in 32 and in 16 bits"
    from fastcourse import generate as room
    lrnr = lm_learner(human_numbers(20), config=awd_lstm_lm_config)
    lrnr.model.to(device)
    net, res, rate = room._net(lrnr), {}, copy_rate()
    lstms, out = net.weights.lstms, net.weights.out
    nbytes = 4*(sum(a.numel()+b.numel() for a, b, *_ in lstms) - lstms[0][0].numel() + out.numel())
    last, n = torch.tensor([10], device=device), 20 if QUICK else 1000
    def us(step):
        step(last), sync()
        start = time.perf_counter()
        for _ in range(n): step(last)
        sync()
        return (time.perf_counter()-start)/n*1e6
    with torch.inference_mode():
        for name in ("32 bits", "16 bits"):
            if name == "16 bits":
                for i, (w, rows) in enumerate(zip(net.weights.lstms, net.products)):
                    both = i or net.table is None
                    net.products[i] = half_product(torch.cat([w[0], w[1]], 1) if both else w[1], device)
                net.out = half_product(net.weights.out, device)
            run = room._Run(net, 1)
            for how, step in (("as it comes", run.step), ("recorded", recorded(run, last))):
                t = us(step)
                res[f"{name}, {how}"] = dict(us=t, of_memory_rate=nbytes/(1+(name == "16 bits"))/(t*1e-6)/rate)
    return res


def recorded(run, last):
    """`run.step` as one CUDA graph: recorded once, a step's small operations start all at once.

    The product does not do this yet: this part tells what it would gain."""
    if not CUDA: return run.step
    ids, stream = last.clone(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream): run.step(ids)  # the first time, libraries ask for memory
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph): scores = run.step(ids)
    def step(new):
        ids.copy_(new)
        graph.replay()
        return scores
    return step


def half_product(w, device):
    "What 16 bits would give: the product alone in 16 bits"
    wt = w.t().contiguous().half() if device.type == "cuda" else w.t().contiguous().bfloat16()
    def product(x, bias, out=None):
        return torch.add((x.to(wt.dtype) @ wt).float(), bias, out=out)
    return product


def maps():
    "cams of a tensor that is on the device against the bare forward pass of the same batches, all classes"
    n, bs = (8, 4) if QUICK else (1024, 128)
    dls = folder_dls(IMAGES, size=224, bs=bs, num_workers=0)
    lrnr = cam_learner(dls, resnet34, pretrained=False)
    model, x = lrnr.model.to(device).eval(), torch.randn(n, 3, 224, 224, device=device)
    def forward():
        with torch.inference_mode():
            for o in x.split(bs): model(o).cpu()
    return ratio(lambda: cams(lrnr, x, bs=bs), forward)


def training():
    "Seconds of an epoch: lm_learner on human numbers, and the classifier of images/ at 96 pixels"
    lrnr = lm_learner(human_numbers(100 if QUICK else 2000))
    dls = folder_dls(IMAGES, size=96, bs=64, num_workers=0)
    seen = cam_learner(dls, resnet34, pretrained=False)
    res = {}
    for name, o in (("lm_learner, 2000 rows of human numbers", lrnr), ("resnet34, images/", seen)):
        if QUICK and o is seen: continue
        with o.no_bar(), o.no_logging():
            o.fit(1, 1e-3)
            start = time.perf_counter()
            o.fit(1, 1e-3)
            sync()
        res[name] = time.perf_counter()-start
    return res


def mixed():
    "A training step of resnet34 at 224 pixels: plain, 16 bits, 16 bits and channels last"
    bs = 4 if QUICK else 128
    x, y = torch.randn(bs, 3, 224, 224, device=device), torch.randint(10, (bs,), device=device)
    res = {}
    ways = ("32 bits", False, False), ("16 bits", True, False), ("16 bits, channels last", True, True)
    for name, half, last in ways:
        model = resnet34(num_classes=10).to(device)
        xx = x
        if last: model, xx = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        opt = torch.optim.SGD(model.parameters(), 0.01)
        def step():
            with torch.autocast(device.type, torch.float16 if CUDA else torch.bfloat16, enabled=half):
                loss = nn.functional.cross_entropy(model(xx), y)
            loss.backward()
            opt.step()
            opt.zero_grad()
        for _ in range(1 if QUICK else 5): step()
        sync()
        start, n = time.perf_counter(), 1 if QUICK else 30
        for _ in range(n): step()
        sync()
        res[name] = dict(pictures_a_second=bs*n/(time.perf_counter()-start))
    return res


def main():
    plain_bars()
    res = dict(machine=machine())
    for f in (learner, step_alone, generation, maps, mixed, training):
        start = time.perf_counter()
        try: res[f.__name__] = f()
        except Exception as e: res[f.__name__] = f"{type(e).__name__}: {e}"  # the other parts still tell
        print(f.__name__, f"{time.perf_counter()-start:.0f} s", json.dumps(res[f.__name__]), flush=True)
    files = [a for a in sys.argv[1:] if not a.startswith("-")]
    if files: open(files[0], "w").write(json.dumps(res, indent=1))


if __name__ == "__main__": main()
