"""How the fleet performs: rounds, latency, staleness, bytes, and accuracy over time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import TypeVar

import msgspec

from gossipfl.hub.page.facts import Measured
from gossipfl.hub.reports.facts import Facts, LogPart
from gossipfl.hub.reports.starred import Star
from gossipfl.hub.reports.stated import PrivacyStatement, stated
from gossipfl.hub.reports.timeline import Durations, Timeline, quantile

T = TypeVar("T")

POINTS_MAX = 64  # of a report's line: what a page can show
BENCHMARKS_MAX = 64


class Spread(msgspec.Struct, frozen=True):
    """Seconds or rounds: median, and what 9 of 10 do not exceed. Null before the first."""

    count: int
    median: int | None
    p90: int | None


class Point(msgspec.Struct, frozen=True):
    """From `time` on, for `width_s` of the report. `round_s`: mean length of the rounds that ended
    in it. `bytes`: of models merged, null where an update's size is not known."""

    time: int
    rounds: int
    devices: int
    merged: int
    refused: int
    alarms: int
    round_s: float | None
    bytes: int | None


class Benchmark(msgspec.Struct, frozen=True):
    """Published models on the hub's public examples. Shares of one."""

    time: int
    p10: float
    median: float
    p90: float
    merged: float | None
    disagreement: float | None


class StarPoint(msgspec.Struct, frozen=True):
    """One merge of star mode."""

    time: int
    merged: int
    accuracy: float | None
    distance: float | None


class StarPerformance(msgspec.Struct, frozen=True):
    """Star mode. `round`: from one merge to the next. `bytes`: of updates sent to the hub."""

    clients: int
    merges: int
    updates: int
    update_bytes: float | None
    bytes: int | None
    round: Spread
    points: list[StarPoint]


class Performance(msgspec.Struct, frozen=True):
    """`round`: from one receipt of a device to its next. `age`: of the models that were merged,
    since their publisher's own merge. `logging`: from a merge to the log. `behind`: rounds behind
    the median device, of those that were not revoked."""

    report: str
    log: LogPart
    rounds: int
    devices: int
    models_merged: int
    models_refused: int
    update_bytes: float | None
    bytes: int | None
    rules: dict[str, int]
    refused: dict[str, int]
    round: Spread
    age: Spread
    logging: Spread
    behind: Spread
    width_s: int
    points: list[Point]
    holdout: str
    benchmarks: list[Benchmark]
    privacy: PrivacyStatement
    star: StarPerformance | None


def performance(facts: Facts) -> Performance:
    tally = facts.tally
    size = median(facts.update_bytes) if facts.update_bytes else None
    behind = _behind(facts)
    least_s = 2 * (tally.rounds.quantile(0.5) or 0)  # shorter bins would show who merges when
    width, points = _points(tally.timeline, size, least_s)
    return Performance(
        report="performance",
        log=facts.log,
        rounds=tally.receipts,
        devices=sum(d.receipts > 0 for d in tally.devices()),
        models_merged=tally.pulls,
        models_refused=sum(tally.faults.values()),
        update_bytes=size,
        bytes=None if size is None else round(tally.pulls * size),
        rules=dict(sorted(tally.rules.items())),
        refused=dict(sorted(tally.faults.items())),
        round=_spread(tally.rounds),
        age=_spread(tally.ages),
        logging=_spread(tally.logging),
        behind=_spread(behind),
        width_s=width,
        points=points,
        holdout=facts.holdout,
        benchmarks=[_benchmark(m) for m in thinned(facts.measured, BENCHMARKS_MAX)],
        privacy=stated(tally),
        star=None if facts.star is None else _of_star(facts.star),
    )


def _of_star(star: Star) -> StarPerformance:
    gaps = Durations()
    for before, after in pairwise(star.merges):
        gaps.add(after.time - before.time)
    size = star.update_bytes
    return StarPerformance(
        clients=len(star.clients),
        merges=len(star.merges),
        updates=star.updates,
        update_bytes=size,
        bytes=None if size is None else round(star.moved_bytes),
        round=_spread(gaps),
        points=[
            StarPoint(m.time, m.merged, m.accuracy, m.relative)
            for m in thinned(star.merges, POINTS_MAX)
        ],
    )


def thinned(rows: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i * (len(rows) - 1) // (most - 1)] for i in range(most)]


def _benchmark(m: Measured) -> Benchmark:
    return Benchmark(m.time, m.low, m.middle, m.high, m.merged, m.disagreement)


def _spread(found: Durations) -> Spread:
    count = sum(found.counts.values())
    return Spread(count, found.quantile(0.5), found.quantile(0.9))


def _behind(facts: Facts) -> Durations:
    """Rounds instead of seconds, which are counted alike."""
    newest = {
        d.device: d.merges[-1].round for d in facts.tally.devices() if d.merges and not d.revoked
    }
    found = Durations()
    counts: dict[int, int] = {}
    for number in newest.values():
        counts[number] = counts.get(number, 0) + 1
    middle = quantile(counts, 0.5)
    for number in newest.values():
        found.add(max(0, (middle or 0) - number))
    return found


def _points(timeline: Timeline, size: float | None, least_s: int) -> tuple[int, list[Point]]:
    """Neighbouring bins together until there are at most POINTS_MAX, `least_s` wide or more."""
    rows = [(start, replace(b)) for start, b in timeline.bins()]  # copies: they are added up
    width = timeline.width_s
    while len(rows) > POINTS_MAX or (width < least_s and len(rows) > 1):
        pairs = []
        for i in range(0, len(rows), 2):
            start, first = rows[i]
            if i + 1 < len(rows):
                first.add(rows[i + 1][1])
            pairs.append((start, first))
        rows, width = pairs, 2 * width
    return width, [
        Point(
            time=start,
            rounds=b.receipts,
            devices=b.active.bit_count(),
            merged=b.merged,
            refused=b.refused,
            alarms=b.alarms,
            round_s=b.gap_s / b.gaps if b.gaps else None,
            bytes=None if size is None else round(b.merged * size),
        )
        for start, b in rows
    ]
