"""Privacy in random histories: budgets of so many releases, and ledgers that are taken over."""

from __future__ import annotations

import math

from gossipfl.durable import LEDGER_BEHIND, LEDGER_CARRIED, Snapshot
from gossipfl.memory import MemoryStore
from gossipfl.messages import Privacy
from gossipfl.privacy.gaussian import epsilon_of
from sim.plan import Plan

Z, CLIP, DELTA = 6.0, 0.1, 1e-5


def privacy_of(plan: Plan) -> Privacy | None:
    """The policy's privacy: a budget that pays for so many publications."""
    if not plan.budget:
        return None
    # Half a release more than asked, so that nothing hangs on the last digit.
    epsilon = epsilon_of(DELTA, math.sqrt(plan.budget + 0.5) / Z)
    return Privacy(mode="local", unit="device", epsilon=epsilon, delta=DELTA, clip=CLIP, z=Z)


def carried(disk: MemoryStore | None) -> MemoryStore:
    """A new store with the ledger of an old disk, as `device_agent.ledger_rows` makes it."""
    found = disk.load() if disk is not None else None
    if found is None or LEDGER_BEHIND in found.documents:
        return MemoryStore()
    return MemoryStore(Snapshot(documents={LEDGER_CARRIED: b"1"}, ledger=found.ledger))
