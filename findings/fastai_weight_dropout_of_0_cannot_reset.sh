#!/usr/bin/env bash
# fastai 2.8.12 with torch 2.15.0: an AWD_LSTM whose weight dropout is 0 trains one epoch and then cannot reset its state.
#
# `language_model_learner(dls, AWD_LSTM, drop_mult=0.)` asks for it, the natural setting for "no dropout". Training begins; the first
# `reset` after the first pass, before the validation, ends in "cannot assign 'torch.FloatTensor' as parameter 'weight_hh_l0'".
# With any other probability `reset` works, also with 1e-9. Seen with Python 3.11: "weight_p=0.5: resets", "weight_p=1e-09: resets",
# then "weight_p=0.0: TypeError".
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check fastai==2.8.12 torch==2.15.0
cat >"$place/try.py" <<'PY'
import torch
from fastai.text.models.awdlstm import AWD_LSTM
for p in (0.5, 1e-9, 0.):
    model = AWD_LSTM(9, 4, 4, 1, weight_p=p)
    try:
        model.train()
        model(torch.zeros(1, 2, dtype=torch.long))
        model.eval()
        model.reset()
        print(f"weight_p={p}: resets")
    except TypeError as e: print(f"weight_p={p}: {type(e).__name__}")
PY
out=$("$place/venv/bin/python" -W ignore "$place/try.py" | tee /dev/stderr)
[ "$out" = $'weight_p=0.5: resets\nweight_p=1e-09: resets\nweight_p=0.0: TypeError' ] || { echo "the behaviour has changed"; exit 1; }
