"""The `fastcourse` command as a process: exit codes, one line for bad input, plain logs."""
import subprocess

import pytest
from command import COMMAND, fastcourse, here, is_one_line


def test_help_and_version():
    r = fastcourse("--help")
    assert r.returncode == 0 and "tour" in r.stdout and "scenes" in r.stdout and not r.stderr
    assert fastcourse("tour", "--help").stdout.startswith("usage: fastcourse tour")
    import fastcourse as package
    assert fastcourse("--version").stdout.strip() == package.__version__


def bad(folder):
    "What the commands below are asked to work on."
    (folder/"file").write_text("in the way")
    (folder/"numbers.csv").write_text("text\n" + "one two three\n"*20)


@pytest.mark.parametrize("argv, word", [
    (["fly"], "no command 'fly'"),
    (["tour", "--colour", "red"], "unrecognized"),
    (["scenes", "--n-train", "many"], "invalid"),
    (["scenes", "--size", "3"], "32 to 4096 pixels"),
    (["scenes", "--dest", "file/set"], "file/set"),
    (["tour", "--dest", "file/tour"], "choose another folder"),
    (["lm"], "no command 'lm'"),
    (["lm", "fly"], "no command 'lm fly'"),
    (["lm", "train", "nowhere.csv"], "nowhere.csv"),
    (["lm", "train", "numbers.csv", "--text-col", "txt"], "text"),
    (["lm", "train", "numbers.csv", "--epochs", "0"], "1 or more"),
    (["lm", "train", "numbers.csv", "-o", "file/model"], "file/model"),
    (["lm", "generate", "nowhere", "one,"], "nowhere"),
    (["crawl", "set"], "no queries"),
    (["crawl", "set", "cat"], "class=term"),
    (["check", "nowhere"], "nowhere"),
    (["clean", "nowhere"], "nowhere"),
    (["shards", "read", "nowhere", "set"], "nowhere"),
    (["shards", "write", "nowhere", "out"], "nowhere"),
])
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, argv, word):
    bad(tmp_path)
    monkeypatch.chdir(tmp_path)
    is_one_line(here(capsys, *argv), word)


@pytest.mark.parametrize("argv, word", [(["fly"], "no command 'fly'"), (["check", "nowhere"], "nowhere")])
def test_bad_input_as_a_process(tmp_path, argv, word):
    bad(tmp_path)
    is_one_line(fastcourse(*argv, cwd=tmp_path), word)


def test_a_reader_that_stops_early_is_no_error():
    r = subprocess.run(f"{COMMAND} --help | head -n 1", shell=True, capture_output=True, text=True)
    assert r.stdout.startswith("usage") and "Traceback" not in r.stderr


def test_a_language_model_from_a_csv_file_to_words(tmp_path, monkeypatch, capsys):
    (tmp_path/"numbers.csv").write_text("text\n" + '"one, two, three, four, five, six, seven, eight, nine, ten"\n'*200)
    # with seeds 0 to 2 its accuracy is 0.998
    r = fastcourse("lm", "train", "numbers.csv", "-o", "model", "--epochs", 3, "--seed", 1, "--bs", 8, "--seq-len", 20,
                   cwd=tmp_path)
    assert r.returncode == 0, r.stderr
    assert "\r" not in r.stdout and len(r.stdout.splitlines()) < 12
    assert not list((tmp_path/"model").glob("*.pkl"))
    piped = fastcourse("lm", "generate", "model", "-n", "20", "--temperature", "0", "--stream", cwd=tmp_path,
                       input="one, two,")
    assert piped.returncode == 0, piped.stderr
    note = fastcourse("lm", "generate", "model", "one, zebra,", "-n", 2, cwd=tmp_path)
    assert note.returncode == 0 and "zebra" in note.stderr and note.stderr.count("\n") == 1
    none = fastcourse("lm", "generate", "model", "-n", "2", cwd=tmp_path, input="")
    assert none.returncode == 2 and none.stderr.count("\n") == 1
    monkeypatch.chdir(tmp_path)
    whole = here(capsys, "lm", "generate", "model", "one, two,", "-n", 20, "--temperature", 0)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.startswith("one , two , three , four , five")
    assert whole.stdout.split()[4:] == piped.stdout.split()
    drawn = [here(capsys, "lm", "generate", "model", "one, two,", "-n", 5, "--top-k", 5, "--seed", 3).stdout
             for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_crawl_check_and_clean_a_picture_set_offline(tmp_path, capsys):
    from fastcourse.scenes import digit_scenes
    digit_scenes(tmp_path/"source", n_train=8, n_test=2, size=64)
    crawl = ("crawl", "set", "zero=zero", "one=one", "--source", "source/train", "--pause", "0", "--test-share", "0.25")
    first, second = fastcourse(*crawl, cwd=tmp_path), fastcourse(*crawl, cwd=tmp_path)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    kept = sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path/"set").rglob("*.jpg"))
    assert len(kept) == 8 and first.stdout.splitlines()[0].split() == ["asked", "found", "downloaded", "kept"]
    bad = tmp_path/kept[0]
    bad.with_name("page.jpg").write_text("<html>no picture</html>")
    bad.with_name("copy.png").write_bytes(bad.read_bytes())
    checked = fastcourse("check", "set", cwd=tmp_path)
    assert checked.returncode == 0 and "page.jpg" in checked.stdout and "2 of 10 files" in checked.stdout
    assert here(capsys, "shards", "write", tmp_path/"set", tmp_path/"out").stdout == f"2 shards in {tmp_path/'out'}\n"
    assert here(capsys, "shards", "read", tmp_path/"out", tmp_path/"back").returncode == 0
    assert len([*(tmp_path/"back").rglob("*.jpg")]) == 8
    assert fastcourse("clean", "set", "--dry-run", cwd=tmp_path).returncode == 0 and bad.with_name("page.jpg").exists()
    assert fastcourse("clean", "set", cwd=tmp_path).returncode == 0
    assert not bad.with_name("page.jpg").exists() and list((tmp_path/"set"/".rejected").rglob("page.jpg"))
