"""fastcourse.words: marks that are decoded, and texts that spaCy can read."""
import math

import pytest
from fastai.text import core as fastai_text
from fastcore.basics import first
from hypothesis import given, settings, strategies as st

from fastcourse import generate as G
from fastcourse.core import InputError
from fastcourse.lm import LinearTokenizer
from fastcourse.words import *
from lms import plain_lm


def test_names_are_fastais():
    ours = [UNK, PAD, BOS, EOS, FLD, TK_REP, TK_WREP, TK_UP, TK_MAJ]
    assert ours == fastai_text.defaults.text_spec_tok and special_words == {*ours, "xxfake"}



def test_decoding():
    words = "xxmaj hello xxup no s xxrep 4 o xxwrep 3 xxmaj ho ! xxrep the xxmaj xxup ok xxwrep 2 xxrep 3 x y xxmaj"
    assert decode_words(words.split()) == ["Hello", "NO", "s", "oooo", "Ho Ho Ho", "!", "the", "OK", "xxx xxx", "y"]
    assert decode_words([]) == [] and decode_words(["xxbos", "xxmaj", "xxbos", "a"]) == ["A"]
    assert len("".join(decode_words(["xxrep", "9"*5000, "xxwrep", "9"*5000, "a"]))) < 3e6
    assert decode_words(["xxrep", "²", "a"]) == ["²", "a"]


@given(st.lists(st.sampled_from("Hello WORLD no no no no aaaaa a x2 5 , !".split()), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_decoding_undoes_fastais_rules(words):
    "Marks are the rules' own: what a text says is there again after decoding, but for spaces and joined repetitions"
    tokens = G._tokens(plain_lm(), " ".join(words))
    assert "".join("".join(decode_words(tokens)).split()) == "".join(words)


@pytest.mark.parametrize("tokens", [["xxrep", "9"*9, "a"]*3000, ["xxwrep", "999", "xxrep", "999", "a"]*2000,
                                    ["xxwrep", "9"*9, "xxmaj", "a"*1000]*50, ["xxrep", "999999", "xxup", "ß"]*9])
def test_decoding_has_a_limit_for_the_whole_text(tokens):
    words = decode_words(tokens)
    assert len(words) == sum(not t.startswith("xx") and not t.isdecimal() for t in tokens)
    assert len(" ".join(words)) < 1_100_000


def test_ordinary_repetitions_are_kept():
    assert decode_words(["xxrep", "80", "="]*1000) == ["="*80]*1000


# what spaCy reads

runs = ["!?", "()", "'\"", ".,", "€$", "_!", "'s", "«»", ":)", "#!1", "a!", "@b."]


@pytest.mark.parametrize("run", runs)
def test_no_piece_holds_a_run_that_spaCy_needs_quadratic_time_for(run):
    "It looks at all the rest of a run for each sign: so no run may be long. Its words are otherwise the same"
    text = (run*1000)[:1000]
    pieces = list(cut_text(text))
    assert "".join("".join(pieces).split()) == text
    signs = lambda piece: sum(not c.isalnum() for c in piece)
    assert max(signs(p) for p in " ".join(pieces).split()) <= 41


@given(st.lists(st.sampled_from(["one", "Two's", "etc.", "(so)", "...", ":-)", "https://a-b.org/c?d=1", "3.14", "!?"*15,
                                 "a.m."]),
                max_size=12).map(" ".join))
@settings(max_examples=100, deadline=None)
def test_ordinary_texts_have_the_words_of_fastais_tokenizer(text):
    assert first(_ours([text])) == first(_fastais([text]))


_ours, _fastais = LinearTokenizer(), fastai_text.SpacyTokenizer()


def test_texts_that_spacy_refuses_are_read():
    text = "one, two "*120_000
    assert len(text) > 1_000_000 and len(first(_ours([text]))) == 360_000


# what comes in

@pytest.mark.parametrize("kw, says", [
    (dict(n_words=10**7), "n_words=10000000 must be a whole number, 1 to 1000000"),
    (dict(temperature=True), "temperature=True"), (dict(temperature=-math.inf), "temperature=-inf"),
    (dict(top_p=True), "top_p=True"), (dict(min_p=1.01), "min_p=1.01"), (dict(seed=2**64), "seed="),
    (dict(seed=True), "seed=True"), (dict(top_k=4), "top_k=4"), (dict(top_k=2.), "top_k=2.0"),
])
def test_settings_that_make_no_sense(kw, says):
    with pytest.raises(InputError, match=says): check_drawing(**{"n_words": 1, "vocab": ["xxunk", "a", "b"], **kw})
