"""Times each aggregation rule beside plain numpy on the same rows, in one process.

`python script/bench_rules.py` prints a table and, as the last line, one JSON object; `run()`
returns that object. 20 models (own and 19 received), 10^6 parameters, f = 4, as separate arrays.
"""

from __future__ import annotations

import json
import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as a node's one worker thread should run
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gossipfl.aggregation import RULES, merge_step

N, D, F, SEED, REPEATS = 20, 1_000_000, 4, 1, 7


def naive_krum_order(x: np.ndarray, f: int) -> np.ndarray:
    squares = (x**2).sum(axis=1)
    squared = squares[:, None] + squares[None, :] - 2 * (x @ x.T)
    return np.argsort(np.sort(squared, axis=1)[:, 1 : len(x) - f - 1].sum(axis=1))


def naive_nna(x: np.ndarray, f: int) -> np.ndarray:
    order = np.argsort(np.linalg.norm(x - x[0], axis=1))
    return x[order[: len(x) - f]].mean(axis=0)


NAIVE: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "mean": lambda x, f: x.mean(axis=0),
    "weighted_mean": lambda x, f: np.average(x, axis=0),
    "median": lambda x, f: np.median(x, axis=0),
    "trimmed_mean": lambda x, f: np.sort(x, axis=0)[f : len(x) - f].mean(axis=0),
    "krum": lambda x, f: x[naive_krum_order(x, f)[0]],
    "multi_krum": lambda x, f: x[naive_krum_order(x, f)[: len(x) - f]].mean(axis=0),
    "nna": naive_nna,
}


def best_ms(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """The best of some runs after one to warm up, in milliseconds."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def extra_mb(call: Callable[[], object]) -> float:
    """The peak of memory that a call allocates, its output included, in MB."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def read_pass(rows: Sequence[np.ndarray]) -> float:
    """Reads every byte once: the floor for a rule that must look at all of them."""
    return max(float(row.max()) for row in rows)


def run(n: int = N, d: int = D, f: int = F) -> dict[str, Any]:
    """Times in ms: {"n", "d", "f", "read_pass_ms", "rules": {name: {"ms", "naive_ms", ...}}}."""
    rng = np.random.default_rng(SEED)
    matrix = rng.standard_normal((n, d), dtype=np.float32)
    rows = [row.copy() for row in matrix]
    pass_ms = best_ms(lambda: read_pass(rows))
    rules: dict[str, dict[str, float]] = {}
    for name in RULES:
        weights = [1.0] * n if name == "weighted_mean" else None

        def merge(name: str = name, weights: list[float] | None = weights) -> object:
            return merge_step(name, rows[0], rows[1:], f, weights)

        naive = NAIVE[name]
        ms = best_ms(merge)
        naive_ms = best_ms(lambda naive=naive: naive(matrix, f), repeats=2)
        rules[name] = {
            "ms": round(ms, 2),
            "naive_ms": round(naive_ms, 2),
            "times_faster": round(naive_ms / ms, 2),
            "read_passes": round(ms / pass_ms, 2),
            "memory_mb": round(extra_mb(merge), 1),
        }
    return {"n": n, "d": d, "f": f, "read_pass_ms": round(pass_ms, 2), "rules": rules}


def main() -> None:
    result = run()
    print(f"n={result['n']} d={result['d']} f={result['f']}")
    print(f"one read-only pass {result['read_pass_ms']} ms")
    print(f"{'rule':<14}{'ms':>8}{'naive':>9}{'faster':>8}{'passes':>8}{'MB':>7}")
    for name, row in result["rules"].items():
        print(
            f"{name:<14}{row['ms']:>8}{row['naive_ms']:>9}{row['times_faster']:>8}"
            f"{row['read_passes']:>8}{row['memory_mb']:>7}"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
