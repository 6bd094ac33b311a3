"""How near is a near duplicate? Planted copies that are found, and different pictures that are taken for copies.

python tests/benchmarks/bench_near.py
"""
import io
import tarfile
from pathlib import Path

import numpy as np
from common import table
from PIL import Image, ImageDraw, ImageOps
from sklearn.datasets import load_digits

from fastcourse.pictures import (NEAR_BITS, hash_distances, look, picture_files, picture_hash, read_picture,
                                 same_look)

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent/"shared"/"data"


def encoded(im, kind="JPEG", **kwargs) -> bytes:
    b = io.BytesIO()
    im.save(b, kind, **kwargs)
    return b.getvalue()


def rgb(im): return im if im.mode in ("RGB", "RGBA", "L") else im.convert("RGB")
def flat(im): return im.convert("RGB")
def cut(im): return im.crop((im.width//50, im.height//50, im.width-im.width//50, im.height-im.height//50))
def half(im): return im.resize((max(1, im.width//2), max(1, im.height//2)))


def on_white(im):
    return Image.alpha_composite(Image.new("RGBA", im.size, "white"),
                                 im).convert("RGB") if im.mode == "RGBA" else flat(im)


COPIES = {"re-encoded": lambda im: encoded(on_white(im), quality=40),
          "webp": lambda im: encoded(im, "WEBP", quality=60), "half": lambda im: encoded(half(im), "PNG"),
          "larger": lambda im: encoded(on_white(im).resize((im.width*2, im.height*2))),
          "cut by 2 %": lambda im: encoded(cut(im), "PNG"),
          "all three": lambda im: encoded(half(cut(on_white(im))), quality=60),
          "brighter": lambda im: encoded(on_white(im).point(lambda v: min(255, v*115//100)))}
MIRROR = {"mirrored": lambda im: encoded(ImageOps.mirror(im), "PNG")}


def drawings(n=200):
    "Line drawings on nothing: two strokes and a shape, each drawing another one."
    for i in range(n):
        r = np.random.default_rng(i)
        im = Image.new("RGBA", (200, 150))
        d = ImageDraw.Draw(im)
        x, y, a, b = r.integers(10, 90, 4).tolist()
        getattr(d, ["ellipse", "rectangle"][i % 2])((x, y, x+a, y+b//2+10), outline="black", width=4)
        for _ in range(2): d.line(r.integers(0, 150, 6).tolist(), fill="black", width=5)
        yield encoded(im, "PNG")


def mnist(n=2038):
    with tarfile.open(DATA/"mnist_png_37.tgz") as t:
        for o in [o for o in t if o.name.endswith(".png")][:n]: yield t.extractfile(o).read()


def digits(n):
    data = load_digits()
    for o in data.images[:n]: yield encoded(Image.fromarray((o*15.9).astype(np.uint8)).resize((64, 64), 3), "PNG")


def seen(data: bytes):
    "What check_images compares: the hash of the careful reader, and the look."
    return picture_hash(read_picture(data).grey), look(data)


def near(a, b) -> tuple[bool, bool]:
    "(by the hash alone, by both)"
    by_hash = int(hash_distances(a[0], b[0])[0]) <= NEAR_BITS
    return by_hash, by_hash and same_look(a[1], b[1])


def false_finds(some) -> tuple[int, int, int]:
    "Pictures of different things that are near to an earlier one: (of how many, by the hash alone, by both)."
    hashes, n_hash, n_both = b"", 0, 0
    for i, (h, lk) in enumerate(some):
        if i:
            near_ones = np.flatnonzero(hash_distances(h, hashes) <= NEAR_BITS)
            n_hash += bool(len(near_ones))
            n_both += any(same_look(lk, some[j][1]) for j in near_ones)
        hashes += h
    return len(some), n_hash, n_both


def main():
    sets = {"digits of scikit-learn, 300 at 64 pixels": list(digits(300)), "the same, all 1797": list(digits(1797)),
            "line drawings on transparent": list(drawings()),
            "`images/`, every third": [o.read_bytes() for o in picture_files(ROOT/"images"/"train")[::3]],
            "`images/`, all": [o.read_bytes() for o in picture_files(ROOT/"images") if "cam_grid" not in o.name]}
    if DATA.is_dir():
        sets["MNIST, 2038 digits"] = list(mnist())
        sets["wildlife, 303 photographs (8 are true copies)"] = [o.read_bytes() for o in picture_files(DATA/"wildlife")]
    rows, found = [], []
    for name, files in sets.items():
        some = [seen(o) for o in files]
        n, by_hash, both = false_finds(some)
        rows.append([name, n, by_hash, both])
        step = max(1, len(files)//300)
        for kind, f in (COPIES|MIRROR).items():
            res = []
            for data, a in list(zip(files, some))[::step]:
                with Image.open(io.BytesIO(data)) as im: res.append(near(a, seen(f(rgb(im)))))
            found.append([name, kind, len(res), sum(o[0] for o in res), sum(o[1] for o in res)])
    print(table(["different pictures", "number", "near by the hash alone", "near"], rows), "\n")
    names = list(sets)
    kinds = list(COPIES|MIRROR)
    by = {(a, b): f"{e} of {c}" for a, b, c, d, e in found}
    print(table(["planted copies found", *kinds], [[n, *(by[n, k] for k in kinds)] for n in names]))


if __name__ == "__main__": main()
