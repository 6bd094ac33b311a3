"""Grading: made-up submissions of every kind, each with the marks and the note that it must get."""
import json
import re

import nbformat
import pandas as pd
import pytest

import fastcourse
from command import here, is_one_line
from fastcourse import grading
from fastcourse.core import InputError

START = "import torch\nfrom fastcourse.exercises import check, mine, seed_by"
RIGHT = ["answer = [9, 15, 12, 20]", "check('3.1', answer)"]
ANOTHER = ["answer = 2", "check('3.3', answer)"]
ENDLESS = "while True: pass"


def submission(path, *sources, **about):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in sources])
    nb.metadata["fastcourse"] = dict(lesson=3, lang="en", edition="student", name=path.stem,
                                     version=fastcourse.__version__) | about
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path)


def impatient(nb, folder, memory, make=grading._client):
    "The limit of a cell is one of minutes, for a busy machine; the endless one need not use it up."
    client = make(nb, folder, memory)
    def execute_cell(cell, i, execute=client.execute_cell):
        if cell.source == ENDLESS: client.timeout = 1
        return execute(cell, i)
    client.execute_cell = execute_cell
    return client


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    "name -> row of the marks, of ten submissions in one folder. A kernel costs seconds, so most do several things."
    tmp = tmp_path_factory.mktemp("grading")
    folder = tmp/"in"
    hand = lambda file, *cells, **kw: submission(folder/f"{file}.ipynb", START, *cells, **kw)
    hand("right", *RIGHT, *ANOTHER)
    hand("twin/wrong", "answer = [0, 0, 0, 0]", "check('3.1', answer)", *ANOTHER, name="right")
    hand("limits", *RIGHT, "x = torch.zeros(40, 2**30, dtype=torch.uint8).fill_(1)", ENDLESS, *ANOTHER)
    hand("error", *RIGHT, "1/0", "import socket\ntry: socket.create_connection(('192.0.2.1', 80), 1)\n"
         "except OSError as e: print(e)\nelse: raise SystemExit", *ANOTHER, version="0.0.1")
    hand("says", "import fastcourse.exercises as room\nroom._solved.add('3.3')",
         "check = lambda number, answer: room._solved.add(number)", "check('3.1', 0)")
    hand("patches", "import fastcourse.exercises as room\nroom._judge = lambda e, answer: True", "check('3.1', 0)")
    hand("other", "seed_by('right')", "1", "2", "seed_by('right')", *RIGHT)
    hand("dies", *RIGHT, "import os; os._exit(1)", *ANOTHER)
    (folder/"broken.ipynb").write_text("{")
    (folder/"minji").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), folder/"minji"/"own.ipynb")
    out = tmp/"marks.csv"
    with pytest.MonkeyPatch.context() as m:
        m.setattr(grading, "_client", impatient)
        marks = grading.grade(folder, out, minutes=5, memory=8)
    return {f.rpartition(".")[0].rpartition("/")[2]: row for f, row in zip(marks.file, marks.to_dict("records"))}, out


def test_right_and_wrong(graded):
    rows, _ = graded
    assert (rows["right"]["solved"], rows["right"]["3.1"], rows["right"]["3.3"]) == (2, 1, 1)
    assert (rows["wrong"]["solved"], rows["wrong"]["3.1"], rows["wrong"]["3.3"]) == (1, 0, 1)
    assert pd.isna(rows["right"]["3.2"]) and rows["wrong"]["note"] == "the same name as right.ipynb"


@pytest.mark.parametrize("name, solved, notes", [
    # one error for too much memory, which the others outlive
    ("limits", 2, ["did not end and was stopped", "2 cells with an error"]),
    # the error is that of 1/0: a notebook has no network, and is told so
    ("error", 2, ["1 cells with an error", "version 0.0.1"]),
    ("says", 0, ["3.3 solved without `check`", "`check` was changed"]), ("patches", 0, ["`check` was changed"]),
    ("other", 1, ["another person's data"]), ("dies", 1, ["the kernel died"]),
    ("broken", 0, ["no notebook that can be read"]), ("own", 0, ["`fastcourse lessons`"])])
def test_marks_and_notes(graded, name, solved, notes):
    row = graded[0][name]
    assert row["solved"] == solved and all(o in row["note"] for o in notes), row


def test_the_table_and_the_pages(graded):
    rows, out = graded
    table = pd.read_csv(out)
    assert len(table) == len(rows) == 10 and table.solved.sum() == sum(o["solved"] for o in rows.values())
    pages = {o.name.rpartition("-")[0]: o.read_text("utf-8") for o in out.with_suffix("").iterdir()}
    assert {"right", "limits", "broken", "minji"} <= set(pages)
    assert pages["right"].count("✓") == 3 and "http" not in pages["right"]    # wrong.ipynb has the same name


@pytest.mark.parametrize("out", [None, 3, "", "marks", "marks.txt", "folder.csv", "taken.csv"])
def test_a_table_that_cannot_be_written_is_known_before_the_work(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"folder.csv").mkdir(), (tmp_path/"taken").touch(), (tmp_path/"a.ipynb").write_text("{")
    with pytest.raises(InputError, match="give (a file|its path)"): grading.grade(".", out)
    with pytest.raises(InputError, match="is no folder"): grading.grade(out if out in (None, 3) else "no", "marks.csv")
    assert sorted(o.name for o in tmp_path.iterdir()) == ["a.ipynb", "folder.csv", "taken"]


@pytest.mark.parametrize("bad, word", [(dict(minutes=0), "minutes=0"), (dict(memory=float("nan")), "memory=nan")])
def test_bad_numbers(tmp_path, bad, word):
    with pytest.raises(InputError, match=re.escape(word)): grading.grade(tmp_path, tmp_path/"m.csv", **bad)


def test_nothing_to_grade(tmp_path, capsys):
    is_one_line(here(capsys, "grade", str(tmp_path/"no")), "is no folder")
    is_one_line(here(capsys, "grade", str(tmp_path)), "holds no notebook")
    (tmp_path/"a.ipynb").write_text("{")
    is_one_line(here(capsys, "grade", str(tmp_path), "-o", str(tmp_path/"no"/"m.csv")), "there is no folder")
    assert [o.name for o in tmp_path.iterdir()] == ["a.ipynb"]


def test_names_cannot_break_the_page(tmp_path):
    (tmp_path/"in").mkdir()
    for name in ("../../up", "<script>x</script>", "김민지"):
        nb = nbformat.v4.new_notebook()
        nb.metadata["fastcourse"] = dict(lesson=3, name=name, version=fastcourse.__version__, extra=[])
        (tmp_path/"in"/f"{abs(hash(name))}.ipynb").write_text(json.dumps(nb))
    subs = [grading.Submission(o.name, json.loads(o.read_text())["metadata"]["fastcourse"]["name"], 3)
            for o in (tmp_path/"in").iterdir()]
    rows = grading._rows(subs)
    for name, part in rows.groupby("name"): assert "<script>" not in grading._page(name, part)
