#!/usr/bin/env bash
# fastprogress 1.1.6: a bar over an iterator of unknown length that turns out to be empty raises UnboundLocalError at its end.
#
# `total='noinfer'` is the documented way to say "the length is not known". With one item or more the loop ends well. With none, the
# bar reads the counter of a loop that never ran. A search that finds nothing, or a queue that is already empty, ends in a trace.
# Seen with Python 3.11: "one item: [7]", then "no item: UnboundLocalError".
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check fastprogress==1.1.6
cat >"$place/try.py" <<'PY'
from fastprogress.fastprogress import ConsoleProgressBar
print("one item:", list(ConsoleProgressBar(iter([7]), total="noinfer", display=False)))
try: print("no item:", list(ConsoleProgressBar(iter([]), total="noinfer", display=False)))
except UnboundLocalError as e: print("no item:", type(e).__name__)
PY
out=$("$place/venv/bin/python" "$place/try.py" | tr '\r' '\n')
echo "$out"
grep -q "one item: \[7\]" <<<"$out" && grep -q "no item: UnboundLocalError" <<<"$out" || { echo "the behaviour has changed"; exit 1; }
