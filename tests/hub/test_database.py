"""One contract, two stores: every test here runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gossipfl.errors import UserError
from gossipfl.hub.database import (
    Conflict,
    Database,
    DatabaseError,
    DatabaseFull,
    Migration,
    Unavailable,
    open_database,
)
from gossipfl.hub.database import sqlite as sqlite_store
from gossipfl.hub.database.sql import numbered, statements
from gossipfl.hub.database.sqlite_words import connect

TABLES = Migration(
    1,
    "test",
    """
    CREATE TABLE things (
        id {id}, name TEXT NOT NULL UNIQUE, number BIGINT, share DOUBLE PRECISION, data {blob});
    CREATE TABLE parts (thing BIGINT NOT NULL REFERENCES things (id), name TEXT NOT NULL);
    """,
)
INSERT = "INSERT INTO things (name, number, share, data) VALUES (?, ?, ?, ?)"


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    opened = await open_database(dsn, [TABLES])
    yield opened
    await opened.close()


async def names(database: Database) -> list[str]:
    async with database.transaction(write=False) as transaction:
        return [row["name"] for row in await transaction.rows("SELECT name FROM things ORDER BY 1")]


async def add(database: Database, name: str) -> None:
    async with database.transaction() as transaction:
        await transaction.execute(INSERT, name, 1, 0.5, b"")


async def add_and_fail(database: Database, name: str) -> None:
    async with database.transaction() as transaction:
        await transaction.execute(INSERT, name, 1, 0.5, b"")
        _ = 1 // 0


async def test_values_come_back_as_they_went_in(database: Database) -> None:
    values = ("é?'", 2**62, 0.1, b"\x00\xff")
    async with database.transaction() as transaction:
        assert await transaction.execute(INSERT, *values) == 1
        await transaction.many(INSERT, [(f"n{i}", None, None, None) for i in range(3)])
    async with database.transaction(write=False) as transaction:
        row = await transaction.row("SELECT * FROM things WHERE name = ?", "é?'")
        assert row is not None
        assert (row["name"], row["number"], row["share"], row["data"]) == values
        assert await transaction.row("SELECT 1 FROM things WHERE name = ?", "none") is None
        total = await transaction.row("SELECT SUM(number) AS total, COUNT(*) AS n FROM things")
        assert total == {"total": 2**62, "n": 4}
        assert type(total["total"]) is int


async def test_what_a_statement_touched_is_counted_and_returned(database: Database) -> None:
    await add(database, "a")
    async with database.transaction() as transaction:
        upsert = (
            "INSERT INTO things (name, number) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET number = excluded.number RETURNING id, number"
        )
        row = await transaction.row(upsert, "a", 7)
        assert row is not None
        assert row["number"] == 7
        assert await transaction.execute("UPDATE things SET number = 8 WHERE name = ?", "a") == 1
        assert await transaction.execute("DELETE FROM things WHERE name = ?", "b") == 0


async def test_an_exception_undoes_the_whole_transaction(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        await add_and_fail(database, "a")
    assert await names(database) == []


async def test_a_failed_statement_ends_the_transaction_even_if_caught(database: Database) -> None:
    await add(database, "a")

    async def swallows_its_error() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(INSERT, "b", 1, 0.5, b"")
            with pytest.raises(Conflict):
                await transaction.execute(INSERT, "a", 1, 0.5, b"")
            with pytest.raises(DatabaseError):
                await transaction.execute(INSERT, "c", 1, 0.5, b"")

    with pytest.raises(DatabaseError):
        await swallows_its_error()
    assert await names(database) == ["a"]


async def test_rules_between_tables_hold(database: Database) -> None:
    with pytest.raises(Conflict):
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO parts (thing, name) VALUES (?, ?)", 99, "x")


async def test_a_reader_sees_one_state_and_waits_for_no_writer(database: Database) -> None:
    await add(database, "a")
    async with database.transaction(write=False) as reader:
        assert len(await reader.rows("SELECT * FROM things")) == 1
        async with database.transaction() as writer:
            await writer.execute(INSERT, "b", 1, 0.5, b"")
            assert await names(database) == ["a"]
        assert len(await reader.rows("SELECT * FROM things")) == 1
    assert await names(database) == ["a", "b"]


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseError):
        async with database.transaction(write=False) as reader:
            await reader.execute(INSERT, "a", 1, 0.5, b"")


async def test_many_tasks_write_and_none_is_lost(database: Database) -> None:
    async def one(number: int) -> None:
        if number % 5 == 0:
            with pytest.raises(ZeroDivisionError):
                await add_and_fail(database, f"bad{number}")
        else:
            await add(database, f"{number:03}")

    await asyncio.gather(*(one(number) for number in range(200)))
    assert await names(database) == [f"{n:03}" for n in range(200) if n % 5]


async def test_a_lock_makes_reading_and_writing_one_step(database: Database) -> None:
    async def count_up() -> None:
        async with database.transaction() as transaction:
            await transaction.lock("counter")
            row = await transaction.row("SELECT number FROM things WHERE name = ?", "counter")
            assert row is not None
            await transaction.execute(
                "UPDATE things SET number = ? WHERE name = ?", row["number"] + 1, "counter"
            )

    await add(database, "counter")
    await asyncio.gather(*(count_up() for _ in range(30)))
    async with database.transaction(write=False) as transaction:
        row = await transaction.row("SELECT number FROM things")
    assert row == {"number": 31}


async def test_cancelled_writers_leave_nothing_and_block_nobody(database: Database) -> None:
    inside = asyncio.Event()

    async def stuck() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(INSERT, "stuck", 1, 0.5, b"")
            inside.set()
            await asyncio.Event().wait()

    first = asyncio.create_task(stuck())
    await inside.wait()
    second = asyncio.create_task(add(database, "waiting"))
    await asyncio.sleep(0)
    if database.kind == "sqlite":
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.wait_for(add(database, "after"), 10)
    assert "stuck" not in await names(database)
    assert "after" in await names(database)


async def test_a_lease_has_one_holder_and_passes_on(dsn: str, database: Database) -> None:
    other = await open_database(dsn, [TABLES])
    try:
        lease = await database.lease("log")
        assert lease is not None
        assert lease.held
        assert await lease.check()
        assert await other.lease("log") is None
        elsewhere = await other.lease("something else")
        assert elsewhere is not None
        await elsewhere.release()
        await lease.release()
        assert not lease.held
        taken = await other.lease("log")
        assert taken is not None
        await taken.release()
    finally:
        await other.close()


async def test_a_lease_does_not_stand_in_the_way_of_locks_of_its_name(database: Database) -> None:
    lease = await database.lease("star")
    assert lease is not None
    async with asyncio.timeout(10), database.transaction() as transaction:
        await transaction.lock("star")
    await lease.release()


HOLDER = """
import asyncio, sys
from gossipfl.hub.database import open_database

async def main():
    database = await open_database(sys.argv[1], [])
    lease = await database.lease("log")
    async with database.transaction() as transaction:
        await transaction.execute("UPDATE things SET number = 2 WHERE name = ?", "kept")
    async with database.transaction() as transaction:
        await transaction.execute("UPDATE things SET number = 3 WHERE name = ?", "kept")
        print("held", lease.held, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_killed_process_leaves_its_lease_and_only_what_it_committed(
    dsn: str, database: Database, root: Path
) -> None:
    await add(database, "kept")
    holder = HOLDER.replace("[]", repr([TABLES])).replace(
        "import open_database", "import Migration, open_database"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        holder,
        dsn,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"held True\n"
    assert await database.lease("log") is None
    process.send_signal(signal.SIGKILL)
    began = time.monotonic()
    await process.wait()
    while (lease := await database.lease("log")) is None:
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.05)
    await lease.release()
    async with database.transaction() as transaction:
        assert await transaction.row("SELECT number FROM things") == {"number": 2}


async def test_a_statement_that_is_none_is_told(database: Database) -> None:
    with pytest.raises(DatabaseError, match="nonsense"):
        async with database.transaction() as transaction:
            await transaction.execute("nonsense")


# --- migrations -------------------------------------------------------------------------------

SECOND = Migration(2, "test", "ALTER TABLE things ADD COLUMN colour TEXT;")


async def test_a_newer_version_takes_the_data_along_and_leaves_a_backup(dsn: str) -> None:
    database = await open_database(dsn, [TABLES])
    await add(database, "a")
    await database.close()
    database = await open_database(dsn, [TABLES, SECOND])
    async with database.transaction() as transaction:
        assert (await transaction.row("SELECT name, colour FROM things")) == {
            "name": "a",
            "colour": None,
        }
        if database.kind == "postgresql":
            assert await transaction.row("SELECT name FROM before_1.things") == {"name": "a"}
    await database.close()
    if dsn.startswith("sqlite"):
        backup = Path(dsn.removeprefix("sqlite:///") + ".before-1")
        assert backup.stat().st_mode & 0o777 == 0o600  # noqa: ASYNC240
        with closing(sqlite3.connect(backup)) as copy:
            assert copy.execute("SELECT name FROM things").fetchall() == [("a",)]


async def test_a_migration_that_fails_changes_nothing(dsn: str) -> None:
    bad = replace(SECOND, sql=SECOND.sql + "\nnonsense;")
    await (await open_database(dsn, [TABLES])).close()
    with pytest.raises(UserError, match="nonsense"):
        await open_database(dsn, [TABLES, bad])
    database = await open_database(dsn, [TABLES, SECOND])
    await database.close()


async def test_an_older_version_refuses_a_newer_store(dsn: str) -> None:
    await (await open_database(dsn, [TABLES, SECOND])).close()
    with pytest.raises(UserError) as raised:
        await open_database(dsn, [TABLES])
    assert raised.value.code == "GF502"


async def test_a_migration_that_was_changed_afterwards_is_refused(dsn: str) -> None:
    await (await open_database(dsn, [TABLES])).close()
    with pytest.raises(UserError) as raised:
        await open_database(dsn, [replace(TABLES, sql=TABLES.sql + "\n-- other")])
    assert raised.value.code == "GF504"


async def test_two_that_start_at_once_migrate_once(dsn: str) -> None:
    opened = await asyncio.gather(*(open_database(dsn, [TABLES, SECOND]) for _ in range(3)))
    for database in opened:
        await database.close()


def test_a_fresh_file_is_opened_by_many_at_once(tmp_path: Path) -> None:
    """SQLite itself says "locked" to some of them: in 6 of 100 tries before this waited."""
    with ThreadPoolExecutor(6) as pool:
        for at in range(150):
            path = tmp_path / f"{at}.db"
            together = threading.Barrier(6)

            def open_it(path: Path = path, together: threading.Barrier = together) -> str:
                together.wait()
                connection = connect(path, write=True)
                try:
                    return str(connection.execute("PRAGMA journal_mode").fetchone()[0])
                finally:
                    connection.close()

            assert [each.result() for each in [pool.submit(open_it) for _ in range(6)]] == 6 * [
                "wal"
            ]


# --- one store only ---------------------------------------------------------------------------


async def test_an_unknown_store_or_an_absent_server_is_told() -> None:
    with pytest.raises(UserError) as raised:
        await open_database("mysql://somewhere/hub", [])
    assert raised.value.code == "GF801"
    pytest.importorskip("asyncpg")
    with pytest.raises(UserError) as raised:
        await open_database("postgresql://hub:secret@/hub?host=/nonexistent", [])
    assert raised.value.code == "GF801"
    assert "secret" not in raised.value.cause


async def test_a_full_disk_undoes_what_was_not_confirmed_and_passes(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "hub.db", [TABLES])
    await add(database, "before")
    async with database.transaction() as transaction:
        pages = await transaction.row("PRAGMA page_count")
        assert pages is not None
        await transaction.rows(f"PRAGMA max_page_count = {pages['page_count'] + 2}")

    async def large(name: str) -> None:
        async with database.transaction() as transaction:
            await transaction.execute(INSERT, name, 1, 0.5, bytes(200_000))

    outcomes = await asyncio.gather(
        large("x"), add(database, "small"), large("y"), return_exceptions=True
    )
    assert isinstance(outcomes[0], DatabaseFull)
    assert isinstance(outcomes[2], DatabaseFull)
    kept = await names(database)
    assert ("small" in kept) == (outcomes[1] is None)
    async with database.transaction() as transaction:
        await transaction.rows("PRAGMA max_page_count = 100000")
    await large("after")
    assert set(await names(database)) - {"small"} == {"before", "after"}
    await database.close()


async def test_commits_are_grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await open_database(tmp_path / "hub.db", [TABLES])
    assert isinstance(database, sqlite_store.SqliteDatabase)
    commits: list[int] = []
    commit = database._commit

    async def counted(group: list[sqlite_store.Turn]) -> None:
        commits.append(len(group))
        await commit(group)

    monkeypatch.setattr(database, "_commit", counted)
    await asyncio.gather(*(add(database, str(number)) for number in range(100)))
    assert sum(commits) == 100
    assert len(commits) < 50
    await database.close()


async def test_too_many_writers_are_told_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "TURNS_MAX", 3)
    database = await open_database(tmp_path / "hub.db", [TABLES])
    outcomes = await asyncio.gather(
        *(add(database, str(number)) for number in range(10)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
    assert refused
    assert len(await names(database)) == 10 - len(refused)
    await database.close()
    with pytest.raises(Unavailable):
        await add(database, "late")


def test_placeholders_inside_quotes_stay() -> None:
    assert numbered("a = ? AND b = '?' AND \"?\" = ?") == "a = $1 AND b = '?' AND \"?\" = $2"
    assert statements("A (\n 1; 2);\n-- x\nB;") == ["A (\n 1; 2)", "B"]
