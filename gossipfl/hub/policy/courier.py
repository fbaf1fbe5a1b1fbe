"""Hands what was issued at any instance to the node of the one that leads, bundle and all."""

from __future__ import annotations

from collections.abc import Callable

from gossipfl.config import Limits
from gossipfl.events import BundleGiven, Event, PolicyReceived
from gossipfl.hub.database import Database
from gossipfl.hub.policy import desk
from gossipfl.messages import Policy
from gossipfl.policies import read_policy

BUNDLES_KEPT = 2  # as many files as a node keeps in memory for what its policies name


class Courier:
    """One life of the leader. The node knows what it has already: giving it twice does nothing."""

    def __init__(self, database: Database, give: Callable[[Event], bool]) -> None:
        self._database = database
        self._give = give
        self._given: set[str] = set()
        self._bundles: set[bytes] = set()

    async def look(self) -> None:
        """Raises DatabaseError."""
        async with self._database.transaction(write=False) as tx:
            rows = await desk.issued(tx)
        policies = [(row["digest"], bytes(row["data"])) for row in rows]
        for name, data in policies:
            if name not in self._given and self._give(PolicyReceived(data)):
                self._given.add(name)
        for _, data in policies[-BUNDLES_KEPT:]:
            await self._bundle(read_policy(data, Limits()))

    async def _bundle(self, policy: Policy) -> None:
        """The file that the policy names, if somebody gave it to this hub."""
        if policy.bundle_object in self._bundles:
            return
        async with self._database.transaction(write=False) as tx:
            row = await tx.row(
                "SELECT data FROM star_bundles WHERE digest = ?", policy.bundle_object.hex()
            )
        if row is not None and self._give(BundleGiven(bytes(row["data"]))):
            self._bundles.add(policy.bundle_object)
