"""What happened over time in a bounded number of bins, whatever the log's length: pure.

A bin is 2**k seconds wide, from a multiple of its width on. When there would be more than BINS_MAX,
pairs of neighbours become one. So the same entries give the same bins, however they come in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

BINS_MAX = 256  # guess: more than a line on a page can show
HOUR_S, DAY_S, MONTH_S = 3_600, 86_400, 2_629_800  # a twelfth of a year of 365.25 days


@dataclass(slots=True)
class Bin:
    """`active` has a bit for each device that had a receipt, by its place in the log."""

    receipts: int = 0
    merged: int = 0
    refused: int = 0
    alarms: int = 0
    gaps: int = 0  # rounds whose length is known
    gap_s: int = 0  # their sum
    active: int = 0

    def add(self, other: Bin) -> None:
        self.receipts += other.receipts
        self.merged += other.merged
        self.refused += other.refused
        self.alarms += other.alarms
        self.gaps += other.gaps
        self.gap_s += other.gap_s
        self.active |= other.active


class Timeline:
    """Bins by time; `at` gives the one to count in."""

    def __init__(self) -> None:
        self.width_s = 1
        self._bins: dict[int, Bin] = {}
        self._low = self._high = 0

    def at(self, time: int) -> Bin:
        place = time // self.width_s
        if not self._bins:
            self._low = self._high = place
        self._low, self._high = min(self._low, place), max(self._high, place)
        while self._high - self._low >= BINS_MAX:
            self._widen()
        return self._bins.setdefault(time // self.width_s, Bin())

    def _widen(self) -> None:
        self.width_s *= 2
        old, self._bins = self._bins, {}
        for place, made in old.items():
            self._bins.setdefault(place // 2, Bin()).add(made)
        self._low, self._high = self._low // 2, self._high // 2

    def bins(self) -> Iterator[tuple[int, Bin]]:
        """(start, bin) for each width from the first to the last, empty ones too."""
        if self._bins:
            for place in range(self._low, self._high + 1):
                yield place * self.width_s, self._bins.get(place, Bin())


class Durations:
    """Seconds, counted exactly up to an hour, by minutes up to a day and by hours up to 30 days."""

    MOST_S = 30 * DAY_S

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, seconds: int) -> None:
        held = max(0, min(seconds, self.MOST_S))
        if held > DAY_S:
            held -= held % HOUR_S
        elif held > HOUR_S:
            held -= held % 60
        self.counts[held] += 1

    def quantile(self, share: float) -> int | None:
        return quantile(self.counts, share)


def quantile(counts: Mapping[int, int], share: float) -> int | None:
    """The least value that at least `share` of all do not exceed; None if there are none."""
    total = sum(counts.values())
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= share * total and seen:
            return value
    return None
