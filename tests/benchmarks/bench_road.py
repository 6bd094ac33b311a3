"""ROAD of a whole set of maps against the package grad-cam's: python tests/benchmarks/bench_road.py

It needs the package grad-cam and no data; one thread, one to two minutes. Both replace 20, 40, 60 and 80 % of the
pixels, the most and the least important first, by what their neighbours suggest, and ask a small untrained network: the
time goes into the pixels. Ours does it for a Gaussian in the middle of the pictures, too, as a baseline (`centre`);
grad-cam has none.
"""
import warnings

warnings.simplefilter("ignore")

import numpy as np
import torch
from fastai.vision.all import CrossEntropyLossFlat, DataLoaders, Learner, nn, set_seed
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from common import machine, paired, table
from fastcourse.bodies import cam_head
from fastcourse.cam import cams
from fastcourse.cam_metrics import road
from fastcourse.core import plain_bars

torch.set_num_threads(1)
PERCENTILES = [20, 40, 60, 80]


def learner():
    class Two(DataLoaders): vocab, bs, device = ["a", "b"], 16, torch.device("cpu")
    body = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU())
    return Learner(Two(), nn.Sequential(body, cam_head(8, 2)), loss_func=CrossEntropyLossFlat())


def theirs(m, x, model, heat):
    targets = [ClassifierOutputTarget(m.vocab.index(o)) for o in m.predicted]
    return ROADCombined(percentiles=PERCENTILES)(x, heat, targets, model)


def rows():
    lrnr = learner()
    for side, n, pairs in ((64, 8, 3), (112, 4, 3), (224, 2, 1)):
        x = torch.rand(n, 3, side, side)
        m = cams(lrnr, x)
        heat = np.stack([h.numpy() for h in m.enlarge(m.chosen(), (side, side))])
        a, b, ratio = paired(lambda: theirs(m, x, lrnr.model, heat), lambda: road(m, lrnr), pairs)
        yield [side, n, f"{a/n:.2f} s", f"{b/n:.2f} s", f"{ratio:.1f}"]


if __name__ == "__main__":
    plain_bars()
    set_seed(0)
    print(machine(), end="\n\n")
    print(table(["pixels on a side", "pictures", "grad-cam, a picture", "ours with its baseline, a picture",
                 "times as fast"], list(rows())))
