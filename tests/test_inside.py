"""The table of layer outputs against the layers themselves, on many kinds of model; nothing is left behind."""
import copy

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn

from fastcourse.core import InputError
from fastcourse.data import codes, greetings, iris, letters, next_token_pairs, number_words, one_hot, published
from fastcourse.inside import Equations, count_parameters, equations, layer_names, layer_outputs
from fastcourse.nets import Bump, SeqNet, cut, mlp, set_weights


def parts(table): return list(table.columns.unique("layer"))


def close(table, tensor): np.testing.assert_allclose(table, tensor.detach().reshape(len(table), -1), rtol=0, atol=1e-5)


# Counting

@pytest.mark.parametrize("model,n", [(mlp(1, 2, 1), 7), (mlp(3, 1, bias=False), 3), (nn.Embedding(3, 2), 6),
                                     (nn.Tanh(), 0),
                                     (nn.LSTM(6, 20), 4*20*(6 + 20 + 2)),
                                     (SeqNet(nn.GRU(2, 3), nn.Linear(3, 2)), 3*3*(2+3+2) + 8)])
def test_count_parameters(model, n): assert count_parameters(model) == n


@pytest.mark.parametrize("model", [None, 3, "net", nn.LazyLinear(2), nn.ReLU])
def test_count_parameters_bad_input(model):
    with pytest.raises(InputError): count_parameters(model)


# Lesson 3.1

def abc_model(dim=1, word="abc", epochs=50):
    df = next_token_pairs(letters(word))
    x, y = codes(df.x), codes(df.y)
    torch.manual_seed(published("3.1")["seed"])
    net = nn.Sequential(nn.Embedding(len(word), dim), nn.Tanh(), nn.Linear(dim, len(word)))
    opt = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(epochs):
        loss = nn.CrossEntropyLoss()(net(x), y)
        opt.zero_grad(); loss.backward(); opt.step()
    return net, df


def test_the_published_figures_of_lesson_3_1():
    p, (net, df) = published("3.1"), abc_model()
    table = layer_outputs(net, df.x[:3])
    figures = pd.DataFrame(**p["figures"])
    np.testing.assert_allclose(table[["embedding", "h", "out"]], figures, rtol=0, atol=p["tolerance"])
    assert list(table.index) == list(figures.index)
    assert parts(table) == ["one-hot", "embedding", "h", "out", "P"]
    np.testing.assert_allclose(table["P"], F.softmax(torch.tensor(table["out"].to_numpy()), -1), rtol=0, atol=1e-6)
    assert table["P"].idxmax(axis=1).to_dict() == {"a": "b", "b": "c", "c": "a"}


@pytest.mark.parametrize("x", [letters("abc", 1), "abc", torch.tensor([0, 1, 2]), np.array([0, 1, 2]),
                               pd.Series([0, 1, 2]),
                               torch.tensor([0, 1, 2], dtype=torch.int32), [0, 1, 2]])
def test_all_ways_to_give_tokens(x):
    net, df = abc_model(epochs=0)
    pd.testing.assert_frame_equal(layer_outputs(net, x, names="abc"), layer_outputs(net, df.x[:3]))


def test_names_label_tokens_units_and_P():
    net, df = abc_model(epochs=0)
    table = layer_outputs(net, codes(df.x[:5]), names=["x", "y", "z"])
    assert list(table.index) == list("xyzxy") and list(table["out"].columns) == list("xyz") == list(table["P"].columns)
    assert list(table["embedding"].columns) == [1]
    assert list(layer_outputs(net, codes(df.x[:5])).index) == list(range(5))


def test_P_where_asked():
    x = torch.randn(4, 3)
    net = mlp(3, 2, 2)
    assert parts(layer_outputs(net, x)) == ["input", "u", "h", "out"]
    close(layer_outputs(net, x, P=True)["P"], net(x).softmax(1))
    one = mlp(3, 1)
    close(layer_outputs(one, x, P=True)["P"], one(x).sigmoid())
    assert parts(layer_outputs(abc_model(epochs=0)[0], "abc", P=False))[-1] == "out"
    assert parts(layer_outputs(mlp(3, 2, 1, last=nn.Sigmoid), x)) == ["input", "u", "h", "out", "P"]


# Many kinds of model

@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.sampled_from([nn.ReLU, nn.Tanh, Bump]),
       st.integers(1, 6), st.integers(0, 99))
def test_mlp_tables_equal_the_layers(sizes, act, n, seed):
    torch.manual_seed(seed)
    net, x = mlp(*sizes, act=act), torch.randn(n, sizes[0])
    table = layer_outputs(net, x, P=False)
    labels = layer_names(net)
    assert len(set(labels)) == len(labels)
    assert table.shape == (n, sizes[0] + sum(sizes[1:]) + sum(sizes[1:-1]))
    for layer, label in zip(net, labels):
        x = layer(x)
        close(table[label], x)


@pytest.mark.parametrize("rnn", [nn.RNN(4, 3), nn.LSTM(4, 3), nn.GRU(4, 3), nn.LSTM(4, 3, proj_size=2),
                                 nn.GRU(4, 3, 2, bidirectional=True)])
def test_recurrent_rows(rnn):
    width = rnn(torch.zeros(1, 4))[0].shape[-1]
    net, df = SeqNet(rnn, nn.Linear(width, 4)), next_token_pairs(greetings())
    table = layer_outputs(net, df.x)                       # one series: a row for each step
    assert parts(table) == ["one-hot", "h", "out", "P"] and list(table.index) == list(df.x)
    x = one_hot(df.x)
    close(table["h"], rnn(x)[0])
    close(table["out"], net(x))
    two = cut(x[:16], 2)                                   # two series: a row for each step of each
    table = layer_outputs(net, two, names="!?hi")
    assert table.shape[0] == 16 and table.index.names == ["step", "series"]
    for i in range(2): close(table.xs(i, level="series")["out"], net(two[:, i]))


def test_recurrent_batch_first_and_embedding():
    net = SeqNet(nn.Embedding(6, 2), nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 6))
    x = cut(codes(number_words(20)), 4).T                  # (N, L)
    table = layer_outputs(net, x)
    assert table.index.names == ["series", "step"] and parts(table) == ["one-hot", "embedding", "h", "out", "P"]
    close(table.loc[1]["out"], net(x)[1])


class Custom(nn.Module):
    "No Sequential: functions between layers, a layer used twice, an output of its own."
    def __init__(self):
        super().__init__()
        self.lin, self.drop, self.head = nn.Linear(3, 3), nn.Dropout(0.9), nn.Linear(3, 2)
    def forward(self, x): return F.log_softmax(self.head(self.drop(F.relu(self.lin(F.relu(self.lin(x)))))), -1)


def test_custom_forward():
    net, x = Custom(), torch.randn(5, 3)
    table = layer_outputs(net, x)
    assert parts(table) == ["input", "u1", "u2", "u3", "out"]
    close(table["u1"], net.lin(x))
    close(table["u2"], net.lin(F.relu(net.lin(x))))
    close(table["out"], net.eval()(x))                     # without dropout


class LastStep(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.batch_first, self.rnn, self.head = batch_first, nn.GRU(3, 4, batch_first=batch_first), nn.Linear(4, 2)
    def forward(self, x):
        out = self.rnn(x)[0]
        return self.head(out[:, -1] if self.batch_first else out[-1])


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_model_that_reads_whole_series(batch_first):
    net, x = LastStep(batch_first), torch.randn(5, 3, 3) if not batch_first else torch.randn(3, 5, 3)
    table = layer_outputs(net, x)
    assert table.shape == (3, 5*3 + 5*4 + 2)               # one row for each series
    close(table["out"], net(x))
    close(table["h"], net.rnn(x)[0] if batch_first else net.rnn(x)[0].transpose(0, 1).reshape(3, -1))


def test_convolutions_and_inplace():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(),
                        nn.Linear(8, 3))
    x = torch.randn(4, 1, 4, 4)
    table = layer_outputs(net, x)
    assert parts(table) == ["input", "conv2d", "batchnorm2d", "h", "out"]
    net.eval()
    close(table["conv2d"], net[0](x))
    close(table["batchnorm2d"], net[1](net[0](x)))
    assert table["h"].columns[-1] == "2,2,2"


def test_one_leaf_and_tables_with_column_names():
    df = iris().iloc[:5, :4]
    lin = nn.Linear(4, 2)
    table = layer_outputs(lin, df)
    assert list(table["input"].columns) == list(df.columns) and parts(table) == ["input", "out"]
    close(table["out"], lin(torch.tensor(df.to_numpy(np.float32))))


numbers = pd.DataFrame({"a": [1., 2.], "b": [0., 1.]})


@pytest.mark.parametrize("x", [
    numbers, numbers.astype(int), numbers.convert_dtypes(), numbers.astype({"b": bool}),
    numbers.astype({"b": "boolean"}), numbers.astype("float32"), numbers.to_numpy(), numbers.to_numpy(int),
    torch.tensor([[1, 0], [2, 1]]), [[1, 0], [2, 1]]])
def test_all_ways_to_give_numbers(x):
    net = set_weights(mlp(2, 1), [[10, 1]], 0.5)
    table = layer_outputs(net, x)
    assert table["out", 1].tolist() == [10.5, 21.5]
    assert list(table["input"].columns) == (["a", "b"] if isinstance(x, pd.DataFrame) else [1, 2])


@pytest.mark.parametrize("x", [[1., 2., 3.], pd.Series([1, 2, 3]), np.array([1, 2, 3]), torch.tensor([1., 2, 3])])
def test_single_numbers_are_a_column(x):
    assert layer_outputs(set_weights(mlp(1, 1), 2., 1.), x)["out", 1].tolist() == [3, 5, 7]


@pytest.mark.parametrize("x,message", [
    (numbers.assign(b=["k", "l"]), r"x\['b'\] holds"), (numbers.assign(b=[None, 1]), r"x\['b'\] has no value in row 0"),
    (numbers[[]], "without columns"), (np.ma.masked_equal(numbers.to_numpy(), 2), "masked")])
def test_tables_without_numbers(x, message):
    with pytest.raises(InputError, match=message): layer_outputs(mlp(2, 1), x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype):
    net = mlp(2, 3, 1).to(dtype)
    table = layer_outputs(net, torch.randn(4, 2))
    assert set(table.dtypes) == {np.dtype("float64" if dtype == torch.float64 else "float32")}


def test_a_learner_is_taken_apart_too():
    from fastai.test_utils import synth_learner
    lrnr = synth_learner()
    x = torch.randn(4, 1)
    close(layer_outputs(lrnr, x)["out"], lrnr.model.cpu()(x))
    assert count_parameters(lrnr) == 2


# Nothing stays behind

def state(model):
    return ([m.training for m in model.modules()],
            [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
            copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()],
            [p.grad for p in model.parameters()])


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.drop = nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()
    def forward(self, x): raise RuntimeError(f"boom {self.norm(self.a(x)).shape}")


@pytest.mark.parametrize("frozen", [True, False])
def test_a_failing_model_is_put_back(frozen):
    net = Fails().train()
    if frozen: net.norm.eval(); net.a.requires_grad_(False)
    seen = []
    handle = net.a.register_forward_hook(lambda *args: seen.append(1))     # somebody else's hook stays
    before, rng = state(net), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="boom"): layer_outputs(net, torch.randn(3, 2, generator=torch.Generator()))
    after = state(net)
    assert before[:2] == after[:2] and before[3:] == after[3:] and seen == [1]
    for k in before[2]: torch.testing.assert_close(before[2][k], after[2][k], rtol=0, atol=0)
    assert torch.equal(rng, torch.get_rng_state())
    handle.remove()


@pytest.mark.parametrize("net,x", [(mlp(2, 3, 1), torch.randn(3, 2)), (Custom(), torch.randn(3, 3)),
                                   (SeqNet(nn.LSTM(3, 2, dropout=0.5, num_layers=2)), torch.randn(4, 3))])
def test_a_working_model_is_put_back(net, x):
    net.train()
    for m in list(net.modules())[1::2]: m.eval()
    before = state(net)
    layer_outputs(net, x)
    after = state(net)
    assert before[:2] == after[:2] and before[3:] == after[3:]
    for k in before[2]: torch.testing.assert_close(before[2][k], after[2][k], rtol=0, atol=0)


@pytest.mark.parametrize("f,message", [
    (lambda: layer_outputs("net", "abc"), "module"),
    (lambda: layer_outputs(abc_model(epochs=0)[0], torch.tensor([], dtype=torch.long)), r"\(0,\)"),
    (lambda: layer_outputs(abc_model(epochs=0)[0], torch.tensor([0, 3])), "0 to 2"),
    (lambda: layer_outputs(abc_model(epochs=0)[0], [0.5]), "integer codes"),
    (lambda: layer_outputs(abc_model(epochs=0)[0], ["a"]), "numbers"),
    (lambda: layer_outputs(abc_model(epochs=0)[0], "abcd"), "0 to 2"),
    (lambda: layer_outputs(mlp(2, 1), torch.tensor(1.)), r"\(\)"),
    (lambda: layer_outputs(mlp(2, 1), torch.randn(3, 3)), r"\(3, 3\)"),
    (lambda: layer_outputs(mlp(2, 1), torch.tensor([[0., np.nan]])), "NaN"),
    (lambda: layer_outputs(mlp(2, 1), torch.zeros(1, 2), names="abc"), "3 entries"),
    (lambda: layer_outputs(mlp(2, 2, 2, last=nn.ReLU), torch.zeros(1, 2), P=True), "'h2'"),
    (lambda: layer_outputs(mlp(2, 1), None), "numbers")])
def test_layer_outputs_bad_input(f, message):
    with pytest.raises(InputError, match=message): f()


# Equations

@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(0, 999))
def test_equations_say_what_the_layer_does(n_in, n_out, bias, seed):
    torch.manual_seed(seed)
    layer = nn.Linear(n_in, n_out, bias=bias).double()
    x = torch.randn(1, n_in, dtype=torch.float64)
    names = {("x" if n_in == 1 else f"x_{i+1}"): v for i, v in enumerate(x[0].tolist())}
    eqs = equations(layer, digits=12)
    assert isinstance(eqs, Equations) and len(eqs) == len(eqs.latex) == n_out
    for eq, want in zip(eqs, layer(x)[0].tolist()):
        assert eval(eq.split(" = ")[1].replace("·", "*"), names) == pytest.approx(want, abs=1e-9)


def test_equations_text_and_latex():
    layer = set_weights(nn.Linear(2, 2), [[1.5, -2], [0, 0.004]], [-1, 0])
    eqs = equations(layer, "h", ["out_a", "out_!"])
    assert list(eqs) == ["out_a = 1.50·h_1 - 2.00·h_2 - 1.00", "out_! = 0.00·h_1 + 0.00·h_2 + 0.00"]
    assert eqs.latex[0] == r"\mathrm{out}_{\mathrm{a}} = 1.50\,h_{1} - 2.00\,h_{2} - 1.00"
    assert str(eqs) == "\n".join(eqs) and eqs._repr_latex_().count("&=") == 2
    assert equations(nn.Linear(20, 1), max_terms=3)[0].count("x_") == 2
    emb = set_weights(nn.Embedding(2, 2), [[1, 2], [3, -4]])
    assert list(equations(emb, ["a", "b"], "e", digits=0)) == ["e_1(a) = 1", "e_2(a) = 2", "e_1(b) = 3", "e_2(b) = -4"]


@pytest.mark.parametrize("kw,message", [(dict(layer=nn.Tanh()), "Tanh"), (dict(layer=mlp(1, 1)), "net\\[0\\]"),
                                        (dict(x=["a"]), "1 names"),
                                        (dict(y=["a", "b", "c"]), "3 names"), (dict(digits=-1), "digits=-1"),
                                        (dict(digits=1.5), "digits=1.5"), (dict(max_terms=1), "max_terms=1")])
def test_equations_bad_input(kw, message):
    with pytest.raises(InputError, match=message): equations(**{**dict(layer=nn.Linear(2, 2)), **kw})
