"""Each function that draws: no text below 8 points, none cut off, none upon another; colours for all"""
import colorsys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from legible import assert_legible
from torch import nn

from fastcourse.cam import lay_over
from fastcourse.data import bent_line, codes, greetings, letters, logit_step, next_token_pairs, one_hot, strange_curve
from fastcourse.diagram import draw_network
from fastcourse.inside import equations, layer_outputs
from fastcourse.nets import Bump, SeqNet, mlp
from fastcourse.plots import label_lines, okabe_ito, show_fit, show_layers, show_matrix, show_replicas
from fastcourse.replicas import train_replicas


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def next_letter(dim, word="abc"):
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(len(word), dim), nn.Tanh(), nn.Linear(dim, len(word)))


@pytest.mark.parametrize("dim,n,word,with_equations", [(1, 6, "abc", True), (2, 3, "abc", False), (3, 9, "abcd", True),
                                                       (8, 60, "abcdefgh", False)])
def test_layers(dim, n, word, with_equations):
    df = next_token_pairs(letters(word))
    net = next_letter(dim, word)
    labels = {"out": equations(net[2], "h", [f"out_{o}" for o in word])} if with_equations else None
    assert_legible(show_layers(layer_outputs(net, df.x[:n]), y=df.y[:n], labels=labels)[0].figure)


@pytest.mark.parametrize("sizes", [(1, 2, 1), (1, 4, 1), (1, 8, 3, 1)])
def test_layers_over_a_number(sizes):
    torch.manual_seed(1)
    assert_legible(show_layers(layer_outputs(mlp(*sizes), bent_line().x))[0].figure)


def test_layers_of_a_series():
    net = SeqNet(nn.LSTM(4, 6), nn.Linear(6, 4))
    assert_legible(show_layers(layer_outputs(net, one_hot(greetings())), layers=["h", "out", "P"])[0].figure)


@pytest.mark.parametrize("dim,vmax,title,fmt", [(1, None, "a title", ".1f"), (2, 3., None, "+.2e"), (2, 3., None, None),
                                                (8, None, None, ".1f"), (20, 3., "a title", "+.2e"),
                                                (20, 3., "a title", None)])
def test_matrix(dim, vmax, title, fmt):
    table = layer_outputs(next_letter(dim), codes(next_token_pairs(letters("abc")).x)[:6])
    assert_legible(show_matrix(table, ["h", "out", "P"], fmt=fmt, vmax=vmax, title=title).figure)


@pytest.mark.parametrize("rows", [1, 3, 40, 150])
def test_matrix_of_numbers(rows):
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
    fmt = ".1f" if rows < 50 else None
    assert_legible(show_matrix({"X": x, "Z": x[:, :2], r"\hat{X}": -x}, fmt=fmt).figure)


def contrast(a, b):
    "Of two colours, as WCAG 2.1 defines it."
    def light(c):
        parts = [o/12.92 if o <= 0.04045 else ((o + 0.055)/1.055)**2.4 for o in mpl.colors.to_rgb(c)]
        return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))
    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05)/(low + 0.05)


def test_numbers_can_be_read_on_every_colour():
    x = np.linspace(-1, 1, 41)[None]
    ax = show_matrix({"X": x}, fmt=".2f")
    for text, rgba in zip(ax.texts, ax.images[0].to_rgba(x).reshape(-1, 4), strict=True):
        assert contrast(text.get_color(), rgba[:3]) >= 4.5, text.get_text()


def test_no_zero_has_a_sign():
    texts = [o.get_text() for o in show_matrix({"X": [[-0.04, -0.0, -0.06, 0.04]]}, fmt=".1f").texts]
    assert texts == ["0.0", "0.0", "-0.1", "0.0"]


def test_the_bar_of_probabilities_starts_at_0():
    fig = show_matrix({"P": [[0.2, 0.8]]}).figure
    assert fig.axes[1].get_ylim() == (0, 1)
    fig = show_matrix({"h": [[0.2, -0.8]], "P": [[0.2, 0.8]]}, vmax=2).figure
    assert fig.axes[1].get_ylim() == (-2, 2)
    fig = show_matrix({"h": [[0.2, -0.8]], "P": [[0.2, 0.8]]}).figure
    assert [o.get_text() for o in fig.axes[1].get_yticklabels()] == ["−max", "0", "+max"]


@pytest.mark.parametrize("data", [bent_line, strange_curve, logit_step])
def test_fit(data):
    x, y, truth = data()
    fits = {"a line": x, "nearly the truth": truth + 0.001, "the truth": truth, "zero": 0*x}
    assert_legible(show_fit(x, y, truth, fits, title="four fits").figure)


def test_fits_side_by_side():
    fig, axs = plt.subplots(1, 2, figsize=(10, 3))
    for ax in axs: show_fit(*bent_line(), fit={"a longer name": bent_line().truth}, ax=ax, title="one of two")
    assert_legible(fig)


def test_a_truth_that_is_a_function_is_drawn_between_the_points():
    x = torch.tensor([[-2.], [0.], [3.]])
    ax = show_fit(x, x**2, truth=lambda x: x**2)
    xs, ys = (np.asarray(o) for o in ax.lines[1].get_data())
    assert len(xs) >= 500 and {-2, 0, 3} <= set(xs)
    np.testing.assert_allclose(ys, xs**2, rtol=1e-6, atol=1e-12)


def test_names_of_lines():
    fig, ax = plt.subplots()
    ax.plot([0, 1], [0, float("nan")], label="ends early")
    ax.plot([0, 1], [2, 2], "k:")    # has no name
    ax.plot([1, 0], [3, 5], "o", label="points")
    ax.plot([], [], label="empty")
    label_lines(ax)
    assert [o.get_text() for o in ax.texts] == ["ends early", "● points"]
    assert ax.texts[0].xy == (0, 0) and ax.texts[1].xy == (1, 3)
    assert_legible(fig)


@pytest.mark.parametrize("style", ["layers", "weights", "nodes"])
@pytest.mark.parametrize("model", [
    mlp(1, 2, 1), mlp(2, 3, 1), mlp(1, 3, 3, 1), mlp(4, 6, 6, 2, act=nn.LeakyReLU), mlp(784, 32, 1, last=nn.Sigmoid),
    mlp(1, 500, 1, act=Bump), nn.Linear(2, 1, bias=False), next_letter(2)], ids=lambda m: str(len(str(m))))
def test_diagram(model, style):
    diagram = draw_network(model, style)
    assert_legible(diagram.plot().figure)
    if style != "weights": return
    names = [type(o).__name__ for o in model.modules() if not isinstance(o, (nn.Linear, nn.Embedding, nn.Sequential))]
    texts = [o.text for o in diagram.nodes]
    shown = min(6, max(o.out_features for o in model.modules() if isinstance(o, nn.Linear)))
    for name in set(names) - {"Sigmoid", "Tanh"}: assert texts.count(name) == names.count(name)*shown    # on each edge


@pytest.mark.parametrize("n,dim,rows,labels", [(25, 1, 4, "abcd"), (25, 8, 4, None), (3, 2, 4, "abcd"),
                                               (1, 2, 24, "abcd"*6)])
def test_replicas(n, dim, rows, labels):
    x = torch.arange(rows) % 4
    res = train_replicas(lambda: next_letter(dim, "abcd"), x, (x+1) % 4, nn.CrossEntropyLoss(), n=n, epochs=1,
                         progress=False)
    fig = show_replicas(res, x, threshold=9., labels=labels)
    assert_legible(fig)
    assert fig.axes[-1].get_ylim() == (-1, 1)    # the colour bar


def test_eight_colours_that_differ_for_all():
    "Okabe and Ito's own values; in grey too no neighbours in the list are alike."
    assert sorted(okabe_ito) == sorted(["#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00",
                                        "#CC79A7"])
    hues = [colorsys.rgb_to_hsv(*mpl.colors.to_rgb(o)) for o in okabe_ito]
    assert len({(round(h, 2), round(v, 2)) for h, _, v in hues}) == 8


def test_a_map_keeps_the_photograph():
    im = np.random.default_rng(0).random((4, 5, 3))
    heat = np.zeros((4, 5))
    heat[1, 2] = 1
    mixed = lay_over(im, heat)
    kept = heat == 0
    np.testing.assert_array_equal(mixed[kept], im[kept])
    expected = 0.3*im[1, 2] + 0.7*np.array(plt.get_cmap("plasma")(1.)[:3])
    np.testing.assert_allclose(mixed[1, 2], expected, atol=0.01)
