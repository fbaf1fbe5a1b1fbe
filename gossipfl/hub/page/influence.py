"""How much each device counts in the others' merges: what the fleet itself thinks of a device.

Receipts are public and recomputable, so this needs nobody's word: a device that the others' rules
drop, or that nobody pulls from any more, has no weight. A weight of 1 is the fleet's median.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from gossipfl.hub.page.chronicle import Known, Merge

RECENT = 6  # receipts of each device that count as recent: guess, three minutes of the lan preset
SERIES = 40  # rounds of a line
SMOOTH = 3  # rounds that a point of a line is the mean of: a sample leaves most peers out
EXPECTED_MIN = 4.0  # merges that a device should have had before it is called left out: guess


@dataclass(frozen=True, slots=True)
class Weight:
    """Of one device by the others' recent receipts."""

    ratio: float | None  # mean share over the median device's; None: too little is known
    merged_of: int  # devices that merged it
    judged_by: int  # devices with recent receipts
    is_left_out: bool


def weights(devices: Iterable[Known]) -> dict[bytes, Weight]:
    """Of each device in the log."""
    known = list(devices)
    recent = {k.device: list(k.merges)[-RECENT:] for k in known if k.merges}
    total = sum(map(len, recent.values()))
    sums = dict.fromkeys((k.device for k in known), 0.0)
    merges = dict.fromkeys(sums, 0)
    who: dict[bytes, set[bytes]] = {device: set() for device in sums}
    for by, theirs in recent.items():
        for merge in theirs:
            for device, share in merge.merged:
                if share > 0.0 and device in sums:
                    sums[device] += share
                    merges[device] += 1
                    who[device].add(by)
    means: dict[bytes, float] = {}
    judges: dict[bytes, int] = {}
    for device in sums:
        judges[device] = len(recent) - (device in recent)
        count = total - len(recent.get(device, ()))
        if count:
            means[device] = sums[device] / count
    middle = median(means.values()) if means else 0.0
    usual = median(merges.values()) if merges else 0.0
    return {
        k.device: Weight(
            ratio=means[k.device] / middle if k.device in means and middle > 0.0 else None,
            merged_of=len(who[k.device]),
            judged_by=judges[k.device],
            is_left_out=merges[k.device] == 0 and usual >= EXPECTED_MIN and k.receipts > 0,
        )
        for k in known
    }


def series(devices: Iterable[Known]) -> dict[bytes, tuple[float | None, ...]]:
    """Each device's weight by round, the oldest first: the newest SERIES rounds of the fleet."""
    known = list(devices)
    by_round: dict[int, list[tuple[bytes, Merge]]] = {}
    for k in known:
        for merge in k.merges:
            by_round.setdefault(merge.round, []).append((k.device, merge))
    rounds = sorted(by_round)[-SERIES - SMOOTH + 1 :]
    raw: dict[bytes, list[float | None]] = {k.device: [] for k in known}
    for number in rounds:
        sums: dict[bytes, float] = {}
        own: dict[bytes, int] = {}
        for by, merge in by_round[number]:
            own[by] = own.get(by, 0) + 1
            for device, share in merge.merged:
                sums[device] = sums.get(device, 0.0) + share
        total = len(by_round[number])
        means = {
            d: sums.get(d, 0.0) / (total - own.get(d, 0)) for d in raw if total > own.get(d, 0)
        }
        middle = median([v for v in means.values() if v > 0.0] or [0.0])
        for device, line in raw.items():
            mean = means.get(device)
            line.append(mean / middle if mean is not None and middle > 0.0 else None)
    return {device: _smoothed(line) for device, line in raw.items()}


def _smoothed(line: list[float | None]) -> tuple[float | None, ...]:
    out: list[float | None] = []
    for end in range(1, len(line) + 1):
        part = [v for v in line[max(0, end - SMOOTH) : end] if v is not None]
        out.append(sum(part) / len(part) if part else None)
    return tuple(out[-SERIES:])


def edges(devices: Iterable[Known]) -> dict[tuple[bytes, bytes], tuple[int, float]]:
    """(merged, by) -> how often in the recent receipts, and the mean influence."""
    found: dict[tuple[bytes, bytes], list[float]] = {}
    for k in devices:
        for merge in list(k.merges)[-RECENT:]:
            for device, share in merge.merged:
                if share > 0.0:
                    found.setdefault((device, k.device), []).append(share)
    return {pair: (len(v), sum(v) / len(v)) for pair, v in found.items()}
