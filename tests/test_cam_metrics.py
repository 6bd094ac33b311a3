"""The measures of maps: they accept every way of making maps, and they tell good maps from bad ones."""
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import Image, get_image_files, resnet18, set_seed, vision_learner
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcourse.cam import CAMs, cams, gradcam
from fastcourse.cam_metrics import (_area, _gaussian, _iou, _mask, _mean_interval, _rank, _share, deletion_insertion,
                                    energy_pointing_game, grid_pointing_game, max_box_acc, pointing_game)
from fastcourse.core import InputError
from fastcourse.scenes import digit_scenes, read_boxes
from fastcourse.vision import cam_learner, folder_dls


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("set")/"images"
    digit_scenes(path, n_train=120, n_test=16, size=64)
    return path


@pytest.fixture(scope="module")
def boxes(path):
    return read_boxes(path)


@pytest.fixture(scope="module")
def lrnr(path):
    set_seed(2)
    lrnr = cam_learner(folder_dls(path, size=64, bs=16, num_workers=0), resnet18, pretrained=False, stride=8)
    with lrnr.no_bar(), lrnr.no_logging():
        lrnr.fit_one_cycle(5, 1e-3)
    return lrnr


@pytest.fixture(scope="module")
def m(lrnr, path):
    return cams(lrnr, path/"test")


by_boxes = (pointing_game, energy_pointing_game, max_box_acc)
first = {pointing_game: "hit", energy_pointing_game: "energy", max_box_acc: "box_acc"}


def check(s, name, centre="centre"):
    assert isinstance(s, pd.Series) and s[f"{name}_low"] <= s[name] <= s[f"{name}_high"]
    assert all(0 <= s[o] <= 1 for o in (name, f"{name}_low", f"{name}_high", centre)) and s.n >= 1


def test_each_gives_value_interval_baseline_and_number(lrnr, m, boxes, path):
    for f in by_boxes:
        check(f(m, boxes), first[f])
    check(grid_pointing_game(partial(cams, lrnr), path/"test", n=8), "grid")
    s = deletion_insertion(m, lrnr, steps=7)
    check(s, "deletion", "centre_deletion")
    check(s, "insertion", "centre_insertion")
    assert s.n == len(m)


def test_gradcam_of_the_readable_head_gets_the_figures_of_cam(lrnr, m, boxes, path):
    "It is the same map but for its negative part and its scale, so these measures must not tell them apart."
    g = gradcam(lrnr, path/"test")
    assert pointing_game(g, boxes).hit == pointing_game(m, boxes).hit
    assert energy_pointing_game(g, boxes).energy == pytest.approx(energy_pointing_game(m, boxes).energy, abs=1e-4)
    a, b = (grid_pointing_game(partial(f, lrnr), path/"test") for f in (cams, gradcam))
    assert a.grid == pytest.approx(b.grid, abs=1e-4) and a.n == b.n


def test_a_network_without_a_readable_head(path, boxes):
    set_seed(3)
    lrnr = vision_learner(folder_dls(path, size=64, bs=16, num_workers=0), resnet18, pretrained=False)
    with lrnr.no_bar(), lrnr.no_logging():
        lrnr.fit(1)
    g = gradcam(lrnr, path/"test", layer="0.6")
    for f in by_boxes:
        check(f(g, boxes), first[f])
    assert deletion_insertion(g, lrnr, steps=4).n == 16


def test_they_rank_maps_as_their_makers_meant(lrnr, m, boxes):
    "Maps that are the box, and the same maps half a picture away."
    b = boxes.set_index("file").loc[["/".join(o.parts[-3:]) for o in m.items]]
    maps = torch.zeros(len(m), 2, 64, 64)
    for i, r in enumerate(b.itertuples()): maps[i, :, r.ymin:r.ymax, r.xmin:r.xmax] = 1
    right, wrong = (replace(m, maps=o, cells=(1, 0)) for o in (maps, maps.roll((32, 32), (2, 3))))
    for f in by_boxes:
        good, bad = f(right, boxes), f(wrong, boxes)
        assert good[first[f]] == 1 and bad[first[f]] == 0, f.__name__
        assert good.centre == bad.centre
    own, against = (deletion_insertion(replace(m, maps=s*m.maps), lrnr, steps=8) for s in (1, -1))
    assert own.insertion > against.insertion and own.deletion < against.deletion


def test_scale_does_not_matter(m, boxes):
    for f in by_boxes:
        pd.testing.assert_series_equal(f(replace(m, maps=100*m.maps), boxes), f(m, boxes), rtol=1e-4)


def test_several_boxes_of_a_file(m, boxes):
    "The pointing game asks for any of them; the best one counts for the box."
    far = boxes.assign(xmin=0, ymin=0, xmax=1, ymax=1)
    for f in by_boxes:
        both = f(m, pd.concat([far, boxes]))
        assert both[first[f]] >= f(m, boxes)[first[f]]-1e-9
    assert pointing_game(m, pd.concat([far, boxes])).hit == pointing_game(m, boxes).hit or pointing_game(m, far).hit > 0


def test_only_boxes_of_the_class_count(m, boxes):
    "A box of another class around the whole picture gives no hit, and where it is the only one the picture is left out."
    other = boxes.assign(label="other", xmin=0, ymin=0, xmax=64, ymax=64)
    for f in by_boxes:
        pd.testing.assert_series_equal(f(m, pd.concat([boxes, other])), f(m, boxes))
        with pytest.raises(InputError, match=r"the boxes are of \['other'\]"): f(m, other)
    zero = boxes[(boxes.label == "zero") | ~boxes.file.str.startswith("test")]
    half = pd.concat([zero, boxes[boxes.label == "one"].assign(label="other")])
    assert pointing_game(m, half).n == sum(o == "zero" for o in m.labels) < len(m)


def test_unknown_pictures_and_labels(lrnr, m, boxes, path):
    for f in by_boxes:
        with pytest.raises(InputError, match="no box for"): f(m, boxes.iloc[:3])
        with pytest.raises(InputError, match="'predicted', 'true'"): f(m, boxes, which="dog")
        with pytest.raises(InputError, match="read_boxes"): f(m, "boxes.csv")
    with pytest.raises(InputError, match="n=1 must be"): grid_pointing_game(partial(cams, lrnr), path/"test", n=1)
    pictures = [Image.open(o) for o in m.items[:4]]
    with pytest.raises(InputError, match="class folders"): pointing_game(cams(lrnr, pictures), boxes)
    with pytest.raises(InputError, match="known class"): grid_pointing_game(partial(cams, lrnr), pictures)
    assert deletion_insertion(cams(lrnr, pictures), lrnr, steps=3).n == 4


def test_the_baselines_know_nothing_of_the_maps(lrnr, m, boxes):
    noise = replace(m, maps=torch.rand_like(m.maps))
    for f in by_boxes:
        assert f(noise, boxes).centre == f(m, boxes).centre
    a, b = (deletion_insertion(o, lrnr, steps=3) for o in (noise, m))
    assert a.centre_deletion == pytest.approx(b.centre_deletion) and a.centre_insertion == pytest.approx(b.centre_insertion)


def test_noise_in_mosaics_is_chance(lrnr, path):
    set_seed(4)
    def noise(items):
        o = cams(lrnr, items)
        return replace(o, maps=torch.rand_like(o.maps)) if isinstance(items, torch.Tensor) else o
    assert grid_pointing_game(noise, path/"test").grid == pytest.approx(0.25, abs=0.03)


def test_mosaics_are_what_the_network_recognises(lrnr, path):
    "The learner's own accuracy decides which pictures are used, and each of them is asked for once."
    m = cams(lrnr, path/"test")
    right = sum(a == b for a, b in zip(m.labels, m.predicted))
    assert grid_pointing_game(partial(cams, lrnr), path/"test").n == right
    wrong = replace(m, logits=-m.logits)
    if right == len(m):
        with pytest.raises(InputError, match="train on"): grid_pointing_game(lambda o: wrong, path/"test")


def test_the_modes_of_the_layers_come_back(lrnr, m, path):
    lrnr.model.train()
    lrnr.model[0][1].eval()
    before = [o.training for o in lrnr.model.modules()]
    deletion_insertion(m, lrnr, steps=2)
    grid_pointing_game(partial(cams, lrnr), path/"test", n=4)
    assert [o.training for o in lrnr.model.modules()] == before


boxes_ = st.tuples(*[st.integers(0, 20)]*2, *[st.integers(1, 20)]*2).map(lambda o: np.array([o[0], o[1], o[0]+o[2], o[1]+o[3]], float))


@settings(max_examples=100, deadline=None)
@given(a=boxes_, b=boxes_)
def test_overlap_of_boxes_is_that_of_their_pixels(a, b):
    pixels = [_mask(o[None], (45, 45)) for o in (a, b)]
    assert _iou(a, b[None]) == pytest.approx((pixels[0] & pixels[1]).sum()/(pixels[0] | pixels[1]).sum())
    assert _iou(a, b[None]) == pytest.approx(_iou(b, a[None])) and _iou(a, np.stack([b, a])) == 1


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_intervals_hold_the_mean_and_stay_in_range(values):
    mean, low, high = _mean_interval(np.array(values))
    assert 0 <= low <= mean+1e-12 and mean-1e-12 <= high <= 1


def test_small_parts():
    g = _gaussian(5, 9)
    assert np.unravel_index(g.argmax(), g.shape) == (2, 4) and np.allclose(g, g[::-1, ::-1])
    assert _share(np.zeros((3, 3)), np.ones((3, 3), bool)) == 0.
    assert sorted(_rank(np.random.default_rng(0).random((4, 5))).flatten().tolist()) == list(range(20))
    assert _area(torch.linspace(0, 1, 11)) == pytest.approx(0.5)
    assert CAMs.__dataclass_fields__["skipped"]
