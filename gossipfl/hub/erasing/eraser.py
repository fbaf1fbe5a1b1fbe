"""Carries out what was asked for, in the process that leads, while no node of the hub runs.

Three steps. What the log's entries say goes page by page, so that no transaction holds up all
others for long. The newest go first: what is left is verified as a log that ended there would be.
The entry that says which payloads are gone gets its place and its checkpoint in the same
transaction: there is no instant at which an export would miss payloads that no entry explains. In
one more transaction all other rows go. Then the store is written anew, so that its files hold no
bytes of what was deleted. A crash leaves the request where it was, and the next who leads goes on
with it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from gossipfl.audit.entries import EntryKind, account_subject, pack_erasure
from gossipfl.audit.notes import log_name
from gossipfl.hub import pseudonyms
from gossipfl.hub.alerts import book as alerts
from gossipfl.hub.database import Database, Row, Transaction
from gossipfl.hub.erasing import node, star
from gossipfl.hub.log.drafts import DEDUPE_BYTES, Draft, stage
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.log.said import Said, say
from gossipfl.hub.log.writer import LogWriter
from gossipfl.hub.policy import desk as proposals
from gossipfl.hub.star import books

log = logging.getLogger(__name__)

PAGE = 10_000  # entries changed by one transaction: guess, a second
LEFT_MAX = 256  # entries that may get their places in the transaction of the erasure
ENTRIES_MAX = 3_500
"""Named by one entry of an erasure: lines of 34 bytes at most, within a payload's 131,072."""
TABLES = (
    *("log_entries", "log_salts", "log_cosignatures", "pseudonyms", "erasures"),
    *("fleet_devices", "fleet_chains", "node_documents", "node_objects"),
    *("star_clients", "star_updates", "star_rounds", "star_models", "star_metrics"),
    *("star_faults", "star_state", "auth_sessions", "auth_revocations"),
    *("alerts", "alert_messages", "alert_reports", "policy_proposals"),
)
"""Tables from which an erasure deletes."""


class Eraser:
    """`device`: the hub's own; `root_key`: the fleet's. `clock` gives seconds since 1970."""

    def __init__(
        self,
        database: Database,
        hub_log: HubLog,
        writer: LogWriter,
        device: bytes,
        root_key: bytes,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._log = hub_log
        self._writer = writer
        self._device = device
        self._root_key = root_key
        self._clock = clock

    async def is_asked(self) -> bool:
        """Whether rows have to be deleted."""
        return bool(await self._rows("subject IS NOT NULL"))

    async def erase(self) -> int:
        """Delete the rows of all who are to be erased: how many. Raises DatabaseError."""
        asked = await self._rows("subject IS NOT NULL")
        for row in asked:
            while await self._writer.integrate() > LEFT_MAX:
                pass  # what waits for its place gets it in transactions of its own
            count = page = await self._emptied(row["subject"])
            while page == PAGE:
                page = await self._emptied(row["subject"])
                count += page
            async with self._database.transaction() as transaction:
                count += await self._delete(transaction, row, count)
                made = await self._writer.integrate_in(transaction)
            if made is not None:
                self._log.published(made)
            log.info("an erasure deleted the payloads of %d entries", count)
        return len(asked)

    async def compact(self) -> None:
        """Let nothing of it stay in the store's files. Raises DatabaseError: ask again later."""
        through = await self._rows("subject IS NULL")
        if not through:
            return
        await self._database.compact(TABLES)
        async with self._database.transaction() as transaction:
            await transaction.many(
                "DELETE FROM erasures WHERE mark = ?", [(row["mark"],) for row in through]
            )

    async def _rows(self, where: str) -> list[Row]:
        async with self._database.transaction(write=False) as transaction:
            return await transaction.rows(f"SELECT * FROM erasures WHERE {where}")

    async def _emptied(self, subject: bytes) -> int:
        """Delete what a page of entries about somebody says, and log which: how many."""
        async with self._database.transaction() as transaction:
            await transaction.lock("log")
            gone = await _page(transaction, subject)
            await stage(transaction, self._told(gone))
            made = await self._writer.integrate_in(transaction) if gone else None
        if made is not None:
            self._log.published(made)
        return len(gone)

    def _told(self, gone: list[int]) -> list[Draft]:
        """The entries that say which payloads are gone."""
        return [
            Draft(
                EntryKind.ERASURE,
                self._device,
                pack_erasure(gone[at : at + ENTRIES_MAX]),
                self._clock(),
            )
            for at in range(0, len(gone), ENTRIES_MAX)
        ]

    async def _delete(self, transaction: Transaction, row: Row, before: int) -> int:
        """All rows about one subject; the entries that say so are staged. `before`: how many
        payloads went before: the answer is how many go here."""
        subject, now = row["subject"], self._clock()
        # In the order in which all others take them.
        for name in (books.LOCK, f"star-client {subject.hex()}", pseudonyms.LOCK, "log"):
            await transaction.lock(name)
        await transaction.execute(
            "INSERT INTO erased (mark) VALUES (?) ON CONFLICT (mark) DO NOTHING", row["mark"]
        )
        await star.scrub(transaction, subject, now)
        await alerts.forget(transaction, subject)
        await proposals.forget(transaction, self._database.kind, subject)
        await node.scrub(transaction, self._database.kind, self._root_key, subject)
        gone = await _payloads(transaction, subject)
        for table, column in (
            ("log_salts", "subject"),
            ("pseudonyms", "subject"),
            ("fleet_devices", "device"),
            ("fleet_chains", "device"),
        ):
            await transaction.execute(f"DELETE FROM {table} WHERE {column} = ?", subject)
        await transaction.execute("DELETE FROM log_cosignatures WHERE name = ?", log_name(subject))
        await transaction.execute(
            "UPDATE erasures SET subject = NULL, asked_by = NULL WHERE mark = ?", row["mark"]
        )
        await stage(transaction, self._told(gone))
        by = account_subject(row["asked_by"])
        told: Said = {"action": "erase", "entries": before + len(gone)}
        await say(transaction, EntryKind.DECISION, told, now, about=by)
        return len(gone)


async def _payloads(transaction: Transaction, subject: bytes) -> list[int]:
    """Delete what the entries about somebody that are left say: the places of those entries.

    What has no place yet gets none. The key under which an entry was staged goes as well: it is a
    digest of what was logged.
    """
    await transaction.execute(
        "DELETE FROM log_entries WHERE subject = ? AND position IS NULL", subject
    )
    places: list[int] = []
    while page := await _page(transaction, subject):
        places += page
    return sorted(places)


async def _page(transaction: Transaction, subject: bytes) -> list[int]:
    """At most PAGE of them, the newest; their places rise."""
    rows = await transaction.rows(
        "SELECT id, position FROM log_entries WHERE subject = ? AND position IS NOT NULL "
        "ORDER BY id DESC LIMIT ?",
        subject,
        PAGE,
    )
    await transaction.many(
        "UPDATE log_entries SET subject = NULL, data = NULL, dedupe = ? WHERE id = ?",
        [(secrets.token_bytes(DEDUPE_BYTES), row["id"]) for row in rows],
    )
    return sorted(row["position"] for row in rows)
