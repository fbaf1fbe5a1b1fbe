"""The picture of a run: accuracy, spread and completed rounds over virtual time."""

from __future__ import annotations

from sim.plot import Line, Panel, picture
from sim.scenarios.play import Played

LONG_S = 600.0  # above it the axis is in minutes


def draw(played: Played) -> str:
    """SVG text."""
    points = played.points
    long = bool(points) and points[-1].at_s > LONG_S
    unit = 60.0 if long else 1.0
    panels = [
        Panel(
            "accuracy of honest devices",
            (
                Line("mean", [p.accuracy_mean for p in points]),
                Line("worst", [p.accuracy_worst for p in points]),
            ),
            top=1.0,
        ),
        Panel(
            "spread: distance of their models to the mean",
            (Line("spread", [p.spread for p in points]),),
        ),
        Panel(
            "rounds that ended with a merge, of all of them together",
            (Line("rounds", [float(p.merged) for p in points]),),
        ),
    ]
    return picture(
        f"{played.name}, seed {played.seed}",
        f"virtual {'minutes' if long else 'seconds'}",
        [p.at_s / unit for p in points],
        panels,
    )
