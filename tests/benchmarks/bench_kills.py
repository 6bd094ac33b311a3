"""Two crawls and a clean in one folder at once, killed with `kill -9` at random moments: is anything lost?

python tests/benchmarks/bench_kills.py 200

Each round begins with an empty set. Three processes work on it (refused ones wait for the lock and try again), and new
damaged files are put into it all the time. Some milliseconds later one of them, or all, are killed; then it is looked
at:

- every row that the manifest once had is still there, and what was final is final,
- every file that was put in is still there, byte for byte, in its place or in `.rejected`,
- every file in `.rejected` has a line in rejected.csv, and every kept picture the content that its name says.

At the end of a round all three run in peace. The set must then be that of a crawl which was never killed.
"""
import hashlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import table
from hostile import Web, encoded, noise

from fastcourse.clean import clean_images
from fastcourse.core import InputError
from fastcourse.crawl import UrlListSearch, crawl_images
from fastcourse.manifest import load_manifest

QUERIES = {"cat": {"train": {"cat": ["cat", "cat photo"]}, "test": {"cat": ["cat pet"]}},
           "dog": {"train": {"dog": ["dog"]}}}
FINAL = ("ok", "duplicate", "rejected", "refused")


def urls_of(web) -> dict:
    def ok(*n): return [web.url(f"/ok/{i}.jpg") for i in n]
    return {"cat": [*ok(*range(100, 112)), web.url("/404"), web.url("/html.jpg")],
            "cat photo": [*ok(105, *range(113, 121)), web.url("/copy/101")],
            "cat pet": [*ok(*range(124, 130)), web.url("/copy/102")],
            "dog": [*ok(*range(200, 214)), web.url("/copy/203")]}


def crawl(name, urls, dest):
    crawl_images(QUERIES[name], dest, engine=UrlListSearch(urls), workers=3, per_host=3, allow_local=True)


def work(name, urls, dest):
    "What a process does: its work, until it is not refused."
    while True:
        try: return clean_images(dest, duplicates=False) if name == "clean" else crawl(name, urls, dest)
        except InputError as e:
            if "another crawl" not in str(e): raise
            time.sleep(.01)


def plant(dest: Path, seed: int) -> set:
    "Three new files that clean has to do with; what is in them."
    folder = dest/"train"/"cat"
    folder.mkdir(parents=True, exist_ok=True)
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
    data = {f"page{seed}.jpg": b"<html>%d" % seed, f"named{seed}.png": encoded(noise(10**6+seed)),
            f"turned{seed}.jpg": encoded(noise(2*10**6+seed), exif=exif)}
    for name, o in data.items(): (folder/name).write_bytes(o)
    return set(data.values())


def state(dest: Path, planted: set, rows: dict) -> tuple[int, dict]:
    "(how much is lost, the rows that are there now)"
    lost = 0
    try: now = {(o["query"], o["url"]): o["status"] for o in load_manifest(dest)[0]}
    except InputError: now = {}   # before the first row
    lost += sum(k not in now or v in FINAL and now[k] not in FINAL for k, v in rows.items())
    there = {o.read_bytes(): o for o in dest.rglob("*") if o.is_file() and o.suffix in (".jpg", ".png")}
    lost += len(planted-set(there))
    listed = dest/".rejected"/"rejected.csv"
    lines = listed.read_text() if listed.exists() else ""
    for o in (dest/".rejected").rglob("[!.]*.*"):
        if o.suffix in (".jpg", ".png"): lost += o.relative_to(dest/".rejected").as_posix() not in lines
    for split in ("train", "test"):
        for o in (dest/split).rglob("[!.]*.jpg"):
            if len(o.stem) == 20: lost += not hashlib.sha256(o.read_bytes()).hexdigest().startswith(o.stem)
    return lost, now


def outcome(dest: Path) -> tuple:
    rows = {(o["split"], o["query"], o["url"], o["status"], o["file"]) for o in load_manifest(dest)[0]}
    return rows, {o.relative_to(dest) for s in ("train", "test") for o in (dest/s).rglob("[!.]*.jpg")
                  if len(o.stem) == 20}


def run(n_kills: int, seed: int = 0) -> dict:
    "At least `n_kills` kills: how many there were, of what, in how many rounds, and what was lost."
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench_kills"])
    rng, res = random.Random(seed), dict(rounds=0, kills=0, crawls=0, cleans=0, lost=0, different=0)
    with Web(latency=.01) as web, tempfile.TemporaryDirectory() as tmp:
        urls, calm = urls_of(web), Path(tmp)/"calm"
        for name in QUERIES: crawl(name, urls, calm)
        while res["kills"] < n_kills:
            dest, planted, rows = Path(tmp)/f"round{res['rounds']}", set(), {}
            for step in range(8):
                planted |= plant(dest, 100*res["rounds"]+step)
                jobs = {o: context.Process(target=work, args=(o, urls, dest), daemon=True)
                        for o in ("cat", "dog", "clean")}
                for o in rng.sample(list(jobs), 3): jobs[o].start()
                time.sleep(rng.uniform(.02, .35))
                for name in rng.choice([["cat"], ["dog"], ["clean"], list(jobs), list(jobs)]):
                    if jobs[name].is_alive():
                        os.kill(jobs[name].pid, signal.SIGKILL)
                        res["kills"] += 1
                        res["cleans" if name == "clean" else "crawls"] += 1
                for o in jobs.values(): o.join(.2)
                for o in jobs.values():
                    if o.is_alive():   # the survivors too: nobody writes while it is looked at
                        os.kill(o.pid, signal.SIGKILL)
                        res["kills"] += 1
                    o.join()
                lost, rows = state(dest, planted, rows)
                res["lost"] += lost
            for name in ("cat", "dog", "clean"): work(name, urls, dest)
            res["lost"] += state(dest, planted, rows)[0]
            res["different"] += outcome(dest) != outcome(calm)
            res["rounds"] += 1
    return res


if __name__ == "__main__":
    start, res = time.time(), run(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    print(table(list(res), [list(res.values())]), f"\n\n{time.time()-start:.0f} s")
