"""What the reports but compliance are made from: the tally, and what the hub has beside its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

import msgspec

from gossipfl.audit.checkpoints import Checkpoint
from gossipfl.hub.page.facts import Measured
from gossipfl.hub.reports.costs import Flow, Tariffs
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
    (an export). `names`: how devices appear. `measured`: by time."""

    tally: Tally
    log: LogPart
    names: Mapping[bytes, str] = field(default_factory=dict)
    update_bytes: tuple[int, ...] = ()
    measured: tuple[Measured, ...] = ()
    tariffs: Tariffs = field(default_factory=Tariffs)
    holdout: str = ""

    @property
    def flow(self) -> Flow | None:
        """None until an update's size is known, or before the first merge."""
        tally = self.tally
        if not self.update_bytes or not tally.pulls:
            return None
        return Flow(
            models=tally.pulls,
            update_bytes=median(self.update_bytes),
            devices=sum(d.revoked is None for d in tally.devices()),
            rounds=tally.receipts,
            first=tally.chronicle.first or 0,
            last=tally.chronicle.newest,
        )
