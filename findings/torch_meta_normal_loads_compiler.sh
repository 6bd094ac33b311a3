#!/usr/bin/env bash
# torch 2.15.0: making a layer on the meta device (`with torch.device('meta')`), which shall cost nothing, loads torch's compiler.
#
# Default initialisation draws with `uniform_` or `normal_`. On a meta tensor `normal_` goes through a Python decomposition, and the first
# call imports torch._dynamo and sympy: seconds for an operation without data. `torch.empty` on the same device loads neither.
# Seen with Python 3.11: "empty: no compiler", then "normal_: torch._dynamo, sympy".
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check torch==2.15.0 numpy==2.4.6
cat >"$place/try.py" <<'PY'
import sys, torch
def loaded(): return ", ".join(o for o in ("torch._dynamo", "sympy") if o in sys.modules) or "no compiler"
t = torch.empty(3, 3, device="meta")
print("empty:", loaded())
t.normal_()
print("normal_:", loaded())
PY
out=$("$place/venv/bin/python" -W ignore "$place/try.py")
echo "$out"
[ "$out" = $'empty: no compiler\nnormal_: torch._dynamo, sympy' ] || { echo "the behaviour has changed"; exit 1; }
