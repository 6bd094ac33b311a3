"""`fastcourse train`, `cam` and `predict`: the way of a user as processes, what goes wrong in this one, for speed."""
import json

import numpy as np
import pytest
from command import fastcourse, here, is_one_line
from PIL import Image

from fastcourse.scenes import digit_scenes


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    "A folder with pictures and a classifier that the command trained."
    there = tmp_path_factory.mktemp("cli")
    digit_scenes(there/"images", n_train=40, n_test=12, size=64)
    (there/"images"/"train"/"one"/"page.jpg").write_text("<html>")
    r = fastcourse("train", "images", "--arch", "resnet18", "--scratch", "--stride", 8, "--size", 64, "--epochs", 2,
                   "--seed", 1, "-o", "model", cwd=there)
    assert r.returncode == 0, r.stderr
    assert "\r" not in r.stdout and "train/one/page.jpg" in r.stdout
    assert "fastcourse cam model images -o cam.png" in r.stdout
    return there


def test_what_was_trained_is_safetensors_and_json(there):
    assert sorted(o.suffix for o in (there/"model").iterdir()) == [".json", ".safetensors"]
    about = json.loads((there/"model"/"classifier.json").read_text())
    assert about["arch"] == "resnet18" and about["stride"] == 8 and about["vocab"] == ["one", "zero"]


def test_the_same_seed_gives_the_same_classifier(there, monkeypatch, capsys):
    monkeypatch.chdir(there)
    for name in "ab":
        assert here(capsys, *"train images --arch resnet18 --scratch --stride 8 --size 32 --epochs 1 --seed 3 -o "
                             f"{name}".split()).returncode == 0
    a, b = (json.loads((there/name/"classifier.json").read_text())["sha256"] for name in "ab")
    assert a == b


def test_a_grid_of_maps(there, monkeypatch, capsys):
    monkeypatch.chdir(there)
    (there/"images"/"test"/"one"/"cut.jpg").write_bytes((there/"images"/"test"/"one"/"000.jpg").read_bytes()[:800])
    r = here(capsys, *"cam model images/test -o out/cam.png --rows 2 --cols 3 --maps maps.npz".split())
    (there/"images"/"test"/"one"/"cut.jpg").unlink()
    assert r.returncode == 0, r.stderr
    for part in ("12 pictures", "of 12 with a known class are right", "6 of them drawn"): assert part in r.stdout
    assert "cut.jpg" in r.stderr and r.stderr.count("\n") == 1
    with Image.open(there/"out"/"cam.png") as im: assert min(im.size) > 200
    with np.load(there/"maps.npz") as z: assert z["maps"].shape == (12, 2, 8, 8)


def test_predictions_as_a_table_and_as_json(there, monkeypatch, capsys):
    files = sorted((there/"images"/"test").rglob("*.jpg"))[::5]
    monkeypatch.chdir(there)
    r = here(capsys, "predict", "model", *files)
    assert r.returncode == 0, r.stderr
    assert len(r.stdout.splitlines()) == len(files)
    j = here(capsys, "predict", "model", *files[:1], "nowhere.jpg", *files[1:], "--json")
    assert j.returncode == 0 and "nowhere.jpg" in j.stderr and j.stderr.count("\n") == 1
    *rows, bad = json.loads(j.stdout)
    assert bad["file"] == "nowhere.jpg" and "error" in bad
    for row, line, file in zip(rows, r.stdout.splitlines(), files, strict=True):
        assert row["file"] == str(file) and line.split() == [str(file), row["class"], f"{row['probability']:.4f}"]
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5) and row["class"] in row["probabilities"]


def test_weights_from_a_file(there, monkeypatch, capsys):
    import torch
    from torchvision.models import resnet18
    torch.save(resnet18(weights=None).state_dict(), there/"w.pth")
    monkeypatch.chdir(there)
    r = here(capsys,
             *"train images --arch resnet18 --weights w.pth --stride 8 --size 32 --epochs 1 -o fromfile".split())
    assert r.returncode == 0, r.stderr
    assert len([o for o in r.stdout.splitlines() if o.startswith("0 ")]) == 2  # one epoch for the head, one for all


def test_no_network_is_one_line_with_the_ways_out(there, monkeypatch, capsys):
    monkeypatch.chdir(there)
    monkeypatch.setenv("TORCH_HOME", str(there/"cache"))
    r = here(capsys, "train", "images", "--arch", "resnet18", "-o", "never")
    is_one_line(r, "--scratch")
    assert "--weights" in r.stderr


@pytest.mark.parametrize("argv, word", [
    (["train", "nowhere", "--scratch"], "nowhere"),
    (["train", "images", "--arch", "resnet43"], "did you mean"),
    (["train", "images", "--arch", "timm/no_such_network", "--scratch"], "timm"),
    (["train", "images", "--epochs", "0"], "epochs=0"),
    (["train", "images", "--size", "0"], "size=0"),
    (["train", "images", "--bs", "1"], "bs=1"),
    (["train", "images", "--bs", "64", "--arch", "resnet18", "--scratch"], "bs=64: there are 40"),
    (["train", "images", "--lr", "nan"], "lr=nan"),
    (["train", "images", "--arch", "timm/resnet18.nope", "--scratch"], "no weights 'resnet18.nope'"),
    (["train", "images", "--scratch", "--stride", "7", "--arch", "mobilenet_v2"], "choose one of them"),
    (["train", "images", "--scratch", "--stride", "5", "--arch", "resnet18"], "choose one of them"),
    (["train", "images", "--scratch", "--weights", "w.pth"], "give one of them"),
    (["train", "images", "--weights", "none.pth", "--arch", "resnet18"], "none.pth"),
    (["train", "images", "--scratch", "-o", "file/model"], "file/model"),
    (["train"], "path"),
    (["cam", "nowhere", "images/test"], "no classifier"),
    (["cam", "model"], "items"),
    (["cam", "model", "nowhere"], "nowhere"),
    (["cam", "model", "empty"], "no pictures there"),
    (["cam", "model", "images/test", "--which", "dog"], "'predicted', 'true'"),
    (["cam", "model", "images/test", "-o", "cam.txt"], "cam.txt"),
    (["cam", "model", "images/test", "-o", "file/cam.png"], "file"),
    (["cam", "model", "images/test", "--rows", "0"], "rows=0"),
    (["cam", "model", "images/test", "--maps", "file/maps.npz"], "cannot be written"),
    (["predict", "nowhere", "a.jpg"], "no classifier"),
    (["predict", "model", "file"], "none of the 1 pictures"),
    (["predict", "model", "nowhere"], "nowhere"),
    (["predict", "damaged", "file"], "no JSON"),
])
def test_bad_input_is_one_line_and_exit_code_2(there, monkeypatch, capsys, argv, word):
    (there/"file").write_text("in the way")
    (there/"empty").mkdir(exist_ok=True)
    (there/"damaged").mkdir(exist_ok=True)
    (there/"damaged"/"classifier.json").write_text("{")
    monkeypatch.chdir(there)
    is_one_line(here(capsys, *argv), word)


@pytest.mark.parametrize("argv",
                         ["train nowhere", "train images --scratch --arch resnet18 --stride 5", "lm train nowhere.csv"])
def test_bad_input_leaves_no_folder(there, monkeypatch, capsys, argv):
    monkeypatch.chdir(there)
    assert here(capsys, *argv.split(), "-o", "new/deep").returncode == 2
    assert not (there/"new").exists()


def test_a_network_that_computes_while_it_is_made_can_be_saved(there, monkeypatch, capsys):
    monkeypatch.chdir(there)
    r = here(capsys, *"train images --arch regnet_y_400mf --scratch --size 32 --epochs 1 -o regnet".split())
    assert r.returncode == 0, r.stderr
    assert here(capsys, "predict", "regnet", "images/test/one").returncode == 0


def test_what_cannot_be_saved_is_found_before_the_training(there, monkeypatch, capsys):
    import fastcourse.vision as vision
    monkeypatch.chdir(there)
    def refuse(lrnr): raise vision.InputError("it cannot be saved")
    monkeypatch.setattr(vision, "savable", refuse)
    monkeypatch.setattr(vision.Learner, "fit", lambda *args, **kwargs: pytest.fail("it trains"))
    is_one_line(here(capsys, *"train images --arch resnet18 --scratch --size 32 -o never".split()), "cannot be saved")


def test_a_timm_network_is_trained(there, monkeypatch, capsys):
    monkeypatch.chdir(there)
    r = here(capsys, *"train images --arch timm/resnet18 --scratch --size 32 --epochs 1 -o timm".split())
    assert r.returncode == 0, r.stderr
    assert json.loads((there/"timm"/"classifier.json").read_text())["arch"] == "timm/resnet18"


def test_bad_input_as_a_process(there):
    is_one_line(fastcourse("train", "images", "--epochs", "0", cwd=there), "epochs=0")
