#!/usr/bin/env bash
# ddgs 9.10.0 with primp 2.0.1, which pip gives it today: every search ends with BuilderError, and `pip check` is content.
#
# ddgs 9.10.0 asks for primp>=0.15.0 and imitates browsers by names that primp 2 no longer knows; the name is drawn by
# lot. 9.11.3 pins one primp, and from 9.12.0 on primp chooses. Seen with Python 3.11:
# "{'BuilderError: Invalid impersonate: ': 8}". No request leaves: the error comes before.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install -q --disable-pip-version-check ddgs==9.10.0 primp==2.0.1
"$place/env/bin/pip" check
cd "$place" && "$place/env/bin/python" - <<'PY'
from collections import Counter
from ddgs import DDGS

seen = Counter()
for _ in range(8):
    try: DDGS().text("a picture of a cat")
    except Exception as e: seen[f"{type(e).__name__}: {str(e).partition(chr(34))[0]}"] += 1
    else: seen["an answer"] += 1
print(dict(seen))
assert set(seen) == {"BuilderError: Invalid impersonate: "}, "changed: ddgs 9.10.0 and primp 2.0.1 went together"
PY
