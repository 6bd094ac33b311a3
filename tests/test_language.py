"""Sentences and the words in pictures in Korean: every key has its places, and no picture shows boxes."""
import json
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from fastcourse import language as room
from fastcourse.core import InputError
from fastcourse.exercises import check, lesson_exercises

FONT = room.korean_font()
needs_font = pytest.mark.skipif(FONT is None, reason="no Korean font is installed (Debian: fonts-nanum)")


@pytest.fixture(autouse=True)
def as_before():
    with mpl.rc_context():
        yield
        room.language("en")
        plt.close("all")


def tables(): return {o.name: json.loads(o.read_text("utf-8")) for o in room.korean_folder.glob("*.json")}


def test_places_for_values_are_the_same_in_both_languages():
    def places(text):
        "The fields of a format, not those of a formula"
        return sorted(re.findall(r"(?<!\{)\{[a-z_]\w*(?:[:!][^}]*)?\}(?!\})", re.sub(r"\$[^$]*\$", "", text)))
    for name, table in tables().items():
        for english, korean in table.items():
            words = re.sub(r"\{[^}]*\}|`[^`]*`", "", english)
            assert korean.strip() and (english != korean or not re.search("[a-z]{4}", words)), (name, english)
            # code in a hint may hold braces of its own: they must be the same, too
            assert places(english) == places(korean), (name, english, korean)


def test_every_hint_choice_and_mistake_has_its_korean():
    there = room.korean()
    for n in range(1, 6):
        for e in lesson_exercises(n).values():
            for text in (*e.hints, *(e.choices or {}).values(), *e.wrong.values(), e.question):
                assert not text or text in there, (e.number, text)


def test_check_answers_in_korean():
    room.language("ko")
    assert re.match("아직 아닙니다. 힌트: .*[가-힣]", check("3.1", [0, 0, 0, 0]).text)
    assert "모양" in check("3.1", [1, 2]).text
    assert re.match("맞았습니다. 3단원: ", check("3.1", [9, 15, 12, 20]).text)
    room.language("en")
    assert check("3.1", [9, 15, 12, 20]).text.startswith("Right.")


def drawn(**kw):
    "The texts of a picture with two panels after it was drawn."
    fig, axs = plt.subplots(1, 2, layout="constrained")
    for ax in axs:
        ax.plot([1, 2], [-1, 1e-3], label="training")
        ax.set(xlabel="epoch", ylabel="loss $L$", title="epoch 20", yscale="symlog", **kw)
        ax.legend()
    fig.canvas.draw()
    return [o.get_text() for o in fig.findobj(mpl.text.Text) if o.get_text()]


@needs_font
def test_labels_are_korean_and_nothing_is_a_box(caplog, recwarn):
    room.language("ko")
    texts = drawn(xticks=[1, 2], xticklabels=["loss", "소"])
    assert {"에폭", "손실 $L$", "학습", "에폭 20", "손실", "소"} <= set(texts)
    assert not [o for o in recwarn if "lyph" in str(o.message)]
    assert not [o for o in caplog.records if "glyph" in o.getMessage() or "findfont" in o.getMessage()]


def test_labels_stay_english_without_a_font(monkeypatch, capsys):
    monkeypatch.setattr(room, "korean_font", lambda: None)
    room.language("ko")
    assert "fonts-nanum" in capsys.readouterr().out
    assert {"epoch", "loss $L$", "training", "epoch 20"} <= set(drawn())
    assert "아직" in check("3.1", [0, 0, 0, 0]).text


@needs_font
def test_names_of_ticks_that_are_numbers():
    room.language("ko")
    fig, ax = plt.subplots()
    ax.set_xticks([0, 1, 2], [1, "loss", 2.5])
    fig.canvas.draw()
    assert [o.get_text() for o in ax.get_xticklabels()] == ["1", "손실", "2.5"]


@needs_font
def test_half_a_sentence_is_not_translated():
    room.language("ko")
    fig, ax = plt.subplots()
    ax.set_title("loss (mean squared error) of two nets")
    ax.set_xlabel("loss (log)")
    ax.set_ylabel("● data")
    fig.canvas.draw()
    assert ax.get_title().startswith("loss (") and ax.get_ylabel() == "● 데이터"


@needs_font
def test_english_comes_back():
    room.language("ko")
    room.language("en")
    assert "epoch" in drawn() and room.language() == "en"


def test_a_damaged_font_file_is_passed_over(monkeypatch, tmp_path):
    from matplotlib import font_manager as fm
    (tmp_path/"NanumBroken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(fm.fontManager, "ttflist", [o for o in fm.fontManager.ttflist if "Nanum" not in o.name
                                                    and "CJK" not in o.name])
    monkeypatch.setattr(fm, "findSystemFonts", lambda: [str(tmp_path/"NanumBroken.ttf")])
    assert room.korean_font() is None


@pytest.mark.parametrize("name", ["kr", "", 7])
def test_unknown_language(name):
    with pytest.raises(InputError, match="'en' and 'ko'"): room.language(name)
    assert room.language() == "en"
