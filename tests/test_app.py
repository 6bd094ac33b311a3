"""The live page: in a real browser, with hostile visitors; nobody is asked for anything, nothing stays on the disk."""
import base64
import io
import json
import os
import pty
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pytest
import torch
from chromium import FAKE_CAMERA, browser, chromium, look_as, quiet, wait
from command import here
from conftest import LONG, OFFLINE
from PIL import Image
from torch import nn

from fastcourse.app import app, space
from fastcourse.bodies import find_arch
from fastcourse.core import InputError
from fastcourse.data import codes, human_numbers, letters
from fastcourse.gate import bound_port
from fastcourse.generate import generate
from fastcourse.learner import tensor_learner
from fastcourse.scenes import digit_scenes
from fastcourse.text import lm_learner, load_lm, save_lm
from fastcourse.vision import cam_learner, folder_dls, save_classifier

with_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed: pip install -e '.[app]'")
only_long = pytest.mark.skipif(not LONG, reason="takes minutes; make test-long")
pytestmark = with_gradio

SPY = """
import os, socket
for name in ('connect', 'connect_ex'):
    def wrap(old):
        def new(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6): open(os.environ['SPY'], 'a').write(f'{address[0]}\\n')
            return old(self, address)
        return new
    setattr(socket.socket, name, wrap(getattr(socket.socket, name)))
def lookup(old):
    def new(host, *a, **kw):
        open(os.environ['SPY'], 'a').write(f'{host}\\n')
        return old(host, *a, **kw)
    return new
socket.getaddrinfo = lookup(socket.getaddrinfo)
exec(open(os.environ['OFFLINE']).read())
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "A classifier and a language model, neither trained; as sure of themselves as trained ones."
    tmp = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    lm = lm_learner(human_numbers(10), config=dict(emb_sz=24, n_hid=32, n_layers=2))
    for p in lm.model.parameters(): nn.init.normal_(p, std=0.6)
    digit_scenes(tmp/"images", 16, 4, size=64)
    pictures = cam_learner(folder_dls(tmp/"images", size=64), find_arch("resnet18"), pretrained=False)
    return save_classifier(pictures, tmp/"digits"), save_lm(lm, tmp/"count"), tmp/"images"/"test"


@pytest.fixture(scope="module")
def live(folders, tmp_path_factory):
    "`fastcourse app` as a process of its own: its address, its folders, and whom it asked."
    tmp = tmp_path_factory.mktemp("live")
    for name in ("home", "tmp", "here", "spy"): (tmp/name).mkdir()
    (tmp/"spy"/"sitecustomize.py").write_text(SPY)
    env = dict(os.environ, HOME=str(tmp/"home"), TMPDIR=str(tmp/"tmp"), SPY=str(tmp/"spy"/"asked"),
               OFFLINE=str(OFFLINE/"sitecustomize.py"), PYTHONUNBUFFERED="1",
               PYTHONPATH=os.pathsep.join([str(tmp/"spy"), str(Path(__file__).parents[1])]))
    digits, count, pictures = folders
    with open(tmp/"log", "w") as log:
        command = [sys.executable, "-m", "fastcourse", "app", digits, count, "--examples", pictures, "--port", "0"]
        p = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=tmp/"here")
    try:
        until(lambda: "http" in (tmp/"log").read_text() or p.poll() is not None, 300)
        found = re.search(r"http://127\.0\.0\.1:\d+/", (tmp/"log").read_text())
        assert found, (tmp/"log").read_text()
        page = Page(found[0])
        page.process, page.tmp, page.before = p, tmp, on_disk(tmp)
        yield page
        ours = re.findall(r'File ".*fastcourse/(?!__main__|cli).*', (tmp/"log").read_text())
        assert not ours, ours   # gradio traces what it refuses; an error of ours has our lines in it
        assert "zzz" not in (tmp/"log").read_text(), "what visitors write is nobody's business"
    finally:
        p.terminate()
        p.wait(30)


def until(condition, seconds=60, what="it"):
    end = time.monotonic()+seconds
    while not condition():
        assert time.monotonic() < end, f"{what} takes too long"
        time.sleep(0.1)


def on_disk(tmp) -> set:
    return {str(f) for part in ("home", "tmp", "here") for f in (tmp/part).rglob("*") if f.is_file()}


class Page:
    "A page as programs see it: the events that its scripts send."
    def __init__(self, url):
        self.url = url
        config = json.load(urllib.request.urlopen(url+"config"))
        self.events = {o["api_name"]: o["id"] for o in config["dependencies"]}

    def post(self, path, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return json.load(urllib.request.urlopen(urllib.request.Request(
            self.url+path, data, {"Content-Type": "application/json", **dict(headers)}), timeout=120))

    def ask(self, name, data=(), session=None, lang="en", **event) -> list:
        "The last answer to an event, as the page gets it."
        session = session or uuid.uuid4().hex
        body = dict(data=list(data), event_data=event or None, fn_index=self.events[name], session_hash=session)
        self.post("gradio_api/queue/join", body, {"Accept-Language": lang}.items())
        parts = []
        with urllib.request.urlopen(f"{self.url}gradio_api/queue/data?session_hash={session}", timeout=120) as stream:
            for line in stream:
                if not line.startswith(b"data:"): continue
                message = json.loads(line[5:])
                if message["msg"] == "process_generating": parts.append(message["output"].get("data"))
                if message["msg"] == "process_completed":
                    if not message["success"]: return [message["output"]["error"]]
                    self.parts = parts
                    return message["output"]["data"] if message["output"].get("data") else parts[0]
        raise AssertionError("no answer")

    def look(self, data: bytes, **kw) -> str:
        "All that the page shows for a picture."
        return " ".join(map(str, self.ask("look", picture=base64.b64encode(data).decode(), **kw)))


def file_of(im, kind="PNG", **kw) -> bytes:
    out = io.BytesIO()
    im.save(out, kind, **kw)
    return out.getvalue()


def seen(html: str) -> np.ndarray:
    "What the network saw, as the page shows it."
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(re.search(r'image/jpeg;base64,([^"\']+)', html)[1]))))


def test_good_pictures_get_classes_and_maps(live, folders):
    html = live.look(next(folders[2].rglob("*.jpg")).read_bytes())
    assert html.count("data-at=") == 2 and html.count("data:image") == 4 and "zero" in html and "one" in html
    clear = seen(live.look(file_of(Image.new("RGBA", (90, 90)))))
    assert clear.min() > 240, "what is transparent lies on white"
    turned, exif = Image.new("RGB", (80, 80), "red"), Image.Exif()
    turned.paste("blue", (40, 0, 80, 80))   # the left half is red: with orientation 6 it is above
    exif[0x0112] = 6
    upright = seen(live.look(file_of(turned, "JPEG", exif=exif)))
    assert upright[:20, :, 0].min() > 200 and upright[-20:, :, 2].min() > 200


@pytest.mark.parametrize("data, lang, what", [
    (b"<!doctype html><script>alert(1)</script>", "en", "This is no picture: it is an HTML page"),
    (b"<!doctype html>", "ko-KR,ko;q=0.9", "그림 파일이 아닙니다: HTML 문서"),
    (b"\0\0\0\x18ftypheic"+bytes(16), "ko", "읽을 수 없습니다: HEIC 파일"),
    (file_of(Image.effect_noise((64, 64), 90))[:2000], "ko", "손상된 그림입니다: 파일이 중간에 잘림"),
    (file_of(Image.new("1", (6000, 5000))), "ko", "너무 큰 그림입니다: 가로 6000, 세로 5000 화소"),
    (b"", "en", "This is no picture: it is empty"),
    (file_of(Image.effect_noise((64, 64), 90))[:2000], "en", "This picture is damaged"),
    (file_of(Image.new("1", (6000, 5000))), "en", "too large for this page: 6000x5000"),
    (bytes(10_000_001), "en", "too large for this page: 10.0 MB"),
], ids=["html", "html ko", "heic ko", "broken ko", "pixels ko", "empty", "broken", "pixels", "bytes"])
def test_what_is_no_picture_is_a_sentence(live, data, lang, what):
    html = live.look(data, lang=lang)
    assert what in html and "alert(1)" not in html and "data:image" not in html


def test_events_that_no_script_sends(live):
    for event in ({"picture": "no base64 %"}, {"picture": 3}, {}): assert "no picture" in str(live.ask("look", **event))
    assert "picture first" in str(live.ask("map", [None], at=0))
    with pytest.raises(OSError):   # refused before it is read: the answer may come while it is still sent
        live.post("gradio_api/queue/join", b'{"data": ["'+b"x"*20_000_001+b'"]}')
    with pytest.raises(HTTPError) as e: live.post("gradio_api/upload?upload_id=x", b"--x")
    assert e.value.code == 404
    path = {"path": "http://example.org/a.png", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(HTTPError) as e:
        live.post("gradio_api/queue/join", dict(data=[path], fn_index=0, session_hash="a"))
    assert e.value.code == 400
    with pytest.raises(HTTPError) as e:
        urllib.request.urlopen(urllib.request.Request(live.url, headers={"Host": "evil.example"}))
    assert e.value.code == 403


SLIDERS = [50, 1, 0, 1, 0, 7]   # words, temperature, top-k, top-p, min-p, seed


def test_the_page_says_what_generate_says(live, folders):
    html = str(live.ask("speak", ["one, two,", *SLIDERS]))
    said = [w for w in re.findall(r"<button[^>]*>([^<]*)</button>", html) if w != "¶"]
    g = generate(load_lm(folders[1]), "one, two,", 50, seed=7)
    assert [re.sub("[^a-z,]", "", w) for w in said if w.isalpha() or w == ","][:10] == \
        [w for w in g.text.split()[g.before.count(" ")+1:] if w.isalpha() or w == ","][:10]


@pytest.mark.parametrize("text, lang, what", [
    ("a"*100_000, "en", "This text has 100,000 letters; the page takes 5,000."), ("  ", "ko", "먼저 단어를"),
    ("zzz", "en", "knows none of these words"), (None, "en", "Write a word"), ("zzz", "ko", "모델이 아는 단어가 없습니다"),
    ("one zzz", "en", "The model does not know"), ("one zzz", "ko", "모르는 단어로 읽습니다"), ("\ud800", "ko", "유니코드")])
def test_a_prompt_that_makes_no_sense_is_a_sentence(live, text, lang, what):
    assert what in str(live.ask("speak", [text, *SLIDERS], lang=lang))


@pytest.mark.parametrize("value, what", [(-3, "0에서 18446744073709551615까지의 정수를 쓰세요. 쓴 값: -3"),
                                         ("1.5", "시드(seed)에는 정수를 쓰세요")])
def test_a_seed_in_korean(live, value, what):
    assert what in str(live.ask("speak", ["one", *SLIDERS[:-1], value], lang="ko"))


@pytest.mark.parametrize("i, value, what", [(0, 10**9, "greater than maximum"), (1, -1, "less than minimum"),
                                            (3, 7, "greater than maximum"), (5, -3, "seed=-3"),
                                            (5, "x", "must be a whole number")])
def test_sliders_that_were_moved_by_a_program(live, i, value, what):
    sliders = list(SLIDERS)
    sliders[i] = value
    assert what in str(live.ask("speak", ["one", *sliders]))


def test_perplexity_of_a_text(live):
    assert "Perplexity " in str(live.ask("perplexity", ["one, two, three, four"]))
    assert "50,001 letters" in str(live.ask("perplexity", ["a"*50_001]))


@pytest.fixture(scope="module")
def visitor(tmp_path_factory):
    "`visitor(url, width, language)` opens a page; all share one Chromium, which has a camera."
    d = chromium(tmp_path_factory.mktemp("profile"), *FAKE_CAMERA)
    def visit(url, width=1200, height=900, language="en"):
        look_as(d, width, height, language).get(url)
        wait(d, "document.querySelector('.fc-take, .fc-figure img')")
        return d
    yield visit
    d.quit()


SHOWN = "(s => [...document.querySelectorAll(s)].filter(o => o.offsetParent))"


VIEWS = "document.querySelectorAll('.fc-views img').length === 4"
SEE = "window.seen = [...document.querySelectorAll('.fc-views img')].map(o => o.src).join()"
NEW = f"{VIEWS} && [...document.querySelectorAll('.fc-views img')].map(o => o.src).join() !== window.seen"


@browser
def test_the_page_by_file_and_by_keyboard(live, folders, tmp_path, visitor):
    from selenium.webdriver import ActionChains, Keys
    d = visitor(live.url)
    press = lambda *keys: ActionChains(d).send_keys(*keys).perform()
    upload = d.find_element("css selector", "input[type=file]")
    (tmp_path/"page.jpg").write_text("<!doctype html>")
    upload.send_keys(str(tmp_path/"page.jpg"))
    wait(d, f"{SHOWN}('.fc-note')[0]?.textContent.includes('it is an HTML page')")
    upload.send_keys(str(next(folders[2].rglob("*.jpg"))))
    wait(d, VIEWS)
    chosen = "document.querySelector('.fc-picks [aria-pressed=true]').dataset.at"
    first = d.execute_script(f"return {chosen}")
    d.execute_script("document.querySelector('.fc-picks [aria-pressed=false]').focus()")
    press(Keys.ENTER)
    wait(d, f"{chosen} !== '{first}'")
    d.execute_script("document.querySelector('.fc-views input').focus()")
    press(Keys.ARROW_RIGHT)
    opacity = "getComputedStyle(document.querySelector('.fc-over')).opacity"
    assert float(d.execute_script(f"return {opacity}")) == pytest.approx(0.75)
    d.execute_script(f"{SHOWN}('[role=tab]').findLast(o => o.textContent.includes('count')).focus()")
    press(Keys.ENTER)
    wait(d, f"{SHOWN}('textarea').length")
    d.execute_script(f"{SHOWN}('textarea')[0].focus()")
    press(Keys.ENTER)
    words = "document.querySelectorAll('.fc-words button')"
    wait(d, f"{words}.length >= 20")
    wait(d, f"window.many === (window.many = {words}.length)")   # all of them came
    d.execute_script(f"{words}[3].focus()")
    press(Keys.ENTER)
    wait(d, f"{SHOWN}('.fc-picks button').length === 10")
    before = d.execute_script(f"return [...{words}].slice(0, 3).map(o => o.textContent)")
    d.execute_script(f"{SHOWN}('.fc-picks button:not([disabled])')[2].focus()")
    press(Keys.ENTER)
    wait(d, f"{SHOWN}('.fc-picks button').length === 0 && {words}.length > 5")
    assert d.execute_script(f"return [...{words}].slice(0, 3).map(o => o.textContent)") == before
    quiet(d, live.url)


@browser
def test_a_picture_from_the_camera_the_clipboard_and_a_drop(live, folders, visitor):
    from selenium.webdriver import ActionChains, Keys
    d, files = visitor(live.url), [str(f) for f in folders[2].rglob("*.jpg")]
    told = "(o => o && !o.hidden)(document.querySelector('[data-tell=none]'))"
    ends = "[...window.tracks].every(o => o.readyState === 'ended')"
    d.execute_script("""window.tracks = []
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices)
        navigator.mediaDevices.getUserMedia = async how => {
          const stream = await ask(how)
          tracks.push(...stream.getTracks())
          return stream
        }""")
    def film(clicks=1):
        d.execute_script("for (let i = 0; i < arguments[0]; i++) document.querySelector('.fc-camera').click()", clicks)
        wait(d, "document.activeElement.matches('.fc-snap')")
    def drag(x, y, **data):
        data = dict(items=[], dragOperationsMask=1) | data
        for kind in ("dragEnter", "dragOver", "drop"):
            d.execute_cdp_cmd("Input.dispatchDragEvent", dict(type=kind, x=x, y=y, data=data))

    film(clicks=2)   # who clicks twice does not have two cameras
    assert d.execute_script("return tracks.filter(o => o.readyState === 'live').length") == 1
    d.execute_script("document.activeElement.click()")
    wait(d, VIEWS)
    assert d.execute_script(f"return {ends} && document.activeElement.matches('.fc-camera')")
    film()   # whoever chooses something else, or goes to another tab, is no longer filmed
    d.execute_script(SEE)
    d.find_element("css selector", "input[type=file]").send_keys(files[0])
    wait(d, NEW)
    assert d.execute_script(f"return {ends}")
    film()
    for name in ("count", "digits"):
        d.execute_script(f"{SHOWN}('[role=tab]').findLast(o => o.textContent.includes('{name}')).click()")
        wait(d, ends)

    d.execute_cdp_cmd("Browser.grantPermissions", dict(
        origin=live.url.rstrip("/"), permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]))
    d.execute_script(SEE)
    d.execute_async_script("""const [done] = arguments, canvas = document.createElement('canvas')
        canvas.width = canvas.height = 50
        canvas.getContext('2d').fillRect(10, 10, 20, 20)
        canvas.toBlob(o => navigator.clipboard.write([new ClipboardItem({'image/png': o})]).then(done))""")
    paste = lambda: ActionChains(d).key_down(Keys.CONTROL).send_keys("v").key_up(Keys.CONTROL).perform()
    paste()
    wait(d, NEW)
    d.execute_async_script("navigator.clipboard.writeText('no picture').then(arguments[0])")
    paste()
    wait(d, told)

    place = d.execute_script("const r = document.querySelector('.fc-take input').getBoundingClientRect(); "
                             "return [r.x+r.width/2, r.y+r.height/2]")
    for at, file in ((place, files[1]), ((20, 880), files[2])):   # on the field; beside it
        d.execute_script(SEE)
        drag(*at, files=[file])
        wait(d, NEW)
    drag(*place, items=[dict(mimeType="text/uri-list", data="http://example.org/a.png")])
    wait(d, told)
    assert d.current_url == live.url
    quiet(d, live.url)


@browser
def test_a_network_is_taken_apart_on_a_phone_in_korean(visitor):
    from selenium.webdriver import ActionChains, Keys
    x, y = codes(letters("abc")[:-1]), codes(letters("abc")[1:])
    torch.manual_seed(43052)
    lrnr = tensor_learner(x, y, nn.Sequential(nn.Embedding(3, 1), nn.Tanh(), nn.Linear(1, 3)), lr=0.1)
    weights = [p.detach().clone() for p in lrnr.model.parameters()]
    page = app(lrnr, names="abc", port=0)
    try:
        d = visitor(page.url, 390, 844, "ko")
        figures = "[...document.querySelectorAll('.fc-figure img')].map(o => o.src)"
        wait(d, f"{figures}.length === 2")
        first = d.execute_script(f"return {figures}")
        button = lambda text: f"[...document.querySelectorAll('button')].find(o => o.textContent.includes('{text}'))"
        d.execute_script(f"{button('에폭 더 학습')}.focus()")
        ActionChains(d).send_keys(Keys.ENTER).perform()
        wait(d, f"{figures}.length === 3 && !{figures}.includes('{first[0]}')")
        ActionChains(d).send_keys(Keys.TAB).perform()
        d.execute_script("document.querySelector('textarea, input[type=text]').focus()")
        ActionChains(d).send_keys("z").perform()
        wait(d, f"{SHOWN}('.fc-note')[0]?.textContent.includes(\"모르는 글자가 있습니다: 'z'\")")
        d.execute_script(f"{button('처음부터')}.click()")
        wait(d, f"{figures}.length === 2")
        assert d.execute_script("return document.documentElement.lang") == "ko"
        assert d.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert all(map(torch.equal, lrnr.model.parameters(), weights)), "visitors train copies"
        quiet(d, page.url)
    finally: page.close()


def test_a_weight_is_changed_and_training_goes_on(monkeypatch):
    "In a notebook, where a cell runs again: its first page still has the usual port, and the next gets another."
    monkeypatch.setattr("fastcourse.app.is_notebook", lambda: True)
    monkeypatch.delenv("GRADIO_SERVER_PORT", raising=False)
    x, first = torch.linspace(-1, 1, 20)[:, None], bound_port("127.0.0.1", 0)
    page = app(tensor_learner(x, 2*x, nn.Linear(1, 1), nn.MSELoss(), lr=0.01))
    try:
        assert page.port != first.getsockname()[1]
        asks, mine = Page(page.url), uuid.uuid4().hex
        table = dict(headers=["1"], data=[[2.0]], metadata=None)
        html = str(asks.ask("weight", [None, table, 0.5], session=mine))
        assert html.count("data:image") == 2
        assert "1 numbers" in str(asks.ask("weight", [None, dict(table, data=[["x"]]), 0.5], session=mine))
        answer = asks.ask("train", [None, 0.5], session=mine)
        assert str(answer).count("data:image") == 3 and str(answer).count("'headers'") == 2
    finally:
        page.close()
        first.close()


def test_ctrl_c_in_a_terminal(folders):
    "The command, forked from here since this process has loaded what it needs."
    (child, terminal), said, end = pty.fork(), b"", time.monotonic()+60
    if not child:
        from fastcourse.__main__ import main
        sys.argv = ["fastcourse", "app", str(folders[1]), "--port", "0"]
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")   # not pytest's
        try: main()
        except SystemExit as e: os._exit(e.code)
        finally: os._exit(99)
    try:
        while time.monotonic() < end:
            if not select.select([terminal], [], [], 1)[0]: continue
            try: new = os.read(terminal, 65536)
            except OSError: break   # Linux says EIO when the last writer has gone
            if b"ends it\r\n" in new: os.write(terminal, b"\x03")
            said += new
    finally:
        if time.monotonic() > end: os.kill(child, 9)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(terminal)
    assert code == 130 and b"Traceback" not in said and said.count(b"\n") == 2, said
    assert said.endswith(b"fastcourse: stopped\r\n")
    bound_port("127.0.0.1", int(re.search(rb":(\d+)/", said)[1])).close()   # it is free again


def test_nothing_is_left_and_nobody_was_asked(live):
    "The last of those that use the process."
    new = on_disk(live.tmp)-live.before
    assert not new, new
    assert not list((live.tmp/"tmp").rglob("*.jpg"))
    asked = set((live.tmp/"spy"/"asked").read_text().split()) if (live.tmp/"spy"/"asked").exists() else set()
    assert asked <= {"127.0.0.1", "localhost", "None"}, asked


def test_bad_input_is_one_line_and_code_2(folders, capsys, tmp_path, monkeypatch):
    def line(*argv):
        r = here(capsys, "app", *argv)
        assert r.returncode == 2 and r.stderr.count("\n") == 1, r.stderr
        return r.stderr
    (tmp_path/"empty").mkdir()
    assert "holds no saved model" in line(tmp_path/"empty", "--port", 0)
    assert "does not exist" in line(tmp_path/"none", "--port", 0)
    shutil.copytree(folders[1], tmp_path/"new")
    about = json.loads((tmp_path/"new"/"lm.json").read_text())
    (tmp_path/"new"/"lm.json").write_text(json.dumps(about | {"format": 2}))
    assert "is from a newer fastcourse" in line(tmp_path/"new", "--port", 0)
    (tmp_path/"new"/"lm.json").write_text("{")
    assert "damaged" in line(tmp_path/"new", "--port", 0)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        assert f"port {port} is in use" in line(folders[1], "--port", port)
    assert "no folder of pictures" in line(folders[1], "--examples", tmp_path/"none")
    monkeypatch.setattr("fastcourse.app.find_spec", lambda name: None)
    assert "pip install 'fastcourse[app]'" in line(folders[1])


def test_a_space_starts(folders, tmp_path):
    lm = load_lm(folders[1])
    space(lm, tmp_path/"space", title="Counting")
    assert not [o for o in (tmp_path/"space").rglob("*") if o.suffix in (".pkl", ".pth", ".pt")]
    head = (tmp_path/"space"/"README.md").read_text().split("---")[1]
    assert "sdk: gradio" in head and "app_file: app.py" in head and 'title: "Counting"' in head
    assert re.match(r"fastcourse\[app\]>=\d", (tmp_path/"space"/"requirements.txt").read_text())
    with pytest.raises(InputError, match="one file"):
        space(tensor_learner(torch.randn(4, 1), torch.randn(4, 1), nn.Linear(1, 1)), tmp_path/"b")
    if LONG: start_space(tmp_path)


def start_space(tmp):
    "In an environment that has the wheel, and the dependencies of this one."
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", tmp/"wheel", root], check=True,
                   capture_output=True, env=dict(os.environ, PYTHONPATH=""))
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp/"site",
                    *(tmp/"wheel").glob("*.whl")], check=True, env=dict(os.environ, PYTHONPATH=""))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp/"site"), str(OFFLINE)]), GRADIO_SERVER_PORT=str(port))
    p = subprocess.Popen([sys.executable, "app.py"], cwd=tmp/"space", env=env)
    def answers():
        try: return "Counting" in urllib.request.urlopen(f"http://127.0.0.1:{port}/").read().decode()
        except OSError: return False
    try:
        until(lambda: answers() or p.poll() is not None, 240)
        assert "<button" in str(Page(f"http://127.0.0.1:{port}/").ask("speak", ["one", *SLIDERS]))
    finally:
        p.terminate()
        p.wait(30)


def memory(pid) -> float:
    "Of a process, in MB."
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])/1024


@only_long
def test_twenty_visitors_for_thirty_seconds(live, folders):
    picture = next(folders[2].rglob("*.jpg")).read_bytes()
    wrong, answers = [], []
    def visit(i, end):
        while time.monotonic() < end:
            try:
                html = live.look(picture) if i % 2 else str(live.ask("speak", ["one, two,", *SLIDERS]))
                answers.append("<button" in html)
            except Exception as e: wrong.append(repr(e))
    def crowd(seconds):
        end = time.monotonic()+seconds
        threads = [threading.Thread(target=visit, args=(i, end)) for i in range(20)]
        for t in threads: t.start()
        for t in threads: t.join()
    crowd(10)   # buffers of torch and gradio reach their size
    before = memory(live.process.pid)
    crowd(30)
    time.sleep(5)
    after = memory(live.process.pid)
    print(f"{len(answers)} answers, {before:.0f} MB before, {after:.0f} MB after")
    assert not wrong and all(answers) and len(answers) > 20, wrong[:3]
    assert after-before < 60


@only_long
@browser
def test_contrast_and_labels(live, tmp_path, visitor):
    npm = shutil.which("npm")
    if not npm: pytest.skip("npm is not installed")
    r = subprocess.run([npm, "install", "--no-audit", "--no-fund", "--prefix", tmp_path, "axe-core"],
                       capture_output=True)
    if r.returncode: pytest.skip("axe-core cannot be had from npm")
    axe = (tmp_path/"node_modules"/"axe-core"/"axe.min.js").read_text()
    x = torch.linspace(-1, 1, 20)[:, None]
    net = app(tensor_learner(x, 2*x, nn.Linear(1, 1), nn.MSELoss(), lr=0.01), port=0)
    found = []
    try:
        for url in (live.url, live.url+"?__theme=dark", net.url):
            d = visitor(url)
            example = d.execute_script("return document.querySelector('[data-example]')")
            if example:
                d.execute_script("arguments[0].click()", example)
                wait(d, "document.querySelectorAll('.fc-views img').length === 4")
            for tab in d.find_elements("css selector", "[role=tab]") or [None]:
                if tab: d.execute_script("arguments[0].click()", tab)
                for o in d.find_elements("css selector", "button.label-wrap"):
                    d.execute_script("arguments[0].click()", o)
                time.sleep(2)
                d.execute_script(axe)
                result = d.execute_async_script("const done = arguments[0]; axe.run(document, {runOnly: ['wcag2a', "
                                                "'wcag2aa']}).then(o => done(o.violations))")
                found += [(url, v["id"], n["html"][:200]) for v in result for n in v["nodes"]]
        assert not found, "\n".join(map(str, found))
    finally: net.close()
