"""Milliseconds of one commit: `python tests/device_agent/measure_store.py [FOLDER]`.

One commit is what a round makes durable: an update, a head, a receipt, the own base. Printed for a
model inside the database and the same model as files, so that the threshold can be judged here.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

from device_agent import store
from gossipfl.durable import Batch

COMMITS = 200
MODEL_BYTES = 38_000  # MLP 64-128-10


def measure(folder: Path, size: int) -> list[float]:
    device = store.DeviceStore(folder)
    taken = []
    kept: list[bytes] = []
    for seq in range(1, COMMITS + 1):
        data = seq.to_bytes(4, "big") * (size // 4)
        kept.append(sha256(data).digest())
        batch = Batch(
            seq=seq,
            head=bytes(400),
            receipt=bytes(900),
            objects=((kept[-1], data),),
            documents={"base": data[::-1], "round": b"%d" % seq},
            retire=(kept.pop(0),) if len(kept) > 3 else (),
        )
        started = time.perf_counter()
        device.commit(batch)
        taken.append((time.perf_counter() - started) * 1000)
    device.close()
    return taken


def main() -> None:
    where = sys.argv[1] if len(sys.argv) > 1 else None
    for label, size, inline in (
        ("38 kB in the database", MODEL_BYTES, store.INLINE_BYTES),
        ("38 kB as files", MODEL_BYTES, 1_000),
        ("4 MB as files", 4_000_000, store.INLINE_BYTES),
    ):
        store.INLINE_BYTES = inline
        with tempfile.TemporaryDirectory(dir=where) as folder:
            taken = measure(Path(folder), size)
        worst = statistics.quantiles(taken, n=100)[98]
        print(f"{label}: median {statistics.median(taken):.2f} ms, p99 {worst:.2f} ms")  # noqa: T201


if __name__ == "__main__":
    main()
