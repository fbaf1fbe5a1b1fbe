"""Turns what needs a person into alerts, and sends them: in the one process that holds the lease.

The lease is of its own, not that of the log's writer: that the writer fails is to be told too.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress

from gossipfl.hub.alerts import book
from gossipfl.hub.alerts.bygone import without_erased
from gossipfl.hub.alerts.channels import Channel, Undelivered
from gossipfl.hub.alerts.messages import Composer, Message
from gossipfl.hub.alerts.settings import AlertsSection
from gossipfl.hub.alerts.tracking import Changes, Incident, step
from gossipfl.hub.alerts.urgent import Urgent
from gossipfl.hub.database import Database, DatabaseFull, Lease, Transaction
from gossipfl.hub.page.feed import Feed
from gossipfl.hub.page.model import Finding, Kind
from gossipfl.hub.reports.costs import Tariffs

log = logging.getLogger(__name__)

LEASE = "alerts"
LOOK_S = 5.0  # guess: hold times are minutes
REPORT_S = 20  # what others see of themselves counts for so long
PRUNE_S = 3_600
BATCH = 50  # messages of one channel looked at together
LOCAL = frozenset({Kind.DISK, Kind.TASK})
"""What an instance knows without having read the log."""


class Alerter:
    """Runs in every process, and evaluates in one. `local`: what this instance sees of itself."""

    def __init__(
        self,
        database: Database,
        settings: AlertsSection,
        feed: Feed,
        local: Callable[[], Sequence[Finding]],
        channels: Sequence[Channel],
        composer: Composer,
        clock: Callable[[], int],
        *,
        look_s: float = LOOK_S,
    ) -> None:
        self._database = database
        self._settings = settings
        self._feed = feed
        self._local = local
        self._channels = tuple(channels)
        self._composer = composer
        self._clock = clock
        self._look_s = look_s
        self._kinds = frozenset(Kind(kind) for kind in settings.kinds)
        self._instance = secrets.token_hex(8)
        self._reported = False
        self._news = {channel.name: asyncio.Event() for channel in channels}
        self._urgent = Urgent(self._channels, composer, clock)
        self._pruned = 0
        self._before: Sequence[Incident] = ()

    async def run(self) -> None:
        """Until cancelled. Raises DatabaseError."""
        while True:
            lease = await self._database.lease(LEASE)
            if lease is None:
                await self._report()
                await asyncio.sleep(self._look_s)
                continue
            try:
                await self._lead(lease)
            finally:
                await lease.release()

    async def _lead(self, lease: Lease) -> None:
        """Until the lease is lost, or something fails."""
        tasks = [asyncio.create_task(self._evaluate(lease))]
        tasks += [asyncio.create_task(self._deliver(channel)) for channel in self._channels]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- evaluating --------------------------------------------------------------------------

    async def _evaluate(self, lease: Lease) -> None:
        while await lease.check():
            await self.look()
            await asyncio.sleep(self._look_s)

    async def look(self) -> None:
        """What begins, goes on and ends now. Raises DatabaseError, but for a full disk."""
        try:
            await self._write_down()
        except DatabaseFull:
            # Nothing can be written, so what is most urgent is told from memory.
            found = [f for f in self._local() if f.kind is Kind.DISK and f.kind in self._kinds]
            await self._urgent.tell(found, self._before)

    async def _write_down(self) -> None:
        now = self._clock()
        async with self._database.transaction(write=False) as tx:
            before = await book.unresolved(tx)
            others = await book.reported(tx, self._instance, now - REPORT_S)
        self._before = before
        found, unknown = self._found(others)
        if self._urgent.incident is not None:
            if self._database.is_full:
                await self._urgent.tell([f for f in found if f.kind is Kind.DISK])
                return
            before = await self._remember(before, now)
        settings = self._settings
        changes = step(before, found, now, settings.hold_s, settings.clear_s, _new_id, unknown)
        is_due = now - self._pruned >= PRUNE_S or now < self._pruned
        if not changes and not is_due:
            return
        async with self._database.transaction() as tx:
            changes = await without_erased(tx, changes)
            await book.write(tx, changes)
            await self._queue(tx, changes, now)
            if is_due:
                await book.prune(tx, now)
        if is_due:
            self._pruned = now
        self._say(changes)

    async def _remember(self, before: Sequence[Incident], now: int) -> list[Incident]:
        """There is space again: what was told from memory goes on in the database."""
        told = self._urgent.incident
        if told is not None and not self._urgent.is_known:
            async with self._database.transaction() as tx:
                await book.write(tx, Changes(begun=[told]))
                body = self._composer.body(told, "firing", told.began)
                for channel in self._channels:
                    sent = channel.name in self._urgent.sent
                    await book.queue(tx, told, "firing", channel.name, body, now, sent=sent)
            before = [*before, told]
        self._urgent.forget()
        return list(before)

    def _found(self, others: Sequence[Finding]) -> tuple[list[Finding], frozenset[Kind]]:
        """What needs a person, each once, and the kinds of which nothing is known yet."""
        local = list(self._local())
        fleet: Sequence[Finding] = ()
        unknown = frozenset(Kind) - LOCAL
        if self._feed.is_ready:
            fleet = [f for f in self._feed.page(Tariffs()).findings if f.kind not in LOCAL]
            unknown = frozenset()
        by_key = {f.key: f for f in (*others, *local, *fleet) if f.kind in self._kinds}
        return list(by_key.values()), unknown

    async def _queue(self, tx: Transaction, changes: Changes, now: int) -> None:
        for incident, event in changes.told:
            body = self._composer.body(incident, event, now)
            for channel in self._channels:
                await book.queue(tx, incident, event, channel.name, body, now, sent=False)

    def _say(self, changes: Changes) -> None:
        for incident, event in changes.told:
            log.warning("alert (%s): %s", event, incident.finding.title)
        if changes.told:
            for news in self._news.values():
                news.set()

    async def _report(self) -> None:
        """What this instance sees of itself, for the one that evaluates."""
        found = list(self._local())
        if not found and not self._reported:
            return
        with suppress(DatabaseFull):
            async with self._database.transaction() as tx:
                await book.report(tx, self._instance, found, self._clock())
            self._reported = bool(found)

    # --- sending -----------------------------------------------------------------------------

    async def _deliver(self, channel: Channel) -> None:
        news = self._news[channel.name]
        while True:
            news.clear()
            if not await self.deliver(channel):
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), self._look_s)

    async def deliver(self, channel: Channel) -> int:
        """One try of each message that is due, the oldest first: how many were tried.

        A message waits for those of its own alert that come before it.
        """
        now, tried = self._clock(), 0
        async with self._database.transaction(write=False) as tx:
            queued = await book.waiting(tx, channel.name, BATCH)
        held: set[str] = set()
        for message in queued:
            # After a clock was set back nothing is due for long: what is further off than the
            # longest pause is due now.
            is_due = message.due <= now or message.due > now + book.PAUSE_MAX_S
            if message.alert in held or not is_due:
                held.add(message.alert)
                continue
            tried += 1
            if not await self._try(channel, message):
                held.add(message.alert)
        return tried

    async def _try(self, channel: Channel, message: book.Queued) -> bool:
        """Whether it went. Both outcomes are written down."""
        problem: Undelivered | None = None
        try:
            await channel.send(Message(message.key, message.body))
        except Undelivered as error:
            problem = error
            log.warning("alert %s was not sent by %s: %s", message.key, channel.name, error)
        try:
            async with self._database.transaction() as tx:
                if problem is None:
                    await book.delivered(tx, message)
                else:
                    now = self._clock()
                    await book.failed(tx, message, str(problem), now, problem.wait_s)
        except DatabaseFull:
            # Sent, and not written down: it goes once more when there is space.
            await asyncio.sleep(self._look_s)
        return problem is None


def _new_id() -> str:
    return secrets.token_hex(16)
