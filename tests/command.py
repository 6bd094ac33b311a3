"""The `fastcourse` command: as a process, and in this one where the process is not tested, since each loads torch."""
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fastcourse.cli import main

COMMAND = Path(sys.executable).parent/"fastcourse"


def fastcourse(*argv, cwd=None, **kw):
    "`fastcourse ARGV` as a process."
    env = {k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"}  # notes are warnings
    return subprocess.run([COMMAND, *map(str, argv)], capture_output=True, text=True, cwd=cwd, timeout=300, env=env,
                          **kw)


def code(*argv) -> int:
    "Exit code of `fastcourse ARGV` in this process; what works on for two minutes fails."
    signal.signal(signal.SIGALRM, lambda *a: pytest.fail(f"fastcourse {argv} works on and on"))
    signal.alarm(120)
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # notes are warnings
        try: main([str(o) for o in argv])
        except SystemExit as e: return e.code or 0
        finally: signal.alarm(0)
    return 0


def here(capsys, *argv) -> subprocess.CompletedProcess:
    "`fastcourse ARGV` in this process: exit code, output, errors."
    capsys.readouterr()
    return subprocess.CompletedProcess(argv, code(*argv), *capsys.readouterr())


def is_one_line(r, word: str):
    "Refused with exit code 2 and one line that has `word`."
    assert r.returncode == 2, r.stderr
    assert r.stderr.count("\n") == 1 and r.stderr.startswith("fastcourse: ") and word in r.stderr, r.stderr
    assert "Traceback" not in r.stderr
