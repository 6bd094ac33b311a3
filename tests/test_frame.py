"""The frame: no network, notebooks and modules in step, a light import, nothing of one machine in the project."""
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
