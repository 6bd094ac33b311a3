"""What two processes do in `test_processes.py`: `torchrun --nproc_per_node 2 processes_program.py FOLDER`.

The test runs the same functions in its own process, for the numbers that must come out.
"""
import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch
from fastai.basics import Callback, DataLoaders, TfmdDL, set_seed
from fastai.losses import LabelSmoothingCrossEntropyFlat
from fastai.metrics import accuracy, mae, rmse
from fastai.optimizer import SGD
from torch import nn

from fastcourse.core import InputError
from fastcourse.learner import history, tensor_learner
from fastcourse.processes import ProcessLost, SharedLearner

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Act(Callback):
    "Does something in the second epoch, in process 1 only."
    def __init__(self, f): self.f = f
    def before_epoch(self):
        if RANK == 1 and self.learn.epoch == 1: self.f()


def quiet(lrnr):
    lrnr.remove_cb(lrnr.progress)
    lrnr.logger = lambda *a: None
    return lrnr


def rows(n, seed, shape):
    "In double precision: what is left of a difference is rounding, or a fault."
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=g, dtype=torch.float64)
    return x, x.flatten(1).sum(1, keepdim=True).sin() + torch.randn(n, 1, generator=g, dtype=torch.float64)


def plain(): return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()
def normed(): return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)).double()
def conv(): return nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3, momentum=None), nn.Flatten(), nn.Tanh(),
                                 nn.Linear(12, 1)).double()


class Unused(nn.Module):
    "A layer without a gradient stays as it is, as in one process."
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 1).double(), nn.Linear(5, 1).double()
    def forward(self, x): return self.a(x)


# name: rows, batch of all processes together (None: all rows), rows for validation (None: the same), network, metrics
CASES = dict(
    full=(63, None, None, plain, [mae]), one_row=(1, None, None, plain, [mae]), gathered=(63, 20, 31, plain, [rmse]),
    batches=(63, 20, 31, plain, [mae]), few_rows=(3, 2, 1, plain, [mae, rmse]), large_batch=(5, 8, 1, plain, [mae]),
    norm=(64, 62, None, normed, [mae]), conv=(63, 20, 30, conv, [rmse]), unused=(21, 8, None, Unused, []),
    nothing=(21, 8, None, plain, None))


def train(n, bs, n_valid, make, metrics):
    "Three epochs: losses, metrics, weights, validation and predictions."
    shape = (1, 3, 3) if make is conv else (5,)
    set_seed(7)
    valid = None if n_valid is None else rows(n_valid, 2, shape)
    lrnr = quiet(tensor_learner(*rows(n, 1, shape), make(), nn.MSELoss(), valid, bs and min(bs//WORLD, n), 1e-2,
                                metrics=metrics))
    with lrnr.distrib_ctx():
        lrnr.fit(3)
        valid = list(lrnr.validate())
        x, preds, targets, losses = lrnr.get_preds(with_input=True, with_loss=True)
    return dict(history=history(lrnr).drop(columns=["epoch", "seconds"]).values.tolist(), valid=valid, x=x.tolist(),
                preds=preds.tolist(), targets=targets.tolist(), losses=losses.flatten().tolist(),
                weights=[o.tolist() for o in lrnr.model.state_dict().values()])


def weighted(name):
    "Losses whose mean goes by the classes of the rows. Rows 3 to 5, a whole share, are of a class without weight."
    weight = torch.tensor([0.2, 3., 1., 0.], dtype=torch.float64)
    loss = dict(weight=nn.CrossEntropyLoss(weight), smooth=nn.CrossEntropyLoss(weight+0.1, label_smoothing=0.1),
                ignore=nn.CrossEntropyLoss(ignore_index=1), nll=nn.NLLLoss(weight),
                share=nn.CrossEntropyLoss(weight))[name]
    g = torch.Generator().manual_seed(5)
    x, y = torch.randn(30, 5, generator=g, dtype=torch.float64), torch.randint(3, (30,), generator=g)
    y[3:6] = 1 if name == "ignore" else 3
    set_seed(7)
    net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4), nn.LogSoftmax(1)).double()
    n, bs = (6, None) if name == "share" else (30, 6//WORLD)
    lrnr = quiet(tensor_learner(x[:n], y[:n], net, loss, (x[:12], y[:12]), bs, 1e-2, metrics=[accuracy]))
    with lrnr.distrib_ctx():
        lrnr.fit(3)
        valid = list(lrnr.validate())
    return dict(history=history(lrnr).drop(columns=["epoch", "seconds"]).values.tolist(), valid=valid,
                weights=[o.tolist() for o in lrnr.model.state_dict().values()])


def smoothed():
    loss = LabelSmoothingCrossEntropyFlat(weight=torch.ones(2))
    try:
        with tensor_learner(torch.zeros(4, 2), torch.arange(4) % 2, nn.Linear(2, 2), loss).distrib_ctx(): pass
    except InputError as e: return str(e)


def find_rate(folder):
    "lr_find, which must leave no trace, and files that process 0 writes alone."
    set_seed(7)
    home = Path(folder)/f"home{RANK}"
    lrnr = quiet(tensor_learner(*rows(63, 1, (5,)), plain(), nn.MSELoss(), bs=20//WORLD, lr=1e-2, path=home))
    with lrnr.distrib_ctx():
        before = [o.tolist() for o in lrnr.model.parameters()]
        rate = lrnr.lr_find(show_plot=False).valley
        left = [o.tolist() for o in lrnr.model.parameters()]
        lrnr.fit(1)
        lrnr.save("saved")
    return dict(rate=rate, same=before == left, files=sorted(o.name for o in home.rglob("*.pth")),
                loss=history(lrnr).train_loss.tolist(), weights=[o.tolist() for o in lrnr.model.parameters()])


class Squares(torch.utils.data.Dataset):
    "Rows that are fetched one by one, as pictures are."
    def __init__(self, n): self.x, self.y = rows(n, 3, (5,))
    def __len__(self): return len(self.x)
    def __getitem__(self, i): return self.x[i].float(), self.y[i].float()  # fastai's own recorder takes no doubles


def by_rows(workers=0):
    "A fastai learner with fastai's own loaders; the last batch is dropped in training, as fastai does."
    set_seed(7)
    loaders = [TfmdDL(Squares(n), bs=8//WORLD, shuffle=train, drop_last=train, num_workers=workers)
               for n, train in ((45, True), (13, False))]
    lrnr = quiet(SharedLearner(DataLoaders(*loaders), plain().float(), nn.MSELoss(), opt_func=SGD, metrics=[rmse],
                               lr=1e-2))
    with lrnr.distrib_ctx():
        lrnr.fit(2)
        preds, _ = lrnr.get_preds()
    return dict(values=[list(o) for o in lrnr.recorder.values], preds=preds.tolist(),
                weights=[o.tolist() for o in lrnr.model.parameters()])


def words(folder):
    "A language model, from a table of texts of many lengths."
    from fastcourse.data import human_numbers
    from fastcourse.text import lm_learner, save_lm
    df = human_numbers(40)
    df["text"] = [o[:50+9*i] for i, o in enumerate(df.text)]
    set_seed(7)
    lrnr = quiet(lm_learner(df, bs=8//WORLD, seq_len=9, config=dict(emb_sz=8, n_hid=8)))
    with lrnr.distrib_ctx():
        lrnr.fit(2, 1e-2)
        preds, targets = lrnr.get_preds()
    save_lm(lrnr, Path(folder)/f"lm{RANK}")
    return dict(values=[list(o) for o in lrnr.recorder.values], preds=preds.tolist(), targets=targets.tolist(),
                files=(Path(folder)/f"lm{RANK}").exists())


def pictures(folder):
    "A classifier of pictures."
    from fastai.vision.all import F1Score, accuracy
    from fastcourse.vision import cam_learner, folder_dls
    set_seed(7)
    dls = folder_dls(folder, 32, bs=8//WORLD, num_workers=0)
    lrnr = quiet(cam_learner(dls, small_arch(), pretrained=False, metrics=[accuracy, F1Score()], opt_func=SGD))
    with lrnr.distrib_ctx():
        lrnr.fit(2, 1e-3)
        preds, targets = lrnr.get_preds()
    return dict(values=[list(o) for o in lrnr.recorder.values], preds=preds.tolist(), targets=targets.tolist())


def small_arch():
    from torchvision.models import squeezenet1_1
    return squeezenet1_1


def ends(f, **kwargs):
    "What a process says whose neighbour does `f` in the second epoch."
    lrnr = quiet(tensor_learner(*rows(63, 1, (5,)), plain(), nn.MSELoss(), cbs=Act(f)))
    try:
        with lrnr.distrib_ctx(**kwargs): lrnr.fit(3)
    except (ProcessLost, ValueError, KeyboardInterrupt) as e: return dict(kind=type(e).__name__, text=str(e))


def fail(): raise ValueError("no luck")
def interrupt(): raise KeyboardInterrupt
def kill(): os.kill(os.getpid(), signal.SIGKILL)


def other_data():
    lrnr = quiet(tensor_learner(*rows(63, 1+RANK, (5,)), plain(), nn.MSELoss()))
    try:
        with lrnr.distrib_ctx(): lrnr.fit(1)
    except InputError as e: return str(e)


def main(folder, long):
    res = {k: train(*v) for k, v in CASES.items()}
    res["weighted"] = {k: weighted(k) for k in ("weight", "smooth", "ignore", "nll", "share")}
    res.update(by_rows=by_rows(), rate=find_rate(folder))
    if long: res.update(words=words(folder), workers=by_rows(2), pictures=pictures(Path(folder)/"pictures"))
    if WORLD > 1:
        silent = SimpleNamespace(timeout=timedelta(seconds=1))
        # each of these ends the group, and the next one starts it again
        res["smoothed"] = smoothed()
        res.update(other_data=other_data(), failed=ends(fail), interrupted=ends(interrupt),
                   silent=ends(lambda: time.sleep(5), kwargs_handlers=[silent]), after=train(*CASES["full"]))
        Path(folder, f"out{RANK}.json").write_text(json.dumps(res))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, as soon as it misses the other one
        Path(folder, f"killed{RANK}.json").write_text(json.dumps(ends(kill)))
    return res


if __name__ == "__main__": main(sys.argv[1], len(sys.argv) > 2)
