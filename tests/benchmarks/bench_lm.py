"""An epoch of a language model against another build and a loop by hand: python tests/benchmarks/bench_lm.py [OTHER]

OTHER is the folder of another checkout of fastcourse (the environment variable FASTCOURSE_OTHER will do, too). Each
works in a process of its own, and the others wait. `lm_learner`'s own settings on 1000 texts of the human numbers, one
thread; an epoch is training and validation. The loop by hand has the same network (torch's LSTM), the same words in the
same batches, fastai's rate, and torch's Adam (in the last row as its fused kernel); it keeps the losses and counts the
right words of the validation, as the table of fastai does. Seconds are those of the processor, which a busy machine
changes less than those of the clock. Last column: the accuracy after the epochs of this run.
"""
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

from common import machine, table

EPOCHS = 4


def learner():
    "An epoch of `lm_learner`, and its accuracy so far"
    import torch
    import fastai.text.all  # noqa: F401
    from fastcourse.data import human_numbers
    from fastcourse.text import lm_learner
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lrnr = lm_learner(human_numbers(1000))

    def epoch():
        with lrnr.no_bar(), lrnr.no_logging(): lrnr.fit_one_cycle(1, 1e-2)
    return epoch, lambda: float(lrnr.recorder.values[-1][-1])


def by_hand(fused=None):
    import torch
    from fastcourse.data import human_numbers
    from fastcourse.text import lm_dls
    from torch import nn
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dls = lm_dls(human_numbers(1000))
    def plain(dl): return [tuple(o.as_subclass(torch.Tensor) for o in b) for b in dl]
    train, valid, n = plain(dls.train), plain(dls.valid), len(dls.vocab)
    emb, lstm, out = nn.Embedding(n, 128), nn.LSTM(128, 128, batch_first=True), nn.Linear(128, n)
    emb.weight.data.uniform_(-0.1, 0.1)
    out.weight = emb.weight
    params = [*emb.parameters(), *lstm.parameters(), out.bias]
    opt = torch.optim.Adam(params, lr=1e-2, betas=(0.9, 0.99), eps=1e-5, fused=fused)
    loss_func = nn.CrossEntropyLoss()
    right = []

    def run(batches, step):
        state, losses, hits = None, [], []
        for x, y in batches:
            h, state = lstm(emb(x), state)
            state = tuple(o.detach() for o in state)
            scores = out(h)
            loss = loss_func(scores.flatten(0, 1), y.flatten())
            losses.append(loss.detach())
            if step:
                loss.backward()
                opt.step()
                opt.zero_grad()
            else: hits.append((scores.argmax(-1) == y).float().mean())
        return torch.stack(losses).mean().item(), sum(hits)/max(1, len(hits))

    def epoch():
        run(train, True)
        with torch.no_grad(): right.append(float(run(valid, False)[1]))
    return epoch, lambda: right[-1]


def work(what):
    "In the other process: a line comes in, the seconds and the accuracy go out."
    warnings.simplefilter("ignore")
    epoch, accuracy = {"learner": learner, "by_hand": by_hand, "fused": lambda: by_hand(True)}[what]()
    for _ in sys.stdin:
        start = time.process_time()
        epoch()
        print(time.process_time()-start, accuracy(), flush=True)


class Worker:
    def __init__(self, what, folder):
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent)]),
                            "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen([sys.executable, __file__, "--work", what], env=env, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self): self.process.communicate()

    def __call__(self):
        print(file=self.process.stdin, flush=True)
        return map(float, self.process.stdout.readline().split())


def main(other=""):
    here = Path(__file__).resolve().parents[2]
    peers = {"lm_learner": Worker("learner", here), "a loop by hand": Worker("by_hand", here),
             **({"the other build": Worker("learner", other)} if other else {}),
             "a loop by hand, fused Adam": Worker("fused", here)}
    times, right = {k: [] for k in peers}, {}
    for i in range(EPOCHS+1):
        for k in [*peers][::1 if i % 2 else -1]:
            s, right[k] = peers[k]()
            if i: times[k].append(s)
    for o in peers.values(): o.close()
    t = {k: statistics.median(o) for k, o in times.items()}
    print(machine())
    print(table(["", "seconds an epoch", "lm_learner's, in these", "accuracy"],
                [[k, f"{t[k]:.2f}", f"{t['lm_learner']/t[k]:.2f}", f"{right[k]:.4f}"] for k in peers]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]: work(sys.argv[2])
    else: main(*sys.argv[1:] or [os.environ.get("FASTCOURSE_OTHER", "")])
