"""nnm, a step before any rule: each model becomes the mean of its m'-f nearest (Allouah 2023).

Afterwards honest models lie closer together than attackers can use. The mixed models are never
written out: values are mixed chunk by chunk, distances follow from those between the models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gossipfl.aggregation.distances import EXACT_CHUNK, Squares
from gossipfl.aggregation.models import Models
from gossipfl.aggregation.selecting import doubtful_places, first_equals, smallest
from gossipfl.aggregation.sharing import SumProgram, sum_program
from gossipfl.parameters import Vector


def neighbours(models: Models, f: int) -> list[tuple[int, ...]]:
    """For each model the m'-f nearest, itself counted in, in row order. Ties go to the first."""
    squared = models.pairwise().copy()
    twins = first_equals(squared)
    keep = len(models) - f
    chosen = []
    for index in range(len(models)):
        doubtful = doubtful_places(squared[index], keep)
        different = sorted({twins[place] for place in doubtful})
        if len(different) > 1:
            exact = dict(zip(different, models.exact(index, different), strict=True))
            for place in doubtful:
                squared[index, place] = squared[place, index] = exact[twins[place]]
        chosen.append(tuple(sorted(smallest(squared[index], keep))))
    return chosen


class Mixed(Models):
    """Models that are means of equally many others."""

    __slots__ = ("_base", "_members", "_mixed", "_nearest", "_sums")

    def __init__(self, base: Models, nearest: Sequence[tuple[int, ...]]) -> None:
        super().__init__(base.size, base.owned)
        self._base = base
        self._nearest = nearest
        self._mixed = len(nearest[0])  # how many models are in each mean
        self._members = np.zeros((len(nearest), len(base)))  # 1 where a model is mixed in
        for index, chosen in enumerate(nearest):
            self._members[index, list(chosen)] = 1
        self._sums: SumProgram | None = None

    @property
    def _program(self) -> SumProgram:
        """Made when values are asked for: rules that go by distances and shares need none."""
        if self._sums is None:
            sets = [frozenset(chosen) for chosen in self._nearest]
            self._sums = sum_program(len(self._base), sets)
        return self._sums

    def __len__(self) -> int:
        return len(self._members)

    @property
    def scratch(self) -> int:
        return self._base.scratch + self._program.scratch

    def parts(self, length: int) -> Iterator[tuple[int, list[Vector]]]:
        scale = np.float32(1.0 / self._mixed)
        plan = self._program
        buffers: list[Vector] = []
        sums = sorted({register for register in plan.sums if register >= len(self._base)})
        for start, inputs in self._base.parts(length):
            if not buffers:
                buffers = list(np.empty((plan.scratch, inputs[0].size), np.float32))
            registers = inputs + [buffer[: inputs[0].size] for buffer in buffers]
            for left, right, out in plan.steps:
                np.add(registers[left], registers[right], out=registers[out])
            for register in sums:  # a set of one is the model itself, and its scale is 1
                np.multiply(registers[register], scale, out=registers[register])
            yield start, [registers[register] for register in plan.sums]

    def model(self, index: int) -> Vector:
        return self._base.mean([int(place) for place in np.flatnonzero(self._members[index])])

    def combine(self, shares: Sequence[float]) -> Vector:
        return self._base.combine(self.shares_of_base(shares))

    def shares_of_base(self, shares: Sequence[float]) -> tuple[float, ...]:
        """What share each model that was mixed in has, if the mixed ones have these."""
        spread = np.asarray(shares) @ self._members / self._mixed
        return tuple(float(share) for share in spread)

    def exact(self, index: int, others: Sequence[int]) -> list[float]:
        totals = [0.0] * len(others)
        changes = [self._members[index] - self._members[other] for other in others]
        for _, values in self._base.parts(EXACT_CHUNK):
            for place, change in enumerate(changes):
                difference = np.zeros(values[0].size)
                for row in np.flatnonzero(change):
                    difference += change[row] * values[row].astype(np.float64)
                totals[place] += float(difference.dot(difference))
        return [total / self._mixed**2 for total in totals]

    def subset(self, kept: Sequence[int]) -> Mixed:
        return Mixed(self._base, [self._nearest[index] for index in kept])

    def _pairwise(self) -> Squares:
        """|y_i - y_j|^2 = - c D c / (2 k^2), where c is +1 for what only i holds, -1 for only j.

        c sums to 0, and what both hold does not enter, however far away it lies.
        """
        base = self._base.pairwise()
        squared = np.empty((len(self), len(self)))
        for index, members in enumerate(self._members):
            change = self._members - members
            squared[index] = ((change @ base) * change).sum(axis=1)
        upper = np.triu(squared / (-2 * self._mixed**2), 1)
        return np.maximum(upper + upper.T, 0.0)
