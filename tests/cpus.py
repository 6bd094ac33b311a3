"""Run the tests as other processors would: `make test-cpus`, or `python tests/cpus.py --quick`, as CI does.
Arguments of pytest narrow it down.

torch picks its kernels by what the processor knows. `ATEN_CPU_CAPABILITY` and `ONEDNN_MAX_CPU_ISA` tell it to know
less, so one machine can play older ones. Prints a table: the red tests by setting. Exit code 1 where there is any. The
machine's own setting with one thread is not among them: that is `make test-all`.

Left out is what a processor cannot change: programs and servers (the command, crawls, browsers, terminals), drawings,
texts, files, what is said about bad input; and the tests that go through many networks of other libraries. The lessons
in kernels and the tour train, and are run; `--quick` plays one processor, and leaves them out.
"""
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from conftest import PROGRAMS

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
QUICK = "ATen default, oneDNN AVX2"
TRAIN = {"lessons_in_kernels", "tour"}   # programs, but run, whatever their tests are called
# Left out: tests and notebooks, by their names without `test_` and `.py`, and by the start of their names
TESTS = ("frame words pictures pictures_of_lessons plots editions language lessons filters clean search download "
         "shards corpus speak exercises").split()
WORDS = ("bad broken damaged refused kill interrupted memory sentence json folder file csv save timm torchvision "
         "cut_body").split()
NOTEBOOKS = "00 01_saved 02_checks 02_engines 05_ 06_words 07 08 10_boxes 10_cascade 11_ 12_ 13 14 15_".split()


def known(flag: str) -> bool:
    "Whether this processor has `flag`."
    try: return f" {flag} " in Path("/proc/cpuinfo").read_text().replace("\n", " ")
    except OSError: return False


def settings() -> dict[str, dict[str, str]]:
    "name -> environment"
    own = {"own": {}}
    aten = {"default": {"ATEN_CPU_CAPABILITY": "default"}}
    if known("avx512f"): aten["avx2"] = {"ATEN_CPU_CAPABILITY": "avx2"}   # else AVX2 is the machine's own
    onednn = {o: {"ONEDNN_MAX_CPU_ISA": o} for o in ("SSE41", "AVX2") if known(o.lower().replace("sse41", "sse4_1"))}
    # convolutions stay quick with AVX2, all else is the plainest: what CI runs beside the machine's own setting
    other = {QUICK: aten["default"] | {"ONEDNN_MAX_CPU_ISA": "AVX2"}}
    res = own | {f"ATen {k}": v for k, v in aten.items()} | {f"oneDNN {k}": v for k, v in onednn.items()} | other
    return {f"{k}, {n} thread{'s'*(n > 1)}": v | {"OMP_NUM_THREADS": str(n)} for k, v in res.items() for n in (1, 2)
            if v or n > 1}


def chosen(quick: bool) -> list[str]:
    "Which tests: arguments of pytest."
    names = {o.removeprefix("test_") for o in PROGRAMS} - (set() if quick else TRAIN) | {*TESTS}
    gone = [o for o in names if not (ROOT/"tests"/f"test_{o}.py").exists()]
    assert not gone, f"{gone} are not there"
    ignored = [f"--ignore=tests/test_{o}.py" for o in sorted(names)]
    return ["tests", *ignored, "-k", " or ".join([*sorted(TRAIN), f"not ({' or '.join(WORDS)})"])]


def red(env: dict[str, str], args: list[str], quick: bool) -> tuple[list[str], str]:
    "The names of the red notebooks and tests under `env`, and pytest's closing line."
    env = os.environ | {"OMP_WAIT_POLICY": "passive", "MPLBACKEND": "Agg",
                        "PYTHONPATH": str(ROOT/"tests"/"offline")} | env
    workers = "1" if env["OMP_NUM_THREADS"] == "2" else "2"
    res = []
    if not args:
        skip = ["--skip-folder-re", "lessons", "--skip-file-re", f"^({'|'.join(NOTEBOOKS)})"]
        out = subprocess.run([BIN/"nbdev-test", *skip, "--n-workers", workers], cwd=ROOT, env=env, capture_output=True,
                             text=True)
        if out.returncode: res += re.findall(r"^\t(\S+\.ipynb)$", out.stderr, re.M) or ["nbdev-test"]
    run = [BIN/"python", "-m", "pytest", "-q", "-n", workers, "--dist", "loadfile", "--no-loadscope-reorder",
           *(args or chosen(quick))]
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
