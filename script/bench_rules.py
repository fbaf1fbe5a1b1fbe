"""Times each aggregation rule beside plain numpy, byzfl and Flower's formulas, in one process.

`script/bench rules --json` prints a table for each size and, as the last line, one JSON object.
n models (own and n - 1 received) of d parameters, normal, as separate arrays for us and as one
matrix for the rivals; f = n // 5. A figure is the median of some runs, in which all contenders take
turns, so that a busy machine slows all alike. BLAS has one thread, as a node's worker has.

Most of a rival's time goes into fresh buffers as large as all models, and what these cost depends
on the machine: with huge pages about twice a warm copy, without up to eight times. The run says
what it was here; `NUMPY_MADVISE_HUGEPAGE=0` in front of the command switches numpy's use of huge
pages off. Our rules take their chunks from a few MB that stay warm, so they hardly change.

`script/bench rules --krum-ties 100` asks instead whether Krum's winner is right (bench_krum.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
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
import rules_rivals as rivals

from gossipfl.aggregation import RULES, merge_step
from gossipfl.aggregation.mixing import Mixed, neighbours
from gossipfl.aggregation.models import Plain

MODELS = (10, 20, 50)
PARAMETERS = (100_000, 1_000_000, 10_000_000)
MAIN = (20, 1_000_000)
"""The size that the targets are for."""
BYTES_MAX = 10**9
"""Sizes whose models take more are left out."""
TEMPORARY_MAX = 4 * 10**9
"""Rivals that would build more than this beside the models are left out."""
COMPOSED = ("nnm+trimmed_mean", "nnm+geometric_median", "collapse+nna")
SEED = 1

# (contender, rival, at least so many times faster) at MAIN
TARGETS = (
    ("median", "naive", 11.0),
    ("trimmed_mean", "naive", 2.1),
    ("krum", "naive", 1.9),
    ("krum", "byzfl", 6.0),
    ("multi_krum", "byzfl", 5.5),
    ("geometric_median", "byzfl", 9.0),
    ("centered_clip", "byzfl", 3.2),
    ("nnm", "byzfl", 35.0),
)
NNA_PASSES_MAX = 3.0
DEFENCE_MS_MAX = 40.0

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


def medians(contenders: Contenders, runs: int) -> dict[str, tuple[float, float]]:
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
    return {
        name: (statistics.median(wall[name]), statistics.median(cpu[name])) for name in contenders
    }


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
    times = medians(
        {"fresh": matrix.copy, "warm": lambda: np.copyto(warm, matrix)},
        runs,
    )
    return times["fresh"][1] / times["warm"][1]


def ours(name: str, rows: Sequence[np.ndarray], f: int, out: np.ndarray) -> Callable[[], object]:
    if name == "nnm":
        return lambda: write_mixed(rows, f, out)
    weights = [1.0] * len(rows) if name == "weighted_mean" else None
    return lambda: merge_step(name, rows[0], rows[1:], f, weights)


def measure(n: int, d: int, runs: int) -> dict[str, Any]:
    """One size: {"n", "d", "f", "read_pass_ms", "fresh_over_warm", "rules": {name: {...}}}."""
    f = n // 5
    rng = np.random.default_rng(SEED)
    matrix = rng.standard_normal((n, d), dtype=np.float32)
    rows = [row.copy() for row in matrix]
    out = np.zeros_like(matrix)
    tables = {"naive": rivals.NAIVE, "byzfl": rivals.byzfl_calls(), "flwr": rivals.FLWR}
    rules: dict[str, dict[str, float]] = {}
    for name in [*RULES, "nnm", *COMPOSED]:
        call = ours(name, rows, f, out)
        contenders: Contenders = {"pass": lambda: read_pass(rows), "ours": call}
        for rival, calls in tables.items():
            too_big = name == "nnm" and 4 * n * (n - f) * d > TEMPORARY_MAX
            if name in calls and not too_big:
                contenders[rival] = lambda run=calls[name]: run(matrix, f)
        times = medians(contenders, runs)
        mine, cpu = times["ours"]
        row = {
            "ms": mine,
            "cpu_ms": cpu,
            "read_passes": mine / times["pass"][0],
            "read_passes_cpu": cpu / times["pass"][1],
        }
        for rival in tables:
            if rival in times:
                row[f"{rival}_ms"] = times[rival][0]
                row[f"over_{rival}"] = times[rival][0] / mine
                row[f"over_{rival}_cpu"] = times[rival][1] / cpu
        rules[name] = {key: round(value, 2) for key, value in row.items()}
        if name != "nnm" and (n, d) == MAIN:
            rules[name]["memory_mb"] = round(extra_mb(call), 1)
        sys.stderr.write(f"n={n} d={d} {name}\n")
    pass_ms = medians({"pass": lambda: read_pass(rows)}, runs)["pass"][0]
    return {
        "n": n,
        "d": d,
        "f": f,
        "read_pass_ms": round(pass_ms, 2),
        "fresh_over_warm": round(fresh_over_warm(matrix, runs), 1),
        "rules": rules,
    }


def verdicts(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target beside what came out: {"what", "target", "got", "got_cpu", "verdict"}.

    The verdict is on wall time. CPU time says what a machine with nothing else to do would show.
    """

    def verdict(what: str, name: str, key: str, target: float, least: bool) -> dict[str, Any]:
        got = case["rules"][name].get(key)
        cpu = case["rules"][name].get("cpu_ms" if key == "ms" else f"{key}_cpu")
        if got is None:
            word = "not measured"
        else:
            word = "ok" if (got >= target if least else got <= target) else "missed"
        sign = ">=" if least else "<="
        row = {"what": what, "target": f"{sign} {target:g}", "got": got, "got_cpu": cpu}
        return {**row, "verdict": word}

    return [
        *(
            verdict(f"{name}: times faster than {rival}", name, f"over_{rival}", target, True)
            for name, rival, target in TARGETS
        ),
        verdict("nna: read passes", "nna", "read_passes", NNA_PASSES_MAX, False),
        verdict("collapse+nna: ms", "collapse+nna", "ms", DEFENCE_MS_MAX, False),
    ]


def run(sizes: Sequence[tuple[int, int]], runs: int) -> dict[str, Any]:
    """{"runs", "numpy", "byzfl", "processors", "cases": [...], "targets": [...]}."""
    cases = [measure(n, d, runs) for n, d in sizes]
    return {
        "runs": runs,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "byzfl": bool(rivals.byzfl_calls()),
        "processors": os.cpu_count(),
        "cases": cases,
        "targets": [
            line for case in cases if (case["n"], case["d"]) == MAIN for line in verdicts(case)
        ],
    }


def text(result: dict[str, Any]) -> str:
    """The result as Markdown tables."""
    lines = []
    for case in result["cases"]:
        lines.append(
            f"\n## n = {case['n']}, d = {case['d']}, f = {case['f']}\n\n"
            f"One read-only pass over the models: {case['read_pass_ms']} ms. "
            f"A fresh copy of them takes {case['fresh_over_warm']} times a warm one.\n\n"
            "| rule | ms | CPU ms | passes | naive ms | x | byzfl ms | x | flwr ms | x | MB |\n"
            "|---|---|---|---|---|---|---|---|---|---|---|"
        )
        keys = ["ms", "cpu_ms", "read_passes"]
        keys += [
            f"{kind}{rival}{unit}"
            for rival in ("naive", "byzfl", "flwr")
            for kind, unit in (("", "_ms"), ("over_", ""))
        ]
        for name, row in case["rules"].items():
            cells = [str(row.get(key, "-")) for key in [*keys, "memory_mb"]]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    if result["targets"]:
        lines.append("\n## Targets\n\n| what | target | got | CPU time | |\n|---|---|---|---|---|")
    lines += [
        f"| {' | '.join(str(cell) for cell in line.values())} |" for line in result["targets"]
    ]
    return "\n".join(lines)


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/bench rules", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--main", action="store_true", help="only n = 20, d = 10^6")
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
        result = run([MAIN] if args.main else sizes, args.runs)
        shown = text(result)
    envelope = json.dumps({"schema": 1, "status": "ok", "data": result}, separators=(",", ":"))
    if args.save:
        pages = os.environ.get("NUMPY_MADVISE_HUGEPAGE")
        command = f"NUMPY_MADVISE_HUGEPAGE={pages} " if pages else ""
        command += f"script/bench rules {' '.join(argv)}"
        head = f"# Aggregation rules\n\n`{command}`\n\n{__doc__.strip()}\n"
        args.save.with_suffix(".md").write_text(f"{head}{shown}\n")
        args.save.with_suffix(".json").write_text(envelope + "\n")
    print(shown)
    if args.json:
        print(envelope)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
