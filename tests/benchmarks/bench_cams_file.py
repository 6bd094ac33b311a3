"""Maps of very many pictures to a file: python tests/benchmarks/bench_cams_file.py [100000]

First `cams(…, save=…)` against the bare forward pass over the same loader, in turn: a resnet34 at 112
pixels. Then the most memory of processes of their own that make the maps of 1,000 and 10,000 pictures of 24 pixels with
a small network, and of as many as the argument says (100,000 take about four minutes more). The files are links to a
hundred pictures. "maps" are what all maps together would take in memory.
"""
import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

from common import machine, paired, table

ABOUT = dict(warps=[], normalize=[[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], vocab=[f"c{i}" for i in range(10)])


def pictures(folder, n, side, kinds=100):
    "Names of `n` picture files; behind them are a hundred."
    import numpy as np
    from PIL import Image
    rng, first = np.random.default_rng(0), []
    folder.mkdir()
    for i in range(n):
        file = folder/f"{i:06}.jpg"
        if i < kinds: Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(file)
        else: os.link(folder/f"{i%kinds:06}.jpg", file)
        first.append(file)
    return first


def learner(side, body, width):
    import torch
    from fastai.vision.all import Learner, nn
    from fastcourse.bodies import ReadableNet, cam_head
    from fastcourse.vision import bare_dls
    torch.manual_seed(0)
    about = dict(ABOUT, resize=dict(kind="Resize", size=[side, side], method="squish", pad_mode="zeros"))
    dls = bare_dls(about)
    dls.valid.fake_l.num_workers = 0  # so that the time of this process is all of it
    return Learner(dls, ReadableNet(body, cam_head(width, 10)), loss_func=nn.CrossEntropyLoss())


def against_the_forward_pass(tmp, n=64, side=112, bs=32):
    import contextlib
    import io
    import torch
    from fastai.vision.all import resnet34
    from fastcourse.bodies import make_body
    from fastcourse.cam import cams
    from fastcourse.core import plain_bars
    from fastcourse.seen import picture_loader
    torch.set_num_threads(1)
    plain_bars()
    files, lrnr = pictures(tmp/"large", n, side), learner(side, make_body(resnet34, False)[0], 512)
    lrnr.model.eval()
    def forward():
        logits = torch.empty(n, 10)
        with torch.inference_mode():
            for i, (x, ok) in enumerate(picture_loader(lrnr.dls, files, bs)):
                logits[i*bs:i*bs+len(x)] = lrnr.model(x.as_subclass(torch.Tensor))
    def to_file():
        with contextlib.redirect_stdout(io.StringIO()): cams(lrnr, files, bs=bs, save=tmp/"large.npz")
    ours, bare, ratio = paired(to_file, forward, 7)
    return table([f"{n} files of {side} pixels", "cams to a file", "forward pass alone", "ratio", "wanted"],
                 [["resnet34, 10 classes", f"{ours:.2f} s", f"{bare:.2f} s", f"{ratio:.3f}", "at most 1.05"]])


def anonymous():
    "Memory of this process that is no file's, MB; None where the system does not tell."
    try: lines = Path("/proc/self/status").read_text().splitlines()
    except OSError: return None
    return next(int(o.split()[1])/1e3 for o in lines if o.startswith("RssAnon"))


def one(folder, n):
    "In a process of its own: seconds, and memory before and at the most."
    import resource
    import threading
    import time
    import torch
    from fastai.vision.all import nn
    from fastcourse.cam import cams
    torch.set_num_threads(1)
    folder, most, done = Path(folder), [0.], threading.Event()
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
    lrnr, files = learner(24, body, 8), sorted(folder.iterdir())[:n]
    cams(lrnr, files[:200], bs=64, save=folder.parent/"tiny.npz")
    def watch():
        while not done.wait(0.05): most[0] = max(most[0], anonymous() or 0)
    watcher, before = threading.Thread(target=watch), anonymous() or 0
    watcher.start()
    start, cpu = time.perf_counter(), time.process_time()
    m = cams(lrnr, files, bs=64, save=folder.parent/"tiny.npz")
    took, cpu = time.perf_counter()-start, time.process_time()-cpu
    done.set()
    watcher.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3
    print(json.dumps(dict(n=len(m), s=took, cpu=cpu, before=before, most=most[0], peak=peak,
                          maps=m.maps.numel()*4/1e6)))


def grow(tmp, sizes):
    "What `one` tells of each size."
    pictures(tmp/"tiny", max(sizes), 24)
    rows = []
    for n in sizes:
        command = [sys.executable, __file__, "--one", str(tmp/"tiny"), str(n)]
        out = subprocess.run(command, capture_output=True, text=True)
        assert not out.returncode, out.stderr[-2000:]
        rows.append(json.loads(out.stdout.splitlines()[-1]))
    return rows


def exponent(xs, ys):
    "y grows with x to this power, between the first and the last."
    return math.log(ys[-1]/ys[0])/math.log(xs[-1]/xs[0])


def memory_table(rows):
    mb = lambda *sizes: [f"{o:.0f} MB" for o in sizes]
    lines = [[f"{o['n']:,}", f"{o['s']:.1f} s", f"{o['cpu']:.1f} s",
              *mb(o["maps"], o["before"], o["most"], o["most"]-o["before"], o["peak"])] for o in rows]
    head = ["pictures", "time", "of a processor", "maps", "memory before", "at the most", "more", "with mapped files"]
    text = table(head, lines)
    if len(rows) < 2: return text
    of = lambda k: exponent([o["n"] for o in rows], [o[k] for o in rows])
    return f"{text}\n\nto the power of the pictures: processor time {of('cpu'):.2f}, memory {of('most'):.2f}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]: one(sys.argv[2], int(sys.argv[3]))
    else:
        print(machine(), end="\n\n")
        with tempfile.TemporaryDirectory() as d:
            print(against_the_forward_pass(Path(d)), end="\n\n", flush=True)
            print(memory_table(grow(Path(d), [1000, 10_000, *map(int, sys.argv[1:])])))
