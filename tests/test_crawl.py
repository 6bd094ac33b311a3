"""Pictures from the web, against a server on this machine that does everything wrong that servers do."""
import errno
import hashlib
import importlib.util
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hostile import CASES, LIMITS, Web, encoded, noise, picture

from fastcourse import crawl
from fastcourse.core import InputError
from fastcourse.crawl import (FolderSearch, NoResults, SearchError, SearchRefused, UrlListSearch, crawl_images,
                              download_images, search_images, show_crawl, to_img2dataset)

WILDLIFE = Path(__file__).parents[2]/"shared"/"data"/"wildlife"
QUICK = dict(allow_local=True, backoff=.01, per_host=16)


@pytest.fixture
def web():
    with Web() as web: yield web


# Downloads ---------------------------------------------------------------------------------------------------------

def test_hostile_cases(web, tmp_path):
    "Each of them ends, in time, with a row that says what happened; what is kept is a whole picture."
    start = time.monotonic()
    df = download_images([web.url(o) for o in ("/same/0/photo.jpg", *CASES)], tmp_path, **LIMITS)[1:]
    assert time.monotonic()-start < 60   # the limit of one URL is 2 s; far above it something hangs
    for (case, (status, words)), o in zip(CASES.items(), df.itertuples()):
        if case == "/same/0/photo.jpg": status, words = "duplicate", "same URL"
        assert (o.status, words in o.reason) == (status, True), (case, o.status, o.reason)
        assert bool(o.file) == (not o.reason) == (o.status == "ok"), case
        if o.file:
            data = (tmp_path/o.file).read_bytes()
            assert hashlib.sha256(data).hexdigest() == o.sha256 and len(data) == o.bytes, case
            assert o.file.startswith(o.sha256[:20]), case
    kept = dict(zip(CASES, df.file))
    assert kept["/no-ending"].endswith(".webp") and kept["/png.jpg"].endswith(".png")
    assert df.file[df.file != ""].nunique() == (df.status == "ok").sum()
    row_0 = hashlib.sha256(picture(20)).hexdigest()[:20]+".jpg"
    assert {o.name for o in tmp_path.iterdir()} == {*df.file, row_0}-{""}
    # A final no is not asked again.
    assert max(web.counts[o] for o in ("/403", "/404", "/html.jpg", "/bomb.png", "/to-private")) == 1
    assert web.counts["/500-always"] == 1+LIMITS["retries"]


def test_without_allow_local_this_machine_is_private(web, tmp_path):
    for host in ("127.0.0.1", "localhost"):
        df = download_images([web.url("/ok/1.jpg").replace("127.0.0.1", host)], tmp_path)
        assert df.status[0] == "refused" and "no public address" in df.reason[0]
    assert not web.counts


def fake_dns(monkeypatch, *answers):
    "socket.getaddrinfo gives these addresses, one answer a call, the last one for ever; the calls are counted."
    calls = []
    def look(host, port, *args, **kwargs):
        calls.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (o, port))
                for o in answers[min(len(calls), len(answers))-1]]
    monkeypatch.setattr(socket, "getaddrinfo", look)
    return calls


def test_a_name_that_changes_its_address_cannot_win(web, tmp_path, monkeypatch):
    "DNS rebinding: public when it is checked, private ever after. The checked address is the one that is connected to."
    connected = []
    def connect(sock, address):
        connected.append(address[0])
        raise OSError(errno.ENETUNREACH, "no network here")
    monkeypatch.setattr(socket.socket, "connect", connect)
    calls = fake_dns(monkeypatch, ["93.184.215.14"], ["127.0.0.1"])
    df = download_images([f"http://rebind.example:{web.server.server_port}/ok/1.jpg"], tmp_path, retries=0)
    assert (df.status[0], connected, len(calls)) == ("failed", ["93.184.215.14"], 1)
    assert not web.counts


def test_one_private_address_among_public_ones_is_enough_to_refuse(tmp_path, monkeypatch):
    fake_dns(monkeypatch, ["93.184.215.14", "10.1.2.3"])
    df = download_images(["http://mixed.example/a.jpg"], tmp_path)
    assert (df.status[0], df.reason[0]) == ("refused", "10.1.2.3 is no public address")


@pytest.mark.parametrize("host, words", [("0x0a000001", "10.0.0.1 is no public"),
                                         ("2130706433", "127.0.0.1 is no public"), ("127.1", "127.0.0.1 is no public"),
                                         ("a"*80+".com", "not valid")])
def test_odd_ways_to_write_a_host(tmp_path, monkeypatch, host, words):
    import sitecustomize
    # Numbers need no network, so the real look-up may see them.
    monkeypatch.setattr(socket, "getaddrinfo", getattr(sitecustomize, "_getaddrinfo", socket.getaddrinfo))
    df = download_images([f"http://{host}/a.jpg"], tmp_path)
    assert df.status[0] == "refused" and words in df.reason[0]


def test_a_slow_look_up_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: time.sleep(5))
    df = download_images(["http://slow.example/a.jpg"], tmp_path, timeout=.2, max_time=.5, backoff=.01)
    assert df.status[0] == "failed" and ("too long" in df.reason[0] or "longer" in df.reason[0])


def test_proxies_are_not_used(web, tmp_path, monkeypatch):
    for o in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"): monkeypatch.setenv(o, "http://127.0.0.1:9")
    assert download_images([web.url("/ok/1.jpg")], tmp_path, **QUICK).status[0] == "ok"


def test_no_more_than_per_host_at_a_time(tmp_path):
    with Web(latency=.05) as web:
        df = download_images([web.url(f"/ok/{i}.jpg") for i in range(24)], tmp_path, workers=12, per_host=3,
                             allow_local=True)
        assert (df.status == "ok").all() and web.most_busy == 3
    with Web(latency=.05) as web:   # two names are two hosts, and redirects count for the host that they lead to
        hosts = ("127.0.0.1", "localhost")*12
        urls = [web.url(f"/ok/{i}.jpg").replace("127.0.0.1", host) for i, host in enumerate(hosts)]
        assert (download_images(urls, tmp_path, workers=12, per_host=3, allow_local=True).status == "ok").all()
        assert 3 < web.most_busy <= 6


def test_retry_after_is_kept_to_by_the_whole_host(web, tmp_path):
    urls = [web.url("/429-soon"), *(web.url(f"/ok/{i}.jpg") for i in range(10, 13))]
    df = download_images(urls, tmp_path, workers=1, allow_local=True)
    assert (df.status == "ok").all()
    first, second = web.times["/429-soon"]
    assert second-first >= 1 and min(t for p, ts in web.times.items() if p.startswith("/ok") for t in ts)-first >= 1


def test_a_host_that_asks_for_an_hour_gets_it(web, tmp_path):
    others = [web.url(f"/ok/{i}.jpg").replace("127.0.0.1", "localhost") for i in range(5)]
    df = download_images([web.url("/429-hour"), *others, web.url("/ok/9.jpg")], tmp_path, workers=1, allow_local=True)
    assert df.status.tolist() == ["failed"]*6+["ok"] and df.reason[3] == "the host asks to wait 3600 s"
    assert sum(web.counts.values()) == 2


def test_connections_are_kept_and_replaced(web, tmp_path):
    "One connection serves many pictures; one that the server has closed meanwhile is no failure."
    opened = []
    get = web.server.get_request
    web.server.get_request = lambda: opened.append(1) or get()
    df = download_images([web.url(f"/ok/{i}.jpg") for i in range(10)], tmp_path, workers=1, allow_local=True)
    assert (df.status == "ok").all() and len(opened) == 1
    from hostile import Handler
    class Rude(Handler):
        def answer(self, path, n):
            super().answer(path, n)
            self.close_connection = True   # without saying so in the answer
    web.server.RequestHandlerClass = Rude
    df = download_images([web.url(f"/ok/{i}.jpg") for i in range(10, 16)], tmp_path, workers=1, retries=0,
                         allow_local=True)
    assert (df.status == "ok").all()


def test_a_full_disk_is_an_error_not_a_hang(web, tmp_path, monkeypatch):
    def full(*args): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"): download_images([web.url("/ok/1.jpg")], tmp_path, **QUICK)


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate of this test")
def test_https(web, tmp_path, monkeypatch):
    "A certificate that nobody trusts is refused; a trusted one must be for the name in the URL, not for the address."
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", tmp_path/"key", "-out", tmp_path/"cert", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path/"cert", tmp_path/"key")
    web.server.socket = server.wrap_socket(web.server.socket, server_side=True)
    at = f":{web.server.server_port}/ok/1.jpg"
    df = download_images(["https://localhost"+at], tmp_path/"a", **QUICK)
    assert (df.status[0], df.reason[0]) == ("refused", "the certificate of the host is not valid")
    trusting = ssl.create_default_context(cafile=tmp_path/"cert")
    monkeypatch.setattr(crawl, "_tls", lambda: trusting)
    assert download_images(["https://localhost"+at], tmp_path/"a", **QUICK).status[0] == "ok"
    assert "certificate" in download_images(["https://127.0.0.1"+at], tmp_path/"a", **QUICK).reason[0]


def test_bad_arguments_are_named_before_work_starts(web, tmp_path):
    url = [web.url("/ok/1.jpg")]
    for kwargs, word in [(dict(workers=0), "workers is 0"), (dict(workers=9999), "256 or fewer"),
                         (dict(timeout=-1), "timeout is -1"), (dict(max_time="5"), "max_time is '5'"),
                         (dict(retries=1.5), "retries is 1.5"), (dict(max_bytes=True), "max_bytes is True")]:
        with pytest.raises(InputError, match=word): download_images(url, tmp_path/"new", **kwargs)
    for urls in ("http://a/b.jpg", b"http://a", Path("urls.txt"), 5):
        with pytest.raises(InputError, match="give a list of URLs"): download_images(urls, tmp_path/"new")
    (tmp_path/"file").write_text("")
    with pytest.raises(InputError, match="choose another folder"): download_images(url, tmp_path/"file"/"new")
    assert not (tmp_path/"new").exists() and not web.counts


# Search ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def duckduckgo(web, monkeypatch):
    "Both packages talk to the local server in place of the search engine."
    from ddgs.http_client import HttpClient
    from duckduckgo_search import DDGS
    def to_local(f, calls):
        def request(self, method, url, *args, **kwargs):
            calls.append(url)
            return f(self, method, url.replace("https://duckduckgo.com", web.url("/ddg")), *args, **kwargs)
        return request
    web.ddgs, web.older = [], []
    monkeypatch.setattr(HttpClient, "request", to_local(HttpClient.request, web.ddgs))
    monkeypatch.setattr(DDGS, "_get_url", to_local(DDGS._get_url, web.older))
    monkeypatch.setattr(DDGS, "_sleep", lambda *a: None)
    return web


def test_search_walks_pages_and_keeps_urls_exact(duckduckgo):
    duckduckgo.results["red panda"] = 250
    found = search_images("red panda", 230)
    assert len(found) == 230 and not duckduckgo.older
    assert found[7] == dict(image="https://img.example/7%20a.jpg?w=100%25&i=7", thumbnail="https://t.example/7",
                            url="https://page.example/7", title="red panda 7",
                            width=640, height=480, source="Bing")
    assert [o.title for o in found] == [f"red panda {i}" for i in range(230)]     # the engine's own order
    assert [q.get("s", "0") for p, q in duckduckgo.asked if p.endswith("i.js")] == ["0", "100", "200"]
    assert len(search_images("red panda", 1000)) == 250                          # there are no more
    assert len(search_images("red panda", 5, size="Large")) == 5
    assert "size:Large" in duckduckgo.asked[-1][1]["f"]
    with pytest.raises(InputError, match="Small, Medium, Large"): search_images("red panda", 5, size="huge")


def test_nothing_and_no_are_two_errors(duckduckgo):
    with pytest.raises(NoResults, match="no pictures for 'xyzzy'"): search_images("xyzzy")
    assert not duckduckgo.older   # an honest nothing is not asked again elsewhere
    duckduckgo.results["cat"] = 20
    for status in (403, 429, 202):
        duckduckgo.refusals, duckduckgo.refuse_with = 99, status
        with pytest.raises(SearchRefused, match="2 times"): search_images("cat", retries=1, pause=0)
        assert duckduckgo.refusals == 99-2*2    # two tries of two packages: no hammering
    duckduckgo.refusals, duckduckgo.refuse_with = 1, 403
    assert len(search_images("cat", 20)) == 20 and duckduckgo.older   # the second choice helps at once
    duckduckgo.refusals = 3
    assert len(search_images("cat", 20, pause=0)) == 20               # and waiting helps


def test_pauses_grow(monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    class No:
        def search(self, term, max_images, size=None): raise SearchRefused("no")
    with pytest.raises(SearchRefused): search_images("cat", engine=No(), retries=4, pause=5)
    assert len(waits) == 4 and all(.5*5*2**n <= w <= 1.5*5*2**n for n, w in enumerate(waits))


def test_a_refusal_in_the_middle_keeps_what_there_is():
    class Half:
        def search(self, term, max_images, size=None):
            yield dict(image="http://a/1.jpg")
            raise SearchRefused("enough")
    with pytest.warns(UserWarning, match="1 of 9 pictures found"):
        assert len(search_images("cat", 9, Half(), pause=0)) == 1


def test_search_without_a_network_is_one_sentence(web, monkeypatch):
    from ddgs.http_client import HttpClient
    from duckduckgo_search import DDGS
    for cls, name in ((HttpClient, "request"), (DDGS, "_get_url")):
        old = getattr(cls, name)
        def closed(self, method, url, *args, old=old, **kwargs):
            return old(self, method, url.replace("https://duckduckgo.com", "http://127.0.0.1:1"), *args, **kwargs)
        monkeypatch.setattr(cls, name, closed)
    with pytest.raises(SearchError, match="check the network") as e: search_images("cat")
    assert type(e.value) is SearchError


def test_hostile_records_are_tamed():
    class Odd:
        def search(self, term, max_images, size=None):
            return [dict(image="http://a/1.jpg", title="two\nlines\0\ud800", width="640", height="tall"),
                    dict(image=None), dict(), dict(image="http://a/1.jpg")]
    found = search_images("cat", engine=Odd())
    assert len(found) == 1 and found[0].title == "two lines" and (found[0].width, found[0].height) == (640, 0)


def test_url_lists(tmp_path):
    rows = ["query,url,title", "cat,http://a/1.jpg,One", "cat,http://a/2.jpg,Two", "dog,http://a/3.jpg,"]
    (tmp_path/"urls.csv").write_text("\n".join(rows))
    engine = UrlListSearch(tmp_path/"urls.csv")
    found = search_images("Cat", engine=engine)
    assert [(o.image, o.title) for o in found] == [("http://a/1.jpg", "One"), ("http://a/2.jpg", "Two")]
    with pytest.raises(NoResults, match="'cat', 'dog'"): search_images("cow", engine=engine)
    (tmp_path/"bad.csv").write_text("a,b\n1,2\n")
    for bad, word in ((tmp_path/"bad.csv", "query and url are needed"), (tmp_path/"none.csv", "cannot be read"),
                      ({"cat": "http://a"}, "give a list")):
        with pytest.raises(InputError, match=word): UrlListSearch(bad)
    with pytest.raises(InputError, match="no such folder"): FolderSearch(tmp_path/"none")


# Crawls ------------------------------------------------------------------------------------------------------------

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
    if (dest/"manifest.csv").exists(): assert list(pd.read_csv(dest/"manifest.csv").columns) == crawl._COLUMNS


def noted(dest) -> set:
    "URLs that need no request any more, as the manifest and the whole lines of the journal have it."
    rows = {}
    if (dest/"manifest.csv").exists():
        rows = {(o["query"], o["url"]): o for o in crawl._read_manifest(dest/"manifest.csv")}
    journal = dest/".crawl"/"journal.jsonl"
    if journal.exists():
        for line in journal.read_bytes().split(b"\n")[:-1]:
            rows.update({(o["query"], o["url"]): o for o in json.loads(line)})
    return {url for (_, url), o in rows.items() if o["status"] not in ("found", "failed")}


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
    assert sorted(o.name for o in tmp_path.iterdir()) == ["manifest.csv", "test", "train"]
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
        assert not (tmp_path/"killed"/".crawl").exists()


def child_dies(library, dest, n):
    "Crawl, and die at the n-th time that something is written: half a journal line, or before or after a rename."
    left = [n]
    def maybe_die():
        left[0] -= 1
        if left[0] == 0: os.kill(os.getpid(), signal.SIGKILL)
    replace, add = os.replace, crawl._Manifest.add
    def dying_replace(*args):
        maybe_die()
        replace(*args)
        maybe_die()
    def dying_add(self, rows):
        left[0] -= 1
        if left[0] == 0:
            self.journal.write(json.dumps(rows).encode()[:-9])
            self.journal.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, rows)
        maybe_die()
    os.replace, crawl._Manifest.add = dying_replace, dying_add
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
    save, calls = crawl._Manifest.add, []
    def interrupted(self, rows):
        save(self, rows)
        calls.append(1)
        if len(calls) == 5: raise KeyboardInterrupt
    monkeypatch.setattr(crawl._Manifest, "add", interrupted)
    with pytest.raises(KeyboardInterrupt): crawl_list(urls_of(web), tmp_path)
    assert Counter(o["status"] for o in crawl._read_manifest(tmp_path/"manifest.csv"))["fetched"] >= 1
    monkeypatch.undo()
    assert len(crawl_list(urls_of(web), tmp_path)) == sum(map(len, urls_of(web).values()))


def test_one_crawl_at_a_time(web, tmp_path):
    (tmp_path/".crawl").mkdir()
    import fcntl
    with open(tmp_path/".crawl"/"journal.jsonl", "ab") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another crawl"): crawl_list(urls_of(web), tmp_path)


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
    monkeypatch.setattr(crawl.time, "sleep", waits.append)
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
