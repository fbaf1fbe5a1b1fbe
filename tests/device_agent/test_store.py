"""One contract for both stores, and what only a disk can do: fail, fill up, be read again."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from device_agent.ledger_rows import REPLACED
from device_agent.object_files import Files
from device_agent.store import INLINE_BYTES, SCHEMA, DeviceStore
from gossipfl.durable import LEDGER_BEHIND, LEDGER_CARRIED, Batch, Snapshot
from gossipfl.errors import StoreError, UserError
from gossipfl.fleet.device import OLD, STATE
from gossipfl.interfaces import Store
from gossipfl.memory import MemoryStore
from gossipfl.privacy import DevicePrivacy, Unit
from gossipfl.privacy.entries import Row
from gossipfl.privacy.ledger import Terms, open_ledger

SMALL = b"small" * 100
LARGE = b"large" * INLINE_BYTES


def named(data: bytes) -> tuple[bytes, bytes]:
    return sha256(data).digest(), data


DEVICE = DevicePrivacy(clip=1.0, z=4.0)
TERMS = Terms(epsilon=8.0, delta=1e-5, z=4.0, unit=Unit.DEVICE)


def ledger_rows(count: int) -> tuple[Row, ...]:
    ledger, row = open_ledger(b"d" * 16)
    rows = [row]
    while len(rows) < count:
        ledger, row = ledger.release(DEVICE, bytes([len(rows)]) * 32, TERMS)
        rows.append(row)
    return tuple(rows)


@pytest.fixture(params=["memory", "device"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    device = DeviceStore(tmp_path / "state")
    yield device
    device.close()


@pytest.fixture
def reopened(tmp_path: Path) -> Iterator[Callable[[], DeviceStore]]:
    opened: list[DeviceStore] = []

    def again() -> DeviceStore:
        for old in opened:
            old.close()
        opened.append(DeviceStore(tmp_path / "state"))
        return opened[-1]

    yield again
    for last in opened:
        last.close()


class TestContract:
    def test_an_empty_store_has_no_head(self, store: Store) -> None:
        assert store.load() == Snapshot()

    @pytest.mark.parametrize("data", [SMALL, LARGE, b""])
    def test_a_committed_object_is_found(self, store: Store, data: bytes) -> None:
        digest, _ = named(data)
        store.commit(Batch(objects=((digest, data),)))
        assert store.get(digest) == data

    def test_an_unknown_object_is_none(self, store: Store) -> None:
        assert store.get(bytes(32)) is None

    def test_head_receipt_and_documents_come_back(self, store: Store) -> None:
        documents = {"base": LARGE, "peers": SMALL, "empty": b""}
        store.commit(Batch(seq=1, head=b"h1", receipt=b"r1", documents=documents))
        assert store.load() == Snapshot(b"h1", b"r1", documents)

    def test_documents_are_replaced_by_name_and_others_stay(self, store: Store) -> None:
        store.commit(Batch(documents={"a": LARGE, "b": b"1"}))
        store.commit(Batch(documents={"a": LARGE + b"2"}))
        assert store.load().documents == {"a": LARGE + b"2", "b": b"1"}

    def test_ledger_rows_come_back_in_order_with_their_head(self, store: Store) -> None:
        rows = ledger_rows(3)
        store.commit(Batch(seq=1, head=b"h1", ledger=rows[:2]))
        store.commit(Batch(seq=2, head=b"h2", ledger=rows[2:]))
        assert store.load() == Snapshot(head=b"h2", ledger=rows)

    @pytest.mark.parametrize("taken", [slice(0, 1), slice(2, 3)], ids=["again", "with a gap"])
    def test_a_row_that_does_not_follow_takes_the_whole_batch_with_it(
        self, store: Store, taken: slice
    ) -> None:
        rows = ledger_rows(3)
        store.commit(Batch(seq=1, head=b"h1", ledger=rows[:1]))
        with pytest.raises(StoreError, match="does not follow"):
            store.commit(Batch(seq=2, head=b"h2", ledger=rows[taken]))
        assert store.load() == Snapshot(head=b"h1", ledger=rows[:1])
        store.commit(Batch(seq=2, head=b"h2", ledger=rows[1:]))

    def test_a_row_with_another_past_is_refused(self, store: Store) -> None:
        store.commit(Batch(ledger=ledger_rows(1)))
        other, _ = open_ledger(b"e" * 16)
        _, second = other.release(DEVICE, b"r" * 32, TERMS)
        with pytest.raises(StoreError, match="does not follow"):
            store.commit(Batch(ledger=(second,)))
        assert store.load().ledger == ledger_rows(1)

    def test_a_batch_without_a_head_keeps_the_head(self, store: Store) -> None:
        store.commit(Batch(seq=1, head=b"h1", receipt=b"r1"))
        store.commit(Batch(documents={"a": b"1"}))
        found = store.load()
        assert (found.head, found.receipt) == (b"h1", b"r1")

    @pytest.mark.parametrize("seq", [1, 3, 7])
    def test_a_seq_that_does_not_follow_is_refused_whole(self, store: Store, seq: int) -> None:
        store.commit(Batch(seq=1, head=b"h1"))
        digest, data = named(LARGE)
        with pytest.raises(StoreError, match=f"head {seq} does not follow the durable 1"):
            store.commit(
                Batch(seq=seq, head=b"hx", objects=((digest, data),), documents={"a": b"x"})
            )
        assert store.load() == Snapshot(head=b"h1")
        assert store.get(digest) is None
        store.commit(Batch(seq=2, head=b"h2"))
        assert store.load().head == b"h2"

    def test_an_adopted_head_may_jump_forward_only(self, store: Store) -> None:
        store.commit(Batch(seq=1, head=b"h1"))
        store.commit(Batch(seq=9, head=b"h9", adopt=True))
        with pytest.raises(StoreError):
            store.commit(Batch(seq=9, head=b"again", adopt=True))
        store.commit(Batch(seq=10, head=b"h10"))
        assert store.load().head == b"h10"

    @pytest.mark.parametrize("data", [SMALL, LARGE])
    def test_a_retired_object_is_gone(self, store: Store, data: bytes) -> None:
        digest, _ = named(data)
        store.commit(Batch(objects=((digest, data),)))
        store.commit(Batch(retire=(digest, bytes(32))))
        assert store.get(digest) is None

    def test_retiring_an_object_keeps_a_document_with_the_same_bytes(self, store: Store) -> None:
        digest, _ = named(LARGE)
        store.commit(Batch(objects=((digest, LARGE),), documents={"update": LARGE}))
        store.commit(Batch(retire=(digest,)))
        assert store.get(digest) is None
        assert store.load().documents["update"] == LARGE

    def test_replacing_a_document_keeps_an_object_with_the_same_bytes(self, store: Store) -> None:
        digest, _ = named(LARGE)
        store.commit(Batch(objects=((digest, LARGE),), documents={"update": LARGE}))
        store.commit(Batch(documents={"update": b"new"}))
        assert store.get(digest) == LARGE


def files_under(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "objects").rglob("*") if p.is_file())


def test_everything_is_there_after_a_reopen(reopened: Callable[[], DeviceStore]) -> None:
    digest, data = named(LARGE)
    reopened().commit(Batch(seq=1, head=b"h", objects=((digest, data),), documents={"a": SMALL}))
    again = reopened()
    assert again.load() == Snapshot(head=b"h", documents={"a": SMALL})
    assert again.get(digest) == LARGE


def test_replaced_and_retired_large_files_leave_the_disk(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    digest, data = named(LARGE)
    store.commit(Batch(objects=((digest, data),), documents={"base": LARGE + b"1"}))
    store.commit(Batch(documents={"base": LARGE + b"2"}, retire=(digest,)))
    assert files_under(tmp_path) == [sha256(LARGE + b"2").hexdigest()]
    store.close()


def test_files_that_nothing_names_are_swept_at_start(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    store.commit(Batch(documents={"base": LARGE}))
    store.close()
    kept = files_under(tmp_path)
    (tmp_path / "objects" / kept[0][:2] / f"{'0' * 64}.tmp").write_bytes(b"half")
    (tmp_path / "objects" / "ff").mkdir(exist_ok=True)
    (tmp_path / "objects" / "ff" / ("f" * 64)).write_bytes(b"orphan")
    store = DeviceStore(tmp_path)
    assert files_under(tmp_path) == kept
    assert store.load().documents["base"] == LARGE
    store.close()


def test_damage_is_told_and_not_served(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    digest, data = named(LARGE)
    store.commit(Batch(objects=((digest, data),)))
    path = next(p for p in (tmp_path / "objects").rglob("*") if p.is_file())
    path.write_bytes(data[:-1] + b"!")
    with pytest.raises(StoreError, match="damaged"):
        store.get(digest)
    store.commit(Batch(objects=((digest, data),)))  # a good copy from elsewhere heals it
    assert store.get(digest) == data
    path.unlink()
    with pytest.raises(StoreError, match="lost its file"):
        store.get(digest)
    store.close()


def test_a_flipped_bit_in_the_database_is_told(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    store.commit(Batch(documents={"base": SMALL}))
    store.close()
    with sqlite3.connect(tmp_path / "store.db") as raw:
        raw.execute("UPDATE documents SET data = ?", (SMALL[:-1] + b"!",))
    raw.close()
    store = DeviceStore(tmp_path)
    with pytest.raises(StoreError, match="document 'base' is damaged"):
        store.load()
    store.close()


def test_models_on_disk_are_private(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path / "state")
    store.commit(Batch(documents={"base": LARGE, "small": SMALL}))
    for path in (tmp_path / "state").rglob("*"):
        forbidden = stat.S_IRWXG | stat.S_IRWXO
        assert not path.stat().st_mode & forbidden, path.name
    store.close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    with pytest.raises(UserError, match="another process uses") as refused:
        DeviceStore(tmp_path)
    assert refused.value.code == "GF503"
    store.close()
    DeviceStore(tmp_path).close()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    DeviceStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "store.db") as raw:
        raw.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    raw.close()
    before = (tmp_path / "store.db").read_bytes()
    with pytest.raises(UserError, match=f"schema {SCHEMA + 1}") as refused:
        DeviceStore(tmp_path)
    assert refused.value.code == "GF502"
    assert (tmp_path / "store.db").read_bytes() == before


def test_a_file_that_is_no_database_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(UserError, match=r"store\.db is damaged") as refused:
        DeviceStore(tmp_path)
    assert refused.value.code == "GF501"


class FullDisk(Files):
    """Fails as a full or failing disk does, from the given call on, until told otherwise."""

    def __init__(self, errno_: int) -> None:
        self.errno = errno_
        self.broken = False

    def write(self, path: Path, data: bytes) -> None:
        if self.broken:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(self.errno, os.strerror(self.errno))
        super().write(path, data)


@pytest.mark.parametrize(
    ("errno_", "told"), [(28, "disk is full"), (5, "input/output"), (30, "read-only")]
)
def test_a_disk_that_fails_at_a_file(tmp_path: Path, errno_: int, told: str) -> None:
    disk = FullDisk(errno_)
    store = DeviceStore(tmp_path, disk)
    store.commit(Batch(seq=1, head=b"h1", documents={"base": LARGE}))
    before = files_under(tmp_path)
    disk.broken = True
    digest, data = named(LARGE + b"2")
    with pytest.raises(StoreError, match=told):
        store.commit(Batch(seq=2, head=b"h2", objects=((digest, data),), documents={"x": b"y"}))
    assert store.load() == Snapshot(head=b"h1", documents={"base": LARGE})
    assert files_under(tmp_path) == before  # no partial file
    disk.broken = False
    store.commit(Batch(seq=2, head=b"h2", objects=((digest, data),)))
    assert store.get(digest) == data
    store.close()


def test_a_full_database_is_told_and_recovers(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    store.commit(Batch(seq=1, head=b"h1"))
    writer = store._connection()
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="disk is full"):
        store.commit(Batch(seq=2, head=b"h2", documents={"a": bytes(60_000)}))
    assert store.load() == Snapshot(head=b"h1")
    writer.execute("PRAGMA max_page_count = 1000000")
    store.commit(Batch(seq=2, head=b"h2", documents={"a": bytes(60_000)}))
    assert store.load().head == b"h2"
    store.close()


_LIMITED = """
import resource, sys
from pathlib import Path
from device_agent.store import DeviceStore
from gossipfl.errors import StoreError
from gossipfl.durable import Batch
store = DeviceStore(Path(sys.argv[1]))
store.commit(Batch(seq=1, head=b"h1"))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
seq, failed = 2, 0
for turn in range(40):
    try:
        store.commit(Batch(seq=seq, head=b"h%d" % seq, documents={"a": bytes([turn]) * 60_000}))
        seq += 1
    except StoreError as error:
        failed += 1
        head = store.load().head
        if head != b"h%d" % (seq - 1):
            sys.exit(f"unexpected head {head} after {error}")
        if failed == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(failed, store.load().head == b"h%d" % (seq - 1))
"""


def test_a_real_write_limit_never_loses_an_acknowledged_commit(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["3", "True"], done.stderr


# --- the ledger -----------------------------------------------------------------------------------


def test_nobody_edits_the_ledger_with_a_slip_of_the_hand(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path / "state")
    store.commit(Batch(ledger=ledger_rows(2)))
    store.close()
    database = sqlite3.connect(tmp_path / "state" / "store.db")
    for statement in ("DELETE FROM ledger", "UPDATE ledger SET data = x'00'"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
    database.close()


def put_aside(folder: Path) -> None:
    """As `join --replace` does with an old identity's store."""
    aside = folder / "replaced" / "state"
    aside.mkdir(parents=True)
    for path in folder.glob("store.db*"):
        path.rename(aside / path.name)


def test_the_old_state_is_looked_for_where_join_puts_it() -> None:
    assert Path(OLD, "state", STATE[0]) == REPLACED


@pytest.mark.parametrize("count", [0, 3])
def test_a_new_identity_takes_over_what_the_old_one_spent(tmp_path: Path, count: int) -> None:
    store = DeviceStore(tmp_path)
    store.commit(Batch(seq=1, head=b"h1", ledger=ledger_rows(count) if count else ()))
    store.close()
    put_aside(tmp_path)
    new = DeviceStore(tmp_path)
    found = new.load()
    assert found.head is None
    assert found.ledger == (ledger_rows(count) if count else ())
    assert LEDGER_CARRIED in found.documents
    new.close()


@pytest.mark.parametrize("damage", ["gone", "garbage", "cut", "behind"])
def test_an_old_store_that_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, damage: str
) -> None:
    store = DeviceStore(tmp_path)
    documents = {LEDGER_BEHIND: b"1"} if damage == "behind" else {}
    store.commit(Batch(ledger=ledger_rows(3), documents=documents))
    store.close()
    put_aside(tmp_path)
    old = tmp_path / "replaced" / "state" / "store.db"
    match damage:
        case "gone":
            old.unlink()
        case "garbage":
            old.write_bytes(b"no database " * 1000)
        case "cut":
            database = sqlite3.connect(old)
            database.execute("DROP TRIGGER ledger_is_kept")
            database.execute("DELETE FROM ledger WHERE number = 2")
            database.commit()
            database.close()
    new = DeviceStore(tmp_path)
    assert new.load() == Snapshot()
    new.close()


def test_a_store_from_before_there_were_ledgers_is_taken_over(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    store.commit(Batch(seq=1, head=b"h1", documents={"a": b"1"}))
    store.close()
    database = sqlite3.connect(tmp_path / "store.db")
    database.execute("DROP TABLE ledger")
    database.execute("PRAGMA user_version = 1")
    database.commit()
    database.close()
    again = DeviceStore(tmp_path)
    assert again.load().head == b"h1"
    assert LEDGER_CARRIED in again.load().documents
    again.commit(Batch(seq=2, head=b"h2", ledger=ledger_rows(1)))
    assert again.load().ledger == ledger_rows(1)
    again.close()
