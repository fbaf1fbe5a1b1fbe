"""From a device's raw arrays to what a bundle's graphs take: checked, scaled, cut and padded.

Labels are checked here, in numpy, before any step: a graph would read outside its arrays or raise
in the middle of training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gossipfl.bundle.manifest import DType, Manifest, Task
from gossipfl.errors import UserError

Array = npt.NDArray[Any]


def raw_inputs(manifest: Manifest, x: Array, what: str = "inputs") -> Array:
    """Raw inputs as f32 or i64 [N, *input shape], not yet scaled.

    Any shape with the right number of elements per example is taken (28x28 or 784 for 1x28x28).
    Raises UserError GF405.
    """
    x = _reshape(np.asarray(x), manifest.input.shape, what)
    if manifest.input.dtype is DType.I64:
        return _integers(x, manifest.vocabulary or 0, what)
    return _reals(x, what)


def prepare_inputs(manifest: Manifest, x: Array, what: str = "inputs") -> Array:
    """`raw_inputs`, scaled as the manifest says. Raises UserError GF405."""
    inputs = raw_inputs(manifest, x, what)
    scaling = manifest.preprocessing
    return _scaled(inputs, scaling.scale, scaling.offset, what)


def prepare_targets(manifest: Manifest, y: Array, what: str = "targets") -> Array:
    """Raw labels as i64 below `classes`, or raw float targets scaled. Raises UserError GF405."""
    y = _reshape(np.asarray(y), manifest.target.shape, what)
    if manifest.task is not Task.REGRESSION:
        return _integers(y, manifest.classes, what)
    scaling = manifest.preprocessing
    return _scaled(_reals(y, what), scaling.target_scale, scaling.target_offset, what)


def _reshape(values: Array, shape: list[int], what: str) -> Array:
    per_example = int(np.prod(shape, dtype=np.int64))
    count = len(values) if values.ndim else 0
    if values.ndim == 0 or (count and values.size != count * per_example):
        raise UserError(
            "GF405", f"{what} have the shape {list(values.shape)}, the bundle takes N x {shape}"
        )
    return values.reshape((count, *shape))


def _integers(values: Array, below: int, what: str) -> Array:
    if values.dtype.kind not in "iufb":
        raise UserError("GF405", f"{what} are {values.dtype}, not whole numbers")
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.floor(values))).all():
        raise UserError("GF405", f"{what} are not whole numbers")
    if values.size and (values.min() < 0 or values.max() >= below):
        raise UserError(
            "GF405",
            f"{what} go from {values.min():g} to {values.max():g}, allowed 0 to {below - 1}",
        )
    return np.ascontiguousarray(values, dtype=np.int64)


def _reals(values: Array, what: str) -> Array:
    """A float32 copy (the caller may scale it in place)."""
    if values.dtype.kind not in "iufb":
        raise UserError("GF405", f"{what} are {values.dtype}, not numbers")
    with np.errstate(over="ignore"):
        reals = np.array(values, dtype=np.float32, order="C")
    if not np.isfinite(reals).all():
        raise UserError("GF405", f"{what} hold NaN or infinity")
    return reals


def _scaled(values: Array, scale: float, offset: float, what: str) -> Array:
    if (scale, offset) == (1.0, 0.0):
        return values
    with np.errstate(over="ignore"):
        values *= np.float32(scale)
        values += np.float32(offset)
    if not np.isfinite(values).all():
        raise UserError("GF405", f"{what} are too large to be scaled")
    return values


@dataclass(frozen=True, slots=True)
class Cut:
    """One whole batch of examples; w is 0 where it is padding, `count` are real."""

    x: Array
    y: Array
    w: npt.NDArray[np.float32]
    count: int


class Examples:
    """Prepared examples of one split, read-only, cut into batches of B."""

    def __init__(self, manifest: Manifest, x: Array, y: Array, what: str) -> None:
        self.x = prepare_inputs(manifest, x, f"{what} inputs")
        self.y = prepare_targets(manifest, y, f"{what} targets")
        if len(self.x) != len(self.y):
            raise UserError("GF405", f"{what}: {len(self.x)} inputs and {len(self.y)} targets")
        self.x.setflags(write=False)
        self.y.setflags(write=False)
        self._batch = manifest.batch
        self._private_batch = manifest.private_batch
        self._ones = np.ones(self._batch, np.float32)

    def __len__(self) -> int:
        return len(self.x)

    def shuffled(self, rng: np.random.Generator, most: int | None = None) -> Iterator[Cut]:
        """All examples once, in the generator's order; at most `most` real ones to a batch."""
        size = min(most or self._batch, self._batch)
        order = rng.permutation(len(self))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield self._pad(self.x[chosen], self.y[chosen], self._batch)

    def taken(self, chosen: npt.NDArray[np.intp]) -> Iterator[tuple[int, Cut]]:
        """The examples with these indices, cut for dp_grad.onnx: (place in `chosen`, batch)."""
        for start in range(0, len(chosen), self._private_batch):
            some = chosen[start : start + self._private_batch]
            yield start, self._pad(self.x[some], self.y[some], self._private_batch)

    def in_order(self) -> Iterator[Cut]:
        """All examples once, as they stand; whole batches are views."""
        for start in range(0, len(self), self._batch):
            end = start + self._batch
            yield self._pad(self.x[start:end], self.y[start:end], self._batch)

    def _pad(self, x: Array, y: Array, batch: int) -> Cut:
        count = len(x)
        if count == batch:
            return Cut(x, y, self._ones[:batch], count)
        w = np.zeros(batch, np.float32)
        w[:count] = 1.0
        return Cut(pad(x, batch), pad(y, batch), w, count)


def pad(values: Array, batch: int) -> Array:
    """`values` with zeros up to `batch` examples."""
    padded = np.zeros((batch, *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    return padded
