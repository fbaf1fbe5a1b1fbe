"""What `bench_rules.py` says of its figures: targets, verdicts, tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MAIN = (20, 1_000_000)
"""The size that the targets are for."""
DEFENCE = "defence"
BY_HAND = "## What was tried"
"""From this heading on a results page is written by hand."""

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


def verdicts(case: dict[str, Any], small: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Each target beside what came out: {"what", "target", "got", "got_wall", "verdict", ...}.

    The verdict is on CPU time. small: the same size with small pages.
    """

    def judged(of: dict[str, Any], name: str, key: str, target: float) -> tuple[Any, Any, str]:
        wall = of["rules"][name].get(key)
        got = of["rules"][name].get("cpu_ms" if key == "ms" else f"{key}_cpu")
        if got is None:
            return None, None, "not measured"
        least = key.startswith("over")
        return got, wall, "ok" if (got >= target if least else got <= target) else "missed"

    wanted = [
        (f"{name}: times faster than {rival}", name, f"over_{rival}", target)
        for name, rival, target in TARGETS
    ]
    wanted.append(("nna: read passes", "nna", "read_passes", NNA_PASSES_MAX))
    wanted.append(("the whole default defence: ms", DEFENCE, "ms", DEFENCE_MS_MAX))
    lines = []
    for what, name, key, target in wanted:
        line = {"what": what, "target": f"{'>=' if key.startswith('over') else '<='} {target:g}"}
        names = ("got", "got_wall", "verdict")
        line |= dict(zip(names, judged(case, name, key, target), strict=True))
        if small is not None:
            judgement = judged(small, name, key, target)
            line |= {f"small_pages_{name}": x for name, x in zip(names, judgement, strict=True)}
        lines.append(line)
    return lines


def text(result: dict[str, Any]) -> str:
    """The result as Markdown tables, the targets first. Ratios are of CPU time."""
    lines = []
    if result["targets"]:
        heads = list(result["targets"][0])
        titles = " | ".join(name.replace("_", " ") for name in heads)
        lines.append(f"\n## Targets, n = {MAIN[0]}, d = {MAIN[1]}\n")
        lines.append(f"| {titles} |\n|{'---|' * len(heads)}")
    lines += [
        f"| {' | '.join(str(cell) for cell in line.values())} |" for line in result["targets"]
    ]
    for case in result["cases"]:
        pages = ", small pages" if case.get("small_pages") else ""
        lines.append(
            f"\n## n = {case['n']}, d = {case['d']}, f = {case['f']}{pages}\n\n"
            f"Best of {case['runs']}. One read-only pass over the models: {case['read_pass_ms']} "
            f"ms. A fresh copy of them takes {case['fresh_over_warm']} times a warm one.\n\n"
            "| rule | CPU ms | wall ms | read passes | x naive | x byzfl | x flwr | MB |\n"
            "|---|---|---|---|---|---|---|---|"
        )
        keys = ["cpu_ms", "ms", "read_passes_cpu"]
        keys += [f"over_{name}_cpu" for name in ("naive", "byzfl", "flwr")]
        for name, row in case["rules"].items():
            cells = [str(row.get(key, "-")) for key in [*keys, "memory_mb"]]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def save(stem: Path, about: str, shown: str) -> None:
    """STEM.md, of which what was written by hand stays."""
    file = stem.with_suffix(".md")
    before = file.read_text() if file.exists() else ""
    _, heading, by_hand = before.partition(BY_HAND)
    notes = f"\n{heading}{by_hand.rstrip()}\n" if heading else ""
    file.write_text(f"# Aggregation rules\n\n{about.strip()}\n{shown}\n{notes}")
