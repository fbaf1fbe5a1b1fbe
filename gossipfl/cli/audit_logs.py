"""Where `gossipfl audit` finds a log: an export's file, or the database that a hub writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gossipfl.errors import UserError

if TYPE_CHECKING:
    from gossipfl.audit.reader import LogReader
    from gossipfl.hub.database import Database

SQLITE_MAGIC = b"SQLite format 3\x00"
HELP = "an export, or a hub's database: its file, or postgresql://..."

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OpenLog:
    """A log that can be read. `database` is None for an export."""

    reader: LogReader
    database: Database | None = None


def with_log(name: str, read: Callable[[OpenLog], Coroutine[Any, Any, T]]) -> T:
    """Run `read` on the log of that name. What the log does not hold is told as GF903."""
    from gossipfl.audit.refused import AuditRefused

    async def run() -> T:
        async with _opened(name) as log:
            return await read(log)

    try:
        return asyncio.run(run())
    except AuditRefused as error:
        raise UserError("GF903", str(error)) from error


@asynccontextmanager
async def _opened(name: str) -> AsyncIterator[OpenLog]:
    from gossipfl.audit.opened import ExportReader
    from gossipfl.audit.refused import AuditRefused

    if name.startswith(("postgresql://", "postgres://")):
        async with _database(name) as log:
            yield log
        return
    path = Path(name.removeprefix("sqlite:///"))
    try:
        file = path.open("rb")  # noqa: ASYNC230 - a verb waits for nothing else
    except OSError as error:
        raise UserError("GF902", f"{path}: {error.strerror}") from error
    with file:
        if file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC:
            async with _database(path) as log:
                yield log
            return
        try:
            reader = ExportReader(file)
        except AuditRefused as error:
            raise UserError("GF902", f"{path}: {error}") from error
        yield OpenLog(reader)


@asynccontextmanager
async def _database(dsn: str | Path) -> AsyncIterator[OpenLog]:
    from gossipfl.hub.database import open_database
    from gossipfl.hub.log.reading import DatabaseLog

    database = await open_database(dsn)
    try:
        yield OpenLog(DatabaseLog(database), database)
    finally:
        await database.close()


async def fleet_of_log(log: OpenLog) -> bytes:
    """The fleet that a log is about: an export says it, and so does the first admission."""
    from gossipfl.audit.opened import ExportReader
    from gossipfl.config import Limits
    from gossipfl.messages import Member
    from gossipfl.objects import unpack_member
    from gossipfl.wire import decode, open_envelope

    if isinstance(log.reader, ExportReader):
        return log.reader.about.fleet
    data = await _first_member(log.reader)
    if data is None:
        raise UserError("GF903", "no entry admits a member: the log does not say which fleet it is")
    limits = Limits()
    envelope = open_envelope(unpack_member(data, limits).envelope, "member", limits.member_bytes)
    return decode(envelope.payload, Member, limits.member_bytes).fleet


async def _first_member(reader: LogReader) -> bytes | None:
    from gossipfl.audit.checkpoints import parse_checkpoint
    from gossipfl.audit.entries import EntryKind, parse_entry
    from gossipfl.audit.notes import parse_note
    from gossipfl.audit.tiles import WIDTH

    number = await reader.newest()
    size = parse_checkpoint(parse_note(await reader.checkpoint(number)).text).size if number else 0
    for first in range(0, size, WIDTH):
        end = min(size, first + WIDTH)
        entries = await reader.entries(first, end)
        payloads = await reader.payloads(first, end)
        for entry, payload in zip(entries, payloads, strict=True):
            if payload is not None and parse_entry(entry).kind is EntryKind.MEMBER:
                return payload.data
    return None
