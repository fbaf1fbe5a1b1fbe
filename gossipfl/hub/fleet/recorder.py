"""Follows every device and hands what is verified to the log: the hub as a puller.

The hub's node says who is where and what their newest heads are; beside it every device's receipts
are read from where the log stands. One device at a time has one pull; each has a breaker of its
own, so that one that stalls or lies holds up nobody else. What was read and how far it goes are
durable in one transaction: after a crash, or a week switched off, it goes on where it stood.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gossipfl.audit.entries import EntryKind
from gossipfl.config import Limits
from gossipfl.errors import Fault, PeerError
from gossipfl.events import FetchFailed, FetchObject
from gossipfl.holdings import Holdings, Neighbour
from gossipfl.hub.database import Database
from gossipfl.hub.fleet.receipts import Chain, Gap, Link, Place
from gossipfl.hub.log.drafts import Draft
from gossipfl.hub.log.log import HubLog
from gossipfl.identity import short_name
from gossipfl.net.ports import Fetcher
from gossipfl.objects import digest

log = logging.getLogger(__name__)

PULLS_MAX = 8  # devices read at once: guess, two cores verify no faster
BATCH_LINKS = 64  # receipts of one transaction: at most 4 MiB
REQUESTS_PER_S = 5.0  # per device: half of what the protocol grants; the node polls with the rest
BREAKER_S = 1.0  # first pause after a failed pull; doubles
BREAKER_MAX_S = 60.0  # guess: a device that came back is read within a minute
SEEN_MAX = 65_536  # digests of what was staged, kept so as not to stage it at each look

_PLACE = (
    "INSERT INTO fleet_chains (device, number, digest) VALUES (?, ?, ?) "
    "ON CONFLICT (device) DO UPDATE SET number = excluded.number, digest = excluded.digest"
)


@dataclass(slots=True)
class Followed:
    """One device: how far its receipts are in the log, and how its pulls go."""

    place: Place = field(default_factory=Place)
    task: asyncio.Task[None] | None = None
    failures: int = 0
    next_at: float = 0.0
    problem: str = ""


class Recorder:
    """`holdings` is the node's say; `clock` gives seconds since 1970."""

    def __init__(
        self,
        database: Database,
        hub_log: HubLog,
        fetcher: Fetcher,
        holdings: Callable[[], Holdings],
        clock: Callable[[], int],
        limits: Limits,
        requests_per_s: float = REQUESTS_PER_S,
    ) -> None:
        self.followed: dict[bytes, Followed] = {}
        self.recorded = 0
        self._database = database
        self._log = hub_log
        self._fetcher = fetcher
        self._holdings = holdings
        self._clock = clock
        self._limits = limits
        self._pause_s = 1.0 / requests_per_s
        self._requests = itertools.count(1)
        self._seen: dict[bytes, None] = {}
        self._room = asyncio.Semaphore(PULLS_MAX)

    async def run(self, look_s: float) -> None:
        """Look every `look_s` seconds, until cancelled. Raises DatabaseError."""
        await self.load()
        try:
            while True:
                await self.look()
                await asyncio.sleep(look_s)
        finally:
            tasks = [f.task for f in self.followed.values() if f.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def load(self) -> None:
        """How far the log goes, by the database."""
        async with self._database.transaction(write=False) as transaction:
            rows = await transaction.rows("SELECT device, number, digest FROM fleet_chains")
        self.followed = {
            row["device"]: Followed(Place(row["number"], row["digest"])) for row in rows
        }

    async def look(self) -> None:
        """Stage what the node has learned; start a pull of every device that has news."""
        found = self._holdings()
        await self._stage_objects(found)
        now = asyncio.get_running_loop().time()
        for source in found.neighbours:
            followed = self.followed.setdefault(source.device, Followed())
            if followed.task is not None and followed.task.done():
                task, followed.task = followed.task, None
                task.result()  # a failing database is for whoever runs us
            if followed.task is None and now >= followed.next_at and _has_news(source, followed):
                followed.task = asyncio.create_task(self._pull(source, followed))

    async def settle(self) -> None:
        """Wait for the pulls under way."""
        await asyncio.gather(*(f.task for f in self.followed.values() if f.task is not None))

    # --- what the node knows ------------------------------------------------------------------

    async def _stage_objects(self, found: Holdings) -> None:
        """Admissions, policies, revocations and evidence, each once."""
        time = self._clock()
        objects = [
            *((EntryKind.MEMBER, known.member.device, known.data) for known in found.members),
            *((EntryKind.POLICY, device, data) for device, data in found.policies),
            *((EntryKind.REVOCATION, device, data) for device, data in found.revocations.items()),
            *((EntryKind.EVIDENCE, device, data) for device, data in found.evidence),
        ]
        drafts, names = [], []
        for kind, device, data in objects:
            name = digest(bytes([kind]) + data)
            if name not in self._seen:
                names.append(name)
                drafts.append(Draft(kind, device, data, time, f"{kind.word}/{digest(data).hex()}"))
        if drafts:
            await self._log.append(drafts)
            self._seen |= dict.fromkeys(names)
            while len(self._seen) > SEEN_MAX:
                del self._seen[next(iter(self._seen))]

    # --- receipts -----------------------------------------------------------------------------

    async def _pull(self, source: Neighbour, followed: Followed) -> None:
        """All news of one device; a fault of its or of the link opens its breaker."""
        try:
            async with self._room:
                await self._read(source, followed)
        except PeerError as error:
            followed.failures += 1
            pause = min(BREAKER_MAX_S, BREAKER_S * 2 ** min(followed.failures - 1, 10))
            followed.next_at = asyncio.get_running_loop().time() + pause
            told = str(error)
            if told != followed.problem:
                log.warning("receipts of %s: %s", short_name(source.device), told)
            followed.problem = told
        else:
            followed.failures, followed.next_at, followed.problem = 0, 0.0, ""

    async def _read(self, source: Neighbour, followed: Followed) -> None:
        async def fetch(name: bytes, most: int) -> bytes | None:
            return await self.fetch(source, name, most)

        batch: list[Link | Gap] = []
        async for item in Chain(source, fetch, self._limits).after(followed.place):
            batch.append(item)
            if len(batch) >= BATCH_LINKS:
                await self._write(source, followed, batch)
                batch = []
        if batch:
            await self._write(source, followed, batch)

    async def _write(
        self, source: Neighbour, followed: Followed, batch: Sequence[Link | Gap]
    ) -> None:
        """Receipts and how far they go, in one transaction."""
        time, device = self._clock(), source.device
        drafts: list[Draft] = []
        place = followed.place
        for item in batch:
            if isinstance(item, Gap):
                drafts.append(self._of_gap(item, device, time))
                continue
            number = item.receipt.number
            if number <= place.number:
                told = {"alarm": "receipt chain forked", "device": device.hex(), "number": number}
                drafts.append(_alarm(told, device, time, item.digest.hex()))
            key = f"receipt/{item.digest.hex()}"
            drafts.append(Draft(EntryKind.RECEIPT, device, item.data, time, key))
            place = Place(number, item.digest)
        async with self._database.transaction() as transaction:
            await self._log.stage(transaction, drafts)
            if place.digest is not None:
                await transaction.execute(_PLACE, device, place.number, place.digest)
        followed.place = place
        self.recorded += sum(isinstance(item, Link) for item in batch)
        self._log.appended(len(drafts))

    @staticmethod
    def _of_gap(gap: Gap, device: bytes, time: int) -> Draft:
        if gap.marker is not None:
            key = f"marker/{digest(gap.marker).hex()}"
            return Draft(EntryKind.MARKER, device, gap.marker, time, key)
        told = {
            "alarm": "receipts withheld",
            "device": device.hex(),
            "first": gap.first,
            "end": gap.end,
        }
        return _alarm(told, device, time, f"{device.hex()}/{gap.first}/{gap.end}")

    async def fetch(self, source: Neighbour, name: bytes, most: int) -> bytes | None:
        """One object of this device, at a pace that leaves its budget half unused."""
        await asyncio.sleep(self._pause_s)
        if not source.addresses:
            raise PeerError(Fault.UNREACHABLE, "its address is not known")
        effect = FetchObject(next(self._requests), source.addresses[0], name, most)
        answer = await self._fetcher.fetch_object(effect)
        if not isinstance(answer, FetchFailed):
            return answer.data
        if answer.absent:
            return None
        raise PeerError(answer.fault, answer.detail)


def _has_news(source: Neighbour, followed: Followed) -> bool:
    ref = source.head.receipts if source.head is not None else None
    return ref is not None and ref.digest != followed.place.digest and bool(source.addresses)


def _alarm(told: dict[str, object], device: bytes, time: int, key: str) -> Draft:
    data = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    return Draft(EntryKind.ALARM, device, data, time, f"alarm/{key}")
