"""Some rounds of `benchmarks/bench_kills.py`: crawls and a clean at once, killed at random moments, lose nothing."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent/"benchmarks"))
from bench_kills import run


def test_kills_lose_nothing():
    res = run(12, seed=1)
    assert res["kills"] >= 12 and (res["lost"], res["different"]) == (0, 0), res
