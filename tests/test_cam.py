"""Class activation maps: identities, peers, every kind of input, faults, and memory."""
import multiprocessing
import os
import resource
import signal
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import timm
import torch
from fastai.vision.all import (BCEWithLogitsLossFlat, CrossEntropyLossFlat, DataLoaders, Image, Learner,
                               get_image_files, models, resnet18, set_seed, vision_learner)
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.testing import assert_close
from torchcam import methods

from fastcourse.cam import cams, gradcam, lay_over, load_cams
from fastcourse.cells import map_cells
from fastcourse.core import InputError
from fastcourse.mapfile import MapFile, MapReader
from fastcourse.scenes import digit_scenes
from fastcourse.vision import cam_learner, folder_dls

close = dict(rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("set")/"images"
    digit_scenes(path, n_train=32, n_test=12, size=64)
    return path


@pytest.fixture(scope="module")
def dls(path):
    return folder_dls(path, size=64, bs=8, num_workers=0)


@pytest.fixture(scope="module")
def lrnr(dls):
    set_seed(1)
    lrnr = cam_learner(dls, resnet18, pretrained=False, stride=8)
    with lrnr.no_bar(), lrnr.no_logging():
        lrnr.fit(2, 1e-3)
    return lrnr


@pytest.fixture(scope="module")
def files(path):
    return sorted(get_image_files(path/"test"))


def tensors(lrnr, files):
    return lrnr.dls.test_dl(files, bs=len(files)).one_batch()[0].as_subclass(torch.Tensor)


# --- identities

def test_the_mean_of_a_map_is_the_logit_of_the_network(lrnr, files):
    x, m = tensors(lrnr, files), cams(lrnr, files)
    with torch.no_grad():
        assert_close(m.maps.mean((2, 3)), lrnr.model.eval()(x).cpu(), **close)
    assert_close(m.logits, m.maps.mean((2, 3)), **close)


@pytest.mark.parametrize("arch, stride", [(resnet18, 8), (resnet18, None), (models.convnext_tiny, None),
                                          (models.mobilenet_v3_small, 16)])
def test_gradcam_with_the_readable_head_is_the_positive_part_over_the_places(dls, files, arch, stride):
    lrnr = cam_learner(dls, arch, pretrained=False, stride=stride)
    m, g = cams(lrnr, files), gradcam(lrnr, files, layer=lrnr.model[0])
    h, w = m.maps.shape[2:]
    assert_close(g.maps, m.maps.relu()/(h*w), rtol=1e-3, atol=1e-6)
    assert g.cells == m.cells and g.vocab == m.vocab and g.labels == m.labels


def test_one_forward_pass_of_the_body_for_all_classes(lrnr, files):
    seen = []
    cams(lrnr, files)  # where the cells lie is found once for a network
    hook = lrnr.model[0].register_forward_hook(lambda m, args, out: seen.append(len(out)))
    try: cams(lrnr, files, bs=5)
    finally: hook.remove()
    assert seen == [5, 5, 2]


# --- against the packages that are known for it

def unit(maps):
    "Each map from 0 to 1."
    maps = maps-maps.amin((1, 2), keepdim=True)
    return maps/(1e-7+maps.amax((1, 2), keepdim=True))


def test_the_grad_cam_package_agrees(lrnr, files):
    x, m, g = tensors(lrnr, files), cams(lrnr, files), gradcam(lrnr, files)
    lrnr.model.eval()
    with GradCAM(lrnr.model, [lrnr.model[0]]) as peer:
        for c in range(2):
            theirs = torch.from_numpy(peer(x, [ClassifierOutputTarget(c)]*len(x)))
            # theirs is scaled to 0..1, resized with cells as blocks, and scaled again: ours is treated alike
            for maps in (m.maps[:, c].relu(), g.maps[:, c]):
                ours = unit(nn.functional.interpolate(unit(maps)[:, None], x.shape[2:], mode="bilinear")[:, 0])
                assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_the_torchcam_package_agrees(lrnr, files):
    x, m = tensors(lrnr, files), cams(lrnr, files)
    lrnr.model.eval()
    for kind, layers in ((methods.CAM, dict(target_layer=lrnr.model[0], fc_layer=lrnr.model[1][2])),
                         (methods.GradCAM, dict(target_layer=lrnr.model[0]))):
        with kind(lrnr.model, **layers) as peer:
            for c in range(2):
                theirs = peer(c, lrnr.model(x), normalized=False)[0].detach()
                ours = m.maps[:, c] if kind is methods.CAM else m.maps[:, c].relu()/64
                assert_close(theirs, ours, rtol=1e-3, atol=1e-5)


# --- vision transformers

@pytest.fixture(scope="module", params=["test_vit", "test_vit2"])
def vit(request, dls):
    "With a class token, and with a register and a norm behind the mean."
    set_seed(2)
    lrnr = cam_learner(dls, request.param, pretrained=False)
    with lrnr.no_bar(), lrnr.no_logging(): lrnr.fit(2, 1e-3)
    return lrnr


def test_patches_are_cells(vit, files):
    x, m, g = tensors(vit, files), cams(vit, files), gradcam(vit, files)
    assert m.maps.shape == (12, 2, 4, 4) and m.cells == g.cells == (16, 7.5)
    with torch.no_grad(): assert_close(m.maps.mean((2, 3)), vit.model.eval()(x).cpu(), **close)
    assert_close(g.maps, m.maps.relu()/16, rtol=1e-3, atol=1e-6)
    assert len({(o[0] > o[0].mean()).sum().item() for o in m.maps}) > 1  # not one map for all


def test_a_patch_moves_its_own_cell_most(dls):
    "Where no layer mixes the patches, a cell of the map hangs on the pixels of its patch alone."
    lrnr = cam_learner(dls, "test_vit", pretrained=False)
    lrnr.model[0].model.blocks = nn.Sequential(*[nn.Identity()]*6)
    x = torch.zeros(16, 3, 64, 64)
    for i in range(16): x[i, :, i//4*16:i//4*16+16, i%4*16:i%4*16+16] = 1
    moved = (cams(lrnr, x).maps-cams(lrnr, torch.zeros(1, 3, 64, 64)).maps)[:, 0].abs() > 1e-6
    assert torch.equal(moved.flatten(1), torch.eye(16, dtype=torch.bool))


def token_learner(dls, name="test_vit", **kwargs):
    set_seed(5)
    return Learner(dls, timm.create_model(name, num_classes=2, img_size=64, **kwargs), loss_func=CrossEntropyLossFlat())


@pytest.mark.parametrize("kwargs", [{}, dict(global_pool="avg"), dict(reg_tokens=3)], ids=str)
def test_grad_cam_of_tokens_agrees_with_the_other_packages(dls, files, kwargs):
    lrnr = token_learner(dls, **kwargs)
    x, g, names = tensors(lrnr, files), gradcam(lrnr, files), dict(lrnr.model.named_modules())
    layer = names["norm" if "global_pool" in kwargs else "blocks.5.norm1"]
    patches = lambda o: o[:, -16:].transpose(1, 2).unflatten(2, (4, 4))
    lrnr.model.eval()
    with GradCAM(lrnr.model, [layer], reshape_transform=patches) as peer:
        for c in range(2):
            theirs = torch.from_numpy(peer(x, [ClassifierOutputTarget(c)]*len(x)))
            ours = unit(nn.functional.interpolate(unit(g.maps[:, c])[:, None], x.shape[2:], mode="bilinear")[:, 0])
            assert_close(ours, theirs, rtol=0, atol=2e-3)
    # torchcam takes a layer with (n, C, h, w), so the tokens pass through one on their way
    class Laid(nn.Module):
        def __init__(self): super().__init__(); self.maps = nn.Identity()
        def forward(self, o): return torch.cat([o[:, :-16], self.maps(patches(o)).flatten(2).transpose(1, 2)], 1)
    laid = Laid()
    hook = layer.register_forward_hook(lambda m, args, out: laid(out))
    lrnr.model.laid = laid
    try:
        with methods.GradCAM(lrnr.model, target_layer=laid.maps) as peer:
            for c in range(2):
                assert_close(peer(c, lrnr.model(x), normalized=False)[0].detach(), g.maps[:, c], rtol=1e-3, atol=1e-7)
    finally: hook.remove()


def test_legrad_of_torchcam_sees_the_same_patches(dls):
    """In a ViT of torchvision, as torchcam's LeGrad takes none of timm: are both maps brightest where the evidence is?

    LeGrad's are slopes of the attention, so the numbers differ; the patches of this network do not talk, so their
    places must agree. The tokens of timm networks are compared with Grad-CAM of both libraries, above."""
    set_seed(0)
    net = models.VisionTransformer(64, 16, 1, 2, 24, 48, num_classes=2).eval()
    nn.init.normal_(net.heads.head.weight)
    lrnr = Learner(dls, net, loss_func=CrossEntropyLossFlat())
    x = torch.zeros(1, 3, 64, 64)
    x[:, :, 16:32, 32:48] = 3.
    x.requires_grad_()
    with methods.LeGrad(net, list(net.encoder.layers)) as peer: theirs = peer(0, net(x))[0].detach()
    g = gradcam(lrnr, x.detach())
    assert theirs.shape == g.maps[:, 0].shape == (1, 4, 4) and g.cells == (16, 7.5)


def test_swin_has_its_channels_last(dls, files):
    set_seed(6)
    lrnr = Learner(dls, timm.create_model("swin_tiny_patch4_window7_224", num_classes=2, img_size=64,
                                          depths=(1, 1, 1, 1), embed_dim=24, num_heads=(1, 1, 1, 1)),
                   loss_func=CrossEntropyLossFlat())
    x, g = tensors(lrnr, files), gradcam(lrnr, files)
    assert g.maps.shape == (12, 2, 2, 2) and g.cells == (32, 15.5)
    lrnr.model.eval()
    with GradCAM(lrnr.model, [lrnr.model.norm], reshape_transform=lambda o: o.movedim(3, 1)) as peer:
        theirs = torch.from_numpy(peer(x, [ClassifierOutputTarget(1)]*len(x)))
    ours = unit(nn.functional.interpolate(unit(g.maps[:, 1])[:, None], x.shape[2:], mode="bilinear")[:, 0])
    assert_close(ours, theirs, rtol=0, atol=2e-3)


# --- how the network is run

def test_maps_are_ordinary_tensors_also_under_inference_mode(lrnr, files):
    with torch.inference_mode(): m, g = cams(lrnr, files[:2]), gradcam(lrnr, files[:2])
    for o in (m, g, cams(lrnr, files[:2])):
        o.maps[o.maps < 0] = 0
        assert not o.maps.is_inference() and not o.logits.is_inference() and not o.maps.requires_grad


@pytest.mark.parametrize("how", ["whole", "in place", "body"])
def test_a_compiled_learner_gives_the_same_maps(dls, files, how):
    lrnr = cam_learner(dls, resnet18, pretrained=False, stride=8)
    m = cams(lrnr, files)
    if how == "whole": lrnr.model = torch.compile(lrnr.model, backend="eager")
    elif how == "in place": lrnr.model.compile(backend="eager")
    else: lrnr.model[0] = torch.compile(lrnr.model[0], backend="eager")
    with torch.no_grad(): lrnr.model.eval()(tensors(lrnr, files))  # compiled code is there
    assert_close(cams(lrnr, files).maps, m.maps, **close)
    assert_close(gradcam(lrnr, files).maps, m.maps.relu()/64, rtol=1e-3, atol=1e-6)


def test_maps_under_autocast_have_single_precision(lrnr, files):
    m = cams(lrnr, files)
    with torch.autocast("cpu", torch.bfloat16): half, g = cams(lrnr, files), gradcam(lrnr, files)
    assert half.maps.dtype == half.logits.dtype == g.maps.dtype == torch.float32
    assert_close(half.maps.mean((2, 3)), half.logits)
    assert (half.maps-m.maps).abs().max() < 0.1*m.maps.abs().max()


class Gives(nn.Module):
    def __init__(self, wrap): super().__init__(); self.net, self.wrap = resnet18(num_classes=2), wrap
    def forward(self, x): return self.wrap(self.net(x))


@pytest.mark.parametrize("wrap, word", [(lambda o: (o, o), "a tuple"), (lambda o: {"scores": o}, "a dict"),
                                        (lambda o: o[:, :, None], r"a tensor of shape \(8, 2, 1\)"),
                                        (lambda o: [o], "a list"), (lambda o: o.sum(), r"a tensor of shape \(\)")],
                         ids=["tuple", "dict", "3d", "list", "number"])
def test_a_network_that_gives_more_than_scores_is_one_sentence(dls, files, wrap, word):
    with pytest.raises(InputError, match=f"this network gives {word}.*scores") as e:
        gradcam(Learner(dls, Gives(wrap), loss_func=nn.CrossEntropyLoss()), files)
    assert "\n" not in str(e.value)


def test_a_network_full_of_nan_says_so(dls, files):
    lrnr = cam_learner(dls, resnet18, pretrained=False)
    lrnr.model[1][2].weight.data.fill_(float("nan"))
    for f in (cams, gradcam):
        with pytest.raises(InputError, match="no number"): f(lrnr, files)


def test_a_stride_that_is_changed_later_is_seen(dls, files):
    lrnr = cam_learner(dls, resnet18, pretrained=False, stride=8)
    assert cams(lrnr, files[:2]).cells == gradcam(lrnr, files[:2], lrnr.model[0]).cells == (8, 0)
    lrnr.model[0][0].stride = (1, 1)
    m = cams(lrnr, files[:2])
    assert m.cells[0] == 4 and m.maps.shape[2:] == (16, 16)
    assert gradcam(lrnr, files[:2], lrnr.model[0]).cells == m.cells


def test_classes_that_have_the_names_of_the_words(tmp_path):
    "`which` means the words; the classes are had by their names with 'class:' in front."
    for c in ("true", "predicted"):
        for split in ("train", "test"):
            (tmp_path/split/c).mkdir(parents=True)
            for i in range(3):
                pixels = np.random.default_rng(len(c+split)*9+i).integers(0, 255, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path/split/c/f"{i}.png")
    lrnr = cam_learner(folder_dls(tmp_path, size=32, num_workers=0), resnet18, pretrained=False, stride=8)
    m = cams(lrnr, tmp_path/"test")
    assert m.vocab == ["predicted", "true"]
    rows = torch.arange(6)
    assert torch.equal(m.chosen("true"), m.maps[rows, [m.vocab.index(o) for o in m.labels]])
    assert torch.equal(m.chosen("predicted"), m.maps[rows, m.logits.argmax(1)])
    for k, c in enumerate(m.vocab): assert torch.equal(m.chosen(f"class:{c}"), m.maps[:, k])
    titles = lambda fig: [ax.get_title().split()[0] for ax in fig.axes[:6]]  # the last is the colour bar
    assert titles(m.show(2, 3, which="true")) == m.labels and set(titles(m.show(2, 3, which="class:true"))) == {"true"}
    with pytest.raises(InputError, match="'class:true'"): cams(lrnr, [Image.new("RGB", (32, 32))]).show(which="true")
    with pytest.raises(InputError, match="which='class:dog'"): m.chosen("class:dog")


# --- inputs

def test_every_kind_of_input(lrnr, path, files):
    m = cams(lrnr, path/"test")
    pictures = [Image.open(f) for f in files]
    for o in (files, [str(f) for f in files], pictures, [np.array(i) for i in pictures],
              [np.array(i)/255 for i in pictures], tensors(lrnr, files), str(path/"test"),
              [files[0], str(files[1]), pictures[2], np.array(pictures[3]), *files[4:]], [pictures[0], *files[1:]]):
        assert_close(cams(lrnr, o).maps, m.maps, **close)
    for o in (files[0], pictures[0], np.array(pictures[0])):
        assert_close(cams(lrnr, o).maps, m.maps[:1], **close)
    assert all(type(o).__name__ == "JpegImageFile" for o in pictures)  # fastai would change their class


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_files_are_named_and_the_others_stay_in_order(path, files, tmp_path, workers):
    dls = folder_dls(path, size=64, bs=8, num_workers=workers)
    lrnr = cam_learner(dls, resnet18, pretrained=False, stride=8)
    bad = [tmp_path/f"bad{i}.jpg" for i in range(4)]
    for f, data in zip(bad, (b"", b"<html>", files[0].read_bytes()[:800], b"\xff\xd8\xff"*50)):
        f.write_bytes(data)
    mixed = [bad[0], *files[:3], bad[1], bad[2], *files[3:], bad[3], tmp_path/"missing.png"]
    with pytest.warns(UserWarning, match="bad0.jpg.*bad1.jpg.*bad2.jpg.*bad3.jpg.*missing.png"):
        m = cams(lrnr, mixed, bs=3)
    assert m.items == files and [o for o, _ in m.skipped] == [*bad, tmp_path/"missing.png"]
    assert_close(m.maps, cams(lrnr, files).maps, **close)
    with pytest.warns(UserWarning):
        g = gradcam(lrnr, mixed, bs=3)
    assert g.items == files
    with pytest.warns(UserWarning):
        saved = cams(lrnr, mixed, bs=3, save=tmp_path/"maps.npz")
    assert_close(saved.maps, m.maps, **close)
    truncated = Image.open(bad[2])  # a picture that fails only when it is used
    with pytest.warns(UserWarning, match="left out"):
        assert len(cams(lrnr, [files[0], truncated])) == 1


def test_odd_pictures(lrnr, tmp_path):
    odd = []
    for i, (mode, size) in enumerate([("L", (1, 1)), ("RGBA", (1, 90)), ("P", (90, 1)), ("CMYK", (9, 9)),
                                      ("LA", (7, 5)), ("RGB", (5000, 4000))]):
        odd.append(tmp_path/f"{i}.{'jpg' if mode in ('CMYK', 'RGB') else 'png'}")
        Image.new(mode, size, 77 if mode in "LP" else None).save(odd[-1])
    clear = tmp_path/"clear.png"
    Image.new("P", (8, 8)).save(clear, transparency=b"\x00"*8)
    for items in ([*odd, clear], [Image.open(f) for f in odd]):
        m = cams(lrnr, items)
        assert len(m) == len(items) and m.maps.isfinite().all() and not m.skipped
    m.show(2, 3)
    assert m.overlay(0).size == (64, 64)


@pytest.mark.parametrize("f, word", [
    *[(lambda o, m, bad=bad, act=act: act(bad, m.items), "The learner is .*pass a Learner")
      for act in (cams, gradcam) for bad in (None, "model.pkl", nn.Flatten(), Learner)],
    (lambda o, m: gradcam(Learner(DataLoaders([1], [1]), nn.Flatten(), nn.MSELoss()), m.items), "has no classes"),
    *[(lambda o, m, bad=bad: cams(o, m.items, save=bad), "save=.* is no file") for bad in (3, [])],
    *[(lambda o, m, bad=bad: load_cams(bad, o.dls), "file=.* is no file") for bad in (None, 3)],
    *[(lambda o, m, bad=bad: m.show(figsize=bad), "figsize") for bad in ("a", 3, (1,), (0, 1), ("a", "b"))],
    *[(lambda o, m, bad=bad: m.picture(bad), "numbers of pictures, 0 to 11") for bad in (12, -13, "a", None)],
    *[(lambda o, m, bad=bad: m.batch(bad), "numbers of pictures, 0 to 11") for bad in ([0, 12], 3, "ab")],
    (lambda o, m: m.batch([]), "idxs is empty"),
    *[(lambda o, m, bad=bad: m.top_losses(bad), "k=.* must be a whole number") for bad in ("a", -1, 2.5, 0)],
])
def test_bad_arguments(lrnr, files, f, word):
    m = cams(lrnr, files)
    with pytest.raises(InputError, match=word): f(lrnr, m)


@pytest.mark.parametrize("items, word", [([], "no pictures"), ([3], "is no picture"), (None, "is no picture"),
                                         ("nowhere", "does not exist"), (torch.zeros(3, 8, 8), "N, 3, H, W"),
                                         (torch.zeros(0, 3, 8, 8), "N, 3, H, W"),
                                         (np.zeros((0, 4), np.uint8), "no picture"),
                                         (np.full((4, 4), np.nan), "uint8, or floats"),
                                         (np.zeros((4, 4, 2), np.uint8), "no picture")])
def test_bad_input(lrnr, items, word):
    for f in (cams, gradcam):
        with pytest.raises(InputError, match=word):
            f(lrnr, items)


def test_bad_settings_are_one_sentence(lrnr, path, files, tmp_path):
    m = cams(lrnr, files[:4])
    for f in (lambda: cams(lrnr, files, bs=0), lambda: cams(lrnr, ""), lambda: cams(lrnr, files[:2], save=tmp_path),
              lambda: cams(lrnr, files[:2], save=""), lambda: cams(lrnr, torch.zeros(2, 3, 64, 64, dtype=torch.uint8)),
              lambda: m.show(0, 5), lambda: m.show(2, 2.5), lambda: m.show(alpha=2), lambda: m.show(cmap="no such"),
              lambda: m.overlay(4), lambda: m.show(boxes="boxes.csv"), lambda: load_cams("maps.npz", lrnr)):
        with pytest.raises(InputError) as e: f()
        assert "\n" not in str(e.value)


def test_16_bits_are_scaled_and_what_is_no_brightness_is_named(lrnr, tmp_path):
    "A picture of 16 bits looks as its twin of 8 bits; nobody knows how bright -1 is."
    grey = np.random.default_rng(0).integers(1, 255, (64, 64)).astype(np.uint8)
    grey[0, 0] = 255
    Image.fromarray(grey).save(tmp_path/"a.png")
    Image.fromarray(grey.astype(np.uint16)*257).save(tmp_path/"b.png")
    Image.fromarray(np.full((64, 64), -1, np.float32)).save(tmp_path/"c.tif")
    with pytest.warns(UserWarning, match="c.tif"): m = cams(lrnr, [tmp_path/o for o in ("a.png", "b.png", "c.tif")])
    assert len(m) == 2 and m.skipped[0][0] == tmp_path/"c.tif"
    assert torch.equal(m.batch([0]), m.batch([1]))


def test_a_network_of_one_size_is_refused(dls, files):
    lrnr = cam_learner(dls, resnet18, pretrained=False)
    class OneSize(nn.Module):
        def forward(self, x):
            assert x.shape[-1] == 64, "give 64 pixels"
            return x
    lrnr.model[0].insert(0, OneSize())
    with pytest.raises(InputError, match="give 64 pixels"): cams(lrnr, files)


def test_several_classes_a_picture_are_refused(lrnr, files):
    "Their probabilities are no softmax."
    loss = lrnr.loss_func
    try:
        lrnr.loss_func = BCEWithLogitsLossFlat()
        for explain in (cams, gradcam):
            with pytest.raises(InputError, match="one class a picture"): explain(lrnr, files[:2])
    finally: lrnr.loss_func = loss


def test_a_batch_gets_the_type_of_the_network(lrnr, files):
    x, m = tensors(lrnr, files), cams(lrnr, files)
    assert_close(cams(lrnr, x.double()).maps, m.maps, rtol=1e-4, atol=1e-5)
    lrnr.model.double()
    try:
        assert_close(cams(lrnr, files).maps.float(), m.maps, rtol=1e-3, atol=1e-4)
        assert_close(gradcam(lrnr, files).maps.float(), m.maps.relu()/64, rtol=1e-3, atol=1e-5)
    finally: lrnr.model.float()



def test_a_folder_without_pictures(lrnr, tmp_path):
    with pytest.raises(InputError, match="holds no pictures"):
        cams(lrnr, tmp_path)


def test_a_head_that_cannot_be_read_says_gradcam(dls, files):
    usual = vision_learner(dls, resnet18, pretrained=False)
    with pytest.raises(InputError, match="gradcam"):
        cams(usual, files)
    assert gradcam(usual, files).maps.shape == (12, 2, 2, 2)


def test_a_network_without_maps(dls, files):
    flat = Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(3*64*64, 2)), loss_func=nn.CrossEntropyLoss())
    with pytest.raises(InputError, match="feature maps"):
        gradcam(flat, files)


# --- nothing is changed

def state(lrnr):
    return ([(p.requires_grad, p.grad) for p in lrnr.model.parameters()], [m.training for m in lrnr.model.modules()],
            [len(m._forward_hooks) for m in lrnr.model.modules()], torch.is_grad_enabled())


def test_the_state_of_the_learner_comes_back_also_after_an_error(dls, files):
    lrnr = cam_learner(dls, resnet18, pretrained=False)
    lrnr.model.train()
    lrnr.model[0][1].eval()  # a frozen norm layer in a network that trains
    for p in lrnr.model[0][4].parameters(): p.requires_grad_(False)
    before = state(lrnr)
    for f in (cams, gradcam):
        f(lrnr, files)
        assert state(lrnr) == before
        with pytest.raises(InputError): f(lrnr, torch.zeros(2, 2))
        broken = lrnr.model[0][2].register_forward_pre_hook(lambda *args: 1/0)
        with pytest.raises(ZeroDivisionError): f(lrnr, files)
        broken.remove()
        assert state(lrnr) == before


# --- on the disk

def test_saved_maps_come_back(lrnr, files, tmp_path):
    m, s = cams(lrnr, files), cams(lrnr, files, bs=5, save=tmp_path/"maps.npz")
    back = load_cams(tmp_path/"maps.npz", lrnr.dls)
    for o in (s, back):
        assert_close(o.maps, m.maps, **close)
        assert_close(o.logits, m.logits, **close)
        assert (o.items, o.labels, o.vocab, o.cells, o.predicted) == (m.items, m.labels, m.vocab, m.cells, m.predicted)
    with np.load(tmp_path/"maps.npz", allow_pickle=False) as z:
        np.testing.assert_array_equal(z["maps"], back.maps.numpy())
        assert z["items"].tolist() == [str(f) for f in files]
    assert back.show(2, 2) and back.overlay(1).size == (64, 64) and len(back.top_losses(3)) == 3
    back.maps.zero_()  # in memory only
    assert_close(load_cams(tmp_path/"maps.npz", lrnr.dls).maps, s.maps)


def test_half_precision_stays_half_on_the_disk(dls, files, tmp_path):
    lrnr = cam_learner(dls, resnet18, pretrained=False, stride=8)
    x = tensors(lrnr, files).half()
    lrnr.model.half()
    m, s = cams(lrnr, x), cams(lrnr, x, save=tmp_path/"maps.npz")
    assert s.maps.dtype == torch.float16 == m.maps.dtype
    assert_close(s.maps, m.maps)
    with pytest.raises(InputError, match="were no files"):
        load_cams(tmp_path/"maps.npz", dls).picture(0)


def stop_after(lrnr, n, stop):
    "A hook that calls `stop` when the body is called for the (n+1)th time; it counts the calls in `calls`."
    map_cells(lrnr.model[0])  # which runs the body, too, the first time
    def hook(*args):
        hook.calls += 1
        if hook.calls > n: stop()
    hook.calls = 0
    handle = lrnr.model[0].register_forward_pre_hook(hook)
    hook.remove = handle.remove
    return hook


def interrupted(lrnr, items, file, n=2):
    "`cams` a picture at a time, until the user stops it."
    def stop(): raise KeyboardInterrupt
    hook = stop_after(lrnr, n, stop)
    with pytest.raises(KeyboardInterrupt): cams(lrnr, items, bs=1, save=file)
    hook.remove()


def names(folder): return sorted(o.name for o in folder.iterdir())


def test_an_interrupted_save_of_what_are_no_files_leaves_nothing(lrnr, files, tmp_path):
    good = tmp_path/"maps.npz"
    cams(lrnr, files[:1], save=good)
    before = good.read_bytes()
    for items in (tensors(lrnr, files), [Image.open(f) for f in files]):
        interrupted(lrnr, items, good)
        assert names(tmp_path) == ["maps.npz"] and good.read_bytes() == before


def test_a_killed_process_is_gone_on_with(lrnr, files, tmp_path, capsys):
    "kill -9 after five pictures: nothing is taken for the whole, and seven are left to do."
    broken = tmp_path/"broken.png"
    broken.write_bytes(files[0].read_bytes()[:300])
    items, out, folder = [*files[:3], broken, *files[3:]], tmp_path/"new"/"maps.npz", tmp_path/"new"
    folder.mkdir()
    def work():
        torch.set_num_threads(1)  # as torch's own loaders do: the threads of the parent are not in the child
        stop_after(lrnr, 5, lambda: os.kill(os.getpid(), signal.SIGKILL))
        cams(lrnr, items, bs=1, save=out)
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL and names(folder) == ["maps.npz.part"]
    with pytest.raises(InputError, match="damaged"): load_cams(folder/"maps.npz.part", lrnr.dls)
    capsys.readouterr()
    hook = stop_after(lrnr, 100, None)
    with pytest.warns(UserWarning, match="broken.png"): m = cams(lrnr, items, bs=1, save=out)
    hook.remove()
    assert f"goes on behind 5 of {len(items)} pictures" in capsys.readouterr().out and hook.calls == len(items)-5
    assert names(folder) == ["maps.npz"] and [o for o, _ in m.skipped] == [broken]
    plain = cams(lrnr, files)
    for o in (m, load_cams(out, lrnr.dls)):
        assert_close(o.maps, plain.maps, **close)
        assert_close(o.logits, plain.logits, **close)
        assert (o.items, o.labels) == (plain.items, plain.labels)


def test_two_processes_do_not_write_one_file(tmp_path):
    "And a worker of the loader that outlives its program for a moment holds nobody up."
    about = dict.fromkeys(("model", "pictures", "preparation"), "x")
    fork = multiprocessing.get_context("fork")
    def refused():
        try: MapFile(tmp_path/"maps.npz", about)
        except InputError as e: os._exit("another process writes" in str(e))
        os._exit(2)
    def killed():
        out = MapFile(tmp_path/"maps.npz", about)
        fork.Process(target=time.sleep, args=(60,)).start()
        worker.send(multiprocessing.active_children()[0].pid)
        assert out.part.exists()
        os.kill(os.getpid(), signal.SIGKILL)
    with MapFile(tmp_path/"maps.npz", about):
        child = fork.Process(target=refused)
        child.start()
        child.join()
        assert child.exitcode == 1
    pid, worker = fork.Pipe(duplex=False)
    child = fork.Process(target=killed)
    child.start()
    child.join()
    with MapFile(tmp_path/"maps.npz", about) as out: assert out.n == 0
    os.kill(pid.recv(), signal.SIGKILL)


def test_what_was_begun_with_something_else_is_not_gone_on_with(path, lrnr, files, tmp_path):
    file, part = tmp_path/"maps.npz", tmp_path/"maps.npz.part"
    interrupted(lrnr, files, file)
    before, weight = part.read_bytes(), lrnr.model[1][2].weight.data
    def refuses(says, lrnr, items):
        with pytest.raises(InputError, match=says): cams(lrnr, items, save=file)
        assert part.read_bytes() == before and names(tmp_path) == ["maps.npz.part"]
    refuses("another list of pictures", lrnr, files[:-1])
    refuses("another list of pictures", lrnr, files[::-1])
    kept = weight.clone()
    weight[0, 0] += 1e-6
    refuses("another model", lrnr, files)
    weight.copy_(kept)
    other = Learner(folder_dls(path, size=48, bs=8, num_workers=0), lrnr.model, loss_func=lrnr.loss_func)
    refuses("another way, as of another size", other, files)


@pytest.mark.parametrize("damage", ["cut", "flipped", "zeros"])
def test_a_part_that_did_not_reach_the_disk_is_made_again(damage, tmp_path):
    "Wherever it is cut, or holds what was never written: what is whole before that stays, and nothing else."
    maps = np.random.default_rng(0).normal(size=(6, 2, 2, 2)).astype(np.float32)
    logits, good, about = maps.mean((2, 3)), np.array([1, 1, 0, 1, 1, 1], bool), dict.fromkeys(
        ("model", "pictures", "preparation"), "x")
    with MapFile(tmp_path/"maps.npz", about) as out: out.append(maps[:4], logits[:4], good[:4])
    whole, size = out.part.read_bytes(), out.record.itemsize
    for at in range(len(whole)-4*size, len(whole), 5):
        tail = dict(cut=b"", flipped=bytes([whole[at] ^ 1])+whole[at+1:], zeros=bytes(len(whole)-at))[damage]
        if whole[:at]+tail == whole: continue
        out.part.write_bytes(whole[:at]+tail)
        with MapFile(tmp_path/"maps.npz", about) as out:
            found = whole[:at]+tail
            differs = next(i for i in range(len(whole)) if i == len(found) or found[i] != whole[i])
            assert out.n == (differs-(len(whole)-4*size))//size
            out.append(maps[out.n:], logits[out.n:], good[out.n:])
            out.finish(good.sum(), logits=logits[good])
        np.testing.assert_array_equal(MapReader(tmp_path/"maps.npz").maps(2), maps[good])
        assert names(tmp_path) == ["maps.npz"]


def test_a_full_disk_loses_nothing(lrnr, files, tmp_path):
    "Full while the maps are made, and full when they are put together."
    file, plain = tmp_path/"maps.npz", cams(lrnr, files)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    interrupted(lrnr, files, file)
    step = (tmp_path/"maps.npz.part").stat().st_size//3
    for room in (3*step+100, 6*step, 12*step+1200):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(OSError, match="pictures so far stay in .*maps.npz.part: make room, and call again"):
                cams(lrnr, files, bs=1, save=file)
        finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert names(tmp_path) == ["maps.npz.part"]
    assert_close(cams(lrnr, files, bs=1, save=file).maps, plain.maps, **close)


def test_a_name_that_something_else_has_is_not_taken(lrnr, files, tmp_path):
    thesis, part, pipe = tmp_path/"thesis.docx", tmp_path/"maps.npz.part", tmp_path/"pipe"
    thesis.write_text("three years")
    part.write_text("of a machine")
    os.mkfifo(pipe)
    for file, says in ((thesis, "holds no maps"), (tmp_path/"maps.npz", "not what cams has left"),
                       (pipe, "no ordinary file")):
        with pytest.raises(InputError, match=says) as e: cams(lrnr, files, save=file)
        assert "\n" not in str(e.value)
    assert (thesis.read_text(), part.read_text()) == ("three years", "of a machine")
    assert names(tmp_path) == ["maps.npz.part", "pipe", "thesis.docx"]


def misspelt(data):
    "A class with another first letter: the checksum tells."
    at = data.index(b"o\0\0\0n\0\0\0e")
    return data[:at]+b"p"+data[at+1:]


def test_damaged_map_files(lrnr, files, tmp_path):
    good = tmp_path/"good.npz"
    cams(lrnr, files, save=good)
    data = good.read_bytes()
    bad = tmp_path/"bad.npz"
    for change in (b"", b"PK", data[:len(data)//2], data[:-30], data.replace(b"descr", b"dexcr"), misspelt(data),
                   data.replace(b", }", b",  "), b"\x93NUMPY"):
        bad.write_bytes(change)
        if change == data: continue
        with pytest.raises(InputError, match="damaged"): load_cams(bad, lrnr.dls)
    np.savez_compressed(bad, maps=np.zeros((1, 2, 3, 3), np.float32))
    with pytest.raises(InputError, match="damaged"): load_cams(bad, lrnr.dls)
    np.savez(bad, maps=np.array([{}], object))
    with pytest.raises(InputError, match="damaged"): load_cams(bad, lrnr.dls)


def put(file, compress=zipfile.ZIP_STORED, **arrays):
    with zipfile.ZipFile(file, "w", compress) as z:
        for name, a in arrays.items():
            with z.open(f"{name}.npy", "w") as f: np.lib.format.write_array(f, np.asarray(a), allow_pickle=False)


def test_huge_and_encrypted_map_files_are_refused_before_they_are_read(lrnr, files, tmp_path):
    "A few kB that unpack to 8 GB; sizes that the file does not have; encrypted parts; a pipe."
    bad, vocab = tmp_path/"bad.npz", list(map(str, lrnr.dls.vocab))
    good = dict(vocab=vocab, maps=np.zeros((2, 2, 3, 3), np.float32), logits=np.zeros((2, 2), np.float32),
                labels=["", ""], items=["", ""], cells=[8., 0.])
    put(bad, **good)
    assert len(load_cams(bad, lrnr.dls)) == 2
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 2), }"
    bomb = b"\x93NUMPY\x01\x00"+struct.pack("<H", 118)+header.ljust(117)+b"\n"
    def with_bomb(compress):
        with zipfile.ZipFile(bad, "w", compress) as z:
            for name in good:
                with z.open(f"{name}.npy", "w") as f:
                    if name != "logits": np.lib.format.write_array(f, np.asarray(good[name]), allow_pickle=False)
                    else:
                        f.write(bomb)
                        for _ in range(200 if compress else 1): f.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for make in (lambda: with_bomb(zipfile.ZIP_DEFLATED), lambda: with_bomb(zipfile.ZIP_STORED),
                 lambda: put(bad, zipfile.ZIP_DEFLATED, **good),
                 lambda: put(bad, **{**good, "cells": [float("nan"), 0.]}),
                 lambda: put(bad, **{**good, "cells": [0., 0.]}), lambda: put(bad, **{**good, "labels": [""]}),
                 lambda: put(bad, **{**good, "maps": np.zeros((0, 2, 3, 3), np.float32)}),
                 lambda: put(bad, **{**good, "maps": np.zeros((2, 2, 3, 3), int)}),
                 lambda: put(bad, **{k: v for k, v in good.items() if k != "items"})):
        make()
        with pytest.raises(InputError, match="damaged") as e: load_cams(bad, lrnr.dls)
        assert "\n" not in str(e.value)
    put(bad, **good)
    data = bytearray(bad.read_bytes())
    for start in (b"PK\x03\x04", b"PK\x01\x02"):  # the flag that says: encrypted
        at = -1
        while (at := data.find(start, at+1)) >= 0: data[at+(6 if start[2] == 3 else 8)] |= 1
    bad.write_bytes(data)
    with pytest.raises(InputError, match="encrypted"): load_cams(bad, lrnr.dls)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before < 100*1024
    bad.unlink()
    os.mkfifo(bad)
    with pytest.raises(InputError, match="is no file"): load_cams(bad, lrnr.dls)


memory = """
import resource, sys, torch
from fastcourse.cam import cams
from fastai.vision.all import Learner, nn
from fastcourse.bodies import ReadableNet, cam_head
from fastcourse.vision import bare_dls
about = dict(warps=[], resize=dict(kind="Resize", size=[32, 32], method="squish", pad_mode="zeros"), normalize=None,
             vocab=[f"c{i}" for i in range(200)])
model = ReadableNet(nn.Conv2d(3, 4, 1), cam_head(4, 200))
lrnr = Learner(bare_dls(about), model, loss_func=nn.CrossEntropyLoss())
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
cams(lrnr, torch.zeros(40, 3, 32, 32), bs=4, save=sys.argv[1])
before = peak()
m = cams(lrnr, torch.zeros(200, 3, 32, 32), bs=4, save=sys.argv[1])
print(m.maps.numel()*4/2**20, peak()-before)
"""


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    r = subprocess.run([sys.executable, "-c", memory, str(tmp_path/"maps.npz")], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    size, grown = map(float, r.stdout.splitlines()[-1].split())  # on a slow machine there are lines of progress before
    assert size > 150 and grown < 50  # kept maps would be 125 MB more


# --- where a cell lies

@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "tf_mobilenetv3_small_075", "resnet18"])
def test_cells_lie_in_the_middle_of_what_moves_them(name):
    "With positive weights and no gates, the pixels that move a cell lie evenly around its centre."
    body = timm.create_model(name, num_classes=0, global_pool="").double().eval()
    for n, p in body.named_parameters():
        if p.ndim == 4: p.data.fill_(0. if ".se." in n else 1/p[0].numel())
        elif "weight" in n: p.data.fill_(1.)  # timm starts some norm layers at 0, which would close their branch
    x = torch.rand(1, 3, 512, 512, dtype=torch.double, requires_grad=True)
    body(x)[0, :, 8, 8].sum().backward()
    weight = x.grad[0].abs().sum((0, 1))
    jump, start = map_cells(body.float())
    assert jump == 32
    assert ((weight*torch.arange(512)).sum()/weight.sum()).item() == pytest.approx(start+8*jump, abs=1)


@pytest.mark.parametrize("size", [3, None, "ab", (3,), (3, 4, 5), (0, 3), (-1, 3), (2.5, 3), (True, 3), (10**7, 10**7)],
                         ids=str)
def test_maps_are_enlarged_to_a_pair_of_whole_numbers(lrnr, files, size):
    m = cams(lrnr, files[:2])
    with pytest.raises(InputError, match="size="): m.enlarge(m.chosen(), size)


def test_what_is_no_map_is_not_enlarged_or_laid_over(lrnr, files):
    m = cams(lrnr, files[:2])
    for bad in (3, None, "a", m.chosen().numpy(), torch.rand(2)):
        with pytest.raises(InputError, match="give a tensor"): m.enlarge(bad, (3, 3))
    for im, heat in ((None, np.zeros((3, 3))), (np.zeros((3, 3)), np.zeros((3, 3))), (np.zeros((3, 3, 3)), "a"),
                     (np.zeros((3, 3, 3)), np.zeros((2, 2))), (np.zeros((3, 3, 4)), np.zeros((3, 3)))):
        with pytest.raises(InputError, match="are needed"): lay_over(im, heat)
