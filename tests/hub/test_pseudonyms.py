"""Pseudonyms at the hub: one salt each, the same for everybody who asks, gone with the salt."""

from __future__ import annotations

import asyncio
import re

import pytest

from gossipfl.hub import pseudonyms
from gossipfl.hub.database import Database, open_database

DEVICES = [bytes([number]) * 16 for number in range(1, 41)]


async def salts(database: Database) -> list[bytes]:
    async with database.transaction(write=False) as tx:
        return [row["salt"] for row in await tx.rows("SELECT salt FROM pseudonyms")]


async def test_every_device_has_its_own_and_keeps_it(database: Database, dsn: str) -> None:
    names = await pseudonyms.of(database, DEVICES)
    assert set(names) == set(DEVICES)
    assert len(set(names.values())) == len(DEVICES)
    assert all(re.fullmatch("p-[a-z2-7]{16}", name) for name in names.values())
    other = await open_database(dsn)
    assert await pseudonyms.of(other, DEVICES[:3]) == {d: names[d] for d in DEVICES[:3]}
    await other.close()
    assert len(set(await salts(database))) == len(DEVICES)


async def test_another_salt_gives_another_name(database: Database) -> None:
    before = await pseudonyms.of(database, DEVICES[:1])
    async with database.transaction() as tx:
        await tx.execute("DELETE FROM pseudonyms")
    assert await pseudonyms.of(database, DEVICES[:1]) != before


async def test_many_who_ask_at_once_get_the_same(database: Database, dsn: str) -> None:
    other = await open_database(dsn)
    asked = [pseudonyms.of(which, DEVICES) for which in (database, other) * 8]
    answers = await asyncio.gather(*asked)
    assert all(answer == answers[0] for answer in answers)
    assert len(await salts(database)) == len(DEVICES)
    await other.close()


async def test_a_failed_transaction_leaves_no_salt(database: Database) -> None:
    async def fail() -> None:
        async with database.transaction() as tx:
            await pseudonyms.within(tx, DEVICES)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await salts(database) == []


async def test_who_was_erased_gets_no_new_salt(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute("INSERT INTO erased (mark) VALUES (?)", pseudonyms.mark_of(DEVICES[0]))
    names = await pseudonyms.of(database, DEVICES[:2])
    assert names[DEVICES[0]] == pseudonyms.ERASED != names[DEVICES[1]]
    assert len(await salts(database)) == 1


async def test_more_than_sqlite_takes_in_one_statement(database: Database) -> None:
    many = [number.to_bytes(16) for number in range(2 * pseudonyms.SQL_NAMES_MAX + 1)]
    assert len(set((await pseudonyms.of(database, many)).values())) == len(many)


async def test_what_is_no_id_is_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        await pseudonyms.of(database, [b"short"])
