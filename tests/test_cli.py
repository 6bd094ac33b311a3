"""The `fastcourse` command as a process: exit codes, one line for bad input, plain logs."""
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).parent/"fastcourse"


def fastcourse(*argv, cwd=None):
    return subprocess.run([COMMAND, *map(str, argv)], capture_output=True, text=True, cwd=cwd, timeout=300)


def test_help_and_version():
    r = fastcourse("--help")
    assert r.returncode == 0 and "tour" in r.stdout and "scenes" in r.stdout and not r.stderr
    assert fastcourse("tour", "--help").stdout.startswith("usage: fastcourse tour")
    import fastcourse as package
    assert fastcourse("--version").stdout.strip() == package.__version__


@pytest.mark.parametrize("argv, word", [
    (["fly"], "no command 'fly'"),
    (["tour", "--colour", "red"], "unrecognized"),
    (["scenes", "--n-train", "many"], "invalid"),
    (["scenes", "--size", "3"], "32 pixels"),
    (["scenes", "--dest", "file/set"], "file/set"),
    (["tour", "--dest", "file/tour"], "choose another folder"),
])
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, argv, word):
    (tmp_path/"file").write_text("in the way")
    r = fastcourse(*argv, cwd=tmp_path)
    assert r.returncode == 2
    assert r.stderr.count("\n") == 1 and r.stderr.startswith("fastcourse: ") and word in r.stderr
    assert "Traceback" not in r.stderr


def test_a_reader_that_stops_early_is_no_error():
    r = subprocess.run(f"{COMMAND} --help | head -n 1", shell=True, capture_output=True, text=True)
    assert r.stdout.startswith("usage") and "Traceback" not in r.stderr
