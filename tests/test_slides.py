"""Slides: nbconvert makes decks that ask no other host, with the settings and files that stand beside them."""
import importlib.util
import io
import json
import re
import subprocess
import sys
from base64 import b64encode

import nbformat
import pandas as pd
import pytest
from chromium import quiet
from PIL import Image
from test_docs import browser  # noqa: F401  a fixture

from fastcourse import editions as room
from fastcourse.core import InputError
from fastcourse.editions import deck_files, lesson_names, lesson_notebook, write_lessons

PACKAGES = ("sphinx_revealjs", "mathjax")
lacks = [o for o in PACKAGES if importlib.util.find_spec(o) is None]
with_files = pytest.mark.skipif(bool(lacks), reason=f"{', '.join(lacks)} not installed: pip install -e '.[teach]'")


@pytest.mark.parametrize("lang", ["en", "ko"])
@pytest.mark.parametrize("name", lesson_names())
def test_a_slide_is_whole(name, lang):
    "An answer, a piece of code or a formula is not cut; what a paragraph announces stands below it."
    shown = ""
    for c in lesson_notebook(name, lang, "slides")["cells"]:
        text, kind = "".join(c["source"]).strip(), c["metadata"]["slideshow"]["slide_type"]
        if c["cell_type"] != "markdown": continue
        assert text.count("<details>") == text.count("</details>") and not text.count("```") % 2, text
        if kind == "notes": assert not re.search(r"(:|\*\*)$", shown), (shown, text)
        shown = text


@pytest.mark.parametrize("package", PACKAGES)
def test_without_the_packages_nothing_is_written(package, tmp_path, monkeypatch):
    find_spec = room.find_spec
    monkeypatch.setattr(room, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(InputError, match="fastcourse\\[teach\\]"): write_lessons(tmp_path/"deck", edition="slides")
    assert not (tmp_path/"deck").exists()


@with_files
def test_a_folder_slides_is_not_written_over(tmp_path):
    (tmp_path/"slides").mkdir()
    with pytest.raises(InputError, match="slides is there already"): write_lessons(tmp_path, edition="slides")
    assert [o.name for o in tmp_path.iterdir()] == ["slides"]


def long_cells():
    "What a training leaves, a table of twenty lines, and a large picture; above both code that is wider than a slide."
    table = pd.DataFrame(dict(epoch=range(20), train_loss=0.5)).to_html(index=False)
    Image.new("RGB", (900, 600), "grey").save(picture := io.BytesIO(), "png")
    for i, data in enumerate(({"text/html": table}, {"image/png": b64encode(picture.getvalue()).decode()})):
        cell = nbformat.v4.new_code_cell("x = 1   #" + " and so on"*20 + "\nx += 1"*12, id=f"long{i}")
        cell.metadata.slideshow = dict(slide_type="slide")
        cell.outputs = [nbformat.v4.new_output("display_data", data)]
        yield cell


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    "The first slides of a lesson in both languages, made by one call of nbconvert."
    folder = tmp_path_factory.mktemp("decks")
    for lang in ("en", "ko"):
        nb = lesson_notebook("03_embedding_space", lang, "slides")
        nb["cells"][20:] = [c for c in nb["cells"] if "play" in c["metadata"].get("tags", [])] + [*long_cells()]
        (folder/f"{lang}.ipynb").write_text(json.dumps(nb), "utf-8")
    deck_files(folder)
    called = [sys.executable, "-m", "nbconvert", "--to", "slides", "--config", "slides/config.json", "en.ipynb",
              "ko.ipynb"]
    r = subprocess.run(called, cwd=folder, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return folder


@with_files
@pytest.mark.parametrize("lang", ["en", "ko"])
def test_a_deck_in_a_browser(browser, decks, lang):  # noqa: F811
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait
    browser.get((decks/f"{lang}.slides.html").as_uri())
    until = WebDriverWait(browser, 120).until
    until(lambda d: d.execute_script("return !!window.Reveal && Reveal.isReady()"))
    def place(): return browser.execute_script("const o = Reveal.getIndices(); return [o.h, o.v]")
    body, seen = browser.find_element("tag name", "body"), [place()]
    for key in (Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ARROW_LEFT):
        body.send_keys(key)
        until(lambda d: place() != seen[-1])
        seen.append(place())
    assert seen == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 0], [0, 1]]
    formulas = "document.querySelectorAll('mjx-container svg').length"
    until(lambda d: d.execute_script(f"return {formulas}") > 10)
    assert browser.execute_script("return document.querySelectorAll('[data-mml-node=merror]').length") == 0
    assert "play_letters(" not in browser.page_source and "import *" in browser.page_source
    slide = "document.querySelector('.slides > section.present')"
    for last in (1, 2):
        browser.execute_script(f"Reveal.slide(Reveal.getHorizontalSlides().length-{last})")
        until(lambda d: d.execute_script(f"return {slide}.querySelector({['img', 'table'][last-1]!r}) !== null"))
        fits = "(o => o.scrollHeight <= o.clientHeight && o.scrollWidth <= o.clientWidth)"
        assert browser.execute_script(f"return {fits}({slide}) && {fits}({slide}.querySelector('pre'))"), last
    quiet(browser, decks.as_uri())
