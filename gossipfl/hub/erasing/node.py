"""What the hub's own node holds of a device, taken out of its durable state while no node runs.

Signed statements of others that the fleet's safety rests on stay as they are, here as at every
device: the revocation of the device, and proof that it signed two histories, if there is any. They
name the device, and no pseudonym.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gossipfl.config import Limits
from gossipfl.errors import PeerError
from gossipfl.hub.database import Row, Transaction
from gossipfl.identity import device_of
from gossipfl.membership import Roster, prove_member
from gossipfl.objects import pack_list, unpack_list
from gossipfl.reputation import Reputation
from gossipfl.wire import open_envelope

LIMITS = Limits()
_PLACE = {"sqlite": "instr(data, ?)", "postgresql": "position(? IN data)"}
_SET = "UPDATE node_documents SET data = ? WHERE name = ?"


async def roster_of(transaction: Transaction, root_key: bytes) -> Roster:
    """The members and revocations that the hub's node has stored."""
    roster = Roster(root_key, LIMITS)
    documents = await _documents(transaction)
    if documents.get("members"):
        roster.load(documents["members"])
    if documents.get("revocations"):
        roster.load_revocations(documents["revocations"])
    return roster


async def scrub(transaction: Transaction, kind: str, root_key: bytes, device: bytes) -> None:
    """Take the device out. The node must not be running: it would write it back. `kind`: of the
    database."""
    roster = await roster_of(transaction, root_key)
    keys = {k.member.key for k in roster.members() if k.member.device == device}
    documents = await _documents(transaction)
    kept = [known.data for known in roster.members() if known.member.device != device]
    await transaction.execute(_SET, pack_list(kept), "members")
    for name in ("heads", "records"):
        data = documents.get(name)
        if data:
            await transaction.execute(_SET, _without(data, name[:-1], device), name)
    if documents.get("reputation"):
        reputation = Reputation(1.0)
        reputation.load(documents["reputation"], 0.0)
        if device in reputation.devices():
            reputation.forget(device)
            await transaction.execute(_SET, reputation.dump(0.0), "reputation")
    for key in (device, *sorted(keys)):
        sql = f"SELECT digest, data FROM node_objects WHERE {_PLACE[kind]} > 0"
        await _drop_objects(transaction, await transaction.rows(sql, key), root_key, device)


async def _drop_objects(
    transaction: Transaction, rows: Sequence[Row], root_key: bytes, device: bytes
) -> None:
    """Its member objects, and lists of addresses with its own: the next head names a new one."""
    is_its: tuple[Callable[[bytes], bool], ...] = (
        lambda data: prove_member(data, root_key, LIMITS).device == device,
        _is_address_list,
    )
    for row in rows:
        for asked in is_its:
            try:
                found = asked(row["data"])
            except PeerError:
                continue
            if found:
                await transaction.execute(
                    "DELETE FROM node_objects WHERE digest = ?", row["digest"]
                )
                break


def _is_address_list(data: bytes) -> bool:
    items = unpack_list(data, LIMITS.peers_bytes)
    for item in items:
        open_envelope(item, "record", LIMITS.head_bytes)
    return bool(items)


def _without(data: bytes, kind: str, device: bytes) -> bytes:
    """A list of envelopes without those that the device signed."""
    most = max(LIMITS.devices * LIMITS.head_bytes, len(data))
    kept = []
    for item in unpack_list(data, most):
        envelope = open_envelope(item, kind, LIMITS.head_bytes)
        if device_of(envelope.key_id) != device:
            kept.append(item)
    return pack_list(kept)


async def _documents(transaction: Transaction) -> dict[str, bytes]:
    rows = await transaction.rows("SELECT name, data FROM node_documents")
    return {row["name"]: bytes(row["data"]) for row in rows}
