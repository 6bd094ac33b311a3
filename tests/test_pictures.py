"""The one judge of picture files, and that every door (check, clean, download, train, maps) gives its verdict."""
import os

import pytest
import torch
from fastai.vision.all import resnet18
from hostile import bomb, encoded, holed, noise
from PIL import Image, ImageDraw

from fastcourse.cam import cams
from fastcourse.clean import check_images
from fastcourse.vision import cam_learner, folder_dls


def test_transparent_drawings_are_black_on_white(tmp_path):
    for shape in ("ellipse", "rectangle"):
        for split in ("train", "test"):
            im = Image.new("RGBA", (64, 64))
            getattr(ImageDraw.Draw(im), shape)((5, 5, 50, 40), outline="black", width=4)
            (tmp_path/split/shape).mkdir(parents=True)
            im.save(tmp_path/split/shape/"0.png")
    dls = folder_dls(tmp_path, size=64, num_workers=0)
    x = dls.one_batch()[0]
    assert (x.amax((1, 2, 3)) == 1).all() and (x.amin((1, 2, 3)) == 0).all() and not torch.equal(x[0], x[1])
    lrnr = cam_learner(dls, resnet18, pretrained=False)
    file = tmp_path/"test"/"ellipse"/"0.png"
    white = Image.new("RGB", (64, 64), "white")
    white.paste(Image.open(file), mask=Image.open(file).getchannel("A"))
    a, b = cams(lrnr, [file, Image.open(file)]), cams(lrnr, [white])
    torch.testing.assert_close(a.logits, b.logits.expand(2, -1))
    torch.testing.assert_close(lrnr.predict(file)[2], b.probs[0], rtol=1e-4, atol=1e-5)


def test_every_door_gives_the_same_verdict(tmp_path, capsys, monkeypatch):
    "Damaged in the middle, behind a thumbnail, cut, empty, a page; linked folders; .webp, .jfif; no /etc/mime.types."
    import mimetypes
    monkeypatch.setattr(mimetypes, "guess_type", lambda *a, **k: (None, None))
    far = tmp_path/"far"
    for i, ext in enumerate(["jpg", "jfif", "webp", "png", "gif", "bmp", "tif"]):
        for folder in (far, tmp_path/"set"/"train"/"dog", tmp_path/"set"/"test"/"dog"):
            folder.mkdir(parents=True, exist_ok=True)
            noise(i+10*len(folder.parts)).save(folder/f"{i}.{ext}", **({"format": "JPEG"} if ext == "jfif" else {}))
    good, thumb = encoded(noise(1, (400, 300)), quality=95), encoded(noise(1))
    exif = good[:2]+b"\xff\xe1"+(len(thumb)+8).to_bytes(2, "big")+b"Exif\0\0"+thumb+good[2:]
    bad = {"holed.jpg": holed(good, 400), "thumb.jpg": exif[:-len(good)//2]+bytes(400)+exif[400-len(good)//2:],
           "short.jpg": good[:-900], "empty.png": b"", "page.jpg": b"<html>", "bomb.png": bomb()}
    (far/"stray.jpg").write_bytes(good[:-2]+b"\1\2"+good[-2:])
    for name, data in bad.items(): (far/name).write_bytes(data)
    os.mkfifo(far/"pipe.jpg")
    (tmp_path/"set"/"train"/"cat").symlink_to(far)
    dls = folder_dls(tmp_path/"set", size=32, num_workers=0)
    assert "train: 15 pictures (cat 8, dog 7)" in (said := capsys.readouterr().out)
    table = check_images(tmp_path/"set", duplicates=False).set_index("file")
    unreadable = {f"train/cat/{o}" for o in bad}
    assert set(table.index[table.problems != ""]) == unreadable and len(table) == 22+len(bad)
    lrnr = cam_learner(dls, resnet18, pretrained=False)
    with pytest.warns(UserWarning, match="left out"): m = cams(lrnr, far)
    assert len(m) == 8 and {f"train/cat/{o.name}" for o, _ in m.skipped} == unreadable
    for name in unreadable:
        problem, reason = table.loc[name, ["problems", "reason"]]
        assert f"{name} ({problem}: {reason})" in said
        skipped = [(tmp_path/"set"/"train"/"cat"/o.name, why) for o, why in m.skipped]
        assert (tmp_path/"set"/name, f"{problem}: {reason}") in skipped
