"""fastcourse.speak: numpy says what torch says; plain prompts are cut as by spaCy; nothing heavy is loaded."""
import json
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings, strategies as st

from fastcourse import generate as G, speak as S
from fastcourse.core import InputError
from fastcourse.lm import tokenizer_settings
from fastcourse.speak import *
from fastcourse.text import *
from lms import *

# words that spaCy cuts in two ('cannot', 'id'), or not from their sign ('i.', 'a.'), and ordinary ones
english = ("i cannot say what they gonna do , etc. and so on ! mr. smith of st. louis had it at a.m. ? we will see you "
           "in jan. or well no dont she id-card lets yes us wed im-a").split()


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    "A learner of odd English, and its folder"
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"text": [" ".join(rng.permutation(english)) for _ in range(40)]})
    lrnr = spread(lm_learner(df, bs=4, seq_len=9, config=dict(emb_sz=16, n_hid=24, n_layers=3)))
    return lrnr, save_lm(lrnr, tmp_path_factory.mktemp("talker"))


pieces = st.sampled_from([*english, "Say", "I", "A", "Cannot", "ETC", "xxbos", "xxmaj", "zebra", "two-fold", "3", "",
                          "\n", "no", "No", "ooo"])


@given(st.lists(st.tuples(pieces, st.sampled_from(["", ",", ".", "!", "?", "..", "?!"])).map("".join), min_size=1,
                max_size=9).map(" ".join))
@example("no no no").via("word repetition")
@example("I say, I dont know.").via("capitals")
@settings(max_examples=300, deadline=None)
def test_a_plain_prompt_is_cut_as_by_fastai_and_spacy(talker, text):
    lrnr, folder = talker
    tokens = plain_tokens(text, _about(folder))
    if tokens is not None: assert tokens == G._tokens(lrnr, text)


def _about(folder): return read_lm(folder, numpy=True)[0]


def test_ordinary_prompts_are_plain(talker):
    about = _about(talker[1])
    for text in ("yes", "Say what you will see, and so on!", "I say no. No?", " yes "):
        assert plain_tokens(text, about), text
    for text in ("cannot", "i.", "id", "zebra", "yes  no", "yes;", "YES", "yes\nno", "no no no", "yesss", "I,"):
        assert plain_tokens(text, about) is None, text
    assert {"id", "i.", "a."} <= set(about["tokenizer"]["uneven"])


def test_the_uneven_pieces_are_spacys(talker):
    import spacy
    lrnr, folder = talker
    cut = spacy.blank("en").tokenizer
    words = {w for w in lrnr.dls.vocab if w.isascii() and w.isalpha() and w.islower()}
    wanted = {w+e for w in words for e in ends if [t.text for t in cut(w+e)] != [w, *e]}
    assert set(_about(folder)["tokenizer"]["uneven"]) == wanted


def test_a_tokenizer_that_sees_more_than_a_piece_has_no_plain_prompts(talker):
    lrnr, folder = talker
    tok, vocab = lrnr.dls.train_ds.tokenizer, list(lrnr.dls.vocab)
    special = tok.tok.special_toks
    tok.tok.special_toks = [*special, "so on"]
    try: assert tokenizer_settings(tok, vocab)["uneven"] is None
    finally: tok.tok.special_toks = special
    about = _about(folder)
    about["tokenizer"]["rules"] = about["tokenizer"]["rules"][:-1]
    assert plain_tokens("yes", about) is None


settings_of = [dict(temperature=0), *(dict(seed=s, **kw) for s, kw in enumerate([
    {}, dict(temperature=.5), dict(temperature=2), dict(top_k=3), dict(top_p=.6), dict(min_p=.2),
    dict(top_k=9, top_p=.9, min_p=.05, temperature=1.3)])), dict(seed=2**64-1), dict(seed=np.int64(7))]


@pytest.mark.parametrize("kw", settings_of, ids=str)
def test_numpy_says_what_torch_says(talker, kw, monkeypatch):
    lrnr, folder = talker
    for prompt in ("yes", "I say, what will they do?"):
        wanted = G.generate(lrnr, prompt, 30, **kw)
        with monkeypatch.context() as m:
            m.setattr(S, "check_text", lambda *a: None)
            m.setitem(sys.modules, "fastcourse.text", None)  # generate cannot be reached
            assert speak(folder, prompt, 30, **kw) == wanted.text
            assert " ".join([wanted.before, *speak(folder, prompt, 30, stream=True, **kw)]) == wanted.text


@pytest.mark.parametrize("kw", [dict(emb_sz=16, n_hid=24, n_layers=2, tie_weights=False, out_bias=False),
                                dict(emb_sz=8, n_hid=12, n_layers=1), dict(emb_sz=8, n_hid=12, n_layers=4)])
def test_the_scores_are_fastais(tmp_path, kw):
    lrnr = spread(make(3, config=kw))
    about, tensors = read_lm(save_lm(lrnr, tmp_path), numpy=True)
    voice, ids = S._Voice(about["config"], tensors), fastai_ids(lrnr, count)[:40]
    wanted = fastai_scores(lrnr, ids)
    for i, row in zip(ids.tolist(), wanted): np.testing.assert_allclose(voice.step(i), row, rtol=1e-3, atol=1e-4)


def test_the_random_numbers_are_torchs():
    for seed in (0, 1, 2**31, 2**32-1, 2**32+5, 2**64-1):
        torch_says = [torch.rand(1, dtype=torch.double, generator=g).item()
                      for g in [torch.Generator().manual_seed(seed)] for _ in range(5)]
        ours = S._Uniform(seed)
        assert [ours() for _ in range(5)] == torch_says


def test_other_prompts_are_left_to_generate(talker):
    lrnr, folder = talker
    for prompt in ("I cannot say", "mr. smith"):
        assert speak(folder, prompt, 9, seed=1) == G.generate(lrnr, prompt, 9, seed=1).text
    assert [*speak(folder, "I cannot", 5, temperature=0, stream=True)] == [*G.generate(lrnr, "I cannot", 5,
                                                                                       temperature=0, stream=True)]
    with pytest.warns(UserWarning, match="'zebra'"): speak(folder, "yes zebra", 1)


@pytest.mark.parametrize("prompt, kw, says", [
    ("", {}, "prompt is empty"), (None, {}, "must be a text"), ("zebra", {}, "only words that the model does not know"),
    ("yes", dict(n_words=0), "n_words=0"), ("yes", dict(temperature=float("nan")), "temperature=nan"),
    ("yes", dict(top_k=10**6), "top_k"), ("yes", dict(seed=-1), "seed=-1"), ("yes", dict(min_p=0), "min_p=0"),
])
def test_bad_input_is_one_clear_line(talker, prompt, kw, says):
    with pytest.raises(InputError, match=says) as e: speak(talker[1], prompt, **kw)
    assert "\n" not in str(e.value)


def test_folders_of_before_are_read(talker, tmp_path):
    "Those without 'uneven': their prompts are left to spaCy"
    lrnr, folder = talker
    for f in folder.iterdir(): (tmp_path/f.name).write_bytes(f.read_bytes())
    about = json.loads((tmp_path/"lm.json").read_text())
    del about["tokenizer"]["uneven"]
    (tmp_path/"lm.json").write_text(json.dumps(about))
    assert speak(tmp_path, "yes", 9, seed=1) == speak(folder, "yes", 9, seed=1)


def test_nothing_heavy_is_loaded(talker):
    "In a process of its own: the command, and the imports of each room"
    code = textwrap.dedent("""
        import sys
        from fastcourse.cli import main
        main(["lm", "generate", sys.argv[1], "Yes, say", "-n", "5"])
        heavy = {"torch", "fastai", "spacy", "pandas", "scipy", "sklearn", "matplotlib", "PIL"} & set(sys.modules)
        assert not heavy, heavy
        import fastcourse.text
        heavy = {"fastai", "spacy", "pandas", "scipy", "sklearn", "matplotlib"} & set(sys.modules)
        assert not heavy, heavy
    """)
    res = subprocess.run([sys.executable, "-c", code, str(talker[1])], capture_output=True, text=True)
    assert res.returncode == 0, res.stderr
    assert res.stdout.startswith("Yes , say ")
