"""kill -9 while a node spends its budget: a real node on the real store, killed at write points.

Write points are the steps of the store's file layer, all of them, and instructions of SQLite's
virtual machine, evenly taken. After each kill the node starts again on what is durable, among
peers that hold what was public. Then: the ledger has at least what was released, one number has
one blob, and every state can be read. `-s` prints the counts.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Device, Table

from device_agent.object_files import Files
from device_agent.store import INLINE_BYTES, DeviceStore
from gossipfl.events import Commit
from gossipfl.messages import Head, Privacy
from gossipfl.objects import digest
from gossipfl.privacy.entries import Released, Row, parse_entry
from gossipfl.privacy.ledger import replay
from gossipfl.shelf import Served
from gossipfl.wire import decode, open_envelope

pytestmark = pytest.mark.slow

DEVICE = Privacy(mode="local", unit="device", epsilon=8.0, delta=1e-5, clip=0.1, z=8.0)
RECORD = Privacy(
    mode="local", unit="record", epsilon=8.0, z=2.0, sample_rate=0.5, steps=2, lot=1, clip=0.1
)
WORKLOADS: dict[str, tuple[Privacy, int]] = {
    "unit=device": (DEVICE, 4),
    "unit=record": (RECORD, 4),
    "large updates": (DEVICE, INLINE_BYTES // 4 + 1_000),  # as files beside the database
}
RELEASES = 3  # before the child ends by itself
SQL_KILLS = 40  # of each workload


class Deadly(DeviceStore):
    """Kills its own process at a file step or an SQL instruction; 0 only counts."""

    def __init__(self, folder: Path, at_file: int, at_sql: int) -> None:
        self.at_sql = at_sql
        self.sql = 0
        self.steps = Steps(at_file)
        super().__init__(folder, self.steps)

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.set_progress_handler(self._instruction, 1)
        return connection

    def _instruction(self) -> None:
        self.sql += 1
        if self.sql == self.at_sql:
            os.kill(os.getpid(), signal.SIGKILL)


class Steps(Files):
    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0

    def point(self) -> None:
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, path: Path, data: bytes) -> None:
        self.point()
        path.write_bytes(data[: len(data) // 2])
        self.point()
        super().write(path, data)
        self.point()

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.point()

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.point()

    def remove(self, path: Path) -> None:
        self.point()
        super().remove(path)
        self.point()


def table_of(name: str, keep: Callable[[bytes], None], store: DeviceStore) -> tuple[Table, Device]:
    """A table whose first device has this store; `keep` gets each head as it becomes public."""
    privacy, count = WORKLOADS[name]
    table = Table(n=3, privacy=privacy, count=count)
    me = table.device(store=store)  # type: ignore[arg-type]
    shelf = me.node.shelf
    set_own = shelf.set_own

    def shown(device: bytes, served: Served) -> None:
        keep(served.envelope)
        set_own(device, served)

    shelf.set_own = shown  # type: ignore[method-assign]
    return table, me


def releases(rows: tuple[Row, ...]) -> list[bytes]:
    entries = [parse_entry(row.data) for row in rows]
    return [entry.released for entry in entries if isinstance(entry, Released)]


def spend(name: str, store: DeviceStore, out: int) -> None:
    """Among two more nodes, until three releases are durable."""
    table, _ = table_of(name, lambda head: _say(out, head), store)
    for _ in range(2):
        table.device()
    table.introduce()
    table.employ()
    table.until(lambda: len(releases(store.load().ledger)) >= RELEASES, 400.0)


def _say(out: int, head: bytes) -> None:
    os.write(out, head.hex().encode() + b"\n")


def killed(name: str, folder: Path, at_file: int, at_sql: int) -> tuple[list[bytes], int, int, int]:
    """(public heads, exit status, file steps, SQL instructions) of a child that may be killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store = Deadly(folder, at_file, at_sql)
            spend(name, store, writing)
            os.write(writing, b"%d %d\n" % (store.steps.seen, store.sql))
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as lines:
        told = lines.read().splitlines()
    _, status = os.waitpid(child, 0)
    steps, sql = map(int, told.pop().split()) if told and " " in told[-1] else (0, 0)
    return [bytes.fromhex(line) for line in told], os.waitstatus_to_exitcode(status), steps, sql


def head_of(envelope: bytes) -> Head:
    return decode(open_envelope(envelope, "head", 4096).payload, Head)


def problems(name: str, folder: Path, public: list[bytes]) -> list[str]:
    """What is wrong after the kill, and after a restart that releases twice more."""
    try:
        store = DeviceStore(folder)
        snapshot = store.load()
        head = head_of(snapshot.head) if snapshot.head else None
        if snapshot.ledger:
            replay(snapshot.ledger, head.ledger if head else None)
    except Exception as error:
        return [f"unreadable: {error}"]
    found = _told(public, releases(snapshot.ledger))
    table, me = table_of(name, public.append, store)
    table.fleet.admit(), table.fleet.admit()  # the two that died with the child
    for puppet in (table.puppet(), table.puppet()):
        puppet.publish()
        if public:
            puppet.heads[me.id] = public[-1]
    table.introduce()
    table.employ()
    before = len(releases(snapshot.ledger))
    table.until(lambda: len(releases(store.load().ledger)) >= before + 2, 900.0)
    entered = releases(store.load().ledger)
    store.close()
    return found + _told(public, entered)


def _told(public: list[bytes], entered: list[bytes]) -> list[str]:
    blobs: dict[int, set[bytes]] = {}
    shown: set[bytes] = set()
    for envelope in public:
        head = head_of(envelope)
        blobs.setdefault(head.seq, set()).add(digest(envelope))
        if head.update is not None:
            shown.add(head.update.digest)
    found = [f"{len(some)} heads with number {seq}" for seq, some in blobs.items() if len(some) > 1]
    if not shown <= set(entered) or len(shown) > len(entered):
        found.append(f"{len(shown)} released, {len(entered)} entered")
    if len(set(entered)) != len(entered):
        found.append("one blob is entered twice")
    return found


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_kill_9_at_write_points_loses_no_entry_and_repeats_no_number(
    tmp_path: Path, name: str
) -> None:
    public, status, steps, sql = killed(name, tmp_path / "whole", 0, 0)
    assert status == 0
    assert len({head_of(head).update for head in public} - {None}) >= RELEASES - 1
    points = [(at, 0) for at in range(1, steps + 1)]
    points += [(0, at) for at in range(1, sql + 1, max(1, sql // SQL_KILLS))]
    wrong: dict[tuple[int, int], list[str]] = {}
    for at_file, at_sql in points:
        folder = tmp_path / f"{at_file}-{at_sql}"
        public, status, _, _ = killed(name, folder, at_file, at_sql)
        if status != -signal.SIGKILL:
            wrong[at_file, at_sql] = [f"was not killed: exit {status}"]
        elif found := problems(name, folder, public):
            wrong[at_file, at_sql] = found
    assert wrong == {}
    print(  # noqa: T201
        f"{name}: {len(points)} kills ({steps} of {steps} file steps, {len(points) - steps} of "
        f"{sql} SQL instructions): 0 releases missing, 0 numbers with two blobs, 0 unreadable"
    )


def test_a_backup_publishes_nothing_before_peers_have_spoken() -> None:
    table = Table(n=3, privacy=DEVICE)
    for _ in range(3):
        table.device()
    table.introduce()
    table.employ()
    me, *others = table.devices
    table.until(lambda: len(releases(me.store.load().ledger)) >= 1, 100.0)
    backup = me.store.copy()
    table.until(lambda: len(releases(me.store.load().ledger)) >= 3, 200.0)
    table.advance(5.0)
    for device in others:
        device.down = True
    table.restart(me, backup)
    before = len(me.sent(Commit))
    table.introduce(*others)
    table.employ(me)
    table.advance(3_600.0)
    batches = [effect.batch for effect in me.sent(Commit)[before:]]
    assert all(batch.head is None and not batch.ledger for batch in batches)
    assert not me.node.view().listen_only, "it waits: nobody has contradicted it yet"
    for device in others:
        device.down = False
    table.until(lambda: me.node.view().listen_only, 300.0)
    assert "enrol it again" in me.node.view().listen_only
    assert len(releases(backup.load().ledger)) == 1
