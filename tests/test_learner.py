"""`tensor_learner`: the same numbers as a loop by hand and as fastai, everything a Learner can do, and bad input."""
import contextlib
import io
import math
import pickle
import warnings
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fastai.basics import (SGD, BCELossFlat, BCEWithLogitsLossFlat, Callback, CancelBackwardException,
                           CancelBatchException, CancelEpochException, CancelFitException, CancelStepException,
                           CancelTrainException, CancelValidException, CrossEntropyLossFlat, DataLoaders, Learner,
                           MSELossFlat, OptimWrapper, Recorder, Transform, default_device, load_learner)
from fastai.callback.all import (CSVLogger, EarlyStoppingCallback, GradientAccumulation, GradientClip, ProgressCallback,
                                 ReduceLROnPlateau, SaveModelCallback, ShowGraphCallback, TerminateOnNaNCallback)
from fastai.callback.core import _events, _inner_loop
from fastai.interpret import ClassificationInterpretation, Interpretation
from fastai.metrics import F1Score, Perplexity, accuracy, mse
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import fastcourse.learner as module
from fastcourse.core import InputError
from fastcourse.data import codes, letters, next_token_pairs, number_words, one_hot, published
from fastcourse.learner import DataLearner, TensorLearner, check_data, history, tensor_learner
from fastcourse.tensors import TensorDL, TensorRows

torch_adam = partial(OptimWrapper, opt=torch.optim.Adam)
exactly = dict(rtol=0, atol=0)


def letter_data():
    pairs = next_token_pairs(letters("abcd", 75))
    return codes(pairs.x), codes(pairs.y)


def small(seed=43052, dropout=0.):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(4, 2), nn.Tanh(), nn.Dropout(dropout), nn.Linear(2, 4))


def points(n=20, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=g)
    return x, x.sum(1, keepdim=True) + 0.1*torch.randn(n, 1, generator=g)


def linear(n_in=3, n_out=1, seed=43052):
    torch.manual_seed(seed)
    return nn.Linear(n_in, n_out)


class Words(nn.Module):
    "The network of lesson 4.4, the same as a fastai Learner."
    def __init__(self):
        super().__init__()
        torch.manual_seed(43052)
        self.rnn, self.out = nn.LSTM(6, 20), nn.Linear(20, 6)

    def forward(self, x): return self.out(self.rnn(x)[0])


def quiet(f, *args, **kwargs):
    "What `f` returns, and what it prints."
    out = io.StringIO()
    with contextlib.redirect_stdout(out): res = f(*args, **kwargs)
    return res, out.getvalue()


def fitted(n=3, *args, **kwargs):
    lrnr, _ = quiet(tensor_learner, *args, **kwargs)
    quiet(lrnr.fit, n)
    return lrnr


class Losses(Callback):
    "Every loss as it was, training and validation apart."
    def before_fit(self): self.seen = {True: [], False: []}
    def after_batch(self): self.seen[self.learn.training].append(self.learn.loss.item())


def raw_loop(model, x, y, n, loss_func=None, batches=lambda n: [slice(None)], lr=0.1):
    "The loop by hand: training and validation losses of `n` epochs."
    loss_func, opt = loss_func or nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=lr)
    train, valid = [], []
    for _ in range(n):
        model.train()
        for rows in batches(len(x)):
            loss = loss_func(model(x[rows]), y[rows])
            loss.backward()
            opt.step()
            opt.zero_grad()
            train.append(loss.item())
        model.eval()
        with torch.no_grad(): valid.append(loss_func(model(x), y).item())
    return train, valid


def running_average(losses, beta=0.98):
    "fastai's smoothed training loss, by its definition; there the new loss has the weight 1 - beta of float32."
    total, res, weight = 0., [], float(1 - torch.tensor(beta))
    for i, loss in enumerate(losses, 1):
        total = (1 - weight)*total + weight*loss
        res.append(total/(1 - beta**i))
    return res


@pytest.fixture(autouse=True)
def on_cpu():
    "Exact numbers are those of one device; fastai takes a GPU where there is one."
    default_device(False)
    yield
    default_device(None)
    plt.close("all")


# The same numbers

def test_the_published_losses_of_lesson_4_4():
    pairs = next_token_pairs(number_words())
    lrnr = fitted(10, one_hot(pairs.x), codes(pairs.y), Words(), nn.CrossEntropyLoss(), lr=0.1)
    row = published("4.4")
    for name, losses in row["figures"].items():
        np.testing.assert_allclose(history(lrnr)[name], losses, rtol=0, atol=row["tolerance"])


@pytest.mark.parametrize("cbs", [[], [Callback(after_loss=lambda self: None)]], ids=["quick", "watched"])
def test_100_epochs_equal_the_raw_loop(cbs):
    x, y = letter_data()
    model = small(dropout=0.3)
    train, valid = raw_loop(model, x, y, 100)
    other = small(dropout=0.3)
    lrnr = fitted(100, x, y, other, nn.CrossEntropyLoss(), lr=0.1, opt_func=torch_adam, cbs=[Losses(), *cbs])
    for a, b in zip(model.parameters(), other.parameters(), strict=True): assert_close(a, b, **exactly)
    assert lrnr.losses.seen == {True: train, False: valid}
    df = history(lrnr)
    assert df.epoch.tolist() == list(range(100))
    assert df.valid_loss.tolist() == valid
    np.testing.assert_allclose(df.train_loss, running_average(train), rtol=1e-12)


@pytest.mark.parametrize("bs", [1, 64, 150, 298, 299])
def test_batches_equal_the_raw_loop(bs):
    x, y = letter_data()
    x, y = x[:299], y[:299]

    def batches(n): return torch.randperm(n).split(bs)

    n = 1 if bs == 1 else 5
    model = small(dropout=0.2)
    train, _ = raw_loop(model, x, y, n, batches=batches)
    other = small(dropout=0.2)
    lrnr = fitted(n, x, y, other, nn.CrossEntropyLoss(), bs=bs, lr=0.1, opt_func=torch_adam, cbs=Losses)
    for a, b in zip(model.parameters(), other.parameters(), strict=True): assert_close(a, b, **exactly)
    assert lrnr.losses.seen[True] == train


def test_validation_counts_rows_not_batches():
    x, y = points(10)
    lrnr = fitted(1, x, y, linear(), nn.MSELoss(), bs=4, metrics=mse)
    lrnr.model.eval()
    with torch.no_grad(): want = F.mse_loss(lrnr.model(x), y).item()
    np.testing.assert_allclose(history(lrnr)[["valid_loss", "mse"]].to_numpy(), [[want, want]], rtol=1e-6)


def stock(x, y, model, loss_func, metrics=None, bs=None, cls=Learner, **kwargs):
    "fastai's own Learner on torch's loaders."
    dl = DataLoader(TensorDataset(x, y), batch_size=bs or len(x))
    return cls(DataLoaders(dl, dl), model, loss_func, metrics=metrics, **kwargs)


@pytest.mark.parametrize("loss_func", [nn.CrossEntropyLoss(), CrossEntropyLossFlat()])
@pytest.mark.parametrize("fit", [lambda o: o.fit(6), lambda o: o.fit_one_cycle(6, 0.1), lambda o: o.fit_flat_cos(5),
                                 lambda o: o.fine_tune(3), lambda o: o.fit(4, cbs=[GradientClip(0.1)])])
def test_equals_fastai(fit, loss_func):
    "Weights, and all that the recorder keeps, with metrics of both kinds."
    x, y = letter_data()
    lrnrs = []
    for make in (stock, tensor_learner):
        lrnr = make(x, y, small(), loss_func, lr=0.1, metrics=[accuracy, Perplexity(), F1Score(average="macro")])
        quiet(fit, lrnr)
        lrnrs.append(lrnr)
    theirs, ours = lrnrs
    for a, b in zip(theirs.model.parameters(), ours.model.parameters(), strict=True): assert_close(a, b, **exactly)
    a, b = theirs.recorder, ours.recorder
    assert list(a.metric_names) == list(b.metric_names)
    np.testing.assert_allclose(np.array([list(o) for o in b.values]), np.array([list(o) for o in a.values]), rtol=5e-7)
    np.testing.assert_allclose(b.losses, torch.stack(a.losses), rtol=5e-7)
    assert (a.lrs, a.iters) == (b.lrs, b.iters)
    assert hasattr(a, "hps") == hasattr(b, "hps") and getattr(a, "hps", 0) == getattr(b, "hps", 0)


# What a callback sees

_exceptions = (CancelBatchException, CancelBackwardException, CancelEpochException, CancelFitException,
               CancelStepException, CancelTrainException, CancelValidException)


class Witness(Callback):
    "Notes each event with the state of the learner; cancels, or switches itself off, when told."
    def __init__(self, tag, log, order=0, run_train=True, run_valid=True, at=None, then=None):
        self.tag, self.log, self.order, self.run_train, self.run_valid = tag, log, order, run_train, run_valid
        self.at, self.then, self.count = at, then, 0

    @property
    def name(self): return f"witness{self.tag}"

    def note(self, name):
        learn = self.learn
        self.log.append((self.tag, name, learn.training, *(getattr(learn, o, None) for o in
                         ("epoch", "iter", "n_iter", "n_epoch", "train_iter"))))
        if name == self.at:
            self.count += 1
            if self.count == 2:
                if self.then == "off": self.run = False
                elif self.then is not None: raise self.then


for _name in _events: setattr(Witness, _name, lambda self, _name=_name: self.note(_name))


@st.composite
def witnesses(draw):
    ends = st.sampled_from([None, "off", *_exceptions])
    made = st.tuples(st.integers(-20, 80), st.booleans(), st.booleans(),
                     st.sampled_from([o for o in _events if o != "after_create"]), ends)
    return draw(st.lists(made, min_size=1, max_size=3))


@settings(max_examples=40, deadline=None)
@given(witnesses())
def test_callbacks_run_as_in_fastai(plans):
    "Any callbacks, in any order, switched off or cancelling anywhere: the same events in the same states."
    x, y = points(5)
    logs = []
    for make in (stock, tensor_learner):
        log, ends = [], []
        lrnr = make(x, y, linear(), nn.MSELoss(), bs=3)
        # fastai's own bar fails where an epoch that never began is followed by another fit; ours stays
        if make is stock: lrnr.remove_cb(lrnr.progress)
        lrnr.add_cbs([Witness(i, log, *plan) for i, plan in enumerate(plans)])
        for _ in range(2):
            try: quiet(lrnr.fit, 2)
            except _exceptions as e: ends.append(type(e))
            # an exception that fastai does not catch leaves the logger of the bar behind
            lrnr.logger = print
        logs.append((log, ends))
    assert logs[0] == logs[1]
    assert len(logs[0][0])


def test_in_batch_events_are_fastais():
    assert module._in_batch == set(_inner_loop)


class Broken(Callback):
    def after_batch(self): raise RuntimeError("no batch for me")


class Wordless(Callback):
    def before_train(self): raise RuntimeError


def test_errors_of_callbacks_read_as_in_fastai():
    x, y = points(5)
    texts = []
    for make in (stock, tensor_learner):
        with pytest.raises(RuntimeError) as e: quiet(make(x, y, linear(), nn.MSELoss(), cbs=Broken).fit, 1)
        texts.append(str(e.value))
    assert texts[0] == texts[1]
    with pytest.raises(RuntimeError, match="`Wordless` when calling event `before_train`"):
        quiet(tensor_learner(x, y, linear(), nn.MSELoss(), cbs=Wordless).fit, 1)
    with pytest.raises(Exception, match="missing no_such_event"):
        tensor_learner(x, y, linear(), nn.MSELoss())("no_such_event")


def test_answers_are_looked_up_again():
    "Callbacks added, removed and changed between fits and inside of one."
    x, y = points(5)
    lrnr = fitted(1, x, y, linear(), nn.MSELoss())
    calls = []
    late = Callback(after_epoch=lambda self: calls.append("late"))

    class Adds(Callback):
        def after_train(self):
            if self.learn.epoch == 1: self.learn.add_cb(late)
            if self.learn.epoch == 3: self.learn.remove_cb(late)

    quiet(lrnr.fit, 5, cbs=Adds())
    assert calls == ["late"]*2
    plain = Callback()
    lrnr.add_cb(plain)
    quiet(lrnr.fit, 1)
    plain.after_batch = lambda: calls.append("new")
    quiet(lrnr.fit, 1)
    assert calls == ["late"]*2 + ["new"]*2


def test_a_callback_may_have_its_own_call():
    x, y = points(5)
    seen = []

    class Own(Callback):
        run = False

        def __call__(self, event_name): seen.append(event_name)

    lrnr = fitted(1, x, y, linear(), nn.MSELoss(), cbs=Own)
    theirs = list(seen)
    seen.clear()
    quiet(stock(x, y, linear(), nn.MSELoss(), cbs=Own).fit, 1)
    assert theirs == seen and len(seen) > 20
    assert isinstance(lrnr.recorder, Recorder) and isinstance(lrnr.progress, ProgressCallback)
    assert [o.name for o in lrnr.cbs][:4] == ["train_eval", "recorder", "cast_to_tensor", "progress"]


def test_fastais_ways_to_take_callbacks_away():
    x, y = points(5)
    lrnr = fitted(1, x, y, linear(), nn.MSELoss())
    with lrnr.no_bar(): assert quiet(lrnr.fit, 1)[1] != ""  # without bars the plain logger prints each epoch
    assert type(lrnr.progress) is module.QuietProgress
    with lrnr.no_logging(): assert quiet(lrnr.fit, 1)[1] == ""
    lrnr.remove_cb(ProgressCallback)
    assert "progress" not in vars(lrnr)
    with lrnr.removed_cbs(lrnr.recorder): quiet(lrnr.fit, 1)
    quiet(lrnr.fit, 1)
    assert len(history(lrnr)) == 1


def test_hypers_and_gradient_accumulation():
    "A callback that changes the gradient's loss must not change the loss that is kept."
    x, y = points(12)
    pair = []
    for make in (partial(stock, bs=12), tensor_learner):
        lrnr = make(x, y, linear(), nn.MSELoss(), lr=0.1, opt_func=SGD, cbs=GradientAccumulation(24))
        quiet(lrnr.fit, 6)
        pair.append(([p.detach() for p in lrnr.model.parameters()], [o[1] for o in lrnr.recorder.values]))
    assert_close(pair[0][0], pair[1][0], **exactly)
    np.testing.assert_allclose(*[o[1] for o in pair], rtol=2e-6)


# History and validation

@pytest.mark.parametrize("every,validated", [(1, range(7)), (0, [6]), (3, [2, 5, 6]), (7, [6]), (10, [6])])
def test_validate_every(every, validated):
    x, y = points()
    lrnr = fitted(7, x, y, linear(), nn.MSELoss(), metrics=mse, validate_every=every)
    df = history(lrnr)
    assert list(df) == ["epoch", "train_loss", "valid_loss", "mse", "seconds"]
    assert df.index[df.valid_loss.notna()].tolist() == list(validated) == df.index[df.mse.notna()].tolist()
    assert df.train_loss.notna().all()
    full = history(fitted(7, x, y, linear(), nn.MSELoss(), metrics=mse))
    pd.testing.assert_frame_equal(df.loc[validated, "train_loss":"mse"], full.loc[validated, "train_loss":"mse"])
    axis = lrnr.recorder.plot_loss(skip_start=0, ax=plt.figure().gca())
    assert len(axis.lines[-1].get_xdata()) == len(validated)


def test_seconds_are_those_of_each_epoch(monkeypatch):
    "By a clock that only a callback moves on."
    now = [100.]
    monkeypatch.setattr(module.time, "time", lambda: now[0])

    class Ticks(Callback):
        def after_batch(self):
            if self.training: now[0] += self.epoch + 1

    x, y = points()
    assert history(fitted(3, x, y, linear(), nn.MSELoss(), cbs=Ticks)).seconds.tolist() == [1, 2, 3]


def test_early_stopping_counts_validations():
    x, y = points()
    for every, epochs in ((1, 3), (4, 12)):
        lrnr, _ = quiet(tensor_learner, x, y, linear(), nn.MSELoss(), validate_every=every)
        quiet(lrnr.fit, 50, cbs=EarlyStoppingCallback(min_delta=100, patience=2))
        assert len(history(lrnr)) == epochs
    lrnr, _ = quiet(tensor_learner, x, y, linear(), nn.MSELoss(), validate_every=0)
    quiet(lrnr.fit, 50, cbs=EarlyStoppingCallback("train_loss", min_delta=100, patience=2))
    assert len(history(lrnr)) == 3


def test_history_is_of_the_last_fit():
    x, y = points()
    lrnr, _ = quiet(tensor_learner, x, y, linear(), nn.MSELoss())
    with pytest.raises(InputError, match="no history"): history(lrnr)
    quiet(lrnr.fit, 4)
    before = history(lrnr)
    lrnr.validate()
    lrnr.get_preds()
    quiet(lrnr.lr_find, show_plot=False)
    pd.testing.assert_frame_equal(history(lrnr), before)
    assert len(lrnr.recorder.losses) > 50  # those of lr_find, as its plot needs them
    quiet(lrnr.fit, 2)
    lrnr.validate()
    assert [len(getattr(lrnr.recorder, o)) for o in ("lrs", "losses", "iters", "values")] == [2]*4
    assert history(lrnr).epoch.tolist() == [0, 1]
    quiet(lrnr.fit, 5, start_epoch=3)
    assert history(lrnr).epoch.tolist() == [3, 4]


def test_history_of_any_learner():
    x, y = points()
    lrnr = stock(x, y, linear(), nn.MSELoss(), metrics=mse)
    with pytest.raises(InputError, match="no history"): history(lrnr)
    quiet(lrnr.fit, 3)
    df = history(lrnr)
    assert list(df) == ["epoch", "train_loss", "valid_loss", "mse", "seconds"] and len(df) == 3
    np.testing.assert_allclose(df.valid_loss, [o[1] for o in lrnr.recorder.values])


def test_recorder_options():
    x, y = points()
    lrnr, _ = quiet(tensor_learner, x, y, linear(), nn.MSELoss(), metrics=mse)
    lrnr.recorder.train_metrics = True
    quiet(lrnr.fit, 2)
    assert list(history(lrnr)) == ["epoch", "train_loss", "train_mse", "valid_loss", "valid_mse", "seconds"]
    lrnr.recorder.valid_metrics = lrnr.recorder.add_time = False
    quiet(lrnr.fit, 2)
    assert list(history(lrnr)) == ["epoch", "train_loss", "mse", "seconds"] and history(lrnr).mse.notna().all()


# All that a Learner can do

def test_validate_predict_and_preds():
    x, y = letter_data()
    lrnr = fitted(60, x, y, small(), CrossEntropyLossFlat(), lr=0.1, metrics=accuracy)
    loss, acc = lrnr.validate()
    assert acc == 1.0 and loss == history(lrnr).valid_loss.iloc[-1]
    assert lrnr.validate(dl=lrnr.dls.test_dl((x[:8], (y[:8] + 1) % 4), with_labels=True))[1] == 0.0
    preds, targs = lrnr.get_preds()
    assert preds.shape == (299, 4) and torch.equal(targs, y)
    assert_close(preds.sum(1), torch.ones(299))
    inputs, preds, targs, decoded, losses = lrnr.get_preds(ds_idx=0, with_input=True, with_decoded=True, with_loss=True)
    assert torch.equal(inputs, x) and torch.equal(decoded, y) and losses.shape == (299,)
    for item in (2, torch.tensor(2), np.int64(2)):
        target, code, chances = lrnr.predict(item)
        assert int(target) == int(code) == 3 and chances.shape == (4,)
    assert lrnr.predict(2, with_input=True)[0] == 2
    new = lrnr.dls.test_dl(x[:5])
    assert lrnr.get_preds(dl=new)[0].shape == (5, 4) and lrnr.get_preds(dl=new)[1] is None


@pytest.mark.parametrize("bs", [None, 7])
def test_preds_keep_the_order_and_do_not_train(bs):
    x, y = points(30)
    lrnr = fitted(2, x, y, linear(), nn.MSELoss(), bs=bs)
    old = [p.clone() for p in lrnr.model.parameters()]
    for idx in (0, 1):
        preds, targs = lrnr.get_preds(idx)
        assert torch.equal(targs, y)
        assert_close(preds, lrnr.model(x).detach())
    preds, _ = lrnr.get_preds(dl=lrnr.dls.train)  # a loader that shuffles: fastai puts the rows back
    assert_close(preds, lrnr.model(x).detach())
    assert_close(old, list(lrnr.model.parameters()), **exactly)
    longer = torch.randn(100, 3)
    assert_close(lrnr.get_preds(dl=lrnr.dls.test_dl(longer))[0], lrnr.model(longer).detach())


def test_full_batch_stays_full_for_sequences():
    "An LSTM reads the rows of a batch as one text: new data of another length must not be cut."
    pairs = next_token_pairs(number_words())
    x, y = one_hot(pairs.x), codes(pairs.y)
    model = Words()
    lrnr, _ = quiet(tensor_learner, x[:100], y[:100], model, nn.CrossEntropyLoss(), valid=(x, y))
    with torch.no_grad(): want = model(x)
    assert_close(lrnr.get_preds()[0], want, **exactly)
    assert_close(lrnr.get_preds(dl=lrnr.dls.test_dl(x))[0], want, **exactly)
    assert_close(lrnr.predict(x[3])[2], model(x[3:4])[0].detach(), **exactly)


def test_export_and_load(tmp_path):
    x, y = letter_data()
    lrnr = fitted(30, x, y, small(), CrossEntropyLossFlat(), lr=0.1, metrics=accuracy, path=tmp_path)
    lrnr.export("a.pkl")
    assert (tmp_path/"a.pkl").stat().st_size < 100_000  # no data inside
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = load_learner(tmp_path/"a.pkl")
    assert len(back.dls.train_ds) == 0 and type(back) is TensorLearner
    for k in range(4): assert_close(lrnr.predict(k), back.predict(k), **exactly)
    pd.testing.assert_frame_equal(history(back), history(lrnr))
    assert_close(back.get_preds(dl=back.dls.test_dl(pd.Series([0, 1])))[0], lrnr.get_preds()[0][:2])
    quiet(lrnr.fit, 1)  # export leaves the learner as it was
    lrnr.save("weights")
    old = [p.clone() for p in lrnr.model.parameters()]
    quiet(lrnr.fit, 1)
    lrnr.load("weights")
    assert_close(old, list(lrnr.model.parameters()), **exactly)
    copy = pickle.loads(pickle.dumps(lrnr))
    quiet(copy.fit, 1)
    assert len(history(copy)) == 1


def test_trackers(tmp_path):
    x, y = points()
    lrnr = fitted(1, x, y, linear(), nn.MSELoss(), lr=0.1, path=tmp_path)
    _, out = quiet(lrnr.fit, 30, cbs=[SaveModelCallback(fname="best"), ReduceLROnPlateau(patience=1), CSVLogger()])
    assert (tmp_path/"models/best.pth").exists() and "Better model found" in out
    assert lrnr.validate()[0] == history(lrnr).valid_loss.min()
    assert lrnr.csv_logger is None if hasattr(lrnr, "csv_logger") else True
    assert len(pd.read_csv(tmp_path/"history.csv")) == 30
    quiet(lrnr.fit, 6, cbs=SaveModelCallback(fname="each", every_epoch=2))
    assert len(list((tmp_path/"models").glob("each_*.pth"))) == 3


def test_lr_find_leaves_the_weights(tmp_path):
    x, y = letter_data()
    lrnr = fitted(1, x, y, small(), nn.CrossEntropyLoss(), path=tmp_path)
    old = [p.clone() for p in lrnr.model.parameters()]
    found, out = quiet(lrnr.lr_find)
    assert 1e-7 < found.valley < 10 and out == ""
    assert_close(old, list(lrnr.model.parameters()), **exactly)
    theirs, _ = quiet(stock(x, y, small(), nn.CrossEntropyLoss(), path=tmp_path).lr_find)
    ours, _ = quiet(tensor_learner(x, y, small(), nn.CrossEntropyLoss(), path=tmp_path).lr_find)
    assert ours.valley == pytest.approx(theirs.valley, rel=1e-6)


def test_tables(capsys):
    x, y = letter_data()
    lrnr = fitted(60, x, y, small(), CrossEntropyLossFlat(), lr=0.1)
    lrnr.show_results(max_n=4)
    lines = capsys.readouterr().out.strip().split("\n")
    assert lines[0].split() == ["x", "y", "pred"]
    assert [o.split()[1:] for o in lines[1:]] == [["0", "1", "1"], ["1", "2", "2"], ["2", "3", "3"], ["3", "0", "0"]]
    lrnr.dls.show_batch(max_n=2)
    assert capsys.readouterr().out.split() == ["x", "y", "0", "0", "1", "1", "1", "2"]
    pairs = next_token_pairs(number_words(50))
    lrnr, _ = quiet(tensor_learner, one_hot(pairs.x), codes(pairs.y), Words(), CrossEntropyLossFlat())
    lrnr.show_results(max_n=2, shuffle=True)
    assert capsys.readouterr().out.split()[:8] == [*(f"x[{i}]" for i in range(6)), "y", "pred"]
    pictures = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    lrnr, _ = quiet(tensor_learner, torch.rand(4, 1, 8, 8), torch.rand(4, 1), pictures)
    lrnr.show_results(max_n=2)
    assert capsys.readouterr().out.count("1×8×8") == 2


def test_summary_and_graph():
    x, y = letter_data()
    lrnr = fitted(3, x, y, small(), nn.CrossEntropyLoss(), cbs=ShowGraphCallback)
    assert "Embedding" in str(quiet(lrnr.summary)[0])
    assert "QuickRecorder" in quiet(lrnr.show_training_loop)[1]
    assert len(lrnr.recorder.plot_loss(skip_start=0, ax=plt.figure().gca()).lines) == 2


def test_batch_transforms_and_item_transforms():
    x, y = points(10)
    plain = fitted(2, 2*x, y, linear(), nn.MSELoss())

    class TwiceX(Transform):
        def __call__(self, b, **kwargs): return (2*b[0], *b[1:])

    for event in ("after_batch", "after_item"):
        lrnr, _ = quiet(tensor_learner, x, y, linear(), nn.MSELoss())
        lrnr.dls.add_tfms([TwiceX()], event)
        quiet(lrnr.fit, 2)
        assert_close(list(plain.model.parameters()), list(lrnr.model.parameters()), rtol=1e-6, atol=1e-7)


def test_workers():
    rows = TensorRows(points(10), 1)
    for a, b in zip(TensorDL(rows, 4), TensorDL(rows, 4, num_workers=2), strict=True): assert_close(a, b, **exactly)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.one_of(st.none(), st.integers(1, 40)), st.booleans(), st.booleans())
def test_loader_gives_each_row_once(n, bs, shuffle, drop_last):
    rows = TensorRows((torch.arange(n), torch.arange(n).float()[:, None]), 1)
    dl = TensorDL(rows, bs, shuffle=shuffle, drop_last=drop_last)
    batches = list(dl)
    assert len(batches) == len(dl)
    size = bs or n
    seen = torch.cat([b[0] for b in batches]).tolist() if batches else []
    assert len(seen) == (n//size*size if drop_last else n) and len(set(seen)) == len(seen)
    assert all(torch.equal(b[0].float()[:, None], b[1]) for b in batches)
    if not shuffle: assert seen == list(range(len(seen)))
    new = dl.new(torch.arange(2*n))
    assert (new.full_batch, new.bs) == ((True, 2*n) if bs is None else (False, bs))


def test_order_follows_torchs_seed():
    rows = TensorRows((torch.arange(50),), 1)
    dl, orders = TensorDL(rows, 10, shuffle=True), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        orders.append(torch.cat([b[0] for b in dl]).tolist())
    assert orders[0] == orders[1] != orders[2]
    state = torch.get_rng_state()
    list(TensorDL(rows, 10))
    assert torch.equal(state, torch.get_rng_state())


# What x and y may be

def frame(n=12):
    x, y = points(n)
    return pd.DataFrame(x.numpy().astype(float), columns=list("abc")), pd.Series(y[:, 0].numpy().astype(float))


@pytest.mark.parametrize("change", [
    lambda x, y: (x, y.to_frame()), lambda x, y: (x.to_numpy(), y.to_numpy()[:, None]),
    lambda x, y: (x.to_numpy(np.float16).astype(np.float32), y.to_frame()),
    lambda x, y: (torch.tensor(x.to_numpy(), dtype=torch.float32), torch.tensor(y.to_numpy()).float()[:, None]),
    lambda x, y: (x.astype("Float64"), y.astype("Float32").to_frame()),
    lambda x, y: (x.set_index(np.arange(12)[::-1]), y.to_frame())])
def test_kinds_of_data(change):
    x, y = frame()
    lrnr = fitted(2, *change(x, y), linear(), nn.MSELoss())
    tensors = torch.tensor(x.to_numpy()).float(), torch.tensor(y.to_numpy()).float()[:, None]
    want = fitted(2, *tensors, linear(), nn.MSELoss())
    for a, b in zip(lrnr.model.parameters(), want.model.parameters()): assert_close(a, b, rtol=2e-3, atol=2e-3)
    assert_close(lrnr.predict(x.iloc[0])[1], lrnr.model(torch.tensor(x.iloc[0].to_numpy()).float()).detach())


def test_whole_numbers_and_booleans():
    x = pd.DataFrame({"a": [1, 2, 3, 4], "b": [True, False, True, False], "c": [0.5, 1, 1, 2]})
    lrnr, out = quiet(tensor_learner, x, x.b, linear(3, 2))
    assert lrnr.dls.train_ds.tensors[0].dtype == torch.float32 and lrnr.dls.train_ds.tensors[1].tolist() == [1, 0, 1, 0]
    assert "CrossEntropyLossFlat" in out
    lrnr, _ = quiet(tensor_learner, x.a.astype("uint8") % 4, np.array([0, 1, 1, 0], np.uint16), nn.Embedding(4, 2))
    quiet(lrnr.fit, 1)
    lrnr, _ = quiet(tensor_learner, np.array([[True], [False]]), np.array([[1.], [2.]]), linear(1, 1))
    assert lrnr.dls.train_ds.tensors[0].tolist() == [[1.], [0.]]


def test_double_precision():
    x, y = points()
    for data in ((x.double(), y.double()), (x.double().numpy(), y.double().numpy())):
        lrnr = fitted(3, *data, linear().double(), nn.MSELoss())
        assert next(lrnr.model.parameters()).dtype == torch.float64 and history(lrnr).valid_loss.notna().all()


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(43052)
        self.emb, self.out = nn.Embedding(5, 2), nn.Linear(5, 1)

    def forward(self, code, numbers): return self.out(torch.cat([self.emb(code), numbers], 1))


@pytest.mark.parametrize("bs", [None, 4])
def test_several_inputs(bs, tmp_path, capsys):
    numbers, y = points(10)
    code = torch.arange(10) % 5
    valid = (code[:3], numbers[:3]), y[:3]
    lrnr = fitted(3, (code, numbers), y, Two(), nn.MSELoss(), bs=bs, valid=valid, path=tmp_path)
    assert lrnr.predict((code[0], numbers[0]))[1].shape == (1,)
    assert_close(lrnr.get_preds(dl=lrnr.dls.test_dl((code, numbers)))[0], lrnr.model(code, numbers).detach())
    capsys.readouterr()
    lrnr.show_results(max_n=2)
    assert capsys.readouterr().out.split()[:2] == ["x1", "x2[0]"]
    lrnr.export("two.pkl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = load_learner(tmp_path/"two.pkl")
    assert_close(back.predict((code[0], numbers[0])), lrnr.predict((code[0], numbers[0])))


def swapped(df): return df[df.columns[::-1]]


@pytest.mark.parametrize("as_valid,as_row", [(swapped, swapped), (lambda df: df, lambda df: df), (np.array, np.array)])
def test_columns_are_matched_by_name(as_valid, as_row):
    "Another order of the columns changes nothing, in validation data, new data, and single rows; arrays have no names."
    x, _ = frame(30)
    y = pd.DataFrame({"u": 3*x.a - x.b, "v": x.c})
    lrnr, _ = quiet(tensor_learner, x, y, linear(3, 2), MSELossFlat(), valid=(as_valid(x), as_valid(y)), lr=0.1, bs=10)
    quiet(lrnr.fit, 5)
    want = lrnr.model(torch.tensor(x.to_numpy()).float()).detach()
    loss = F.mse_loss(want, torch.tensor(y.to_numpy()).float()).item()
    assert history(lrnr).valid_loss.iloc[-1] == pytest.approx(loss, rel=1e-5)
    assert_close(lrnr.get_preds(dl=lrnr.dls.test_dl(as_row(x)))[0], want)
    for i in (0, 7):
        row = as_row(x)
        assert_close(lrnr.predict(row[i] if isinstance(row, np.ndarray) else row.iloc[i])[1], want[i])


@pytest.mark.parametrize("change,message", [
    (lambda x: x[["a", "b"]], "no column 'c'"), (lambda x: x.rename(columns={"c": "d"}), "no column 'c'"),
    (lambda x: x.assign(d=1.), "another column 'd'"), (lambda x: x.set_axis([0, 1, 2], axis=1), "no column 'a'")])
def test_other_columns_are_refused(change, message):
    x, y = frame()
    lrnr, _ = quiet(tensor_learner, x, y.to_frame(), linear(), MSELossFlat())
    for bad in (lambda: lrnr.predict(change(x).iloc[0]), lambda: lrnr.dls.test_dl(change(x)),
                lambda: quiet(tensor_learner, x, y.to_frame(), linear(), valid=(change(x), y.to_frame()))):
        with pytest.raises(InputError, match=message): bad()


def test_columns_of_several_inputs_survive_export(tmp_path):
    numbers, _ = frame(10)
    table = pd.DataFrame({"k": np.arange(10) % 5})
    lrnr, _ = quiet(tensor_learner, (table.k, numbers), numbers[["a"]], Two(), MSELossFlat(), path=tmp_path)
    lrnr.export("two.pkl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = load_learner(tmp_path/"two.pkl")
    want = lrnr.model(torch.arange(10) % 5, torch.tensor(numbers.to_numpy()).float()).detach()
    assert_close(back.predict((table.k[3], swapped(numbers).iloc[3]))[1], want[3])
    with pytest.raises(InputError, match="the code 5"): back.predict((5, numbers.iloc[3]))


@pytest.mark.parametrize("table", [
    pd.DataFrame({"a": [1., 2., 3., 4.], "b": [True, False, True, False]}),
    pd.DataFrame({"a": [1, 2, 3, 4], "b": [True, False, True, False], "c": [0.5, 1, 1, 2]}),
    pd.DataFrame({"a": [1., 2., 3., 4.], "b": pd.array([True, False, True, False], "boolean")}),
    pd.DataFrame({"a": [1, 2, 3, 4], "b": [0.5, 1, 1, 2]}).convert_dtypes()])
def test_a_row_of_the_table_itself(table):
    "A row of columns of several types is a Series of objects."
    lrnr, _ = quiet(tensor_learner, table, pd.DataFrame({"y": [1., 2., 3., 4.]}), linear(table.shape[1]), MSELossFlat())
    for i in range(4):
        want = lrnr.model(torch.tensor(table.astype(float).to_numpy()).float()[i:i+1])[0].detach()
        assert_close(lrnr.predict(table.iloc[i])[1], want)
    row = table.iloc[0].astype(object)
    row["a"] = None
    with pytest.raises(InputError, match="'a'. has no value"): lrnr.predict(row)


class Columns(nn.Module):
    "Two columns of codes, each with its own vocabulary."
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Embedding(3, 2), nn.Embedding(5, 2), nn.Linear(4, 2)

    def forward(self, x): return self.out(torch.cat([self.a(x[:, 0]), self.b(x[:, 1])], 1))


def test_codes_outside_of_the_vocabulary():
    "Each layer looks at its own column; the data is looked at before a fit, new rows before a prediction."
    x = torch.stack([torch.arange(12) % 3, torch.arange(12) % 5], 1)
    y = torch.arange(12) % 2
    lrnr, _ = quiet(tensor_learner, x, y, Columns(), CrossEntropyLossFlat(), bs=5)
    quiet(lrnr.fit, 1)
    assert lrnr.predict(torch.tensor([2, 4]))[2].shape == (2,)
    for row, message in (([3, 0], r"code 3, but the model's Embedding\(3, 2\)"), ([0, -1], "code -1"),
                         ([0, 5], r"code 5, but the model's Embedding\(5, 2\)")):
        with pytest.raises(InputError, match=message): lrnr.predict(torch.tensor(row))
        with pytest.raises(InputError, match=message): lrnr.dls.test_dl(torch.tensor([row, [0, 0]]))
        bad = x.clone()
        bad[7] = torch.tensor(row)  # neither in the first nor in the last batch
        for valid in (None, (bad, y)):
            with pytest.raises(InputError, match=message):
                train = bad if valid is None else x
                quiet(tensor_learner, train, y, Columns(), CrossEntropyLossFlat(), valid=valid, bs=5)
    assert not any(m._forward_pre_hooks for m in lrnr.model.modules())


def without_data(tmp_path):
    lrnr = fitted(1, *letter_data(), small(), CrossEntropyLossFlat(), path=tmp_path)
    lrnr.recorder.rows = []
    lrnr.export("a.pkl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_learner(tmp_path/"a.pkl")


def test_learners_without_data_say_so(tmp_path):
    back = without_data(tmp_path)
    message = r"has no (training|validation) data.*tensor_learner\(x, y, lrnr\.model\)"
    for f in (lambda: back.fit(1), lambda: back.fit_one_cycle(1), lambda: back.fine_tune(1), back.lr_find,
              back.validate, back.get_preds, back.show_results, lambda: history(back), lambda: check_data(back),
              lambda: Interpretation.from_learner(back)):
        with pytest.raises(InputError, match=message): f()
    assert back.predict(2)[2].shape == (4,)
    # the way out that it tells
    again = fitted(1, *letter_data(), back.model, CrossEntropyLossFlat())
    assert len(history(again)) == 1


def test_any_learner_can_say_so():
    "The same for a Learner on fastai's own loaders."
    x, y = points()
    lrnr = stock(x, y, linear(), nn.MSELoss(), cls=DataLearner)
    quiet(lrnr.fit, 1)
    assert len(history(lrnr)) == 1 and len(lrnr.validate()) == 1
    empty = DataLoader(TensorDataset(x[:0], y[:0]))
    lrnr.dls = DataLoaders(empty, empty)
    lrnr.new_data = "ask the owner"
    for f in (lambda: lrnr.fit(1), lrnr.lr_find, lrnr.validate):
        with pytest.raises(InputError, match="data, as after loading it; ask the owner"): f()


def test_a_fit_after_an_interrupt_starts_with_clean_gradients():
    x, y = points()

    class Interrupt(Callback):
        def after_backward(self):
            if self.learn.train_iter == 2: raise KeyboardInterrupt

    lrnr, _ = quiet(tensor_learner, x, y, linear(), nn.MSELoss(), opt_func=SGD, lr=0.1)
    with pytest.raises(KeyboardInterrupt): quiet(lrnr.fit, 5, cbs=Interrupt())
    assert len(history(lrnr)) == 3 and history(lrnr).valid_loss.notna().tolist() == [True, True, False]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in lrnr.model.parameters())
    copy = linear()
    copy.load_state_dict(lrnr.model.state_dict())
    lrnr.remove_cbs(lrnr._grab_cbs(Interrupt))
    quiet(lrnr.fit, 1)
    opt = torch.optim.SGD(copy.parameters(), lr=0.1)
    F.mse_loss(copy(x), y).backward()
    opt.step()
    assert_close(list(lrnr.model.parameters()), list(copy.parameters()))
    assert len(history(lrnr)) == 1


class Explodes(nn.Module):
    "NaN from call number `at`, where the trial does not count."
    def __init__(self, at):
        super().__init__()
        self.lin, self.at, self.calls = nn.Linear(3, 1), at, 0

    def forward(self, x):
        self.calls += self.training
        return self.lin(x) * (math.nan if self.calls > self.at else 1.)


@pytest.mark.parametrize("bs,at,epochs,partial_loss",
                         [(None, 3, 4, False), (None, 0, 1, False), (10, 3, 2, True), (10, 2, 2, False)])
def test_history_after_terminate_on_nan(bs, at, epochs, partial_loss):
    "Complete epochs, and the one that ended early: the loss of its good batches, no validation."
    x, y = points()
    lrnr, _ = quiet(tensor_learner, x, y, Explodes(99), nn.MSELoss(), bs=bs)
    quiet(lrnr.fit, 2)
    lrnr.model.calls, lrnr.model.at = 0, at
    quiet(lrnr.fit, 8, cbs=TerminateOnNaNCallback())
    df = history(lrnr)
    assert df.epoch.tolist() == list(range(epochs)) and list(df) == ["epoch", "train_loss", "valid_loss", "seconds"]
    assert df.iloc[:-1].notna().all().all() and math.isnan(df.valid_loss.iloc[-1])
    assert df.train_loss.notna().iloc[-1] == partial_loss
    lrnr.validate()  # changes nothing of it
    pd.testing.assert_frame_equal(history(lrnr), df)


# fastai's interpretation

def test_interpretation_of_classes(capsys):
    x, _ = points(40)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    lrnr = fitted(5, x, y, linear(3, 3), CrossEntropyLossFlat(), lr=0.1)
    interp = ClassificationInterpretation.from_learner(lrnr)
    with torch.no_grad(): out = lrnr.model(x)
    want = np.zeros((3, 3), int)
    for a, b in zip(y.tolist(), out.argmax(1).tolist()): want[a, b] += 1
    assert (interp.confusion_matrix() == want).all()
    assert sum(o[2] for o in interp.most_confused()) == want.sum() - want.trace()
    interp.plot_confusion_matrix()
    capsys.readouterr()
    interp.print_classification_report()
    assert "accuracy" in capsys.readouterr().out
    losses = F.cross_entropy(out, y, reduction="none")
    top, rows = interp.top_losses(3)
    assert_close(top, losses.topk(3).values)
    interp.plot_top_losses(3)
    lines = capsys.readouterr().out.strip().split("\n")
    assert lines[0].split() == ["x[0]", "x[1]", "x[2]", "y", "pred", "loss"] and len(lines) == 4
    np.testing.assert_allclose([float(o.split()[-1]) for o in lines[1:]], top, rtol=1e-4)
    assert [int(o.split()[-3]) for o in lines[1:]] == y[rows].tolist()


def test_interpretation_of_other_learners(capsys):
    numbers, y = points(10)
    lrnr = fitted(1, (torch.arange(10) % 5, numbers), y, Two(), MSELossFlat())
    Interpretation.from_learner(lrnr).plot_top_losses(2)
    assert capsys.readouterr().out.split()[:2] == ["x1", "x2[0]"]
    lrnr = fitted(1, numbers, (y > 0).float(), linear(), BCEWithLogitsLossFlat())
    assert ClassificationInterpretation.from_learner(lrnr).confusion_matrix().sum() == 10


# Modes

class Walk(torch.optim.Optimizer):
    "A plain step of gradient descent, decorated as torch's documentation shows it."
    def __init__(self, params, lr=0.1): super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]: p -= group["lr"]*p.grad


@pytest.mark.parametrize("opt", [partial(torch.optim.SGD, lr=0.1), Walk])
def test_what_is_hooked_to_a_step_runs(opt):
    x, y = points()
    def trained(change):
        lrnr = tensor_learner(x, y, linear(), nn.MSELoss(), opt_func=partial(OptimWrapper, opt=opt))
        with lrnr.no_logging(), lrnr.no_bar():
            lrnr.fit(1)
            with change(lrnr.opt.opt): lrnr.fit(1)
        return lrnr
    seen = []
    note = lambda *args: seen.append(args[0])
    @contextlib.contextmanager
    def hooked(*ways):
        handles = [way(note) for way in ways]
        yield
        for h in handles: h.remove()
    bare = trained(lambda opt: contextlib.nullcontext())
    own = trained(lambda opt: hooked(opt.register_step_pre_hook, opt.register_step_post_hook))
    assert seen == [own.opt.opt]*2
    everyones = trained(lambda opt: hooked(register_optimizer_step_pre_hook, register_optimizer_step_post_hook))
    assert seen[2:] == [everyones.opt.opt]*2
    profile = torch.profiler.profile()
    profiled = trained(lambda opt: profile)
    assert [o.count for o in profile.key_averages() if o.key.startswith("Optimizer.step#")] == [1]
    for lrnr in (own, everyones, profiled): assert_close(lrnr.model.weight, bare.model.weight, **exactly)


def test_a_scheduler_of_torch_counts_steps():
    x, y = points()
    lrnr = tensor_learner(x, y, linear(), nn.MSELoss(), opt_func=torch_adam)
    with lrnr.no_logging(), lrnr.no_bar():
        lrnr.fit(1)
        schedule = torch.optim.lr_scheduler.StepLR(lrnr.opt.opt, 1)
        lrnr.fit(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")                       # torch warns where it saw no step before
        schedule.step()


class OwnTrain(nn.BatchNorm1d):
    "Its statistics stay as they are."
    def train(self, mode=True): return super().train(False)


def test_modes_are_torchs():
    "Modules with an own `train`, by class or by instance, keep it."
    x, y = points()
    patched = nn.BatchNorm1d(3).eval()
    patched.train = lambda mode=True: patched
    seen = []

    class Look(nn.Module):
        def forward(self, x):
            seen.append([m.training for m in model.modules()])
            return x

    model = nn.Sequential(OwnTrain(3), patched, nn.Sequential(nn.Dropout(), Look()), linear())
    model[0].eval()
    lrnr, _ = quiet(tensor_learner, x, y, model, nn.MSELoss())
    seen.clear()
    quiet(lrnr.fit, 1)
    assert seen == [[True, False, False, True, True, True, True], [False]*7]


def test_data_is_a_copy_of_a_table_and_never_of_a_tensor():
    x, y = points()
    array = x.numpy().copy()
    lrnr, _ = quiet(tensor_learner, array, y, linear())
    array[:] = 0
    assert_close(lrnr.dls.train_ds.tensors[0], x)
    lrnr, _ = quiet(tensor_learner, x, y, linear())
    assert lrnr.dls.one_batch()[0].data_ptr() == x.data_ptr()


def test_device_is_fastais():
    default_device(None)
    x, y = points()
    lrnr = fitted(2, x, y, linear(), nn.MSELoss())
    assert next(lrnr.model.parameters()).device == default_device() == lrnr.dls.one_batch()[0].device
    lrnr.dls.to("cpu")
    assert torch.device(lrnr.dls.device) == torch.device("cpu") == lrnr.dls.train.one_batch()[0].device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("bs", [None, 100])
def test_on_a_gpu(bs):
    "The data moves once, for all loaders; the numbers are near those of a CPU."
    default_device(None)
    x, y = letter_data()
    torch.manual_seed(1)
    lrnr = fitted(5, x, y, small(), CrossEntropyLossFlat(), bs=bs, lr=0.1, metrics=accuracy)
    train, valid = (next(iter(dl.new(shuffle=False, bs=None)))[0] for dl in lrnr.dls.loaders)
    assert train.is_cuda and train.data_ptr() == valid.data_ptr() and lrnr.predict(2)[2].shape == (4,)
    default_device(False)
    torch.manual_seed(1)
    want = fitted(5, x, y, small(), CrossEntropyLossFlat(), bs=bs, lr=0.1, metrics=accuracy)
    np.testing.assert_allclose(history(lrnr).valid_loss, history(want).valid_loss, rtol=1e-3)


def test_inferred_losses():
    x, y = points()
    for target, model, name in ((y, linear(), "MSELossFlat"), (y[:, 0], linear(), "MSELossFlat"),
                                ((y[:, 0] > 0).long(), linear(3, 2), "CrossEntropyLossFlat"),
                                ((y > 0).float(), linear(), "MSELossFlat, since y holds floats (for yes or no")):
        lrnr, out = quiet(tensor_learner, x, target, model)
        assert out.startswith(f"loss_func: {name}") and out.count("\n") == 1
        quiet(lrnr.fit, 1)
    assert quiet(tensor_learner, x, y, linear(), nn.MSELoss())[1] == ""


@pytest.mark.parametrize("loss_func,n_out,target", [
    (BCEWithLogitsLossFlat(), 1, lambda y: (y > 0).long()),
    (BCEWithLogitsLossFlat(), 1, lambda y: (y[:, 0] > 0).float()),
    (nn.BCEWithLogitsLoss(), 1, lambda y: (y > 0).float()), (F.mse_loss, 1, lambda y: y),
    (partial(F.cross_entropy, ignore_index=9), 2, lambda y: torch.where(y[:, 0] > 1, 9, 1)),
    (nn.CrossEntropyLoss(ignore_index=9), 2, lambda y: torch.where(y[:, 0] > 1, 9, 1)),
    (CrossEntropyLossFlat(ignore_index=9), 2, lambda y: torch.where(y > 1, 9, 1)),
    (nn.CrossEntropyLoss(weight=torch.ones(2)), 2, lambda y: torch.ones(20, dtype=torch.int32)),
    (nn.CrossEntropyLoss(), 2, lambda y: torch.full((20, 2), 0.5)), (nn.HuberLoss(), 1, lambda y: y),
    (lambda pred, y: ((pred - y)**2).mean(), 1, lambda y: y), (MSELossFlat(), 1, lambda y: y.long())])
def test_losses_that_fit(loss_func, n_out, target):
    x, y = points()
    lrnr = fitted(2, x, target(y), linear(3, n_out), loss_func)
    assert history(lrnr).valid_loss.notna().all()


def test_class_axis_1():
    "One class for each place of a picture or a text."
    x, y = torch.randn(6, 2, 5), torch.randint(0, 3, (6, 5))
    for loss_func in (nn.CrossEntropyLoss(), CrossEntropyLossFlat(axis=1)):
        fitted(2, x, y, nn.Conv1d(2, 3, 1), loss_func)


# The progress table

def lines(n, **kwargs):
    x, y = points(6)
    lrnr, _ = quiet(tensor_learner, x, y, linear(), nn.MSELoss(), **kwargs)
    return [o.split() for o in quiet(lrnr.fit, n)[1].strip().split("\n")]


@pytest.mark.parametrize("n", [1, 2, 19, 20])
def test_few_epochs_each_have_a_line(n):
    table = lines(n)
    assert table[0] == ["epoch", "train_loss", "valid_loss", "time"]
    assert [int(o[0]) for o in table[1:]] == list(range(n))


@pytest.mark.parametrize("n", [21, 50, 333])
def test_many_epochs_have_about_twenty_lines(n):
    epochs = [int(o[0]) for o in lines(n)[1:]]
    assert epochs[0] == 0 and epochs[-1] == n-1 and 10 <= len(epochs) <= 22 and epochs == sorted(set(epochs))


def test_an_ended_fit_shows_its_last_epoch():
    x, y = points(6)
    lrnr, _ = quiet(tensor_learner, x, y, linear(), nn.MSELoss())
    _, out = quiet(lrnr.fit, 1000, cbs=EarlyStoppingCallback(min_delta=100, patience=17))
    assert out.strip().split("\n")[-1].split()[0] == str(len(history(lrnr)) - 1) == "17"


def test_no_validation_is_a_blank_in_the_table():
    assert [len(o) for o in lines(4, validate_every=2)] == [4, 3, 4, 3, 4]


def test_no_bar_where_nobody_looks(monkeypatch):
    x, y = points(6)
    assert "\r" not in quiet(fitted, 3, x, y, linear(), nn.MSELoss())[1]
    lrnr, _ = quiet(tensor_learner, x, y, linear(), nn.MSELoss(), bs=2)
    assert "\r" not in quiet(lrnr.fit, 30)[1] and "█" not in quiet(lrnr.fit, 3)[1]


@pytest.mark.parametrize("bs", [None, 2])
def test_bars_on_a_terminal(monkeypatch, bs):
    "Each drawing is counted with a clock that jumps 0.05 s at each look."
    x, y = points(6)
    monkeypatch.setattr(module, "is_terminal", lambda: True)
    monkeypatch.setattr("fastprogress.fastprogress.NO_BAR", False)  # `plain_bars` of another test may have set it
    now = [0.]

    def clock():
        now[0] += 0.05
        return now[0]

    lrnr, _ = quiet(tensor_learner, x, y, linear(), nn.MSELoss(), bs=bs)
    monkeypatch.setattr(module.time, "monotonic", clock)
    _, out = quiet(lrnr.fit, 40)
    drawn = out.count("%")
    assert 0 < drawn <= now[0]/module._pause*2 + 2  # a new bar is drawn once empty
    assert lrnr.progress.mbar is None and lrnr.logger is print


# Bad input

def bad(**kwargs):
    "Arguments that are right but for `kwargs`."
    x, y = points()
    return {**dict(x=x, y=y, model=linear(), loss_func=nn.MSELoss()), **kwargs}


def with_nan(t, value=math.nan):
    t = t.clone()
    t[3] = value
    return t


class InPlace(nn.Linear):
    def forward(self, x): return super().forward(x.mul_(2))


class Detached(nn.Linear):
    def forward(self, x): return super().forward(x).detach()


class Shifted(nn.Embedding):
    def __init__(self, *args):
        super().__init__(*args)
        self.inner = nn.Embedding(*args)

    def forward(self, x): return self.inner(x + 1)


class Fails(nn.Linear):
    def forward(self, x): raise KeyError("inner\nsecond line")


def lazy(): return nn.LazyLinear(1)


def in_inference_mode(make):
    "A clone of a tensor, or what a function makes, in inference mode."
    with torch.inference_mode(): return make.clone() if isinstance(make, torch.Tensor) else make()


def cases():
    x, y = points()
    code = (y[:, 0] > 0).long()
    classes = dict(model=linear(3, 2), loss_func=nn.CrossEntropyLoss())
    table = pd.DataFrame(x.numpy(), columns=list("abc"))
    return {
        "x list": (dict(x=x.tolist()), "type list"),
        "x None": (dict(x=None), "type NoneType"),
        "x str": (dict(x="abc"), "type str"),
        "x empty": (dict(x=x[:0]), "a row at least"),
        "x no columns": (dict(x=x[:, :0]), "a row at least"),
        "x scalar": (dict(x=torch.tensor(1.)), "a row at least"),
        "x empty tuple": (dict(x=()), "empty tuple"),
        "x tuple part": (dict(x=(x, None)), r"x\[1\] is of type"),
        "x NaN": (dict(x=with_nan(x)), "NaN or infinity, first in row 3"),
        "x inf": (dict(x=with_nan(x, -math.inf)), "NaN or infinity"),
        "x gradient": (dict(x=x.clone().requires_grad_()), r"x\.detach"),
        "x sparse": (dict(x=x.to_sparse()), r"x\.to_dense"),
        "x sparse rows": (dict(x=x.to_sparse_csr()), r"x\.to_dense"),
        "x meta": (dict(x=x.to("meta")), "meta tensor"),
        "x nested": (dict(x=torch.nested.nested_tensor([x[0], x[1, :2]])), "nested"),
        "x made in inference mode": (dict(x=in_inference_mode(x)), r"x\.clone\(\)"),
        "y made in inference mode": (dict(y=in_inference_mode(y)), r"y\.clone\(\)"),
        "x masked": (dict(x=np.ma.masked_less(x.numpy(), 0)), "masked"),
        "y masked": (dict(y=np.ma.masked_less(y.numpy(), 0)), "masked"),
        "x complex": (dict(x=x.to(torch.complex64)), "real numbers"),
        "x objects": (dict(x=np.array([object()]*20)), "array of object"),
        "x strings": (dict(x=np.array(["a"]*20)), "not of numbers"),
        "x string column": (dict(x=table.assign(b="k")), r"x\['b'\] holds (str|object) values"),
        "x category column": (dict(x=table.assign(b=pd.Categorical(["k"]*20))), r"x\['b'\] holds category"),
        "x date column": (dict(x=table.assign(b=pd.Timestamp("2020-01-01"))), r"x\['b'\] holds datetime"),
        "x missing": (dict(x=table.assign(b=pd.array([1, None]*10, "Int64"))), r"x\['b'\] has no value in row 1"),
        "x table without columns": (dict(x=table[[]]), "without columns"),
        "x columns": (dict(x=x[:, :2]), r"does not take x of shape \(20, 2\)"),
        "x whole numbers for Linear": (dict(x=x.long()), "type torch.int64"),
        "x double for float": (dict(x=x.double()), "type torch.float64"),
        "x code outside": (dict(x=torch.arange(20), model=nn.Embedding(3, 1)), "code 19, .* takes the codes 0 to 2"),
        "x code made outside": (dict(x=torch.arange(20) % 3, model=Shifted(3, 1)), "gives the codes 1 to 3"),
        "x code outside, in a middle batch": (dict(x=(torch.arange(20) == 9)*5, bs=4, model=nn.Embedding(3, 1)),
                                              "code 5"),
        "x code negative": (dict(x=-torch.arange(20), model=nn.Embedding(20, 1)), "code -19"),
        "valid code outside": (dict(x=code, valid=(code + 2, y), model=nn.Embedding(3, 1)),
                               "validation data has the code 3"),
        "y list": (dict(y=[1.]*20), "y is of type list"),
        "y tuple": (dict(y=(y, y)), "y is of type tuple"),
        "y rows": (dict(y=y[:-1]), "the same number of rows, not 20 and 19"),
        "y NaN": (dict(y=with_nan(y)), "y has NaN"),
        "y Series strings": (dict(y=pd.Series(["a"]*20)), "y holds (str|object) values"),
        "y gradient": (dict(y=y.clone().requires_grad_()), r"y\.detach"),
        "y broadcasts": (dict(y=y[:, 0]), r"shape \(20, 1\) for y of shape \(20,\).*y\.reshape\(-1, 1\)"),
        "y broadcasts the other way": (dict(model=nn.Sequential(linear(), nn.Flatten(0))), r"y\.reshape\(-1\)"),
        "y columns, flat loss": (dict(y=torch.cat([y, y], 1), loss_func=MSELossFlat()), "give both the same shape"),
        "y whole for MSE": (dict(y=y.long()), "MSELoss needs y as floats"),
        "y whole for BCE": (dict(y=code[:, None], loss_func=nn.BCEWithLogitsLoss()), "needs y as floats"),
        "y outside 0..1": (dict(loss_func=nn.BCEWithLogitsLoss()), "between 0 and 1, but y goes from -"),
        "y outside 0..1, flat": (dict(loss_func=BCEWithLogitsLossFlat()), "BCEWithLogitsLoss needs y between 0 and 1"),
        "output outside 0..1": (dict(y=code[:, None].float(), loss_func=nn.BCELoss()), r"nn\.Sigmoid"),
        "output outside 0..1, flat": (dict(y=code[:, None].float(), loss_func=BCELossFlat()), r"nn\.Sigmoid"),
        "y float for CE": (dict(y=code.float(), **classes), "whole numbers, not as torch.float32"),
        "y (n,1) for CE": (dict(y=code[:, None], **classes), r"needs y of shape \(20,\), not \(20, 1\)"),
        "y code too large": (dict(y=code + 1, **classes), "class code 2, but the model has 2 outputs"),
        "y code negative": (dict(y=code - 1, **classes), "class code -1"),
        "y code too large, flat": (dict(y=code + 5, **{**classes, "loss_func": None}), "class code 6"),
        "y all ignored": (dict(y=torch.full((20,), -100), **classes), "All of y is -100"),
        "one output for CE": (dict(y=code, loss_func=nn.CrossEntropyLoss()), "one output"),
        "output no log-probabilities": (dict(y=code, model=linear(3, 2), loss_func=nn.NLLLoss()), "LogSoftmax"),
        "model class": (dict(model=nn.Linear), "is a class"),
        "model function": (dict(model=torch.tanh), "pass a torch module"),
        "model None": (dict(model=None), "pass a torch module"),
        "model without parameters": (dict(model=nn.Tanh()), "none to train"),
        "model frozen": (dict(model=linear().requires_grad_(False)), "none to train"),
        "model lazy": (dict(model=lazy()), "lazy"),
        "model meta": (dict(model=nn.Linear(3, 1, device="meta")), "meta device"),
        "model made in inference mode": (dict(model=in_inference_mode(linear)), "inference mode"),
        "model fails": (dict(model=Fails(3, 1)), "does not take x"),
        "model with a tuple": (dict(model=nn.LSTM(3, 1)), "as nn.LSTM does"),
        "model NaN": (dict(model=nn.Sequential(linear(), nn.Threshold(9e9, math.nan))), "NaN or infinity before"),
        "model changes x": (dict(model=InPlace(3, 1)), "in place"),
        "model detached": (dict(model=Detached(3, 1)), "depends on no parameter"),
        "model two inputs": (dict(x=(x, x)), "does not take x of shape"),
        "BatchNorm, one row left": (dict(model=nn.Sequential(nn.BatchNorm1d(3), linear()), bs=19), r"shape \(1, 3\)"),
        "loss class": (dict(loss_func=nn.MSELoss), r"pass MSELoss\(\)"),
        "loss name": (dict(loss_func="mse"), "loss_func='mse'"),
        "loss not made": (dict(loss_func=MSELossFlat), r"pass MSELossFlat\(\)"),
        "loss for each row": (dict(loss_func=nn.MSELoss(reduction="none")), "not one number"),
        "loss that fails": (dict(loss_func=lambda p, y: p.no_such), "does not take the model's output"),
        "loss infinite": (dict(loss_func=lambda p, y: p.mean()/0), "first loss is"),
        "metric": (dict(metrics=lambda p, y: p.no_such), "The metric <lambda> does not take"),
        "metric no function": (dict(metrics="accuracy"), "metric accuracy"),
        "metric for each row": (dict(metrics=[lambda p, y: p]), "more than one number"),
        "valid one": (dict(valid=(x,)), r"pair \(x, y\)"),
        "valid tensor": (dict(valid=x), r"pair \(x, y\)"),
        "valid rows": (dict(valid=(x, y[:3])), "of the validation data must have the same number"),
        "valid columns": (dict(valid=(x[:, :2], y)), r"row of the validation data has shape \(2,\)"),
        "valid y shape": (dict(valid=(x, y[:, 0])), r"row of the validation data has shape \(\)"),
        "valid NaN": (dict(valid=(with_nan(x), y)), "NaN"),
        "valid inputs": (dict(valid=((x, x), y)), "has 2 inputs, the training data has 1"),
        "valid codes": (dict(y=code, valid=(x, code + 3), **classes), "class code 4"),
        "valid floats for codes": (dict(y=code, valid=(x, code.float()), **classes), "pass whole numbers"),
        **{f"bs {o}": (dict(bs=o), "bs=") for o in (0, -1, 21, 2.5, True, "4")},
        **{f"lr {o}": (dict(lr=o), "lr=") for o in (0, -1e-3, math.nan, math.inf, None, "0.1", True, slice(0, -1))},
        **{f"validate_every {o}": (dict(validate_every=o), "validate_every=") for o in (-1, 0.5, None, False)},
        "opt torch": (dict(opt_func=torch.optim.Adam), "partial\\(OptimWrapper, opt=torch.optim.Adam\\)"),
        "opt partial torch": (dict(opt_func=partial(torch.optim.SGD, momentum=0.9)), "OptimWrapper"),
        "opt name": (dict(opt_func="adam"), "no optimiser"),
        "lr empty": (dict(lr=[]), r"lr=\[\] is empty"),
        **{f"cbs {o}": (dict(cbs=o), "no callback") for o in (3, "early", [Callback, 3], nn.Tanh)},
        **{f"splitter {o}": (dict(splitter=o), "splitter=.* is no function") for o in (3, "body")},
        "path": (dict(path=3), "path=3 is no folder"),
        "x column twice": (dict(x=table.set_axis(list("aba"), axis=1)), "x has two columns 'a'"),
        "y column twice": (dict(y=table.set_axis(list("bba"), axis=1)), "y has two columns 'b'"),
    }


@pytest.mark.parametrize("name", cases())
def test_bad_input(name):
    "One line that says what is wrong, before anything is printed or drawn; model and random state stay as they were."
    change, message = cases()[name]
    args = bad(**change)
    model = args["model"]
    has_state = isinstance(model, nn.Module) and name != "model lazy"
    state = {k: v.clone() for k, v in model.state_dict().items()} if has_state else {}
    seed = torch.get_rng_state()
    with pytest.raises(InputError, match=message) as e: quiet(tensor_learner, **args)
    text = str(e.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 300, text
    assert torch.equal(seed, torch.get_rng_state())
    for k, v in state.items(): assert_close(v, model.state_dict()[k], **exactly)


def test_at_least_twenty_kinds(): assert len(cases()) >= 20


@pytest.mark.parametrize("bad", [None, "model.pkl", 3, linear(), TensorLearner], ids=str)
def test_what_is_no_learner(bad):
    for f in (history, check_data):
        with pytest.raises(InputError, match="The learner is .*pass a Learner"): f(bad)


@pytest.mark.parametrize("bad", [2, -3, "valid", None])
def test_data_that_a_learner_does_not_have(bad):
    lrnr, _ = quiet(tensor_learner, *points(), linear())
    for f in (lrnr.validate, lrnr.get_preds, lrnr.show_results, partial(check_data, lrnr)):
        with pytest.raises(InputError, match="ds_idx=.*give 0, the training data"): quiet(f, bad)


@pytest.mark.parametrize("item,message", [
    (torch.zeros(2), r"shape \(2,\)"), ("a", "no tensors"), (None, "no tensors"), (torch.full((3,), math.nan), "NaN"),
    (torch.zeros(1, 3), r"shape \(1, 3\)")])
def test_bad_items(item, message):
    lrnr, _ = quiet(tensor_learner, *points(), linear())
    with pytest.raises(InputError, match=message): lrnr.predict(item)


class Stateful(nn.Module):
    "Changes a buffer, a plain attribute and a counter in each forward pass."
    def __init__(self):
        super().__init__()
        self.lin, self.norm, self.drop = nn.Linear(3, 1), nn.BatchNorm1d(3), nn.Dropout(0.5)
        self.register_buffer("total", torch.zeros(()))
        self.calls, self.last = 0, None

    def forward(self, x):
        self.calls += 1
        self.total = self.total + 1
        self.last = x
        return self.lin(self.drop(self.norm(x)))


def test_the_trial_leaves_no_trace():
    x, y = points()
    torch.manual_seed(1)
    model = Stateful().eval()
    model.norm.train()
    state, seed = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    quiet(tensor_learner, x, y, model, nn.MSELoss(), bs=6)
    assert (model.calls, model.last, model.training, model.norm.training) == (0, None, False, True)
    for k, v in model.state_dict().items(): assert_close(v, state[k], **exactly)
    assert torch.equal(seed, torch.get_rng_state()) and all(p.grad is None for p in model.parameters())
    with pytest.raises(InputError): quiet(tensor_learner, x, y[:, 0], model, nn.MSELoss())
    assert (model.calls, model.training) == (0, False)


def test_a_learner_of_a_learners_model():
    "A trained model goes into a second learner: hooks, states and gradients of the first do no harm."
    x, y = points()
    model = Stateful()
    fitted(3, x, y, model, nn.MSELoss())
    lrnr = fitted(3, x, y, model, nn.MSELoss())
    assert len(history(lrnr)) == 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [
    lambda: torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))).eval(),
    lambda: nn.utils.parametrizations.spectral_norm(linear()), lambda: nn.utils.weight_norm(linear()),
    lambda: nn.Sequential(nn.BatchNorm1d(3), linear()).eval()])
def test_unusual_modules(make):
    x, y = points()
    model = make()
    modes, state = [m.training for m in model.modules()], {k: v.clone() for k, v in model.state_dict().items()}
    lrnr, _ = quiet(tensor_learner, x, y, model, nn.MSELoss())
    assert modes == [m.training for m in model.modules()]
    for k, v in model.state_dict().items(): assert_close(v, state[k], **exactly)
    quiet(lrnr.fit, 2)
    assert history(lrnr).valid_loss.notna().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1., slice(1e-4, math.nan), [1e-3, math.inf], np.float32("nan")])
@pytest.mark.parametrize("method, args", [("fit", [1]), ("fit_one_cycle", [1]), ("fit_flat_cos", [1]),
                                          ("fit_sgdr", [1, 1]), ("fine_tune", [1])])
def test_learning_rates_that_are_no_number_are_refused(method, args, bad):
    lrnr, _ = quiet(tensor_learner, torch.rand(4, 3), torch.rand(4, 1), linear(), nn.MSELoss(), lr=0.1)
    before = [p.clone() for p in lrnr.model.parameters()]
    with pytest.raises(InputError, match="must be a finite number, 0 or more"): getattr(lrnr, method)(*args, bad)
    assert all(torch.equal(a, b) for a, b in zip(before, lrnr.model.parameters()))
    quiet(getattr(lrnr, method), *args, 0.1)  # nothing of it stays
    assert any(not torch.equal(a, b) for a, b in zip(before, lrnr.model.parameters()))


@pytest.mark.parametrize("method", ["fit", "fit_one_cycle", "fit_flat_cos", "fine_tune"])
@pytest.mark.parametrize("bad", [-1, 1.5, "3", None])
def test_epochs_that_are_no_number_of_them_are_refused(method, bad):
    lrnr = tensor_learner(*points(), linear(), nn.MSELoss())
    with pytest.raises(InputError, match="epoch"): getattr(lrnr, method)(bad)


def test_learning_rates_of_lr_find_and_of_the_learner():
    lrnr, _ = quiet(tensor_learner, torch.rand(4, 3), torch.rand(4, 1), linear(), nn.MSELoss())
    with pytest.raises(InputError, match="start_lr=nan"): lrnr.lr_find(start_lr=math.nan)
    with pytest.raises(InputError, match="end_lr=inf"): lrnr.lr_find(end_lr=math.inf)
    lrnr.lr = math.nan
    with pytest.raises(InputError, match="lr=nan"): lrnr.fit(1)
    with pytest.raises(InputError, match="3, which is no callback"): lrnr.fit(1, 0.1, cbs=3)


@pytest.mark.parametrize("make", [lambda v: v, torch.from_numpy, pd.DataFrame])
def test_unsigned_numbers_that_would_wrap_are_refused(make):
    "2**64 - 1 is -1 as an int64."
    v = np.array([[1], [2**64-1]], np.uint64)
    for x, y in ((make(v), torch.rand(2, 1)), (torch.rand(2, 3), make(v))):
        with pytest.raises(InputError, match="the number 18446744073709551615.*pass floats"):
            tensor_learner(x, y, linear(), nn.MSELoss())
    small = make(np.array([[1], [2]], np.uint64))
    lrnr, _ = quiet(tensor_learner, torch.rand(2, 3), small, linear(3, 3), CrossEntropyLossFlat())
    assert lrnr.dls.train_ds.tensors[1].tolist() == [[1], [2]]


def odd_rows():
    "Name -> rows that no network learns from, and what the sentence must say."
    x = points()[0]
    return {
        "masked array": (np.ma.masked_less(x.numpy(), 0), "has masked values"),
        "masked tensor": (torch.masked.masked_tensor(x, x > 0), "has masked values; pass .*to_tensor"),
        "meta": (x.to("meta"), "is a meta tensor"),
        "meta uint64": (torch.zeros(20, 3, dtype=torch.uint64, device="meta"), "is a meta tensor"),
        "sparse": (x.to_sparse(), r"sparse_coo tensor; pass .*to_dense"),
        "sparse rows": (x.to_sparse_csr(), r"sparse_cs. tensor; pass .*to_dense|sparse_coo tensor; pass .*to_dense"),
        "nested": (torch.nested.nested_tensor(list(x)), "is a nested tensor"),
        "jagged": (torch.nested.nested_tensor(list(x), layout=torch.jagged), "is a nested tensor"),
        "inference": (in_inference_mode(x), r"made in inference mode.*clone"),
        "bits": ((x > 0).to(torch.uint8).view(torch.bits8), "tensor of torch.bits8"),
    }


@pytest.mark.filterwarnings("ignore:The PyTorch API of (MaskedTensors|nested tensors):UserWarning")
@pytest.mark.parametrize("name", odd_rows())
def test_odd_rows_get_their_own_sentence_at_every_door(name):
    (x, y), (odd, says) = points(), odd_rows()[name]
    lrnr, _ = quiet(tensor_learner, x, y, linear(), nn.MSELoss())
    doors = [lambda: tensor_learner(odd, y, linear(), nn.MSELoss()),
             lambda: tensor_learner(x, odd[:, :1] if name == "masked array" else odd, linear(), nn.MSELoss()),
             lambda: tensor_learner(x, y, linear(), nn.MSELoss(), valid=(odd, y)), lambda: lrnr.dls.test_dl(odd),
             lambda: lrnr.validate(dl=lrnr.dls.test_dl((odd, y), with_labels=True)),
             lambda: lrnr.validate(dl=lrnr.dls.test_dl((x, odd), with_labels=True))]
    if name not in ("nested", "jagged", "inference"):  # one row of these is a plain tensor, or is copied into one
        doors += [lambda: lrnr.predict(odd[0]), lambda: lrnr.dls.test_dl([odd[0], odd[1]])]
    for door in doors:
        with pytest.raises(InputError, match=says) as e: door()
        assert "\n" not in str(e.value)


def test_whole_tables_where_a_row_is_asked_for():
    lrnr, _ = quiet(tensor_learner, *points(), linear(), nn.MSELoss())
    for name in ("nested", "jagged", "sparse rows"):
        with pytest.raises(InputError, match="nested tensor|sparse_csr"): lrnr.predict(odd_rows()[name][0])


def test_what_is_none_is_no_data():
    x, y = points()
    lrnr, _ = quiet(tensor_learner, x, y, linear(), nn.MSELoss())
    with pytest.raises(InputError, match="valid must be a pair"): tensor_learner(x, y, linear(), valid=(x, None))
    with pytest.raises(InputError, match="test_items is None"): lrnr.dls.test_dl(None)
    with pytest.raises(InputError, match="needs targets"): lrnr.dls.test_dl((x, None), with_labels=True)


@pytest.mark.parametrize("row", [0, 349_525, 349_526, 699_999])
def test_a_row_with_nan_is_named_in_data_that_is_looked_at_in_parts(row):
    x = torch.zeros(700_000, 3)
    x[row, 2] = math.nan
    with pytest.raises(InputError, match=f"x has NaN or infinity, first in row {row};"):
        tensor_learner(x, torch.zeros(700_000, 1), nn.Linear(3, 1))
