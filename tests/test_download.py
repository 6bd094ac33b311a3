"""Downloads from a server on this machine that does everything wrong that servers do."""
import errno
import hashlib
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from hostile import CASES, LIMITS, Web, picture

from fastcourse import fetch
from fastcourse.core import InputError
from fastcourse.download import download_images

QUICK = dict(allow_local=True, backoff=.01, per_host=16)


@pytest.fixture
def web():
    with Web() as web: yield web


def test_hostile_cases(web, tmp_path):
    "Each of them ends, in time, with a row that says what happened; what is kept is a whole picture."
    start = time.monotonic()
    cases = sorted(CASES, key=lambda o: CASES[o][1] == "longer than")
    n = sum(CASES[o][1] != "longer than" for o in cases)
    # 2 s for those that never end; the others get what a busy machine may need
    df = pd.concat([download_images([web.url(o) for o in part], tmp_path, **LIMITS | {"max_time": seconds})
                    for part, seconds in ((["/same/0/photo.jpg", *cases[:n]], 60.), (cases[n:], 2.))])[1:]
    assert time.monotonic()-start < 120   # far above it something hangs
    for case, o in zip(cases, df.itertuples()):
        status, words = CASES[case]
        if case == "/same/0/photo.jpg": status, words = "duplicate", "same URL"
        assert (o.status, words in o.reason) == (status, True), (case, o.status, o.reason)
        assert bool(o.file) == (not o.reason) == (o.status == "ok"), case
        if o.file:
            data = (tmp_path/o.file).read_bytes()
            assert hashlib.sha256(data).hexdigest() == o.sha256 and len(data) == o.bytes, case
            assert o.file.startswith(o.sha256[:20]), case
    kept = dict(zip(cases, df.file))
    assert kept["/no-ending"].endswith(".webp") and kept["/png.jpg"].endswith(".png")
    assert df.file[df.file != ""].nunique() == (df.status == "ok").sum()
    row_0 = hashlib.sha256(picture(20)).hexdigest()[:20]+".jpg"
    assert {o.name for o in tmp_path.iterdir()} == {*df.file, row_0}-{""}
    # A final no is not asked again.
    assert max(web.counts[o]
               for o in ("/403", "/404", "/html.jpg", "/bomb.png", "/to-private", "/noai")) == 1 and len(CASES) >= 95
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


def test_a_short_wait_does_not_close_a_host(web, tmp_path):
    urls = [web.url("/busy"), *(web.url(f"/ok/{i}.jpg") for i in range(29))]
    df = download_images(urls, tmp_path, workers=1, retries=0, allow_local=True)
    assert df.status.tolist() == ["failed"]+["ok"]*29


def test_a_host_is_its_name(tmp_path):
    "User names and ports in the URL do not make it another host."
    with Web(latency=.05) as web:
        urls = [web.url(f"/ok/{i}.jpg").replace("//", f"//me{i}:pw@") for i in range(12)]
        df = download_images(urls, tmp_path, workers=12, per_host=2, allow_local=True)
        assert (df.status == "ok").all() and web.most_busy == 2


def test_whatever_a_fetch_raises_is_the_reason_of_its_row(web, tmp_path, monkeypatch):
    def odd(answer, url, lim, check=fetch._check_answer):
        if url.endswith("/1.jpg"): raise ZeroDivisionError("of a library")
        return check(answer, url, lim)
    monkeypatch.setattr(fetch, "_check_answer", odd)
    df = download_images([web.url(f"/ok/{i}.jpg") for i in range(3)], tmp_path, **QUICK)
    assert df.status.tolist() == ["ok", "failed", "ok"] and "ZeroDivisionError: of a library" in df.reason[1]


def test_the_user_agent_says_whom_to_ask(web, tmp_path, monkeypatch):
    from hostile import Handler
    seen = []
    class Listening(Handler):
        def answer(self, path, n):
            seen.append(self.headers["User-Agent"])
            super().answer(path, n)
    web.server.RequestHandlerClass = Listening
    download_images([web.url("/ok/1.jpg")], tmp_path, contact="+https://example.org/me", **QUICK)
    assert seen[0].startswith("Mozilla/5.0 (compatible; fastcourse/") and seen[0].endswith("; +https://example.org/me)")
    df = download_images([web.url("/noai")], tmp_path, opt_outs=(), **QUICK)
    assert df.status[0] == "ok"
    for kwargs, word in ((dict(contact="a\nb"), "contact is"), (dict(opt_outs="noai"), "opt_outs is")):
        with pytest.raises(InputError, match=word): download_images([], tmp_path, **kwargs)


def test_files_of_others_stay(web, tmp_path):
    "Only what a killed run of ours has left half written is removed."
    import os
    for name in (".notes.part", ".x.jpg.1.part"): (tmp_path/name).write_text("mine")
    (old := tmp_path/(f".{'a'*20}.jpg.12-34.part")).write_text("half")
    for o in tmp_path.iterdir(): os.utime(o, (0, 0))
    download_images([web.url("/ok/1.jpg")], tmp_path, **QUICK)
    assert not old.exists() and {".notes.part", ".x.jpg.1.part"} <= {o.name for o in tmp_path.iterdir()}


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
    monkeypatch.setattr(fetch, "_tls", lambda: trusting)
    assert download_images(["https://localhost"+at], tmp_path/"a", **QUICK).status[0] == "ok"
    assert "certificate" in download_images(["https://127.0.0.1"+at], tmp_path/"a", **QUICK).reason[0]


def test_bad_arguments_are_named_before_work_starts(web, tmp_path):
    url = [web.url("/ok/1.jpg")]
    for kwargs, word in [(dict(workers=0), "workers=0"), (dict(workers=9999), "256"),
                         (dict(timeout=-1), "timeout=-1"), (dict(max_time="5"), "max_time='5'"),
                         (dict(retries=1.5), "retries=1.5"), (dict(max_bytes=True), "max_bytes=True")]:
        with pytest.raises(InputError, match=word): download_images(url, tmp_path/"new", **kwargs)
    for urls in ("http://a/b.jpg", b"http://a", Path("urls.txt"), 5):
        with pytest.raises(InputError, match="give a list of URLs"): download_images(urls, tmp_path/"new")
    (tmp_path/"file").write_text("")
    with pytest.raises(InputError, match="choose another folder"): download_images(url, tmp_path/"file"/"new")
    assert not (tmp_path/"new").exists() and not web.counts
