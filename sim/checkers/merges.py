"""What enters a merge: signed and verified, of this lineage, once per device, not stale."""

from __future__ import annotations

from collections.abc import Sequence

from gossipfl.events import Effect, Event, HeadReceived, ObjectReceived, StartMerge
from gossipfl.messages import Head
from sim.checkers.base import Checker, Heads
from sim.device import SimDevice
from sim.rows import Rows


class MergesVerified(Checker):
    """Every merged model is an update that a signed head of a member named, one per device."""

    def __init__(self) -> None:
        self._heads = Heads()
        self._rows = Rows()
        self._named: dict[tuple[int, bytes], dict[bytes, Head]] = {}
        self.merges = 0
        self.rows = 0

    def on_event(self, device: SimDevice, event: Event) -> None:
        if isinstance(event, ObjectReceived):
            self._rows.saw(event.data)
        if not isinstance(event, HeadReceived) or event.head is None:
            return
        self._rows.saw(event.update)
        head = self._heads.get(event.head, device.fleet.members)
        if head is not None and head.update is not None and head.fleet == device.fleet.id:
            named = self._named.setdefault((device.index, head.update.digest), {})
            named[head.device] = head

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, StartMerge):
                self._check(device, effect)

    def _check(self, device: SimDevice, effect: StartMerge) -> None:
        used: dict[bytes, int] = {}
        lineages = [device.job.lineage(run) for run in range(device.fleet.runs)]
        self.merges += 1
        self.rows += len(effect.received)
        for row in effect.received:
            for lineage, name in self._rows.names(row, lineages):
                named = self._named.get((device.index, name), {})
                if any(head.lineage == lineage for head in named.values()):
                    break
            else:
                raise self.broken(f"device {device.index} merges what no signed head named")
            used[name] = used.get(name, 0) + 1
            if used[name] > len(named):
                raise self.broken(f"device {device.index} merges one update twice in a round")
