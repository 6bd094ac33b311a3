"""fastcourse.text: training, generation, sampling, saving. fastai's own model is the reference where there is one."""
import functools
import itertools
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.tracker import SaveModelCallback
from fastai.text.core import BaseTokenizer
from fastai.text.data import TextDataLoaders
from fastai.text.learner import LMLearner, language_model_learner
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config
from fastai.torch_core import TensorBase
from hypothesis import example, given, settings, strategies as st
from torch.testing import assert_close

from fastcourse import text as T
from fastcourse.core import InputError, plain_bars
from fastcourse.data import human_numbers
from fastcourse.text import *

warnings.filterwarnings("ignore", category=FutureWarning)
plain_bars()
count = human_numbers(1).text[0]
start = "one, two,"
never = {"xxunk", "xxpad", "xxeos", "xxfld", "xxfake"}  # what generate does not say unless asked for
all_but_unk = T._specials - {"xxunk"}  # what fastai's predict may say


def make(seed=0, **kw):
    "An untrained learner, whose words are all about equally likely: the hardest case for equality with fastai"
    torch.manual_seed(seed)
    return lm_learner(human_numbers(20), **{"config": dict(emb_sz=16, n_hid=24, n_layers=3), **kw})


def spread(lrnr):
    "The same learner with larger weights, so that its probabilities differ clearly from word to word"
    with torch.no_grad():
        for p in lrnr.model.parameters(): p.mul_(4)
    return lrnr


@pytest.fixture(scope="module")
def lrnr():
    "Counts to one hundred: the settings of the tour on less text"
    torch.manual_seed(0)
    res = lm_learner(human_numbers(600))
    res.fit_one_cycle(3, 2e-2)
    return res


@pytest.fixture
def wild(): return spread(make())


def plain(x): return x.as_subclass(torch.Tensor) if isinstance(x, TensorBase) else x


@torch.no_grad()
def fastai_scores(lrnr, ids):
    "fastai's model on a whole text: the scores of the next word at each place, (length, words)"
    lrnr.model.eval()
    lrnr.model.reset()
    return lrnr.model(torch.as_tensor(ids)[None])[0][0]


def fastai_ids(lrnr, text): return plain(lrnr.dls.test_dl([text]).items[0])


def numbers(lrnr, words): return [i for i, w in enumerate(lrnr.dls.vocab) if w in words]


def fastai_greedy(lrnr, text, n):
    "What fastai's predict would say if it took the likeliest word: the whole text again for each word, xxunk masked"
    ids, unk = fastai_ids(lrnr, text).tolist(), lrnr.dls.vocab.index("xxunk")
    for _ in range(n):
        probs = fastai_scores(lrnr, ids)[-1].softmax(-1)
        probs[unk] = 0
        ids.append(probs.argmax().item())
    return ids


# training

def test_fast_settings_reach_the_ceiling(lrnr):
    assert lrnr.validate()[1] >= 0.999


def test_defaults_are_small_and_fastais_are_one_argument_away():
    small, big = make(config=None), make(config=awd_lstm_lm_config, drop_mult=1., alpha=2., beta=1.)
    assert (small.model[0].emb_sz, small.model[0].n_hid, small.model[0].n_layers) == (128, 128, 1)
    theirs = language_model_learner(big.dls, AWD_LSTM, pretrained=False)
    assert [p.shape for p in big.model.parameters()] == [p.shape for p in theirs.model.parameters()]
    assert T._config_of(big.model) == awd_lstm_lm_config
    assert (big.rnn_regularizer.alpha, big.rnn_regularizer.beta) == (2, 1)


def test_row_4_10_fine_tune_trains_both_phases():
    torch.manual_seed(0)
    lrnr = lm_learner(human_numbers(60), seq_len=5, bs=16)
    before = lrnr.validate()[0]
    lrnr.fine_tune(1, 1e-2)
    assert isinstance(lrnr, LMLearner) and lrnr.validate()[0] < before/2
    assert len(lrnr.opt.param_lists) == 1


@pytest.mark.parametrize("bs,seq_len", [(3, 7), (16, 72), (2, 1000)])
def test_batches_are_fastais(bs, seq_len):
    "The loader joins its texts in one piece; fastai's cuts each sequence out of the list of texts."
    df = human_numbers(20)
    torch.manual_seed(1)
    ours = lm_learner(df, bs=bs, seq_len=seq_len).dls
    torch.manual_seed(1)
    theirs = TextDataLoaders.from_df(df, text_col="text", is_lm=True, valid_pct=0.2, bs=bs, seq_len=seq_len,
                                     text_vocab=list(ours.vocab))
    for a, b in zip((*ours, ours.train), (*theirs, theirs.train)):  # the training part twice: shuffled anew
        torch.manual_seed(2)
        random.seed(2)
        np.random.seed(2)
        mine = list(a)
        torch.manual_seed(2)
        random.seed(2)
        np.random.seed(2)
        for (x, y), (fx, fy) in zip(mine, b, strict=True):
            assert type(x) is type(fx) and type(y) is type(fy)
            assert_close(torch.stack([x, y]).tolist(), torch.stack([fx, fy]).tolist(), rtol=0, atol=0)


def test_takes_ready_dls_and_a_csv_file(tmp_path):
    dls = make().dls
    assert lm_learner(dls).dls is dls
    human_numbers(20).rename(columns={"text": "words"}).to_csv(tmp_path/"n.csv", index=False)
    assert lm_learner(tmp_path/"n.csv", text_col="words").dls.vocab == dls.vocab


def test_empty_rows_are_left_out_aloud():
    df = pd.concat([human_numbers(20), pd.DataFrame({"text": [None, "  ", float("nan")]})])
    with pytest.warns(UserWarning, match="3 empty rows"): lrnr = lm_learner(df)
    assert "nan" not in lrnr.dls.vocab


@pytest.mark.parametrize("source, kw, says", [
    (pd.DataFrame({"words": ["a"]*9}), {}, "no column 'text'; the columns are 'words'"),
    (pd.DataFrame({"text": []}), {}, "has 0 rows"),
    (pd.DataFrame({"text": [None, ""]}), {}, "has 0 rows"),
    (pd.DataFrame({"text": [count]}), {}, "has 1 rows"),
    (human_numbers(3), {}, "valid_pct=0.2 of 3 rows"),
    (human_numbers(9), dict(valid_pct=1), "valid_pct=1"),
    (human_numbers(9), dict(valid_pct=-1), "valid_pct=-1"),
    (pd.DataFrame({"text": ["one two three"]*20}), {}, "train part has 64 words, and bs=16, seq_len=72 need at least"),
    (human_numbers(9), dict(bs=0), "bs=0"),
    (human_numbers(9), dict(seq_len=2.5), "seq_len=2.5"), (human_numbers(20), dict(config=dict(hid=3)), "no 'hid'"),
    ("no/such.csv", {}, "no file 'no/such.csv'"),
    ([count]*9, {}, "list holds no texts"),
])
def test_bad_training_input_is_one_clear_line(source, kw, says):
    with pytest.raises(InputError, match=re.escape(says)) as e: lm_learner(source, **kw)
    assert "\n" not in str(e.value)


def test_a_file_that_is_no_csv(tmp_path):
    (tmp_path/"x.csv").write_bytes(b"\xff\xfe\x00text\x00\x81")
    with pytest.raises(InputError, match="x.csv"): lm_learner(tmp_path/"x.csv")
    (tmp_path/"y.csv").write_text("")
    with pytest.raises(InputError, match="y.csv"): lm_learner(tmp_path/"y.csv")


def test_classification_dls_are_refused():
    df = human_numbers(20).assign(label=[0, 1]*10)
    dls = TextDataLoaders.from_df(df, text_col="text", label_col="label", bs=4)
    with pytest.raises(InputError, match="is_lm=True"): lm_learner(dls)


def test_pretrained_without_a_network_names_the_ways_out(monkeypatch, tmp_path):
    def no_network(*a, **k): raise OSError("no network")
    monkeypatch.setattr("fastai.text.learner.untar_data", no_network)
    with pytest.raises(InputError, match="pretrained_fnames.*pretrained=False"): make(config=None, pretrained=True)


# reading

@pytest.mark.parametrize("text", [start, "One TWO two two two two ,,,,, (three)/four", "xxbos one xxmaj two",
                                  "  one\n\ttwo  ", "twenty-one hundred's"])
def test_words_are_numbered_as_by_fastai(text):
    lrnr = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_close(T._encode(lrnr, text), fastai_ids(lrnr, text))


def test_a_text_cut_for_spacy_gives_the_same_words():
    lrnr = make()
    text = (count + ", ")*300
    assert len(text) > 300_000  # several cuts; spaCy itself takes up to a million letters
    assert_close(T._encode(lrnr, text), fastai_ids(lrnr, text))
    assert list(T._cut("ab cd efg", 5)) == ["ab", "cd", "efg"] and list(T._cut("a"*7, 3)) == ["aaa", "aaa", "a"]


def test_unknown_words_are_named():
    lrnr = make()
    for f in (functools.partial(generate, n_words=1), FastLMLearner.predict, top_words, perplexity):
        with pytest.warns(UserWarning, match="does not know 'foo', 'bar'"): f(lrnr, "one foo, bar two foo")
    with pytest.raises(InputError, match="only words that the model does not know .'foo', 'bar'.; it knows"):
        generate(lrnr, "foo, bar")


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
    tokens = T._tokens(_plain_lm(), " ".join(words))
    assert "".join("".join(decode_words(tokens)).split()) == "".join(words)


@functools.cache
def _plain_lm(): return make()


# predict and generate against fastai

pieces = [(0, 1), (0, 2), (0, 7), (5, 6), (5, 9), (10, 30), (19, 20), (19, 21), (20, 22), (28, 29), (0, 150), (40, 43),
          (60, 100), (98, 140), (120, 121), (150, 170), (168, 170), (160, 172), (0, 173), (1, 20)]
prompts = [" ".join(count.split()[a:b]) for a, b in pieces]


@pytest.mark.parametrize("table", [True, False], ids=["table", "no table"])
def test_greedy_is_fastai_word_for_word(lrnr, wild, table, monkeypatch):
    assert len(prompts) == 20
    if not table: monkeypatch.setattr(T, "_table_limit", 0)
    T._nets.clear()
    deep = make(1, config=dict(emb_sz=40, n_hid=56, n_layers=2, tie_weights=False, out_bias=False))
    for l, n in ((lrnr, 30), (wild, 30), (deep, 30), (make(2, config=None), 30)):
        for prompt in prompts:
            wanted = fastai_greedy(l, prompt, n)
            g = generate(l, prompt, n, greedy=True, specials=all_but_unk)
            assert g.state.ids.tolist() == wanted
            said = " ".join(w for w in (l.dls.vocab[i] for i in wanted) if w not in ("xxbos", "xxpad"))
            assert l.predict(prompt, n, temperature=0, no_bar=True, decoder=list) == said
    T._nets.clear()


@pytest.mark.parametrize("kw", [{}, dict(temperature=.7), dict(temperature=1.5), dict(min_p=.03), dict(no_unk=False),
                                dict(only_last_word=True), dict(min_p=.01, temperature=.8)])
def test_predict_draws_the_same_words_as_fastai(wild, kw):
    "With the same seed; fastai's decoder is given to both, since ours is better"
    said = []
    for f in (wild.predict, functools.partial(LMLearner.predict, wild)):
        torch.manual_seed(7)
        said.append(f(start, n_words=60, no_bar=True, decoder=list, **kw))
    assert said[0] == said[1]
    assert len(said[0].split()) > 50


def test_predict_keeps_fastais_signature():
    import inspect
    ours, theirs = (inspect.signature(c.predict).parameters for c in (FastLMLearner, LMLearner))
    assert [(p.name, p.default) for p in ours.values() if p.name != "decoder"] == \
           [(p.name, p.default) for p in theirs.values() if p.name != "decoder"]


def test_predict_survives_a_low_temperature_and_says_when_min_p_is_too_high(wild):
    greedy = wild.predict(start, 20, temperature=0, no_bar=True)
    assert wild.predict(start, 20, temperature=1e-30, no_bar=True) == greedy
    with pytest.warns(UserWarning, match="no item with probability >= 1.1"): wild.predict(start, 2, min_p=1.1)


def test_probabilities_are_fastais(wild):
    g = generate(wild, start, 40, seed=1)
    ids = g.state.ids
    probs = fastai_scores(wild, ids).softmax(-1)[len(ids)-41:-1].gather(1, ids[-40:, None])[:, 0]
    assert_close(g.probs, probs, rtol=1e-4, atol=1e-7)
    assert_close(g.logprob, probs.log().sum().item(), rtol=1e-4, atol=1e-4)
    assert [wild.dls.vocab[i] for i in ids[-40:]] == g.tokens


def test_counts_right_for_1000_words(lrnr):
    tokens = [w for w in (lrnr.dls.vocab[i] for i in T._encode(lrnr, count))]
    wanted = list(itertools.islice(itertools.cycle(tokens), 1005))
    for precision in ("fp32", "int8"):
        g = generate(lrnr, start, 1000, greedy=True, precision=precision)
        assert tokens[:5] + g.tokens == wanted
    words = lrnr.predict(start, 200, temperature=0, no_bar=True)
    assert words == " ".join(w for w in wanted[1:205] if w != "xxbos")


def test_published_continuations(lrnr):
    assert lrnr.predict(start, n_words=50, temperature=0, no_bar=True).endswith("twenty four , twenty five")
    assert lrnr.predict("twenty, twenty one,", n_words=50, temperature=0, no_bar=True).endswith("thirty eight ,")


def test_training_goes_on_after_generation_and_is_seen():
    l = make(3, config=None)
    before = generate(l, start, 10, greedy=True)
    generate(l, start, 10, greedy=True, precision="int8")
    l.fit(1, 1e-2)
    after = generate(l, start, 10, greedy=True)
    assert after.probs.ne(before.probs).all()
    assert after.state.ids.tolist() == fastai_greedy(l, start, 10)
    q = generate(l, start, 10, greedy=True, precision="int8")
    assert_close(q.probs, after.probs, rtol=.2, atol=.02)
    assert not l.model[0].rnns[0].weight_hh_l0_raw.is_inference()


def test_generation_leaves_the_model_as_it_was(wild):
    wild.model.train()
    wild.model.reset()
    wild.model(torch.tensor([[3, 4]]))
    hidden = [t.clone() for pair in wild.model[0].hidden for t in pair]
    weights = {k: v.clone() for k, v in wild.model.state_dict().items()}
    generate(wild, start, 5), wild.predict(start, 5), perplexity(wild, start), top_words(wild, start)
    assert wild.model.training
    assert_close([t for pair in wild.model[0].hidden for t in pair], hidden, rtol=0, atol=0)
    assert_close(dict(wild.model.state_dict()), weights, rtol=0, atol=0)


changes = {"rows": lambda w: w.copy_(w.flip(0)), "columns": lambda w: w.copy_(w.flip(1)),
           "one": lambda w: w[5, 3].add_(.5)}


@pytest.mark.parametrize("change", changes.values(), ids=changes)
def test_changed_weights_are_seen(wild, change):
    "Also changes that keep every sum, such as two rows that change places"
    for name, p in wild.model.named_parameters():
        if p.dim() < 2: continue
        generate(wild, start, 3)
        with torch.no_grad(): change(p.data)
        assert generate(wild, start, 12, greedy=True, specials=all_but_unk).state.ids.tolist() == \
               fastai_greedy(wild, start, 12), name


def test_works_for_fastais_own_learner(lrnr):
    theirs = language_model_learner(lrnr.dls, AWD_LSTM, config=T._small_config, pretrained=False)
    theirs.model.load_state_dict(lrnr.model.state_dict())
    assert type(theirs) is LMLearner
    assert generate(theirs, start, 9, greedy=True).text == generate(lrnr, start, 9, greedy=True).text


# going on, batches, streams

def test_going_on_reads_nothing_twice(wild, monkeypatch):
    whole = generate(wild, start, 30, greedy=True)
    part = generate(wild, start, 12, greedy=True)
    read, step = [], T._Run.step
    monkeypatch.setattr(T._Run, "step", lambda self, ids: read.append(ids.clone()) or step(self, ids))
    monkeypatch.setattr(T._Run, "chunk", lambda *a: pytest.fail("the prefix is read again"))
    rest = generate(wild, "", 18, greedy=True, state=part.state)
    assert len(read) == 18
    assert part.tokens + rest.tokens == whole.tokens and rest.text == whole.text
    assert_close(torch.cat([part.probs, rest.probs]), whole.probs)
    assert rest.before == part.text


def test_a_prompt_can_follow_a_state(wild):
    g = generate(wild, start, 4, greedy=True)
    more = generate(wild, "twenty one", 6, greedy=True, state=g.state)
    again = generate(wild, g.text + " twenty one", 6, greedy=True)
    assert more.tokens == again.tokens and more.text == again.text
    assert_close(more.probs, again.probs, rtol=1e-4, atol=1e-6)


def test_a_seeded_text_goes_on_from_a_list_of_states(wild):
    first = generate(wild, [start, "ten"], 5, seed=3)
    rest = generate(wild, ["", ""], 5, state=[g.state for g in first], greedy=True)
    for a, b in zip(first, rest):
        assert b.tokens == generate(wild, "", 5, state=a.state, greedy=True).tokens


def test_a_batch_of_prompts_is_each_prompt(wild):
    ragged = [" ".join(count.split()[:k]) for k in (3, 90, 11, 173)]
    for n_words, some in ((15, prompts), (3, ["one", "two"]), (8, ragged)):
        for prompt, g in zip(some, generate(wild, some, n_words, greedy=True)):
            one = generate(wild, prompt, n_words, greedy=True)
            assert g.text == one.text and g.tokens == one.tokens
            assert_close(g.probs, one.probs, rtol=1e-4, atol=1e-6)
            assert_close((g.state.h, g.state.c), (one.state.h, one.state.c), rtol=1e-4, atol=1e-5)


def test_several_ways_from_each_prompt(wild):
    res = generate(wild, [start, "ten"], 6, n=3, seed=0)
    assert len(res) == 6 and [g.before for g in res] == ["one , two ,"]*3 + ["ten"]*3
    assert len({g.text for g in res}) > 2
    texts = lambda seed: [g.text for g in generate(wild, start, 6, n=3, seed=seed)]
    assert texts(5) == texts(5) != texts(1)


def test_a_seed_leaves_the_global_state_alone(wild):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    generate(wild, start, 5, seed=1)
    assert_close(torch.get_rng_state(), before)


def test_stream_says_the_same_as_no_stream(wild):
    for kw in (dict(seed=2), dict(greedy=True), dict(seed=4, stop="twenty")):
        whole = generate(wild, start, 40, **kw)
        words, end = [], []
        def listen(): end.append((yield from generate(wild, start, 40, stream=True, **kw)))
        for w in listen(): words.append(w)
        assert " ".join([whole.before, *words]) == whole.text
        assert end[0].text == whole.text and end[0].tokens == whole.tokens
        assert_close(end[0].probs, whole.probs)


def test_stream_does_not_leak_inference_mode(wild):
    for _ in generate(wild, start, 2, stream=True): assert not torch.is_inference_mode_enabled()


def test_stop(lrnr):
    g = generate(lrnr, start, 50, greedy=True, stop="five")
    assert g.text == "one , two , three , four , five"
    g = generate(lrnr, start, 50, greedy=True, stop=["twenty two", "nine, ten"])
    assert g.text.endswith("eight , nine , ten")
    assert generate(lrnr, "", 2, greedy=True, state=g.state).tokens == [",", "eleven"]
    a, b = generate(lrnr, ["one,", "fifty,"], 30, greedy=True, stop="four")
    assert a.text == "one , two , three , four" and b.text.endswith("fifty four")
    assert len(a.probs) == len(a.tokens) == 5
    assert generate(lrnr, "", 2, greedy=True, state=a.state).tokens == [",", "five"]
    assert generate(lrnr, "ninety nine,", 50, greedy=True, stop="xxbos").text.endswith("one hundred")
    for bad in ("foo", "", ["one", ""], "one foo"):
        with pytest.raises(InputError): generate(lrnr, start, 5, stop=bad)


# sampling

def reference_filter(scores, temperature, top_k, top_p, min_p):
    "Which words may be drawn, and how likely they then are; plain Python, one word after the other"
    best = max(scores)
    scores = [(s-best)/temperature for s in scores]
    keep = set(range(len(scores)))
    if top_k is not None:
        kth = sorted(scores, reverse=True)[top_k-1]
        keep = {i for i in keep if scores[i] >= kth}
    if top_p is not None:
        total = sum(math.exp(scores[i]) for i in keep)
        nucleus, mass = set(), 0.
        for i in sorted(keep, key=lambda i: (-scores[i], i)):
            if nucleus and mass >= top_p: break
            nucleus.add(i)
            mass += math.exp(scores[i])/total
        keep = nucleus
    if min_p is not None:
        most = max(math.exp(scores[i]) for i in keep)
        keep = {i for i in keep if math.exp(scores[i]) >= min_p*most}
    total = sum(math.exp(scores[i]) for i in keep)
    return [math.exp(s)/total if i in keep else 0. for i, s in enumerate(scores)]


@given(st.lists(st.integers(-40, 40), min_size=2, max_size=12).map(lambda v: [o/8 for o in v]),
       st.sampled_from([.25, .5, 1., 2.]), st.none() | st.integers(1, 12),
       st.none() | st.sampled_from([.1, .37, .61, .83, .97, 1.]), st.none() | st.sampled_from([.013, .11, .43, .77]))
@example([-2.125, -2.875, 5.], .5, None, 1., None)  # the first two words have 7e-7 and 1e-7: no filter may lose them
@settings(max_examples=400, deadline=None)
def test_filters_are_the_plain_reference(scores, temperature, top_k, top_p, min_p):
    "The scores are multiples of 1/8, exact in both; a mass within rounding of top_p may fall on either side"
    top_k = top_k and min(top_k, len(scores))
    wanted = [reference_filter(scores, temperature, top_k, p, min_p)
              for p in ([None] if top_p in (None, 1.) else [top_p-1e-5, top_p, top_p+1e-5])]
    ours = T._keep(T._soften(torch.tensor([scores]), temperature), top_k, top_p, min_p).softmax(-1)[0].tolist()
    assert any(np.allclose(ours, w, rtol=1e-4, atol=1e-7) for w in wanted)


def test_low_temperatures_do_not_overflow():
    scores = torch.tensor([[300., 299.9, -300.]])
    for t in (1e-3, 1e-30, 1e-44): assert_close(T._soften(scores, t).softmax(-1), torch.tensor([[1., 0., 0.]]))


def test_draws_have_the_right_frequencies(wild):
    "4000 draws of one word against the filtered probabilities: the chi-square statistic at its 0.001 level"
    kw = dict(temperature=1.3, top_k=9, top_p=.95)
    scores = fastai_scores(wild, fastai_ids(wild, start))[-1]
    scores[numbers(wild, never)] = -math.inf
    wanted = T._keep(T._soften(scores[None], 1.3), 9, .95)[0].softmax(-1).numpy()
    ids = [g.state.ids[-1].item() for g in generate(wild, start, 1, n=4000, seed=0, **kw)]
    found = np.bincount(ids, minlength=len(wanted))
    live = wanted > 0
    assert found[~live].sum() == 0
    chi2 = ((found[live]-4000*wanted[live])**2/(4000*wanted[live])).sum()
    from scipy.stats import chi2 as dist
    assert chi2 < dist.ppf(.999, live.sum()-1)


def test_predict_draws_as_torch_does():
    for seed in range(5):
        probs = torch.rand(3, 50, generator=torch.Generator().manual_seed(seed))
        probs[:, ::3] = 0
        torch.manual_seed(seed)
        wanted = torch.multinomial(probs, 1)[:, 0]
        torch.manual_seed(seed)
        assert_close(T._draw_as_fastai(probs), wanted)


@pytest.mark.parametrize("u", [0., .25, .5, 1-2**-53])
def test_a_word_of_probability_0_is_never_drawn(u, monkeypatch):
    "Not even at the two ends of the random numbers"
    monkeypatch.setattr(torch, "rand", lambda n, m, **kw: torch.full((n, m), u, dtype=torch.double))
    probs = torch.tensor([[0., .1, 0., .3, 0.], [0., 1/3, 1/3, 1/3, 0.], [0., 0., 1e-30, 0., 0.]])
    ids = T._draw(probs)
    assert (probs.gather(1, ids[:, None]) > 0).all()
    assert ids.tolist() == {0.: [1, 1, 2], .25: [3, 1, 2], .5: [3, 2, 2]}.get(u, [3, 3, 2])


def test_special_tokens_only_when_asked_for(wild):
    vocab = wild.dls.vocab
    assert never <= set(vocab)
    said = {t for g in generate(wild, start, 40, n=60, temperature=50., seed=0) for t in g.tokens}
    assert said == set(vocab) - never
    said = {t for g in generate(wild, start, 40, n=60, temperature=50., seed=0, specials=()) for t in g.tokens}
    assert not any(t.startswith("xx") for t in said)
    said = {t for g in generate(wild, start, 40, n=60, temperature=50., seed=0, specials=["xxeos"]) for t in g.tokens}
    assert {t for t in said if t.startswith("xx")} == {"xxeos"}
    assert any(g.tokens[-1] == "xxfld" for g in generate(wild, start, 99, n=20, temperature=50., seed=0, stop="xxfld"))


def test_repetition_penalty():
    scores, seen = torch.tensor([[2., 2., -1., -1.]]), torch.tensor([[True, False, True, False]])
    assert_close(T._penalise(scores, seen, 2.), torch.tensor([[1., 2., -2., -1.]]))


def test_repetition_penalty_counts_prompt_and_new_words(wild):
    ids = fastai_ids(wild, start).tolist()
    for _ in range(20):
        s = fastai_scores(wild, ids)[-1]
        for i in set(ids): s[i] = s[i]/1.8 if s[i] > 0 else s[i]*1.8
        s[numbers(wild, T._specials)] = -math.inf
        ids.append(s.argmax().item())
    g = generate(wild, start, 20, greedy=True, repetition_penalty=1.8, specials=())
    assert g.state.ids.tolist() == ids
    assert len(set(g.tokens)) > len(set(generate(wild, start, 20, greedy=True, specials=()).tokens))
    kw = dict(greedy=True, repetition_penalty=1.8, specials=())
    assert generate(wild, "", 10, state=generate(wild, start, 10, **kw).state, **kw).tokens == g.tokens[10:]


# beams

def test_a_beam_as_wide_as_the_vocabulary_finds_the_best_two_words(wild):
    vocab, ids = wild.dls.vocab, fastai_ids(wild, start).tolist()
    free = [i for i, w in enumerate(vocab) if not w.startswith("xx")]
    first = fastai_scores(wild, ids)[-1].log_softmax(-1)
    pairs = {(a, b): (first[a] + p[b]).item() for a in free
             for p in [fastai_scores(wild, ids+[a])[-1].log_softmax(-1)] for b in free}
    best = sorted(pairs, key=pairs.get, reverse=True)[:5]
    res = generate(wild, start, 2, beam=len(free), n=5, specials=())
    assert [tuple(g.state.ids[-2:].tolist()) for g in res] == best
    assert_close([g.logprob for g in res], [pairs[b] for b in best], rtol=1e-4, atol=1e-4)


def test_a_beam_of_one_is_greedy(wild):
    greedy = generate(wild, start, 15, greedy=True)
    one = generate(wild, start, 15, beam=1)
    assert one.tokens == greedy.tokens and one.text == greedy.text
    assert_close(one.probs, greedy.probs)
    assert_close((one.state.h, one.state.c), (greedy.state.h, greedy.state.c))
    many = generate(wild, start, 15, beam=12, n=12)
    assert [g.logprob for g in many] == sorted((g.logprob for g in many), reverse=True)
    assert len({g.text for g in many}) > 6


def test_beams_with_stops_and_states(wild):
    for g in generate(wild, start, 6, beam=8, n=8, stop=["twenty", ",", "nine"]):
        ids = g.state.ids
        logp = fastai_scores(wild, ids).log_softmax(-1)[-len(g.tokens)-1:-1].gather(1, ids[-len(g.tokens):, None])
        assert_close(g.logprob, logp.sum().item(), rtol=1e-4, atol=1e-4)
        assert not {"twenty", ",", "nine"} & set(g.tokens[:-1])
        again = generate(wild, "", 3, greedy=True, state=g.state)
        assert again.state.ids.tolist() == _greedy_from(wild, ids.tolist(), 3)
    a, b = generate(wild, [start, "ten"], 4, beam=3)
    assert b.text == generate(wild, "ten", 4, beam=3).text and a.before != b.before


def _greedy_from(lrnr, ids, n):
    for _ in range(n):
        s = fastai_scores(lrnr, ids)[-1]
        s[numbers(lrnr, never)] = -math.inf
        ids = ids + [s.argmax().item()]
    return ids


# bad input of generate

@pytest.mark.parametrize("prompt, says", [
    ("", "prompt is empty"), ("  \n", "prompt is empty"), ([], "empty list"), ([start, ""], "prompt is empty"),
    ("foo bar", "does not know ('foo', 'bar')"), (None, "must be a text"), (3, "must be a text"),
    ([start, 3], "must be a text"), ("one \ud800", "no valid Unicode"),
])
def test_a_bad_prompt_is_one_clear_line(prompt, says): refused(prompt, {}, says)


def refused(prompt, kw, says):
    with pytest.raises(InputError, match=re.escape(says)) as e: generate(_plain_lm(), prompt, **kw)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("kw, says", [
    (dict(n_words=0), "n_words=0"), (dict(n_words=-3), "n_words=-3"), (dict(n_words=2.5), "n_words=2.5"),
    (dict(n_words=True), "n_words=True"), (dict(n=0), "n=0"), (dict(temperature=-1), "temperature=-1"),
    (dict(temperature=math.nan), "temperature=nan"), (dict(temperature=math.inf), "temperature=inf"),
    (dict(temperature="hot"), "temperature='hot'"), (dict(top_k=0), "top_k=0"),
    (dict(top_k=10**6), "top_k=1000000 is more than the vocabulary's 40 words"), (dict(top_p=0), "top_p=0"),
    (dict(top_p=1.5), "top_p=1.5"), (dict(min_p=-.1), "min_p=-0.1"), (dict(min_p=math.nan), "min_p=nan"),
    (dict(repetition_penalty=0), "repetition_penalty=0"), (dict(beam=0), "beam=0"), (dict(beam=10**6), "beam=1000000"),
    (dict(beam=2, n=3), "beam=2"), (dict(beam=39), "beam=39"), (dict(beam=2, top_k=3), "draws nothing"),
    (dict(beam=2, temperature=.5), "draws nothing"),
    (dict(seed=-1), "seed=-1"), (dict(seed="x"), "seed='x'"), (dict(precision="int4"), "precision='int4'"),
    (dict(state="x"), "state is not from this model"), (dict(stream=True, n=2), "stream"),
    (dict(stream=True, beam=2), "stream"), (dict(stop=3), "stop"), (dict(stop=[3]), "stop"),
    (dict(specials=["xxnone"]), "'xxnone' is none of"),
])
def test_a_bad_value_is_one_clear_line(kw, says): refused(start, kw, says)


@pytest.mark.parametrize("kw, says", [(dict(state=[None]*2), "list of 1 states"), (dict(state="x"), "list of 1 states"),
                                      (dict(stream=True), "stream")])
def test_a_bad_value_for_a_batch_is_one_clear_line(kw, says): refused([start], kw, says)


@pytest.mark.parametrize("args, kw, says", [
    (("",), {}, "empty"), (("foo",), {}, "does not know"), ((start, 0), {}, "n_words=0"),
    ((None,), {}, "must be a text"),
    ((start, 1), dict(temperature=-1), "temperature=-1"),
])
def test_bad_input_of_predict(args, kw, says):
    with pytest.raises(InputError, match=re.escape(says)): _plain_lm().predict(*args, **kw)


def test_bad_input_of_top_words_and_perplexity():
    for k in (0, 41, "x"):
        with pytest.raises(InputError, match="k="): top_words(_plain_lm(), start, k)
    for f in (top_words, perplexity):
        with pytest.raises(InputError, match="empty"): f(_plain_lm(), " ")


def test_what_is_no_language_model_is_refused():
    for f in (generate, top_words, perplexity, save_lm):
        with pytest.raises(InputError, match="no language model"): f("lrnr", start)
    both = make(config=dict(emb_sz=16, n_hid=24, n_layers=2, bidir=True))
    with pytest.raises(InputError, match="both ways"): generate(both, start)


def test_a_state_of_another_model_is_refused(wild):
    state = generate(make(config=None), start, 1).state
    with pytest.raises(InputError, match="not from this model"): generate(wild, "", 1, state=state)


def test_a_broken_training_is_named(wild):
    wild.model[0].rnns[0].module.bias_ih_l0.data[3] = math.nan
    for f in (generate, perplexity, top_words):
        with pytest.raises(InputError, match="nan"): f(wild, start)


# long texts

def test_a_long_prompt_is_read_in_pieces(wild, monkeypatch):
    ids = T._encode(wild, (count+" ")*60)
    assert len(ids) > 10_000
    sizes, chunk = [], T._Run.chunk
    def measured(self, rows, live):
        sizes.append(sum(map(len, rows)))
        return chunk(self, rows, live)
    monkeypatch.setattr(T._Run, "chunk", measured)
    g = generate(wild, (count+" ")*60, 3, greedy=True)
    assert max(sizes) <= 4096 and sum(sizes) == len(ids)-1
    assert g.state.ids.tolist()[-3:] == fastai_greedy(wild, (count+" ")*60, 3)[-3:]


# measuring

def test_perplexity_is_fastais_loss(lrnr, wild):
    for l, text in ((lrnr, count), (wild, count), (wild, (count+" ")*8), (wild, "one")):
        ids = fastai_ids(l, text)
        loss = torch.nn.functional.cross_entropy(fastai_scores(l, ids)[:-1], ids[1:])
        assert_close(perplexity(l, text), loss.exp().item(), rtol=1e-4, atol=0)
    assert perplexity(lrnr, count) < 1.1 < 20 < perplexity(lrnr, "two one four three hundred")


def test_top_words(wild):
    df = top_words(wild, start, 4)
    probs, ids = fastai_scores(wild, fastai_ids(wild, start))[-1].softmax(-1).topk(4)
    assert list(df.columns) == ["word", "prob"]
    assert df.word.tolist() == [wild.dls.vocab[i] for i in ids]
    np.testing.assert_allclose(df.prob, probs, rtol=1e-4)
    np.testing.assert_allclose(top_words(wild, start, len(wild.dls.vocab)).prob.sum(), 1, rtol=1e-5)


def test_html_names_each_word_and_escapes():
    g = Generation("a <b>", ["xxmaj", "<b>", "xxbos", "&"], torch.tensor([.5, .5, 1., .1]), -2., None, "a <i>")
    html = g._repr_html_()
    new = html.split("</div>")[0]
    assert re.findall('title="([^"]*)"', new) == ["0.2500", "1.0000", "0.1000"]
    assert "&lt;b&gt;" in new and "&amp;" in new and "¶" in new
    assert "<b>" not in html and "<i>" not in html
    assert str(g) == "a <b>" and "state" not in repr(g)


# int8

@pytest.mark.parametrize("engine", ["fbgemm", "_int_mm"])
def test_int8_products_are_close(engine, monkeypatch):
    if engine == "fbgemm" and engine not in torch.backends.quantized.supported_engines:
        pytest.skip("this CPU has no fbgemm")
    monkeypatch.setattr(torch.backends.quantized.__class__, "supported_engines", [engine])
    torch.manual_seed(0)
    for n in (1, 3, 40):
        w, x, b = torch.randn(50, 70), torch.randn(n, 70), torch.randn(50)
        exact, near = T._product(w, "fp32")(x, b), T._product(w, "int8")(x, b)
        assert_close(exact, x@w.t()+b, rtol=1e-4, atol=1e-4)
        assert (near-exact).norm() < .02*exact.norm()
    assert_close(T._product(w, "int8")(torch.zeros(1, 70), b)[0], b)


def test_int8_says_nearly_the_same(lrnr):
    a, b = (generate(lrnr, prompts, 40, greedy=True, precision=p) for p in ("fp32", "int8"))
    same = np.mean([x == y for g, h in zip(a, b) for x, y in zip(g.tokens, h.tokens)])
    assert same > .98
    assert generate(lrnr, start, 10, beam=3, precision="int8").text == generate(lrnr, start, 10, beam=3).text


# saving

untied = dict(emb_sz=16, n_hid=24, n_layers=2, tie_weights=False, out_bias=False)
kinds = dict(one=dict(config=None), deep={}, untied=dict(config=untied, drop_mult=.5))


@pytest.mark.parametrize("kw", kinds.values(), ids=kinds)
def test_save_and_load(tmp_path, kw):
    l = spread(make(5, **kw))
    assert save_lm(l, tmp_path/"a"/"lm") == tmp_path/"a"/"lm"
    back = load_lm(tmp_path/"a"/"lm")
    assert isinstance(back, FastLMLearner) and back.dls.vocab == l.dls.vocab
    a, b = (generate(m, "One, two,", 30, seed=1) for m in (l, back))
    assert a.text == b.text
    assert_close(a.probs, b.probs, rtol=0, atol=0)
    assert_close(dict(back.model.state_dict()), dict(l.model.state_dict()), rtol=0, atol=0)
    assert T._config_of(back.model) == T._config_of(l.model)
    torch.manual_seed(0)
    theirs = LMLearner.predict(l, start, 20, no_bar=True)
    torch.manual_seed(0)
    assert LMLearner.predict(back, start, 20, no_bar=True) == theirs  # fastai's own way works too
    assert sorted(p.suffix for p in (tmp_path/"a"/"lm").iterdir()) == [".json", ".safetensors"]


def test_a_loaded_model_learns_on_with_a_text(tmp_path, wild):
    back = load_lm(save_lm(wild, tmp_path))
    with pytest.raises(InputError, match="text_vocab"): back.fit_one_cycle(1)
    back.dls = TextDataLoaders.from_df(human_numbers(20), is_lm=True, text_col="text", text_vocab=back.dls.vocab, bs=4)
    before = back.validate()[0]
    back.fit_one_cycle(1, 1e-2)
    assert back.validate()[0] < before


def test_saving_again_replaces_the_model_and_nothing_else(tmp_path):
    (tmp_path/"README.md").write_text("mine")
    save_lm(make(1), tmp_path)
    two = make(2)
    save_lm(two, tmp_path)
    assert len(list(tmp_path.glob("weights-*"))) == 1 and len(list(tmp_path.iterdir())) == 3
    assert (tmp_path/"README.md").read_text() == "mine"
    assert_close(dict(load_lm(tmp_path).model.named_parameters()), dict(two.model.named_parameters()))
    save_lm(two, tmp_path)
    assert len(list(tmp_path.glob("weights-*"))) == 1


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_save_that_dies_leaves_the_old_model(tmp_path, monkeypatch, call):
    "Dying at each of the four moments that change the folder: writing and renaming the weights, then lm.json"
    one = make(1)
    save_lm(one, tmp_path)
    calls, fsync, replace = itertools.count(1), os.fsync, os.replace
    def dies(f):
        def g(*a):
            if next(calls) == call: raise KeyboardInterrupt
            return f(*a)
        return g
    monkeypatch.setattr(os, "fsync", dies(fsync))
    monkeypatch.setattr(os, "replace", dies(replace))
    with pytest.raises(KeyboardInterrupt): save_lm(make(2), tmp_path)
    assert_close(dict(load_lm(tmp_path).model.named_parameters()), dict(one.model.named_parameters()))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_what_cannot_be_saved_safely_is_refused(tmp_path, wild):
    wild.dls.train_ds.tokenizer.rules = [str.lower]
    with pytest.raises(InputError, match="rule"): save_lm(wild, tmp_path/"x")
    dls = TextDataLoaders.from_df(human_numbers(20), is_lm=True, text_col="text", tok_tfm=BaseTokenizer(), bs=4)
    words = lm_learner(dls)
    assert generate(load_lm(save_lm(words, tmp_path/"base")), "two, three,", 5, seed=0).text == \
           generate(words, "two, three,", 5, seed=0).text
    (tmp_path/"file").write_text("")
    with pytest.raises(InputError, match="cannot be written"): save_lm(words, tmp_path/"file"/"lm")


def _change(folder, f):
    about = json.loads((folder/"lm.json").read_text())
    f(about)
    (folder/"lm.json").write_text(json.dumps(about))


def _weights(folder): return next(folder.glob("weights-*"))


def _resave(folder, f):
    "Other weights with a right checksum, as a stranger would make them"
    import hashlib
    import safetensors.torch
    tensors = safetensors.torch.load(_weights(folder).read_bytes())
    data = f(tensors)
    data = data if isinstance(data, bytes) else safetensors.torch.save(tensors)
    _weights(folder).write_bytes(data)
    _change(folder, lambda a: a.update(sha256=hashlib.sha256(data).hexdigest()))


def _pickle():
    import pickle
    return pickle.dumps(print)


damage = {
    "no folder": lambda d: [p.unlink() for p in d.iterdir()] and d.rmdir(),
    "no lm.json": lambda d: (d/"lm.json").unlink(),
    "no weights": lambda d: _weights(d).unlink(),
    "truncated weights": lambda d: _weights(d).write_bytes(_weights(d).read_bytes()[:-100]),
    "empty weights": lambda d: _weights(d).write_bytes(b""),
    "one bit": lambda d: _weights(d).write_bytes(_weights(d).read_bytes()[:-1] + b"\x01"),
    "truncated json": lambda d: (d/"lm.json").write_text((d/"lm.json").read_text()[:200]),
    "binary json": lambda d: (d/"lm.json").write_bytes(b"\xff\x00\x80"),
    "deep json": lambda d: (d/"lm.json").write_text("["*100_000),
    "a list": lambda d: (d/"lm.json").write_text("[]"),
    "another format": lambda d: _change(d, lambda a: a.update(format=2)),
    "a way out of the folder": lambda d: _change(d, lambda a: a.update(weights="../../etc/passwd")),
    "a pickle": lambda d: _resave(d, lambda t: _pickle()),
    "huge sizes": lambda d: _change(d, lambda a: a["config"].update(n_hid=10**12)),
    "many layers": lambda d: _change(d, lambda a: a["config"].update(n_layers=10**12)),
    "a negative size": lambda d: _change(d, lambda a: a["config"].update(emb_sz=-1)),
    "a strange dropout": lambda d: _change(d, lambda a: a["config"].update(weight_p="x")),
    "a nan dropout": lambda d: _change(d, lambda a: a["config"].update(weight_p=math.nan)),
    "a missing size": lambda d: _change(d, lambda a: a["config"].pop("emb_sz")),
    "an extra size": lambda d: _change(d, lambda a: a["config"].update(init="os.system")),
    "both ways": lambda d: _change(d, lambda a: a["config"].update(bidir=True)),
    "a strange rule": lambda d: _change(d, lambda a: a["tokenizer"].update(rules=["os.system"])),
    "a strange tokenizer": lambda d: _change(d, lambda a: a["tokenizer"].update(kind="pickle")),
    "a strange language": lambda d: _change(d, lambda a: a["tokenizer"].update(lang="../os")),
    "an unknown language": lambda d: _change(d, lambda a: a["tokenizer"].update(lang="qqq")),
    "a short vocabulary": lambda d: _change(d, lambda a: a["vocab"].pop()),
    "no vocabulary": lambda d: _change(d, lambda a: a.pop("vocab")),
    "numbers as words": lambda d: _change(d, lambda a: a.update(vocab=list(range(len(a["vocab"]))))),
    "no xxunk": lambda d: _change(d, lambda a: a["vocab"].__setitem__(0, "x")),
    "no special tokens": lambda d: _change(d, lambda a: a["tokenizer"].update(special_toks=5)),
    "a missing tensor": lambda d: _resave(d, lambda t: t.pop("0.encoder.weight") is t),
    "an extra tensor": lambda d: _resave(d, lambda t: t.update(x=torch.zeros(1))),
    "a wrong shape": lambda d: _resave(d, lambda t: t.update({"1.decoder.bias": torch.zeros(3)})),
    "a wrong type": lambda d: _resave(d, lambda t: t.update({"1.decoder.bias": t["1.decoder.bias"].long()})),
}


@pytest.mark.parametrize("how", damage)
def test_a_damaged_or_hostile_folder_gives_one_clear_error(tmp_path, how):
    folder = save_lm(_plain_lm(), tmp_path/"lm")
    damage[how](folder)
    with pytest.raises(InputError, match=re.escape(str(tmp_path))) as e: load_lm(folder)
    assert "\n" not in str(e.value) and len(str(e.value)) < 400


# Korean

korean = ["오늘은 날씨가 맑아요. 우리는 공원에 가요.", "내일은 비가 와요. 우리는 집에서 책을 읽어요.", "주말에는 눈이 와요. 아이들은 밖에서 놀아요."]


def test_korean(tmp_path):
    torch.manual_seed(0)
    lrnr = lm_learner(pd.DataFrame({"text": korean*40}), seq_len=9, bs=4)
    assert {"날씨가", "공원에", "읽어요", "."} <= set(lrnr.dls.vocab)
    lrnr.fit_one_cycle(3, 2e-2)
    g = generate(lrnr, "오늘은", 7, greedy=True)
    assert g.text == "오늘은 날씨가 맑아요 . 우리는 공원에 가요 ."
    assert perplexity(lrnr, korean[1]) < 3
    assert top_words(lrnr, "내일은", 1).word[0] == "비가"
    assert "날씨가" in g._repr_html_()
    with pytest.warns(UserWarning, match="'바나나'"): generate(lrnr, "오늘은 바나나", 1)
    with pytest.raises(InputError, match="바나나"): generate(lrnr, "바나나")
    back = load_lm(save_lm(lrnr, tmp_path/"한국어"))
    assert generate(back, "오늘은", 7, greedy=True).text == g.text
    assert "날씨가" in (tmp_path/"한국어"/"lm.json").read_text(encoding="utf-8")


# a training that was killed

training = textwrap.dedent("""
    import os, signal, sys, warnings
    warnings.simplefilter("ignore")
    import torch
    from fastai.callback.core import Callback
    from fastai.callback.tracker import SaveModelCallback
    from fastcourse.core import plain_bars
    from fastcourse.data import human_numbers
    from fastcourse.text import lm_learner
    plain_bars()
    class Killed(Callback):
        def before_batch(self):
            if self.training and self.epoch == 2 and self.iter == 3: os.kill(os.getpid(), signal.SIGKILL)
    torch.manual_seed(0)
    lrnr = lm_learner(human_numbers(60), path=sys.argv[1])
    lrnr.fit_one_cycle(4, 2e-2, cbs=[SaveModelCallback(every_epoch=True, with_opt=True, fname="lm"), Killed()])
""")


def test_a_killed_training_goes_on_from_its_last_epoch(tmp_path):
    "The rows of the text are all equal, so that the resumed training can end where an unbroken one does"
    res = subprocess.run([sys.executable, "-c", training, str(tmp_path)], capture_output=True, text=True)
    assert res.returncode == -signal.SIGKILL, res.stderr
    assert sorted(p.name for p in (tmp_path/"models").iterdir()) == ["lm_0.pth", "lm_1.pth"]
    torch.manual_seed(0)
    lrnr = lm_learner(human_numbers(60), path=tmp_path)
    lrnr.load("lm_1", with_opt=True)
    lrnr.fit_one_cycle(4, 2e-2, start_epoch=2, cbs=SaveModelCallback(every_epoch=True, with_opt=True, fname="lm"))
    assert (tmp_path/"models"/"lm_3.pth").exists()
    torch.manual_seed(0)
    unbroken = lm_learner(human_numbers(60))
    unbroken.fit_one_cycle(4, 2e-2)
    assert_close(dict(lrnr.model.named_parameters()), dict(unbroken.model.named_parameters()), rtol=1e-3, atol=1e-3)
