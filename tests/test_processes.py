"""Two real processes train together, and equal one: `processes_program.py` runs once, under torchrun, for most."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import processes_program as program
import pytest
import torch
from command import COMMAND, fastcourse, here, is_one_line
from conftest import LONG
from fastai.basics import TfmdDL
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fastcourse.core import InputError
from fastcourse.data import human_numbers
from fastcourse.shares import digest, share, shares

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]


def run(*argv, **env):
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | env
    return subprocess.run([str(o) for o in argv], capture_output=True, text=True, timeout=600, env=env)


def draw(folder):
    "Pictures of two classes that differ in brightness."
    r = np.random.default_rng(0)
    for split, n in (("train", 11), ("test", 5)):
        for k, c in enumerate("ab"):
            (folder/split/c).mkdir(parents=True)
            for i in range(n):
                pixels = (r.integers(0, 120, (32, 32, 3)) + k*100).astype("uint8")
                Image.fromarray(pixels).save(folder/split/c/f"{i}.png")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    "What each of two processes found, and what one finds."
    folder = tmp_path_factory.mktemp("two")
    if LONG: draw(folder/"pictures")
    r = run(*TORCHRUN, Path(program.__file__), folder, *["long"]*LONG)
    both = [folder/f"out{i}.json" for i in (0, 1)]
    assert all(o.exists() for o in both), r.stderr[-3000:]
    one = json.loads(json.dumps(program.main(folder/"one" if not LONG else folder, LONG)))
    return one, [json.loads(o.read_text()) for o in both], folder, r


def close(a, b, tolerance=1e-9):
    if isinstance(b, dict):
        assert a.keys() == b.keys()
        # fastai's mae is in single precision
        for k in b: close(flat(a[k]), flat(b[k]), max(tolerance, 1e-6) if k in ("history", "valid") else tolerance)
    else: assert np.allclose(np.array(a, float), np.array(b, float), rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("name", [*program.CASES, "by_rows"])
def test_two_processes_equal_one(two, name):
    "Losses, metrics, predictions and weights, mostly in double precision; each row once, also in uneven shares."
    one, both, *_ = two
    for o in both:
        close(o[name], one[name], 1e-4 if name == "by_rows" else 1e-9)


@pytest.mark.parametrize("loss", ["weight", "smooth", "ignore", "nll", "share"])
def test_a_loss_with_weights_of_classes_is_that_of_one_process(two, loss):
    "Though the rows of one process weigh more than those of the other, or nothing at all."
    one, both, *_ = two
    assert np.isfinite(flat(one["weighted"][loss]["weights"])).all()
    for o in both: close(o["weighted"][loss], one["weighted"][loss])


def test_smoothed_labels_of_fastai_with_weights_are_refused(two):
    for o in two[1]: assert "is no mean that processes can share; use nn.CrossEntropyLoss" in o["smoothed"]


def flat(v):
    "A list of lists of all depths as one."
    return [x for o in v for x in flat(o)] if isinstance(v, list) else [v]


def test_a_rate_is_found_once_and_one_process_writes(two):
    one, (a, b), *_ = two
    assert a["rate"]["same"] and b["rate"]["same"]
    assert a["rate"]["files"] == ["saved.pth"] and b["rate"]["files"] == []
    for k in ("rate", "loss", "weights"):
        close(flat([a["rate"][k]]), flat([one["rate"][k]]))
        assert a["rate"][k] == b["rate"][k]


@pytest.mark.skipif(not LONG, reason="FASTCOURSE_TEST_LONG is not set")
def test_a_language_model(two):
    "In single precision. The predictions are of all streams, in their order."
    one, (a, b), *_ = two
    for o in (a, b):
        assert o["words"]["targets"] == one["words"]["targets"]
        for k in ("values", "preds"): close(flat(o["words"][k]), flat(one["words"][k]), 1e-3)
    assert a["words"]["files"] and not b["words"]["files"]


@pytest.mark.skipif(not LONG, reason="FASTCOURSE_TEST_LONG is not set")
def test_pictures_and_workers(two):
    one, both, *_ = two
    for o in both:
        close(o["workers"], one["workers"], 1e-4)
        assert o["pictures"]["targets"] == one["pictures"]["targets"]
        for k in ("values", "preds"): close(flat(o["pictures"][k]), flat(one["pictures"][k]), 1e-3)


def test_other_data_is_refused(two):
    for o in two[1]:
        assert o["other_data"] == ("The data of process 1 is not that of process 0; make the learner in the same way "
                                   "in each process, with set_seed(42) in front of whatever is random.")


@pytest.mark.parametrize("case,kind", [("failed", "ValueError"), ("interrupted", "KeyboardInterrupt")])
def test_what_ends_one_process_ends_the_other(two, case, kind):
    """One sentence in the other one, then both can start anew. It does not wait for the timeout: that is ten minutes,
    and `run` gives the whole program no more."""
    one, (a, b), *_ = two
    assert (a[case]["kind"], b[case]["kind"]) == ("ProcessLost", kind)
    assert a[case]["text"].startswith("Process 0 of 2 stops, since another one ended") and "\n" not in a[case]["text"]
    close(a["after"], one["full"])


def test_a_silent_process_is_not_waited_for(two):
    a, b = two[1]
    assert a["silent"]["kind"] == "ProcessLost" and "for 1 s" in a["silent"]["text"]


def test_a_killed_process_ends_the_other(two):
    _, _, folder, r = two
    a = json.loads((folder/"killed0.json").read_text())
    assert a["kind"] == "ProcessLost" and r.returncode  # long before ten minutes, as above
    assert not (folder/"killed1.json").exists()


def test_accelerate_that_starts_one_process_only_is_refused(monkeypatch):
    "`accelerate launch --cpu --num_processes 2` sets these and starts one process."
    lrnr = program.quiet(program.tensor_learner(*program.rows(8, 1, (5,)), program.plain(), torch.nn.MSELoss()))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    with lrnr.distrib_ctx(): lrnr.fit(1)  # accelerate launch --num_processes 1
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(InputError, match="starts one process, whatever --num_processes says; use torchrun"):
        with lrnr.distrib_ctx(): lrnr.fit(1)


def test_processes_that_nobody_can_find_are_refused(monkeypatch):
    lrnr = program.quiet(program.tensor_learner(*program.rows(8, 1, (5,)), program.plain(), torch.nn.MSELoss()))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for o in ("MASTER_ADDR", "MASTER_PORT"): monkeypatch.delenv(o, raising=False)
    with pytest.raises(InputError, match="start the program with torchrun"):
        with lrnr.distrib_ctx(): pass
    with pytest.raises(InputError, match="no setting 'split_batches'"):
        with lrnr.distrib_ctx(split_batches=True): pass


def test_texts_are_shared_by_streams():
    "Each process goes on with its own streams, so that the memory of a recurrent network stays right."
    from fastai.text.data import LMDataLoader

    from fastcourse.lm import StreamDL
    texts = [torch.arange(17), torch.arange(17, 60), torch.arange(60, 101)]
    whole = LMDataLoader(texts, bs=6, seq_len=7)
    parts = [share(StreamDL(texts, bs=2, seq_len=7), rank, 3) for rank in range(3)]
    assert [len(o) for o in parts] == [len(whole)]*3
    for b, *shared in zip(whole, *parts):
        for i in (0, 1): assert torch.equal(torch.cat([o[i] for o in shared]), b[i])


@given(n=st.integers(0, 300), bs=st.integers(1, 40), world=st.integers(1, 7), drop_last=st.booleans())
def test_shares_are_every_row_once(n, bs, world, drop_last):
    steps = shares(n, bs, world, drop_last)
    rows = [i for step in steps for a, b in step for i in range(a, b)]
    assert rows == list(range(n//(bs*world)*bs*world if drop_last else n))
    for step in steps:
        sizes = [b-a for a, b in step]
        assert max(sizes)-min(sizes) <= 1 and max(sizes) <= bs


def test_loaders_that_cannot_be_shared():
    dl = TfmdDL(list(range(9)), bs=8, drop_last=True, num_workers=0)
    with pytest.raises(InputError, match="bs=8 in each of 2 processes is 16 rows at once, and there are 9; give bs=4"):
        share(dl, 0, 2)
    for o in ([1, 2], torch.utils.data.DataLoader([1, 2]), TfmdDL(iter([1, 2]), bs=1, num_workers=0)):
        with pytest.raises(InputError, match="cannot be shared"): share(o, 0, 2)
    assert digest(TfmdDL([1, 2, 3], bs=1, num_workers=0)) != digest(TfmdDL([1, 2, 4], bs=1, num_workers=0))


def test_the_command_refuses_a_number_of_processes(tmp_path, capsys):
    for n in (0, -1, 65):
        r = here(capsys, "lm", "train", "texts.csv", "-o", tmp_path/"lm", "--processes", n)
        is_one_line(r, f"processes={n} must be a whole number")


long = pytest.mark.skipif(not LONG, reason="FASTCOURSE_TEST_LONG is not set")


@pytest.fixture
def texts(tmp_path):
    human_numbers(60).to_csv(tmp_path/"texts.csv", index=False)
    return tmp_path/"texts.csv"


@long
def test_the_command_trains_a_language_model(texts, tmp_path):
    r = fastcourse("lm", "train", texts, "-o", tmp_path/"lm", "--epochs", 1, "--seq-len", 20, "--processes", 2)
    assert r.returncode == 0 and r.stdout.count("saved in") == 1, r.stderr
    assert (tmp_path/"lm").is_dir() and "epoch" in r.stdout and r.stdout.count("train_loss") == 1
    is_one_line(fastcourse("lm", "train", tmp_path/"none.csv", "--processes", 2), "There is no file")


@long
def test_the_command_trains_a_classifier(tmp_path):
    draw(tmp_path/"pictures")
    r = fastcourse("train", tmp_path/"pictures", "--scratch", "--arch", "squeezenet1_1", "--size", 64, "--epochs", 1,
                   "--bs", 4, "-o", tmp_path/"model", "--processes", 2)
    assert r.returncode == 0 and r.stdout.count("saved in") == 1, r.stderr
    assert (tmp_path/"model/classifier.json").exists()


def children(pid):
    "The processes that `run_processes` started; Python's resource tracker is none of them."
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(o) for o in found if "spawn_main" in Path(f"/proc/{o}/cmdline").read_text()]


@long
@pytest.mark.parametrize("sign,code,word", [(signal.SIGKILL, 1, "process 1 of 2 ended (-9)"),
                                            (signal.SIGINT, 130, "stopped")])
def test_a_command_whose_process_is_killed_or_that_is_interrupted(texts, tmp_path, sign, code, word):
    "One sentence, no model, and nobody is left."
    command = [COMMAND, "lm", "train", texts, "-o", tmp_path/"lm", "--epochs", 500, "--seq-len", 20, "--processes", 2]
    with subprocess.Popen([str(o) for o in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        for line in p.stdout:
            if line.startswith("0 "): break  # the first epoch is done
        own = children(p.pid)
        os.kill(own[1] if sign == signal.SIGKILL else p.pid, sign)
        _, errors = p.communicate(timeout=300)
    assert p.returncode == code and errors.count("\n") == 1 and word in errors, errors
    assert not (tmp_path/"lm").exists()
    for _ in range(100):
        if not any(Path(f"/proc/{o}").exists() for o in own): break
        time.sleep(0.1)
    else: pytest.fail("a process is left")


@long
@pytest.mark.parametrize("how", ["--multi_gpu", "--cpu"])
def test_accelerate_launch(tmp_path, how):
    "Its own launcher: two processes with --multi_gpu, though there is no GPU, and a refusal with --cpu."
    pytest.importorskip("accelerate")
    if torch.cuda.is_available(): pytest.skip("there is a GPU")
    (tmp_path/"small.py").write_text(f"import sys\nsys.path.insert(0, {str(Path(program.__file__).parent)!r})\n"
                                     "from processes_program import CASES, RANK, train\n"
                                     "print(RANK, train(*CASES['full'])['valid'])\n")
    r = run(sys.executable, "-m", "accelerate.commands.launch", how, "--num_processes", 2, tmp_path/"small.py")
    if how == "--cpu": assert "starts one process, whatever --num_processes says" in r.stderr
    else:
        a, b = sorted(o for o in r.stdout.splitlines() if o[:2] in ("0 ", "1 ") and o.endswith("]"))
        assert a[2:] == b[2:]
