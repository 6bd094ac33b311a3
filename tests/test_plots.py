"""Every kind of picture: what is on it, that it can be read (nothing cut, no labels on each other), and bad input."""
import html
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.progress import ProgressCallback  # noqa: F401  adds Learner.no_bar
from fastai.callback.schedule import lr_find  # noqa: F401  adds Learner.lr_find
from fastai.test_utils import synth_learner
from fastai.torch_core import set_seed
from legible import assert_legible
from torch import nn

from fastcourse.core import InputError
from fastcourse.data import bent_line, codes, greetings, letters, logit_step, next_token_pairs, number_words, one_hot
from fastcourse.diagram import draw_network
from fastcourse.inside import equations, layer_outputs
from fastcourse.nets import Bump, SeqNet, cut, mlp, set_weights
from fastcourse.plots import show_fit, show_layers, show_matrix
from fastcourse.watch import Watch, watch


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def net(dim=2, word="abc"):
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(len(word), dim), nn.Tanh(), nn.Linear(dim, len(word)))


def table(dim=2, n=6):
    df = next_token_pairs(letters("abc"))
    return layer_outputs(net(dim), df.x[:n]), df.y[:n]


# Layers as lines

@pytest.mark.parametrize("dim,n", [(1, 3), (2, 9), (3, 60)])
def test_show_layers_of_tokens(dim, n):
    t, y = table(dim, n)
    axs = show_layers(t, y=y)
    assert [ax.get_ylabel() for ax in axs] == ["one-hot", "embedding", "h", "out", "P"]
    ticks = [o.get_text() for o in axs[-1].get_xticklabels()]
    assert ticks[0] == "a→b" and set(ticks) <= {"a→b", "b→c", "c→a"}
    for i in range(dim): np.testing.assert_allclose(axs[2].lines[i].get_ydata(), t["h", i+1])
    assert_legible(axs[0].figure)


def test_show_layers_equations_and_chosen_layers():
    t, y = table()
    eq = equations(net()[2], "h", ["out_a", "out_b", "out_c"])
    axs = show_layers(t, y, layers=["h", "out"], labels={"out": eq, "h": ["left", "right"]})
    assert [o.get_text() for o in axs[1].texts] == [f"${o}$" for o in eq.latex]
    assert [o.get_text() for o in axs[0].texts] == ["left", "right"]
    assert_legible(axs[0].figure)


def test_show_layers_over_a_number():
    x = torch.tensor([[1.], [-1.], [0.]])
    axs = show_layers(layer_outputs(mlp(1, 500, 1), x))
    assert len(axs) == 3 and len(axs[0].lines) == 501 and not axs[0].texts    # 500 names would be noise
    assert list(axs[0].lines[0].get_xdata()) == [-1, 0, 1]
    assert_legible(axs[0].figure)


def test_show_layers_of_series_side_by_side():
    m = SeqNet(nn.RNN(4, 2), nn.Linear(2, 4))
    axs = show_layers(layer_outputs(m, cut(one_hot(greetings()), 2)), layers=["h", "P"])
    assert axs[0].lines[0].get_xdata().shape == (18,)
    assert_legible(axs[0].figure)


@pytest.mark.parametrize("f,message", [
    (lambda t, y: show_layers(t, y[:2]), "2 entries"), (lambda t, y: show_layers(t, layers=["u"]), "'u'"),
    (lambda t, y: show_layers(t[:0]), "nothing"),
    (lambda t, y: show_layers(t, labels={"out": "ab"}), "2 entries"),
    (lambda t, y: show_layers(t, labels={"u": "ab"}), "'u'"),
    (lambda t, y: show_layers(t, layers=[]), "nothing"), (lambda t, y: show_layers(t["h"]), "DataFrame"),
    (lambda t, y: show_layers(None), "NoneType")])
def test_show_layers_bad_input(f, message):
    with pytest.raises(InputError, match=message): f(*table())
    assert not plt.get_fignums()   # no empty figure is left


# Matrices

@pytest.mark.parametrize("dim", [1, 2, 3, 8, 20])
def test_show_matrix_blocks(dim):
    t, _ = table(dim)
    ax = show_matrix(t, ["h", "out", "P"])
    assert [line.get_xdata()[0] for line in ax.lines] == [dim - 0.5, dim + 2.5]
    assert len(ax.images) == 3
    for image, name in zip(ax.images, ["h", "out", "P"]):    # each with its own scale; probabilities end at 1
        low, high = image.get_clim()
        assert low == -high and high == (1 if name == "P" else pytest.approx(t[name].abs().to_numpy().max()))
        np.testing.assert_allclose(image.get_array(), t[name])
    assert [o.get_text() for o in ax.get_xticklabels()][-1] == r"$P_{\mathrm{c}}$"
    assert [o.get_text() for o in ax.get_yticklabels()] == list("abcabc")
    assert_legible(ax.figure)


def test_show_matrix_words_and_odd_tokens():
    df = next_token_pairs(number_words())
    m = SeqNet(nn.LSTM(6, 20), nn.Linear(20, 6))
    assert_legible(show_matrix(layer_outputs(m, df.x).tail(10)[["out", "P"]], ["P"]).figure)
    assert_legible(show_matrix(layer_outputs(m, df.x).tail(10)).figure)
    odd = list("$_^{}\\%#&~ !?,") + ["two words", "한"]
    m = nn.Sequential(nn.Embedding(len(odd), 2), nn.Linear(2, len(odd)))
    t = layer_outputs(m, torch.arange(len(odd)), names=odd)
    ax = show_matrix(t, ["embedding", "P"])
    ax.figure.canvas.draw()        # every label is LaTeX that matplotlib can set
    assert len(ax.get_xticklabels()) == 2 + len(odd)


def test_show_matrix_dict_scale_numbers_and_grid():
    fig, axs = plt.subplots(1, 2)
    x = np.array([[1., -4], [0, np.nan]])
    ax = show_matrix({"X": x, r"\hat{X}": torch.zeros(2, 1), "y": [1, 2]}, ax=axs[0], fmt=".1f", title="T")
    assert ax is axs[0] and [o.get_clim() for o in ax.images] == [(-4, 4), (-1, 1), (-2, 2)]
    assert ax.get_title() == "T" and len(ax.lines) == 2
    texts = [o.get_text() for o in ax.texts]
    assert texts == ["±4", "1.0", "-4.0", "0.0", "nan", "±1", "0.0", "0.0", "±2", "1.0", "2.0"]
    assert [o.get_text() for o in ax.get_xticklabels()] == ["$X_{1}$", "$X_{2}$", r"$\hat{X}$", "$y$"]
    bare = show_matrix({"X": x}, ax=axs[1], vmax=1, labels=False)
    assert bare.images[0].get_clim() == (-1, 1) and not bare.get_xticklabels()
    assert len(fig.axes) == 3   # two and one scale


@pytest.mark.parametrize("f,message", [
    (lambda: show_matrix({"X": [[1]], "Z": [[1], [2]]}), "'Z': 2"), (lambda: show_matrix({}), "nothing"),
    (lambda: show_matrix({"X": "ab"}), "numbers"),
    (lambda: show_matrix({"X": [[1]]}, vmax=-1), "vmax=-1"), (lambda: show_matrix({"X": [[1]]}, ["Y"]), "'Y'"),
    (lambda: show_matrix([[1]]), "list"),
    (lambda: show_matrix({"X": np.zeros((0, 2))}), "empty")])
def test_show_matrix_bad_input(f, message):
    with pytest.raises(InputError, match=message): f()
    assert not plt.get_fignums()


# Fits

def test_show_fit():
    x, y, truth = bent_line()
    model = mlp(1, 2, 1).train()
    ax = show_fit(x, y, truth, {"model": model, "zero": 0*y})
    assert [o.get_text() for o in ax.texts] == ["● data", "truth", "model", "zero"]
    np.testing.assert_allclose(ax.lines[2].get_ydata(), model(x)[:, 0].detach())
    assert model.training
    assert_legible(ax.figure)


def test_show_fit_sorts_and_takes_arrays():
    x, y, truth = (o[:, 0].numpy() for o in logit_step())
    some = np.random.default_rng(0).permutation(len(x))
    fig, ax = plt.subplots()
    assert show_fit(x[some], y[some], truth[some], truth[some], ax=ax, title="T") is ax and ax.get_title() == "T"
    for line in ax.lines[1:]: np.testing.assert_allclose(line.get_ydata(), truth)


@pytest.mark.parametrize("x", [
    torch.tensor([3., 1., 2.]), np.array([3, 1, 2]), pd.Series([3., 1., 2.]), pd.Series([3, 1, 2], dtype="Int64"),
    pd.DataFrame({"a": [3., 1., 2.]}), pd.DataFrame({"a": [3, 1, 2]}), pd.DataFrame({"a": [3, 1, 2]}, dtype="Int64"),
    torch.tensor([[3], [1], [2]])])
def test_show_fit_takes_what_tensor_learner_takes(x):
    model = set_weights(mlp(1, 1), 2., 1.)
    ax = show_fit(x, fit=model)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [3, 5, 7])


@pytest.mark.parametrize("f,message", [
    (lambda x: show_fit(x), "nothing"), (lambda x: show_fit(x, x[:3]), r"\(3, 1\)"),
    (lambda x: show_fit([], []), "empty"),
    (lambda x: show_fit(x, fit=mlp(1, 2)), "one value"), (lambda x: show_fit(x, ["a"]*100), "y must be numbers")])
def test_show_fit_bad_input(f, message):
    with pytest.raises(InputError, match=message): f(bent_line().x)
    assert not plt.get_fignums()


# Diagrams

def box(o):
    w, h = (0.0075*o.size*len(o.text), 0.012*o.size) if o.shape == "text" else (o.width,
                                                                                0.55 if o.shape == "box" else o.width)
    return o.x - w/2, o.x + w/2, o.y - h/2, o.y + h/2


MODELS = [nn.Linear(2, 1, bias=False), nn.Linear(1, 1), mlp(1, 2, 1, bias=False), mlp(3, 1),
          mlp(4, 5, 6, 1, last=nn.Sigmoid), net(2),
          mlp(784, 32, 1), mlp(1, 500, 1, act=Bump),
          nn.Sequential(nn.Flatten(), nn.Linear(9, 2), nn.Dropout(), nn.ReLU())]


@pytest.mark.parametrize("style", ["layers", "weights", "nodes"])
@pytest.mark.parametrize("model", MODELS)
def test_nothing_lies_on_anything(model, style):
    nodes = draw_network(model, style).nodes
    for i, a in enumerate(map(box, nodes)):
        for j, b in enumerate(map(box, nodes[:i])):
            assert a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2], (nodes[i], nodes[j])


@pytest.mark.parametrize("sizes,bias", [((1, 2, 1), False), ((2, 3, 2), True), ((3, 1), True)])
def test_every_weight_is_drawn(sizes, bias):
    torch.manual_seed(1)
    model = mlp(*sizes, bias=bias)
    texts = [o.text for o in draw_network(model, "weights").nodes if o.shape == "text"]
    weights = [f"{v:.2f}".replace("-0.00", "0.00") for p in model.parameters() for v in p.flatten().tolist()]
    for w in set(weights): assert texts.count(w) == weights.count(w)
    acts = sum(sizes[1:-1])
    assert len(draw_network(model, "weights").lines) == len(weights) + acts
    assert len(draw_network(model, "nodes").lines) == sum(a*b for a, b in zip(sizes, sizes[1:]))


def test_three_diagrams_of_one_model():
    d = draw_network(nn.Linear(2, 1, bias=False), "weights", names=["(1, x)", "ŷ"], inputs=["1", "x"],
                     weights=["w₀", "w₁"])
    assert {o.text for o in d.nodes} == {"1", "x", "w₀", "w₁", "ŷ", "(1, x)"}
    assert [o.text for o in draw_network(nn.Linear(2, 1, bias=False)).nodes] == ["x\n2 nodes", "@W", "out\n1 node"]
    assert [o.text for o in draw_network(nn.Linear(1, 1)).nodes] == ["x\n1 node", "·w + b", "out\n1 node"]


def test_layers_of_any_kind():
    d = draw_network(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)))
    assert [o.text for o in d.nodes if o.shape == "text"] == ["Conv2d", "ReLU", "@W + b"]
    d = draw_network(SeqNet(nn.Embedding(6, 3), nn.GRU(3, 5, 2, bidirectional=True), nn.Linear(10, 6)))
    assert [o.text for o in d.nodes if o.shape == "text"] == ["Embedding(6, 3)", "two-way GRU(3, 5) ×2", "@W + b"]


def test_a_diagram_has_all_its_texts():
    d = draw_network(net(), "weights", inputs="abc", outputs=["a&b", "<b>", '"c"'])
    svg = d._repr_svg_()
    assert svg.startswith("<svg") and svg.rstrip().endswith("</svg>")
    found = [re.sub(r"<[^>]*>", "", o) for o in re.findall(r"<text.*?</text>", svg, re.S)]
    assert sorted(html.unescape(o).strip() for o in found) == sorted(o.text for o in d.nodes)
    assert d._repr_svg_() == svg   # the same every time


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_diagram_save_and_plot(tmp_path, suffix):
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix]
    out = draw_network(mlp(1, 2, 1)).save(tmp_path/f"a.{suffix}")
    assert out.read_bytes().startswith(start)
    fig, ax = plt.subplots()
    assert draw_network(mlp(1, 2, 1), "nodes").plot(ax) is ax and len(ax.patches) == 4


class Branch(nn.Module):
    def __init__(self): super().__init__(); self.a, self.b = nn.Linear(2, 3), nn.Linear(2, 4)


@pytest.mark.parametrize("f,message", [
    (lambda: draw_network(mlp(1, 1), "boxes"), "'boxes'"), (lambda: draw_network("net"), "module"),
    (lambda: draw_network(Branch()), "no chain"),
    (lambda: draw_network(nn.Sequential()), "no layers"),
    (lambda: draw_network(nn.LSTM(2, 3), "weights"), "one by one"),
    (lambda: draw_network(nn.Tanh(), "nodes"), "style='layers'"), (lambda: draw_network(nn.LazyLinear(2)), "lazy"),
    (lambda: draw_network(mlp(1, 1), names=["x"]), "1 entries"),
    (lambda: draw_network(mlp(2, 1), "nodes", inputs="x"), "1 names"),
    (lambda: draw_network(mlp(2, 1), "nodes", outputs="xy"), "2 names"),
    (lambda: draw_network(mlp(2, 1), "weights", weights="ab"), "3 weights"),
    (lambda: draw_network(mlp(2, 1), "nodes", weights="abc"), "style='weights'"),
    (lambda: draw_network(mlp(2, 1), inputs="ab"), "style='weights'"),
    (lambda: draw_network(mlp(2, 1), max_nodes=1), "max_nodes=1"),
    (lambda: draw_network(mlp(2, 1)).save("a.jpg"), "a.jpg")])
def test_draw_network_bad_input(f, message):
    with pytest.raises(InputError, match=message): f()


# Watching

def quiet_fit(lrnr, n):
    with lrnr.no_bar(), lrnr.no_logging(): lrnr.fit(n)


def test_watch_a_fit(tmp_path):
    torch.manual_seed(1)
    lrnr = synth_learner(lr=0.1)
    w = watch(lrnr, n_frames=5)
    assert isinstance(w, Watch) and w.what == "fit" and w in lrnr.cbs
    quiet_fit(lrnr, 20)
    assert w.epochs == [0, 1, 5, 11, 20] and all(len(o) == len(w.data) for o in w.frames)
    model = lrnr.model
    np.testing.assert_allclose(w.frames[-1], model(w.points).reshape(-1).detach().cpu(), rtol=0, atol=1e-5)
    assert (w.points[1:, 0] >= w.points[:-1, 0]).all()
    quiet_fit(lrnr, 2)
    assert w.epochs[-2:] == [21, 22]
    for name in ("a.gif", "a.html"): assert w.save(tmp_path/name).stat().st_size > 1000
    from PIL import Image
    assert Image.open(tmp_path/"a.gif").n_frames == len(w.frames)
    assert w._repr_html_().startswith('<img alt="fit while learning" src="data:image/gif;base64,')
    lrnr.remove_cb(w)
    quiet_fit(lrnr, 1)
    assert w.epochs[-1] == 22


def test_watch_changes_no_number():
    weights = []
    for n in (0, 1):
        set_seed(1)   # the loader shuffles with Python's random numbers
        lrnr = synth_learner(lr=0.1)
        if n: watch(lrnr)
        quiet_fit(lrnr, 5)
        weights.append([p.detach().clone() for p in lrnr.model.parameters()])
    for a, b in zip(*weights, strict=True): torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_watch_an_embedding(dim, tmp_path):
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner
    df = next_token_pairs(letters("abc", 5))
    dl = DataLoader(list(zip(codes(df.x), codes(df.y))), bs=14)
    lrnr = Learner(DataLoaders(dl, dl), net(dim), loss_func=nn.CrossEntropyLoss(), lr=0.1)
    w = watch(lrnr, names="abc")
    assert w.what == "embedding"
    quiet_fit(lrnr, 8)
    assert w.epochs == list(range(9)) and w.frames[0].shape == (3, dim)
    np.testing.assert_allclose(w.frames[-1], lrnr.model[0].weight.detach().cpu())
    assert not np.allclose(w.frames[0], w.frames[-1])
    w.save(tmp_path/"a.gif")
    with lrnr.no_bar(), lrnr.no_logging(): lrnr.lr_find(num_it=30, show_plot=False), lrnr.get_preds()
    assert w.epochs == list(range(9))   # those are no training


@pytest.mark.parametrize("f,message", [
    (lambda: watch(mlp(1, 1)), "Learner"), (lambda: watch(synth_learner(), "film"), "'film'"),
    (lambda: watch(synth_learner(), "embedding"), "no Embedding"),
    (lambda: watch(synth_learner(), names="ab"), "2 entries for no"),
    (lambda: watch(synth_learner(), n_frames=1), "n_frames=1"),
    (lambda: watch(synth_learner()).animation(), "no frames"), (lambda: watch(synth_learner()).save("a.mp4"), "a.mp4"),
    (lambda: watch(3), "module")])
def test_watch_bad_input(f, message):
    with pytest.raises(InputError, match=message): f()


def test_watch_a_fit_of_another_shape():
    lrnr = synth_learner(model=mlp(1, 2))
    watch(lrnr)
    with pytest.raises(InputError, match="one output"): quiet_fit(lrnr, 1)


def test_show_fit_of_a_learner():
    lrnr = synth_learner()
    x, y = next(iter(lrnr.dls.valid))
    ax = show_fit(x, y, fit=lrnr)
    np.testing.assert_allclose(np.sort(ax.lines[1].get_ydata()), np.sort(lrnr.model(x)[:, 0].detach().cpu()), atol=1e-6)
