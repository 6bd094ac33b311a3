"""The tour as a user runs it: `make tour` in a terminal, no network. Its promises are checked in its report.

The classifier learns from the 1600 pictures of the package in the long tests only: that takes 100 of 150 seconds, and a
classifier that lesson 5 trains must be right and point at the object in `test_lessons_in_kernels.py` too.
"""
import io
import re
import shutil
import sys

import pandas as pd
import pytest

from conftest import LONG
from fastcourse.data import published
from fastcourse.scenes import digit_scenes
from terminal import ROOT, in_terminal


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    "`make tour`, typed into a terminal."
    dest = tmp_path_factory.mktemp("tour")/"tour"
    if not shutil.which("make"): pytest.skip("make is not installed")
    images = "images"
    if not LONG: digit_scenes(images := tmp_path_factory.mktemp("few")/"images", n_train=64, n_test=32)
    seen = in_terminal(["make", "-o", f"{sys.prefix}/.installed", f"VENV={sys.prefix}",
                        f"TOUR=--dest {dest} --images {images}", "tour"], cwd=ROOT)
    assert seen.code == 0, seen.screen[-3000:]
    return dest, seen


def test_the_report_is_one_file_with_its_pictures(toured):
    dest, seen = toured
    page = (dest/"report.html").read_text()
    assert str((dest/"report.html").resolve()) in seen.screen.replace("\n", "")
    assert page.count("<h2>") == 4 and "data:image/png;base64," in page
    assert page.count('alt="The loss of each batch and of each epoch"') == 2
    assert re.findall(r'(?:src|href)="((?!data:).*?)"', page) == ["language_model.html"]
    assert (dest/"cam.png").stat().st_size > 50_000
    assert sorted(o.name for o in dest.iterdir()) == ["cam.png", "language_model.html", "report.html"]
    assert (dest/"language_model.html").stat().st_size < 1_500_000


def test_the_losses_are_the_published_ones(toured):
    table = pd.read_html(io.StringIO((toured[0]/"report.html").read_text()))[0]
    told = pd.DataFrame(published("4.4")["figures"])
    for c in told: assert (table[c]-told[c]).abs().max() < 1e-4


def test_the_language_model_counts(toured):
    """Ten runs knew 0.9988 to 0.9997 of the next words, and all counted 200 right: four seeds with AVX-512, two of them
    with ATen's default and AVX2 and with oneDNN's SSE4.1."""
    page = (toured[0]/"report.html").read_text()
    assert float(re.search(r"Next-word accuracy on the validation texts: ([\d.]+)\.", page)[1]) >= 0.995
    assert "200 of 200 words counted right" in page
    assert "three , four , five" in page and "twenty two , twenty three" in page


def test_the_report_has_the_figures_of_the_classifier(toured):
    tables = pd.read_html(io.StringIO((toured[0]/"report.html").read_text()))
    figures = next(t for t in tables if "baseline" in t.columns)
    assert figures["baseline measured"][0] == 0.5 and figures["baseline measured"][1] < 0.2
    if not LONG: return
    assert figures.measured[0] >= 0.95 and figures.measured[1] >= 0.85


def test_the_terminal_shows_bars_and_keeps_the_results(toured):
    _, seen = toured
    assert "Traceback" not in seen.stream and "Part 3 of 3" in seen.screen
    assert re.search(r"\d+%\|", seen.stream) and "%|" not in seen.screen
