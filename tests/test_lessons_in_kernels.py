"""All lessons in a real Jupyter kernel, each from its first to its last cell."""
import re
from pathlib import Path

import nbformat
import pytest
from kernels import Kernel

LESSONS = sorted((Path(__file__).parents[1]/"nbs"/"lessons").glob("*.ipynb"))


def lesson(path: Path) -> nbformat.NotebookNode:
    "The notebook without the cells that nbdev's tests leave out too: long ones, and those that need a GPU."
    nb = nbformat.read(path, as_version=4)
    nb.cells = [c for c in nb.cells if c.cell_type == "code"
                and not re.search(r"^#\| *(slow|cuda|eval: *false)", c.source, re.M)]
    return nb


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_the_lessons_run_in_a_kernel(path):
    nb = lesson(path)
    assert len(nb.cells) > 20
    Kernel(nb, resources={"metadata": {"path": str(path.parent)}}).execute()
