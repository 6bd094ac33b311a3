"""Networks set by hand, the staircase, sequence stacks and shapes, with properties and bad input."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from fastcourse.core import InputError
from fastcourse.data import codes, hello, letters, next_token_pairs, number_words, one_hot, published
from fastcourse.nets import (Bump, SeqNet, SteepSigmoid, bumps_as_sigmoids, cut, lstm_shapes, mlp, set_weights,
                             staircase,
                             staircase_errors)


def test_activations_have_gradients():
    for act in (SteepSigmoid(3), Bump(3)):
        x = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(act, (x,))
        assert repr(act).endswith("(slope=3)")


@pytest.mark.parametrize("slope", [0, -1, math.inf, math.nan, "1", None, True])
@pytest.mark.parametrize("act", [SteepSigmoid, Bump])
def test_activation_bad_slope(act, slope):
    with pytest.raises(InputError, match="slope="): act(slope)


def test_bump_is_two_steep_sigmoids():
    x, step = torch.linspace(-1, 1, 401, dtype=torch.float64), SteepSigmoid(50)
    torch.testing.assert_close(Bump(50)(x), step(x + 0.5) - step(x - 0.5), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sizes,act,bias,last,want", [
    ((1, 1), nn.ReLU, True, None, "Linear"), ((1, 2, 1), nn.Tanh, False, None, "Linear Tanh Linear"),
    ((4, 3, 2, 1), SteepSigmoid, True, nn.Sigmoid, "Linear SteepSigmoid Linear SteepSigmoid Linear Sigmoid")])
def test_mlp_layers(sizes, act, bias, last, want):
    net = mlp(*sizes, act=act, bias=bias, last=last)
    assert [type(m).__name__ for m in net] == want.split()
    assert [(m.in_features, m.out_features) for m in net if isinstance(m, nn.Linear)] == list(zip(sizes, sizes[1:]))
    assert all((m.bias is not None) == bias for m in net if isinstance(m, nn.Linear))


@pytest.mark.parametrize("args,kw,message", [
    ((), {}, r"\(\)"), ((3,), {}, r"\(3,\)"), ((3, 0), {}, "size=0"), ((3, "4"), {}, "size='4'"),
    ((1, 2, 1), dict(act=nn.ReLU()), "ReLU"),
    ((1, 2, 1), dict(act=lambda: torch.relu), "torch modules"), ((1, 1), dict(last=nn.Sigmoid()), "last=")])
def test_mlp_bad_input(args, kw, message):
    with pytest.raises(InputError, match=message): mlp(*args, **kw)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.booleans(), st.integers(0, 99))
def test_set_weights_round_trip(sizes, bias, seed):
    torch.manual_seed(seed)
    a, b = mlp(*sizes, bias=bias), mlp(*sizes, bias=bias)
    assert set_weights(a, *b.parameters()) is a
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q) and p is not q and p.requires_grad
    x = torch.randn(7, sizes[0])
    torch.testing.assert_close(a(x), b(x), rtol=0, atol=0)
    set_weights(a, *(p.tolist() for p in b.parameters()))
    torch.testing.assert_close(a(x), b(x))


@pytest.mark.parametrize("values,message", [
    ((), "4 parameters"), ((1, 2, 3), "3 values"), (([1, 2], [1, 2], [1, 2], [1, 2]), "'2.bias'"),
    (("a", 0, 0, 0), "'a'"),
    (([1, 2], [1, math.inf], [1, 1], 0), "'0.bias'"), (([[1, 2], [3, 4]], [0, 0], [1, 1], 0), r"\(2, 2\)"),
    ((object(), 0, 0, 0), "no table")])
def test_set_weights_bad_input_changes_nothing(values, message):
    net = mlp(1, 2, 1)
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(InputError, match=message): set_weights(net, *values)
    for p, q in zip(net.parameters(), before): assert torch.equal(p, q)


def test_two_bumps_add_up():
    x = torch.linspace(-10, 10, 200)[:, None]
    def bump(b1, w2, b2): return set_weights(mlp(1, 2, 1, act=nn.Sigmoid), [-5, 5], b1, w2, b2)
    left, right = bump([0, 20], [1, 1], -1), bump([20, 0], [2.5, 2.5], -2.5)
    both = set_weights(mlp(1, 4, 1, act=nn.Sigmoid), [-5, 5, -5, 5], [0, 20, 20, 0], [1, 1, 2.5, 2.5], -3.5)
    torch.testing.assert_close(both(x), left(x) + right(x))
    torch.testing.assert_close(both(torch.tensor([[-2.], [2.], [8.]])), torch.tensor([[1.], [2.5], [0.]]), rtol=0,
                               atol=1e-3)


@pytest.mark.parametrize("f,a,b", [(torch.sin, -3., 3.), (torch.exp, -1., 1.), (lambda x: x.abs(), -1., 2.)])
def test_staircase_halves_its_error(f, a, b):
    errors = staircase_errors(f, (32, 64, 128), a, b)
    assert errors.index.tolist() == [32, 64, 128] and list(errors.columns) == ["max", "mean"]
    ratio = errors["max"].to_numpy()[1:]/errors["max"].to_numpy()[:-1]
    np.testing.assert_allclose(ratio, 0.5, atol=0.12)
    assert (errors["mean"] <= errors["max"]).all()
    # the theory: half a step times the steepest slope, and the rounding of float32 at the edges
    x = torch.linspace(a, b, 5001, dtype=torch.float64)
    slope = ((f(x)[1:] - f(x)[:-1])/(x[1:] - x[:-1])).abs().max().item()
    assert (errors["max"] < 1.1*slope*(b-a)/np.array([32, 64, 128])/2).all()


def test_staircase_one_step_is_a_constant():
    x = torch.linspace(-1, 1, 50)[:, None]
    torch.testing.assert_close(staircase(lambda x: 0*x + 7, 1)(x), torch.full_like(x, 7), rtol=1e-3, atol=0)


@pytest.mark.parametrize("f,message", [
    (lambda: staircase(3, 4), "f=3"), (lambda: staircase(torch.sin, 2.5), "m=2.5"),
    (lambda: staircase(torch.sin, 4, 1, 1), "a=1"),
    (lambda: staircase(torch.sin, 4, 0, math.inf), "b=inf"), (lambda: staircase(torch.sqrt, 4), "finite"),
    (lambda: staircase(torch.sum, 4), "same shape"), (lambda: staircase_errors(torch.sin, ()), "empty"),
    (lambda: staircase_errors(torch.sin, (0,)), "m=0"), (lambda: staircase_errors(torch.sin, n=1), "n=1")])
def test_staircase_bad_input(f, message):
    with pytest.raises(InputError, match=message): f()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 3), st.integers(0, 99))
def test_bumps_equal_sigmoids(k, m, j, seed):
    torch.manual_seed(seed)
    net = mlp(k, m, j, act=Bump).double()
    other = bumps_as_sigmoids(net)
    assert [type(o) for o in other] == [nn.Linear, nn.Sigmoid, nn.Linear] and other[0].out_features == 2*m
    x = torch.randn(40, k, dtype=torch.float64)
    torch.testing.assert_close(other(x), net(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("model", [mlp(1, 2, 1), mlp(1, 1), mlp(1, 2, 1, act=Bump, bias=False), nn.Linear(1, 1),
                                   mlp(1, 2, 3, 1, act=Bump)])
def test_bumps_as_sigmoids_bad_input(model):
    with pytest.raises(InputError, match="Linear-Bump-Linear"): bumps_as_sigmoids(model)


# Sequences

@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("layers,two_way", [(1, False), (2, True)])
def test_seqnet_shapes_and_equality(kind, layers, two_way):
    torch.manual_seed(0)
    rnn, lin = kind(4, 3, num_layers=layers, bidirectional=two_way), nn.Linear(3*(1 + two_way), 5)
    net, x = SeqNet(rnn, lin), torch.randn(7, 2, 4)
    assert net(x).shape == (7, 2, 5) and net(x[:, 0]).shape == (7, 5)
    torch.testing.assert_close(net(x), lin(rnn(x)[0]), rtol=0, atol=0)
    torch.testing.assert_close(net(x)[:, 1], net(x[:, 1]))
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_seqnet_with_embedding_and_batch_first():
    net = SeqNet(nn.Embedding(6, 2), nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 6))
    assert net(torch.zeros(5, 9, dtype=torch.long)).shape == (5, 9, 6)


def test_first_loss_and_order_of_the_layers_of_lesson_4_4():
    p = published("4.4")
    df = next_token_pairs(number_words())
    x, y = one_hot(df.x), codes(df.y)
    torch.manual_seed(p["seed"])
    net = SeqNet(nn.LSTM(6, 20), nn.Linear(20, 6))
    assert [n for n, _ in net.named_parameters()][:1] == ["0.weight_ih_l0"]
    np.testing.assert_allclose(nn.CrossEntropyLoss()(net(x), y).item(), p["figures"]["train_loss"][0], rtol=0,
                               atol=p["tolerance"])


def test_the_published_losses_of_lesson_4_5():
    p = published("4.5")
    x = one_hot(next_token_pairs(hello()).x)
    torch.manual_seed(p["seed"])
    lstm = nn.LSTM(7, 4)
    out, (h, c) = lstm(x)
    np.testing.assert_allclose(out[0].detach(), p["figures"]["first_row"], rtol=0, atol=p["tolerance"])
    np.testing.assert_allclose(h[0].detach(), p["figures"]["h_T"], rtol=0, atol=p["tolerance"])
    torch.testing.assert_close(SeqNet(lstm)(x), out, rtol=0, atol=0)


@pytest.mark.parametrize("f,message", [
    (lambda: SeqNet(), "no layers"), (lambda: SeqNet(nn.RNN), "torch layers"),
    (lambda: SeqNet(nn.RNN(4, 3), torch.tanh), "tanh"),
    (lambda: SeqNet(nn.RNN(4, 3))(torch.zeros(4)), r"\(4,\)"),
    (lambda: SeqNet(nn.RNN(4, 3))(torch.zeros(2, 3)), r"\(2, 3\)"),
    (lambda: SeqNet(nn.GRU(4, 3))(torch.zeros(1, 1, 1, 4)), r"\(L, N, 4\)")])
def test_seqnet_bad_input(f, message):
    with pytest.raises(InputError, match=message): f()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 2))
def test_cut_puts_pieces_side_by_side(L, pieces, extra):
    x = torch.arange(L*2**extra).reshape(L, *[2]*extra)
    if L < pieces:
        with pytest.raises(InputError): cut(x, pieces)
        return
    res = cut(x, pieces)
    assert res.shape == (L//pieces, pieces, *[2]*extra)
    for i in range(pieces): assert torch.equal(res[:, i], x[i*(L//pieces):(i+1)*(L//pieces)])


@pytest.mark.parametrize("args,message", [(("abc", 2), "str"), ((torch.arange(3), 0), "pieces=0"),
                                          ((torch.arange(3), 4), "4 pieces"),
                                          ((torch.tensor(3), 1), r"\(\)"), ((letters("ab"), 2), "Series")])
def test_cut_bad_input(args, message):
    with pytest.raises(InputError, match=message): cut(*args)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.one_of(st.none(), st.integers(1, 3)), st.integers(1, 4), st.integers(1, 4),
       st.integers(1, 3), st.integers(1, 2))
def test_lstm_shapes_agree_with_torch(L, N, H_in, H_out, layers, directions):
    table = lstm_shapes(L, N, H_in, H_out, layers, directions)
    lstm = nn.LSTM(H_in, H_out, num_layers=layers, bidirectional=directions == 2)
    out, (h, c) = lstm(torch.zeros(table["shape"]["x"]),
                       (torch.zeros(table["shape"]["h_0"]), torch.zeros(table["shape"]["c_0"])))
    assert table["shape"][["output", "h_T", "c_T"]].tolist() == [tuple(o.shape) for o in (out, h, c)]
    assert table["shape"].iloc[6:].to_dict() == {n: tuple(p.shape) for n, p in lstm.named_parameters()}
    assert table["size"].tolist() == [math.prod(o) for o in table["shape"]]


@pytest.mark.parametrize("kw", [dict(L=0), dict(N=0), dict(H_in="3"), dict(H_out=None), dict(layers=0),
                                dict(directions=3)])
def test_lstm_shapes_bad_input(kw):
    with pytest.raises(InputError, match=f"{next(iter(kw))}="): lstm_shapes(**{**dict(L=1, N=1, H_in=1, H_out=1), **kw})
