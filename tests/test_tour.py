"""The tour as a user runs it: `make tour` in a terminal, no network. Its promises are checked in its report."""
import io
import re
import shutil
import sys

import pandas as pd
import pytest

from fastcourse.data import published
from terminal import ROOT, in_terminal


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    "`make tour`, typed into a terminal."
    dest = tmp_path_factory.mktemp("tour")/"tour"
    if not shutil.which("make"): pytest.skip("make is not installed")
    seen = in_terminal(["make", "-o", f"{sys.prefix}/.installed", f"VENV={sys.prefix}",
                        f"TOUR=--dest {dest} --images images", "tour"], cwd=ROOT)
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


def test_the_classifier_is_right_and_points_at_the_object(toured):
    tables = pd.read_html(io.StringIO((toured[0]/"report.html").read_text()))
    figures = next(t for t in tables if "baseline" in t.columns)
    assert figures.measured[0] >= 0.95
    assert figures.measured[1] >= 0.85 and figures["baseline measured"][1] < 0.2


def test_the_terminal_shows_bars_and_keeps_the_results(toured):
    _, seen = toured
    assert "Traceback" not in seen.stream and "Part 3 of 3" in seen.screen
    assert re.search(r"\d+%\|", seen.stream) and "%|" not in seen.screen
