"""Maps of a vision transformer trained from scratch on `images`: accuracy, pointing, Grid Pointing Game, identities.

python tests/benchmarks/bench_vit.py                    # a short training and the CAM; prints JSON
python tests/benchmarks/bench_vit.py --long             # up to ten minutes on a CPU: the figures of the README
python tests/benchmarks/bench_vit.py --long --arch swin_tiny_patch4_window7_224 --size 112 --epochs 40    # with a GPU

1600 pictures are few for a transformer that has to find out for itself what a convolution is built with. So the
patches are embedded by the first two stages of a small ResNet, as in the hybrids of Dosovitskiy and others (ICLR 2021):
a token is a cell of 8 pixels, and three blocks of attention stand behind it. `--arch` trains a network of timm as
`cam_learner` makes it.

After 3 epochs accuracy is 0.80, and the maps of the zeros lie on the digits (pointing game 0.47); after 10 epochs
accuracy is 0.98, and the maps spare the digits.
"""
import argparse
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import timm
import torch
from common import machine
from timm.layers import HybridEmbed

from fastcourse.late import late_imports
with late_imports():
    from fastai.vision.all import Learner, Normalize, accuracy, aug_transforms, default_device, imagenet_stats, set_seed

from fastcourse.bodies import TimmMaps, cam_head
from fastcourse.cam import cams, gradcam
from fastcourse.cam_metrics import (energy_pointing_game, grid_pointing_game, max_box_acc, model_randomisation,
                                    pointing_game, road)
from fastcourse.core import plain_bars, wilson_interval
from fastcourse.pictures import picture_files
from fastcourse.scenes import read_boxes
from fastcourse.vision import cam_learner, folder_dls

IMAGES = Path(__file__).parents[2]/"images"


def loaders(size, bs):
    on_gpu = default_device().type != "cpu"
    return folder_dls(IMAGES, size=size, bs=bs, num_workers=min(8, os.cpu_count()) if on_gpu else 0,
                      batch_tfms=[*aug_transforms(max_rotate=5, max_warp=0., max_zoom=1.1),
                                  Normalize.from_stats(*imagenet_stats)])


class Stem(torch.nn.Module):
    "The first two stages of timm's resnet10t: (N, 3, H, W) to (N, 128, H/8, W/8)."
    def __init__(self):
        super().__init__()
        self.stages = timm.create_model("resnet10t", features_only=True, out_indices=[2])

    def forward(self, x): return self.stages(x)[0]


def learner(dls, a):
    if a.arch: return cam_learner(dls, a.arch, pretrained=False, stride=a.stride, wd=0.05)
    net = timm.create_model("vit_tiny_patch16_224", img_size=a.size, patch_size=1, embed_dim=96, depth=a.depth,
                            num_heads=3, num_classes=0, dynamic_img_size=True,
                            embed_layer=partial(HybridEmbed, backbone=Stem()))
    return Learner(dls, torch.nn.Sequential(TimmMaps(net, tokens=True), cam_head(96, 2)), metrics=accuracy, wd=0.05)


def rounded(s): return {k: round(float(v), 4) for k, v in s.items()}


def measured(lrnr, files, explain, boxes, n_road):
    "The figures of one kind of map."
    m = explain(lrnr, files)
    return m, {"pointing": rounded(pointing_game(m, boxes)), "energy": rounded(energy_pointing_game(m, boxes)),
               "box": rounded(max_box_acc(m, boxes)),
               "grid": rounded(grid_pointing_game(partial(explain, lrnr), files)),
               "road": rounded(road(explain(lrnr, files[::max(1, len(files)//n_road)]), lrnr)),
               "randomisation": rounded(model_randomisation(lrnr, files[:40], explain))}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--long", action="store_true", help="10 epochs, and the measures of Grad-CAM too")
    p.add_argument("--epochs", type=int, help="3, with --long 10")
    p.add_argument("--size", type=int, default=64, help="pixels on a side")
    p.add_argument("--bs", type=int, default=32)
    p.add_argument("--depth", type=int, default=3, help="blocks of attention")
    p.add_argument("--arch", help="a timm network in its place")
    p.add_argument("--stride", type=int, help="where to cut it")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--road", type=int, default=40, help="pictures for ROAD")
    p.add_argument("--picture", type=Path, default=Path(tempfile.gettempdir())/"vit_maps.png",
                   help="draw the maps here")
    a = p.parse_args()
    plain_bars()
    set_seed(a.seed)
    start = time.perf_counter()
    dls = loaders(a.size, a.bs)
    lrnr = learner(dls, a)
    epochs = a.epochs or (10 if a.long else 3)
    with lrnr.no_logging(): lrnr.fit_one_cycle(epochs, a.lr)
    trained = time.perf_counter()-start
    boxes, files = read_boxes(IMAGES), picture_files(IMAGES/"test")
    m, figures = measured(lrnr, files, cams, boxes, a.road)
    g, other = measured(lrnr, files, gradcam, boxes, a.road) if a.long else (gradcam(lrnr, files), "with --long")
    m.show(boxes=boxes, which="true").savefig(a.picture, dpi=70)
    right, n = sum(x == y for x, y in zip(m.predicted, m.labels)), len(m)
    with torch.no_grad(): scores = lrnr.model.eval()(m.batch(range(min(16, len(m)))).to(dls.device)).cpu()
    h, w = m.maps.shape[2:]
    print(json.dumps({
        "machine": machine(), "device": str(default_device()),
        "network": a.arch or f"resnet10t to stride 8, {a.depth} block(s) of attention",
        "pixels": a.size, "cells": [h, w], "epochs": epochs,
        "seconds": {"training": round(trained, 1), "all": round(time.perf_counter()-start, 1)},
        "accuracy": [round(o, 4) for o in (right/n, *wilson_interval(right, n))],
        "losses": [round(float(o), 4) for o in lrnr.recorder.values[-1]],
        "mean of a map - logit, largest": float((m.maps[:16].mean((2, 3))-scores).abs().max()),
        "Grad-CAM - positive part of the map/(h·w), largest": float((g.maps-m.maps.relu()/(h*w)).abs().max()),
        "CAM": figures, "Grad-CAM": other, "picture": str(a.picture)}, indent=1, ensure_ascii=False, default=str))


if __name__ == "__main__": main()
