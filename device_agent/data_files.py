"""Reads folders of examples: .npz (x, y), pairs of .npy (x.npy and y.npy), .csv with a header.

Nothing is believed about a file: no pickle, a bound on what it may unpack to, and every fault is
told with file and row. Shapes and values are the business of `data`.
"""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gossipfl.errors import UserError

Array = npt.NDArray[Any]
FILES_MAX = 10_000  # guess: one file a minute for a week
CSV_CHUNK = 4_096  # rows turned into numbers at once


@dataclass(frozen=True, slots=True)
class Part:
    """What one file (or pair) holds, as found. `is_flat`: rows have no shape of their own."""

    name: str
    x: Array
    y: Array
    is_flat: bool = False
    lines: tuple[int, ...] = ()  # of a .csv: the line of each row

    def row(self, index: int) -> str:
        if self.lines:
            return f"line {self.lines[index]}"
        return f"row {index} (from 0)"


def signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """(name, bytes, mtime in ns) of every file: cheap to compare. Empty if there is no folder."""
    try:
        found = [(path, path.stat()) for path in folder.iterdir() if path.is_file()]
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise UserError("GF407", f"{folder}: {error.strerror or error}") from error
    return tuple(sorted((path.name, stat.st_size, stat.st_mtime_ns) for path, stat in found))


def read_folder(folder: Path, target: str, bytes_max: int) -> list[Part]:
    """Every example file of a folder, by name. Hidden files are left out. UserError GF407."""
    if not folder.is_dir():
        raise UserError("GF407", f"{folder} is not a folder")
    paths = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    if len(paths) > FILES_MAX:
        raise UserError("GF407", f"{folder} holds {len(paths)} files, at most {FILES_MAX}")
    parts: list[Part] = []
    left = bytes_max
    for path in paths:
        part = _read(path, target, left)
        if part is not None:
            parts.append(part)
            left -= part.x.nbytes + part.y.nbytes
            _require(left >= 0, path, "data.max_mb would be exceeded")
    return parts


def _read(path: Path, target: str, bytes_max: int) -> Part | None:
    try:
        match path.suffix.lower():
            case ".npz":
                return _read_npz(path, bytes_max)
            case ".npy":
                return _read_npy(path)
            case ".csv":
                return _read_csv(path, target, bytes_max)
            case ".parquet":
                raise UserError("GF407", f"{path}: .parquet is not read; write .npz or .csv")
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, csv.Error) as error:
        raise UserError("GF407", f"{path}: {error}") from error
    return None


def _read_npz(path: Path, bytes_max: int) -> Part:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    _require(unpacked <= bytes_max, path, "data.max_mb would be exceeded")
    with np.load(path, allow_pickle=False) as arrays:
        names = ", ".join(arrays.files)
        _require({"x", "y"} <= set(arrays.files), path, f"holds {names}; x and y are wanted")
        return Part(str(path), arrays["x"], arrays["y"])


def _read_npy(path: Path) -> Part | None:
    """`x.npy` with `y.npy`, `NAME_x.npy` with `NAME_y.npy`; the pair is read at its x."""
    stem, last = path.stem[:-1], path.stem[-1:]
    _require(last in ("x", "y") and stem[-1:] in ("", "_"), path, "is neither x.npy nor y.npy")
    other = path.with_name(f"{stem}{'y' if last == 'x' else 'x'}.npy")
    _require(other.is_file(), path, f"has no {other.name} beside it")
    if last == "y":
        return None
    # Mapped, not read: a header that promises too much must not allocate.
    x = np.load(path, mmap_mode="r", allow_pickle=False)
    y = np.load(other, mmap_mode="r", allow_pickle=False)
    return Part(str(path), x, y)


def _read_csv(path: Path, target: str, bytes_max: int) -> Part:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        _require(len(header) > 1, path, "needs a header line and at least two columns")
        wanted = [name.strip() for name in target.split(",")] if target else header[-1:]
        missing = [name for name in wanted if name not in header]
        _require(not missing, path, f"has no column {', '.join(missing)}: {', '.join(header)}")
        numbers: list[npt.NDArray[np.float64]] = []
        lines: list[int] = []
        chunk: list[list[str]] = []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                problem = (
                    f"line {reader.line_num}: {len(row)} columns, the header has {len(header)}"
                )
                raise UserError("GF407", f"{path}, {problem}")
            chunk.append(row)
            lines.append(reader.line_num)
            if len(chunk) == CSV_CHUNK:
                numbers.append(_numbers(path, header, chunk, lines))
                chunk = []
                _require(8 * len(lines) * len(header) <= bytes_max, path, "exceeds data.max_mb")
        if chunk:
            numbers.append(_numbers(path, header, chunk, lines))
    _require(bool(lines), path, "has a header and no rows")
    table = np.concatenate(numbers)
    is_target = np.array([name in wanted for name in header])
    y = table[:, [header.index(name) for name in wanted]]
    return Part(str(path), table[:, ~is_target], y, is_flat=True, lines=tuple(lines))


def _numbers(
    path: Path, header: list[str], chunk: list[list[str]], lines: list[int]
) -> npt.NDArray[np.float64]:
    """float64[rows, columns]. UserError with the line and the column of what is no number."""
    try:
        return np.array(chunk, dtype=np.float64)
    except ValueError:
        for row, line in zip(chunk, lines[-len(chunk) :], strict=True):
            for name, text in zip(header, row, strict=True):
                try:
                    float(text)
                except ValueError:
                    raise UserError(
                        "GF407", f"{path}, line {line}, column {name!r}: {text!r} is not a number"
                    ) from None
        raise


def _require(holds: bool, path: Path, what: str) -> None:
    if not holds:
        raise UserError("GF407", f"{path}: {what}")
