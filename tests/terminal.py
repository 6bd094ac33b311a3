"""A command in a real (pseudo) terminal: what it draws while it runs, and the screen that it leaves behind."""
import contextlib
import os
import pty
import select
import struct
import subprocess
import termios
import time
from fcntl import ioctl
from pathlib import Path
from typing import NamedTuple

import pyte

ROOT = Path(__file__).parents[1]


class Seen(NamedTuple):
    "What a terminal saw."
    code: int     # exit code
    stream: str   # all that was written, redraws included
    screen: str   # what stands there at the end


def screen(stream: str, cols: int = 100, rows: int = 200) -> str:
    "The screen after `stream`, without empty lines at its end."
    term = pyte.Screen(cols, rows)
    pyte.Stream(term).feed(stream)
    return "\n".join(line.rstrip() for line in term.display).rstrip()


def in_terminal(argv, cols: int = 100, rows: int = 200, timeout: float = 900, cwd=None,
                env: dict | None = None) -> Seen:
    "Run `argv` with a terminal of that size as its input, output and errors."
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
    process = subprocess.Popen([*map(str, argv)], stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd,
                               start_new_session=True, env=os.environ | {"TERM": "xterm"} | (env or {}))
    os.close(theirs)
    written, end = b"", time.monotonic() + timeout
    with contextlib.closing(os.fdopen(ours, "rb", buffering=0)) as out:
        while time.monotonic() < end:
            if not select.select([out], [], [], 1)[0]: continue
            try: data = out.read(65536)
            except OSError: data = b""   # Linux says EIO when the last writer has gone
            if not data: break
            written += data
        else:
            process.kill()
            raise TimeoutError(f"{argv} ran longer than {timeout} s; its end: {written[-2000:]!r}")
    stream = written.decode(errors="replace")
    return Seen(process.wait(60), stream, screen(stream, cols, rows))
