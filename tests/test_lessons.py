"""The stored lessons, read as a learner finds them: their parts, their rows, what they show and what they do not."""
import ast
import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1]/"nbs"/"lessons"
PATHS = sorted(FOLDER.glob("0*.ipynb"))
ROWS = {1: 9, 2: 9, 3: 9, 4: 10, 5: 9}    # how many rows the course has for each lesson: N.1, N.2, …
DEBRIS = [r"starts \d+ to \d+ of \d+", r"\w*Warning: ", r"\d+/\d+ \(\d+ s\)", r"<progress", r"/(tmp|home|work|usr)/",
          r"object at 0x", r"dtype=torch\.float64\) degrees", "Loading widget", r"\x1b\["]
SECTION = re.compile(r"^#{2,3} (\d+)\.(\d+) \S", re.M)
EXERCISE = re.compile(r"^### Exercise (\d+\.\w+) (★+)(?!★)", re.M)

pytestmark = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)


@pytest.fixture
def nb(path): return nbformat.read(path, as_version=4)


@pytest.fixture
def n(path): return int(path.name[:2])


def hidden(cell): return re.search(r"^#\| *hide\b", cell.source, re.M) is not None


def visible_code(nb): return [c for c in nb.cells if c.cell_type == "code" and not hidden(c)]


def prose(nb): return "\n\n".join(c.source for c in nb.cells if c.cell_type == "markdown")


def shown(nb):
    "Every output as (number of the cell, output, its text)."
    for i, c in enumerate(nb.cells):
        for o in c.get("outputs", []):
            data = o.get("data", {})
            yield i, o, o.get("text", "") + data.get("text/plain", "") + data.get("text/html", "")


def test_every_row_has_a_heading(nb, n):
    found = {(int(a), int(b)) for a, b in SECTION.findall(prose(nb))}
    assert not [f"{n}.{k}" for k in range(1, ROWS[n] + 1) if (n, k) not in found]
    assert {a for a, _ in found} == {n}


def tasks(nb):
    "The exercises as (number, stars, the code cells up to the next Markdown cell)."
    for i, c in enumerate(nb.cells):
        for number, stars in EXERCISE.findall(c.source) if c.cell_type == "markdown" else ():
            after = []
            for o in nb.cells[i+1:]:
                if o.cell_type != "code": break
                after.append(o.source.rstrip())
            yield number, len(stars), after


def test_exercises_with_starter_and_check(nb, n):
    found = list(tasks(nb))
    assert len(found) >= 6 and sum(stars == 3 for _, stars, _ in found) >= 2
    assert len({number for number, _, _ in found}) == len(found)
    for number, stars, cells in found:
        assert number.startswith(f"{n}.") and 1 <= stars <= 3 and len(cells) >= 2, number
        assert any(re.search(r"^answer = .*\.\.\.", o, re.M) for o in cells), f"{number}: no `answer = ...`"
        assert any(re.search(rf"^check\(['\"]{re.escape(number)}['\"], answer\)", o, re.M) for o in cells), number


def test_exercises_are_those_of_the_module(nb, n):
    assert find_spec(f"fastcourse.lesson{n}"), f"fastcourse.lesson{n} is missing"
    there = importlib.import_module(f"fastcourse.lesson{n}").exercises
    stars = {number: k for number, k, _ in tasks(nb)}
    checked = set(re.findall(r"^check\(['\"]([\w.]+)['\"]", "\n".join(c.source for c in visible_code(nb)), re.M))
    assert checked == {e.number for e in there}
    assert stars == {e.number: e.stars for e in there if e.number in stars}
    assert {e.number for e in there if e.choices is None} <= set(stars)
    visible = "\n".join(c.source for c in nb.cells)
    for e in there:
        if e.choices is None and len(e.solution) > 60: assert e.solution.strip() not in visible, e


def test_no_assert_where_a_learner_reads(nb):
    for c in visible_code(nb):
        code = "\n".join("pass" if re.match(r"\s*[%!]", o) else o for o in c.source.split("\n"))
        assert not [o for o in ast.walk(ast.parse(code)) if isinstance(o, ast.Assert)], c.source


def test_no_numbers_of_rows(nb):
    text = "\n".join([prose(nb), *(c.source for c in visible_code(nb))])
    assert not re.findall(r"\brows? \d\.\d+", text, re.I)


def test_names_of_the_package_that_exercises_need_keep_their_meaning(nb):
    code = "\n".join(re.sub(r"^\s*[%!].*", "", c.source, flags=re.M) for c in nb.cells if c.cell_type == "code")
    made = set()
    for o in ast.parse(code).body:
        if isinstance(o, (ast.FunctionDef, ast.ClassDef)): made.add(o.name)
        else: made |= {n.id for n in ast.walk(o) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    assert not {"check", "score", "mine", "seed_by", "language"} & made


def test_size(path): assert path.stat().st_size <= 1.5e6


def test_every_picture_belongs_to_a_section(nb):
    section = False
    for c in nb.cells:
        if c.cell_type == "markdown": section = section or re.search(r"^##+ \S", c.source, re.M) is not None
        for o in c.get("outputs", []):
            data = o.get("data", {})
            if any(k.startswith("image/") for k in data): assert section, c.source
            for img in re.findall(r"<img[^>]*>", data.get("text/html", "")): assert 'alt="' in img or section, img[:80]
    for img in re.findall(r"!\[([^\]]*)\]\(", prose(nb)): assert img, "a picture in the text has no alt text"


def test_no_error_and_no_debris(nb):
    for i, o, text in shown(nb):
        assert o.output_type != "error", (i, o.get("evalue"))
        assert o.get("name") != "stderr", (i, text[:200])
        for pattern in DEBRIS: assert not re.search(pattern, text), (i, pattern, text[:300])


def test_it_is_stored_with_its_output(nb):
    cells = visible_code(nb)
    assert sum(bool(c.outputs) for c in cells) > len(cells)/2


def test_something_to_predict_and_something_to_move(nb):
    text = prose(nb)
    assert len(re.findall(r"<details>\s*<summary>", text)) >= 3 and text.count("<details>") == text.count("</details>")
    assert re.search(r"^play_\w+\(", "\n".join(c.source for c in visible_code(nb)), re.M)
