#!/usr/bin/env bash
# img2dataset 1.47.0: `--distributor ray` where Ray is not installed fetches nothing, says nothing, and ends with
# code 0.
#
# Its distributor.py replaces `ray_distributor` by a function that returns None where `import ray` fails. Seen with Python 3.11:
# "code 0, lines about Ray: 0, shards: 0".
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check img2dataset==1.47.0
echo "http://127.0.0.1:9/a.jpg" >"$place/urls.txt"
code=0
NO_ALBUMENTATIONS_UPDATE=1 timeout 60 "$place/venv/bin/img2dataset" --url_list "$place/urls.txt" --output_folder "$place/out" \
  --distributor ray >"$place/log" 2>&1 || code=$?
echo "code $code, lines about Ray: $(grep -ciw ray "$place/log" || true), shards: $(find "$place/out" -name '*_stats.json' | wc -l)"
[ "$(find "$place/out" -name '*_stats.json' | wc -l)" = 0 ] && ! grep -qiw ray "$place/log" || { echo "the behaviour has changed"; exit 1; }
