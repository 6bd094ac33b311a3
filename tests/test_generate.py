"""fastcourse.generate: reading, going on, beams, measuring, int8. fastai's own model is the reference, where it can."""
import functools
import inspect
import itertools
import math
import re
import warnings

import numpy as np
import pytest
import torch
from fastai.text.learner import LMLearner, language_model_learner
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config
from torch.testing import assert_close

from fastcourse import generate as G
from fastcourse.core import InputError
from fastcourse.filters import *
from fastcourse.lm import FastLMLearner
from fastcourse.text import *
from fastcourse.generate import *
from fastcourse.words import *
from lms import *



@pytest.mark.parametrize("text", [start, "One TWO two two two two ,,,,, (three)/four", "xxbos one xxmaj two",
                                  "  one\n\ttwo  ", "twenty-one hundred's"])
def test_words_are_numbered_as_by_fastai(text):
    lrnr = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_close(G._encode(lrnr, text), fastai_ids(lrnr, text))


def test_a_text_cut_for_spacy_gives_the_same_words():
    lrnr = make()
    text = (count + ", ")*300
    assert len(text) > 300_000  # several cuts; spaCy itself takes up to a million letters
    assert_close(G._encode(lrnr, text), fastai_ids(lrnr, text))
    assert list(cut_text("a"*7, 3)) == ["aaa", "aaa", "a"]


def test_unknown_words_are_named():
    lrnr = make()
    for f in (functools.partial(generate, n_words=1), FastLMLearner.predict, top_words, perplexity):
        with pytest.warns(UserWarning, match="does not know 'foo', 'bar'"): f(lrnr, "one foo, bar two foo")
    with pytest.raises(InputError, match="only words that the model does not know .'foo', 'bar'.; it knows"):
        generate(lrnr, "foo, bar")


pieces = [(0, 1), (0, 2), (0, 7), (5, 6), (5, 9), (10, 30), (19, 20), (19, 21), (20, 22), (28, 29), (0, 150), (40, 43),
          (60, 100), (98, 140), (120, 121), (150, 170), (168, 170), (160, 172), (0, 173), (1, 20)]
prompts = [" ".join(count.split()[a:b]) for a, b in pieces]


@pytest.mark.parametrize("table", [True, False], ids=["table", "no table"])
def test_greedy_is_fastai_word_for_word(lrnr, wild, table, monkeypatch):
    "At each place of what we said, fastai's model holds the word that we said for the likeliest; xxunk is masked"
    assert len(prompts) == 20
    if not table: monkeypatch.setattr(G, "_table_limit", 0)
    G._nets.clear()
    deep = make(1, config=dict(emb_sz=40, n_hid=56, n_layers=2, tie_weights=False, out_bias=False))
    for l in (lrnr, wild, deep, make(2, config=None)):
        for prompt in prompts:
            ids = generate(l, prompt, 30, greedy=True, specials=all_but_unk).state.ids
            assert ids[:-30].tolist() == fastai_ids(l, prompt).tolist()
            scores = fastai_scores(l, ids[:-1])[-30:]
            scores[:, l.dls.vocab.index("xxunk")] = -math.inf
            assert ids[-30:].tolist() == scores.argmax(-1).tolist()
            said = " ".join(w for w in (l.dls.vocab[i] for i in ids) if w not in ("xxbos", "xxpad"))
            assert l.predict(prompt, 30, temperature=0, no_bar=True, decoder=list) == said
    G._nets.clear()


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
    "But for `self`, which nobody names, and the decoder, which reads fastai's marks."
    ours, theirs = ([*inspect.signature(c.predict).parameters.values()][1:] for c in (FastLMLearner, LMLearner))
    assert [(p.name, p.default) for p in ours if p.name != "decoder"] == \
           [(p.name, p.default) for p in theirs if p.name != "decoder"]


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
    tokens = [w for w in (lrnr.dls.vocab[i] for i in G._encode(lrnr, count))]
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
    theirs = language_model_learner(lrnr.dls, AWD_LSTM, config={**awd_lstm_lm_config, "emb_sz": 128, "n_hid": 128,
                                                                "n_layers": 1}, pretrained=False)
    theirs.model.load_state_dict(lrnr.model.state_dict())
    assert type(theirs) is LMLearner
    assert generate(theirs, start, 9, greedy=True).text == generate(lrnr, start, 9, greedy=True).text


def test_going_on_reads_nothing_twice(wild, monkeypatch):
    whole = generate(wild, start, 30, greedy=True)
    part = generate(wild, start, 12, greedy=True)
    read, step = [], G._Run.step
    monkeypatch.setattr(G._Run, "step", lambda self, ids: read.append(ids.clone()) or step(self, ids))
    monkeypatch.setattr(G._Run, "chunk", lambda *a: pytest.fail("the prefix is read again"))
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


def test_draws_have_the_right_frequencies(wild):
    "4000 draws of one word against the filtered probabilities: the chi-square statistic at its 0.001 level"
    kw = dict(temperature=1.3, top_k=9, top_p=.95)
    scores = fastai_scores(wild, fastai_ids(wild, start))[-1]
    scores[numbers(wild, never)] = -math.inf
    wanted = keep_top_p(keep_top_k(soften(scores[None], 1.3), 9), .95)[0].softmax(-1).numpy()
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
        assert_close(G._draw_as_fastai(probs), wanted)


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


def test_repetition_penalty_counts_prompt_and_new_words(wild):
    ids = fastai_ids(wild, start).tolist()
    for _ in range(20):
        s = fastai_scores(wild, ids)[-1]
        for i in set(ids): s[i] = s[i]/1.8 if s[i] > 0 else s[i]*1.8
        s[numbers(wild, special_words)] = -math.inf
        ids.append(s.argmax().item())
    g = generate(wild, start, 20, greedy=True, repetition_penalty=1.8, specials=())
    assert g.state.ids.tolist() == ids
    assert len(set(g.tokens)) > len(set(generate(wild, start, 20, greedy=True, specials=()).tokens))
    kw = dict(greedy=True, repetition_penalty=1.8, specials=())
    assert generate(wild, "", 10, state=generate(wild, start, 10, **kw).state, **kw).tokens == g.tokens[10:]


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


@pytest.mark.parametrize("prompt, says", [
    ("", "prompt is empty"), ("  \n", "prompt is empty"), ([], "empty list"), ([start, ""], "prompt is empty"),
    ("foo bar", "does not know ('foo', 'bar')"), (None, "must be a text"), (3, "must be a text"),
    ([start, 3], "must be a text"), ("one \ud800", "no valid Unicode"),
])
def test_a_bad_prompt_is_one_clear_line(prompt, says): refused(prompt, {}, says)


def refused(prompt, kw, says):
    with pytest.raises(InputError, match=re.escape(says)) as e: generate(plain_lm(), prompt, **kw)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("kw, says", [
    (dict(n_words=0), "n_words=0"), (dict(n_words=-3), "n_words=-3"), (dict(n_words=2.5), "n_words=2.5"),
    (dict(n_words=True), "n_words=True"), (dict(n=0), "n=0"), (dict(temperature=-1), "temperature=-1"),
    (dict(temperature=math.nan), "temperature=nan"), (dict(temperature=math.inf), "temperature=inf"),
    (dict(temperature="hot"), "temperature='hot'"), (dict(top_k=0), "top_k=0"),
    (dict(top_k=10**6), "top_k=1000000 must be a whole number, 1 to 40"), (dict(top_p=0), "top_p=0"),
    (dict(top_p=1.5), "top_p=1.5"), (dict(min_p=-.1), "min_p=-0.1"), (dict(min_p=math.nan), "min_p=nan"),
    (dict(repetition_penalty=0), "repetition_penalty=0"), (dict(beam=0), "beam=0"), (dict(beam=10**6), "beam=1000000"),
    (dict(beam=2, n=3), "beam=2"), (dict(beam=39), "beam=39"), (dict(beam=2, top_k=3), "draws nothing"),
    (dict(beam=2, temperature=.5), "draws nothing"),
    (dict(seed=-1), "seed=-1"), (dict(seed="x"), "seed='x'"), (dict(precision="int4"), "precision='int4'"),
    (dict(state="x"), "state is not from this model as it is now"), (dict(n_words=2*10**6), "1 to 1000000"),
    (dict(n=20_000), "n=20000"), (dict(n=10_000, n_words=2000), "too many for the memory"),
    (dict(choose=max, top_k=3), "choose replaces the drawing"),
    (dict(choose=max, beam=2), "choose replaces the drawing"), (dict(seed=2**64), "seed=18446744073709551616"),
    (dict(repetition_penalty=math.inf), "repetition_penalty=inf"), (dict(stream=True, n=2), "stream"),
    (dict(stream=True, beam=2), "stream"), (dict(stop=3), "stop"), (dict(stop=[3]), "stop"),
    (dict(specials=["xxnone"]), "'xxnone' is none of"), (dict(specials=3), "specials=3 must be a list"),
    (dict(specials="xxbos"), "specials='xxbos' must be a list"), (dict(specials=[3]), "'3' is none of"),
    (dict(choose=3), "choose=3 is no function"),
])
def test_a_bad_value_is_one_clear_line(kw, says): refused(start, kw, says)


@pytest.mark.parametrize("kw, says", [(dict(state=[None]*2), "list of 1 states"), (dict(state="x"), "list of 1 states"),
                                      (dict(stream=True), "stream")])
def test_a_bad_value_for_a_batch_is_one_clear_line(kw, says): refused([start], kw, says)


@pytest.mark.parametrize("args, kw, says", [
    (("",), {}, "empty"), (("foo",), {}, "does not know"), ((start, 0), {}, "n_words=0"),
    ((None,), {}, "must be a text"),
    ((start, 1), dict(temperature=-1), "temperature=-1"), ((start, 1), dict(min_p="a"), "min_p='a'"),
    ((start, 1), dict(decoder=3), "decoder=3 is no function"),
])
def test_bad_input_of_predict(args, kw, says):
    with pytest.raises(InputError, match=re.escape(says)): plain_lm().predict(*args, **kw)


def test_bad_input_of_top_words_and_perplexity():
    for k in (0, 41, "x"):
        with pytest.raises(InputError, match="k="): top_words(plain_lm(), start, k)
    for f in (top_words, perplexity):
        with pytest.raises(InputError, match="empty"): f(plain_lm(), " ")


def test_what_is_no_language_model_is_refused():
    for f in (generate, top_words, perplexity, save_lm):
        with pytest.raises(InputError, match="no language model"): f("lrnr", start)
    both = make(config=dict(emb_sz=16, n_hid=24, n_layers=2, bidir=True))
    with pytest.raises(InputError, match="both ways"): generate(both, start)


def test_a_state_of_another_model_is_refused(wild):
    twin = make(7)
    for other in (make(config=None), twin):
        with pytest.raises(InputError, match="not from this model"):
            generate(wild, "", 1, state=generate(other, start, 1).state)
    state = generate(twin, start, 1).state
    assert generate(twin, "", 1, state=state).text
    with torch.no_grad(): twin.model[1].decoder.bias[5] += .1
    with pytest.raises(InputError, match="as it is now"): generate(twin, "", 1, state=state)


def test_a_broken_training_is_named(wild):
    wild.model[0].rnns[0].module.bias_ih_l0.data[3] = math.nan
    for f in (generate, perplexity, top_words):
        with pytest.raises(InputError, match="nan"): f(wild, start)


def test_a_long_prompt_is_read_in_pieces(wild, monkeypatch):
    ids = G._encode(wild, (count+" ")*60)
    assert len(ids) > 10_000
    sizes, chunk = [], G._Run.chunk
    def measured(self, rows, live):
        sizes.append(sum(map(len, rows)))
        return chunk(self, rows, live)
    monkeypatch.setattr(G._Run, "chunk", measured)
    g = generate(wild, (count+" ")*60, 3, greedy=True)
    assert max(sizes) <= 4096 and sum(sizes) == len(ids)-1
    assert g.state.ids.tolist()[-3:] == fastai_greedy(wild, (count+" ")*60, 3)[-3:]


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


@pytest.fixture(params=["fbgemm", "_int_mm"])
def engine(request, monkeypatch):
    if request.param == "fbgemm" and "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("this CPU has no fbgemm")
    monkeypatch.setattr(torch.backends.quantized.__class__, "supported_engines", [request.param])


def test_int8_products_are_close(engine):
    torch.manual_seed(0)
    for n in (1, 3, 40):
        w, x, b = torch.randn(50, 70), torch.randn(n, 70), torch.randn(50)
        exact, near = G._product(w, "fp32")(x, b), G._product(w, "int8")(x, b)
        assert_close(exact, x@w.t()+b, rtol=1e-4, atol=1e-4)
        assert (near-exact).norm() < .03*exact.norm()
    assert_close(G._product(w, "int8")(torch.zeros(1, 70), b)[0], b)


def test_int8_sums_do_not_overflow(engine):
    "The largest numbers side by side: a CPU without VNNI adds two products in 16 bits. Sums are exact in 8 and 7 bits"
    for sign in (1., -1.):
        near = G._product(sign*torch.ones(64, 128), "int8")(torch.ones(32, 128), torch.zeros(64))
        assert_close(near, torch.full((32, 64), sign*128), rtol=1e-2, atol=0)


def test_int8_says_nearly_the_same(lrnr):
    a, b = (generate(lrnr, prompts, 40, greedy=True, precision=p) for p in ("fp32", "int8"))
    same = np.mean([x == y for g, h in zip(a, b) for x, y in zip(g.tokens, h.tokens)])
    assert same > .98
    assert generate(lrnr, start, 10, beam=3, precision="int8").text == generate(lrnr, start, 10, beam=3).text


# a user's own choice

def test_an_own_choice_sees_what_may_be_said(wild):
    seen = []
    def choose(scores):
        seen.append(scores.clone())
        return scores.argmin(-1) if len(seen) < 0 else scores.argmax(-1)
    mine, greedy = generate(wild, [start, "ten"], 9, choose=choose), generate(wild, [start, "ten"], 9, greedy=True)
    assert [g.tokens for g in mine] == [g.tokens for g in greedy]
    assert len(seen) == 9 and all(s.shape == (2, len(wild.dls.vocab)) for s in seen)
    silent = [not v for v in seen[0].isfinite()[0].tolist()]
    assert silent == [w in never for w in wild.dls.vocab]


@pytest.mark.parametrize("bad", [lambda s: 3, lambda s: s, lambda s: s.argmax(-1, keepdim=True),
                                 lambda s: s.argmax(-1).float(), lambda s: s.argmax(-1)+10**6,
                                 lambda s: s.argmax(-1)-10**6, lambda s: s.amax(-1) > 0])
def test_a_choice_that_is_no_word_is_named(bad):
    with pytest.raises(InputError, match="choose must give the number of a word for each of the 1 rows"):
        generate(plain_lm(), start, 2, choose=bad)


# whole kinds of the faults that were found

def test_equal_words_are_taken_alike_everywhere(wild):
    "All words alike: greedy, beam, top_k and top_words say the one with the lowest number"
    with torch.no_grad():
        wild.model[1].decoder.weight.zero_()
        wild.model[1].decoder.bias.zero_()
    first = next(w for w in wild.dls.vocab if w not in never)
    for kw in (dict(greedy=True), dict(temperature=0), dict(top_k=1), dict(beam=5), dict(top_p=1e-9)):
        assert generate(wild, start, 3, **kw).tokens == [first]*3, kw
    ways = generate(wild, start, 1, beam=6, n=6)
    assert [g.tokens[0] for g in ways] == [w for w in wild.dls.vocab if w not in never][:6]
    assert top_words(wild, start, 7).word.tolist() == list(wild.dls.vocab[:7])


@pytest.mark.parametrize("seed", [np.int64(5), np.uint8(5), np.int32(5)])
def test_numbers_of_numpy(wild, seed):
    texts = [generate(wild, start, np.int64(6), seed=s, temperature=np.float32(2), top_k=np.int16(9),
                      top_p=np.float64(.9)).text
             for s in (5, seed)]
    assert texts[0] == texts[1]


def test_the_largest_seeds(wild):
    for seed in (2**63-1, 2**63, 2**64-1): assert generate(wild, start, 2, seed=seed).text


def test_results_can_be_changed(wild):
    g = generate(wild, start, 3, seed=0)
    for t in (g.probs, g.state.ids, g.state.h, g.state.c): t[0] = 0
    assert not any(t.is_inference() for t in (g.probs, *g.state[:3]))


@pytest.mark.parametrize("t", [5e-324, 1e-320, 1e-44])
def test_the_lowest_temperatures_are_greedy(wild, t):
    assert generate(wild, start, 9, temperature=t).tokens == generate(wild, start, 9, greedy=True).tokens
    assert wild.predict(start, 9, temperature=t, no_bar=True) == wild.predict(start, 9, temperature=0, no_bar=True)
