"""A device's own examples: from a folder or a Python entry point to checked, split arrays.

Nothing of them leaves the device. The held-out part is chosen example by example, by a keyed hash
of the example itself: it stays the same as files are added, renamed or reordered, and two copies of
one example are never on both sides. Files in a subfolder `test` are a held-out part given by hand.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from device_agent import data_files
from device_agent.data_files import Part
from device_agent.setting_files import ENTRY_POINT
from device_agent.settings import DataSection
from gossipfl.errors import UserError

Array = npt.NDArray[Any]
TEST_FOLDER = "test"
_DTYPES: dict[str, type] = {"f32": np.float32, "i64": np.int64}
_HASH_BYTES = 8


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What a bundle wants of one example. Shapes are without the batch dimension."""

    input_shape: tuple[int, ...]
    input_dtype: str  # "f32" or "i64"
    target_shape: tuple[int, ...]
    target_dtype: str
    classes: int = 0  # i64 targets are 0 .. classes - 1; 0: not labels
    vocabulary: int | None = None  # i64 inputs are 0 .. vocabulary - 1

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> DataSpec:
        """From a bundle's manifest as plain values (input, target, classes, vocabulary)."""
        given, wanted = manifest["input"], manifest["target"]
        return cls(
            tuple(given.get("shape", ())),
            given["dtype"],
            tuple(wanted.get("shape", ())),
            wanted["dtype"],
            manifest.get("classes", 0),
            manifest.get("vocabulary"),
        )


@dataclass(frozen=True, slots=True)
class DataSet:
    """x: dtype[N, *input shape], y: dtype[N, *target shape]; both parts have at least one row."""

    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array


class DataSource:
    """Where a device's examples come from, as its settings say. It keeps none of them."""

    def __init__(self, settings: DataSection, spec: DataSpec) -> None:
        self._settings = settings
        self._spec = spec
        self._signature: object = None
        self.problem = ""  # why newer files were not taken up; empty if all is well

    @property
    def fingerprint(self) -> str:
        """Of the files that were read last; changes with any name, size or time. Empty before."""
        if self._signature is None:
            return ""
        return hashlib.sha256(repr(self._signature).encode()).hexdigest()

    def load(self) -> DataSet:
        """The data as of now. Raises UserError GF405 or GF407."""
        signature = self._look()
        data = self._read()
        self._signature = signature
        return data

    def newer(self) -> DataSet | None:
        """The data, if a file was added, removed or written since the last success.

        Looks at names, sizes and times only. A failure is told by `problem`, and tried again.
        """
        try:
            found = None if self._look() == self._signature else self.load()
        except UserError as error:
            self.problem = error.cause
            return None
        self.problem = ""
        return found

    def _look(self) -> object:
        """Changes whenever a file was added, removed or written."""
        if ENTRY_POINT.match(self._settings.source):
            return self._settings.source
        folder = Path(self._settings.source)
        return data_files.signature(folder), data_files.signature(folder / TEST_FOLDER)

    def _read(self) -> DataSet:
        if ENTRY_POINT.match(self._settings.source):
            parts, held = _from_entry_point(self._settings.source)
        else:
            parts, held = self._from_folder(Path(self._settings.source))
        x, y = _joined([_checked(part, self._spec) for part in parts])
        if held:
            test_x, test_y = _joined([_checked(part, self._spec) for part in held])
            return _whole(DataSet(x, y, test_x, test_y), self._settings.source)
        out = _held_out(x, y, self._settings)
        return _whole(DataSet(x[~out], y[~out], x[out], y[out]), self._settings.source)

    def _from_folder(self, folder: Path) -> tuple[list[Part], list[Part]]:
        limit = self._settings.max_mb * 1_000_000
        target = self._settings.target
        parts = data_files.read_folder(folder, target, limit)
        if not parts:
            raise UserError(
                "GF407", f"{folder} holds no examples: .npz (x, y), x.npy and y.npy, or .csv"
            )
        test = folder / TEST_FOLDER
        return parts, data_files.read_folder(test, target, limit) if test.is_dir() else []


def _from_entry_point(name: str) -> tuple[list[Part], list[Part]]:
    """`module:function` gives (x, y), or (train_x, train_y, test_x, test_y)."""
    module, _, function = name.partition(":")
    try:
        given = getattr(importlib.import_module(module), function)()
        arrays = [np.asarray(array) for array in given]
    except Exception as error:  # foreign code: whatever it raises is told, in one line
        raise UserError("GF407", f"{name}: {type(error).__name__}: {error}") from error
    match arrays:
        case [x, y]:
            return [Part(name, x, y)], []
        case [x, y, test_x, test_y]:
            return [Part(name, x, y)], [Part(f"{name} (test)", test_x, test_y)]
    raise UserError(
        "GF407", f"{name} gave {len(arrays)} arrays, not x, y or train_x, train_y, test_x, test_y"
    )


def _checked(part: Part, spec: DataSpec) -> tuple[Array, Array]:
    """The part in the bundle's shapes and types. Raises UserError GF405 with file and row."""
    x = _shaped(part, "x", part.x, spec.input_shape, spec.input_dtype)
    y = _shaped(part, "y", part.y, spec.target_shape, spec.target_dtype)
    if len(x) != len(y):
        raise UserError("GF405", f"{part.name}: {len(x)} rows of x and {len(y)} of y")
    if spec.vocabulary is not None:
        _in_range(part, "x", x, spec.vocabulary)
    if spec.classes:
        _in_range(part, "y", y, spec.classes)
    return x, y


def _shaped(part: Part, name: str, array: Array, shape: tuple[int, ...], dtype: str) -> Array:
    """Rows are reshaped where only the arrangement differs: a .csv is always flat."""
    found = array.shape[1:]
    size = int(np.prod(shape, dtype=np.int64))
    flat = part.is_flat or [n for n in found if n != 1] == [n for n in shape if n != 1]
    if array.ndim == 0 or int(np.prod(found, dtype=np.int64)) != size or not flat:
        raise UserError(
            "GF405", f"{part.name}: {name} has rows of shape {found}, the bundle wants {shape}"
        )
    if array.dtype.kind not in "fiub":
        raise UserError("GF405", f"{part.name}: {name} has type {array.dtype}, not numbers")
    array = array.reshape(len(array), *shape)
    with np.errstate(over="ignore", invalid="ignore"):
        converted: Array = np.ascontiguousarray(array, dtype=_DTYPES[dtype])
    if dtype == "f32":
        _fail_at(part, name, array, ~np.isfinite(converted), "is not a finite number")
    else:
        _fail_at(part, name, array, converted != array, "is not a whole number")
    return converted


def _in_range(part: Part, name: str, array: Array, count: int) -> None:
    wrong = (array < 0) | (array >= count)
    _fail_at(part, name, array, wrong, f"is not within 0 .. {count - 1}")


def _fail_at(part: Part, name: str, array: Array, wrong: Array, what: str) -> None:
    """Raises GF405 for the first wrong element, with its file and row."""
    if not wrong.any():
        return
    at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    place = f"{part.name}, {part.row(int(at[0]))}"
    raise UserError("GF405", f"{place}: {name} {array[at]!s} {what}")


def _joined(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _held_out(x: Array, y: Array, settings: DataSection) -> npt.NDArray[np.bool_]:
    """bool[N]: keyed BLAKE2b (RFC 7693) of each example, below `test_share` of its range."""
    key = settings.seed.to_bytes(8, "little")
    limit = int(settings.test_share * 2 ** (8 * _HASH_BYTES))
    hashes = (
        hashlib.blake2b(x[i].tobytes() + y[i].tobytes(), key=key, digest_size=_HASH_BYTES)
        for i in range(len(x))
    )
    out = (int.from_bytes(found.digest(), "big") < limit for found in hashes)
    return np.fromiter(out, dtype=np.bool_, count=len(x))


def _whole(data: DataSet, source: str) -> DataSet:
    for name, array in (("training", data.train_x), ("held-out", data.test_x)):
        if not len(array):
            raise UserError(
                "GF405",
                f"{source}: the {name} part is empty, of {len(data.train_x) + len(data.test_x)}"
                " examples",
                "add examples, or change data.test_share or data.seed",
            )
    return data
