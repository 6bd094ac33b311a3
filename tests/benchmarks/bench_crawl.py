"""download_images beside fastai's, from a server on this machine that waits 50 ms before each answer; and its memory.

Ours reads every picture to its last byte before it keeps it (3 ms of a processor for 300 kB); fastai's only stores what
comes, and `verify_images` reads it afterwards. So there are two peers: without and with that second step.

python tests/benchmarks/bench_crawl.py
"""
import contextlib
import io
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from common import machine, paired, table

TESTS = Path(__file__).parents[1]
MEMORY = r"""
import re, sys, tempfile
from fastcourse.crawl import crawl_images, UrlListSearch, download_images
site, n, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
urls = [f"{site}/ok/{i}.jpg" for i in range(n)]
with tempfile.TemporaryDirectory() as tmp:
    kwargs = dict(allow_local=True, per_host=16)
    if what == "download_images": df = download_images(urls, tmp, **kwargs)
    else: df = crawl_images({"a": "a"}, tmp, max_images=n, engine=UrlListSearch({"a": urls}), **kwargs)
    assert set(df.status) <= {"ok", "duplicate"}, df.status.value_counts()
print(int(re.search(r'VmHWM:\s+(\d+)', open('/proc/self/status').read())[1])/1024)
"""


@contextlib.contextmanager
def server(latency):
    "The server as a process of its own, so that it does not take turns with the client."
    process = subprocess.Popen([sys.executable, TESTS/"hostile.py", "serve", str(latency)], stdout=subprocess.PIPE,
                               text=True)
    try: yield process.stdout.readline().strip()
    finally: process.kill()


def speed() -> list:
    from fastai.vision.core import get_image_files
    from fastai.vision.utils import download_images as fastai_images
    from fastai.vision.utils import verify_images
    from fastcourse.crawl import download_images
    rows = []
    with server(.05) as site:
        for n, kind, path in ((320, "2 kB", "ok"), (160, "300 kB", "photo")):
            urls = [f"{site}/{path}/{i}.jpg" for i in range(n)]
            for workers in (8, 16):
                def ours():
                    with tempfile.TemporaryDirectory() as tmp:
                        df = download_images(urls, tmp, workers=workers, per_host=workers, allow_local=True)
                        assert (df.file != "").sum() == n
                def theirs(verify):
                    quiet = contextlib.redirect_stdout(io.StringIO())
                    with tempfile.TemporaryDirectory() as tmp, warnings.catch_warnings(), quiet:
                        fastai_images(tmp, urls=urls, n_workers=workers)
                        files = get_image_files(tmp)
                        assert len(files) == n and not (verify and verify_images(files))
                for verify in (False, True):
                    a, b, r = paired(ours, lambda: theirs(verify), 5)
                    rows.append([f"{n} pictures of {kind}", workers, "download and verify" if verify else "download",
                                 f"{n/a:.0f} /s", f"{n/b:.0f} /s", f"{1/r:.2f} x"])
    return rows


def memory() -> list:
    "Highest resident memory of a process of its own, MB."
    rows = []
    with server(0) as site:
        for what in ("download_images", "crawl_images"):
            used = [float(subprocess.run([sys.executable, "-c", MEMORY, site, str(n), what], capture_output=True,
                                         text=True, check=True).stdout.split()[-1]) for n in (100, 1000, 10000)]
            rows.append([what, *(f"{o:.0f} MB" for o in used), f"{(used[2]-used[1])/9000*1024:.1f} kB"])
    return rows


def main():
    torch.set_num_threads(1)
    print(machine(), "\n")
    print(table(["work", "workers", "fastai does", "download_images", "fastai", "as fast"], speed()), "\n")
    print(table(["memory at most", "100 URLs", "1,000 URLs", "10,000 URLs", "for a URL more"], memory()))


if __name__ == "__main__": main()
