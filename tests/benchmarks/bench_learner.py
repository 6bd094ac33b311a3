"""What a Learner costs beside a loop written by hand: python tests/benchmarks/bench_learner.py

Full batch, the training data again as validation data, torch's Adam with lr 0.1, cross entropy, one thread, no GPU.
Each row is timed in turn with the raw loop below, and the ratio is that of the medians. The raw loop does the same
work: it trains, evaluates, and keeps both losses of each epoch. Peers that are not installed are left out;
`pip install skorch poutyne lightning keras` brings them.
"""
import contextlib
import io
import logging
import os
import sys
import warnings
from functools import partial
from importlib.util import find_spec

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
warnings.simplefilter("ignore")

import torch
from fastai.basics import Adam, DataLoaders, L, Learner, OptimWrapper
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from common import machine, paired, raw_loop, table
from fastcourse.data import codes, letters, next_token_pairs, number_words, one_hot
from fastcourse.learner import tensor_learner

torch.set_num_threads(1)
torch_adam = partial(torch.optim.Adam, lr=0.1)


def embedding():
    torch.manual_seed(43052)
    return nn.Sequential(nn.Embedding(4, 2), nn.Tanh(), nn.Linear(2, 4))


class LSTM(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(43052)
        self.rnn, self.out = nn.LSTM(6, 20), nn.Linear(20, 6)

    def forward(self, x): return self.out(self.rnn(x)[0])


# Each way makes its model once, and gives a function that trains it `n` epochs more. Only that is timed.

def raw(make, x, y, opt=torch_adam):
    "The loop by hand."
    model = make()
    return raw_loop(model, nn.CrossEntropyLoss(), x, y, opt(model.parameters()))


def barest(make, x, y):
    "The loop by hand that keeps nothing and never changes the mode of the model."
    model, loss_func = make(), nn.CrossEntropyLoss()
    opt = torch_adam(model.parameters())

    def train(n):
        for _ in range(n):
            loss = loss_func(model(x), y)
            loss.backward()
            opt.step()
            opt.zero_grad()
            with torch.no_grad(): loss_func(model(x), y)

    return train


wrapped_adam = partial(OptimWrapper, opt=torch.optim.Adam)


def ours(make, x, y, opt_func=wrapped_adam):
    return tensor_learner(x, y, make(), nn.CrossEntropyLoss(), lr=0.1, opt_func=opt_func).fit


def fastai(make, x, y):
    dl = DataLoader(TensorDataset(x, y), batch_size=len(x))
    return Learner(DataLoaders(dl, dl), make(), nn.CrossEntropyLoss(), lr=0.1, opt_func=wrapped_adam).fit


def skorch(make, x, y):
    from skorch import NeuralNet
    from skorch.dataset import Dataset
    from skorch.helper import predefined_split
    net = NeuralNet(make(), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=0.1, batch_size=-1,
                    train_split=predefined_split(Dataset(x, y)), verbose=0).initialize()
    return lambda n: net.fit_loop(x, y, epochs=n)


def poutyne(make, x, y):
    from poutyne import Model
    model = make()
    model = Model(model, torch_adam(model.parameters()), nn.CrossEntropyLoss())
    return lambda n: model.fit(x, y, validation_data=(x, y), epochs=n, batch_size=len(x), verbose=False)


def lightning(make, x, y):
    import lightning
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.loss_func = make(), nn.CrossEntropyLoss()

        def training_step(self, batch, _): return self.loss_func(self.model(batch[0]), batch[1])
        def validation_step(self, batch, _): self.log("valid_loss", self.loss_func(self.model(batch[0]), batch[1]))
        def configure_optimizers(self): return torch_adam(self.parameters())

    module, dl = Module(), DataLoader(TensorDataset(x, y), batch_size=len(x))
    off = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
    trainer = partial(lightning.Trainer, accelerator="cpu", num_sanity_val_steps=0, **off)
    return lambda n: trainer(max_epochs=n).fit(module, dl, dl)


def keras(make, x, y):
    import keras
    model = keras.Sequential([keras.layers.TorchModuleWrapper(make())])
    model.compile(keras.optimizers.Adam(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return lambda n: model.fit(x, y, validation_data=(x, y), epochs=n, batch_size=len(x), shuffle=False, verbose=0)


def silent(f, *args):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()): return f(*args)


def rows(title, make, x, y, n, pairs):
    "One row for each way to train `n` epochs, from `pairs` runs of both; a quarter of that for the slow ones."
    ways = [("tensor_learner", ours, raw, n, pairs),
            ("tensor_learner, fastai's Adam in both", partial(ours, opt_func=Adam),
             partial(raw, opt=lambda ps: Adam(L(ps), lr=0.1)), n, pairs),
            ("the barest loop", barest, raw, n, pairs), ("fastai, torch DataLoaders", fastai, raw, n//4, 5)]
    ways += [(f.__name__, f, raw, n//4, 5) for f in (skorch, poutyne, lightning, keras) if find_spec(f.__name__)]
    for name, way, peer, epochs, repeats in ways:
        a, b = silent(way, make, x, y), peer(make, x, y)
        a, b, ratio = paired(lambda: silent(a, epochs), lambda: silent(b, epochs), repeats)
        print(f"{title}: {name} {ratio:.2f}", file=sys.stderr)
        yield [title, name, epochs, f"{a/epochs*1e6:.0f}", f"{b/epochs*1e6:.0f}", f"{ratio:.2f}"]


if __name__ == "__main__":
    print(machine() + "\n")
    words = next_token_pairs(letters("abcd", 75))
    small = rows("Embedding(4,2)-Tanh-Linear(2,4), 299 rows", embedding, codes(words.x), codes(words.y), 1000, 21)
    words = next_token_pairs(number_words())
    large = rows("LSTM(6,20)-Linear(20,6), 998 steps", LSTM, one_hot(words.x), codes(words.y), 300, 15)
    print(table(["model", "trained by", "epochs", "µs an epoch", "raw loop, µs an epoch", "ratio"], [*small, *large]))
