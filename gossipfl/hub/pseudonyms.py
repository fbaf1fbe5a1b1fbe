"""The names under which devices, star clients and people appear in what leaves the hub.

A pseudonym is BLAKE2b (RFC 7693) of whom it stands for, keyed with a random salt of its own that
lies in the hub's database and nowhere else: not in the log, not in an export. Who holds neither
cannot tell whose it is, nor try names. It stays the same for all instances of a hub and all
reports, until an erasure deletes the salt: then nobody can link it any more, the hub included.

For readers (reports, tables, pages):

    names = await pseudonyms.of(hub.database, devices)   # {device id: "p-k3f7..."}

whom: 16 bytes each: a device id, `bytes.fromhex(client)` of a star client, or
`audit.entries.account_subject(name)` of a person. A first mention makes the salt, in a transaction
of its own; within a writing transaction use `within`. Whoever was erased is `ERASED`, and no new
salt is made. Do not keep the answer longer than one report: an erasure must be able to end it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterable, Mapping

from gossipfl.audit.entries import SUBJECT_BYTES
from gossipfl.hub.database import Database, Transaction
from gossipfl.hub.database.migrations import Migration

PREFIX = "p-"
ERASED = "p-erased"
"""Stands for all whose salts were deleted."""
SALT_BYTES = 32  # as the salts of the log
DIGEST_BYTES = 10  # 16 letters: two of 10^6 devices are alike with a chance of 4 in 10^13
SQL_NAMES_MAX = 500  # asked for at once: SQLite takes 999 values in old builds
LOCK = "pseudonyms"
"""What makes and deletes salts takes this lock, so that an erasure is not overtaken."""

MIGRATIONS = (
    Migration(
        1,
        "pseudonyms",
        """
        CREATE TABLE pseudonyms (subject {blob} PRIMARY KEY, salt {blob} NOT NULL);
        -- Who was erased, so that nothing about them is taken in again: `mark_of` their ids.
        CREATE TABLE erased (mark {blob} PRIMARY KEY);
        """,
    ),
)


def pseudonym(subject: bytes, salt: bytes) -> str:
    """`p-` and 16 letters and digits of base32 in lower case."""
    made = hashlib.blake2b(
        subject, key=salt, digest_size=DIGEST_BYTES, person=b"gfl pseudonym"
    ).digest()
    return PREFIX + base64.b32encode(made).decode().lower()


def mark_of(subject: bytes) -> bytes:
    """What is kept of who was erased. It tells whether a known id was, and nothing else."""
    return hashlib.sha256(b"gossipfl erased\n" + subject).digest()[:SUBJECT_BYTES]


async def of(database: Database, subjects: Iterable[bytes]) -> dict[bytes, str]:
    """The pseudonym of each, the same at all instances. Raises DatabaseError; ValueError for what
    is no 16 bytes."""
    wanted = _checked(subjects)
    async with database.transaction(write=False) as transaction:
        known = await _known(transaction, wanted)
    missing = [subject for subject in wanted if subject not in known]
    if missing:
        async with database.transaction() as transaction:
            known |= await within(transaction, missing)
    return known


async def within(transaction: Transaction, subjects: Iterable[bytes]) -> dict[bytes, str]:
    """The same in the caller's writing transaction: salts that are made go if it fails."""
    wanted = _checked(subjects)
    known = await _known(transaction, wanted)
    missing = [subject for subject in wanted if subject not in known]
    if not missing:
        return known
    await transaction.lock(LOCK)
    known |= await _known(transaction, missing)  # another may have made or erased them meanwhile
    made = {s: secrets.token_bytes(SALT_BYTES) for s in missing if s not in known}
    if made:
        await transaction.many(
            "INSERT INTO pseudonyms (subject, salt) VALUES (?, ?)", list(made.items())
        )
    return known | {subject: pseudonym(subject, salt) for subject, salt in made.items()}


async def erased(transaction: Transaction, subjects: Iterable[bytes]) -> set[bytes]:
    """Which of them were erased."""
    marks = {mark_of(subject): subject for subject in subjects}
    rows = await _rows(transaction, "SELECT mark FROM erased WHERE mark IN", list(marks))
    return {marks[row["mark"]] for row in rows}


async def marks(database: Database) -> frozenset[bytes]:
    """`mark_of` everybody who was erased."""
    async with database.transaction(write=False) as transaction:
        return frozenset(row["mark"] for row in await transaction.rows("SELECT mark FROM erased"))


async def erasures(transaction: Transaction) -> int:
    """How many were erased: what was read before there was one more is to be read anew."""
    row = await transaction.row("SELECT COUNT(*) AS n FROM erased")
    return 0 if row is None else int(row["n"])


async def _known(transaction: Transaction, wanted: list[bytes]) -> dict[bytes, str]:
    """Of those who have a salt, and of those who were erased."""
    found = dict.fromkeys(await erased(transaction, wanted), ERASED)
    rows = await _rows(transaction, "SELECT subject, salt FROM pseudonyms WHERE subject IN", wanted)
    return {row["subject"]: pseudonym(row["subject"], row["salt"]) for row in rows} | found


async def _rows(
    transaction: Transaction, sql: str, values: list[bytes]
) -> list[Mapping[str, bytes]]:
    rows: list[Mapping[str, bytes]] = []
    for at in range(0, len(values), SQL_NAMES_MAX):
        part = values[at : at + SQL_NAMES_MAX]
        rows += await transaction.rows(f"{sql} ({', '.join('?' * len(part))})", *part)
    return rows


def _checked(subjects: Iterable[bytes]) -> list[bytes]:
    wanted = sorted(set(subjects))
    if any(len(subject) != SUBJECT_BYTES for subject in wanted):
        raise ValueError(f"a subject has {SUBJECT_BYTES} bytes")
    return wanted
