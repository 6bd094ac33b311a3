"""Cascaded CAM: what is hidden, how the maps are averaged, and that the result can be had again."""
import math
import random

import numpy as np
import pytest
import torch
from fastai.vision.all import (Callback, CategoryBlock, ConvLayer, DataBlock, FuncSplitter, ImageBlock, Learner,
                               RandomResizedCropGPU, Resize, accuracy, aug_transforms, get_image_files, nn,
                               parent_label, set_seed)
from PIL import Image
from torch.testing import assert_close

from fastcourse.cam import cams
from fastcourse.cam_metrics import grid_pointing_game, pointing_game
from fastcourse.cascade import _darken, _threshold, cascam
from fastcourse.core import InputError
from fastcourse.scenes import digit_scenes, read_boxes
from fastcourse.vision import cam_learner, folder_dls

SIDE = 32


def net(weights=None, stride=4):
    body = [ConvLayer(3, 8, stride=2), ConvLayer(8, 16, stride=stride//2)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))


class Seen(Callback):
    "Keeps what the network is shown."
    def __init__(self): self.batches = []
    def before_batch(self):
        self.batches.append((self.training, self.x.detach().as_subclass(torch.Tensor).cpu().clone()))


def train(dls, epochs=1, arch=net, **kw):
    lrnr = cam_learner(dls, arch, pretrained=False, **kw)
    with lrnr.no_bar(), lrnr.no_logging(): lrnr.fit_one_cycle(epochs, 5e-3)
    return lrnr


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenes")/"images"
    digit_scenes(path, n_train=48, n_test=12, size=SIDE)
    return path


@pytest.fixture
def dls(path): return folder_dls(path, size=SIDE, bs=8, num_workers=0)


@pytest.fixture(scope="module")
def cascade(path): return cascam(folder_dls(path, size=SIDE, bs=8, num_workers=0), 3, 0.5, train)


def test_one_network_is_the_plain_map(dls, path):
    for T, level in (("identity", 1.), ("top", 0.1), ("soft", 0.3)):
        c = cascam(dls, 1, 0.5, train, T=T, level=level)
        plain = cams(c.lrnrs[0], path/"test")
        assert_close(c.cams(path/"test").maps, _threshold(plain.maps, T, level))
        assert_close(c.cams(path/"test").logits, plain.logits)


@pytest.mark.parametrize("k, decay", [(1, 0.1), (3, 0.), (3, 0.1), (10, 2.)])
def test_weights(cascade, k, decay):
    c = type(cascade)(cascade.lrnrs[:1]*k, 0.5, "top", 0.1, decay)
    assert_close(c.weights.sum(), torch.tensor(1.))
    assert_close(c.weights[1:]/c.weights[:-1], torch.full((k-1,), math.exp(-decay)))


def test_the_mean_map_is_of_the_original_pictures(cascade, path):
    each = [cams(lrnr, path/"test").maps for lrnr in cascade.lrnrs]
    mean = sum(w*_threshold(o, "top", 0.1) for w, o in zip(cascade.weights, each))
    assert_close(cascade.cams(path/"test").maps, mean)
    assert not any(torch.equal(a, b) for a, b in zip(each, each[1:]))       # another seed is another network


def test_what_the_thresholds_let_through():
    maps = torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_threshold(maps, "identity", 0.1), maps)
    top = _threshold(maps, "top", 0.25)
    assert ((top != 0).sum((2, 3)) == 4).all() and torch.equal(top[top != 0], maps[top != 0])
    assert (top.amax((2, 3)) == maps.amax((2, 3))).all()
    soft = _threshold(maps, "soft", 0.25)
    assert ((soft != 0).sum((2, 3)) == 4).all() and (soft*maps >= 0).all()
    steps = (maps-soft).abs()[soft != 0].view(5, 2, 4)
    assert_close(steps, steps[:, :, :1].expand_as(steps))                   # the same step for all that is left
    assert torch.equal(_threshold(maps, "soft", 1.), maps)
    assert ((_threshold(maps, "top", 0.001) != 0).sum((2, 3)) == 1).all()   # never nothing


@pytest.mark.parametrize("theta", [0., 0.3, 50.])
def test_darkened_pictures_stay_between_0_and_1(theta):
    g = torch.Generator().manual_seed(1)
    x, heat = torch.rand(6, 3, 8, 8, generator=g), torch.randn(6, 8, 8, generator=g)*3
    dark = _darken(x, heat, theta)
    assert_close(dark.amin((1, 2, 3)), torch.zeros(6))
    assert_close(dark.amax((1, 2, 3)), torch.ones(6))
    if not theta: return
    lone = torch.zeros(6, 8, 8)
    lone[:, 2, 3] = 4/theta
    x[:, :, 0, 0], x[:, :, 7, 7] = 0, 1                                     # so that stretching changes nothing
    dark = _darken(x, lone, theta)
    assert_close(dark[:, :, 2, 3], x[:, :, 2, 3]*math.exp(-4))
    assert_close(dark[:, :, 5:], x[:, :, 5:])


def test_an_even_picture_is_not_torn_apart():
    assert_close(_darken(torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 4, 4), 1.), torch.full((1, 3, 4, 4), 0.5))
    assert torch.isfinite(_darken(torch.zeros(1, 3, 4, 4), torch.randn(1, 4, 4), 1.)).all()


def test_the_second_network_sees_darkened_pictures_of_the_same_split(dls, path):
    seen = []
    def watched(d):
        seen.append((d, Seen()))
        return train(d, cbs=seen[-1][1])
    c = cascam(dls, 2, 3., watched, T="top", level=0.1)
    (first, _), (second, batches) = seen
    files = {s: sorted(get_image_files(path/s)) for s in ("train", "test")}
    for d in (first, second):
        assert len(d.train_ds) == len(files["train"]) and len(d.valid_ds) == len(files["test"])
        assert list(d.vocab) == list(dls.vocab)
        for ds, fs in ((d.train_ds, files["train"]), (d.valid_ds, files["test"])):
            assert [d.vocab[int(ds[i][1])] for i in range(len(ds))] == [f.parent.name for f in fs]  # sorted by name
    # The validation set is not shuffled: what the network got is the picture, times exp(-3·top 10 % of its own map)
    m = cams(c.lrnrs[0], files["test"])
    heat = m.enlarge(_threshold(m.chosen("true"), "top", 0.1), (SIDE, SIDE))
    pics = torch.stack([torch.tensor(np.array(Image.open(f))).permute(2, 0, 1)/255 for f in files["test"]])
    wanted = _darken(pics, heat, 3.)
    got = torch.cat([x for training, x in batches.batches if not training])
    mean, std = (torch.tensor(o)[None, :, None, None] for o in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    got = got*std + mean
    assert got.amin() >= -1e-5 and got.amax() <= 1+1e-5
    assert_close(got, wanted, rtol=0, atol=0.5/255+1e-5)                    # 8 bits
    # and all of them were changed: by 0.10 at least, with five seeds
    assert (wanted-pics).abs().amax((1, 2, 3)).min() > 0.01


def test_the_seed_decides_and_nothing_else(dls, path, cascade):
    first = cascade.cams(path/"test").maps
    set_seed(99)
    again = cascam(dls, 3, 0.5, train).cams(path/"test").maps
    assert torch.equal(first, again)
    other = cascam(dls, 3, 0.5, train, seed=1).cams(path/"test").maps
    assert not torch.allclose(first, other)


def test_the_order_of_the_files_does_not_matter(path, cascade):
    files = get_image_files(path)
    random.Random(3).shuffle(files)
    block = DataBlock((ImageBlock, CategoryBlock), get_items=lambda _: files, get_y=parent_label,
                      item_tfms=Resize(SIDE), splitter=FuncSplitter(lambda f: "test" in f.parts))
    dls = block.dataloaders(path, bs=8, num_workers=0)
    assert torch.equal(cascam(dls, 3, 0.5, train).cams(path/"test").maps, cascade.cams(path/"test").maps)


def test_nothing_of_the_outside_changes(dls):
    set_seed(5)
    state, np_state, py_state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    train_ds, n = dls.train_ds, len(dls.train)
    c = cascam(dls, 2, 0.5, train)
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == np_state).all()
    assert random.getstate() == py_state
    assert dls.train_ds is train_ds and len(dls.train) == n
    assert all(lrnr.dls is dls for lrnr in c.lrnrs)
    assert len(c.lrnrs[1].validate()) == 2                                  # an ordinary learner on the original data


def test_all_measures_take_it(cascade, path):
    game = pointing_game(cascade.cams(path/"test"), read_boxes(path))
    assert game.n == 12 and 0 <= game.hit <= 1
    def explain(items):                                                     # as if every picture were classified right
        m = cascade.cams(items)
        if None not in m.labels: m.logits = torch.tensor([[o == v for v in m.vocab] for o in m.labels]).float()
        return m
    game = grid_pointing_game(explain, path/"test")
    assert game.n == 12 and 0 <= game.grid <= 1


def test_any_kind_of_picture(cascade, path):
    file = sorted(get_image_files(path/"test"))[0]
    as_path, as_picture = cascade.cams([file]), cascade.cams([Image.open(file)])
    assert_close(as_path.maps, as_picture.maps)
    batch = as_path.batch([0])
    assert_close(cascade.cams(batch).maps, as_path.maps)
    assert len(cascade.show(batch, n=3).axes) == 5
    assert len(cascade.show(path/"test", n=2, which="true").axes) == 10


def test_a_failure_says_what_to_do(dls):
    strides = iter((4, 2))
    with pytest.raises(InputError, match="the same network each time"):
        cascam(dls, 2, 0.5, lambda d: train(d, arch=lambda weights=None, s=next(strides): net(stride=s)))
    with pytest.raises(InputError, match="k=1.5"): cascam(dls, 1.5, 0.5, train)
    with pytest.raises(InputError, match="theta=inf"): cascam(dls, 1, math.inf, train)
    with pytest.raises(InputError, match="must return the learner"): cascam(dls, 1, 0.5, lambda d: d)
    plain = lambda d: Learner(d, nn.Sequential(nn.Flatten(), nn.Linear(3*SIDE*SIDE, 2)), metrics=accuracy)
    with pytest.raises(InputError, match="cam_learner"): cascam(dls, 1, 0.5, plain)
    with pytest.raises(InputError, match="folder_dls"): cascam([1, 2], 1, 0.5, train)


def test_batches_that_are_resized_again_are_refused(path):
    "The maps would not fit the pictures that are darkened."
    for tfms in (aug_transforms(size=SIDE//2), aug_transforms(size=SIDE//2, min_scale=0.75),
                 [RandomResizedCropGPU(SIDE, valid_scale=0.5)]):
        dls = folder_dls(path, size=SIDE, bs=8, num_workers=0, batch_tfms=tfms)
        with pytest.raises(InputError, match="item_tfms that do all of it"): cascam(dls, 2, 0.3, lambda dls: None)
