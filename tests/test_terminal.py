"""In a terminal: bars are drawn and go away, nothing breaks with 0, 1 or many items, Ctrl-C is one line."""
import ast
import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from terminal import ROOT, in_terminal

COMMAND = Path(sys.executable).parent/"fastcourse"


def loops_with_a_bar() -> set[str]:
    "module.function of every loop of the package over `progress(…)`."
    def calls(f):
        return [o for o in ast.walk(f) if isinstance(o, ast.Call) and getattr(o.func, "id", None) == "progress"]
    return {f"{file.stem}.{f.name}" for file in (ROOT/"fastcourse").glob("*.py")
            for f in ast.walk(ast.parse(file.read_text()))
            if isinstance(f, ast.FunctionDef) and calls(f)}


@pytest.fixture(scope="module")
def cases():
    "Every function that can show a bar, called in one program in a terminal."
    seen = in_terminal([sys.executable, Path(__file__).with_name("progress_cases.py")], cols=160)
    assert seen.code == 0, seen.screen[-3000:]
    return seen


def test_nothing_one_many_and_interrupted(cases):
    told = cases.screen.split("=====")[1].split("drawn by")[0].split("\n")
    broken = [o for o in told if o and not re.search(r"^\S+ (0|1|6): (ok|refused: )|interrupted: ok$|^[^:]*$", o)]
    assert not broken
    assert sum(o.endswith("6: ok") for o in told) == sum(o.endswith("interrupted: ok") for o in told) >= 14


def test_every_loop_with_a_bar_was_called(cases):
    assert set(re.findall(r"drawn by (\S+)", cases.screen)) == loops_with_a_bar()


def test_bars_are_drawn_and_go_away(cases):
    assert len(re.findall(r"\d+%\|", cases.stream)) > 50
    assert "%|" not in cases.screen and "it/s" not in cases.screen


def test_a_bar_shows_its_name_and_its_steps():
    code = ("from fastcourse.core import progress\nfor i in progress(range(4), '고양이'):\n    import time; "
            "time.sleep(0.15)")
    seen = in_terminal([sys.executable, "-c", code], cols=60)
    steps = re.findall(r"고양이: +(\d+)%\|", seen.stream)
    assert steps[0] == "0" and "50" in steps and seen.screen == ""
    assert max(len(line) for line in seen.stream.split("\r")) <= 60


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    "A folder with what the subcommands need: pictures and texts."
    from progress_cases import pictures
    place = tmp_path_factory.mktemp("terminal")
    pictures(place/"set"/"train", 8), pictures(place/"set"/"test", 6)
    pd.DataFrame({"text": ["one two three four five six"]*60}).to_csv(place/"texts.csv", index=False)
    (place/"submitted").mkdir()
    (place/"submitted"/"broken.ipynb").write_text("{")
    pictures(place/"course"/"images"/"train", 1)   # `lessons` would draw 1800
    return place


# each a process that is forked from one that has loaded the package, which takes most of their time
FORKED = [
    ["train", "set", "--arch", "resnet18", "--scratch", "--epochs", 1, "--size", 40, "--bs", 4, "-o", "net", "--seed",
     1],
    ["predict", "net", "set/test"],
    ["cam", "net", "set/test", "-o", "cam.png"],
    ["lm", "train", "texts.csv", "-o", "speaker", "--epochs", 1, "--bs", 2, "--seq-len", 8],
    ["lessons", "course"],
    ["grade", "submitted"],
]
FORK = """
import json, os, sys
from fastcourse.all import *
from fastcourse.__main__ import main
for argv in json.loads(sys.argv[1]):
    sys.argv[1:] = map(str, argv)
    if not (child := os.fork()): sys.exit(main())
    print("exit code", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
# what is quick from the start; all work on what those above have made
COMMANDS = [
    ["scenes", "--dest", "drawn", "--n-train", 6, "--n-test", 2, "--size", 40],
    ["check", "set"],
    ["clean", "set"],
    ["crawl", "crawled", "a=a", "b=b", "--source", "set/train", "--pause", 0],
    ["lm", "generate", "speaker", "one two", "-n", 5],
    ["shards", "write", "set", "shards"],
    ["shards", "read", "shards", "back"],
]


def test_every_subcommand_in_a_terminal(world):
    seen = in_terminal([sys.executable, "-W", "ignore", "-c", FORK, json.dumps(FORKED)], cwd=world)
    assert seen.code == 0 and "Traceback" not in seen.stream and "%|" not in seen.screen, seen.screen[-2000:]
    assert re.findall(r"exit code (\S+)", seen.screen) == ["0"]*len(FORKED), seen.screen[-2000:]
    for argv in COMMANDS:
        seen = in_terminal([COMMAND, *argv], cwd=world)
        assert seen.code == 0 and "Traceback" not in seen.stream, (argv, seen.screen[-2000:])
        assert "%|" not in seen.screen, argv
    names = {" ".join(a[:2]) if a[0] in ("lm", "shards") else a[0] for a in COMMANDS+FORKED}
    from fastcourse.cli import _commands
    assert names | {"tour"} == set(_commands)
