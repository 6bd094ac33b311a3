"""Picture sets with everything in them that goes wrong, made here and real ones."""
import random
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hostile import bomb, encoded, holed, noise, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from fastcourse.clean import check_images, clean_images
from fastcourse.core import InputError
from fastcourse.crawl import FolderSearch, crawl_images, show_crawl
from fastcourse.pictures import PictureError, read_picture

DATA = Path(__file__).parents[2]/"shared"/"data"
WILDLIFE = DATA/"wildlife"
real = pytest.mark.skipif(not WILDLIFE.is_dir(),
                          reason="the photographs of shared/data/wildlife are not beside this checkout")


def put(path: Path, data: bytes | Image.Image, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data) if isinstance(data, bytes) else data.save(path, **kwargs)


def problems(path, **kwargs) -> dict:
    df = check_images(path, **kwargs)
    return df[df.problems != ""].set_index("file").problems.to_dict()


def pixels(path) -> np.ndarray:
    with Image.open(path) as im: return np.asarray(im.convert("RGB")).astype(int)


# Reading -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F"])
def test_every_mode_that_pillow_writes_can_be_read(tmp_path, kind, mode):
    im = noise(1).convert("L").convert("I").convert("I;16") if mode == "I;16" else noise(1).convert(mode)
    try: put(tmp_path/f"x.{kind.lower()}", encoded(im, kind))
    except (OSError, ValueError): return   # no such file exists
    row = check_images(tmp_path).iloc[0]
    assert not {"broken", "not a picture", "wrong ending"} & set(row.problems.split(", ")), row.reason
    assert (row.width, row.height) == (96, 72) and len(row.phash) == 64


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP"]), st.integers(0, 2**32), st.integers(1, 40))
def test_no_damage_raises_anything_else(kind, seed, n):
    "Bytes changed, cut out or put in anywhere: a picture or a reason, never another exception."
    data, r = bytearray(encoded(noise(2), kind)), random.Random(seed)
    for _ in range(n):
        i = r.randrange(len(data))
        r.choice([lambda: data.__setitem__(i, r.randrange(256)),
                  lambda: data.__delitem__(slice(i, i+r.randrange(20))), lambda: data.insert(i, r.randrange(256))])()
        if len(data) < 2: break
    try: assert read_picture(bytes(data), 10**6).grey.ndim == 2
    except PictureError as e: assert str(e)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM0000\0\0\0\0",
                                                 b"RIFF0000WEBP", b""]))
def test_noise_after_a_good_start_is_no_picture(data, start):
    with pytest.raises(PictureError): read_picture(start+data, 10**6, others=False)


def test_truncated_pictures_are_found_whatever_the_program_has_set(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        data = encoded(noise(3), kind)
        put(tmp_path/f"x.{kind.lower()}", data[:len(data)*2//3])
    assert set(problems(tmp_path).values()) == {"broken"} and len(problems(tmp_path)) == 4
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_flat_pictures_with_zeros_in_their_code_are_whole(tmp_path):
    "Their best Huffman code is all zeros, the very thing that in a photograph is a hole."
    for i, kwargs in enumerate((dict(optimize=True), dict(progressive=True), dict(),
                                dict(optimize=True, subsampling=0))):
        for j, im in enumerate((Image.new("RGB", (900, 900), (i, 80, 200)), Image.new("L", (900, 900), 90),
                                Image.new("RGB", (900, 900), "white"))):
            im.paste(128, (10, 10, 40+i, 40+j))
            put(tmp_path/f"{i}{j}.jpg", encoded(im, **kwargs))
    assert not check_images(tmp_path, duplicates=False).problems.any()


@real
def test_damage_in_the_middle_of_real_photographs(tmp_path):
    "Zeroed, cut out, overwritten: what Pillow and fastai mostly let pass."
    def spoil(data, how, r):
        m = len(data)//2
        return {"zeroed": holed(data, 1000), "cut out": data[:m]+data[m+1000:],
                "overwritten": data[:m]+r.randbytes(1000)+data[m+1000:], "short": data[:m]}[how]
    r = random.Random(0)
    for i, o in enumerate(sorted(WILDLIFE.rglob("*.jpg"))[::4]):
        data = o.read_bytes()
        for how in ("zeroed", "cut out", "overwritten", "short"): put(tmp_path/how/f"{i}.jpg", spoil(data, how, r))
        put(tmp_path/"whole"/f"{i}.jpg", data)
    df = check_images(tmp_path, duplicates=False)
    share = df.groupby("label").problems.agg(lambda o: (o == "broken").mean()).to_dict()
    assert share == {"cut out": 1, "overwritten": 1, "short": 1, "whole": 0, "zeroed": 1}


@pytest.mark.skipif(not (DATA/"broken").is_dir(), reason="shared/data/broken is not beside this checkout")
def test_a_real_truncated_photograph(tmp_path):
    shutil.copytree(DATA/"broken", tmp_path/"set")
    assert set(problems(tmp_path/"set").values()) == {"broken"}


# Copies ------------------------------------------------------------------------------------------------------------

# The pairs of `wildlife` that show the same photograph; looked at by eye. Four of them are in train and test alike.
SAME = [{"kangaroo_007", "kangaroo_031"}, {"raccoon_115", "raccoon_141"}, {"raccoon_020", "raccoon_013"},
        {"raccoon_025", "raccoon_183"}, {"raccoon_163", "raccoon_199"},
        {"raccoon_147", "raccoon_149", "raccoon_173"}, {"raccoon_185", "raccoon_148"}]


@real
def test_copies_in_wildlife_are_the_known_ones():
    "No false alarm among 45,753 pairs, and none of the real copies is missed."
    df = check_images(WILDLIFE)
    found = df[df.duplicate_of != ""]
    assert len(df) == 303 and not set(found.problems) & {"broken", "two labels"}
    assert all(any({Path(o.file).stem, Path(o.duplicate_of).stem} <= same for same in SAME) for o in found.itertuples())
    assert len(found) == sum(len(o)-1 for o in SAME)
    leaks = {Path(o.file).stem for o in found.itertuples() if "leak" in o.problems}
    assert leaks == {"raccoon_115", "raccoon_020", "raccoon_025", "raccoon_185"}
    assert set(found.split[found.problems.str.contains("leak")]) == {"test"}


def cut(im): return im.crop((im.width//50, im.height//50, im.width-im.width//50, im.height-im.height//50))


def half(im): return im.resize((im.width//2, im.height//2))


PLANTS = {"re-encoded": lambda im: encoded(im, quality=40), "webp": lambda im: encoded(im, "WEBP", quality=60),
          "half": lambda im: encoded(half(im)), "larger": lambda im: encoded(im.resize((im.width*2, im.height*2))),
          "cut by 2 %": lambda im: encoded(cut(im)), "all three": lambda im: encoded(half(cut(im)), quality=60),
          "brighter": lambda im: encoded(im.point(lambda v: min(255, v*115//100)))}


@real
def test_planted_leakage_is_found_in_303_photographs(tmp_path):
    "Every photograph with a copy in test: recall 1, false alarms 0."
    for i, o in enumerate(sorted(WILDLIFE.rglob("*.jpg"))):
        name = f"{o.parent.name}/{o.stem}"
        put(tmp_path/"train"/f"{name}.jpg", o.read_bytes())
        how = list(PLANTS)[i%len(PLANTS)]
        with Image.open(o) as im: data = PLANTS[how](im)
        put(tmp_path/"test"/f"{name}.{'webp' if how == 'webp' else 'jpg'}", data)
    df = check_images(tmp_path)
    planted = df[df.split == "test"]
    same = [any({Path(o.file).stem, Path(o.duplicate_of).stem} <= s for s in SAME)
            or Path(o.file).stem == Path(o.duplicate_of).stem for o in planted.itertuples()]
    assert planted.problems.str.contains("leak").all() and all(same) and len(planted) == 303


def test_the_original_is_in_train_and_larger(tmp_path):
    im = noise(5, (200, 150))
    put(tmp_path/"test/a/large.png", im)
    put(tmp_path/"train/a/small.jpg", im.resize((100, 75)))
    put(tmp_path/"train/a/middle.jpg", im.resize((150, 112)))
    put(tmp_path/"train/b/same.png", encoded(im.resize((150, 112))))
    df = check_images(tmp_path).set_index("file")
    assert df.duplicate_of.to_dict() == {"test/a/large.png": "train/a/middle.jpg", "train/a/middle.jpg": "",
                                         "train/a/small.jpg": "train/a/middle.jpg",
                                         "train/b/same.png": "train/a/middle.jpg"}
    assert df.problems.to_dict() == {"test/a/large.png": "near duplicate, leak", "train/a/middle.jpg": "",
                                     "train/a/small.jpg": "near duplicate",
                                     "train/b/same.png": "wrong ending, exact duplicate, two labels"}


def test_copies_are_found_across_blocks(tmp_path):
    "The comparison runs 512 pictures at a time; a copy may be in another block than its original."
    for i in range(600): put(tmp_path/f"{i:03}.bmp", noise(i, (48, 40)))
    put(tmp_path/"999.png", noise(3, (48, 40)))
    df = check_images(tmp_path)
    assert df[df.duplicate_of != ""][["file", "duplicate_of"]].values.tolist() == [["999.png", "003.bmp"]]


# Cleaning ----------------------------------------------------------------------------------------------------------

def mess(path):
    "One file of every kind of trouble, a few good ones, and things that are none of our business."
    for i in range(4): put(path/f"train/a/{i}.jpg", picture(i))
    for i in range(4, 6): put(path/f"test/a/{i}.jpg", picture(i))
    put(path/"boxes.csv", b"file,label\n")
    put(path/".hidden/x.jpg", b"no picture")
    put(path/"train/a/.DS_Store", b"no picture")
    put(path/"train/a/page.jpg", b"<html>")
    put(path/"train/a/notes.txt", b"not a picture, in a class folder")
    put(path/"train/a/empty.png", b"")
    put(path/"train/a/short.jpg", picture(10)[:-700])
    put(path/"train/a/bomb.png", bomb())
    put(path/"train/a/icon.gif", encoded(noise(11, (16, 16)), "GIF"))
    put(path/"train/a/copy.jpg", picture(0))
    put(path/"test/a/leak.jpg", encoded(noise(1).resize((72, 54))))
    put(path/"train/a/no_ending", picture(12))
    put(path/"train/a/named.png", picture(13))
    put(path/"train/a/shout.JPEG", picture(14))
    put(path/"train/a/cmyk.jpg", noise(15).convert("CMYK"))
    put(path/"train/a/deep.png", Image.fromarray(np.asarray(noise(16).convert("L")).astype(np.uint16)*257))
    put(path/"train/a/palette.png", noise(17).quantize(32), transparency=bytes([0]*8+[255]*24))
    put(path/"train/a/moving.gif", noise(18), save_all=True, append_images=[noise(19)])
    put(path/"train/a/moving.webp", noise(20), save_all=True, append_images=[noise(21)], lossless=True)
    exif = Image.Exif()
    exif[0x0112], exif[0x010e] = 8, "a caption"
    put(path/"train/a/turned.jpg", noise(22, (400, 300)), exif=exif, quality=92)
    put(path/"train/a/사진 1.jpg", noise(23))
    put(path/"train/a/tiff.tif", noise(24))
    put(path/"train/a/clear.png", noise(25).convert("RGBA"))


def test_clean_repairs_or_moves_and_never_loses(tmp_path):
    mess(tmp_path)
    before = {o.relative_to(tmp_path).as_posix(): o.read_bytes() for o in tmp_path.rglob("*") if o.is_file()}
    planned = clean_images(tmp_path, dry_run=True)
    assert {o.relative_to(tmp_path).as_posix(): o.read_bytes() for o in tmp_path.rglob("*") if o.is_file()} == before
    report = clean_images(tmp_path).set_index("file")
    assert report.action.to_dict() == planned.set_index("file").action.to_dict() == {
        **dict.fromkeys(["train/a/bomb.png", "train/a/copy.jpg", "train/a/empty.png", "train/a/icon.gif",
                         "train/a/page.jpg", "train/a/short.jpg"], "rejected"),
        **dict.fromkeys(["test/a/leak.jpg", "train/a/notes.txt"], "left"),
        **dict.fromkeys(["train/a/cmyk.jpg", "train/a/deep.png", "train/a/moving.gif", "train/a/moving.webp",
                         "train/a/named.png", "train/a/no_ending", "train/a/palette.png",
                         "train/a/turned.jpg"], "repaired")}
    new = {"moving.gif": "moving.png", "moving.webp": "moving-1.png", "no_ending": "no_ending.jpg"}
    assert all(report.to[f"train/a/{k}"] == f"train/a/{v}" for k, v in new.items())
    now = {o.relative_to(tmp_path).as_posix(): o.read_bytes() for o in tmp_path.rglob("*") if o.is_file()}
    assert set(before.values()) <= set(now.values())                        # every byte is still somewhere
    assert all(now[o] == before[o] for o in before if o not in report.index)   # and what was good is untouched
    notes = pd.read_csv(tmp_path/".rejected"/"rejected.csv").set_index("file")
    assert set(notes.index) == set(report.index[report.action != "left"])
    assert notes.reason["train/a/copy.jpg"] == "the same bytes as train/a/0.jpg"
    assert set(clean_images(tmp_path).file) == set(report.index[report.action == "left"])
    assert not [o for o in tmp_path.rglob("*.part")]


def test_what_repairs_give(tmp_path):
    mess(tmp_path)
    clean_images(tmp_path)
    a, kept = tmp_path/"train/a", tmp_path/".rejected/train/a"
    with Image.open(a/"turned.jpg") as im:
        assert im.size == (300, 400) and im.getexif().get(0x0112, 1) == 1 and im.getexif()[0x010e] == "a caption"
    with Image.open(kept/"turned.jpg") as im: right = np.asarray(ImageOps.exif_transpose(im)).astype(int)
    assert np.abs(pixels(a/"turned.jpg")-right).mean() < 1
    with Image.open(a/"deep.png") as im:
        assert im.mode == "L"
        np.testing.assert_array_equal(np.asarray(im), np.asarray(noise(16).convert("L")))
    with Image.open(a/"cmyk.jpg") as im: assert im.mode == "RGB"
    assert np.abs(pixels(a/"cmyk.jpg")-pixels(kept/"cmyk.jpg")).mean() < 2
    with Image.open(a/"palette.png") as im: assert im.mode == "RGB"
    with Image.open(kept/"palette.png") as im: clear = np.asarray(im.convert("RGBA"))[..., 3] == 0
    assert clear.any() and (pixels(a/"palette.png")[clear] == 255).all()
    np.testing.assert_array_equal(pixels(a/"moving-1.png"), np.asarray(noise(20)))


def test_without_fix_and_with_delete(tmp_path):
    mess(tmp_path)
    report = clean_images(tmp_path, fix=False, delete=True).set_index("file")
    assert Counter(report.action) == {"left": 10, "rejected": 3, "deleted": 3}
    assert set(report.index[report.action == "deleted"]) == {f"train/a/{o}"
                                                             for o in ("page.jpg", "empty.png", "short.jpg")}
    assert set(pd.read_csv(tmp_path/".rejected"/"rejected.csv").file) == set(report.index[report.action != "left"])
    assert (tmp_path/"train/a/named.png").exists() and not (tmp_path/"train/a/page.jpg").exists()


def test_a_file_that_cannot_be_moved_is_left_and_named(tmp_path, monkeypatch):
    put(tmp_path/"a/page.jpg", b"<html>")
    put(tmp_path/"a/other.jpg", b"<html>")
    rename = os.rename
    def failing(a, b):
        if "page" in str(a): raise PermissionError(13, "Permission denied")
        rename(a, b)
    monkeypatch.setattr(os, "rename", failing)
    report = clean_images(tmp_path).set_index("file")
    assert report.action.to_dict() == {"a/other.jpg": "rejected", "a/page.jpg": "left"}
    assert "Permission denied" in report.reason["a/page.jpg"]
    # what was not done is not noted
    assert pd.read_csv(tmp_path/".rejected"/"rejected.csv").file.tolist() == ["a/other.jpg"]


def test_fastai_goes_on_working(tmp_path):
    from fastai.vision.core import PILImage, get_image_files
    from fastai.vision.utils import verify_images
    mess(tmp_path)
    clean_images(tmp_path)
    files = get_image_files(tmp_path)
    failed = verify_images(files)
    failed.map(Path.unlink)
    assert len(failed) == 0 and len(files) == (check_images(tmp_path).kind != "").sum()
    assert all(PILImage.create(o).mode == "RGB" for o in files)


def test_clean_keeps_the_manifest_true(tmp_path):
    for i in range(5): put(tmp_path/"lib/cat"/f"{i}.jpg", picture(i))
    put(tmp_path/"lib/cat/moving.gif", noise(9), save_all=True, append_images=[noise(10)])
    df = crawl_images({"cat": "cat"}, tmp_path/"set", engine=FolderSearch(tmp_path/"lib"), test_share=0)
    spoilt = df.file[df.title == "2"].item()
    put(tmp_path/"set"/spoilt, b"<html>")
    clean_images(tmp_path/"set")
    now = pd.read_csv(tmp_path/"set"/"manifest.csv", keep_default_na=False).set_index("title")
    assert (now.status["2"], now.file["2"]) == ("rejected", "") and "not a picture" in now.reason["2"]
    assert now.file["moving"].endswith(".png") and (tmp_path/"set"/now.file["moving"]).exists()
    assert show_crawl(tmp_path/"set", 0)[["found", "downloaded", "kept"]].values.tolist() == [[6, 6, 5]]
    # What was rejected does not come back.
    again = crawl_images({"cat": "cat"}, tmp_path/"set", engine=FolderSearch(tmp_path/"lib"), test_share=0)
    assert len(list((tmp_path/"set"/"train").rglob("*.jpg"))) == 4 and again.status.tolist().count("rejected") == 1


def test_links_and_odd_folders(tmp_path):
    assert len(check_images(tmp_path)) == 0 and len(clean_images(tmp_path)) == 0
    put(tmp_path/"a/1.jpg", picture(1))
    (tmp_path/"a/dangling.jpg").symlink_to(tmp_path/"nowhere.jpg")
    (tmp_path/"a/loop").symlink_to(tmp_path/"a")
    (tmp_path/"a/above").symlink_to(tmp_path)
    (tmp_path/"a/folder.jpg").mkdir()
    assert check_images(tmp_path).file.tolist() == ["a/1.jpg"]
    for bad, word in ((dict(path=tmp_path/"a/1.jpg"), "no such folder"),
                      (dict(path=tmp_path, workers=-1), "workers=-1"),
                      (dict(path=tmp_path, max_pixels="many"), "max_pixels='many'")):
        for f in (check_images, clean_images):
            with pytest.raises(InputError, match=word): f(**bad)


# What clean may not do ---------------------------------------------------------------------------------------------

def test_only_what_ends_like_a_picture_is_moved_or_deleted(tmp_path):
    for name in ("a/labels.csv", "a/a.xml", "a/main.py", "a/data.bin", "a/notes"):
        put(tmp_path/name, b"BM not a picture")
    put(tmp_path/"a/page.jpg", b"<html>")
    put(tmp_path/"a/photo.heic", b"\0\0\0 ftypheic"+bytes(200))   # sound, and nothing here can read it
    put(tmp_path/"a/cut.tif", encoded(noise(1), "TIFF")[:5000])      # perhaps a kind of TIFF that Pillow cannot read
    put(tmp_path/"a/locked.jpg", picture(1))
    (tmp_path/"a/locked.jpg").chmod(0)
    report = clean_images(tmp_path, delete=True).set_index("file")
    assert set(report.index[report.action != "left"]) == {"a/page.jpg"}
    assert len(list((tmp_path/"a").iterdir())) == 8
    assert report.problems["a/photo.heic"] == report.problems["a/cut.tif"] == "not read"


def test_a_picture_without_memory_or_permission_is_left(tmp_path, monkeypatch):
    from fastcourse import pictures
    for i in range(3): put(tmp_path/f"a/{i}.png", encoded(noise(i), "PNG"))
    def full(*args, **kwargs): raise MemoryError
    monkeypatch.setattr(pictures, "_read_other", full)
    assert clean_images(tmp_path, delete=True)[["action", "problems", "reason"]].values.tolist() == [
        ["left", "not read", "not enough memory"]]*3


def test_two_links_to_one_folder_lose_nothing(tmp_path):
    put(tmp_path/"far/1.jpg", picture(1))
    (tmp_path/"set/train").mkdir(parents=True)
    for o in ("cat", "dog"): (tmp_path/"set/train"/o).symlink_to(tmp_path/"far")
    report = clean_images(tmp_path/"set")
    assert report[["file", "action", "problems"]].values.tolist() == [["train/dog/1.jpg", "left",
                                                                       "exact duplicate, two labels"]]
    assert (tmp_path/"far/1.jpg").read_bytes() == picture(1)


def test_a_broken_picture_in_a_linked_folder_is_found(tmp_path):
    put(tmp_path/"far/0.png", noise(0))
    put(tmp_path/"far/broken.jpg", b"\xff\xd8\xff nothing")
    put(tmp_path/"set/test/cat/copy.png", noise(0))
    (tmp_path/"set/train").mkdir()
    (tmp_path/"set/train/cat").symlink_to(tmp_path/"far")
    assert problems(tmp_path/"set") == {"test/cat/copy.png": "exact duplicate, leak", "train/cat/broken.jpg": "broken"}


def test_different_drawings_and_digits_are_no_copies(tmp_path):
    from PIL import ImageDraw
    from sklearn.datasets import load_digits
    for i, (shape, color) in enumerate([("ellipse", "black"), ("rectangle", "black"), ("ellipse", "red"),
                                        ("ellipse", "blue")]):
        im = Image.new("RGBA", (200, 200))
        getattr(ImageDraw.Draw(im), shape)((20, 20, 150, 120), fill=None if i < 2 else color, outline=color, width=6)
        put(tmp_path/f"shapes/{i}.png", im)
    for i, color in enumerate(("white", "black", "red", "#404040")):
        put(tmp_path/f"flat/{i}.png", Image.new("RGB", (99, 70), color))
    data = load_digits()
    for i in range(150):
        im = Image.fromarray((data.images[i]*15.9).astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
        put(tmp_path/f"{data.target[i]}/{i}.png", im)
    assert not problems(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert not len(clean_images(tmp_path)) and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("top, dtype",
                         [(1., np.float32), (255., np.float32), (255, np.int32), (1023, np.uint16), (4095, np.uint16),
                                        (65535, np.uint16), (65535, np.int32)])
def test_deep_pictures_keep_their_brightness(tmp_path, top, dtype):
    ramp = np.linspace(0, 1, 60*80).reshape(60, 80)
    put(tmp_path/"deep.tif", Image.fromarray((ramp*top).astype(dtype)))
    before = (tmp_path/"deep.tif").read_bytes()
    row = clean_images(tmp_path).iloc[0]
    assert (row.action, row.problems) == ("repaired", "16 bit")
    assert np.abs(pixels(tmp_path/row.to)[..., 0]-ramp*255).max() <= 1.1
    assert (tmp_path/row.original).read_bytes() == before


def test_values_of_unknown_brightness_are_left(tmp_path):
    put(tmp_path/"below.tif", Image.fromarray(np.linspace(-1, 1, 4800, dtype=np.float32).reshape(60, 80)))
    put(tmp_path/"large.tif", Image.fromarray(np.full((60, 80), 10**6, np.int32)))
    report = clean_images(tmp_path)
    assert report.action.tolist() == ["left"]*2 and report.reason.str.contains("is not known").all()


def test_odd_files_fail_alone(tmp_path):
    "A CMYK PSD cannot be written again; damaged EXIF, orientation in XMP only, animation in four kinds."
    put(tmp_path/"a/good.jpg", picture(1))
    put(tmp_path/"a/moving.tif", noise(3), save_all=True, append_images=[noise(4)])
    put(tmp_path/"a/moving.png", noise(5), save_all=True, append_images=[noise(6)])
    psd = b"8BPS\0\1"+bytes(6)+b"\0\4\0\0\0\x40\0\0\0\x40\0\x08\0\4"+bytes(12)+b"\0\0"+bytes(range(64))*256
    put(tmp_path/"a/print.psd", psd)
    xmp = (b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="x"><r:Description '
           b'tiff:Orientation="6"/></r:RDF></x:xmpmeta>')
    data = picture(2)
    put(tmp_path/"a/xmp.jpg", data[:2]+b"\xff\xe1"+(len(xmp)+2).to_bytes(2, "big")+xmp+data[2:])
    for i, kind in enumerate(("JPEG", "PNG", "WEBP")):
        put(tmp_path/f"a/exif.{kind.lower()}",
            encoded(noise(i+20), kind, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"))
    report = clean_images(tmp_path).set_index("file")
    assert report.action.to_dict() == {"a/moving.tif": "repaired", "a/moving.png": "repaired",
                                       "a/print.psd": "repaired"}
    assert Path(report.to["a/print.psd"]).suffix == ".png"
    assert not len(clean_images(tmp_path))


# Nothing is lost ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", ["file;action;to;problems;reason;time\na;b;c;d;e;f\n",
                                  "file,action,to,problems,reason,time\na,b\n", "\0"*100+"\n",
                                  'file,action,to,problems,reason,time\n"a,b\n'])
def test_a_damaged_list_is_found_before_anything_moves(tmp_path, text):
    put(tmp_path/"a/page.jpg", b"<html>")
    put(tmp_path/".rejected/rejected.csv", text.encode())
    with pytest.raises(InputError, match="repair it, or move it away"): clean_images(tmp_path)
    assert (tmp_path/"a/page.jpg").exists() and (tmp_path/".rejected/rejected.csv").read_text() == text


def test_an_older_list_and_half_a_line_are_read(tmp_path):
    put(tmp_path/"a/page.jpg", b"<html>")
    put(tmp_path/".rejected/rejected.csv",
        b"file,action,to,problems,reason,time\nold.jpg,rejected,x,broken,r,t\nhalf.jpg,rej")
    clean_images(tmp_path)
    assert pd.read_csv(tmp_path/".rejected/rejected.csv").file.tolist() == ["old.jpg", "a/page.jpg"]


@pytest.mark.parametrize("file", ["../victim.jpg", "/tmp/victim.jpg", "main.py", ".git/x.jpg"])
def test_a_foreign_manifest_is_found_before_anything_moves(tmp_path, file):
    for i in range(2): put(tmp_path/"lib/cat"/f"{i}.jpg", picture(i))
    crawl_images({"cat": "cat"}, tmp_path/"set", engine=FolderSearch(tmp_path/"lib"), test_share=0)
    put(tmp_path/"set/train/cat/page.jpg", b"<html>")
    put(tmp_path/"victim.jpg", picture(9))
    shutil.rmtree(tmp_path/"set/.crawl")
    table = pd.read_csv(tmp_path/"set/manifest.csv", dtype=str, keep_default_na=False)
    table.loc[0, "file"] = file
    table.to_csv(tmp_path/"set/manifest.csv", index=False)
    for status in ("ok", "fetched"):
        table.assign(status=status).to_csv(tmp_path/"set/manifest.csv", index=False)
        for f in (lambda: clean_images(tmp_path/"set"),
                  lambda: crawl_images({"cat": "cat"}, tmp_path/"set", engine=FolderSearch(tmp_path/"lib"))):
            with pytest.raises(InputError, match="no picture inside the folder"): f()
    assert (tmp_path/"set/train/cat/page.jpg").exists() and (tmp_path/"victim.jpg").read_bytes() == picture(9)


def test_a_kill_at_every_step_leaves_the_list_and_the_manifest_true(tmp_path):
    "Every call that changes something may be the last one; then another run ends as if nothing had been."
    for i in range(3): put(tmp_path/"lib/cat"/f"{i}.jpg", picture(i))
    put(tmp_path/"lib/cat/moving.gif", noise(9), save_all=True, append_images=[noise(10)])
    crawl_images({"cat": "cat"}, tmp_path/"whole", engine=FolderSearch(tmp_path/"lib"), test_share=0)
    names = sorted((tmp_path/"whole/train/cat").glob("*.jpg"))
    names[0].write_bytes(b"<html>")
    exif = Image.Exif()
    exif[0x0112] = 6
    names[1].write_bytes(encoded(noise(11), exif=exif))
    names[2].rename(names[2].with_suffix(".png"))
    manifest = pd.read_csv(tmp_path/"whole/manifest.csv", keep_default_na=False)
    contents = {o.read_bytes() for o in (tmp_path/"whole/train/cat").iterdir()}
    calm = shutil.copytree(tmp_path/"whole", tmp_path/"calm")
    end = clean_images(calm)
    for n in range(1, 100):
        dest = shutil.copytree(tmp_path/"whole", tmp_path/str(n))
        if (pid := os.fork()) == 0:
            left = [n]
            def dying(f):
                def call(*args, **kwargs):
                    left[0] -= 1
                    if left[0] == 0: os.kill(os.getpid(), 9)
                    return f(*args, **kwargs)
                return call
            for name in ("rename", "replace", "fsync", "unlink"): setattr(os, name, dying(getattr(os, name)))
            clean_images(dest)
            os._exit(0)
        finished = os.waitpid(pid, 0)[1] == 0
        kept = {o.read_bytes(): o for o in dest.rglob("*") if o.is_file()}
        assert contents <= set(kept), n
        report = dest/".rejected/rejected.csv"
        noted = set(pd.read_csv(report).file) if report.exists() else set()
        for o in (dest/".rejected").rglob("*.*"):
            if o.suffix in (".jpg", ".gif") and not o.name.startswith("."): assert f"train/cat/{o.name}" in noted, n
        clean_images(dest, workers=1)
        same = {o.relative_to(dest).as_posix() for o in (dest/"train").rglob("[!.]*.*")}
        assert same == {o.relative_to(calm).as_posix() for o in (calm/"train").rglob("[!.]*.*")}, n
        a, b = (pd.read_csv(o/"manifest.csv", keep_default_na=False) for o in (dest, calm))
        pd.testing.assert_frame_equal(a[["url", "status", "reason", "file"]], b[["url", "status", "reason", "file"]])
        if finished: break
    assert 12 < n < 99 and set(end.action) == {"rejected", "repaired"} and len(manifest) == 4
