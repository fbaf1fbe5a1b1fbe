"""What models were found to be worth, for whoever shows it."""

from __future__ import annotations

from gossipfl.hub.database import Transaction
from gossipfl.hub.page.facts import Measured

_NEWEST = (
    "SELECT time, low, middle, high, merged, disagreement FROM measured ORDER BY time DESC LIMIT ?"
)


async def measured(transaction: Transaction, most: int) -> tuple[Measured, ...]:
    """The newest so many, by time."""
    rows = await transaction.rows(_NEWEST, most)
    return tuple(
        Measured(r["time"], r["low"], r["middle"], r["high"], r["merged"], r["disagreement"])
        for r in reversed(rows)
    )
