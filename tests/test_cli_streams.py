"""The `fastcourse` command in an odd world: closed and full streams, pipes, odd names, Ctrl-C, huge numbers."""
import inspect
import os
import re
import shlex
import signal
import subprocess

import command
import numpy as np
import pandas as pd
import pytest
from command import COMMAND
from PIL import Image

from fastcourse import cli
from progress_cases import pictures


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A folder with pictures, texts, a language model and a classifier, all made by the command itself."
    place = tmp_path_factory.mktemp("streams")
    pictures(place/"set"/"train", 4), pictures(place/"set"/"test", 3)
    pd.DataFrame({"text": ["one two three four five six"]*20}).to_csv(place/"texts.csv", index=False)
    with pytest.MonkeyPatch.context() as m:
        m.chdir(place)
        for line in ("lm train texts.csv -o speaker --epochs 1 --bs 2 --seq-len 8 --seed 1",
                     "train set --arch resnet18 --scratch --epochs 1 --size 32 --bs 4 --seed 1 -o net"):
            assert command.code(*shlex.split(line)) == 0, line
    return place


def run(line: str, cwd, **kw):
    "`fastcourse LINE` in a shell, in `cwd`."
    return subprocess.run(f"{shlex.quote(str(COMMAND))} {line}", shell=True, executable="/bin/bash", cwd=cwd,
                          timeout=600, **dict(capture_output=True, text=True) | kw)


def sentence(r, code: int):
    "That `r` ended with `code` and one line, and neither a trace nor a bug."
    assert r.returncode == code, (r.returncode, r.stdout[-500:], r.stderr[-1500:])
    lines = [o for o in r.stderr.split("\n") if o]
    for odd in ("Traceback", "should not happen", "Exception ignored"): assert odd not in r.stderr, r.stderr
    if code: assert len(lines) == 1 and lines[0].startswith("fastcourse: "), lines
    return r.stderr


@pytest.mark.parametrize("line", ["--help", "check set", "lm generate speaker 'one two' -n 3"])
def test_standard_output_that_is_closed_full_or_cut(place, line):
    sentence(run(f"{line} >&-", place), 0)
    assert "No space left" in sentence(run(f"{line} >/dev/full", place), 1)
    sentence(run(f"{line} | head -n 0", place), 0)
    sentence(run(f"{line} 2>&- >/dev/null", place), 0)
    sentence(run(f"{line} <&- >&- 2>&-", place), 0)


def test_closed_and_full_streams_where_torch_is_loaded(place):
    "The hardest of the cases above, since each of these takes seconds to start."
    assert "No space left" in sentence(run("predict net set/test >/dev/full", place), 1)
    sentence(run("predict net set/test <&- >&- 2>&-", place), 0)


def test_standard_input_that_is_closed_badly_encoded_or_empty(place):
    assert "closed" in sentence(run("lm generate speaker -n 3 <&-", place), 2)
    (place/"bad.txt").write_bytes(b"one \xff two")
    for errors in ("strict", "surrogateescape"):   # the second is Python's own choice in the locale C
        r = run("lm generate speaker -n 3 <bad.txt", place, env=os.environ | {"PYTHONIOENCODING": f"utf-8:{errors}"})
        assert "byte 4" in sentence(r, 2) or "letter 4" in r.stderr
    sentence(run("lm generate speaker -n 3 </dev/null", place), 2)


# a call of each subcommand that is right but for one number
RIGHT = {
    "scenes": "scenes --dest drawn --n-train 2 --n-test 2 --size 32",
    "tour": "tour --dest t --images set",
    "lm train": "lm train texts.csv -o other",
    "lm generate": "lm generate speaker one",
    "crawl": "crawl crawled a=a --source set/train --pause 0",
    "check": "check set", "clean": "clean set --dry-run",
    "shards read": "shards read set back", "shards write": "shards write set shards",
    "train": "train set --arch resnet18 --scratch --size 32 -o other",
    "cam": "cam net set/test", "predict": "predict net set/test",
    "page": "page speaker", "app": "app speaker",
    "lessons": "lessons course", "grade": "grade set -o other.csv",
}


def numbers() -> list:
    "(subcommand, option, number without measure) for every number that the command takes."
    assert set(RIGHT) == set(cli._commands)
    res = []
    for name, f in cli._commands.items():
        for k, p in inspect.signature(f.__wrapped__).parameters.items():
            option = "--" + k.replace("_", "-").lower()
            if p.annotation is int: res += [(name, option, v) for v in (10**30, -10**30)]
            if p.annotation is float: res += [(name, option, v) for v in ("nan", "inf", "-inf")]
    return res


@pytest.mark.parametrize("name, option, value", numbers())
def test_a_number_without_measure_is_one_sentence(place, monkeypatch, capsys, name, option, value):
    "What is too much is known at once: nothing is begun."
    if option == "--epochs" and value == 10**30: pytest.skip("training for ever is what was asked for")
    code, err, _ = here(RIGHT[name] + f" {option}={value}", place, monkeypatch, capsys)
    assert code == 0 and not err or code == 2 and len(err) == 1
    assert not (place/"other").exists()


def here(line: str, cwd, monkeypatch, capsys) -> tuple[int, list[str], str]:
    "`fastcourse LINE` in this process: exit code, sentences, output."
    monkeypatch.chdir(cwd)
    r = command.here(capsys, *shlex.split(line))
    err = [o for o in r.stderr.split("\n") if o.startswith("fastcourse: ") and "note:" not in o]
    assert "should not happen" not in r.stderr and "Traceback" not in r.stderr
    return r.returncode, err, r.stdout


@pytest.mark.parametrize("out", ["maps", "maps.", ".png", "maps.xyz", "maps.pgf", "set", "set/", "", "no/such/"])
def test_odd_endings_of_o(place, monkeypatch, capsys, out):
    code, err, _ = here(f"cam net set/test -o '{out}'", place, monkeypatch, capsys)
    assert code == 2 and len(err) == 1


def test_an_upper_case_ending_is_a_picture(place, monkeypatch, capsys):
    assert here("cam net set/test -o drawn/MAPS.PNG", place, monkeypatch, capsys)[:2] == (0, [])
    assert Image.open(place/"drawn"/"MAPS.PNG").format == "PNG"


def test_a_home_folder_and_spaces(place, monkeypatch, capsys):
    home = place/"my home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    code, err, out = here("lm train texts.csv -o '~/my model' --epochs 1 --bs 2 --seq-len 8", place, monkeypatch,
                          capsys)
    assert code == 0 and not err
    hint = re.search(r"now try: fastcourse (.*)", out)[1]
    assert (home/"my model"/"lm.json").exists()
    sentence(run(hint.replace("your prompt", "one two") + " -n 2", place), 0)  # as typed into a shell
    monkeypatch.setenv("HOME", str(place))
    for line in ("predict '~/net' set/test", "check '~/set'"):
        assert here(line, place, monkeypatch, capsys)[:2] == (0, []), line


def test_a_class_name_with_dollars_and_one_that_is_no_text(tmp_path):
    for c in (b"a$b$_{", b"b\xff\xfe"):
        for part in (b"train", b"test"):
            folder = os.path.join(os.fsencode(tmp_path), b"odd", part, c)
            os.makedirs(folder)
            for i in range(3):
                grid = np.random.default_rng([i, len(c)]).integers(0, 255, (5, 5, 3), np.uint8)
                Image.fromarray(grid).resize((40, 40)).save(os.path.join(folder, b"%d%s.png" % (i, part)))
    sentence(run("check odd", tmp_path), 0)
    r = run("train odd --arch resnet18 --scratch --epochs 1 --size 32 --bs 2 -o net", tmp_path)
    sentence(r, r.returncode)
    if r.returncode == 2: return   # a name that is no text may be refused, in a sentence
    assert r.returncode == 0
    for line in ("cam net odd/test -o cam.png", "predict net odd/test", "predict net odd/test --json"):
        sentence(run(line, tmp_path), 0)


def test_dollars_in_a_class_name_are_drawn_as_they_are(tmp_path, monkeypatch, capsys):
    for split, n in (("train", 3), ("test", 2)): pictures(tmp_path/"odd"/split, n, classes=["a$b$_{", "b"])
    for line in ("train odd --arch resnet18 --scratch --epochs 1 --size 32 --bs 2 -o net",
                 "cam net odd/test -o cam.png", "predict net odd/test"):
        assert here(line, tmp_path, monkeypatch, capsys)[:2] == (0, []), line
    assert (tmp_path/"cam.png").stat().st_size > 1000


@pytest.mark.parametrize("line", ["lm train pipe", "lm generate pipe one", "check pipe", "clean pipe",
                                  "crawl dest a=a --source pipe", "train pipe", "predict pipe set/test",
                                  "predict net pipe", "cam net pipe", "train set --weights pipe"])
def test_a_pipe_is_no_file_and_nobody_waits_for_it(place, monkeypatch, capsys, line):
    if not (place/"pipe").exists(): os.mkfifo(place/"pipe")
    code, err, _ = here(line, place, monkeypatch, capsys)
    assert code in (1, 2) and len(err) == 1


@pytest.mark.parametrize("module", ["fastcore.script", "fastcourse.core", "numpy", "pandas", "PIL.Image", "torch",
                                    "torch.nn", "matplotlib"])
def test_ctrl_c_while_modules_load(place, tmp_path, module):
    "An interrupt sent by the import itself, so at the same moment on every machine."
    (tmp_path/"sitecustomize.py").write_text(
        "import os, runpy, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n")
    r = run("check set && true" if module in ("PIL.Image", "numpy", "pandas") else "lm train texts.csv -o other", place,
            env=os.environ | {"PYTHONPATH": str(tmp_path)})
    if r.returncode == 0: pytest.skip(f"{module} is not loaded by this command")
    sentence(r, 130)
    assert not (place/"other").exists()


def test_ctrl_c_in_the_middle_of_a_training_keeps_the_old_model(place):
    before = sorted((o.name, o.stat().st_mtime_ns) for o in (place/"speaker").iterdir())
    p = subprocess.Popen([COMMAND, "lm", "train", "texts.csv", "-o", "speaker", "--epochs", "100000", "--bs", "2",
                          "--seq-len", "8"],
                         cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in p.stdout:
        if re.match(r"\s*[1-9]", line): break   # an epoch is done
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=120)
    assert p.returncode == 130 and "Traceback" not in err and "stopped" in err
    assert sorted((o.name, o.stat().st_mtime_ns) for o in (place/"speaker").iterdir()) == before


@pytest.mark.parametrize("line", ["lm train texts.csv -o {} --epochs 1 --bs 2 --seq-len 8 --lr 1e30",
                                  "train set --arch resnet18 --scratch --epochs 2 --size 32 --bs 4 --lr 1e30 -o {}"])
def test_a_training_that_diverged_does_not_replace_a_good_model(place, monkeypatch, capsys, line):
    model = "speaker" if line.startswith("lm") else "net"
    before = sorted((o.name, o.stat().st_mtime_ns) for o in (place/model).iterdir())
    code, err, _ = here(line.format(model), place, monkeypatch, capsys)
    assert code in (1, 2) and len(err) == 1
    assert sorted((o.name, o.stat().st_mtime_ns) for o in (place/model).iterdir()) == before


def test_what_is_not_there_or_cannot_be_done_is_exit_code_1_or_2(place, monkeypatch, capsys):
    sentence(run("check nowhere", place), 2)
    code, err, _ = here("predict net nowhere.png", place, monkeypatch, capsys)
    assert code == 2 and len(err) == 1
