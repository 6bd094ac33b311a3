"""`check` on every kind of answer. Of each exercise in the lessons the solution is right, each wrong answer refused."""
import importlib
from importlib.util import find_spec

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import fastcourse.exercises as room
from fastcourse.core import InputError
from fastcourse.exercises import Exercise, add, check, lesson_exercises, score


@pytest.fixture(autouse=True)
def new_session(monkeypatch):
    for name, empty in (("_own", {}), ("_misses", {}), ("_solved", set())): monkeypatch.setattr(room, name, empty)
    yield
    plt.close("all")


# The lessons

LESSONS = [n for n in range(1, 6) if find_spec(f"fastcourse.lesson{n}")]


def cases():
    "Every solution and every wrong answer of the lessons that are there, as (number, code, is it right?)."
    for n in LESSONS:
        for e in importlib.import_module(f"fastcourse.lesson{n}").exercises:
            yield pytest.param(e.number, e.solution, True, id=f"lesson{n}-{e.number}-solution")
            for i, code in enumerate(e.wrong): yield pytest.param(e.number, code, False,
                                                                  id=f"lesson{n}-{e.number}-wrong{i}")
            for letter in (e.choices or ()):
                if e.right not in (letter, {letter}):
                    yield pytest.param(e.number, f"answer = {letter!r}", False, id=f"lesson{n}-{e.number}-{letter}")


@pytest.mark.parametrize("number,code,right", list(cases()))
def test_every_answer(number, code, right, capsys):
    space = {}
    exec("from fastcourse.all import *", space)
    exec(code, space)
    mark = check(number, space["answer"])
    assert mark.tried, mark    # a wrong answer must be an answer
    assert mark.right == right, mark


@pytest.mark.parametrize("n", range(1, 6))
def test_a_lesson_has_what_it_needs(n):
    if n not in LESSONS: pytest.skip(f"fastcourse.lesson{n} is not there yet")
    found = importlib.import_module(f"fastcourse.lesson{n}").exercises
    assert len({e.number for e in found}) == len(found) and {e.lesson for e in found} == {n}
    tasks = [e for e in found if e.choices is None]
    assert len(tasks) >= 6 and sum(e.stars == 3 for e in tasks) >= 2
    for e in found:
        assert e.question and len(e.hints) == 2 and len(set(e.hints)) == 2, e
        assert e.choices or e.wrong, e
        last = e.starter.rstrip().splitlines()[-1]
        assert last.startswith("answer = ") and "..." in last, e
        if e.choices is None and len(e.solution.partition("answer = ")[2].strip()) > 12:
            assert e.solution.partition("answer = ")[2].strip() not in " ".join(e.hints), e    # no hint is the solution


# Every kind of right answer

def ask(right, answer, **kwargs):
    add(Exercise("80.1", right=right, solution="-", hints=("first", "second"), **kwargs))
    return check("80.1", answer)


TABLE = pd.DataFrame({"word": ["a", "b"], "P": [0.25, 0.75]})


@pytest.mark.parametrize("right,answer", [
    (4, 4), (4, 4.0005), (4, np.float32(4)), (4, torch.tensor(4)), (4, torch.tensor([[4.]])), (4, [4]),
    (0.5, np.array(.5)),
    (4, nn.Parameter(torch.tensor(4.))), (4, torch.tensor(4., dtype=torch.bfloat16)), (-1, -1),
    (10**6, torch.tensor(10**6)),
    (True, True), (True, np.bool_(True)), (False, torch.tensor(False)),
    (torch.tensor([1., 2]), [1, 2]), ([1, 2], torch.tensor([1., 2], requires_grad=True)),
    ([1, 2], np.array([1, 2.0001])),
    ([[1, 2], [3, 4]], torch.tensor([[1, 2], [3, 4]])), ([1, 2], pd.Series([1, 2])), ([1, 2], (torch.tensor(1.), 2)),
    ([1., float("nan")], [1, float("nan")]), ([True, False], torch.tensor([True, False])),
    (TABLE, TABLE), (TABLE, TABLE[["P", "word"]]), (TABLE, TABLE.assign(P=[0.2504, 0.7496])),
    (TABLE, TABLE.set_axis([5, 6])),
    ("twenty five", " Twenty Five "), (lambda a: a > 3, 4), (lambda a: a > 3, torch.tensor(4.)),
    (lambda a: "", nn.Linear(1, 1)),
    (lambda a: np.bool_(True), 1), (lambda a: torch.tensor([True]), 1)])
def test_right(right, answer):
    mark = ask(right, answer)
    assert mark and mark.tried and repr(mark) == "Right. Lesson 80: 1 of 1 solved."


@pytest.mark.parametrize("right,answer", [
    (4, 5), (4, 4.002), (4, -4), (4, torch.tensor([5.])), pytest.param(0, 10**400, id="long"), (True, False),
    ([1, 2], [2, 1]), ([1, 2], [1, 2.01]),
    (TABLE, TABLE.assign(P=[0.3, 0.7])), (TABLE, TABLE.assign(word=["b", "a"])), (TABLE, TABLE[::-1]), ("ab", "abc"),
    (lambda a: a > 3, 2), (lambda a: False, nn.Linear(1, 1))])
def test_misses(right, answer):
    marks = [ask(right, answer) for _ in range(3)]
    assert not any(marks) and all(o.tried for o in marks)
    assert [repr(o) for o in marks] == ["Not yet. Hint: first", "Not yet. Hint: second", "Not yet. Hint: second"]


@pytest.mark.parametrize("right,answer,words", [
    (4, ..., "in the place of `...`"), ([1, 2], [1, ...], "in the place of `...`"),
    (lambda a: 1/0, ..., "in the place of"),
    (4, None, "None"), (lambda a: True, None, "None"),
    (4, float("nan"), "NaN"), (4, torch.tensor(float("nan")), "NaN"), ([1, 2], [1, float("nan")], "NaN"),
    (lambda a: a > 1, float("nan"), "NaN"), (4, float("inf"), "infinite"),
    (4, "4", "the text '4'; asked is a number"), (4, True, "True; asked is a number"),
    (4, nn.Linear(1, 1), "a Linear; asked is a number"),
    (4, {"a": 4}, "a dict"), (4, 1j, "the number 1j"), (4, [1, 2], "a list; asked is a number"),
    (4, torch.zeros(0), "a Tensor"),
    (4, torch.empty(1, device="meta"), "a Tensor"), (True, 1, "the number 1; asked is True or False"),
    ([1, 2], 1, "the number 1; asked is a tensor"), ([1, 2], [[1], [2]], "shape (2, 1); asked is the shape (2,)"),
    ([1, 2], [1, 2, 3], "(3,)"), ([1, 2], [[1], [2, 3]], "a list"), ([1, 2], "12", "the text '12'"),
    (TABLE, TABLE.P, "a Series; asked is a table"), (TABLE, [1, 2], "a list"),
    (TABLE, TABLE[["P"]], "columns P; asked are word, P"),
    (TABLE, TABLE[:1], "shape (1, 2)"), (TABLE, TABLE.assign(P=["x", "y"]), "column P"),
    (TABLE, TABLE.assign(P=float("nan")), "NaN"),
    ("ab", 3, "the number 3; asked is a text"), (lambda a: a.shape == (2,), [1, 2], "AttributeError: 'list' object")])
def test_no_answer_counts_as_no_miss(right, answer, words):
    mark = ask(right, answer)
    assert words in repr(mark) and not mark and not mark.tried and "\n" not in repr(mark)
    assert "first" not in repr(mark) and score().misses.tolist() == [0]


def test_a_number_right_is_a_number_and_not_a_shape_only():
    assert not ask([0.0], [1.0]) and ask([0.0], [0.0])


def test_a_sentence_of_the_function_and_a_hint():
    add(Exercise("80.1", right=lambda a: "It is too small." if a < 3 else "", solution="answer = 3",
                 hints=("Add one.",)))
    assert repr(check("80.1", 1)) == "Not yet. It is too small. Hint: Add one."
    add(Exercise("80.2", right=3, solution="answer = 3"))
    assert repr(check("80.2", 1)) == "Not yet."


def test_a_function_that_says_nothing_is_our_fault():
    with pytest.raises(InputError, match="80.1 must give True, False or a sentence"): ask(lambda a: None, 1)
    with pytest.raises(InputError, match="80.1 must give True"): ask(lambda a: torch.tensor([True, False]), 1)


# Choices

ABC = {"a": "one", "b": "two", "c": "three"}


@pytest.mark.parametrize("right,answer", [("b", "b"), ("b", " B "), ("b", {"b"}), ({"b"}, "b"), ({"a", "c"}, "a, c"),
                                          ({"a", "c"}, "ca"),
                                          ({"a", "c"}, ["c", "a"]), ({"a", "c"}, {"a", "c"}),
                                          ({"a", "c"}, "A and C".split(" and "))])
def test_choice_right(right, answer): assert ask(right, answer, choices=ABC)


@pytest.mark.parametrize("right,answer", [("b", "a"), ("b", "ab"), ({"a", "c"}, "a"), ({"a", "c"}, "abc"),
                                          ({"a", "c"}, {"a", "b"})])
def test_choice_wrong(right, answer):
    mark = ask(right, answer, choices=ABC)
    assert mark.tried and repr(mark) == "Not yet. Hint: first"


@pytest.mark.parametrize("answer", ["d", "", 2, [], {"a", 1}, ["a", "d"], "the second", torch.tensor(1)])
def test_choice_that_is_none(answer):
    mark = ask("b", answer, choices=ABC)
    assert not mark.tried and "asked is a letter (a, b, c)" in repr(mark)


def test_names_of_choices_can_be_longer():
    assert ask("b2", "B2", choices={"b1": "", "b2": ""})


# The session

def test_score_and_a_lesson_of_several():
    add(*(Exercise(f"80.{i}", stars=i, right=i, solution="-", hints=("x", "y")) for i in (1, 2, 3)),
        Exercise("81.1", right=1, solution="-"))
    assert score().empty and list(score()) == ["stars", "misses", "solved"]
    check("80.1", ...)
    check("80.2", 5), check("80.2", 6)
    assert repr(check("80.2", 2)) == "Right. Lesson 80: 1 of 3 solved."
    assert repr(check("80.3", 3)) == "Right. Lesson 80: 2 of 3 solved."
    assert not check("80.3", 4)    # what is solved stays solved
    assert score().to_dict("index") == {"80.1": dict(stars="★", misses=0, solved=""),
                                        "80.2": dict(stars="★★", misses=2, solved="✓"),
                                        "80.3": dict(stars="★★★", misses=1, solved="✓")}


@pytest.mark.parametrize("number,message", [("80.9", "this lesson has 80.1, 80.10"), ("79.1", "no lesson 79"),
                                            ("99999999999.1", "no lesson"),
                                            (80.1, "such as '2.4'"), ("80", "such as"), (None, "such as"),
                                            ("80.1\n", "such as"), ("../x.1", "such as")])
def test_unknown(number, message):
    add(Exercise("80.1", right=1, solution="-"), Exercise("80.10", right=1, solution="-"))
    with pytest.raises(InputError, match=message): check(number, 1)
    assert score().empty


@pytest.mark.parametrize("kwargs,message", [
    (dict(number="2"), "number='2'"), (dict(number=2.4), "number=2.4"), (dict(stars=0), "stars=0"),
    (dict(right=None), "must be a number"),
    (dict(right=[]), "must be a number"), (dict(right="x", choices=ABC), "among the choices a, b, c"),
    (dict(right={"a"}), "must be a number"),
    (dict(hints=("a", "b", "c")), "two texts"), (dict(hints="abc"), "two texts"), (dict(tol=-1), "tol=-1"),
    (dict(solution=""), "needs a solution")])
def test_bad_exercises(kwargs, message):
    with pytest.raises(InputError, match=message): Exercise(**dict(dict(number="2.4", right=1, solution="answer = 1"),
                                                                   **kwargs))


def test_nothing_shows_the_solution():
    e = Exercise("80.1", stars=3, question="How many?", right=73, solution="answer = 73", hints=("Count.",),
                 wrong={"answer = 72": "one less"})
    add(e)
    assert "7" not in f"{e!r}{e}" and "73" not in repr([check("80.1", 5), check("80.1", 6), score(),
                                                        lesson_exercises(80)])
