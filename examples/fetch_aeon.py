"""Fetches two small sets of time series: they ship inside the aeon wheel, nothing else is fetched.

    python examples/fetch_aeon.py [FOLDER]        (default .gossipfl-data/aeon)

JapaneseVowels (Kudo, Toyama and Shimbo 1999): two vowels said by nine speakers, 12 coefficients,
7 to 29 steps, 270 to train on and 370 to test; the speaker is the class. BasicMotions (Clements
2015): six channels of a smart watch, 100 steps, four motions, 40 and 40. pip downloads the wheel of
one pinned version without its dependencies, its SHA-256 is compared, and the series are unpacked to
FOLDER/japanese_vowels.npz and FOLDER/basic_motions.npz: x float32[n, channels, steps], short series
end in zeros, y int64[n], and `train`, how many of the first ones are the training set. Nothing is
installed, and nothing of it is committed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

PACKAGE = "aeon==1.6.0"
WHEEL_SHA256 = "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409"
SETS = {"japanese_vowels": "JapaneseVowels", "basic_motions": "BasicMotions"}
SHAPES = {"japanese_vowels": (640, 12, 29), "basic_motions": (80, 6, 100)}
FOLDER = Path(".gossipfl-data/aeon")


def fetch(folder: Path = FOLDER) -> list[Path]:
    """The paths of the .npz files, fetched if they are not there yet."""
    targets = [folder / f"{name}.npz" for name in SETS]
    if all(target.exists() for target in targets):
        return targets
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _download(Path(scratch))
        folder.mkdir(parents=True, exist_ok=True)
        for name, target in zip(SETS, targets, strict=True):
            x, y, train = _read(wheel, SETS[name])
            if x.shape != SHAPES[name]:
                raise SystemExit(f"{name} has the shape {x.shape}")
            partial = folder / f".{name}.npz.partial"
            with partial.open("wb") as file:
                np.savez_compressed(file, x=x, y=y, train=train)
            partial.replace(target)
    return targets


def _download(scratch: Path) -> Path:
    """The wheel, of the pinned bytes."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    subprocess.run([*command, str(scratch), PACKAGE], check=True)
    (wheel,) = scratch.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise SystemExit(f"{wheel.name} is not the pinned file: {found}")
    return wheel


def _read(wheel: Path, name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """x, y and how many of the first are to be trained on."""
    series: list[np.ndarray] = []
    labels: list[str] = []
    train = 0
    with zipfile.ZipFile(wheel) as archive:
        for part in ("TRAIN", "TEST"):
            text = archive.read(f"aeon/datasets/data/{name}/{name}_{part}.ts").decode()
            for line in text[text.lower().index("@data") :].splitlines()[1:]:
                if line.strip():
                    *channels, label = line.strip().split(":")
                    series.append(np.array([_numbers(c) for c in channels], np.float32))
                    labels.append(label)
            train = train or len(series)
    steps = max(one.shape[1] for one in series)
    x = np.zeros((len(series), series[0].shape[0], steps), np.float32)
    for row, one in enumerate(series):
        x[row, :, : one.shape[1]] = one
    known = sorted(set(labels))
    return x, np.array([known.index(label) for label in labels], np.int64), train


def _numbers(text: str) -> list[float]:
    return [float(value) for value in text.split(",")]


if __name__ == "__main__":
    for path in fetch(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER):
        print(path)  # noqa: T201
