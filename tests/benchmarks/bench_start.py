"""How soon the package answers: `import fastcourse` and `fastcourse --help`, each a process of its own, against Python alone."""
import subprocess
import sys
from pathlib import Path

from common import machine, paired, table

command = Path(sys.executable).parent/"fastcourse"


def run(*argv):
    return lambda: subprocess.run(argv, check=True, capture_output=True)


def main():
    bare = run(sys.executable, "-c", "pass")
    rows = []
    for name, f in (("import fastcourse", run(sys.executable, "-c", "import fastcourse")), ("fastcourse --help", run(command, "--help"))):
        ours, python, ratio = paired(f, bare, n=11)
        rows.append([name, f"{ours:.2f} s", f"{python:.2f} s", f"{ratio:.1f}"])
    print(machine(), table(["what", "median", "python -c pass", "ratio"], rows), sep="\n\n")


if __name__ == "__main__": main()
