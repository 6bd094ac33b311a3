"""Sweeps over worker processes: the numbers of a serial run, whoever brings the processes, whatever happens to them.

`make test` asks one cluster of Dask; loky has its turn in tests/test_replicas.py. All of it with loky and
Ray is `make test-long`: Ray gives its own helper 15 seconds to load, whatever its settings say, and on a machine that
tests on all cores that is too little now and then.
"""
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LONG
from torch import nn

import fastcourse
from fastcourse import engines
from fastcourse.core import InputError
from fastcourse.engines import run_tasks, use_workers
from fastcourse.replicas import compare_replicas, train_replicas

MSE = nn.MSELoss()
x = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))
y = x[:, :1]*2-1
long = pytest.mark.skipif(not LONG, reason="takes long: make test-long")
pytestmark = [pytest.mark.filterwarnings("ignore:train_replicas trains the starts one by one"),
              pytest.mark.filterwarnings("ignore:Couldn't detect a suitable IP address")]   # there is no network


@contextmanager
def workers(engine):
    if engine != "loky": pytest.importorskip({"dask": "distributed"}.get(engine, engine))
    with use_workers(engine, 2): yield


@pytest.fixture(scope="module", params=["dask", pytest.param("loky", marks=long), pytest.param("ray", marks=long)])
def engine(request):
    with workers(request.param): yield request.param


def dropout_net(): return nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 1))


def meet(i, folder):
    "The process, when two of them have been here."
    (folder/str(os.getpid())).touch()
    end = time.monotonic()+100
    while len([*folder.iterdir()]) < 2 and time.monotonic() < end: time.sleep(0.02)
    return os.getpid()


def threads(i): return torch.get_num_threads(), joblib.Parallel().n_jobs


def complain(i):
    warnings.warn(f"task {i} is odd")
    if i == 3: raise InputError(f"i={i}: give another.")
    if i == 4: raise KeyError("a bug")


def dies(i, mark):
    "The first process that comes to number 1 is killed; with `mark` None, every one."
    if i == 1 and (mark is None or not mark.exists()):
        if mark: mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return i*i


def test_the_numbers_of_a_serial_run(engine, tmp_path):
    here = train_replicas(dropout_net, x, y, MSE, n=4, epochs=5, progress=False)
    assert here.alone   # dropout cannot be stacked, so the starts are tasks
    if engine == "ray": torch.manual_seed(99)   # whatever the caller's random numbers are
    res = train_replicas(dropout_net, x, y, MSE, n=4, epochs=5)
    np.testing.assert_allclose(res.losses, here.losses, rtol=1e-6)
    for a, b in zip(res.models, here.models): torch.testing.assert_close(a.state_dict(), b.state_dict())
    processes = {*run_tasks(meet, [(i,) for i in range(4)], tmp_path)}
    assert len(processes) == 2 and os.getpid() not in processes
    table = compare_replicas({"a": dropout_net, "b": lambda: nn.Linear(5, 1)}, x, y, MSE, 0.5, n=4, epochs=5)
    pd.testing.assert_frame_equal(table.replicas["a"].losses, here.losses)


def test_a_task_has_one_thread_and_no_workers_of_its_own(engine):
    assert run_tasks(threads, [(i,) for i in range(3)]) == [(1, 1)]*3


def test_errors_and_warnings_come_back_as_they_are(engine):
    with pytest.warns(UserWarning, match="task 2 is odd"): run_tasks(complain, [(2,)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError) as e: run_tasks(complain, [(i,) for i in range(4)])
        assert type(e.value) is InputError and e.value.args == ("i=3: give another.",)
        with pytest.raises(KeyError) as e: run_tasks(complain, [(4,)])
    assert type(e.value) is KeyError and e.value.args == ("a bug",) and "complain" in e.value.__notes__[0]
    with pytest.raises(InputError, match="cannot take x of shape"):
        compare_replicas({"a": lambda: nn.Linear(3, 1), "b": lambda: nn.Linear(3, 1)}, x, y, MSE, 0.5, n=2, epochs=2)


def test_another_version_in_a_worker_is_found_before_it_works(engine, monkeypatch, tmp_path):
    ours = engines._versions()
    monkeypatch.setattr(engines, "_versions", lambda: {**ours, "torch": "1.13.1"})
    with pytest.raises(InputError, match=f"has torch {torch.__version__.split('+')[0]}.*but 1.13.1 is here"):
        run_tasks(lambda i: (tmp_path/f"{i}").touch(), [(i,) for i in range(3)])
    assert not [*tmp_path.iterdir()]


def test_the_progress_is_seen(engine, monkeypatch):
    seen = []
    def progress(items, desc, total):
        for o in items:
            seen.append((desc, total))
            yield o
    monkeypatch.setattr(engines, "progress", progress)
    train_replicas(dropout_net, x, y, MSE, n=3, epochs=2)
    compare_replicas({"a": dropout_net, "b": dropout_net}, x, y, MSE, 0.5, n=2, epochs=2)
    assert seen == [("starts", 3)]*3+[("settings", 2)]*2
    compare_replicas({"a": dropout_net, "b": dropout_net}, x, y, MSE, 0.5, n=2, epochs=2, progress=False)
    assert len(seen) == 5


@long
def test_a_killed_worker_ends_in_the_right_result_or_one_clear_error(engine, tmp_path):
    try: assert run_tasks(dies, [(i,) for i in range(5)], tmp_path/"mark") == [0, 1, 4, 9, 16]
    except RuntimeError as e: assert engine != "dask" and str(e).startswith("the workers were lost ("), e
    assert run_tasks(dies, [(i,) for i in (2, 3)], None) == [4, 9]   # and the next run works


@long
def test_a_task_that_always_kills_its_worker_is_one_clear_error(engine):
    with pytest.raises(RuntimeError, match="the workers were lost"): run_tasks(dies, [(i,) for i in range(3)], None)


@long
def test_results_come_as_they_are_ready(monkeypatch):
    "The first task waits for a file that the caller writes when it has seen another result."
    import tempfile
    with tempfile.TemporaryDirectory() as tmp, use_workers(n=2):
        go, order = Path(tmp)/"go", []
        def wait(i):
            while i == 0 and not go.exists(): time.sleep(.02)
            return i
        def progress(items, *args):
            for i, answer in items:
                order.append(i)
                go.touch()
                yield i, answer
        monkeypatch.setattr(engines, "progress", progress)
        assert run_tasks(wait, [(0,), (1,)], desc="wait") == [0, 1] and order == [1, 0]


@long
def test_multiprocessing_hears_of_a_killed_worker(tmp_path):
    with joblib.parallel_config("multiprocessing", n_jobs=2), pytest.raises(RuntimeError, match="were lost"):
        run_tasks(dies, [(i,) for i in range(3)], None)


def test_workers_of_several_threads_take_turns():
    distributed = pytest.importorskip("distributed")
    here = train_replicas(dropout_net, x, y, MSE, n=4, epochs=20)
    with (distributed.LocalCluster(n_workers=1, threads_per_worker=3, processes=False,
                                   dashboard_address=":0") as cluster,
          distributed.Client(cluster) as client, joblib.parallel_config("dask", client=client),
          pytest.warns(UserWarning, match="take turns here")):
        res = train_replicas(dropout_net, x, y, MSE, n=4, epochs=20)
    np.testing.assert_allclose(res.losses, here.losses, rtol=1e-6)


@long
def test_a_cluster_with_another_version_of_the_package(tmp_path):
    "A real worker of Dask, started by hand, whose fastcourse is older."
    distributed = pytest.importorskip("distributed")
    shutil.copytree(Path(fastcourse.__file__).parent, tmp_path/"fastcourse",
                    ignore=shutil.ignore_patterns("lessons", "web"))
    (tmp_path/"fastcourse"/"__init__.py").write_text('__version__ = "0.0.1"\n')
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        worker = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address,
                                   "--nthreads", "1", "--no-dashboard"], env={**os.environ, "PYTHONPATH": path},
                                  cwd=tmp_path)
        try:
            with (use_workers("dask", address=cluster.scheduler_address),
                  pytest.raises(InputError, match="has fastcourse 0.0.1, but")):
                train_replicas(dropout_net, x, y, MSE, n=2, epochs=2)
        finally:
            worker.terminate()
            worker.wait(30)


def test_a_cluster_that_does_not_answer_is_one_sentence_in_time():
    pytest.importorskip("distributed")
    with socket.create_server(("127.0.0.1", 0)) as deaf:   # takes the connection, and says nothing
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(InputError, match="cannot be reached .timed out"):
            with use_workers("dask", address=address, timeout=1): pass


def test_tls_without_certificates_is_one_sentence():
    pytest.importorskip("distributed")
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(InputError, match="wants certificates"):
        with use_workers("dask", address=f"tls://127.0.0.1:{deaf.getsockname()[1]}", timeout=1): pass


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not there")
@pytest.mark.parametrize("shakes_hands", [False, True])
def test_a_cluster_on_tls_that_does_not_answer_is_one_sentence_in_time(shakes_hands, tmp_path):
    "Deaf to the handshake of TLS; and after it, where Dask itself would wait for ever."
    pytest.importorskip("distributed")
    import dask
    cert, key = tmp_path/"cert.pem", tmp_path/"key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"], check=True,
                   capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    settings = {f"distributed.comm.tls.{k}": str(v) for k, v in (("ca-file", cert), ("client.cert", cert),
                                                                ("client.key", key))}
    with socket.create_server(("127.0.0.1", 0)) as deaf, dask.config.set(settings):
        def shake():
            with suppress(OSError), context.wrap_socket(deaf.accept()[0], server_side=True) as s:
                s.recv(1)  # until the other one goes
        if shakes_hands: threading.Thread(target=shake).start()
        with pytest.raises(InputError, match="cannot be reached .*timed out"):
            with use_workers("dask", address=f"tls://127.0.0.1:{deaf.getsockname()[1]}", timeout=1): pass


def test_a_cluster_without_workers_is_one_sentence():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        with pytest.raises(InputError, match="Dask has no workers"):
            with use_workers("dask", address=cluster.scheduler_address, timeout=1): pass


@long
def test_rays_usage_statistics_are_off():
    pytest.importorskip("ray")
    code = ("import os; from fastcourse.engines import use_workers\n"
            "with use_workers('ray', 1):\n"
            "    import ray; from ray._common.usage import usage_lib; print(usage_lib.usage_stats_enabled())")
    env = {k: v for k, v in os.environ.items() if k != "RAY_USAGE_STATS_ENABLED"}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert out.stdout.strip() == "False", out.stderr
