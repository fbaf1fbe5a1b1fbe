"""Who may be erased, and the request for it: durable at once, done by whoever leads."""

from __future__ import annotations

from enum import Enum

from gossipfl.audit.entries import EntryKind
from gossipfl.config import Limits
from gossipfl.errors import PeerError, UserError
from gossipfl.hub.database import Database, Transaction
from gossipfl.hub.erasing.node import roster_of
from gossipfl.hub.pseudonyms import erased, mark_of
from gossipfl.identity import DEVICE_ID_BYTES, device_name, parse_device_name
from gossipfl.membership import Roster, prove_member
from gossipfl.messages import Member, Role

FOR_GOOD = frozenset({"revoked", "condemned"})
"""States of a device that no policy lets in again; a block may end."""
_HELD = (
    ("log_entries", "subject", False),
    ("log_salts", "subject", False),
    ("pseudonyms", "subject", False),
    ("fleet_devices", "device", False),
    ("fleet_chains", "device", False),
    ("star_clients", "client", True),
    ("star_updates", "client", True),
    ("star_metrics", "client", True),
    ("auth_sessions", "subject", True),
)
"""Tables that name devices: table, column, and whether it holds hex."""


class Stage(Enum):
    """How far an erasure is."""

    ASKED = "asked"  # not all rows are deleted yet
    DELETED = "deleted"  # all rows are; the store's files are being written anew
    DONE = "done"


def parse(text: str) -> bytes:
    """A device id: in groups with check digits as people see it, or in hex. UserError GF850."""
    plain = text.strip().lower()
    try:
        if len(plain) == 2 * DEVICE_ID_BYTES:
            return bytes.fromhex(plain)
        return parse_device_name(plain)
    except ValueError:
        raise UserError("GF850", f"{text!r} is no device id (a typo?)") from None


async def ask(database: Database, subject: bytes, root_key: bytes, by: str) -> Stage:
    """Ask for it, once: how far it is already. `by`: a user's name.

    Raises UserError: GF850 for whom this hub knows nothing of, GF851 for who was erased, GF852 for
    who is still in the fleet or is none of those who can be erased.
    """
    async with database.transaction() as transaction:
        await transaction.lock("erasures")
        found = await _stage(transaction, subject)
        if found is Stage.DONE:
            raise UserError("GF851", f"{device_name(subject)} was erased before")
        if found is not None:
            return found
        await _require_out(transaction, subject, root_key)
        await transaction.execute(
            "INSERT INTO erasures (mark, subject, asked_by) VALUES (?, ?, ?)",
            mark_of(subject),
            subject,
            by,
        )
    return Stage.ASKED


async def stage(database: Database, subject: bytes) -> Stage | None:
    """How far its erasure is; None if nobody has asked for one."""
    async with database.transaction(write=False) as transaction:
        return await _stage(transaction, subject)


async def _stage(transaction: Transaction, subject: bytes) -> Stage | None:
    row = await transaction.row("SELECT subject FROM erasures WHERE mark = ?", mark_of(subject))
    if row is not None:
        return Stage.DELETED if row["subject"] is None else Stage.ASKED
    return Stage.DONE if await erased(transaction, [subject]) else None


async def _require_out(transaction: Transaction, subject: bytes, root_key: bytes) -> None:
    """Raises UserError unless it is somebody whom nothing can bring back here."""
    roster = await roster_of(transaction, root_key)
    members = await _members(transaction, roster, root_key, subject)
    if not members and not await _is_held(transaction, subject):
        raise UserError("GF850", f"this hub holds nothing of {device_name(subject)}")
    other = next((member.role for member in members if member.role is not Role.DEVICE), None)
    if other is not None:
        raise UserError("GF852", f"{device_name(subject)} is the fleet's {other.value}")
    row = await transaction.row("SELECT state FROM fleet_devices WHERE device = ?", subject)
    is_out = roster.is_over(subject) or (row is not None and row["state"] in FOR_GOOD)
    if (members or row is not None) and not is_out:
        raise UserError("GF852", f"{device_name(subject)} is a member of the fleet")


async def _members(
    transaction: Transaction, roster: Roster, root_key: bytes, subject: bytes
) -> list[Member]:
    """As what it was admitted, by the node's table and by the log."""
    found = [known.member for known in roster.members() if known.member.device == subject]
    rows = await transaction.rows(
        "SELECT data FROM log_entries WHERE subject = ? AND kind = ? LIMIT 100",
        subject,
        int(EntryKind.MEMBER),
    )
    for row in rows:
        try:
            found.append(prove_member(row["data"], root_key, Limits()))
        except PeerError:
            continue  # nothing that could bring a device back
    return found


async def _is_held(transaction: Transaction, subject: bytes) -> bool:
    for table, column, is_hex in _HELD:
        name = subject.hex() if is_hex else subject
        if await transaction.row(f"SELECT 1 AS x FROM {table} WHERE {column} = ? LIMIT 1", name):
            return True
    return False
