"""A budget is never exceeded, whatever becomes of disks and keys: a machine has one, for good."""

from __future__ import annotations

from gossipfl.events import Event, HeadReceived
from gossipfl.shelf import Served
from sim.checkers.base import Checker, Heads
from sim.device import SimDevice

KNOWERS = 2


class BudgetKept(Checker):
    """Honest peers get at most `most` different releases of an honest machine, under all keys that
    it ever had.

    The machine is counted, not the device: a new enrolment and a restored disk are no new budget.
    Counted is what at least `KNOWERS` of them got: what was lost on its way nobody can know of, and
    a single peer may be away when it is asked."""

    events = frozenset({HeadReceived})

    def __init__(self, most: int) -> None:
        self.most = most
        self.shown: dict[int, set[bytes]] = {}
        self._got: dict[bytes, set[int]] = {}  # release -> machines that have it
        self._machine: dict[bytes, int] = {}
        self._heads = Heads()

    def on_serve_head(self, server: SimDevice, asked: bytes | None, served: Served) -> None:
        if asked is None and server.honest:
            self._machine[server.device] = server.index

    def on_event(self, device: SimDevice, event: Event) -> None:
        if not isinstance(event, HeadReceived) or event.head is None or not device.honest:
            return
        head = self._heads.get(event.head, device.fleet.members)
        if head is None or head.update is None:
            return
        machine = self._machine.get(head.device, device.index)
        if machine == device.index:
            return
        got = self._got.setdefault(head.update.digest, set())
        got.add(device.index)
        if len(got) < KNOWERS:
            return
        shown = self.shown.setdefault(machine, set())
        shown.add(head.update.digest)
        if len(shown) > self.most:
            raise self.broken(
                f"peers have {len(shown)} releases of machine {machine}, its budget pays for "
                f"{self.most}"
            )
