"""Run every test as other processors would: `make test-cpus`, or `python tests/cpus.py --quick`, as CI does.
Arguments of pytest narrow it down.

`--quick` plays one processor, and leaves out what runs just before on the machine's own and whose numbers do not come
from a network: programs and servers (the command, crawls, browsers, terminals), drawings, texts, the project's frame.
Two more are left out that do train: the tour, whose spread over processors stands beside its bounds, and the lessons in
kernels. `make test-cpus` leaves nothing out.

torch picks its kernels by what the processor knows. `ATEN_CPU_CAPABILITY` and `ONEDNN_MAX_CPU_ISA` tell it to know
less, so one machine can play older ones. Prints a table: the red tests by setting. Exit code 1 where there is any.
"""
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
QUICK = "ATen default, oneDNN AVX2"
# Left out by --quick: tests and notebooks, by their names without `test_` and `.py`, and by the start of their names
TESTS = ("tour notebook terminal cli cli_streams cli_vision crawl clean kills download search play page lessons "
         "lessons_in_kernels frame words pictures pictures_of_lessons plots editions language grading docs app slides "
         "engines shards").split()
NOTEBOOKS = ("00_core 00_la 00_scenes 01_saved 02_checks 02_engines 05_ 06_words 07 08_clean 10_boxes 11_ 12_ 13 14 "
             "15_").split()


def known(flag: str) -> bool:
    "Whether this processor has `flag`."
    try: return f" {flag} " in Path("/proc/cpuinfo").read_text().replace("\n", " ")
    except OSError: return False


def settings() -> dict[str, dict[str, str]]:
    "name -> environment"
    own = {"own": {}}
    aten = {o: {"ATEN_CPU_CAPABILITY": o} for o in ("default", "avx2", "avx512") if o == "default"
            or known(o.replace("avx512", "avx512f"))}
    onednn = {o: {"ONEDNN_MAX_CPU_ISA": o} for o in ("SSE41", "AVX2") if known(o.lower().replace("sse41", "sse4_1"))}
    # convolutions stay quick with AVX2, all else is the plainest: what CI runs beside the machine's own setting
    other = {QUICK: aten["default"] | {"ONEDNN_MAX_CPU_ISA": "AVX2"}}
    res = own | {f"ATen {k}": v for k, v in aten.items()} | {f"oneDNN {k}": v for k, v in onednn.items()} | other
    return {f"{k}, {n} thread{'s'*(n > 1)}": v | {"OMP_NUM_THREADS": str(n)} for k, v in res.items() for n in (1, 2)}


def left_out(name: str) -> str:
    "The option of pytest that leaves out a file of tests, which must be there."
    file = Path("tests")/f"test_{name}.py"
    assert (ROOT/file).exists(), f"{file} is not there"
    return f"--ignore={file}"


def red(env: dict[str, str], args: list[str], quick: bool) -> tuple[list[str], str]:
    "The names of the red notebooks and tests under `env`, and pytest's closing line."
    env = os.environ | {"OMP_WAIT_POLICY": "passive", "MPLBACKEND": "Agg",
                        "PYTHONPATH": str(ROOT/"tests"/"offline")} | env
    workers = "1" if env["OMP_NUM_THREADS"] == "2" else "2"
    res = []
    if not args:
        skip = ["--skip-file-re", f"^({'|'.join(NOTEBOOKS)})"] if quick else []
        out = subprocess.run([BIN/"nbdev-test", "--skip-folder-re", "lessons", *skip, "--n-workers", workers], cwd=ROOT,
                             env=env, capture_output=True, text=True)
        if out.returncode: res += re.findall(r"^\t(\S+\.ipynb)$", out.stderr, re.M) or ["nbdev-test"]
    run = [BIN/"python", "-m", "pytest", "-q", "-n", workers, "--dist", "loadfile", "--no-loadscope-reorder",
           *(args or ["tests", *map(left_out, TESTS if quick else [])])]
    out = subprocess.run(run, cwd=ROOT, env=env, capture_output=True, text=True).stdout
    return res + re.findall(r"^(?:FAILED|ERROR) (\S+)", out, re.M), out.strip().split("\n")[-1]


def main(argv: list[str]) -> int:
    quick = "--quick" in argv
    args = [o for o in argv if o != "--quick"]
    todo = settings()
    if quick: todo = {k: v for k, v in todo.items() if k == f"{QUICK}, 1 thread"}
    rows, bad = [], 0
    for name, env in todo.items():
        start = time.monotonic()
        names, line = red(env, args, quick)
        bad += len(names)
        rows.append(f"| {name} | {len(names)} | {', '.join(names) or line} | {time.monotonic()-start:.0f} s |")
        print(rows[-1], flush=True)
    print("\n| setting | red | which, or pytest's last line | time |\n| --- | --- | --- | --- |", *rows, sep="\n")
    return int(bad > 0)


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
