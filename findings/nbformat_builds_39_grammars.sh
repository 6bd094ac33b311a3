#!/usr/bin/env bash
# nbformat 5.10.4 and jsonschema 4.26.0 on Python 3.11, with and without rfc3987-syntax 1.1.0.
#
# Behaviour: `import nbformat` takes many times as long once rfc3987-syntax is installed, which JupyterLab brings along (it
# asks for jsonschema[format-nongpl], through jupyter_events). nbformat imports jsonschema; that imports rfc3987-syntax, if it is there, to check
# addresses (IRIs); and that builds 38 parsers of lark while it is imported, one for each rule of RFC 3987. A notebook's
# schema has no field of that format, so none of them is ever asked. Every process that opens a notebook pays: nbclient,
# nbconvert, papermill.
# Way out: `sys.modules["rfc3987_syntax"] = None` before the import; jsonschema takes that as "not installed".
#
# Seen on two cores of a Xeon: 0.19 s without it, 1.39 s with it; 39 parsers (the 39th is the one that reads grammars).
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/python" -m pip install -q --disable-pip-version-check)
"${pip[@]}" nbformat==5.10.4 jsonschema==4.26.0
cat > "$dir/load.py" <<'PY'
import sys, time
start = time.process_time()
import nbformat
took = time.process_time() - start
nbformat.validate(nbformat.v4.new_notebook())
lark = sys.modules.get("lark")
built = 0
if lark:
    import gc
    built = sum(type(o) is lark.Lark for o in gc.get_objects())
print(f"{took:.2f} {built}")
PY
"$dir/venv/bin/python" "$dir/load.py" >/dev/null   # compiled once
read -r without none < <("$dir/venv/bin/python" "$dir/load.py")
"${pip[@]}" rfc3987-syntax==1.1.0 lark==1.3.1
"$dir/venv/bin/python" "$dir/load.py" >/dev/null
read -r with built < <("$dir/venv/bin/python" "$dir/load.py")
echo "import nbformat: $without s without rfc3987-syntax, $with s with it, which builds $built parsers"
[ "$none" = 0 ] && [ "$built" -ge 30 ] || { echo "changed: $none and $built parsers" >&2; exit 1; }
awk "BEGIN { exit !($with > 3*$without) }" || { echo "changed: it is not 3 times as slow" >&2; exit 1; }
