"""The log as devices see it: each checkpoint becomes an object that the hub's head names, and what
devices cosign comes back.

An object is given to the hub's node, which stores it and publishes the head; only once it is
durable there is its digest written down, so that later ones may be linked to it. A crash in between
makes the same bytes again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gossipfl.audit.checkpoints import parse_checkpoint
from gossipfl.audit.cosignatures import check_cosignature
from gossipfl.audit.linked import CheckpointMade, linked_numbers
from gossipfl.audit.linking import link_checkpoint
from gossipfl.audit.notes import parse_note, witness_key
from gossipfl.audit.refused import AuditRefused
from gossipfl.config import Limits
from gossipfl.errors import PeerError
from gossipfl.events import Event
from gossipfl.holdings import Holdings, Neighbour
from gossipfl.hub.database import Database
from gossipfl.hub.log.log import HubLog
from gossipfl.objects import Kind, bytes_max, digest

log = logging.getLogger(__name__)

BATCH_MAX = 128  # objects given to the node at once: guess, 200 KB of one commit
DURABLE_S = 30.0  # how long the node may take to store them: guess, many head intervals
LOOK_S = 0.2
SEEN_MAX = 4_096

Fetch = Callable[[Neighbour, bytes, int], Awaitable[bytes | None]]


class ShownLog:
    """`give` offers an event to the hub's node, `held` reads an object that its store has.
    `is_alone`: no device has been heard yet, so that the node publishes nothing."""

    def __init__(
        self,
        database: Database,
        hub_log: HubLog,
        give: Callable[[Event], bool],
        held: Callable[[bytes], Awaitable[bytes | None]],
        is_alone: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database = database
        self._log = hub_log
        self._give = give
        self._held = held
        self._is_alone = is_alone
        self._said = ""  # what was said last: not again until something else is

    async def run(self, look_s: float) -> None:
        """Until cancelled. Raises DatabaseError."""
        while True:
            if await self.look() < BATCH_MAX:
                await asyncio.sleep(look_s)

    async def look(self) -> int:
        """Show what is new, oldest first: how many checkpoints."""
        if self._is_alone():
            self._say(logging.INFO, "no device has been heard: the log is shown when one is")
            return 0
        newest, last = await self._log.reader.newest(), await self._last()
        made: dict[int, bytes] = {}
        for number in range(last + 1, min(newest, last + BATCH_MAX) + 1):
            names = await self._names(linked_numbers(number)) | made
            data = await link_checkpoint(self._log.reader, number, names)
            if not self._give(CheckpointMade(data)):
                break  # the node has enough to do: later
            made[number] = digest(data)
        if not made or not await self._durable(made[max(made)]):
            return 0
        async with self._database.transaction() as transaction:
            await transaction.many(
                "INSERT INTO log_objects (number, digest) VALUES (?, ?) "
                "ON CONFLICT (number) DO NOTHING",
                list(made.items()),
            )
        return len(made)

    async def _durable(self, name: bytes) -> bool:
        """The node stores objects in the order in which they are given."""
        for _ in range(int(DURABLE_S / LOOK_S)):
            if await self._held(name) is not None:
                self._said = ""
                return True
            await asyncio.sleep(LOOK_S)
        self._say(
            logging.WARNING,
            "the hub's node has not stored the log's newest checkpoint; it is given again until it "
            "has. Devices cannot witness the log meanwhile",
        )
        return False

    def _say(self, level: int, text: str) -> None:
        if text != self._said:
            log.log(level, "%s", text)
        self._said = text

    async def _last(self) -> int:
        async with self._database.transaction(write=False) as transaction:
            row = await transaction.row("SELECT MAX(number) AS number FROM log_objects")
        return 0 if row is None or row["number"] is None else int(row["number"])

    async def _names(self, numbers: list[int]) -> dict[int, bytes]:
        found = {}
        async with self._database.transaction(write=False) as transaction:
            for number in numbers:
                row = await transaction.row(
                    "SELECT digest FROM log_objects WHERE number = ?", number
                )
                if row is not None:
                    found[number] = row["digest"]
        return found


class Cosigners:
    """Collects the cosignatures that devices' heads name."""

    def __init__(
        self,
        database: Database,
        hub_log: HubLog,
        holdings: Callable[[], Holdings],
        fetch: Fetch,
        limits: Limits,
    ) -> None:
        self._database = database
        self._log = hub_log
        self._holdings = holdings
        self._fetch = fetch
        self._bytes_max = bytes_max(Kind.COSIGNATURE, limits)
        self._seen: dict[bytes, None] = {}

    async def look(self) -> int:
        """One pass over all devices: how many cosignatures were new. Raises DatabaseError."""
        found = 0
        for source in self._holdings().neighbours:
            name = source.head.cosignature if source.head is not None else None
            if name is None or name in self._seen or not source.is_live:
                continue
            try:
                found += await self._take(source, name)
            except (PeerError, AuditRefused, UnicodeDecodeError) as error:
                log.info("a cosignature of %s: %s", source.device.hex()[:8], error)
            self._seen[name] = None
            while len(self._seen) > SEEN_MAX:
                del self._seen[next(iter(self._seen))]
        return found

    async def _take(self, source: Neighbour, name: bytes) -> int:
        """Fetched, verified over the checkpoint that the same head names, kept. 1 if it was."""
        text, number = await self._named(source)
        data = await self._fetch(source, name, self._bytes_max) if text else None
        if data is None or digest(data) != name or text is None:
            return 0
        signatures = parse_note(text + b"\n" + data).signatures
        key = witness_key(source.known.member.key)
        if len(signatures) != 1:
            raise AuditRefused("a cosignature is one line")
        check_cosignature(text, signatures[0], key)
        await self._log.cosigned(number, signatures[0])
        return 1

    async def _named(self, source: Neighbour) -> tuple[bytes | None, int]:
        """Text and number of the checkpoint whose object the head names, if it is one of ours."""
        named = source.head.checkpoint if source.head is not None else None
        async with self._database.transaction(write=False) as transaction:
            row = await transaction.row(
                "SELECT number FROM log_objects WHERE digest = ?", named or b""
            )
        if row is None:
            return None, 0
        note = parse_note(await self._log.reader.checkpoint(row["number"]))
        return note.text, parse_checkpoint(note.text).number
