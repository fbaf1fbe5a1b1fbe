"""Commits whose whole outcome follows from their number, for the tests that kill a writer.

`batch(name, seq)` is what is committed as number seq, `expected(name, seq)` is all that may be seen
when seq is the newest durable one: so half a batch, a lost one and a stale one all show.
"""

from __future__ import annotations

import os
import sys
from hashlib import sha256
from pathlib import Path

from device_agent.store import INLINE_BYTES, DeviceStore
from gossipfl.durable import Batch, Snapshot
from gossipfl.privacy import DevicePrivacy, Unit
from gossipfl.privacy.entries import Row
from gossipfl.privacy.ledger import Terms, open_ledger

SPEC = DevicePrivacy(clip=1.0, z=100.0)
TERMS = Terms(epsilon=8.0, delta=1e-5, z=1.0, unit=Unit.DEVICE)
KEPT = 2  # objects of so many newest commits are kept, older ones are retired


def _bytes(seq: int, what: str, size: int) -> bytes:
    return (f"{what} {seq} ".encode() * (size // 4))[:size]


SIZES = {
    "small": (38_000, 38_000),  # an update of the digits model and a base
    "large": (INLINE_BYTES + 5_000, INLINE_BYTES + 9_000),
    "mixed": (INLINE_BYTES + 5_000, 900),
}


def update(name: str, seq: int) -> bytes:
    return _bytes(seq, "update", SIZES[name][0])


def batch(name: str, seq: int) -> Batch:
    data = update(name, seq)
    old = sha256(update(name, seq - KEPT)).digest()
    return Batch(
        seq=seq,
        head=b"head %d" % seq,
        receipt=b"receipt %d" % seq,
        objects=((sha256(data).digest(), data),),
        documents=_documents(name, seq),
        retire=(old,) if seq > KEPT else (),
        ledger=ledger(seq)[seq - 1 :],
    )


def ledger(seq: int) -> tuple[Row, ...]:
    """One row for each commit."""
    kept, row = open_ledger(b"d" * 16)
    rows = [row]
    while len(rows) < seq:
        kept, row = kept.release(SPEC, sha256(b"%d" % len(rows)).digest(), TERMS)
        rows.append(row)
    return tuple(rows)


def _documents(name: str, seq: int) -> dict[str, bytes]:
    return {"base": _bytes(seq, "base", SIZES[name][1]), "update": update(name, seq)}


def expected(name: str, seq: int) -> Snapshot:
    if seq == 0:
        return Snapshot()
    documents = _documents(name, seq)
    return Snapshot(b"head %d" % seq, b"receipt %d" % seq, documents, ledger(seq))


def run(name: str, folder: Path, commits: int, store: DeviceStore | None = None) -> None:
    """Commits one after the other and says each on stdout only when it is acknowledged."""
    store = store or DeviceStore(folder)
    for seq in range(1, commits + 1):
        store.commit(batch(name, seq))
        os.write(1, b"%d\n" % seq)
    store.close()


def problems(name: str, folder: Path, acknowledged: int) -> list[str]:
    """What is wrong with a state folder after a kill, in words; empty if nothing is."""
    try:
        store = DeviceStore(folder)
        snapshot = store.load()
    except Exception as error:
        return [f"unreadable: {error}"]
    found = []
    seq = int(snapshot.head.split()[1]) if snapshot.head else 0
    if seq not in (acknowledged, acknowledged + 1):
        found.append(f"durable {seq}, acknowledged {acknowledged}")
    if snapshot != expected(name, seq):
        found.append(f"half a batch at {seq}")
    for number in range(1, seq + 2):
        data = store.get(sha256(update(name, number)).digest())
        kept = seq - KEPT < number <= seq
        if data != (update(name, number) if kept else None):
            found.append(f"object {number} at {seq}")
    named = {sha256(data).hexdigest() for data in (update(name, n) for n in range(1, seq + 1))}
    named |= {sha256(data).hexdigest() for data in snapshot.documents.values()}
    files = {path.name for path in (folder / "objects").rglob("*") if path.is_file()}
    if not files <= named:
        found.append(f"left behind: {sorted(files - named)}")
    try:
        store.commit(batch(name, seq + 1))
    except Exception as error:
        found.append(f"cannot go on: {error}")
    store.close()
    return found


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
