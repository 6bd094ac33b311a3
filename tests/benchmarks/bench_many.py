"""check_images on 1,000, 10,000 and 100,000 different small pictures: time and highest memory, as a table and a plot.

python tests/benchmarks/bench_many.py [plot.png]
"""
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import table
from hostile import encoded, noise

CHECK = r"""
import re, resource, sys, time
from fastcourse.clean import check_images
def used(): return int(re.search(r'VmHWM:\s+(\d+)', open('/proc/self/status').read())[1])/1024
before, start = used(), time.perf_counter()
n = len(check_images(sys.argv[1]))
print(n, time.perf_counter()-start, before, used())
"""


def main(sizes=(1000, 10_000, 100_000)):
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        made = 0
        for n in sizes:
            for i in range(made, n):
                folder = Path(tmp)/f"{i//1000}"
                folder.mkdir(exist_ok=True)
                (folder/f"{i}.jpg").write_bytes(encoded(noise(i, (48, 40)), quality=85))
            made = n
            out = subprocess.run([sys.executable, "-c", CHECK, tmp], capture_output=True, text=True, check=True).stdout
            found, seconds, before, most = map(float, out.splitlines()[-1].split())
            assert found == n
            rows.append([n, seconds, before, most])
    head = ["pictures", "time", "for one", "memory at the start", "at most", "for a picture more"]
    print(table(head,
                [[f"{n:,}", f"{s:.1f} s", f"{s/n*1e3:.2f} ms", f"{b:.0f} MB", f"{m:.0f} MB", f"{(m-b)/n*1024:.1f} kB"]
                       for n, s, b, m in rows]))
    if sys.argv[1:]:
        import matplotlib.pyplot as plt
        fig, axes = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
        for ax, k, name in zip(axes, (1, 3), ("seconds", "memory at most, MB")):
            ax.plot([o[0] for o in rows], [o[k] for o in rows], "o-")
            ax.set(xscale="log", yscale="log" if k == 1 else "linear", ylim=None if k == 1 else (0, None),
                   xlabel="pictures", ylabel=name)
        fig.savefig(sys.argv[1], dpi=80)


if __name__ == "__main__": main()
