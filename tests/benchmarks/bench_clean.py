"""check_images beside cleanvision (same checks) and fastai's verify_images (open and read), on the same folders.

python tests/benchmarks/bench_clean.py [OLDER]

OLDER is a checkout of an older build (785e81d, say): the same folders are checked by it too, in a process of its own.
"""
import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from common import machine, paired, table
from fastai.vision.core import get_image_files
from fastai.vision.utils import verify_images
from PIL import Image

from fastcourse.clean import check_images

WILDLIFE = Path(__file__).parents[3]/"shared"/"data"/"wildlife"


def large_photographs(path: Path, n=60):
    "The photographs with most detail, enlarged to 1600 pixels, with some grain: files of about 500 kB."
    r = np.random.default_rng(0)
    for i, o in enumerate(sorted(WILDLIFE.rglob("*.jpg"))[:n]):
        im = Image.open(o).convert("RGB").resize((1600, 1200), Image.Resampling.BICUBIC)
        im = (np.asarray(im)+r.normal(0, 6, (1200, 1600, 1))).clip(0, 255).astype(np.uint8)
        Image.fromarray(im).save(path/f"{i}.jpg", quality=88)


def cleanvision(path, n_jobs):
    from cleanvision import Imagelab
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lab = Imagelab(data_path=str(path), verbose=False)
        lab.find_issues({o: {} for o in ("exact_duplicates", "near_duplicates", "dark", "blurry", "odd_size")},
                        n_jobs=n_jobs, verbose=False)
    return lab


OLDER = r"""
import sys, time
sys.path.insert(0, sys.argv[1])
from fastcourse.clean import check_images
for line in sys.stdin:
    path, workers = line.rsplit(" ", 1)
    check_images(path, workers=int(workers))
    print("done", flush=True)
"""


@contextlib.contextmanager
def older_build(checkout):
    "A function (path, workers) that checks with the older build, in a process that stays."
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    with subprocess.Popen([sys.executable, "-c", OLDER, str(checkout)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True, env=env) as p:
        def check(path, workers):
            p.stdin.write(f"{path} {workers}\n")
            p.stdin.flush()
            while p.stdout.readline().strip() != "done": pass
        yield check
        p.stdin.close()


def main():
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        folders = {"wildlife: 303 photographs, 21 kB": Path(tmp)/"small",
                   "60 photographs, 1600x1200": Path(tmp)/"large"}
        (Path(tmp)/"large").mkdir()
        large_photographs(Path(tmp)/"large")
        shutil.copytree(WILDLIFE, Path(tmp)/"small")
        for name, path in folders.items():
            for n in (1, os.cpu_count()):
                a, b, r = paired(lambda: check_images(path, workers=n), lambda: cleanvision(path, n), 5)
                rows.append([name, f"all checks, {n} workers", "cleanvision 0.3.7", f"{a*1e3:.0f} ms",
                             f"{b*1e3:.0f} ms", f"{1/r:.1f} x"])
            files = get_image_files(path)
            a, b, r = paired(lambda: check_images(path, duplicates=False), lambda: verify_images(files), 7)
            rows.append([name, "open and read", "fastai verify_images", f"{a*1e3:.0f} ms", f"{b*1e3:.0f} ms",
                         f"{1/r:.1f} x"])
        if sys.argv[1:]:
            folders["images: 1801 pictures, 4 kB"] = Path(__file__).parents[2]/"images"
            with older_build(sys.argv[1]) as older:
                for name, path in folders.items():
                    for n in (1, os.cpu_count()):
                        a, b, r = paired(lambda: check_images(path, workers=n), lambda: older(path, n), 5)
                        rows.append([name, f"all checks, {n} workers", f"build {sys.argv[1]}", f"{a*1e3:.0f} ms",
                                     f"{b*1e3:.0f} ms", f"{1/r:.2f} x"])
    print(machine(), "\n")
    print(table(["folder", "work", "peer", "check_images", "peer's time", "as fast"], rows))


if __name__ == "__main__": main()
