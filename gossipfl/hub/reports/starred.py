"""What star mode has done, for reports: read from its tables, as clients and versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gossipfl.hub.database import Database, Transaction
from gossipfl.hub.star import books, clients
from gossipfl.hub.star.values import Version

VERSIONS_MAX = 10_000  # the newest: guess, four days of rounds of half a minute
PAGE = 500


@dataclass(slots=True)
class StarClient:
    """What one client gave: updates accepted, of them merged, and its share in merges, summed."""

    updates: int = 0
    merged: int = 0
    influence: float = 0.0
    is_blocked: bool = False


@dataclass(frozen=True, slots=True)
class StarMerge:
    """One merge. `accuracy`: on the hub's holdout, else the median of what clients report."""

    time: int
    merged: int
    accuracy: float | None
    relative: float | None  # distance of the updates over the way come


@dataclass(frozen=True, slots=True)
class Star:
    """`merges` by time. `update_bytes`: the mean of the updates whose rows are still kept."""

    clients: Mapping[bytes, StarClient] = field(default_factory=dict)
    merges: tuple[StarMerge, ...] = ()
    update_bytes: float | None = None

    @property
    def updates(self) -> int:
        return sum(client.updates for client in self.clients.values())

    @property
    def moved_bytes(self) -> float:
        """Updates sent to the hub; what clients fetch from it is not counted."""
        return self.updates * (self.update_bytes or 0.0)


async def star(database: Database) -> Star | None:
    """None for a hub without clients."""
    async with database.transaction(write=False) as tx:
        known = {
            c.id: StarClient(c.updates, is_blocked=bool(c.blocked))
            for c in await clients.all_of(tx)
        }
        if not known:
            return None
        versions = await _merges(tx)
        row = await tx.row("SELECT AVG(bytes) AS size FROM star_updates")
    for version in versions:
        for part in version.details.merged:
            client = known.setdefault(bytes.fromhex(part.client), StarClient())
            client.influence += part.influence
            client.merged += part.influence > 0.0
    size = None if row is None or row["size"] is None else float(row["size"])
    return Star(known, tuple(_merge(version) for version in versions), size)


async def _merges(tx: Transaction) -> list[Version]:
    """By their numbers."""
    found: list[Version] = []
    before: int | None = None
    while len(found) < VERSIONS_MAX:
        page = await books.versions(tx, PAGE, before)
        if not page:
            break
        found += [version for version in page if version.origin == "merge"]
        before = page[-1].number
    return found[::-1]


def _merge(version: Version) -> StarMerge:
    told = version.details
    merged = sum(part.influence > 0.0 for part in told.merged)
    return StarMerge(int(version.created), merged, told.accuracy, told.relative)
