"""Clients whom an erasure took away while the leader of star mode still has them in mind."""

from __future__ import annotations

from gossipfl.hub import pseudonyms
from gossipfl.hub.database import Transaction
from gossipfl.reputation import Reputation


class Erased:
    """Looks only when there was another erasure."""

    def __init__(self) -> None:
        self._count = 0
        self._gone: frozenset[str] = frozenset()

    async def look(self, tx: Transaction, reputation: Reputation) -> frozenset[str]:
        """Forget who was erased since. The ids, in hex, of all whom this leader had to forget."""
        count = await pseudonyms.erasures(tx)
        if count != self._count:
            gone = await pseudonyms.erased(tx, reputation.devices())
            for client in gone:
                reputation.forget(client)
            self._count = count
            self._gone |= {client.hex() for client in gone}
        return self._gone
