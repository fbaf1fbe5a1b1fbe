"""What the reports but compliance are made from: the tally, and what the hub has beside its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

import msgspec

from gossipfl.audit.checkpoints import Checkpoint
from gossipfl.hub.page.facts import Measured
from gossipfl.hub.reports.costs import Flow, Tariffs
from gossipfl.hub.reports.starred import Star
from gossipfl.hub.reports.tally import Tally


class LogPart(msgspec.Struct, frozen=True):
    """Which log a report is about, and how much of it. Times: seconds since 1970."""

    origin: str
    entries: int
    checkpoint: int
    time: int
    first: int | None
    last: int | None


def part_of(tally: Tally, checkpoint: Checkpoint) -> LogPart:
    """`checkpoint`: of the place where the tally stands."""
    return LogPart(
        origin=checkpoint.origin,
        entries=checkpoint.size,
        checkpoint=checkpoint.number,
        time=checkpoint.time,
        first=tally.chronicle.first,
        last=tally.chronicle.newest if tally.size else None,
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """`update_bytes`: sizes of the newest updates, one a device; empty where heads are not at hand
    (an export). `names`: how devices appear. `measured`: by time. `star`: what
    star mode has done. `erased`: who was erased, and is still named in others' receipts."""

    tally: Tally
    log: LogPart
    names: Mapping[bytes, str] = field(default_factory=dict)
    update_bytes: tuple[int, ...] = ()
    measured: tuple[Measured, ...] = ()
    tariffs: Tariffs = field(default_factory=Tariffs)
    holdout: str = ""
    star: Star | None = None
    erased: frozenset[bytes] = frozenset()

    @property
    def flow(self) -> Flow | None:
        """Of peers and of star mode together. None until an update's size is known, or before the
        first merge."""
        tally, star = self.tally, self.star
        size = median(self.update_bytes) if self.update_bytes else 0.0
        models = tally.pulls if size else 0
        moved = models * size
        devices = sum(d.revoked is None for d in tally.devices())
        rounds, first, last = tally.receipts, tally.chronicle.first, tally.chronicle.newest
        if star is not None and star.moved_bytes:
            models, moved = models + star.updates, moved + star.moved_bytes
            devices += sum(not client.is_blocked for client in star.clients.values())
            rounds += star.updates
            times = [merge.time for merge in star.merges]
            first = min([*times, *([] if first is None else [first])], default=None)
            last = max([*times, last])
        if not moved:
            return None
        return Flow(models, moved / models, devices, rounds, first or 0, last)
