"""Picture sets with everything in them that goes wrong, made here and real ones."""
import io
import random
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
from fastcourse.crawl import FolderSearch, _Bad, _read_picture, crawl_images, show_crawl

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
    try: assert _read_picture(bytes(data), 10**6).grey.ndim == 2
    except _Bad as e: assert str(e)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM0000\0\0\0\0",
                                                 b"RIFF0000WEBP", b""]))
def test_noise_after_a_good_start_is_no_picture(data, start):
    with pytest.raises(_Bad): _read_picture(start+data, 10**6)


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
        **dict.fromkeys(["test/a/leak.jpg", "train/a/bomb.png", "train/a/copy.jpg", "train/a/empty.png",
                         "train/a/icon.gif", "train/a/notes.txt", "train/a/page.jpg", "train/a/short.jpg"], "rejected"),
        **dict.fromkeys(["train/a/cmyk.jpg", "train/a/deep.png", "train/a/moving.gif", "train/a/moving.webp",
                         "train/a/named.png", "train/a/no_ending", "train/a/palette.png",
                         "train/a/turned.jpg"], "repaired")}
    new = {"moving.gif": "moving.png", "moving.webp": "moving-1.png", "no_ending": "no_ending.jpg"}
    assert all(report.to[f"train/a/{k}"] == f"train/a/{v}" for k, v in new.items())
    now = {o.relative_to(tmp_path).as_posix(): o.read_bytes() for o in tmp_path.rglob("*") if o.is_file()}
    assert set(before.values()) <= set(now.values())                        # every byte is still somewhere
    assert all(now[o] == before[o] for o in before if o not in report.index)   # and what was good is untouched
    notes = pd.read_csv(tmp_path/".rejected"/"rejected.csv").set_index("file")
    assert set(notes.index) == set(report.index)
    assert notes.reason["train/a/copy.jpg"] == "the same bytes as train/a/0.jpg"
    assert not check_images(tmp_path).problems.any() and not len(clean_images(tmp_path))
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
    assert Counter(report.action) == {"left": 8, "deleted": 8} and not (tmp_path/".rejected").exists()
    assert (tmp_path/"train/a/named.png").exists() and not (tmp_path/"train/a/page.jpg").exists()


def test_a_file_that_cannot_be_moved_is_left_and_named(tmp_path, monkeypatch):
    put(tmp_path/"a/page.jpg", b"<html>")
    put(tmp_path/"a/other.jpg", b"<html>")
    import os
    replace = os.replace
    def failing(a, b):
        if "page" in str(a): raise PermissionError(13, "Permission denied")
        replace(a, b)
    monkeypatch.setattr(os, "replace", failing)
    report = clean_images(tmp_path).set_index("file")
    assert report.action.to_dict() == {"a/other.jpg": "rejected", "a/page.jpg": "left"}
    assert "Permission denied" in report.reason["a/page.jpg"]


def test_fastai_goes_on_working(tmp_path):
    from fastai.vision.core import PILImage, get_image_files
    from fastai.vision.utils import verify_images
    mess(tmp_path)
    clean_images(tmp_path)
    files = get_image_files(tmp_path)
    failed = verify_images(files)
    failed.map(Path.unlink)
    assert len(failed) == 0 and len(files) == len([o for o in check_images(tmp_path).file])
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
    (tmp_path/"a/folder.jpg").mkdir()
    assert check_images(tmp_path).file.tolist() == ["a/1.jpg"]
    for bad, word in ((dict(path=tmp_path/"a/1.jpg"), "no such folder"),
                      (dict(path=tmp_path, workers=-1), "workers is -1"),
                      (dict(path=tmp_path, max_pixels="many"), "max_pixels is 'many'")):
        for f in (check_images, clean_images):
            with pytest.raises(InputError, match=word): f(**bad)
