"""The models of one merge, as a rule sees them.

A rule asks for values chunk by chunk, for distances, and for sums of models times shares; it never
holds an m x d matrix. So a step before the rule (nnm, collapse) can hand it models that exist
nowhere as a whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from gossipfl.aggregation.base import NotFinite
from gossipfl.aggregation.distances import (
    Squares,
    exact_squared_distances,
    pairwise,
    squared_distances,
)
from gossipfl.aggregation.linear import combine, mean_of
from gossipfl.parameters import Vector


class Models(ABC):
    """N: the own model first, if it takes part, then those received."""

    __slots__ = ("_squared", "owned", "size")

    def __init__(self, size: int, owned: bool) -> None:
        self.size = size  # d
        self.owned = owned  # whether the first model is the own one
        self._squared: Squares | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def scratch(self) -> int:
        """How many chunks `parts` keeps in cache beside one for each model."""

    @abstractmethod
    def parts(self, length: int) -> Iterator[tuple[int, list[Vector]]]:
        """(start, one float32[length] for each model) along d; the last chunk may be shorter.

        They are valid until the next step and not to be written.
        """

    @abstractmethod
    def model(self, index: int) -> Vector:
        """float32[d]: one whole model; not to be written."""

    @abstractmethod
    def combine(self, shares: Sequence[float]) -> Vector:
        """float32[d], fresh: the sum of the models times their shares."""

    @abstractmethod
    def exact(self, index: int, others: Sequence[int]) -> list[float]:
        """Squared distances from one model to others, in float64 and slow."""

    @abstractmethod
    def subset(self, kept: Sequence[int]) -> Models:
        """Some of the models, the first among them."""

    @abstractmethod
    def _pairwise(self) -> Squares: ...

    def mean(self, kept: Sequence[int]) -> Vector:
        """float32[d], fresh: the plain mean of the models kept."""
        shares = [0.0] * len(self)
        for index in kept:
            shares[index] = 1.0 / len(kept)
        return self.combine(shares)

    def pairwise(self) -> Squares:
        """float64[n, n] of squared distances, computed once; not to be written."""
        if self._squared is None:
            squared = self._pairwise()
            if not np.isfinite(squared).all():
                raise NotFinite
            self._squared = squared
        return self._squared

    def from_first(self) -> Squares:
        """float64[n]: squared distances from the first model, a fresh array."""
        return np.array(self.pairwise()[0], np.float64)


class Plain(Models):
    """Models that exist as rows. Squared distances may be known already."""

    __slots__ = ("rows",)

    def __init__(self, rows: Sequence[Vector], owned: bool, squared: Squares | None = None) -> None:
        super().__init__(rows[0].size, owned)
        self.rows = list(rows)
        self._squared = squared

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def scratch(self) -> int:
        return 0

    def parts(self, length: int) -> Iterator[tuple[int, list[Vector]]]:
        for start in range(0, self.size, length):
            yield start, [row[start : start + length] for row in self.rows]

    def model(self, index: int) -> Vector:
        return self.rows[index]

    def combine(self, shares: Sequence[float]) -> Vector:
        return combine(self.rows, shares)

    def mean(self, kept: Sequence[int]) -> Vector:
        return mean_of([self.rows[index] for index in kept])

    def exact(self, index: int, others: Sequence[int]) -> list[float]:
        return exact_squared_distances(self.rows[index], [self.rows[other] for other in others])

    def _pairwise(self) -> Squares:
        return pairwise(self.rows)

    def from_first(self) -> Squares:
        """As above; without the other distances if nobody has asked for them."""
        if self._squared is not None:
            return np.array(self._squared[0], np.float64)
        distances = np.array([0.0, *squared_distances(self.rows[0], self.rows[1:])])
        if not np.isfinite(distances).all():
            raise NotFinite
        return distances

    def subset(self, kept: Sequence[int]) -> Plain:
        """As above, with the distances that are known."""
        squared = None if self._squared is None else self._squared[np.ix_(kept, kept)]
        return Plain([self.rows[index] for index in kept], self.owned, squared)
