"""The lessons to hand out: nothing lacks its Korean, no solution reaches a learner, nothing is written over."""
import json
import re
from pathlib import Path

import nbformat
import pytest

from fastcourse.core import InputError
from fastcourse.editions import (digest, editions, korean_prose, lesson_names, lesson_notebook, pack_lessons,
                                 untranslated, write_lessons)
from fastcourse.exercises import lesson_exercises
from command import here, is_one_line

ROOT = Path(__file__).parents[1]
NAMES = lesson_names()
every = pytest.mark.parametrize("name", NAMES)


def text(nb, kind=None): return "\n\n".join("".join(c["source"]) for c in nb["cells"] if kind in (None, c["cell_type"]))


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    "The picture set of lesson 5 is drawn in nbs/00_scenes; here it need not be."
    from fastcourse import editions as room
    monkeypatch.setattr(room, "lesson_pictures", lambda dest: dest.mkdir(exist_ok=True))


@every
def test_every_cell_has_its_korean_and_none_is_stale(name): assert untranslated(name) == []


@every
def test_headings_links_and_formulas_are_those_of_the_english(name):
    prose = korean_prose(name)
    for c in lesson_notebook(name)["cells"]:
        if c["cell_type"] != "markdown" or c["id"] not in prose: continue
        english, korean = "".join(c["source"]), prose[c["id"]][1]
        for what in (r"^#+ (?:\D*?)(\d+\.\d+)", r"\]\(([^)]*)\)", r"</?details>", r"^```", r"★+"):
            assert re.findall(what, english, re.M) == re.findall(what, korean, re.M), (c["id"], what)


@every
def test_the_package_carries_the_lessons_as_they_are(name, tmp_path):
    pack_lessons(ROOT/"nbs"/"lessons", ROOT/"images"/"materials", tmp_path)
    assert (tmp_path/f"{name}.ipynb").read_bytes() == (ROOT/"fastcourse"/"lessons"/f"{name}.ipynb").read_bytes(), \
        "run: make export"


@every
@pytest.mark.parametrize("edition", editions)
@pytest.mark.parametrize("lang", ["en", "ko"])
def test_an_edition_is_a_valid_notebook(name, edition, lang):
    nb = nbformat.reads(json.dumps(lesson_notebook(name, lang, edition, "김민지")), 4)
    nbformat.validate(nb)
    code = [c for c in nb.cells if c.cell_type == "code"]
    assert not [c for c in code if re.search(r"^#\||\.\./", c.source, re.M)]
    assert not [c for c in code if re.search(r"\bassert[ _]", c.source)]
    whose = next(c.source for c in code if "seed_by(" in c.source)
    assert "seed_by('김민지')" in whose and ("language('ko')" in whose) == (lang == "ko")
    for c in code: compile(re.sub(r"^\s*[%!].*", "", c.source, flags=re.M), c.id, "exec")


@every
@pytest.mark.parametrize("lang", ["en", "ko"])
def test_solutions_are_for_the_teacher_only(name, lang):
    student, teacher = (text(lesson_notebook(name, lang, o), "code") for o in ("student", "teacher"))
    long = [e for e in lesson_exercises(int(name[:2])).values() if len(e.solution) > 60]
    assert len(long) >= 3
    for e in long: assert e.solution in teacher and e.solution not in student, e
    for e in lesson_exercises(int(name[:2])).values():
        for wrong in e.wrong:
            if len(wrong) > 60: assert wrong not in student, wrong


@every
def test_the_code_is_the_same_in_both_languages(name):
    def code(lang):
        "Without the cell that sets the language, and the line that says that a cell is slow."
        return [c["source"]["slow" in c["metadata"].get("tags", ""):] for c in lesson_notebook(name, lang)["cells"]
                if c["cell_type"] == "code" and c["id"] != "whose"]
    assert code("en") == code("ko") and len(code("en")) > 50
    assert len(re.findall("[가-힣]", text(lesson_notebook(name, "ko"), "markdown"))) > 5000


@every
def test_the_teacher_has_questions_times_and_mistakes(name):
    nb = lesson_notebook(name, "ko", "teacher")
    first = "".join(nb["cells"][1]["source"])
    assert first.count("\n1. ") == 1 and len(re.findall(r"^\d+\. ", first, re.M)) >= 3
    assert "자주 하는 실수" in text(nb) and "약 20분" in text(nb)


@every
def test_slides_are_short(name):
    kinds = [c["metadata"]["slideshow"]["slide_type"] for c in lesson_notebook(name, "en", "slides")["cells"]]
    assert set(kinds) <= {"slide", "subslide", "notes", "skip"} and kinds[0] == "slide"
    longest = max(len("".join(c["source"])) for c in lesson_notebook(name, "en", "slides")["cells"]
                  if c["cell_type"] == "markdown" and c["metadata"]["slideshow"]["slide_type"] != "notes"
                  and "|" not in "".join(c["source"]))
    assert longest < 1500


def test_written_once_and_not_over(tmp_path):
    paths = write_lessons(tmp_path/"course", lang="ko")
    assert [o.stem for o in paths] == NAMES
    paths[2].write_text("mine")
    with pytest.raises(InputError, match="is there already.*--force"): write_lessons(tmp_path/"course")
    assert paths[2].read_text() == "mine" and json.loads(paths[0].read_text())["metadata"]["fastcourse"]["lang"] == "ko"
    write_lessons(tmp_path/"course", force=True)
    assert json.loads(paths[2].read_text())["metadata"]["fastcourse"]["lang"] == "en"


@pytest.mark.parametrize("dest", [None, 3])
def test_a_destination_that_is_no_path(dest):
    with pytest.raises(InputError, match=f"dest={dest}"): write_lessons(dest)


@pytest.mark.parametrize("args, word", [(("x",), "'x'"), ((None,), "None"), ((NAMES[0], "fr"), "lang='fr'"),
                                        ((NAMES[0], "en", "exam"), "edition='exam'")])
def test_one_notebook_is_as_strict(args, word):
    with pytest.raises(InputError, match=word): lesson_notebook(*args)


@pytest.mark.parametrize("bad, word", [(dict(lang="kr"), "lang='kr'"), (dict(lang=[]), "lang=[]"),
                                       (dict(lang=None), "lang=None"),
                                       (dict(edition="Teacher"), "edition='Teacher'"),
                                       (dict(seed_by=" "), "seed_by=' '"), (dict(seed_by=7), "seed_by=7"),
                                       (dict(seed_by="x"*101), "seed_by")])
def test_bad_input(tmp_path, bad, word):
    with pytest.raises(InputError, match=re.escape(word)): write_lessons(tmp_path/"course", **bad)
    assert not (tmp_path/"course").exists()


def test_a_destination_that_is_a_file(tmp_path):
    (tmp_path/"file").touch()
    with pytest.raises(InputError, match="cannot be made"): write_lessons(tmp_path/"file"/"course")


def test_a_changed_cell_is_noticed(monkeypatch):
    from fastcourse import editions as room
    nb = room._read(NAMES[0])
    first = next(c for c in nb["cells"] if c["cell_type"] == "markdown")
    first["source"] = ["Another sentence."]
    monkeypatch.setattr(room, "_read", lambda name: nb)
    assert untranslated(NAMES[0]) == [f"cell {first['id']} is stale"]
    nb["cells"].remove(first)
    assert untranslated(NAMES[0]) == [f"cell {first['id']} is gone"]
    assert digest("a") != digest("b")


def test_command(tmp_path, capsys):
    r = here(capsys, "lessons", str(tmp_path/"c"), "--lang", "ko", "--edition", "teacher")
    assert r.returncode == 0 and "5 notebooks" in r.stdout and not r.stderr
    is_one_line(here(capsys, "lessons", str(tmp_path/"c")), "is there already")
    is_one_line(here(capsys, "lessons", str(tmp_path/"d"), "--edition", "exam"), "'teacher'")
