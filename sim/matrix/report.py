"""Tables of a matrix in Markdown: references, each attack by noise, and where a target is missed.

Means are over seeds, the worst device is the worst of all seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.matrix.cells import Cell, Options

Results = Mapping[Cell, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Target:
    """At most so many points below the clean run. None: no promise."""

    mean: float | None
    worst: float | None
    beats_alone: bool


def target(alpha: float, share: float) -> Target:
    """What the design promises for this skew and this share of attackers."""
    if alpha >= 1.0:
        few = share <= 0.2
        return Target(2.0 if few else 3.0, 4.0 if few else 6.0, not few)
    return Target(4.0 if share <= 0.2 else None, None, False)


@dataclass(frozen=True, slots=True)
class Figure:
    """Points: 100 is right every time."""

    mean: float
    worst: float
    influence: float
    seeds: int
    failed: str = ""

    def __str__(self) -> str:
        return self.failed or f"{self.mean:.1f} / {self.worst:.1f}"


def figure(results: Results, wanted: Iterable[Cell]) -> Figure | None:
    """Over the seeds that are there."""
    rows = [results[cell] for cell in wanted if cell in results]
    if not rows:
        return None
    broken = [str(row["failed"]) for row in rows if "failed" in row]
    if broken:
        return Figure(0.0, 0.0, 0.0, len(rows), f"FAILED: {broken[0]}")
    mean = sum(row["mean"] for row in rows) / len(rows)
    influence = sum(row.get("influence", 0.0) for row in rows) / len(rows)
    return Figure(100 * mean, 100 * min(row["worst"] for row in rows), influence, len(rows))


def missed(found: Figure, clean: Figure, alone: Figure | None, goal: Target) -> str:
    """Which targets it misses and by how many points; "" if none."""
    wrong = []
    if goal.mean is not None and found.mean < clean.mean - goal.mean - 1e-9:
        wrong.append(f"mean by {clean.mean - goal.mean - found.mean:.1f}")
    if goal.worst is not None and found.worst < clean.worst - goal.worst - 1e-9:
        wrong.append(f"worst by {clean.worst - goal.worst - found.worst:.1f}")
    if goal.beats_alone and alone is not None and found.mean < alone.mean:
        wrong.append(f"below alone by {alone.mean - found.mean:.1f}")
    return ", ".join(wrong)


def report(options: Options, results: Results, wanted: Sequence[Cell] = ()) -> str:
    """The whole page. `wanted`: cells that were asked for; those without a result are named."""
    lines = [_words(options), ""]
    everything = [*results, *(cell for cell in wanted if cell not in results)]
    for alpha in sorted({c.alpha for c in everything}, reverse=True):
        for count in sorted({c.attackers for c in everything if c.row == "attack"}):
            for rule in sorted({c.rule for c in everything if c.row == "attack"}):
                lines += _table(options, results, everything, (alpha, count, rule))
    left = [cell for cell in everything if cell not in results]
    lines.append(f"{len(everything) - len(left)} of {len(everything)} cells have run.")
    if left:
        lines += ["", "Not run:", "", *_named(left)]
    return "\n".join(lines) + "\n"


def _words(options: Options) -> str:
    return (
        f"{options.devices} devices x {options.samples} {options.data} examples, MLP with "
        f"{options.hidden} hidden units, {options.rounds} rounds, {options.assumed} attackers "
        f"assumed in every row; SGD {options.learning_rate:g} with momentum {options.momentum:g}, "
        f"batch {options.batch}. Accuracy in percent: mean / worst honest device."
    )


def _table(
    options: Options, results: Results, cells: Sequence[Cell], at: tuple[float, int, str]
) -> list[str]:
    alpha, count, rule = at
    here = [c for c in cells if c.alpha == alpha]
    clean = figure(results, [c for c in here if c.row == "clean" and c.rule == rule])
    alone = figure(results, [c for c in here if c.row == "alone"])
    rows = [c for c in here if c.row == "attack" and (c.attackers, c.rule) == (count, rule)]
    if not rows:
        return []
    noises = sorted({c.noise for c in rows})
    goal = target(alpha, count / options.devices)
    lines = [f"## {rule}, Dirichlet {alpha:g}, {count} attackers", ""]
    lines += [f"Clean: {clean or 'not run'}. Alone: {alone or 'not run'}. {_promise(goal)}", ""]
    lines += ["| attack | " + " | ".join(f"noise {n:g}" for n in noises) + " |"]
    lines += ["|---" * (len(noises) + 1) + "|"]
    for c in [c for c in here if c.row == "undefended" and c.attackers == count][:1]:
        lone = figure(results, _seeds(here, c))
        blank = " |" * (len(noises) - 1)
        lines.append(f"| {c.attack}, undefended ({c.rule}) | {lone or 'not run'} |{blank}")
    for name in dict.fromkeys(c.attack for c in rows if c in results):  # the rest is named below
        shown = [
            _shown(
                figure(results, [c for c in rows if (c.attack, c.noise) == (name, noise)]),
                clean,
                alone,
                goal,
                any((c.attack, c.noise) == (name, noise) for c in rows),
            )
            for noise in noises
        ]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return [*lines, ""]


def _shown(
    found: Figure | None, clean: Figure | None, alone: Figure | None, goal: Target, asked: bool
) -> str:
    if found is None:
        return "not run" if asked else ""
    if found.failed or clean is None:
        return str(found)
    wrong = missed(found, clean, alone, goal)
    told = f"{found}, influence {100 * found.influence:.1f} %"
    return f"{told}, **missed**: {wrong}" if wrong else told


def _promise(goal: Target) -> str:
    if goal.mean is None:
        return "Reported, no target."
    text = f"Target: mean at most {goal.mean:g} points below clean"
    if goal.worst is not None:
        text += f", worst device at most {goal.worst:g}"
    return text + (", never below alone." if goal.beats_alone else ".")


def _seeds(cells: Sequence[Cell], like: Cell) -> list[Cell]:
    return [
        c
        for c in cells
        if (c.row, c.rule, c.attack, c.noise, c.attackers, c.alpha)
        == (like.row, like.rule, like.attack, like.noise, like.attackers, like.alpha)
    ]


def _named(cells: Sequence[Cell]) -> list[str]:
    """Grouped, so that hundreds of cells stay readable."""
    groups: dict[tuple[float, int, str, str], list[str]] = {}
    for c in cells:
        key = (c.alpha, c.attackers, c.row, c.attack)
        groups.setdefault(key, []).append(f"{c.noise:g} (seed {c.seed})")
    return [
        f"- Dirichlet {alpha:g}, {count} attackers, {row} {name}: noise {', '.join(noises)}"
        for (alpha, count, row, name), noises in groups.items()
    ]
