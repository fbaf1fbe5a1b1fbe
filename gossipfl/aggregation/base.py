"""What every rule takes and gives: rows in, a `Merge` out, a `RuleError` when it cannot.

N is own and received together, m' its size; f is the number of attackers assumed in one pull.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gossipfl.parameters import Matrix, Vector

Rows = Matrix | Sequence[Vector]
"""Received models: float32[m, d], or m separate float32[d] (the faster form, nothing is copied)."""

FINITE_CHUNK = 1 << 16
"""Values per dot product when looking for NaN: 256 kB, so that a second look finds them cached."""


class RuleError(ValueError):
    """The rule cannot be applied: its precondition on m and f, or the shape or values of a row."""


class NotFinite(ArithmeticError):
    """A distance or a value is NaN or infinite. Rules raise it; who runs them names the rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Merge:
    """The outcome of a rule.

    parameters: float32[d], always a fresh array.
    influence: one share 0..1 for each received row, in the order received; what is missing to 1 is
    the share of the own model.
    collapsed: received rows that had no vote of their own, because another row says the same.
    clusters: received rows that lie suspiciously close to two or more others, equal rows not
    counted. Both are empty unless the rule begins with `collapse`.
    """

    parameters: Vector
    influence: tuple[float, ...]
    collapsed: tuple[int, ...] = ()
    clusters: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """What a rule's arithmetic returns: the merge and a share for each row of N, summing to 1.

    collapsed and clusters as in `Merge`, but numbered in N.
    """

    parameters: Vector
    shares: tuple[float, ...]
    collapsed: tuple[int, ...] = ()
    clusters: tuple[int, ...] = ()


class Rule(Protocol):
    """A named way to merge."""

    @property
    def name(self) -> str: ...

    def check(self, m: int, f: int) -> None:
        """Raises RuleError if m received models beside the own one are too few for f."""

    def __call__(
        self,
        own: Vector | None,
        received: Rows,
        f: int,
        weights: Sequence[float] | None = None,
        squared: npt.NDArray[np.float64] | None = None,
    ) -> Merge:
        """own float32[d] (None: left out of the merge), received m rows; see `merge_step`."""


def as_rows(rule: str, own: Vector | None, received: Rows) -> list[Vector]:
    """N as a list, own first. Raises RuleError if a row is not float32 or lengths differ.

    Nothing is copied, except rows that are strided or not aligned to four bytes.
    """
    named = [] if own is None else [("the own model", own)]
    named += [(f"received row {index}", row) for index, row in enumerate(received)]
    if not named:
        raise RuleError(f"{rule}: there is no model to merge")
    count = named[0][1].size
    for name, row in named:
        if row.ndim != 1 or row.size != count or count == 0:
            shape = "x".join(str(size) for size in row.shape)
            raise RuleError(f"{rule}: {name} has shape {shape}, expected {max(count, 1)}")
        if row.dtype != np.float32:
            raise RuleError(f"{rule}: {name} is {row.dtype}, expected float32")
    return [_as_blas_takes_it(row) for _, row in named]


def _as_blas_takes_it(row: Vector) -> Vector:
    """Itself, as nearly always, or a copy: `np.require` looks longer than a rule runs."""
    flags = row.flags
    if flags.c_contiguous and flags.aligned:
        return row
    return np.require(row, np.float32, ["C", "A"])


def all_finite(vector: Vector) -> bool:
    """Whether no value is NaN or infinite. One pass, no temporaries unless it must look closer."""
    for start in range(0, vector.size, FINITE_CHUNK):
        part = vector[start : start + FINITE_CHUNK]
        # NaN and infinity survive a sum of squares; so may an overflow, hence the second look.
        if not math.isfinite(np.dot(part, part)) and not np.isfinite(part).all():
            return False
    return True


def refuse_not_finite(rule: str, rows: Sequence[Vector]) -> RuleError:
    """The error for a merge that holds NaN or infinity: it says which rows brought them."""
    bad = [index for index, row in enumerate(rows) if not np.isfinite(row).all()]
    if bad:
        listed = ", ".join(str(index) for index in bad)
        return RuleError(f"{rule}: NaN or infinity in rows {listed} of {len(rows)} (own is first)")
    return RuleError(f"{rule}: the merge overflows float32")
