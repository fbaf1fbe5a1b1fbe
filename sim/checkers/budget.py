"""A budget is never exceeded, whatever becomes of disks and keys: a machine has one, for good."""

from __future__ import annotations

from gossipfl.shelf import Served
from sim.checkers.base import Checker
from sim.device import SimDevice


class BudgetKept(Checker):
    """An honest machine shows at most `most` different releases, under all keys that it ever had.

    The machine is counted, not the device: a new enrolment and a restored disk are no new budget.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.shown: dict[int, set[bytes]] = {}

    def on_serve_head(self, server: SimDevice, asked: bytes | None, served: Served) -> None:
        if asked is not None or served.update_digest is None or not server.honest:
            return
        shown = self.shown.setdefault(server.index, set())
        shown.add(served.update_digest)
        if len(shown) > self.most:
            raise self.broken(
                f"machine {server.index} has shown {len(shown)} releases, its budget pays for "
                f"{self.most}"
            )
