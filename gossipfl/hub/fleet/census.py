"""What the hub's node sees of each device, written down for every instance of the hub to show."""

from __future__ import annotations

from collections.abc import Callable

from gossipfl.holdings import Holdings
from gossipfl.hub.auth.sessions import end_sessions
from gossipfl.hub.database import Database, Value
from gossipfl.identity import device_name
from gossipfl.view import PeerView, View
from gossipfl.wire import encode

SHUT_OUT = frozenset({"revoked", "condemned", "blocked"})
"""States of a device that has no more business here: its sessions at the API end."""
_UPSERT = (
    "INSERT INTO fleet_devices (device, role, state, why, seq, round, receipts, seen, reputation, "
    "head, address) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (device) DO UPDATE SET "
    "role = excluded.role, state = excluded.state, why = excluded.why, seq = excluded.seq, "
    "round = excluded.round, receipts = excluded.receipts, seen = excluded.seen, "
    "reputation = excluded.reputation, head = excluded.head, address = excluded.address"
)


class Census:
    """`clock` gives seconds since 1970. Only what changed is written."""

    def __init__(
        self,
        database: Database,
        holdings: Callable[[], Holdings],
        view: Callable[[], View],
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._holdings = holdings
        self._view = view
        self._clock = clock
        self._written: dict[bytes, tuple[Value, ...]] = {}

    async def write(self) -> int:
        """How many devices' rows changed. Raises DatabaseError."""
        rows = self._rows()
        changed = {d: row for d, row in rows.items() if self._written.get(d) != row}
        if changed:
            async with self._database.transaction() as transaction:
                await transaction.many(_UPSERT, [(d, *row) for d, row in changed.items()])
                for device in self._newly_out(changed):
                    await end_sessions(
                        transaction, device.hex(), "shut out", self._clock(), is_out=True
                    )
            self._written |= changed
        return len(changed)

    def _newly_out(self, changed: dict[bytes, tuple[Value, ...]]) -> list[bytes]:
        before = {device: row[1] for device, row in self._written.items()}
        return [
            device
            for device, row in changed.items()
            if row[1] in SHUT_OUT and before.get(device) not in SHUT_OUT
        ]

    def _rows(self) -> dict[bytes, tuple[Value, ...]]:
        found, view = self._holdings(), self._view()
        peers = {peer.device: peer for peer in view.peers}
        neighbours = {n.device: n for n in found.neighbours}
        rows: dict[bytes, tuple[Value, ...]] = {}
        for known in found.members:
            device = known.member.device
            if known.member.tls is None or device_name(device) == view.device:
                continue  # people's keys, and the hub itself
            peer = peers.get(device_name(device))
            neighbour = neighbours.get(device)
            head = neighbour.head if neighbour is not None else None
            rows[device] = (
                known.member.role.value,
                peer.state if peer is not None else "away",
                peer.why if peer is not None else "",
                head.seq if head is not None else 0,
                peer.round if peer is not None else None,
                head.receipts.number if head is not None and head.receipts is not None else 0,
                self._seen(device, peer),
                peer.reputation if peer is not None else None,
                encode(head) if head is not None else None,
                str(neighbour.addresses[0]) if neighbour and neighbour.addresses else "",
            )
        return rows

    def _seen(self, device: bytes, peer: PeerView | None) -> int:
        """When it last answered, in steps of ten seconds: a row is not written each time."""
        if peer is None or peer.last_seen_s is None:
            before = self._written.get(device)
            return int(before[6] or 0) if before is not None else 0
        return (self._clock() - int(peer.last_seen_s)) // 10 * 10
