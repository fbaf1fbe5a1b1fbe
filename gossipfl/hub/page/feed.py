"""What one instance of a hub knows for its page: follows log and sightings, tells of news.

Any instance can: it reads the database, and writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gossipfl.audit.refused import AuditRefused
from gossipfl.config import Limits
from gossipfl.errors import PeerError
from gossipfl.hub import pseudonyms
from gossipfl.hub.alerts import book
from gossipfl.hub.alerts.settings import AlertsSection
from gossipfl.hub.database import Database, DatabaseError, Row, Transaction
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.measured.reading import measured
from gossipfl.hub.page import compose, words
from gossipfl.hub.page.auditing import Forged, Place, Step, follow
from gossipfl.hub.page.blocks import KEPT_OUT
from gossipfl.hub.page.chronicle import Chronicle
from gossipfl.hub.page.facts import Facts, LogFacts, Measured, Sighting
from gossipfl.hub.page.fleet import roster
from gossipfl.hub.page.model import AlertLine, Check, CheckpointBox, DevicePage, Finding, Page
from gossipfl.hub.reports.costs import Tariffs
from gossipfl.hub.star.service import phase
from gossipfl.messages import Head
from gossipfl.wire import decode

LOOK_S = 1.0  # how often log and sightings are asked for news: guess
CHECKPOINTS_SHOWN = 20
VERIFY_AGAIN_S = 5  # a check that is younger is shown again: it reads the whole log
PAGES_KEPT = 8  # of different tariffs
_SIGHTINGS = (
    "SELECT device, role, state, why, round, seen, reputation, head, address FROM fleet_devices "
    "LIMIT ?"
)
_PROPOSALS = "SELECT COUNT(*) AS n FROM policy_proposals WHERE state = 'open'"
MEASURED_SHOWN = 120

log = logging.getLogger(__name__)


class Feed:
    """`clock` gives seconds since 1970; `live_s` after how long a device is away; `holdout` names
    the public data on which models are judged; `rules` say from when on something needs a person,
    and `local` what of this instance does."""

    def __init__(
        self,
        database: Database,
        hub_log: HubLog,
        fleet: bytes,
        clock: Callable[[], int],
        live_s: int,
        holdout: str = "",
        rules: AlertsSection | None = None,
        local: Callable[[], Sequence[Finding]] = lambda: (),
    ) -> None:
        self.version = ""
        self.problem = ""  # why the database does not answer
        self._database = database
        self._log = hub_log
        self._fleet = fleet.hex()
        self._clock = clock
        self._live_s = live_s
        self._holdout = holdout
        self._rules = rules or AlertsSection()
        self._local = local
        self._star_shut_out: Mapping[str, str] = {}
        self._alerts: tuple[AlertLine, ...] = ()
        self._proposals = 0
        self._chronicle = Chronicle()
        self._place = Place()
        self._total = 0
        self._boxes: deque[CheckpointBox] = deque(maxlen=CHECKPOINTS_SHOWN)
        self._sightings: dict[bytes, Sighting] = {}
        self._rows: list[tuple[object, ...]] = []
        self._waiting = 0
        self._erasures: int | None = None
        self._erased: frozenset[bytes] = frozenset()
        self._waiting_since: int | None = None
        self._measured: tuple[Measured, ...] = ()
        self._check: Check | None = None
        self._checking = asyncio.Lock()
        self._news = asyncio.Event()
        self._pages: dict[tuple[Tariffs, int], Page] = {}
        self._changes = 0

    # --- following ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. A database that does not answer is told on the page."""
        while True:
            try:
                await self.look()
                self.problem = ""
            except (DatabaseError, AuditRefused) as error:
                self.problem = str(error) or type(error).__name__
            self._tell()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Take in what is new. Raises DatabaseError, AuditRefused."""
        await self._look_at_erasures()
        async with self._database.transaction(write=False) as transaction:
            await self._look_at_fleet(transaction)
            self._measured = await measured(transaction, MEASURED_SHOWN)
            self._alerts = await book.lines(transaction)
            row = await transaction.row(_PROPOSALS)
        self._proposals = int(row["n"]) if row is not None else 0
        self._waiting, self._waiting_since = await self._log.reader.staged()
        self._total = await self._log.reader.size()
        try:
            async for step in follow(self._log.reader, self._log.key, self._place):
                self._take(step)
                await asyncio.sleep(0)
        except Forged as error:
            # What was signed stays shown; nothing that contradicts it is.
            self._check = Check(False, self._clock(), str(error))
        await self._count_witnesses()
        self._changed()

    def _take(self, step: Step) -> None:
        self._chronicle.fed(step.logged, self._total)
        self._place = step.after
        this = step.signed.checkpoint
        witnesses = len(step.signed.note.signatures) - 1
        self._boxes.append(CheckpointBox(this.number, this.size, this.time, witnesses, True))

    async def _count_witnesses(self) -> None:
        """Cosignatures come in after a checkpoint was read."""
        if not self._boxes:
            return
        async with self._database.transaction(write=False) as transaction:
            rows = await transaction.rows(
                "SELECT number, COUNT(*) AS n FROM log_cosignatures WHERE number >= ? "
                "GROUP BY number",
                self._boxes[0].number,
            )
        counts = {row["number"]: int(row["n"]) for row in rows}
        boxes = [replace(box, witnesses=counts.get(box.number, 0)) for box in self._boxes]
        self._boxes = deque(boxes, maxlen=CHECKPOINTS_SHOWN)

    async def _look_at_erasures(self) -> None:
        """After one all that is shown is read anew: what was read before is not to be kept."""
        async with self._database.transaction(write=False) as transaction:
            count = await pseudonyms.erasures(transaction)
        if count == self._erasures:
            return
        if self._erasures is not None:
            self._chronicle, self._place = Chronicle(), Place()
            self._boxes.clear()
        self._erased, self._rows = await pseudonyms.marks(self._database), []
        self._erasures = count

    async def _look_at_fleet(self, transaction: Transaction) -> None:
        self._star_shut_out = (await phase(transaction)).shut_out
        found = await transaction.rows(_SIGHTINGS, Limits().devices)
        rows = sorted(tuple(row.values()) for row in found)
        if rows != self._rows:
            self._rows = rows
            # Peers may still gossip of whoever was erased.
            self._sightings = {
                row["device"]: _sighting(row)
                for row in found
                if not self._erased or pseudonyms.mark_of(row["device"]) not in self._erased
            }

    @property
    def is_ready(self) -> bool:
        """Whether what it knows is of now: all of the log was read, and the database answers."""
        return bool(self.version) and not self.problem and self._total <= self._place.tree.size

    async def look_at_alerts(self) -> None:
        """At once: somebody has just acknowledged one, and wants to see it."""
        async with self._database.transaction(write=False) as transaction:
            self._alerts = await book.lines(transaction)
        self._changed()
        self._tell()

    def left_out(self) -> frozenset[bytes]:
        """Devices that the fleet keeps out of its merges."""
        states = roster(self._facts(Tariffs())).states
        return frozenset(d for d, state in states.items() if state in KEPT_OUT)

    def _changed(self) -> None:
        self._changes += 1
        self._pages.clear()

    def _tell(self) -> None:
        """Wake who waits, if the page is another one now."""
        version = self.page(Tariffs()).version
        if version != self.version:
            self.version = version
            waiters, self._news = self._news, asyncio.Event()
            waiters.set()

    async def news(self, since: str) -> str:
        """The version of the page once it is another than `since`."""
        while self.version == since or not self.version:
            await self._news.wait()
        return self.version

    # --- showing -----------------------------------------------------------------------------

    def page(self, tariffs: Tariffs, insecure: str = "") -> Page:
        """As of now, for somebody who may see all of it."""
        key = (tariffs, self._clock())
        made = self._pages.get(key)
        if made is None:
            while len(self._pages) >= PAGES_KEPT:
                del self._pages[next(iter(self._pages))]
            made = self._pages[key] = compose.page(self._facts(tariffs), self._rules)
        return replace(made, insecure=insecure) if insecure else made

    def device(self, device: bytes) -> DevicePage | None:
        return compose.device_page(self._facts(Tariffs()), device)

    async def verify(self) -> Check:
        """Read the whole log again. One at a time; who comes meanwhile gets the same answer."""
        async with self._checking:
            now = self._clock()
            if self._check is not None and now - self._check.time < VERIFY_AGAIN_S:
                return self._check
            self._check = await self._verify()
            self._changed()
            self._tell()
            return self._check

    async def _verify(self) -> Check:
        checkpoints = entries = payloads = 0
        reader = self._log.reader
        try:
            async for step in follow(reader, self._log.key, Place(), with_salts=True):
                checkpoints += 1
                entries += len(step.entries)
                payloads += sum(p is not None for p in step.payloads)
                await asyncio.sleep(0)
        except Forged as error:
            return Check(False, self._clock(), str(error))
        told = (
            f"{words.count(entries, 'entry', 'entries')} and {words.count(payloads, 'payload')} "
            f"agree with {words.count(checkpoints, 'signed checkpoint')}"
        )
        return Check(True, self._clock(), told)

    def _facts(self, tariffs: Tariffs) -> Facts:
        size = self._place.tree.size
        behind = self._total > size
        last = self._place.last
        return Facts(
            chronicle=self._chronicle,
            sightings=self._sightings,
            log=LogFacts(
                origin=self._log.key.name,
                root=last.root.hex() if last is not None else "",
                checkpoints=tuple(self._boxes),
                waiting=self._waiting,
                waiting_since=self._waiting_since,
                check=self._check,
            ),
            now=self._clock(),
            fleet=self._fleet,
            reading=size / self._total if behind else None,
            live_s=self._live_s,
            tariffs=tariffs,
            measured=self._measured,
            holdout=self._holdout,
            local=tuple(self._local()),
            star_shut_out=self._star_shut_out,
            alerts=self._alerts,
            proposals=self._proposals,
        )


def _sighting(row: Row) -> Sighting:
    head: Head | None = None
    if row["head"] is not None:
        try:
            head = decode(row["head"], Head, Limits().head_bytes)
        except PeerError:
            log.warning("the head of a device in the database cannot be read")
    return Sighting(
        device=row["device"],
        role=row["role"],
        state=row["state"],
        why=row["why"],
        round=row["round"],
        seen=row["seen"],
        reputation=row["reputation"],
        head=head,
        address=row["address"],
    )
