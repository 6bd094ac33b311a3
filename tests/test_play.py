"""Each thing to move: a slider changes the picture and the numbers; once in a real browser, through JupyterLab."""
import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from unittest import mock
from urllib.error import URLError

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from fastai.vision.all import get_image_files, resnet18, set_seed
from chromium import chromium
from conftest import LONG
from legible import assert_legible
from torch import nn

import fastcourse.play as room
from fastcourse.core import InputError
from fastcourse.data import bent_line
from fastcourse.play import (play_bent_line, play_bump, play_cam, play_learning_rate, play_letters, play_softmax,
                             play_staircase)
from fastcourse.scenes import digit_scenes
from fastcourse.vision import cam_learner, folder_dls


@pytest.fixture
def in_a_kernel(monkeypatch):
    "Widgets as in a kernel; they can be moved from Python too."
    widgets = pytest.importorskip("ipywidgets", reason="ipywidgets is not installed: pip install 'fastcourse[app]'")
    monkeypatch.setattr(room, "_widgets", lambda: widgets)


def by_hand():
    "Letters a (1, 0), b (0, 1), c (-1, -1), and a layer that gives the log of 4 for the nearest."
    net = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 3, bias=False))
    places = torch.tensor([[1., 0], [0, 1], [-1, -1]])
    net[0].weight.data, net[1].weight.data = places, places*math.log(4)
    return net


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    path = tmp_path_factory.mktemp("play")/"images"
    digit_scenes(path, n_train=16, n_test=4, size=64)
    set_seed(1)
    dls = folder_dls(path, size=64, bs=16, num_workers=0)
    return cam_learner(dls, resnet18, pretrained=False, stride=8), get_image_files(path/"test")[0]


class Moved:
    "What a call made, by the names of its sliders; `move` gives the sentence after a move, when all was drawn anew."
    def __init__(self, box):
        *sliders, self.note, self.picture = box.children
        self.sliders = {o.description: o for o in sliders}

    def move(self, **values):
        "One picture is drawn, at the last of the moves: the others tell nobody."
        before = bytes(self.picture.value)
        moves = [(o, v) for name, v in values.items() for k, o in self.sliders.items()
                 if k.startswith(name.replace("_", " ")) and o.value != v]
        assert moves
        for slider, value in moves[:-1]:
            with mock.patch.object(slider, "notify_change", lambda change: None): slider.value = value
        moves[-1][0].value = moves[-1][1]
        now = bytes(self.picture.value)
        assert now.startswith(b"\x89PNG") and now != before
        assert not plt.get_fignums()
        return self.note.value


def test_bent_line(in_a_kernel):
    data, w = bent_line(), Moved(play_bent_line())
    assert len(w.sliders) == 4
    said = lambda loss: f"loss (mean squared error) {loss.item():.3f};"
    # relu(x)·3.5 - relu(-x) is the curve behind the data
    assert w.move(**{"w₁": 1., "v₁": 3.5, "w₂": -1., "v₂": -1.}).startswith(said(((data.y - data.truth)**2).mean()))
    assert w.move(**{"v₁": 0., "v₂": 0.}).startswith(said((data.y**2).mean()))


def test_learning_rate(in_a_kernel):
    w = Moved(play_learning_rate())
    assert w.move(learning=1.5) == ("learning rate 1.50 < 2/λ = 2.00; each step multiplies w by -0.50: "
                                    "it bounces, and arrives")
    assert w.move(learning=2.5).endswith("> 2/λ = 2.00; each step multiplies w by -1.50: it leaves the bowl")
    assert w.move(learning=2.).endswith("= 2/λ = 2.00; each step multiplies w by -1.00: it jumps to and fro for ever")
    assert "2/λ = 0.50; each step multiplies w by -7.00" in w.move(λ=4.)
    with pytest.raises(InputError, match="steps=0"): play_learning_rate(0)


def test_the_point_bounces():
    line = play_learning_rate(4).axes[1].lines[0]
    np.testing.assert_allclose(line.get_ydata(), [1, 0.5, 0.25, 0.125, 0.0625])    # lr 0.5, λ 1


def test_bump(in_a_kernel):
    w = Moved(play_bump())
    # 2·sigmoid(0.5·2) - 1 = tanh(0.5) = 0.462
    assert w.move(steepness=0.5) == "edges at -2 and 2; in the middle the bump is 0.46 high"
    assert w.move(height=2.).endswith("0.92 high")
    assert w.move(left=0., right=8.) == "edges at 0 and 8; in the middle the bump is 1.52 high"    # 2·tanh(1)


def test_staircase(in_a_kernel):
    w = Moved(play_staircase())
    heights = {f"height_at_x_=_{o:.1f}": o for o in (-1., -0.6, -0.2, 0.2, 0.6, 1.)}
    # y = x in 10 steps of 2/9.9: half a step is 0.101, a little less since the edges are not quite steep
    said = w.move(**heights)
    assert said.startswith("10 nodes of the network: the largest distance") and 0.08 <= float(said.split()[-1]) <= 0.1
    assert w.move(number=100).endswith("0.01") and w.move(number=2).startswith("2 nodes")
    flat = w.move(number=1, **dict.fromkeys(heights, 1.))
    assert flat == "1 node of the network: the largest distance from the curve is 0.00"


def test_letters(in_a_kernel):
    w = Moved(play_letters(by_hand(), "abc"))
    assert w.note.value == "after 'a' comes 'a' with P = 0.76"    # 4/(4 + 1 + 1/4)
    assert w.move(**{"move h₁": -1., "move h₂": 1.}) == "after 'a' comes 'b' with P = 0.76"
    # 16/(16 + 1/2)
    assert w.move(**{"move h₁": 0., "move h₂": 0., "letter": "c"}) == "after 'c' comes 'c' with P = 0.97"


def test_letters_on_a_line(in_a_kernel):
    net = nn.Sequential(nn.Embedding(2, 1), nn.Tanh(), nn.Linear(1, 2))
    w = Moved(play_letters(net, ["go", "stop"]))
    assert len(w.sliders) == 2
    with torch.no_grad(): P = net[2](net[1](net[0].weight[:1]) + 0.5).softmax(-1)
    assert w.move(move=0.5).endswith(f"P = {P.max():.2f}")


def test_softmax(in_a_kernel):
    w = Moved(play_softmax())
    assert w.note.value.startswith("P = 0.67, 0.24, 0.09; entropy 1.20 bits")    # e², e, 1 over their sum
    assert w.move(**{"out of a": 0., "out of b": 0.}).startswith("P = 0.33, 0.33, 0.33; entropy 1.58 bits")
    assert w.move(**{"out of a": 1., "temperature": 0.1}).startswith("P = 1.00, 0.00, 0.00; entropy 0.00 bits")


def test_cam(in_a_kernel, scenes):
    lrnr, path = scenes
    asked = []
    hook = lrnr.model.register_forward_hook(lambda *_: asked.append(1))
    w = Moved(play_cam(lrnr, path))
    hook.remove()
    asked = []
    hook = lrnr.model[0].register_forward_hook(lambda *_: asked.append(1))
    first = w.note.value
    assert w.move(opacity=0.2) == first and not asked    # the network is asked for another picture only
    grey = np.full((64, 64, 3), 128, dtype=np.uint8)
    with lrnr.no_bar(): P = lrnr.get_preds(dl=lrnr.dls.test_dl([grey]))[0][0]
    hook.remove()
    said = w.move(size=100, cover_from_left=0, cover_from_top=0)
    assert said == f"{lrnr.dls.vocab[P.argmax()]} (P = {P.max():.2f})"
    assert w.move(size=0) == first
    w.move(picture=25)


def test_without_ipywidgets(monkeypatch, capsys):
    monkeypatch.setattr(room, "is_notebook", lambda: True)
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    figure = play_softmax()
    said = "Sliders need ipywidgets: pip install 'fastcourse[app]'. Here is the first setting.\n"
    assert capsys.readouterr().out == said
    assert figure.axes[0].patches[0].get_height() == pytest.approx(math.exp(2)/(math.exp(2) + math.e + 1))


@pytest.mark.parametrize("make", [play_bent_line, play_learning_rate, play_bump, play_staircase, play_softmax,
                                  lambda: play_letters(by_hand(), "abc")])
def test_outside_a_kernel_it_is_a_picture(make, capsys):
    figure = make()
    assert_legible(figure)
    assert not plt.get_fignums() and capsys.readouterr().out == ""


@pytest.mark.parametrize("net", [nn.Linear(3, 2), nn.Embedding(3, 2), nn.Sequential(nn.Linear(2, 2), nn.Softmax(-1))])
def test_letters_of_another_network(net):
    with pytest.raises(InputError, match="ends in a Linear layer over 1 or 2 nodes"): play_letters(net, "ab")


@pytest.mark.parametrize("net", [
    nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 3)),
    nn.Linear(2, 2),
    nn.Sequential(nn.Embedding(3, 2), nn.Tanh(), nn.Linear(2, 4)),
    nn.Sequential(nn.Embedding(1, 2), nn.Tanh(), nn.Linear(2, 1))])
def test_letters_of_a_network_without_letters(net):
    with pytest.raises(InputError, match="an Embedding at its start and, for each letter there, an output"):
        play_letters(net, "abc")


@pytest.mark.parametrize("vocab", [None, 3, "", "ab", "abcd", "aab", [None]*3, torch.tensor(3), {"a", "b", "c"},
                                   object()])
def test_letters_that_do_not_fit(vocab):
    with pytest.raises(InputError, match="must be 3 different letters in the order of their codes"):
        play_letters(by_hand(), vocab)


@pytest.mark.parametrize("vocab", [["a", "b", "c"], ("a", "b", "c"), np.array(["a", "b", "c"]), dict(a=0, b=1, c=2),
                                   [1, 2, 3]])
def test_letters_of_every_kind_of_list(vocab):
    first, = {str(o) for o in [*vocab][:1]}
    assert play_letters(by_hand(), vocab).get_suptitle().startswith(f"after '{first}' comes '{first}' with P = 0.76")


@pytest.mark.parametrize("what", [None, "net", 3, [], nn.Sequential()])
@pytest.mark.parametrize("call", [lambda o: play_letters(o, None), lambda o: play_letters(o, "abc"),
                                  lambda o: play_cam(o, None), lambda o: play_cam(o, "a.png")])
def test_what_is_no_network(call, what):
    with pytest.raises(InputError) as error: call(what)
    said = str(error.value)
    assert "\n" not in said and ("play_" in said or "Learner" in said)


@pytest.mark.parametrize("steps", [None, "3", 1.5, True, -1])
def test_steps_of_a_wrong_kind(steps):
    with pytest.raises(InputError, match="steps=.* must be a whole number"): play_learning_rate(steps)


@pytest.mark.parametrize("picture", [None, 3, [], {}, "no.png", torch.zeros(3, 8, 8)])
def test_cam_of_what_is_no_picture(scenes, picture):
    with pytest.raises(InputError): play_cam(scenes[0], picture)


def test_a_letter_goes_from_one_end_of_the_line_to_the_other(in_a_kernel):
    net = nn.Sequential(nn.Embedding(2, 1), nn.Linear(1, 2))
    net[0].weight.data = torch.tensor([[-1.], [1.]])
    net[1].weight.data, net[1].bias.data = torch.tensor([[-2.], [2.]]), torch.zeros(2)
    w = Moved(play_letters(net, "ab"))
    assert w.note.value == "after 'a' comes 'a' with P = 0.98"    # 1/(1 + e⁻⁴)
    assert w.move(move=2.) == "after 'a' comes 'b' with P = 0.98"


# In a browser

CELLS = ["from fastcourse.play import *\nimport torch\nfrom torch import nn", "play_bent_line()",
         "play_learning_rate()",
         "play_bump()", "play_staircase()", "play_softmax()",
         "play_letters(nn.Sequential(nn.Embedding(3, 2), nn.Tanh(), nn.Linear(2, 3)), 'abc')"]
CAM = """from fastai.vision.all import resnet18
from fastcourse.vision import cam_learner, folder_dls
lrnr = cam_learner(folder_dls({0!r}, size=64, bs=16, num_workers=0), resnet18, pretrained=False, stride=8)
play_cam(lrnr, {1!r})"""

LIVE = ["from fastcourse.app import app", "live = app(lrnr)\nlive", "again = app(lrnr)\nagain", "6*7"]


def missing():
    "What the browser test lacks here, as a sentence."
    for name in ("ipywidgets", "jupyterlab", "selenium"):
        if importlib.util.find_spec(name) is None: return f"{name} is not installed: pip install '.[dev]'"
    for name in ("chromium", "chromedriver"):
        if shutil.which(name) is None: return f"{name} is not installed: apt install chromium chromium-driver"


@pytest.fixture
def lab(tmp_path, scenes):
    "A JupyterLab with one notebook that plays with everything; its address."
    lrnr, path = scenes
    sources = CELLS + [CAM.format(str(path.parents[2]), str(path))] + (LIVE if LONG else [])
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nb, tmp_path/"play.ipynb")
    with open(tmp_path/"lab.log", "w+") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", "--ServerApp.ip=127.0.0.1",
             "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True",
             "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None", f"--ServerApp.root_dir={tmp_path}"],
            stdout=log, stderr=log, cwd=tmp_path, env=os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path),
                                                                    "HOME": str(tmp_path)})
        try:
            for _ in range(600):
                found = re.search(r"http://127\.0\.0\.1:\d+/", (tmp_path/"lab.log").read_text())
                if found or server.poll() is not None: break
                time.sleep(0.1)
            assert found, (tmp_path/"lab.log").read_text()[-2000:]
            yield found[0]
        finally:
            server.terminate()
            server.wait(20)


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_everything_moves_in_a_browser(lab, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait
    browser = chromium(tmp_path/"profile", "--window-size=1200,6000", log=("browser",))
    until = WebDriverWait(browser, 240, 0.2).until
    try:
        browser.get(f"{lab}doc/tree/play.ipynb")
        until(lambda b: b.execute_script("return !!(window.jupyterapp && document.querySelector('.jp-Notebook-cell'))"))
        until(lambda b: b.execute_script("""const p = window.jupyterapp.shell.currentWidget;
            const s = p && p.context && p.context.isReady && p.context.sessionContext.session;
            return !!(s && s.kernel)"""))
        browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        boxes = until(lambda b: (lambda o: len(o) == 7 and o)(b.find_elements(By.CSS_SELECTOR,
                                                                              ".jp-OutputArea-output .widget-vbox")))
        for box in boxes:
            sentence = lambda: box.find_elements(By.CSS_SELECTOR, ".widget-label")[-1].text
            picture = lambda: box.find_element(By.CSS_SELECTOR, "img.widget-image").get_attribute("src")
            until(lambda b: picture() and sentence())
            shown = "return arguments[0].clientWidth <= arguments[0].naturalWidth"
            assert browser.execute_script(shown, box.find_element(By.CSS_SELECTOR, "img.widget-image"))
            before = picture(), sentence()
            handles = box.find_elements(By.CSS_SELECTOR, ".noUi-handle")
            for _ in range(4): handles[0].send_keys(Keys.ARROW_LEFT)
            until(lambda b: picture() != before[0])
            # the opacity of a map, and a small move of a letter, change no number
            if not before[1].startswith("after") and " (P = " not in before[1]: until(lambda b: sentence() != before[1])
        if LONG: live_pages(browser, until)
        errors = [o["message"] for o in browser.get_log("browser") if o["level"] == "SEVERE"]
        assert not [o for o in errors if "widget" in o.lower()], errors
    finally: browser.quit()


def live_pages(browser, until):
    "Two pages of `app` beside each other in their cells: they answer, the kernel goes on, and they end with it."
    find = lambda what: browser.find_elements("css selector", what)
    frames = until(lambda b: len(o := find(".jp-OutputArea-output iframe[title=fastcourse]")) == 2 and o)
    until(lambda b: any(o.text.strip() == "42" for o in find(".jp-OutputArea-output")))
    urls = [o.get_attribute("src") for o in frames]
    assert len(set(urls)) == 2
    for frame in frames:
        browser.switch_to.frame(frame)
        until(lambda b: b.execute_script("return !!document.querySelector('.fc-take')"))
        browser.switch_to.default_content()
    browser.execute_async_script("window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()"
                                 ".finally(arguments[0])")
    def silent(url):
        try: urllib.request.urlopen(url, timeout=5).close()
        except URLError: return True
    until(lambda b: all(map(silent, urls)))
