"""Tables come by numbered migrations, area by area, forward only, all of them in one transaction.

What was applied is remembered with its digest: one that was changed afterwards is an error, not a
surprise. Before a store that holds something is changed, a backup is made of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from gossipfl.errors import UserError
from gossipfl.hub.database.contract import Transaction
from gossipfl.hub.database.sql import statements, typed

TABLE = """
CREATE TABLE IF NOT EXISTS migrations (
    area TEXT NOT NULL, number BIGINT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (area, number))
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of an area: statements that end in `;`, numbered from 1 without gaps."""

    number: int
    area: str
    sql: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def collect() -> tuple[Migration, ...]:
    """The migrations of every area of the hub, in the order in which areas build on each other."""
    from gossipfl.hub import pseudonyms
    from gossipfl.hub.alerts import tables as alerts
    from gossipfl.hub.auth import schema as auth
    from gossipfl.hub.erasing import tables as erasing
    from gossipfl.hub.fleet import tables as fleet
    from gossipfl.hub.log import tables as log
    from gossipfl.hub.measured import tables as measured
    from gossipfl.hub.policy import schema as policy
    from gossipfl.hub.star import schema as star

    areas = (auth, log, fleet, star, measured, pseudonyms, erasing, alerts, policy)
    return tuple(migration for area in areas for migration in area.MIGRATIONS)


def pending(
    wanted: Sequence[Migration], applied: dict[tuple[str, int], str], where: str
) -> list[Migration]:
    """What is still to be applied, in order. Raises UserError if the store is not one of ours."""
    known: dict[tuple[str, int], Migration] = {}
    numbers: dict[str, int] = {}
    for migration in wanted:
        if migration.number != numbers.get(migration.area, 0) + 1:
            raise ValueError(f"migration {migration.number} of {migration.area}: not the next one")
        numbers[migration.area] = migration.number
        known[migration.area, migration.number] = migration
    for key, digest in applied.items():
        if key not in known:
            raise UserError("GF502", f"{where}: {key[0]} is at {key[1]}, which is not known here")
        if known[key].digest != digest:
            raise UserError("GF504", f"{where}: migration {key[1]} of {key[0]} is another one")
    return [migration for key, migration in known.items() if key not in applied]


async def applied_in(transaction: Transaction) -> dict[tuple[str, int], str]:
    """What a store says was applied; the table must exist."""
    rows = await transaction.rows("SELECT area, number, digest FROM migrations")
    return {(row["area"], row["number"]): row["digest"] for row in rows}


async def apply(
    transaction: Transaction, steps: Sequence[Migration], names: dict[str, str]
) -> None:
    """Run the steps and write down that they were run."""
    for step in steps:
        for statement in statements(typed(step.sql, names)):
            await transaction.execute(statement)
        await transaction.execute(
            "INSERT INTO migrations (area, number, digest) VALUES (?, ?, ?)",
            step.area,
            step.number,
            step.digest,
        )
