"""SQLite behind the contract: WAL, synchronous=FULL, and group commit by one writing thread.

A commit costs an fsync, whatever it holds. So writing transactions take turns inside one SQLite
transaction, each under a savepoint, and it is committed when nobody waits, or when it has grown
old: whoever wrote learns that it is durable after that commit. Readers have connections of their
own and wait for nobody.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from gossipfl.hub.database.contract import (
    DatabaseError,
    DatabaseFull,
    Row,
    Transaction,
    Unavailable,
    Value,
)
from gossipfl.hub.database.file_lease import FileLease
from gossipfl.hub.database.sqlite_words import connect, rewrite, translated

T = TypeVar("T")
READERS = 4  # guess: two cores, and a read seldom waits for the disk
TURNS_MAX = 10_000  # waiting writers; beyond them the caller is told to come back
GROUP_MAX = 1_000  # turns in one commit: where the gain of grouping ends (19,922 to 127,127 rows/s)
GROUP_S = 0.05  # the oldest of a group waits no longer than this for later ones
TRANSACTION_S = 30.0  # a writer that holds up all others so long is cut off


class Worker:
    """One connection with one thread: its calls run in the order in which they were made."""

    def __init__(self, path: Path, *, write: bool) -> None:
        self._pool = ThreadPoolExecutor(1, "hub-db-writer" if write else "hub-db-reader")
        self._path, self._write = path, write
        self._closed = False
        self.connection: sqlite3.Connection | None = None

    async def run(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """Raises DatabaseError. Cancelled, the call ends all the same, before the next begins."""
        return await asyncio.wrap_future(self._pool.submit(self._call, call))

    def later(self, call: Callable[[sqlite3.Connection], object]) -> None:
        """Run it without anybody waiting; its failure shows in the next call."""
        self._pool.submit(self._call, call)

    def _call(self, call: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self.connection is None:
                self.connection = connect(self._path, write=self._write)
            return call(self.connection)
        except sqlite3.Error as error:
            raise translated(error) from error

    async def close(self) -> None:
        """After all calls that were made before it: one of them may be what opens the file."""
        if not self._closed:
            self._closed = True
            await asyncio.wrap_future(self._pool.submit(self._shut))
            self._pool.shutdown(wait=False)

    def _shut(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class SqliteTransaction:
    """See contract.Transaction. `first` begins it, in the thread, with its first statement: each
    way there and back costs more than most statements."""

    def __init__(self, worker: Worker, first: Callable[[sqlite3.Connection], object]) -> None:
        self._worker = worker
        self._first: Callable[[sqlite3.Connection], object] | None = first
        self.over = False

    async def execute(self, sql: str, *values: Value) -> int:
        return await self._do(lambda c: max(0, c.execute(sql, values).rowcount))

    async def many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        await self._do(lambda c: c.executemany(sql, rows))

    async def rows(self, sql: str, *values: Value) -> list[Row]:
        return await self._do(lambda c: [dict(row) for row in c.execute(sql, values)])

    async def row(self, sql: str, *values: Value) -> Row | None:
        found = await self.rows(sql, *values)
        return found[0] if found else None

    async def lock(self, name: str) -> None:
        """Writers are alone anyway."""

    async def share(self, name: str) -> None:
        """Nobody can be alone with it while this one writes."""

    def require_whole(self) -> None:
        """Raises DatabaseError if a statement failed and its error was swallowed."""
        if self.over:
            raise DatabaseError("the transaction had failed")

    async def _do(self, call: Callable[[sqlite3.Connection], T]) -> T:
        if self.over:
            raise DatabaseError("the transaction is over")
        first, self._first = self._first, None

        def whole(connection: sqlite3.Connection) -> T:
            if first is not None:
                first(connection)
            return call(connection)

        try:
            return await self._worker.run(whole)
        except DatabaseError:
            self.over = True
            raise


class Turn:
    """One writing transaction on its way: begun, ended (True to keep it), done (durable).

    `alone`: instead of a transaction this is called when none is open.
    """

    def __init__(self, alone: Callable[[sqlite3.Connection], None] | None = None) -> None:
        self.alone = alone
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[bool] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self._has_savepoint = False  # only the writing thread looks at it

    def open(self, connection: sqlite3.Connection) -> None:
        """In the writing thread, before the first statement."""
        _require_open(connection)
        connection.execute("SAVEPOINT turn")
        self._has_savepoint = True

    def close(self, connection: sqlite3.Connection, keep: bool) -> None:
        """In the writing thread, after the last one. Raises if the whole group is lost."""
        _require_open(connection)
        if self._has_savepoint:
            if not keep:
                connection.execute("ROLLBACK TO turn")
            connection.execute("RELEASE turn")

    def end(self, keep: bool) -> None:
        if not self.ended.done():
            self.ended.set_result(keep)

    def fail(self, error: DatabaseError) -> None:
        for future in (self.begun, self.done):
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever waits gets it; if nobody does, nothing is logged


class SqliteDatabase:
    """See contract.Database. `start` before use; several processes may have the file open."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_full = False
        self._writer = Worker(path, write=True)
        self._readers: list[Worker] = []
        self._idle: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()
        self._turns: asyncio.Queue[Turn] = asyncio.Queue(TURNS_MAX)
        self._writing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises DatabaseError if the file is none of SQLite's."""
        await self._writer.run(lambda c: c.execute("PRAGMA schema_version").fetchone())
        for _ in range(READERS):
            worker = Worker(self.path, write=False)
            self._readers.append(worker)
            self._idle.put_nowait(worker)
        self._writing = asyncio.create_task(self._write(), name="hub-db-writer")

    def transaction(self, *, write: bool = True) -> AbstractAsyncContextManager[Transaction]:
        return self._write_turn() if write else self._read_turn()

    async def lease(self, name: str) -> FileLease | None:
        return FileLease.take(self.path.with_name(f"{self.path.name}.{name}.lock"))

    async def size_bytes(self) -> int:
        log = self.path.with_name(self.path.name + "-wal")
        return sum(path.stat().st_size for path in (self.path, log) if path.exists())

    async def compact(self, tables: Sequence[str]) -> None:
        for copy in self.path.parent.glob(f"{self.path.name}.before-*"):
            copy.unlink(missing_ok=True)
        turn = self._queued(Turn(rewrite))
        await asyncio.shield(turn.done)

    async def close(self) -> None:
        """What waits is finished first."""
        if self._writing is not None:
            await self._turns.join()
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing
            self._writing = None
        for worker in (*self._readers, self._writer):
            await worker.close()

    @asynccontextmanager
    async def _read_turn(self) -> AsyncIterator[Transaction]:
        worker = await self._idle.get()
        try:
            yield SqliteTransaction(worker, lambda c: c.execute("BEGIN"))
        finally:
            worker.later(lambda c: c.execute("ROLLBACK") if c.in_transaction else None)
            self._idle.put_nowait(worker)

    @asynccontextmanager
    async def _write_turn(self) -> AsyncIterator[Transaction]:
        turn = self._queued(Turn())
        try:
            await turn.begun
            transaction = SqliteTransaction(self._writer, turn.open)
            async with asyncio.timeout(TRANSACTION_S) as bound:
                yield transaction
            transaction.require_whole()
        except BaseException as error:
            turn.end(keep=False)
            self.is_full |= isinstance(error, DatabaseFull)
            if isinstance(error, TimeoutError) and turn.begun.done() and bound.expired():
                raise Unavailable(f"cut off after {TRANSACTION_S:g} s") from error
            raise
        turn.end(keep=True)
        try:
            await asyncio.shield(turn.done)
        except DatabaseFull:
            self.is_full = True
            raise
        self.is_full = False

    def _queued(self, turn: Turn) -> Turn:
        if self._writing is None or self._writing.done():
            raise Unavailable("the database is closed")
        try:
            self._turns.put_nowait(turn)
        except asyncio.QueueFull:
            raise Unavailable(f"{TURNS_MAX} writers wait already") from None
        return turn

    # --- the one writer -----------------------------------------------------------------------

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        group: list[Turn] = []
        since = 0.0
        while True:
            turn = await self._turns.get()
            if turn.alone is not None:
                await self._commit(group)
                group = []
                await self._alone(turn, turn.alone)
                continue
            try:
                if not group:
                    await self._writer.run(_begin)
                    since = loop.time()
                if await self._one(turn):
                    group.append(turn)
            except DatabaseError as error:  # all that was done since BEGIN is gone
                for lost in (*group, turn):
                    lost.fail(Unavailable(str(error)) if lost is not turn else error)
                group = []
                await self._roll_back()
            finally:
                self._turns.task_done()
            if self._turns.empty() or len(group) >= GROUP_MAX or loop.time() - since >= GROUP_S:
                await self._commit(group)
                group = []

    async def _alone(self, turn: Turn, work: Callable[[sqlite3.Connection], None]) -> None:
        try:
            await self._writer.run(work)
            if not turn.done.done():
                turn.done.set_result(None)
        except DatabaseError as error:
            turn.fail(error)
        finally:
            self._turns.task_done()

    async def _one(self, turn: Turn) -> bool:
        """One turn under its savepoint: True if it is kept. Raises if the whole group is lost."""
        if turn.ended.done():  # it was cancelled while it waited
            return False
        if not turn.begun.done():
            turn.begun.set_result(None)
        keep = await turn.ended
        await self._writer.run(lambda c: turn.close(c, keep))
        return keep

    async def _commit(self, group: list[Turn]) -> None:
        try:
            await self._writer.run(lambda c: c.execute("COMMIT") if c.in_transaction else None)
        except DatabaseError as error:
            for turn in group:
                turn.fail(error)
            await self._roll_back()
            return
        for turn in group:
            if not turn.done.done():
                turn.done.set_result(None)

    async def _roll_back(self) -> None:
        with suppress(DatabaseError):
            await self._writer.run(lambda c: c.execute("ROLLBACK") if c.in_transaction else None)


def _begin(connection: sqlite3.Connection) -> None:
    if not connection.in_transaction:  # it may still be open after a turn that was given up
        connection.execute("BEGIN IMMEDIATE")


def _require_open(connection: sqlite3.Connection) -> None:
    """A full disk makes SQLite roll back everything, not only the statement."""
    if not connection.in_transaction:
        raise Unavailable("an error in another transaction of the group undid this one")
