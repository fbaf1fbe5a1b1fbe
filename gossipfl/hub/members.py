"""Devices of the fleet at the hub's API: known by the certificate of their TLS connection.

A device shows its member object, which proves itself from the fleet's root and names the TLS key.
Any instance can check that; who was shut out since is in what the hub's node writes down.
"""

from __future__ import annotations

from gossipfl.config import Limits
from gossipfl.errors import PeerError
from gossipfl.hub import pseudonyms
from gossipfl.hub.database import Transaction
from gossipfl.hub.fleet.census import SHUT_OUT
from gossipfl.hub.hub import Hub
from gossipfl.membership import prove_member
from gossipfl.messages import Role
from gossipfl.net.tls import Leaf


class FleetMembers:
    """The `Members` of `gossipfl.hub.auth.service`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def device(self, member_object: bytes, leaf: Leaf) -> bytes | None:
        """The device's id, if it may speak to us now over a connection with this certificate."""
        hub = self._hub
        try:
            member = prove_member(member_object, hub.identity.root_key, Limits())
        except PeerError:
            return None
        now = hub.clock()
        is_now = member.not_before <= now <= min(member.not_after, leaf.not_after)
        if member.role is not Role.DEVICE or member.tls != leaf.tls_key or not is_now:
            return None
        station = hub.leader.station
        if station is not None and station.node.refused(leaf.tls_key, leaf.not_after) is not None:
            return None
        async with hub.database.transaction(write=False) as tx:
            row = await tx.row("SELECT state FROM fleet_devices WHERE device = ?", member.device)
        if row is not None and row["state"] in SHUT_OUT:
            return None
        return member.device

    async def is_out(self, transaction: Transaction, subject: str) -> bool:
        """Whether a device, or a client of star mode, was shut out or erased. `subject`: its id in
        hex."""
        state = await transaction.row(
            "SELECT state FROM fleet_devices WHERE device = ?", bytes.fromhex(subject)
        )
        client = await transaction.row("SELECT blocked FROM star_clients WHERE client = ?", subject)
        is_blocked = client is not None and bool(client["blocked"])
        if is_blocked or (state is not None and state["state"] in SHUT_OUT):
            return True
        return bool(await pseudonyms.erased(transaction, [bytes.fromhex(subject)]))
