"""What enters a merge: signed and verified, of this lineage, once per device, not stale."""

from __future__ import annotations

from collections.abc import Sequence

from gossipfl.events import Effect, Event, HeadReceived, ObjectReceived, StartMerge
from gossipfl.messages import Head
from sim.checkers.base import Checker, Heads
from sim.device import SimDevice
from sim.rows import Rows

NAMED_MAX = 1_024  # updates named to one device in a generation: an inbox holds 256 of them


class Named:
    """Which signed heads named an update to one device. Two generations: no list grows for ever."""

    def __init__(self) -> None:
        self._young: dict[bytes, dict[bytes, Head]] = {}
        self._old: dict[bytes, dict[bytes, Head]] = {}

    def heads(self, update: bytes) -> dict[bytes, Head]:
        return self._young.get(update) or self._old.get(update) or {}

    def add(self, update: bytes, head: Head) -> None:
        named = self._young.get(update)
        if named is None:
            named = self._young[update] = self._old.pop(update, {})
        named[head.device] = head
        if len(self._young) > NAMED_MAX:
            self._old, self._young = self._young, {}


class MergesVerified(Checker):
    """Every merged model is an update that a signed head of a member named, one per device."""

    def __init__(self, heads: Heads | None = None) -> None:
        self._heads = heads or Heads()
        self._rows = Rows()
        self._named: dict[int, Named] = {}
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
            self._of(device).add(head.update.digest, head)

    def _of(self, device: SimDevice) -> Named:
        return self._named.setdefault(device.index, Named())

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
                named = self._of(device).heads(name)
                if any(head.lineage == lineage for head in named.values()):
                    break
            else:
                raise self.broken(f"device {device.index} merges what no signed head named")
            used[name] = used.get(name, 0) + 1
            if used[name] > len(named):
                raise self.broken(f"device {device.index} merges one update twice in a round")
