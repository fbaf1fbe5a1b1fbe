"""Not an invariant: a count of how rounds end."""

from __future__ import annotations

from collections.abc import Sequence

from gossipfl.events import Effect, Event, Notice, StartMerge, Topic
from sim.checkers.base import Checker
from sim.device import SimDevice


class Tally(Checker):
    """Counts how rounds of honest devices end: with a merge, or with a notice why not."""

    kinds = frozenset({StartMerge, Notice})

    def __init__(self) -> None:
        self.merged = 0
        self.joined = 0
        self.unmerged: dict[str, int] = {}

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        if not device.honest:
            return
        for effect in effects:
            match effect:
                case StartMerge():
                    self.merged += effect.own is not None
                    self.joined += effect.own is None
                case Notice(Topic.ROUND, text, _, True):
                    why = text.split(": ", 1)[-1]
                    self.unmerged[why] = self.unmerged.get(why, 0) + 1

    @property
    def ended(self) -> int:
        return self.merged + sum(self.unmerged.values())

    @property
    def completed(self) -> float:
        """Share of ended rounds that merged."""
        return self.merged / max(1, self.ended)
