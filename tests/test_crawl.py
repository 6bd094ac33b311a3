"""Crawls: each picture once, nothing asked twice, nothing lost, whatever happens to the process."""
import hashlib
import importlib.util
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hostile import Web, encoded, noise, picture

from fastcourse import manifest
from fastcourse.core import InputError
from fastcourse.crawl import (FolderSearch, NoResults, SearchError, UrlListSearch, crawl_images, download_images,
                              search_images, show_crawl, to_img2dataset)
from fastcourse.manifest import MANIFEST_COLUMNS, folder_lock, load_manifest, read_manifest

WILDLIFE = Path(__file__).parents[2]/"shared"/"data"/"wildlife"
QUICK = dict(allow_local=True, backoff=.01, per_host=16)


@pytest.fixture
def web():
    with Web() as web: yield web


def urls_of(web):
    "Four queries with good pictures, copies within and across the splits, and failures."
    ok = lambda *n: [web.url(f"/ok/{i}.jpg") for i in n]
    return {"cat": [*ok(*range(100, 112)), web.url("/404"), web.url("/flaky/112"), web.url("/html.jpg")],
            "cat photo": [*ok(105, *range(113, 124)), web.url("/copy/101"), web.url("/truncated.jpg")],
            "cat pet": [*ok(*range(124, 130)), web.url("/copy/102"), *ok(103), web.url("/copy/125"),
                        web.url("/to-private")],
            "dog": [*ok(*range(200, 210)), web.url("/copy/104")],
            "dog pet": [*ok(*range(210, 216)), web.url("/copy/203")]}


QUERIES = {"train": {"cat": ["cat", "cat photo"], "dog": ["dog"]}, "test": {"cat": ["cat pet"], "dog": ["dog pet"]}}


def crawl_list(urls, dest, **kwargs):
    "In a process of its own for the tests that kill it."
    return crawl_images(QUERIES, dest, engine=UrlListSearch(urls), **{**QUICK, **kwargs})


def files(dest) -> dict:
    "Every picture below `dest`, hidden ones apart, with its content."
    return {o.relative_to(dest).as_posix(): o.read_bytes() for o in Path(dest).rglob("*.*") if o.is_file()
            and o.suffix != ".csv"
            and not any(p.startswith(".") for p in o.relative_to(dest).parts)}


def assert_whole(dest):
    "What a killed run leaves is whole: each picture has the content that its name says, and the manifest is a table."
    for name, data in files(dest).items(): assert hashlib.sha256(data).hexdigest().startswith(Path(name).stem), name
    if (dest/"manifest.csv").exists(): assert list(pd.read_csv(dest/"manifest.csv").columns) == MANIFEST_COLUMNS


def noted(dest) -> set:
    "URLs that need no request any more, as the manifest has it."
    try: rows = load_manifest(dest)[0]
    except InputError: return set()   # killed before the first row
    return {o["url"] for o in rows if o["status"] not in ("found", "failed")}


def without_time(df): return df.drop(columns="time").reset_index(drop=True)


def test_crawl_keeps_each_picture_once(web, tmp_path):
    df = crawl_list(urls_of(web), tmp_path)
    status = df.groupby("query", sort=False).status.agg(lambda o: dict(Counter(o))).to_dict()
    assert status == {"cat": {"ok": 13, "refused": 1, "rejected": 1},
                      "cat photo": {"duplicate": 2, "ok": 11, "rejected": 1},
                      "dog": {"ok": 10, "duplicate": 1}, "cat pet": {"ok": 6, "duplicate": 3, "refused": 1},
                      "dog pet": {"ok": 6, "duplicate": 1}}
    by_url = df.set_index(["query", df.url.str.replace(web.site, "")])
    original = by_url.loc[("cat", "/ok/102.jpg")].file
    assert by_url.loc[("cat pet", "/copy/102")].reason == f"a near duplicate of {original}"
    assert by_url.loc[("dog", "/copy/104")].reason.endswith(by_url.loc[("cat", "/ok/104.jpg")].file)   # another class
    assert by_url.loc[("cat photo", "/ok/105.jpg")].reason == "the same URL as for 'cat' of 'cat'"
    assert ((df.file == "") == (df.reason != "")).all()
    kept = df[df.status == "ok"]
    assert (kept.file.str.rsplit("/", n=1).str[0] == kept.split+"/"+kept.label).all()
    assert set(files(tmp_path)) == set(kept.file)
    assert sorted(o.name for o in tmp_path.iterdir()) == [".crawl", "manifest.csv", "test", "train"]
    assert [o.name for o in (tmp_path/".crawl").iterdir()] == ["manifest.db"]
    assert max(web.counts.values()) == 2 and web.counts["/flaky/112"] == 2   # nothing is fetched twice
    counts = show_crawl(df, 0)
    assert counts.loc[("train", "cat", "cat")].tolist() == [200, 15, 13, 13]


def test_run_again_does_nothing_and_more_goes_on(web, tmp_path):
    df = crawl_list(urls_of(web), tmp_path, max_images=8)
    before, asked = files(tmp_path), dict(web.counts)
    pd.testing.assert_frame_equal(crawl_list(urls_of(web), tmp_path, max_images=8), df)
    assert (files(tmp_path), dict(web.counts)) == (before, asked)
    more = crawl_list(urls_of(web), tmp_path)
    assert before.items() <= files(tmp_path).items() and len(more) > len(df)
    assert all(web.counts[p] == n for p, n in asked.items())
    # A picture that the user has thrown away stays away: fastai's idiom after a crawl is no reason to fetch it again.
    thrown = next(iter(before))
    (tmp_path/thrown).unlink()
    crawl_list(urls_of(web), tmp_path)
    assert not (tmp_path/thrown).exists() and show_crawl(tmp_path, 0).kept.sum() == len(files(tmp_path))


def test_failed_ones_are_tried_again_by_the_next_run(web, tmp_path):
    urls = {**urls_of(web), "cat": [web.url("/500-then-good"), web.url("/ok/1.jpg")]}
    first = crawl_list(urls, tmp_path, retries=0)
    assert first.status.tolist()[:2] == ["failed", "ok"]
    assert crawl_list(urls, tmp_path, retries=0).status.tolist()[:2] == ["ok", "ok"] and web.counts["/ok/1.jpg"] == 1


def start_child(context, target, *args):
    child = context.Process(target=target, args=args, daemon=True)
    child.start()
    return child


@pytest.fixture(scope="module")
def context():
    "New processes start in milliseconds: the server of them has imported the package already."
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fastcourse.crawl", "test_crawl"])
    return context


def child_crawl(urls, dest): crawl_list(urls, dest, workers=3, per_host=3)


def test_killed_20_times_ends_like_never_killed(tmp_path, context):
    with Web(latency=.03) as web:
        urls = urls_of(web)
        calm = crawl_list(urls, tmp_path/"calm")
        web.counts.clear()
        web.counts["/flaky/112"] = 1
        rng, kills, done, before = random.Random(6), 0, set(), Counter()
        warm = start_child(context, int)
        warm.join()
        for _ in range(20):
            child = start_child(context, child_crawl, urls, tmp_path/"killed")
            time.sleep(rng.uniform(.01, .16))
            if child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
            child.join()
            time.sleep(.035)   # requests of the dead are still answered
            assert_whole(tmp_path/"killed") if (tmp_path/"killed").exists() else None
            for url in done: assert web.counts[url.replace(web.site, "")] == before[url], f"{url} was fetched twice"
            done = noted(tmp_path/"killed") if (tmp_path/"killed").exists() else set()
            before = {url: web.counts[url.replace(web.site, "")] for url in done}
        end = crawl_list(urls, tmp_path/"killed")
        assert kills >= 10
        assert files(tmp_path/"killed") == files(tmp_path/"calm")
        pd.testing.assert_frame_equal(without_time(end), without_time(calm))
        assert [o.name for o in (tmp_path/"killed"/".crawl").iterdir()] == ["manifest.db"]


def child_dies(library, dest, n):
    "Crawl, and die at the n-th time that something is written: before or after a rename, before or after a row."
    left = [n]
    def dying(f):
        def call(*args, **kwargs):
            for step in (None, f):
                res = step and step(*args, **kwargs)
                left[0] -= 1
                if left[0] == 0: os.kill(os.getpid(), signal.SIGKILL)
            return res
        return call
    os.replace, os.rename, manifest.Manifest.add = dying(os.replace), dying(os.rename), dying(manifest.Manifest.add)
    crawl_folder(library, dest)
    Path(dest, "finished").touch()


def crawl_folder(library, dest):
    return crawl_images({"a": ["a", "a b"], "b": "b"}, dest, engine=FolderSearch(library), test_share=.3, workers=1)


def test_killed_at_every_step(tmp_path, context):
    library = tmp_path/"library"
    for i, name in enumerate(("a/0", "a/1", "b/2")):
        (library/name).parent.mkdir(parents=True, exist_ok=True)
        (library/f"{name}.jpg").write_bytes(picture(i))
    (library/"b"/"copy.jpg").write_bytes(encoded(noise(0).resize((70, 52))))
    calm = crawl_folder(library, tmp_path/"calm")
    steps = 0
    for n in range(1, 200):
        dest = tmp_path/f"died{n}"
        child = start_child(context, child_dies, library, dest, n)
        child.join()
        if (dest/"finished").exists(): break
        assert child.exitcode == -signal.SIGKILL
        steps += 1
        assert_whole(dest)
        df = crawl_folder(library, dest)
        assert files(dest) == files(tmp_path/"calm"), n
        pd.testing.assert_frame_equal(without_time(df), without_time(calm))
    assert 30 < steps < 150, steps


def test_ctrl_c_leaves_a_manifest(web, tmp_path, monkeypatch):
    save, calls = manifest.Manifest.add, []
    def interrupted(self, rows, **kwargs):
        save(self, rows, **kwargs)
        calls.append(1)
        if len(calls) == 5: raise KeyboardInterrupt
    monkeypatch.setattr(manifest.Manifest, "add", interrupted)
    with pytest.raises(KeyboardInterrupt): crawl_list(urls_of(web), tmp_path)
    assert Counter(o["status"] for o in read_manifest(tmp_path/"manifest.csv"))["fetched"] >= 1
    monkeypatch.undo()
    assert len(crawl_list(urls_of(web), tmp_path)) == sum(map(len, urls_of(web).values()))


def test_one_crawl_at_a_time(web, tmp_path):
    with folder_lock(tmp_path), pytest.raises(InputError, match="another crawl"): crawl_list(urls_of(web), tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO here")
def test_a_pipe_in_the_place_of_a_manifest_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path/"manifest.csv")
    for f in (lambda: read_manifest(tmp_path/"manifest.csv"), lambda: load_manifest(tmp_path),
              lambda: show_crawl(tmp_path)):
        with pytest.raises(InputError, match="it is no file"): f()


def test_everything_is_there_without_the_locks_of_unix():
    "Windows has no fcntl: a set is then not locked, but all else works"
    code = ("import sys; sys.modules['fcntl'] = None; from fastcourse.all import *; import tempfile\n"
            "from fastcourse.manifest import folder_lock\nwith folder_lock(tempfile.mkdtemp()): print('there')")
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert out.stdout == "there\n", out.stderr


def test_a_manifest_of_something_else_is_refused(web, tmp_path):
    for text, word in (("a,b\n1,2\n", "lacks the columns"), ("", "cannot be read")):
        (tmp_path/"manifest.csv").write_text(text)
        with pytest.raises(InputError, match=word): crawl_list(urls_of(web), tmp_path)
        assert (tmp_path/"manifest.csv").read_text() == text
    assert not web.counts


def test_awkward_names_and_titles_survive(web, tmp_path):
    class Odd:
        def search(self, term, max_images, size=None):
            return [dict(image=web.url("/ok/1.jpg"), title='He said "hi",\nthen left'),
                    dict(image=web.url("/ok/2.jpg"), title="=1+1"), dict(image=web.url("/한국/사진.jpg"), title="NA")]
    queries = {"NA": "nan", "한국 고양이": ["고양이"]}
    for _ in range(2): df = crawl_images(queries, tmp_path, engine=Odd(), pause=0, test_share=0, **QUICK)
    assert df.title.tolist()[:3] == ['He said "hi", then left', "=1+1", "NA"]
    assert df.status.tolist() == ["ok"]*3+["duplicate"]*3
    assert {Path(o).parent.as_posix() for o in files(tmp_path)} == {"train/NA"}


def test_search_errors_in_a_crawl(web, tmp_path):
    class Moody:
        moods = {"cat": None, "cow": NoResults("no cows"), "dog": SearchError("no line")}
        def search(self, term, max_images, size=None):
            if self.moods[term]: raise self.moods[term]
            return [dict(image=web.url("/ok/1.jpg"))]
    queries = {"cat": "cat", "cow": "cow", "dog": "dog"}
    with pytest.warns(UserWarning, match="no cows"), pytest.warns(UserWarning, match="no line"):
        df = crawl_images(queries, tmp_path, engine=Moody(), pause=0, **QUICK)
    assert df[["status", "rank"]].values.tolist() == [["ok", 1], ["no results", 0], ["search failed", 0]]
    assert show_crawl(df, 0).found.tolist() == [1, 0, 0]
    Moody.moods = dict.fromkeys(queries)
    df = crawl_images(queries, tmp_path, engine=Moody(), pause=0, **QUICK)
    assert df.status.tolist() == ["ok", "duplicate", "duplicate"]
    Moody.moods = dict.fromkeys(queries, SearchError("no line"))
    with pytest.warns(UserWarning), pytest.raises(SearchError, match="no line"):
        crawl_images(queries, tmp_path/"new", engine=Moody(), pause=0, **QUICK)


def test_the_pause_is_between_questions(web, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    class Engine:
        def search(self, term, max_images, size=None): return [dict(image=web.url(f"/ok/{len(term)}.jpg"))]
    crawl_images({"a": ["a", "bb", "ccc"]}, tmp_path, engine=Engine(), pause=100, **QUICK)
    assert len(waits) == 2 and all(90 < o <= 100 for o in waits)


def test_only_the_folder_of_the_engine_may_be_read(tmp_path):
    (tmp_path/"lib"/"cat").mkdir(parents=True)
    (tmp_path/"lib"/"cat"/"1 #%20é.jpg").write_bytes(picture(1))
    (tmp_path/"secret.jpg").write_bytes(picture(2))
    engine = FolderSearch(tmp_path/"lib")
    class Evil(FolderSearch):
        def search(self, term, max_images, size=None):
            return [dict(image=(tmp_path/"secret.jpg").as_uri()),
                    dict(image=(tmp_path/"lib"/"..").as_uri()+"/secret.jpg"), *super().search(term, max_images)]
    df = crawl_images({"cat": "cat"}, tmp_path/"out", engine=Evil(tmp_path/"lib"))
    assert df.status.tolist() == ["refused", "refused", "ok"]
    assert download_images(search_images("cat", engine=engine), tmp_path/"d").status.tolist() == ["refused"]


@pytest.mark.skipif(not WILDLIFE.is_dir(),
                    reason="the photographs of shared/data/wildlife are not beside this checkout")
def test_planted_copies_of_photographs_never_land_in_both_splits(tmp_path):
    "Real photographs, each with a copy (re-encoded, resized, cut by 2 %) that another query finds."
    from PIL import Image
    photos = sorted((WILDLIFE/"train"/"kangaroo").glob("*.jpg"))[:40]
    for i, o in enumerate(photos):
        im = Image.open(o)
        w, h = im.size
        copy = [lambda: encoded(im, quality=40), lambda: encoded(im.resize((w*2//3, h*2//3))),
                lambda: encoded(im.crop((w//50, h//50, w-w//50, h-h//50)), "WEBP")][i%3]()
        for folder, data in (("first", o.read_bytes()), ("second", copy)):
            (tmp_path/"lib"/folder).mkdir(parents=True, exist_ok=True)
            (tmp_path/"lib"/folder/f"{i}.{'webp' if data[:4] == b'RIFF' else 'jpg'}").write_bytes(data)
    df = crawl_images({"train": {"kangaroo": "first"}, "test": {"kangaroo": "second"}}, tmp_path/"a",
                      engine=FolderSearch(tmp_path/"lib"))
    assert (df.status[df.split == "test"] == "duplicate").all()
    assert (df.status[df.split == "train"] == "ok").sum() == 39   # 007 and 031 are the same file
    df = crawl_images({"kangaroo": ["first", "second"]}, tmp_path/"b", engine=FolderSearch(tmp_path/"lib"),
                      test_share=.25)
    assert Counter(df.file[df.file != ""].str.split("/").str[0]) == {"train": 30, "test": 9}
    assert (df.status[df["query"] == "second"] == "duplicate").all()


# img2dataset -------------------------------------------------------------------------------------------------------

@pytest.mark.skipif(not (importlib.util.find_spec("img2dataset") or os.environ.get("IMG2DATASET")),
                    reason="img2dataset is not installed (nor named in $IMG2DATASET)")
def test_img2dataset_takes_the_table(web, tmp_path):
    df = crawl_list({**urls_of(web), "cat": [web.url(f"/ok/{i}.jpg") for i in range(6)]}, tmp_path/"crawl",
                    max_images=6)
    table = to_img2dataset(df, tmp_path/"urls.csv")
    program = os.environ.get("IMG2DATASET", str(Path(sys.executable).with_name("img2dataset")))
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    options = dict(url_list=table, input_format="csv", url_col="url", caption_col="caption", output_format="files",
                   save_additional_columns='["split","label"]', output_folder=tmp_path/"out", processes_count=1,
                   thread_count=4, image_size=64)
    subprocess.run([program, *(f"--{k}={v}" for k, v in options.items())], check=True, capture_output=True, timeout=120,
                   env={**env, "NO_ALBUMENTATIONS_UPDATE": "1"})
    got = [json.loads(o.read_text()) for o in (tmp_path/"out").rglob("*.json") if "_stats" not in o.name]
    want = pd.read_csv(table)
    assert {o["url"] for o in got if o["status"] == "success"} == set(want.url[want.url.isin(df.url[df.sha256 != ""])])
    assert {o["split"] for o in got} == {"train", "test"}
