"""The log writer on both stores: what was acknowledged stays, in order, under a chain of roots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from logkit import NOON, SIGNER, audited, draft, log_on

from gossipfl.audit.cosignatures import cosign, require_cosignature
from gossipfl.audit.notes import log_key, parse_note, witness_key
from gossipfl.audit.tiles import BUNDLE, Tile, TiledNodes, tiles_for, unpack_bundle
from gossipfl.audit.tree import (
    consistency_ranges,
    nodes_of,
    prove_consistency,
    verify_consistency,
)
from gossipfl.errors import UserError
from gossipfl.hub.database import Database, Row, Transaction, Value, open_database
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.log.writer import LogWriter
from gossipfl.identity import Signer


async def test_entries_get_their_places_in_the_order_of_staging(database: Database) -> None:
    log, writer = log_on(database, batch_max=300)
    assert await writer.start() is None
    await log.append([draft(n, subject=n % 3) for n in range(700)])
    assert [await writer.integrate() for _ in range(4)] == [300, 300, 100, 0]
    assert await audited(log) == [b"payload %d" % n for n in range(700)]
    assert await log.reader.newest() == 3
    assert len(await log.reader.salts()) == 3


async def test_what_is_logged_once_is_not_logged_again(database: Database) -> None:
    log, writer = log_on(database)
    await log.append([draft(1), draft(2)])
    await writer.integrate()
    await log.append([draft(2), draft(3), draft(3)])
    await writer.integrate()
    assert await audited(log) == [b"payload 1", b"payload 2", b"payload 3"]


async def test_times_never_fall_and_never_pass_the_checkpoint(database: Database) -> None:
    log, writer = log_on(database)
    await log.append([draft(1, time=NOON - 5), draft(2, time=NOON - 9), draft(3, time=NOON + 99)])
    await writer.integrate()
    entries = await log.reader.entries(0, 3)
    assert [int.from_bytes(e[2:10]) - NOON for e in entries] == [-5, -5, 0]


async def test_a_new_writer_goes_on_where_the_last_one_stood(database: Database) -> None:
    log, writer = log_on(database)
    for start in range(0, 600, 200):
        await log.append([draft(n) for n in range(start, start + 200)])
        await writer.integrate()
        log, writer = log_on(database)
        stands = await writer.start()
        assert stands is not None
        assert stands.checkpoint.size == start + 200
    assert await audited(log) == [b"payload %d" % n for n in range(600)]


async def test_tiles_and_bundles_prove_that_the_log_only_grew(database: Database) -> None:
    log, writer = log_on(database, batch_max=100)
    await log.append([draft(n) for n in range(600)])
    roots = {}
    while await writer.integrate():
        assert log.newest is not None
        roots[log.newest.checkpoint.size] = log.newest.checkpoint.root
    nodes = nodes_of(consistency_ranges(300, 600))
    tiles = {tile: await log.reader.tile(tile) for tile in tiles_for(nodes, 600)}
    proof = prove_consistency(300, 600, TiledNodes(600, tiles))
    verify_consistency(300, 600, roots[300], roots[600], proof)
    bundle = unpack_bundle(await log.reader.tile(Tile(BUNDLE, 2, 88)), 88)
    assert bundle == list(await log.reader.entries(512, 600))
    with pytest.raises(ValueError, match="there is no"):
        await log.reader.tile(Tile(0, 2, 89))
    with pytest.raises(ValueError, match="does not hold"):
        await log.reader.entries(599, 601)


async def test_another_hubs_log_is_refused(database: Database) -> None:
    log, writer = log_on(database)
    await log.append([draft(1)])
    await writer.integrate()
    other = Signer(bytes(32))
    stranger = LogWriter(database, HubLog(database, log_key(other.key_id)), other)
    with pytest.raises(UserError) as raised:
        await stranger.start()
    assert raised.value.code == "GF802"


async def test_a_cosignature_stands_on_the_checkpoint_that_it_is_of(database: Database) -> None:
    log, writer = log_on(database)
    await log.append([draft(1)])
    await writer.integrate()
    witness = Signer(b"w" * 32)
    text = parse_note(await log.reader.checkpoint(1)).text
    for time in (NOON + 1, NOON + 2):
        await log.cosigned(1, cosign(text, time, witness))
    note = parse_note(await log.reader.checkpoint(1))
    assert require_cosignature(note, witness_key(witness.key_id)) == NOON + 2
    assert len(note.signatures) == 2
    note.require(log_key(SIGNER.key_id))


async def test_a_waiter_learns_the_place_of_its_entry(database: Database) -> None:
    log, writer = log_on(database)
    await log.append([draft(1), draft(2)])
    assert await log.position("receipt/2") is None
    waiting = asyncio.create_task(log.position("receipt/2", wait_s=30))
    running = asyncio.create_task(writer.run(interval_s=60))
    log.hurry()
    assert await asyncio.wait_for(waiting, 10) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_two_writers_at_once_make_one_log(dsn: str, database: Database) -> None:
    other = await open_database(dsn)
    log, first = log_on(database, batch_max=10)
    _, second = log_on(other, batch_max=10)

    async def feed() -> None:
        for start in range(0, 200, 10):
            await log.append([draft(n) for n in range(start, start + 10)])

    async def drain(writer: LogWriter) -> None:
        while await log.reader.size() < 200:
            await writer.integrate()

    await asyncio.wait_for(asyncio.gather(feed(), drain(first), drain(second)), 60)
    assert await audited(log) == [b"payload %d" % n for n in range(200)]
    await other.close()


# --- crashes ------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process is gone."""


class Dying:
    """A database whose process dies at its nth step: before it, or right after it took effect.

    Steps are statements and commits. After a death nothing of it is ever called again.
    """

    kind = "dying"

    def __init__(self, database: Database, dies_at: int, after: bool) -> None:
        self._database = database
        self._left = dies_at
        self._after = after
        self.steps = 0

    def before(self) -> None:
        self.steps += 1
        if self.steps == self._left and not self._after:
            raise Crash

    def done(self) -> None:
        if self.steps == self._left and self._after:
            raise Crash

    @asynccontextmanager
    async def _transaction(self, write: bool) -> AsyncIterator[Transaction]:
        async with self._database.transaction(write=write) as transaction:
            yield DyingTransaction(transaction, self)
            self.before()
        self.done()

    def transaction(self, *, write: bool = True) -> AbstractAsyncContextManager[Transaction]:
        return self._transaction(write)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


class DyingTransaction:
    def __init__(self, transaction: Transaction, owner: Dying) -> None:
        self._transaction, self._owner = transaction, owner

    async def execute(self, sql: str, *values: Value) -> int:
        self._owner.before()
        found = await self._transaction.execute(sql, *values)
        self._owner.done()
        return found

    async def many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        self._owner.before()
        await self._transaction.many(sql, rows)
        self._owner.done()

    async def rows(self, sql: str, *values: Value) -> list[Row]:
        self._owner.before()
        found = await self._transaction.rows(sql, *values)
        self._owner.done()
        return found

    async def row(self, sql: str, *values: Value) -> Row | None:
        found = await self.rows(sql, *values)
        return found[0] if found else None

    async def lock(self, name: str) -> None:
        await self._transaction.lock(name)


async def work(database: Database, acknowledged: list[int], first: int) -> None:
    """Append and integrate by turns; what was acknowledged is noted."""
    log, writer = log_on(database, batch_max=7)
    await writer.start()
    for number in range(first, first + 12, 4):
        await log.append([draft(n) for n in range(number, number + 4)])
        acknowledged.extend(range(number, number + 4))
        while await writer.integrate():
            pass


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_dying_at_any_step_loses_nothing_acknowledged(
    database: Database, after: bool
) -> None:
    acknowledged: list[int] = []
    steps, number = 0, 0
    died = True
    while died:
        steps += 1
        number += 100
        died = False
        dying = Dying(database, steps, after)
        try:
            await work(dying, acknowledged, number)
        except Crash:
            died = True
    assert steps > 30, "the workload has fewer steps than it should"
    log, writer = log_on(database)
    await writer.start()
    while await writer.integrate():
        pass
    logged = [int(data.split()[1]) for data in await audited(log)]
    assert logged == sorted(logged)
    assert set(acknowledged) <= set(logged)
    assert len(set(logged)) == len(logged)
