"""fastcourse.text and fastcourse.lm: texts, training, saving. fastai's own loader and learner are the reference."""
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
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.hook import hook_outputs
from fastai.callback.tracker import SaveModelCallback
from fastai.learner import load_learner
from fastai.text.core import BaseTokenizer
from fastai.text.data import TextDataLoaders
from fastai.text.learner import LMLearner, language_model_learner
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config
from fastai.text.models.core import get_language_model
from torch.testing import assert_close

from fastcourse.core import InputError
from fastcourse.generate import *
from fastcourse.lm import FastAWD_LSTM, FastLMLearner, LinearTokenizer, config_of
from fastcourse.text import *
from lms import *



def test_fast_settings_learn_to_count(lrnr):
    assert lrnr.validate()[1] >= 0.99


def test_defaults_are_small_and_fastais_are_one_argument_away():
    small, big = make(config=None), make(config=awd_lstm_lm_config, drop_mult=1., alpha=2., beta=1.)
    assert (small.model[0].emb_sz, small.model[0].n_hid, small.model[0].n_layers) == (128, 128, 1)
    theirs = language_model_learner(big.dls, AWD_LSTM, pretrained=False)
    assert [p.shape for p in big.model.parameters()] == [p.shape for p in theirs.model.parameters()]
    assert config_of(big.model) == awd_lstm_lm_config
    assert (big.rnn_regularizer.alpha, big.rnn_regularizer.beta) == (2, 1)


def test_fine_tune_trains_both_phases():
    torch.manual_seed(0)
    lrnr = lm_learner(human_numbers(25), seq_len=5, bs=16)
    before = lrnr.validate()[0]
    lrnr.fine_tune(1, 1e-2)
    assert isinstance(lrnr, LMLearner) and lrnr.validate()[0] < before/2
    assert len(lrnr.opt.param_lists) == 1


@pytest.mark.parametrize("bs,seq_len", [(3, 7), (16, 72), (2, 600)])
def test_batches_are_fastais(bs, seq_len):
    "The loader joins its texts in one piece; fastai's cuts each sequence out of the list of texts."
    df = human_numbers(9)
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
    (pd.DataFrame({"text": ["k".join(chr(97+int(c)) for c in str(i)) for i in range(1000, 1300)]}),
     dict(bs=2, seq_len=8), "No word of the texts comes 3 times"),
    (pd.DataFrame({"text": [f"{w}x, {w}ttt!" for i in range(1000, 1300)
                            for w in ["k".join(chr(97+int(c)) for c in str(i))]]}),
     dict(bs=2, seq_len=8), "No word of the texts comes 3 times"),  # but comma, '!' and the marks of ttt do
    *[(pd.DataFrame({"text": ["a b c"]*k}), {}, says)
      for k, says in ((5, "train part has 16"), (40, "train part has 128"), (80, "train part has 256"))],
    ("no/such.csv", {}, "no file 'no/such.csv'"),
    ([count]*9, {}, "list holds no texts"),
    *[(human_numbers(20), kw, says) for kw, says in (
        (dict(config=3), "config=3 is no table"), (dict(config={3: 4}), "config has no 3"),
        (dict(config=dict(emb_sz="a")), "emb_sz='a' must be"), (dict(config=dict(n_layers=0)), "n_layers=0 must be"),
        (dict(config=dict(n_hid=2.5)), "n_hid=2.5 must be"), (dict(config=dict(input_p=2)), "input_p=2 must be"),
        (dict(config=dict(pad_token="a")), "pad_token='a' must be"), (dict(alpha="a"), "alpha='a' must be"),
        (dict(arch="LSTM"), "arch='LSTM' is no function"), (dict(arch=3), "arch=3 is no function"),
        (dict(path=3), "path=3 is no folder"), (dict(text_col=["text"]), "no column ['text']"),
        *[(dict(pretrained_fnames=o), f"pretrained_fnames={o!r}: give two names")
          for o in ("a", "ab", ["a"], [], ["a", "b", "c"], [1, 2], 3)],
        (dict(metrics="a"), "metrics has 'a', which is no function"), (dict(metrics=[len, 3]), "metrics has 3"),
        (dict(moms=3), "moms=3 are no momenta"), (dict(moms=(.8, "a", .8)), "moms=(0.8, 'a', 0.8)"),
        (dict(loss_func=3), "loss_func=3 is no function"), (dict(loss_func=torch.nn.MSELoss), "MSELoss only makes a"),
        (dict(opt_func=3), "opt_func=3 is no optimiser"), (dict(wd="a"), "wd='a' must be"),
        (dict(arch=torch.nn.Linear), "fastai has no such language model"),
        (dict(drop_mult="a"), "drop_mult='a' must be"), (dict(drop_mult=-1), "drop_mult=-1 must be"),
        (dict(drop_mult=99), "drop_mult=99 makes output_p=0.1 a dropout of 9.9"))],
])
def test_bad_training_input_is_one_clear_line(source, kw, says):
    with pytest.raises(InputError, match=re.escape(says)) as e: lm_learner(source, **kw)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("folder", [None, 3, ["m"]], ids=str)
def test_a_folder_that_is_no_path(folder):
    for act in (load_lm, lambda o: save_lm(plain_lm(), o)):
        with pytest.raises(InputError, match="is no folder; give its path"): act(folder)


@pytest.mark.parametrize("bad", [None, "lm", torch.nn.Linear(1, 1)], ids=str)
def test_what_is_no_language_model(bad, tmp_path):
    for f in (partial(save_lm, folder=tmp_path), partial(generate, prompt="one"), partial(perplexity, text="one"),
              *([lambda o: lm_dls(human_numbers(20), like=o)] if bad is not None else [])):
        with pytest.raises(InputError, match="is no language model"): f(bad)


def test_data_that_a_language_model_does_not_have():
    for f in (plain_lm().validate, plain_lm().get_preds):
        with pytest.raises(InputError, match="ds_idx=5"): f(5)


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



def test_damaged_pretrained_files_are_one_sentence(tmp_path):
    (tmp_path/"models").mkdir()
    for ending in ("pth", "pkl"): (tmp_path/"models"/f"a.{ending}").write_bytes(b"abc")
    with pytest.raises(InputError, match="are no weights and vocabulary for this network") as e:
        lm_learner(human_numbers(20), pretrained_fnames=["a", "a"], path=tmp_path)
    assert "\n" not in str(e.value)


def test_mostly_rare_words_are_told():
    rare = ["k".join(chr(97+int(c)) for c in str(i)) for i in range(1000, 1300)]
    with pytest.warns(UserWarning, match="75 % of the words come fewer than 3 times"):
        lm_dls(pd.DataFrame({"text": [f"{w} {w[::-1]}q {w}z the" for w in rare]}), bs=2, seq_len=8)


def test_a_fit_after_an_interrupt_starts_with_clean_gradients():
    class Interrupt(Callback):
        def after_backward(self): raise KeyboardInterrupt
    class Look(Callback):
        def before_fit(self): seen.append([p.grad is not None and p.grad.any() for p in self.model.parameters()])
    lrnr, seen = make(), []
    with pytest.raises(KeyboardInterrupt): lrnr.fit(1, cbs=Interrupt())
    assert any(p.grad is not None and p.grad.any() for p in lrnr.model.parameters())
    lrnr.fit(1, cbs=Look())
    assert not any(seen[0])


# the network

def networks(drop, **config):
    "fastai's network and ours with the same weights, for 12 words"
    config = {**awd_lstm_lm_config, "emb_sz": 24, "n_hid": 16, "n_layers": 1, **config}
    theirs, ours = (get_language_model(o, 12, config, drop) for o in (AWD_LSTM, FastAWD_LSTM))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def trained_on(model, batches):
    "Outputs and gradients of two batches, the second one with the state after the first, then of an evaluation"
    torch.manual_seed(1)
    model.train()
    model.reset()
    outs = [o for x in batches for o in model(x)]
    sum((o*torch.arange(o.numel()).view(o.shape).cos()).sum() for o in outs).backward()
    model.eval()
    with torch.no_grad(): outs += model(batches[0])
    return outs, {k: p.grad for k, p in model.named_parameters()}


@pytest.mark.parametrize("drop, config, read", [
    (1., dict(input_p=0.), 3), (1e-9, dict(input_p=0., n_layers=3), 3), (1., dict(n_layers=3), 1),
    (1., dict(input_p=0., tie_weights=False, out_bias=False, pad_token=3), 3), (1., dict(emb_sz=12), 0)], ids=str)
def test_the_network_is_fastais(drop, config, read, monkeypatch):
    "Also where it reads words, which it does in `read` of three batches"
    quick, seen = FastAWD_LSTM._may_read_words, []
    monkeypatch.setattr(FastAWD_LSTM, "_may_read_words", lambda self, x: seen.append(quick(self, x)) or seen[-1])
    torch.manual_seed(0)
    batches = torch.randint(0, 12, (2, 4, 30))
    theirs, ours = map(functools.partial(trained_on, batches=batches), networks(drop, **config))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert sum(seen) == read


def test_without_dropout_no_random_number_is_drawn():
    "In fastai a dropout of 0 cannot be trained"
    _, model = networks(0.)
    before = torch.get_rng_state()
    for _ in range(2):
        model(torch.randint(0, 12, (4, 30), generator=torch.Generator().manual_seed(0)))[0].sum().backward()
        model.reset()
    assert torch.equal(torch.get_rng_state(), before)
    assert {v for k, v in config_of(model).items() if k.endswith("_p")} == {0.}


def test_who_looks_into_a_layer_sees_what_fastai_gives_it():
    _, model = networks(0.)
    x = torch.randint(0, 12, (4, 30))
    want = model(x)[0]
    model.reset()
    with hook_outputs([model[0].encoder_dp, model[0].rnns[0]], detach=False) as hooks:
        torch.testing.assert_close(model(x)[0], want)
        assert hooks.stored[0].shape == (4, 30, 24) and hooks.stored[1][0].shape == (4, 30, 24)


# what a file holds

def write(path, *lines):
    path.write_text("\n".join(lines)+"\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("values", [["red", "None", "NA", "null", "nan", "N/A"], ["007", "010", "1e5"],
                                    ["2.00", "1.50", "-0"], ["True", "False"], ["2024-01-02", "1 2"]])
def test_a_csv_file_is_read_as_text(tmp_path, values):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        vocab = lm_dls(write(tmp_path/"t.csv", "text", *values*100), bs=2, seq_len=8).vocab
    for word in values:
        for part in LinearTokenizer()([word.lower()]).__next__(): assert part in vocab, word


@pytest.mark.parametrize("lines, says", [
    (["text", "one, two, three"], "Line 2 of 't.csv' has 3 values, and the first line 1"),
    (["text", '"one, two"', "", '"a', 'b"', "one, two"], "Line 6 of 't.csv' has 2 values"),
    (["text,id", "one,1", "two,2,3"], "Line 3 of 't.csv' has 3 values, and the first line 2"),
    (["\ufefftext", "one, two"], "Line 2 of 't.csv' has 2 values"),
    (["text,text", "one,two"]*9, "There are 2 columns 'text'"),
    (["text", '"one'], "cannot be read as a CSV file"),
])
def test_a_line_with_too_many_values_is_named(tmp_path, monkeypatch, lines, says):
    monkeypatch.chdir(tmp_path)
    write(tmp_path/"t.csv", *lines)
    with pytest.raises(InputError, match=re.escape(says)) as e: lm_dls("t.csv")
    assert "\n" not in str(e.value)


def test_quoted_commas_and_a_byte_order_mark(tmp_path):
    dls = lm_dls(write(tmp_path/"t.csv", "\ufefftext,id", *['"one, two",7', '"three ""four""",8']*40), bs=2, seq_len=8)
    assert {"one", ",", "two", "three", "four"} <= set(dls.vocab)
    assert "7" not in dls.vocab


# what fastai can do

def test_an_exported_learner_speaks_and_says_that_it_has_no_data(tmp_path, wild):
    wild.export(tmp_path/"x.pkl")
    back = load_learner(tmp_path/"x.pkl")
    assert generate(back, start, 8, greedy=True).text == generate(wild, start, 8, greedy=True).text
    said = []
    for l in (back, wild):
        torch.manual_seed(0)
        said.append(LMLearner.predict(l, start, 9, no_bar=True))
    assert said[0] == said[1]
    no_data(back)
    back.dls = lm_dls(human_numbers(20), bs=4, like=back)
    back.fit(1, 1e-3)
    wild.fit(1, 1e-3)  # the exported one is whole as well


def no_data(lrnr):
    for f in (lambda: lrnr.fit(1), lambda: lrnr.fit_one_cycle(1), lambda: lrnr.fine_tune(1), lrnr.validate,
              lrnr.lr_find, lrnr.get_preds):
        with pytest.raises(InputError, match="^This learner has no (training|validation) data, as after loading it; "
                                             "lrnr.dls = lm_dls") as e:
            f()
        assert "\n" not in str(e.value)


def test_get_preds_is_the_models_forward(wild):
    with wild.no_bar():
        for ds_idx in (0, 1):
            probs, targets = wild.get_preds(ds_idx)
            assert probs.shape == (*targets.shape, len(wild.dls.vocab))
            assert targets.numel() == sum(y.numel() for _, y in wild.dls[ds_idx].new(shuffle=False, drop_last=False))
        x, y = next(iter(wild.dls.valid))
        wild.model.reset()
        with torch.no_grad(): scores = wild.model.eval()(x)[0]
        assert_close(plain(probs[:, :x.shape[1]]), plain(scores).softmax(-1), rtol=1e-4, atol=1e-6)
        loss = torch.nn.functional.cross_entropy(plain(probs).log().flatten(0, 1), plain(targets).flatten())
        assert_close(loss.item(), float(wild.validate()[0]), rtol=1e-3, atol=0)


def test_load_runs_no_code_from_the_file(tmp_path):
    lrnr = make(path=tmp_path)
    lrnr.fit_one_cycle(1, 1e-3)
    file = lrnr.save("good", with_opt=True)
    before = {k: v.clone() for k, v in lrnr.model.state_dict().items()}
    state = [{k: v.clone() if torch.is_tensor(v) else v for k, v in s.items()} for s in lrnr.opt.state_dict()["state"]]
    lrnr.fit(1, 1e-2)
    assert lrnr.load("good", with_opt=True) is lrnr
    assert_close(dict(lrnr.model.state_dict()), before, rtol=0, atol=0)
    assert_close([dict(s) for s in lrnr.opt.state_dict()["state"]], state, rtol=0, atol=0)
    lrnr.save_encoder("encoder")
    lrnr.load_encoder("encoder")
    class Evil:
        def __reduce__(self): return os.mkdir, (str(tmp_path/"harm"),)
    torch.save({"model": Evil(), "opt": {}}, file)
    torch.save(Evil(), tmp_path/"models"/"encoder.pth")
    for f in (lambda: lrnr.load("good"), lambda: lrnr.load_encoder("encoder")):
        with pytest.raises(InputError, match="could run code"): f()
    assert not (tmp_path/"harm").exists()


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
    assert config_of(back.model) == config_of(l.model)
    torch.manual_seed(0)
    theirs = LMLearner.predict(l, start, 20, no_bar=True)
    torch.manual_seed(0)
    assert LMLearner.predict(back, start, 20, no_bar=True) == theirs  # fastai's own way works too
    assert sorted(p.suffix for p in (tmp_path/"a"/"lm").iterdir()) == [".json", ".safetensors"]


def test_a_loaded_model_learns_on_with_a_text(tmp_path, wild):
    back = load_lm(save_lm(wild, tmp_path))
    back.dls = lm_dls(human_numbers(20), bs=4, like=back)
    before = back.validate()[0]
    back.fit_one_cycle(1, 1e-2)
    assert back.validate()[0] < before


def test_a_loaded_model_has_no_data(tmp_path, wild): no_data(load_lm(save_lm(wild, tmp_path)))


def test_the_tokenizer_is_kept(tmp_path):
    "Cut at '|', without rules: in what is loaded, and in what it learns on"
    df = pd.DataFrame({"text": ["One|two two|three"]*40})
    dls = TextDataLoaders.from_df(df, is_lm=True, text_col="text", tok_tfm=BaseTokenizer("|"), bs=4, seq_len=9)
    dls.train_ds.tokenizer.rules = []
    lrnr = lm_learner(dls)
    vocab = list(lrnr.dls.vocab)
    back = load_lm(save_lm(lrnr, tmp_path))
    back.dls = lm_dls(df, bs=4, seq_len=9, like=back)
    assert list(back.dls.vocab) == vocab
    again = json.loads((save_lm(back, tmp_path)/"lm.json").read_text())["tokenizer"]
    assert (again["kind"], again["split_char"], again["rules"]) == ("split", "|", [])
    for tok in (back.dls.train_ds.tokenizer, load_lm(tmp_path).dls.train_ds.tokenizer):
        assert list(tok("One|two two|three")) == ["One", "two two", "three"]
    with pytest.raises(InputError, match="is one that the model knows"):
        lm_dls(pd.DataFrame({"text": ["new words"]*40}), bs=4, seq_len=2, like=back)


def test_a_broken_training_is_not_saved_and_not_loaded(tmp_path, wild):
    save_lm(wild, tmp_path)
    good = {k: v.clone() for k, v in wild.model.named_parameters()}
    for value in (math.nan, math.inf, -math.inf):
        with torch.no_grad(): wild.model[1].decoder.bias[3] = value
        with pytest.raises(InputError, match="not saved, because its weights are no numbers"): save_lm(wild, tmp_path)
    assert_close(dict(load_lm(tmp_path).model.named_parameters()), good, rtol=0, atol=0)
    assert len(list(tmp_path.iterdir())) == 2
    _resave(tmp_path, lambda t: t["1.decoder.bias"].fill_(math.nan) is None)
    with pytest.raises(InputError, match="are no numbers"): load_lm(tmp_path)


def test_a_compiled_model_speaks_and_is_saved_as_it_was(tmp_path, wild):
    "Nothing is compiled here: torch does that at the first call, and speaking reads the weights alone"
    text = generate(wild, start, 8, greedy=True).text
    wild.model = torch.compile(wild.model)
    assert generate(wild, start, 8, greedy=True).text == text == wild.predict(start, 8, temperature=0, no_bar=True)
    assert perplexity(wild, count) > 1
    assert generate(load_lm(save_lm(wild, tmp_path)), start, 8, greedy=True).text == text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO here")
@pytest.mark.parametrize("which", ["lm.json", "weights"])
def test_what_is_no_file_is_not_opened(tmp_path, which):
    folder = save_lm(plain_lm(), tmp_path/"lm")
    file = folder/"lm.json" if which == "lm.json" else _weights(folder)
    for make in (os.mkfifo, os.mkdir):
        os.remove(file) if file.is_file() else None
        make(file)
        with pytest.raises(InputError, match="it is no file"): load_lm(folder)
        os.rmdir(file) if file.is_dir() else os.remove(file)


def test_a_file_larger_than_any_model_is_not_read(tmp_path):
    folder = save_lm(plain_lm(), tmp_path/"lm")
    with open(folder/"lm.json", "r+b") as f: f.truncate(1 << 29)  # a hole: it takes no space
    with pytest.raises(InputError, match="larger than"): load_lm(folder)


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


def test_what_cannot_be_saved_safely_is_refused(tmp_path, wild, monkeypatch):
    with monkeypatch.context() as m:   # other tests share these texts
        m.setattr(wild.dls.train_ds.tokenizer, "rules", [str.lower])
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
    "no list of uneven pieces": lambda d: _change(d, lambda a: a["tokenizer"].update(uneven="x")),
    "weights of infinity": lambda d: _resave(d, lambda t: t["1.decoder.bias"].fill_(math.inf) is None),
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
    folder = save_lm(plain_lm(), tmp_path/"lm")
    damage[how](folder)
    with pytest.raises(InputError, match=re.escape(str(tmp_path))) as e: load_lm(folder)
    assert "\n" not in str(e.value) and len(str(e.value)) < 400


# Korean

korean = ["오늘은 날씨가 맑아요. 우리는 공원에 가요.", "내일은 비가 와요. 우리는 집에서 책을 읽어요.",
          "주말에는 눈이 와요. 아이들은 밖에서 놀아요."]


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
    lrnr = lm_learner(human_numbers(20), bs=8, path=sys.argv[1])
    lrnr.fit_one_cycle(4, 2e-2, cbs=[SaveModelCallback(every_epoch=True, with_opt=True, fname="lm"), Killed()])
""")


def test_a_killed_training_goes_on_from_its_last_epoch(tmp_path):
    "The rows of the text are all equal, so that the resumed training can end where an unbroken one does"
    res = subprocess.run([sys.executable, "-c", training, str(tmp_path)], capture_output=True, text=True)
    assert res.returncode == -signal.SIGKILL, res.stderr
    assert sorted(p.name for p in (tmp_path/"models").iterdir()) == ["lm_0.pth", "lm_1.pth"]
    torch.manual_seed(0)
    lrnr = lm_learner(human_numbers(20), bs=8, path=tmp_path)
    lrnr.load("lm_1", with_opt=True)
    lrnr.fit_one_cycle(4, 2e-2, start_epoch=2, cbs=SaveModelCallback(every_epoch=True, with_opt=True, fname="lm"))
    assert (tmp_path/"models"/"lm_3.pth").exists()
    torch.manual_seed(0)
    unbroken = lm_learner(human_numbers(20), bs=8)
    unbroken.fit_one_cycle(4, 2e-2)
    assert_close(dict(lrnr.model.named_parameters()), dict(unbroken.model.named_parameters()), rtol=1e-3, atol=1e-3)
