"""Word-level generation against fastai's own predict, one thread: python tests/benchmarks/bench_text.py [--long]

It needs no data and no network. Times do not depend on what a network has learned, so the networks are untrained, but
for the quality of int8. It takes up to three minutes; `--long` adds 200 and 1000 words of fastai's predict, int8 on a
network of two layers, and prompts of 100,000 and a million words: ten minutes.
"""
import os
import subprocess
import sys
import warnings

os.environ["OMP_NUM_THREADS"] = "1"
warnings.simplefilter("ignore")

import pandas as pd
import torch
from fastai.text.learner import LMLearner
from fastai.text.models.awdlstm import awd_lstm_lm_config

from common import machine, paired, seconds, table
from fastcourse.core import plain_bars
from fastcourse.data import human_numbers
from fastcourse.generate import generate, plain_model
from fastcourse.text import lm_learner

torch.set_num_threads(1)
plain_bars()
long = "--long" in sys.argv
prompt = "one, two,"
large = lm_learner(human_numbers(20), config=awd_lstm_lm_config)
small = lm_learner(human_numbers(20), config=dict(emb_sz=64, n_hid=128, n_layers=3))
one = lm_learner(human_numbers(20))
names = {"default AWD_LSTM (20.3 M)": large, "64/128x3": small, "128/128x1 (lm_learner's own)": one}


def against_fastai():
    rows = []
    cases = [(large, 50, 12), (large, 200, 38), (small, 50, 18), (small, 200, 43), (small, 1000, 100)]
    for lrnr, n, wanted in cases if long else cases[:1] + cases[2:4]:
        f, o, ratio = paired(lambda: LMLearner.predict(lrnr, prompt, n, no_bar=True),
                             lambda: lrnr.predict(prompt, n, no_bar=True), 1 if lrnr is large or n > 500 else 3)
        name = next(k for k, v in names.items() if v is lrnr)
        rows.append([name, n, f"{f:.2f} s", f"{o*1e3:.0f} ms", f"{ratio:.0f}x", f"{wanted}x"])
    return table(["network", "words", "fastai predict", "ours", "ratio", "wanted"], rows)


def bandwidth():
    "Bytes a second that a copy of 256 MB writes (it reads as many)"
    a = torch.empty(64 << 20)
    b = torch.ones_like(a)
    a.copy_(b)
    return a.numel()*4/min(seconds(lambda: a.copy_(b)) for _ in range(7))


def floor():
    "What each word must read: the matrices of all layers but the first one's input product, which is a table"
    encoder, decoder = plain_model(large)
    read = [w for r in encoder.rnns for w in (r.module.weight_ih_l0, r.weight_hh_l0_raw)][1:] + [decoder.decoder.weight]
    nbytes, rate = 4*sum(w.numel() for w in read), bandwidth()
    said = min(seconds(lambda: generate(large, prompt, 200)) for _ in range(3))/200
    rows = [[f"{nbytes/1e6:.0f} MB", f"{rate/1e9:.1f} GB/s", f"{nbytes/rate*1e3:.2f} ms", f"{said*1e3:.2f} ms",
             f"{nbytes/rate/said:.2f}", f"{nbytes/rate/said/2:.2f}", "0.5"]]
    return table(["weights a word", "copy", "floor", "a word of generate", "floor / word",
                  "the same, copy counted as read + write", "wanted"], rows)


def int8():
    rows = []
    for name, lrnr in names.items():
        f, q, ratio = paired(lambda: generate(lrnr, prompt, 200),
                             lambda: generate(lrnr, prompt, 200, precision="int8"), 7)
        rows.append([name, f"{200/f:.0f}", f"{200/q:.0f}", f"{ratio:.1f}x", "5x" if lrnr is large else ""])
    return table(["network", "fp32 words/s", "int8 words/s", "ratio", "wanted"], rows)


def batch():
    rows = []
    for name, lrnr in names.items():
        for precision in ("fp32", "int8"):
            a, b, ratio = paired(lambda: generate(lrnr, prompt, 100, precision=precision),
                                 lambda: generate(lrnr, [prompt]*64, 100, precision=precision), 3)
            rows.append([name, precision, f"{100/a:.0f}", f"{6400/b:.0f}", f"{ratio*64:.1f}x", "8x"])
    return table(["network", "precision", "1 text, words/s", "64 texts, words/s", "ratio", "wanted"], rows)


def quality():
    "How often int8 and fp32 say the same next word after the same piece of English text, greedily"
    from sklearn import datasets
    texts = [load().DESCR for load in (datasets.load_iris, datasets.load_wine, datasets.load_breast_cancer,
                                       datasets.load_diabetes, datasets.load_linnerud, datasets.load_digits)]
    english = pd.DataFrame({"text": [p for t in texts for p in t.split("\n\n") if len(p) > 60]})
    rows, notes = [], "scikit-learn's notes"
    cases = [("counting, 128/128x1", human_numbers(100), {}, 3), (f"{notes}, 128/128x1", english, {}, 10),
             (f"{notes}, 200/400x2", english, dict(emb_sz=200, n_hid=400, n_layers=2), 10)]
    for name, df, config, epochs in cases if long else cases[:2]:
        torch.manual_seed(0)
        lrnr = lm_learner(df, config=config, seq_len=30)
        with lrnr.no_bar(), lrnr.no_logging(): lrnr.fit_one_cycle(epochs, 1e-2)
        words = " ".join(df.text[:40]).split()
        pieces = [" ".join(words[i:i+40]) for i in range(0, len(words)-40, max(1, len(words)//400))]
        a, b = ([g.tokens for g in generate(lrnr, pieces, 1, greedy=True, precision=p)] for p in ("fp32", "int8"))
        same = sum(x == y for x, y in zip(a, b))/len(pieces)
        rows.append([name, len(pieces), f"{same:.2%}"])
    return table(["trained on", "texts of 40 words", "same next word"], rows)


long_prompt = """
import sys, time, warnings
warnings.simplefilter("ignore")
from fastcourse.data import human_numbers
from fastcourse.generate import generate
from fastcourse.text import lm_learner
def mb(what): return next(int(l.split()[1])/1024 for l in open("/proc/self/status") if l.startswith(what))
lrnr = lm_learner(human_numbers(20))
text = ((human_numbers(1).text[0] + ", ")*10_000).split(" ")[:int(sys.argv[1])]
generate(lrnr, "one", 1)
text = " ".join(text)
open("/proc/self/clear_refs", "w").write("5")  # the peak starts again from here
before, start = mb("VmRSS"), time.perf_counter()
generate(lrnr, text, 10)
print(f"{time.perf_counter()-start:.1f} s|{mb('VmHWM')-before:.0f} MB")
"""


def memory():
    rows = []
    for n in (10_000, 100_000, 1_000_000)[:3 if long else 1]:
        res = subprocess.run([sys.executable, "-c", long_prompt, str(n)], capture_output=True, text=True, check=True)
        rows.append([f"{n:,}", *res.stdout.strip().split("|")])
    return table(["words in the prompt", "time", "peak memory above the start"], rows)


if __name__ == "__main__":
    print(machine(), end="\n\n")
    for part in (against_fastai, floor, int8, batch, quality, memory):
        print(part(), end="\n\n", flush=True)
