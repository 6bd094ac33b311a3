"""fastcourse.filters, and the same choice in numpy: a plain reference, every float, equal scores."""
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from torch.testing import assert_close

from fastcourse import speak
from fastcourse.filters import *



def reference_filter(scores, temperature, top_k, top_p, min_p):
    "Which words may be drawn, and how likely they then are; plain Python, one word after the other"
    best = max(scores)
    scores = [(s-best)/temperature for s in scores]
    keep = set(range(len(scores)))
    if top_k is not None:
        keep = set(sorted(keep, key=lambda i: (-scores[i], i))[:top_k])
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


def filtered(scores, temperature, top_k, top_p, min_p):
    scores = soften(torch.tensor([scores]), temperature)
    for f, value in ((keep_top_k, top_k), (keep_top_p, top_p), (keep_min_p, min_p)):
        if value is not None: scores = f(scores, value)
    return scores


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
    probs = speak._probabilities(np.array(scores, np.float32), temperature, top_k, top_p, min_p)
    for ours in (filtered(scores, temperature, top_k, top_p, min_p).softmax(-1)[0].numpy(), probs/probs.sum()):
        assert any(np.allclose(ours, w, rtol=1e-4, atol=1e-7) for w in wanted)


@pytest.mark.parametrize("t", [5e-324, 1e-320, 1e-44, 1e-30, np.float32(1e-40), np.float64(1e-310)])
def test_low_temperatures_do_not_overflow(t):
    scores = [300., 299.9, -300., -math.inf]
    assert soften(torch.tensor([scores]), t).softmax(-1).tolist() == [[1, 0, 0, 0]]
    assert speak._probabilities(np.array(scores, np.float32), t, None, None, None).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("t", [1e30, 1e308, sys.float_info.max])
def test_high_temperatures_make_all_words_alike(t):
    scores = [300., 299.9, -300., -math.inf]
    assert_close(soften(torch.tensor([scores]), t).softmax(-1)[0].tolist(), [1/3, 1/3, 1/3, 0.])
    assert_close(speak._probabilities(np.array(scores, np.float32), t, None, None, None).tolist(), [1., 1., 1., 0.])


@pytest.mark.parametrize("p", [5e-324, 1e-320, 1e-45, np.float32(1e-40)])
def test_tiny_shares_keep_the_right_words(p):
    scores = torch.tensor([[2., 1., -50., -math.inf]])
    assert keep_top_p(scores, p).isfinite().tolist() == [[True, False, False, False]]
    assert keep_min_p(scores, p).isfinite().tolist() == [[True, True, True, False]]
    few = [speak._probabilities(scores[0].numpy(), 1., None, *o) for o in ((p, None), (None, p))]
    assert [(probs > 0).tolist() for probs in few] == [[True, False, False, False], [True, True, True, False]]


# equal scores

@given(st.lists(st.integers(0, 3), min_size=1, max_size=70), st.integers(1, 70))
@settings(max_examples=200, deadline=None)
def test_of_equal_words_the_lower_number_counts_as_likelier(scores, k):
    k = min(k, len(scores))
    wanted = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    row = torch.tensor([scores]).float()
    assert likeliest(row[0], k).tolist() == wanted
    assert keep_top_k(row, k).isfinite()[0].nonzero()[:, 0].tolist() == sorted(wanted)
    assert np.nonzero(speak._probabilities(row[0].numpy(), 1., k, None, None))[0].tolist() == sorted(wanted)
    assert row.argmax(-1).item() == wanted[0]


def test_every_row_has_its_own_ties():
    rows = torch.tensor([[1., 1., 1., 0.], [0., 2., 1., 1.], [3., 3., 3., 3.]])
    assert [r.nonzero()[:, 0].tolist() for r in keep_top_k(rows, 2).isfinite()] == [[0, 1], [1, 2], [0, 1]]


@pytest.mark.parametrize("u", [0., .25, .5, 1-2**-53])
def test_a_word_of_probability_0_is_never_drawn(u, monkeypatch):
    "Not even at the two ends of the random numbers"
    monkeypatch.setattr(torch, "rand", lambda n, m, **kw: torch.full((n, m), u, dtype=torch.double))
    probs = torch.tensor([[0., .1, 0., .3, 0.], [0., 1/3, 1/3, 1/3, 0.], [0., 0., 1e-30, 0., 0.]])
    ids = draw(probs.log())
    assert ids.tolist() == [speak._draw(row.double().numpy(), u) for row in probs]
    assert (probs.gather(1, ids[:, None]) > 0).all()
    assert ids.tolist() == {0.: [1, 1, 2], .25: [3, 1, 2], .5: [3, 2, 2]}.get(u, [3, 3, 2])


def test_repetition_penalty():
    scores, seen = torch.tensor([[2., 2., -1., -1.]]), torch.tensor([[True, False, True, False]])
    assert penalise(scores, seen, 2.).tolist() == [[1., 2., -2., -1.]]


@pytest.mark.parametrize("penalty", [5e-324, 1e-320, 1e-44, 1e44, 1e308])
def test_any_penalty_gives_numbers(penalty):
    "Far below 1 the likeliest seen word always comes, far above 1 the likeliest new one"
    scores, seen = torch.tensor([[5., 6., 7., -1., 0.]]), torch.tensor([[True, True, False, True, False]])
    probs = soften(penalise(scores, seen, penalty), .5).softmax(-1)
    assert probs.tolist() == [[0., 1., 0., 0., 0.]] if penalty < 1 else probs.argmax() == 2
    assert probs.isfinite().all()
