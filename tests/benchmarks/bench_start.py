"""How soon the package answers, each time a process of its own: python tests/benchmarks/bench_start.py [OTHER]

OTHER is a checkout of another version to compare with, run in turn with this one; without it, Python alone is the peer.
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import machine, paired, table

here = Path(__file__).resolve().parents[2]
command = [sys.executable, "-c", "import sys; from fastcourse.cli import main; sys.exit(main())"]
wanted = {"fastcourse lm generate lm 'one, two,' -n 50": "0.5", "fastcourse predict net FILE": "0.6",
          "fastcourse check images": "1", "import fastcourse.text": "0.7", "from fastcourse.all import *": "0.8"}


def run(argv, folder, checkout=here):
    def call():
        env = os.environ | {"PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore"}
        subprocess.run(argv, check=True, capture_output=True, cwd=folder, env=env)
    return call


def prepare(folder):
    "A language model, a classifier and pictures, made with this checkout"
    code = "from fastcourse.data import human_numbers; human_numbers(100).to_csv('numbers.csv', index=False)"
    run([sys.executable, "-c", code], folder)()
    run([*command, "lm", "train", "numbers.csv", "--epochs", "1"], folder)()
    run([*command, "scenes", "--n-train", "80", "--n-test", "40"], folder)()
    run([*command, "train", "images", "--arch", "resnet18", "--scratch", "--epochs", "1", "--size", "64", "-o", "net"],
        folder)()
    return str(sorted(Path(folder, "images/test").rglob("*.jpg"))[0])


def main():
    other = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as folder:
        picture = prepare(folder)
        python = lambda code: [sys.executable, "-c", code]
        calls = {"import fastcourse": python("import fastcourse"), "fastcourse --help": [*command, "--help"],
                 "fastcourse lm generate lm 'one, two,' -n 50": [
                     *command, "lm", "generate", "lm", "one, two,", "-n", "50"],
                 "fastcourse lm generate lm 'zero; one' -n 50": [
                     *command, "lm", "generate", "lm", "zero; one", "-n", "50"],
                 "fastcourse predict net FILE": [*command, "predict", "net", picture],
                 "fastcourse check images": [*command, "check", "images"],
                 "import fastcourse.text": python("import fastcourse.text"),
                 "from fastcourse.all import *": python("from fastcourse.all import *")}
        rows = []
        for name, argv in calls.items():
            peer = run(argv, folder, other) if other else run(python("pass"), folder)
            ours, theirs, ratio = paired(run(argv, folder), peer, n=5)
            rows.append([name, f"{ours:.2f} s", f"{theirs:.2f} s", f"{ratio:.2f}",
                         wanted.get(name, "") if other else ""])
    print(machine(), table(["what", "this", "other" if other else "python alone", "ratio", "wanted"], rows), sep="\n\n")


if __name__ == "__main__": main()
