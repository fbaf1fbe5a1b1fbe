"""Times each aggregation rule beside plain numpy, byzfl and Flower's formulas, in one process.

`script/bench rules --json` prints a table for each size and, as the last line, one JSON object.
n models (own and n - 1 received) of d parameters, normal, as separate arrays for us and as one
matrix for the rivals; f = n // 5. A figure is the best of some runs, in which all contenders take
turns. BLAS has one thread, as a node's worker has, and so CPU time is what an idle machine's clock
would show. Targets and ratios go by it: on a busy machine the clock is kind to whoever is short.

- `centered_clip`: all with a radius of 100, byzfl's default. `geometric_median`: ours until it has
  settled, the rivals three steps. Other settings are each one's own.
- `nnm` alone: every mixed model written out, as the rivals must. Our own rules never do that: in
  `nnm+RULE` models are mixed chunk by chunk, or not at all where the rule needs only distances.
- `defence`: all that a node does with a pull under `collapse+nna`: the merge, and what reputation
  and convergence read from it (`gossipfl/work.py`), without the model's own evaluation.

Much of a rival's time goes into fresh buffers as large as all models, and what these cost depends
on the machine: where the kernel gives numpy huge pages about twice a warm copy, without them seven
times or more. So the size that the targets are for is measured twice: with numpy as it comes, and
with NUMPY_MADVISE_HUGEPAGE=0. Our rules take their chunks from a few MB that stay warm.

`script/bench rules --krum-ties 100` asks instead whether Krum's winner is right (bench_krum.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import bench_krum
import rules_report as report
import rules_rivals as rivals

from gossipfl import work
from gossipfl.aggregation import RULES, CenteredClip, merge_step
from gossipfl.aggregation.mixing import Mixed, neighbours
from gossipfl.aggregation.models import Plain
from gossipfl.events import StartMerge
from gossipfl.interfaces import Evaluation

MODELS = (10, 20, 50)
PARAMETERS = (100_000, 1_000_000, 10_000_000)
BYTES_MAX = 10**9
"""Sizes whose models take more are left out."""
TEMPORARY_MAX = 4 * 10**9
"""Rivals that would build more than this beside the models are left out."""
COMPOSED = ("nnm+mean", "nnm+trimmed_mean", "nnm+geometric_median", "collapse+nna")
SEED = 1
FLOATS_LONG = 2 * 10**7
"""Models of more values in all get LONG_RUNS runs."""
LONG_RUNS = 2

Contenders = dict[str, Callable[[], object]]


def read_pass(rows: Sequence[np.ndarray]) -> float:
    """Reads every byte once: the floor for a rule that must look at all of them."""
    return max(float(row.max()) for row in rows)


def write_mixed(rows: Sequence[np.ndarray], f: int, out: np.ndarray) -> None:
    """nnm alone, every mixed model written out, which our rules never do and the rivals must."""
    models = Plain(rows, owned=True)
    for start, parts in Mixed(models, neighbours(models, f)).parts(16_384):
        for row, part in zip(out, parts, strict=True):
            row[start : start + part.size] = part


def best(contenders: Contenders, runs: int) -> dict[str, tuple[float, float]]:
    """Wall and CPU milliseconds of each, after one run to warm up; they take turns."""
    for call in contenders.values():
        call()
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, call in contenders.items():
            begun, worked = time.perf_counter(), time.process_time()
            call()
            wall[name].append((time.perf_counter() - begun) * 1e3)
            cpu[name].append((time.process_time() - worked) * 1e3)
    return {name: (min(wall[name]), min(cpu[name])) for name in contenders}


def extra_mb(call: Callable[[], object]) -> float:
    """The peak of memory that a call allocates, its output included, in MB."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def fresh_over_warm(matrix: np.ndarray, runs: int) -> float:
    """How much longer a copy into a fresh buffer takes than one into memory in use."""
    warm = matrix.copy()
    times = best({"fresh": matrix.copy, "warm": lambda: np.copyto(warm, matrix)}, runs)
    return times["fresh"][1] / times["warm"][1]


class Nothing:
    """A trainer that costs nothing: a merge's evaluation of the model is not the rule's."""

    def loss(self, parameters: np.ndarray) -> float:
        return 0.0

    def evaluate(self, parameters: np.ndarray) -> Evaluation:
        return Evaluation(0.0, None, 0)


def ours(name: str, rows: Sequence[np.ndarray], f: int, out: np.ndarray) -> Callable[[], object]:
    own, received = rows[0], list(rows[1:])
    if name == "nnm":
        return lambda: write_mixed(rows, f, out)
    if name == report.DEFENCE:
        initial, before = received[-1], received[-2]  # any two vectors
        effect = StartMerge(
            1, "collapse+nna", own, tuple(received), f, None, initial=initial, before=before
        )
        return lambda: work.merge(effect, Nothing())
    weights = [1.0] * len(rows) if name == "weighted_mean" else None
    settings = CenteredClip(rivals.RADIUS) if name == "centered_clip" else None
    return lambda: merge_step(name, own, received, f, weights, settings)


def opponents(name: str, matrix: np.ndarray, f: int) -> Contenders:
    """The rivals that have such a rule and room for it."""
    n, d = matrix.shape
    if name.startswith("nnm") and 4 * n * (n - f) * d > TEMPORARY_MAX:
        return {}
    tables = {"naive": rivals.NAIVE, "byzfl": rivals.byzfl_calls(), "flwr": rivals.FLWR}
    step, _, last = name.rpartition("+")
    found: Contenders = {}
    for rival, calls in tables.items():
        if step == "nnm" and step in calls:
            first, then = calls[step], calls[last]
            found[rival] = lambda first=first, then=then: then(first(matrix, f), f)
        elif not step and name in calls:
            found[rival] = lambda run=calls[name]: run(matrix, f)
    return found


def measure(n: int, d: int, runs: int) -> dict[str, Any]:
    """One size: {"n", "d", "f", "read_pass_ms", "fresh_over_warm", "rules": {name: {...}}}."""
    f = n // 5
    runs = runs if n * d <= FLOATS_LONG else min(runs, LONG_RUNS)
    rng = np.random.default_rng(SEED)
    matrix = rng.standard_normal((n, d), dtype=np.float32)
    rows = [row.copy() for row in matrix]
    out = np.zeros_like(matrix)
    rules: dict[str, dict[str, float]] = {}
    for name in [*RULES, "nnm", *COMPOSED, report.DEFENCE]:
        call = ours(name, rows, f, out)
        against = opponents(name, matrix, f)
        times = best({"pass": lambda: read_pass(rows), "ours": call, **against}, runs)
        mine, cpu = times["ours"]
        row = {
            "ms": mine,
            "cpu_ms": cpu,
            "read_passes": mine / times["pass"][0],
            "read_passes_cpu": cpu / times["pass"][1],
        }
        for rival in against:
            row[f"{rival}_ms"] = times[rival][0]
            row[f"over_{rival}"] = times[rival][0] / mine
            row[f"over_{rival}_cpu"] = times[rival][1] / cpu
        rules[name] = {key: round(value, 2) for key, value in row.items()}
        if name != "nnm" and (n, d) == report.MAIN:
            rules[name]["memory_mb"] = round(extra_mb(call), 1)
        sys.stderr.write(f"n={n} d={d} {name}\n")
    pass_ms = best({"pass": lambda: read_pass(rows)}, runs)["pass"][0]
    return {
        "n": n,
        "d": d,
        "f": f,
        "runs": runs,
        "read_pass_ms": round(pass_ms, 2),
        "fresh_over_warm": round(fresh_over_warm(matrix, runs), 1),
        "rules": rules,
    }


def with_small_pages(runs: int) -> dict[str, Any]:
    """The main size again, in a process whose numpy asks for no huge pages."""
    command = [sys.executable, __file__, "--json", "--main", "--no-small-pages", "--runs"]
    done = subprocess.run(
        [*command, str(runs)],
        env={**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    case: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["data"]["cases"][0]
    return {**case, "small_pages": True}


def run(sizes: Sequence[tuple[int, int]], runs: int, small_pages: bool) -> dict[str, Any]:
    """{"runs", "numpy", "byzfl", "processors", "cases": [...], "targets": [...]}."""
    cases = [measure(n, d, runs) for n, d in sizes]
    main_case = next((case for case in cases if (case["n"], case["d"]) == report.MAIN), None)
    small = with_small_pages(runs) if small_pages else None
    return {
        "runs": runs,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "byzfl": bool(rivals.byzfl_calls()),
        "processors": os.cpu_count(),
        "cases": [*cases, *([small] if small else [])],
        "targets": report.verdicts(main_case, small) if main_case else [],
    }


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/bench rules", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--main", action="store_true", help="only n = 20, d = 10^6")
    parser.add_argument(
        "--no-small-pages",
        action="store_false",
        dest="small_pages",
        help="do not measure the main size again without huge pages",
    )
    parser.add_argument("--runs", type=int, default=5, help="runs of each contender (default 5)")
    parser.add_argument("--krum-ties", type=int, metavar="CASES", help="Krum's winner, near-tied")
    parser.add_argument("--d", type=int, default=10_000_000, help="with --krum-ties: parameters")
    parser.add_argument("--save", type=Path, metavar="STEM", help="write STEM.md and STEM.json too")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    args = parsed(argv)
    if args.krum_ties:
        result = bench_krum.run(args.d, args.krum_ties)
        shown = "\n".join(f"| {name} | {value} |" for name, value in result.items())
        shown = f"\n| | |\n|---|---|\n{shown}"
    else:
        sizes = [(n, d) for d in PARAMETERS for n in MODELS if 4 * n * d <= BYTES_MAX]
        result = run([report.MAIN] if args.main else sizes, args.runs, args.small_pages)
        shown = report.text(result)
    envelope = json.dumps({"schema": 1, "status": "ok", "data": result}, separators=(",", ":"))
    if args.save:
        about = bench_krum.__doc__ if args.krum_ties else __doc__
        report.save(args.save, f"`script/bench rules {' '.join(argv)}`\n\n{about}", shown)
        args.save.with_suffix(".json").write_text(envelope + "\n")
    print(shown)
    if args.json:
        print(envelope)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
