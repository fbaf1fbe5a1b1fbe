"""Where a hub makes its reports: reads its log and tables, one report at a time, and logs each
compliance report that it signs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gossipfl.audit.entries import EntryKind, account_subject
from gossipfl.config import Limits
from gossipfl.errors import PeerError
from gossipfl.hub import pseudonyms
from gossipfl.hub.database import Database, Transaction
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.log.said import Said, say
from gossipfl.hub.measured.reading import measured
from gossipfl.hub.reports.costs import Tariffs
from gossipfl.hub.reports.facts import Facts, part_of
from gossipfl.hub.reports.history import History
from gossipfl.hub.reports.signing import signed
from gossipfl.hub.reports.starred import star
from gossipfl.identity import Signer
from gossipfl.messages import Head
from gossipfl.wire import decode

DAY_S = 86_400
WAITING_MAX = 8  # guess: people who look at one instance at one instant
MEASURED_MAX = 10_000  # guess: a day of preset lan

_HEADS = "SELECT head FROM fleet_devices WHERE head IS NOT NULL LIMIT ?"


class TooMany(Exception):
    """Too many wait for a report."""


class Office:
    """`signer` has the log's key. `holdout` names the public examples. `clock`: seconds since 1970,
    for the entry that a report leaves; no report has a time of it."""

    def __init__(
        self,
        database: Database,
        hub_log: HubLog,
        signer: Signer,
        fleet: bytes,
        clock: Callable[[], int],
        holdout: str = "",
    ) -> None:
        self._database = database
        self._log = hub_log
        self._signer = signer
        self._fleet = fleet
        self._clock = clock
        self._holdout = holdout
        self.key = hub_log.key
        self._history = History(hub_log.reader, hub_log.key)
        self._erasures = -1
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def compliance(self, size: int | None, by: str | None) -> bytes:
        """The signed report on the first `size` entries, or on all under the newest checkpoint.
        With `by` it is durably noted who had it made: once a day for each account, and once for
        each size that was asked for, so that looking again does not make the log grow. Raises
        TooMany, and what `History.read` raises."""
        async with self._read(size) as history:
            body = await history.compliance(self._fleet)
            covered = history.tally.size
        if by is not None:
            now = self._clock()
            name = f"day {now // DAY_S}" if size is None else f"size {size}"
            await self._note(body, covered, by, now, name)
        return signed(body, covered, self._log.key, self._signer)

    @asynccontextmanager
    async def facts(self, tariffs: Tariffs) -> AsyncIterator[Facts]:
        """What the other reports are made from: only while this is open, as the log goes on."""
        async with self._read() as history:
            yield await facts_of(self._database, history, tariffs, self._holdout)

    @asynccontextmanager
    async def _read(self, size: int | None = None) -> AsyncIterator[History]:
        """The log up to there. What was read before somebody was erased is forgotten."""
        if self._waiting >= WAITING_MAX:
            raise TooMany(f"{self._waiting} wait for a report already")
        self._waiting += 1
        try:
            async with self._turn:
                async with self._database.transaction(write=False) as transaction:
                    erasures = await pseudonyms.erasures(transaction)
                if erasures != self._erasures:
                    self._history = History(self._log.reader, self._log.key)
                    self._erasures = erasures
                history = self._history
                if size is not None and size < history.tally.size:
                    history = History(self._log.reader, self._log.key)
                await history.read(size)
                yield history
        finally:
            self._waiting -= 1

    async def _note(self, body: bytes, size: int, by: str, now: int, name: str) -> None:
        digest, who = hashlib.sha256(body).hexdigest(), account_subject(by)
        told: Said = {"action": "report", "entries": size, "report": "compliance", "sha256": digest}
        key = f"report/{who.hex()}/{name}"
        async with self._database.transaction() as transaction:
            await say(transaction, EntryKind.REPORT, told, now, about=who, key=key)


async def facts_of(
    database: Database, history: History, tariffs: Tariffs, holdout: str = ""
) -> Facts:
    """Of what was read, and of what the hub has beside its log."""
    checkpoint, _ = await history.checkpoint()
    tally = history.tally
    devices = {d.device for d in tally.devices()}
    marks = await pseudonyms.marks(database)
    named = tally.chronicle.mentioned if marks else ()
    starred = await star(database)
    if starred is not None:
        devices |= starred.clients.keys()
    async with database.transaction(write=False) as transaction:
        benchmarks = await measured(transaction, MEASURED_MAX)
        sizes = await _update_sizes(transaction)
    return Facts(
        tally=tally,
        log=part_of(tally, checkpoint),
        names=await pseudonyms.of(database, devices),
        update_bytes=sizes,
        measured=benchmarks,
        tariffs=tariffs,
        holdout=holdout,
        star=starred,
        erased=frozenset(d for d in named if pseudonyms.mark_of(d) in marks),
    )


async def _update_sizes(transaction: Transaction) -> tuple[int, ...]:
    """Of each device's newest update, bytes."""
    found = []
    for row in await transaction.rows(_HEADS, Limits().devices):
        try:
            head = decode(row["head"], Head, Limits().head_bytes)
        except PeerError:
            continue  # of a newer version; the page's feed says so in the log
        if head.update is not None:
            found.append(head.update.size)
    return tuple(sorted(found))
