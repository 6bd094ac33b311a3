"""The measures of maps: they accept every way of making maps, and they tell good maps from bad ones."""
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import Image, resnet18, set_seed, vision_learner
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcourse.cam import CAMs, cams, gradcam
from fastcourse.cam_metrics import (_area, _filler, _gaussian, _iou, _mask, _mean_interval, _rank, _share,
                                    deletion_insertion, energy_pointing_game, grid_pointing_game, max_box_acc,
                                    model_randomisation, pointing_game, road)
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
watched = (road, deletion_insertion)
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


def one_peak(m, seed=0):
    "Maps with one clear peak each, (n, 2, 8, 8): their order of places does not hang on the last digit."
    rng = np.random.default_rng(seed)
    maps = torch.zeros(len(m), 2, 8, 8)
    for o in maps.flatten(0, 1): o.view(-1)[int(rng.integers(64))] = 1.
    return replace(m, maps=maps-0.1, cells=(8, 0))


def test_the_positive_part_of_a_map_gets_its_figures(lrnr, m, boxes, path):
    "Grad-CAM of a readable head is that, so these measures must not tell the two apart."
    m = one_peak(m)
    g = replace(m, maps=m.maps.relu()/64)
    assert pointing_game(g, boxes).hit == pointing_game(m, boxes).hit
    assert energy_pointing_game(g, boxes).energy == pytest.approx(energy_pointing_game(m, boxes).energy, abs=1e-4)
    a, b = (grid_pointing_game(partial(f, lrnr), path/"test") for f in (cams, gradcam))
    assert a.grid == pytest.approx(b.grid, abs=1e-3) and a.n == b.n


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


def test_scale_does_not_matter(m, boxes):
    m = one_peak(m)
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
    "A box of another class around the whole picture gives no hit; where it is the only one the picture is left out."
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
    assert a.centre_deletion == pytest.approx(b.centre_deletion)
    assert a.centre_insertion == pytest.approx(b.centre_insertion)


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


# --- flat maps

def half_flat(m, value):
    "The first half of the pictures with a map of one value everywhere."
    m = one_peak(m)
    m.maps[:len(m)//2] = value
    return m


@pytest.mark.parametrize("value", [0., 3., -1., float(np.float32(0.1))])
def test_flat_maps_are_apart(lrnr, m, boxes, path, value):
    o, rest = half_flat(m, value), one_peak(m)
    rest = replace(rest, **{k: getattr(rest, k)[8:] for k in ("maps", "logits", "labels", "items")})
    for f in by_boxes:
        res, without = f(o, boxes), f(rest, boxes)
        assert (res.n, res.flat, without.flat) == (8, 8, 0)
        pd.testing.assert_series_equal(res.drop("flat"), without.drop("flat"))
    res = deletion_insertion(o, lrnr, steps=2)
    assert (res.n, res.flat) == (8, 8) and road(o, lrnr, shares=(0.5,)).flat == 8
    flat = replace(m, maps=torch.full_like(m.maps, value))
    for f in (*(partial(g, boxes=boxes) for g in by_boxes), lambda o: deletion_insertion(o, lrnr, steps=2),
              lambda o: road(o, lrnr)):
        with pytest.raises(InputError, match="all 16 maps are the same.*point nowhere"): f(flat)
    def explain(items):
        o = cams(lrnr, items)
        return replace(o, maps=torch.full_like(o.maps, value)) if isinstance(items, torch.Tensor) else o
    with pytest.raises(InputError, match="point nowhere"): grid_pointing_game(explain, path/"test", n=4)


@pytest.mark.parametrize("f, word", [
    *[(lambda o, m, b, act=act: act(m, None), "The learner is None") for act in watched],
    *[(lambda o, m, b, act=act: act(o, m), "these maps are of type ImageLearner") for act in watched],
    *[(lambda o, m, b, act=act: act(m, o, bs=0), "bs=0 must be") for act in watched],
    *[(lambda o, m, b, act=act: act(None, b), "these maps are of type NoneType") for act in by_boxes],
    (lambda o, m, b: model_randomisation(None, m.items), "The learner is None"),
    (lambda o, m, b: model_randomisation(o, m.items, explain="cams"), "explain='cams' is no function"),
    (lambda o, m, b: model_randomisation(o, m.items, explain=lambda o, items: 3), "these maps are of type int"),
    (lambda o, m, b: grid_pointing_game(lambda items: 3, m.items), "these maps are of type int"),
    (lambda o, m, b: grid_pointing_game(m, m.items), "explain=CAMs of 16 pictures.* is no function"),
])
def test_bad_arguments(lrnr, m, boxes, f, word):
    with pytest.raises(InputError, match=word): f(lrnr, m, boxes)


# --- ROAD

@pytest.mark.parametrize("seed", range(3))
def test_pixels_are_filled_in_as_the_grad_cam_package_does(seed):
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer
    rng = np.random.default_rng(seed)
    x, gone = torch.from_numpy(rng.random((3, 14, 14))).float(), rng.random((14, 14)) < (0.2, 0.5, 0.9)[seed]
    theirs = NoisyLinearImputer(noise=0.)(x, torch.from_numpy(~gone).long())
    ours = _filler(gone)(x, torch.zeros_like(x))
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-3, atol=1e-3)
    assert torch.equal(ours[:, torch.from_numpy(~gone)], x[:, torch.from_numpy(~gone)])


class Spot(torch.nn.Module):
    "A network whose answer is known: the mean of a corner."
    def __init__(self): super().__init__(); self.one = torch.nn.Parameter(torch.ones(1))
    def forward(self, x): return torch.stack([self.one*x[:, :, :16, :16].mean((1, 2, 3)), 0*x[:, 0, 0, 0]], 1)


def test_road_tells_a_right_map_from_its_negative(m):
    from fastai.learner import Learner
    lrnr = Learner(m.dls, Spot(), loss_func=torch.nn.CrossEntropyLoss())
    x = torch.zeros(3, 3, 64, 64)
    x[:, :, :16, :16] = 4
    spot = torch.zeros(3, 2, 64, 64)
    spot[:, :, :16, :16] = 1
    o = replace(m, items=list(x), labels=[None]*3, logits=torch.tensor([[1., 0]]*3), cells=(1, 0))
    good, bad = (road(replace(o, maps=s*spot+1e-6*torch.rand(64, 64)), lrnr) for s in (1, -1))
    check(replace_low(good), "road")
    assert good.road > 0.2 > -0.2 > bad.road and good.n == 3 and good.flat == 0
    pd.testing.assert_series_equal(good, road(replace(o, maps=spot+1e-6*torch.rand(64, 64)), lrnr), rtol=0.05)
    for shares in ((), (0,), (1,), ("a",), 0.3):
        with pytest.raises(InputError, match="shares"): road(o, lrnr, shares=shares)


def replace_low(s):
    "`check` asks for figures from 0 to 1; those of road are -1 to 1."
    return s.where(~s.index.isin(["road", "road_low", "road_high", "centre"]), (s+1)/2)


# --- model randomisation

def test_a_map_of_the_picture_alone_is_found_out(lrnr, path):
    def brightness(lrnr, items):
        o = cams(lrnr, items)
        x = torch.cat([o.batch([i]) for i in range(len(o))]).mean(1)
        return replace(o, maps=torch.nn.functional.avg_pool2d(x.cpu(), 8)[:, None].expand(-1, 2, 8, 8))
    before = {k: v.clone() for k, v in lrnr.model.state_dict().items()}
    s = model_randomisation(lrnr, path/"test", brightness, draws=2)
    assert s["head"] == pytest.approx(1) and s["all"] == pytest.approx(1) and (s.n, s.flat) == (16, 0)
    own = model_randomisation(lrnr, path/"test", draws=2)
    assert -1 <= own.head_low <= own["head"] <= own.head_high <= 1 and own["all"] < 0.99
    pd.testing.assert_series_equal(own, model_randomisation(lrnr, path/"test", draws=2))  # the seed decides
    with pytest.raises(ZeroDivisionError): model_randomisation(lrnr, path/"test", lambda *args: broken(*args))
    assert all(torch.equal(v, before[k]) for k, v in lrnr.model.state_dict().items())


calls = []
def broken(lrnr, items):
    "Fails when the weights are random."
    calls.append(1)
    return cams(lrnr, items) if len(calls) == 1 else 1/0


boxes_ = st.tuples(*[st.integers(0, 20)]*2,
                   *[st.integers(1, 20)]*2).map(lambda o: np.array([o[0], o[1], o[0]+o[2], o[1]+o[3]], float))


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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_maps_that_are_no_numbers_point_nowhere(lrnr, path, boxes, value):
    m = cams(lrnr, path/"test")
    m.maps[1, :, 0, 0] = value
    for f in (pointing_game, energy_pointing_game, max_box_acc):
        with pytest.raises(InputError, match="NaN or infinity"): f(m, boxes)
    for f in (deletion_insertion, road):
        with pytest.raises(InputError, match="NaN or infinity"): f(m, lrnr)
