"""Maps of a vision transformer trained from scratch on `images`: accuracy, pointing, Grid Pointing Game, identities.

python tests/benchmarks/bench_vit.py                                  # a small ViT, patches of 8; prints JSON
python tests/benchmarks/bench_vit.py --epochs 2 --picture maps.png
python tests/benchmarks/bench_vit.py --arch swin_tiny_patch4_window7_224 --stride 8 --epochs 40    # with a GPU

1600 pictures are few for a transformer: it has to learn from them what a convolution is built with. So it is small, its
patches are small, and the pictures are flipped, moved and lit differently each time. It runs on fastai's default
device, in some minutes on two cores. `--arch` trains a network of timm as `cam_learner` makes it.
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


def loaders(bs):
    on_gpu = default_device().type != "cpu"
    return folder_dls(IMAGES, size=112, bs=bs, num_workers=min(8, os.cpu_count()) if on_gpu else 0,
                      batch_tfms=[*aug_transforms(max_rotate=5, max_warp=0., max_zoom=1.1),
                                  Normalize.from_stats(*imagenet_stats)])


def learner(dls, a):
    if a.arch: return cam_learner(dls, a.arch, pretrained=False, stride=a.stride, wd=0.05)
    net = timm.create_model("vit_tiny_patch16_224", img_size=112, patch_size=a.patch, embed_dim=a.dim, depth=a.depth,
                            num_heads=a.dim//32, num_classes=0, dynamic_img_size=True)
    return Learner(dls, torch.nn.Sequential(TimmMaps(net, tokens=True), cam_head(a.dim, 2)), metrics=accuracy, wd=0.05)


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
    p.add_argument("--epochs", type=int, default=24)
    p.add_argument("--bs", type=int, default=32)
    p.add_argument("--dim", type=int, default=96, help="numbers of a token")
    p.add_argument("--depth", type=int, default=4, help="blocks")
    p.add_argument("--patch", type=int, default=8, help="pixels on a side")
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
    dls = loaders(a.bs)
    lrnr = learner(dls, a)
    with lrnr.no_logging(): lrnr.fit_one_cycle(a.epochs, a.lr)
    trained = time.perf_counter()-start
    boxes, files = read_boxes(IMAGES), picture_files(IMAGES/"test")
    m, figures = measured(lrnr, files, cams, boxes, a.road)
    g, other = measured(lrnr, files, gradcam, boxes, a.road)
    m.show(boxes=boxes, which="true").savefig(a.picture, dpi=70)
    right, n = sum(x == y for x, y in zip(m.predicted, m.labels)), len(m)
    with torch.no_grad(): scores = lrnr.model.eval()(m.batch(range(min(16, len(m)))).to(dls.device)).cpu()
    h, w = m.maps.shape[2:]
    print(json.dumps({
        "machine": machine(), "device": str(default_device()), "network": a.arch or vars(a), "cells": [h, w],
        "seconds": {"training": round(trained, 1), "all": round(time.perf_counter()-start, 1)},
        "accuracy": [round(o, 4) for o in (right/n, *wilson_interval(right, n))],
        "losses": [round(float(o), 4) for o in lrnr.recorder.values[-1]],
        "mean of a map - logit, largest": float((m.maps[:16].mean((2, 3))-scores).abs().max()),
        "Grad-CAM - positive part of the map/(h·w), largest": float((g.maps-m.maps.relu()/(h*w)).abs().max()),
        "CAM": figures, "Grad-CAM": other, "picture": str(a.picture)}, indent=1, ensure_ascii=False, default=str))


if __name__ == "__main__": main()
