"""Class activation maps against a bare forward pass, against grad-cam and torchcam, and against the course's loop.

python tests/benchmarks/bench_cam.py [--quick]

resnet34 at 224 pixels, batches of 32, untrained: times do not depend on the weights.

The peers come with pip install -e '.[dev]'. All take the same loaded batch, but for the part about files.
"""
import contextlib
import io
import sys
import tempfile
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import numpy as np
import torch
from fastai.vision.all import Image, Learner, PILImage, default_device, defaults, first, nn, resnet34
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchcam.methods import GradCAM as TorchCAM

from common import machine, paired, table
from fastcourse import cam
from fastcourse.core import plain_bars
from fastcourse.bodies import cam_head, make_body
from fastcourse.vision import bare_dls

plain_bars()
quick = "--quick" in sys.argv
n_pairs, bs, side, n_classes = (1 if quick else 5), 32, 224, 10
about = dict(resize=dict(kind="Resize", size=[side, side], method="crop", pad_mode="reflection"), warps=[],
             vocab=[f"class{i}" for i in range(n_classes)], normalize=[[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
torch.manual_seed(0)
lrnr = Learner(bare_dls(about), nn.Sequential(make_body(resnet34, False)[0], cam_head(512, n_classes)),
               loss_func=nn.CrossEntropyLoss())
device = default_device()
model, x = lrnr.model.to(device).eval(), torch.randn(bs, 3, side, side, device=device)
body, linear = model[0], model[1][2]


def silent(f):
    "`f` without its lines of progress."
    def run(*args, **kwargs):
        with contextlib.redirect_stdout(io.StringIO()): return f(*args, **kwargs)
    return run


cams, gradcam = silent(cam.cams), silent(cam.gradcam)


def forward():
    with torch.inference_mode():
        return model(x).cpu()


def one_class():
    with torch.inference_mode():
        return torch.einsum("c,nchw->nhw", linear.weight[0], body(x)).cpu()


def course(batches):
    "Picture by picture, as in the course: maps, the class, its probability, each with a forward pass of its own."
    for x1 in batches:
        x1 = x1.to(device)
        torch.einsum("kc,chw->khw", linear.weight, body(x1).squeeze(0)).detach().cpu()
        model(x1).argmax().item()
        model(x1).softmax(1).max().item()


def row(name, peer, ours, wanted, n=n_pairs):
    a, b, ratio = paired(peer, ours, n)
    return [name, f"{a*1e3:.0f} ms", f"{b*1e3:.0f} ms", f"{ratio:.2f}x", wanted]


def against_the_forward_pass():
    "Here the ratio is ours over the other, so that 1 is the floor."
    rows = []
    for name, other in (("cams / bare forward pass", forward),
                        (f"cams, all {n_classes} classes / one class", one_class)):
        a, b, ratio = paired(lambda: cams(lrnr, x, bs=bs), other, n_pairs)
        rows.append([name, f"{a*1e3:.0f} ms", f"{b*1e3:.0f} ms", f"{ratio:.3f}", "at most 1.05"])
    return table([f"{bs} loaded pictures", "cams", "the other", "ratio", "wanted"], rows)


def against_others():
    rows = []
    all_classes = lambda: cams(lrnr, x, bs=bs)
    targets = [ClassifierOutputTarget(0)]*bs
    with GradCAM(model, [body]) as peer:
        rows.append(row("Grad-CAM of grad-cam, one class", lambda: peer(x, targets), all_classes, "3x"))
    with TorchCAM(model, target_layer=body) as peer:
        rows.append(row("Grad-CAM of torchcam, one class", lambda: peer(0, model(x))[0].cpu(), all_classes, ""))
    rows.append(row(f"our gradcam, all {n_classes} classes", lambda: gradcam(lrnr, x, bs=bs), all_classes, ""))
    rows.append(row("the course's loop, one picture at a time", lambda: course(x.split(1)), all_classes, "10x",
                    min(n_pairs, 3)))
    return table([f"{bs} loaded pictures", "the other", "cams", "ratio", "wanted"], rows)


def from_files():
    "The same from picture files: the loop makes a DataLoader for each picture, as in the course."
    with tempfile.TemporaryDirectory() as d:
        rng = np.random.default_rng(0)
        files = [Path(d)/f"{i:02d}.jpg" for i in range(bs)]
        for f in files: Image.fromarray(rng.integers(0, 256, (240, 320, 3), np.uint8)).save(f)
        rows = []
        for name, n in (("with fastai's usual workers", defaults.cpus), ("without workers", 0)):
            loop = lambda: course(first(lrnr.dls.test_dl([PILImage.create(f)], num_workers=n))[0] for f in files)
            rows.append(row(f"the course's loop, {name}", loop, lambda: cams(lrnr, files, bs=bs), "10x",
                            min(n_pairs, 3)))
    return table([f"{bs} files", "the other", "cams", "ratio", "wanted"], rows)


if __name__ == "__main__":
    print(machine(), end="\n\n")
    for part in (against_the_forward_pass, against_others, from_files):
        print(part(), end="\n\n", flush=True)
