"""In a real Jupyter kernel, which is not nbdev's shell: bars are HTML there, and a cell can be stopped."""
import re
from pathlib import Path

import nbformat
import pytest
from kernels import Kernel

ROOT = Path(__file__).parents[1]


def notebook(*sources) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])


def text(cell) -> str:
    "What a cell printed and gave back."
    return "\n".join(o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in cell.outputs)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    "Every function that can show a bar, each in a cell of its own."
    from progress_cases import calls
    names = list(calls(None))
    cells = [f"import sys; sys.path.insert(0, {str(ROOT/'tests')!r})\nfrom progress_cases import *\nwatch()\n"
             f"w = World({str(tmp_path_factory.mktemp('notebook'))!r})"]
    cells += [f"print(*told_of(w, {n!r}), sep='\\n')" for n in names] + ["print(*sorted(DRAWN_BY), sep='\\n')"]
    kernel = Kernel(notebook(*cells))
    kernel.execute()
    return names, kernel


def test_nothing_one_many_and_interrupted(cases):
    names, kernel = cases
    for name, cell in zip(names, kernel.nb.cells[1:]):
        told = [o for o in text(cell).split("\n") if o.startswith(f"{name} ")]
        assert len(told) == 4 and told[-1] == f"{name} interrupted: ok" and told[2] == f"{name} 6: ok", told
        assert not [o for o in told if "BROKEN" in o], told


def test_every_loop_with_a_bar_was_called(cases):
    from test_terminal import loops_with_a_bar
    assert set(text(cases[1].nb.cells[-1]).split()) == loops_with_a_bar()


def test_bars_start_move_and_go_away(cases):
    names, kernel = cases
    shown = [re.search(r'<progress.*?value="(\d+)" max="(\d+)"|<progress.*?max="(\d+)".*?value="(\d+)"', o)
             for o in kernel.html]
    steps = [tuple(map(int, filter(None, m.groups()))) for m in shown if m]
    assert len(steps) > 50 and any(0 in o for o in steps)
    for cell in kernel.nb.cells[1:]:
        left = [o for o in cell.outputs if "<progress" in o.get("data", {}).get("text/html", "")]
        assert not left


def test_an_interrupted_cell_says_so_and_the_next_one_runs():
    nb = notebook("import os, signal, threading, time\nfrom fastcourse.core import progress\n"
                  "for i in progress(range(100), 'work'):\n    time.sleep(0.01)\n    if i == 5: os.kill(os.getpid(), "
                  "signal.SIGINT)", "print(i)")
    Kernel(nb, allow_errors=True).execute()
    assert [o.ename for o in nb.cells[0].outputs if o.output_type == "error"] == ["KeyboardInterrupt"]
    assert not [o for o in nb.cells[0].outputs if "<progress" in o.get("data", {}).get("text/html", "")]
    assert text(nb.cells[1]).strip() == "5"
