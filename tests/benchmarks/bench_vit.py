"""Maps of a vision transformer trained from scratch on `images`: accuracy, pointing, Grid Pointing Game, identities.

python tests/benchmarks/bench_vit.py                     # 40 epochs of a small ViT, 96 pixels, patches of 8
python tests/benchmarks/bench_vit.py --epochs 2 --picture maps.png

1600 pictures are few for a transformer: it has to learn from them what a convolution is built with. So it is small, its
patches are small, and the pictures are flipped, moved and lit differently each time.
"""
import argparse
import time
from functools import partial
from pathlib import Path

import torch
from common import machine, table
from fastcourse.late import late_imports
with late_imports():
    from fastai.vision.all import Normalize, aug_transforms, imagenet_stats, set_seed

from fastcourse.cam import cams, gradcam
from fastcourse.cam_metrics import (energy_pointing_game, grid_pointing_game, model_randomisation, pointing_game, road)
from fastcourse.core import plain_bars
from fastcourse.scenes import read_boxes
from fastcourse.vision import cam_learner, folder_dls

IMAGES = Path(__file__).parents[2]/"images"


def learner(size, name, stride):
    dls = folder_dls(IMAGES, size=size, bs=32, num_workers=0,
                     batch_tfms=[*aug_transforms(max_rotate=5, max_warp=0., max_zoom=1.1),
                                 Normalize.from_stats(*imagenet_stats)])
    return cam_learner(dls, name, pretrained=False, stride=stride, wd=0.05)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--epochs", type=int, default=40)
    p.add_argument("--size", type=int, default=112)
    p.add_argument("--arch", default="swin_tiny_patch4_window7_224", help="a timm network")
    p.add_argument("--stride", type=int, default=8)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--picture", type=Path, help="draw the maps here")
    a = p.parse_args()
    plain_bars()
    print(machine())
    set_seed(a.seed)
    start = time.perf_counter()
    lrnr = learner(a.size, a.arch, a.stride)
    lrnr.fit_one_cycle(a.epochs, a.lr)
    print(f"{a.arch}, stride {a.stride}, {a.epochs} epochs of {a.size} pixels, seed {a.seed}: "
          f"{time.perf_counter()-start:.0f} s")
    boxes, rows = read_boxes(IMAGES), []
    for label, f in (("CAM", cams), ("Grad-CAM", gradcam)):
        m = f(lrnr, IMAGES/"test")
        point, energy = pointing_game(m, boxes), energy_pointing_game(m, boxes)
        grid, filled = grid_pointing_game(partial(f, lrnr), IMAGES/"test"), road(m, lrnr)
        random = model_randomisation(lrnr, IMAGES/"test", f)
        rows.append([label, f"{sum(x == y for x, y in zip(m.predicted, m.labels))/len(m):.3f}", *(
            f"{s[k]:.3f} ({s[k+'_low']:.2f} to {s[k+'_high']:.2f})"
            for s, k in ((point, "hit"), (energy, "energy"), (grid, "grid"), (filled, "road"))),
                     f"{random['head']:.2f}, {random['all']:.2f}", int(point.flat)])
        if label == "CAM":
            rows.insert(0, ["centre", "", f"{point.centre:.3f}", f"{energy.centre:.3f}", f"{grid.centre:.3f}",
                            f"{filled.centre:.3f}", "", ""])
            with torch.no_grad(): scores = lrnr.model.eval()(m.batch(range(8)).to(lrnr.dls.device)).cpu()
            print("identity: mean of a map against the network's own logit, largest difference "
                  f"{(m.maps[:8].mean((2, 3))-scores).abs().max():.1e}")
            if a.picture: m.show(boxes=boxes, which="true").savefig(a.picture, dpi=60)
        else:
            h, w = m.maps.shape[2:]
            print(f"identity: Grad-CAM against the positive part of the map over {h*w} places, "
                  f"largest difference {(m.maps-cams(lrnr, IMAGES/'test').maps.relu()/(h*w)).abs().max():.1e}")
    print(table(["map", "accuracy", "pointing", "energy", "grid", "ROAD",
                 "rank correlation with a random head, a random network", "flat"], rows))


if __name__ == "__main__": main()
