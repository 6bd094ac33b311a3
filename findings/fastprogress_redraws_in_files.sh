#!/usr/bin/env bash
# fastprogress 1.1.6: redirected to a file, its console bar still writes every redraw, because `printing()` asks whether standard
# output HAS an `isatty` method and never calls it.
#
# So a log of a training holds hundreds of '\r' redraws, and the switch meant to prevent that (`printing()`) is true for every stream
# with that method. Only `NO_BAR` silences it. Seen with Python 3.11: printing() gives back the method itself, so
# "printing: True builtin_function_or_method", and the file holds one redraw for each of 20 steps and one for the start.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check fastprogress==1.1.6
cat >"$place/try.py" <<'PY'
import sys, time
from fastprogress import fastprogress as fp
assert not sys.stdout.isatty()
print("printing:", bool(fp.printing()), type(fp.printing()).__name__)
for i in fp.ConsoleProgressBar(range(20)): time.sleep(0.25)
PY
"$place/venv/bin/python" "$place/try.py" >"$place/log"
redraws=$(tr '\r' '\n' <"$place/log" | grep -c '/20 ')
echo "$(head -n 1 "$place/log"), redraws in the file: $redraws"
grep -q "printing: True builtin_function_or_method" "$place/log" && [ "$redraws" -ge 15 ] || { echo "the behaviour has changed"; exit 1; }
