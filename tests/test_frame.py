"""The frame: no network, notebooks and modules in step, a light import, nothing of one machine in the project."""
import ast
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("nbs/**/*.ipynb"))


def python(code, **kw):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, **kw)


def test_the_network_is_blocked_here_and_in_child_processes():
    with pytest.raises(OSError, match="block the network"): socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(OSError, match="block the network"): socket.getaddrinfo("example.com", 80)
    child = python("import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)")
    assert child.returncode and "block the network" in child.stderr


def test_this_machine_can_still_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def test_import_loads_nothing_heavy():
    heavy = python("import fastcourse, fastcourse.cli, sys; print([m for m in ('torch', 'fastai', 'pandas', "
                   "'matplotlib', 'numpy') if m in sys.modules])")
    assert heavy.stdout.strip() == "[]", heavy


def test_every_module_comes_from_a_notebook():
    exported = {m for nb in NOTEBOOKS for m in re.findall(r"#\| default_exp (\w+)", nb.read_text())}
    modules = {f.stem for f in (ROOT/"fastcourse").glob("*.py") if f.stem == "__main__" or not f.stem.startswith("_")}
    assert exported == modules


def test_export_changes_nothing(tmp_path):
    before = {f.name: f.read_text() for f in (ROOT/"fastcourse").glob("*.py")}
    copy = tmp_path/"project"
    copy.mkdir()
    for name in ("nbs", "fastcourse", "pyproject.toml", "setup.cfg"):
        subprocess.run(["cp", "-r", str(ROOT/name), str(copy)], check=True)
    subprocess.run([Path(sys.executable).parent/"nbdev-export"], cwd=copy, check=True, capture_output=True)
    after = {f.name: f.read_text() for f in (copy/"fastcourse").glob("*.py")}
    assert after == before


def test_lines_are_short():
    "ruff leaves room for the `__all__` that nbdev writes."
    files = [f for f in (ROOT/"fastcourse").glob("[!_]*.py") if not f.stem.startswith("lesson")]  # questions are prose
    files += (ROOT/"tests").rglob("*.py")
    long = [f"{f.name}:{i}" for f in files for i, line in enumerate(f.read_text().split("\n"), 1)
            if len(line) > 120 and not line.startswith("__all__ = ")]
    assert not long


@pytest.mark.parametrize("nb", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_clean_and_hold_no_error(nb):
    cells = json.loads(nb.read_text())["cells"]
    for c in cells:
        assert c.get("execution_count") is None
        assert not [o for o in c.get("outputs", []) if o["output_type"] == "error"]
    assert cells[0]["cell_type"] == "markdown" and "".join(cells[0]["source"]).startswith("# ")


def test_no_numbers_of_rows():
    "The course is told by its lessons: “lesson 3.7”, which a reader can open, and not by the rows of a list."
    number = r"\d\.\d+"  # not written out: this file is read, too
    for f in (ROOT/"tests").rglob("*.py"):
        assert not re.search(rf"\brows? {number}|\bdef test_\w*rows?_\d", f.read_text(), re.I), f


def test_no_path_of_this_machine_in_the_project():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    text = [ROOT/f for f in files if f.endswith((".py", ".ipynb", ".md", ".cfg", ".toml", ".txt", "Makefile"))]
    for f in text:
        assert f"{Path.home()}/" not in f.read_text() and f"{ROOT}/" not in f.read_text(), f


# the rooms, read as text

MODULES = sorted(f for f in (ROOT/"fastcourse").glob("*.py") if f.stem != "_modidx")  # that one is nbdev's own


def test_a_room_is_read_in_one_sitting():
    long = {f.name: n for f in MODULES if (n := len(f.read_text().split("\n"))) > 600}
    assert not long


def private_names(text, modules):
    "The private names of other rooms that a module uses: imported by name, or taken from a module."
    found, rooms = [], set()
    tree = ast.parse(text)
    for o in ast.walk(tree):
        if isinstance(o, ast.ImportFrom) and (o.level or (o.module or "").startswith("fastcourse")):
            found += [a.name for a in o.names if a.name.startswith("_") and not a.name.endswith("__")]
            rooms |= {a.asname or a.name for a in o.names if a.name in modules}
    for o in ast.walk(tree):
        if isinstance(o, ast.Attribute) and o.attr.startswith("_") and not o.attr.endswith("__"):
            if ast.unparse(o.value) in rooms or re.fullmatch(r"fastcourse\.\w+", ast.unparse(o.value)):
                found.append(f"{ast.unparse(o.value)}.{o.attr}")
    return found


def test_no_private_name_crosses_a_module():
    names = {f.stem for f in MODULES}
    assert private_names("from .cam import _label\nfrom . import cam\ncam._mix(fastcourse.lm._x, cam.mix)", names) == [
        "_label", "cam._mix", "fastcourse.lm._x"]
    assert not {f.name: p for f in MODULES if (p := private_names(f.read_text(), names))}


def repeats(texts, n=7):
    "Where the same `n` lines stand twice; blank lines, indents and nbdev's marks do not count."
    seen, found = {}, []
    for name, text in texts.items():
        lines = [(i, s) for i, line in enumerate(text.split("\n"), 1)
                 if (s := line.strip()) and not s.startswith("# %%")]
        for k in range(len(lines)-n+1):
            run, here = tuple(s for _, s in lines[k:k+n]), f"{name}:{lines[k][0]}"
            if run in seen: found.append((seen[run], here))
            else: seen[run] = here
    return found


def test_no_run_of_more_than_six_lines_stands_twice():
    text = "\n".join("abcdefg")
    assert repeats({"x": text, "y": "0\n"+text}) == [("x:1", "y:2")] and not repeats({"x": text, "y": text[:-2]})
    assert not repeats({f.name: f.read_text() for f in MODULES})
