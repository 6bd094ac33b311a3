"""The tour as a user runs it: a process, no network, its output in a file. Its promises are checked in its report."""
import io
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fastcourse.data import published

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    dest = tmp_path_factory.mktemp("tour")
    run = subprocess.run([Path(sys.executable).parent/"fastcourse", "tour", "--dest", dest/"tour", "--images", ROOT/"images"],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
    assert run.returncode == 0, run.stdout[-3000:]
    return dest/"tour", run.stdout


def test_the_report_is_one_file_with_its_pictures(toured):
    dest, log = toured
    page = (dest/"report.html").read_text()
    assert str((dest/"report.html").resolve()) in log
    assert page.count("<h2>") == 4 and "data:image/png;base64," in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert (dest/"cam.png").stat().st_size > 50_000
    assert sorted(o.name for o in dest.iterdir()) == ["cam.png", "report.html"]


def test_the_losses_are_the_published_ones(toured):
    table = pd.read_html(io.StringIO((toured[0]/"report.html").read_text()))[0]
    told = pd.DataFrame(published("4.4")["figures"])
    for c in told: assert (table[c]-told[c]).abs().max() < 1e-4


def test_the_language_model_counts(toured):
    page = (toured[0]/"report.html").read_text()
    assert float(re.search(r"Next-word accuracy on the validation texts: ([\d.]+)\.", page)[1]) >= 0.999
    assert "200 of 200 words counted right" in page
    assert "three , four , five" in page and "twenty two , twenty three" in page


def test_the_classifier_is_right_and_points_at_the_object(toured):
    tables = pd.read_html(io.StringIO((toured[0]/"report.html").read_text()))
    figures = next(t for t in tables if "baseline" in t.columns)
    assert figures.measured[0] >= 0.95
    assert figures.measured[1] >= 0.85 and figures["baseline measured"][1] < 0.2


def test_a_log_has_plain_lines(toured):
    assert "\r" not in toured[1] and "\x1b" not in toured[1]
    assert toured[1].count("\n") < 150
