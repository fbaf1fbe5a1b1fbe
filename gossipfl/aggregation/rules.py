"""The registry of rules, and `merge_step`, which is what a node's worker runs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gossipfl.aggregation.base import (
    Blend,
    Merge,
    Rows,
    Rule,
    RuleError,
    all_finite,
    as_rows,
    refuse_not_finite,
)
from gossipfl.aggregation.linear import mean, weighted_mean
from gossipfl.aggregation.ordered import median, trimmed_mean
from gossipfl.aggregation.selecting import krum, multi_krum, nna
from gossipfl.parameters import Vector


@dataclass(frozen=True, slots=True)
class RowRule:
    """A rule over the rows of N. It needs m' >= per_faulty * f + least models.

    needs_own: the rule measures from the own model, so it cannot leave it out.
    """

    name: str
    blend: Callable[[Sequence[Vector], int], Blend]
    per_faulty: int
    least: int
    needs_own: bool = False

    def check(self, m: int, f: int) -> None:
        """Raises RuleError if m received models beside the own one are too few for f."""
        self._check(m, 1, f)

    def __call__(
        self,
        own: Vector | None,
        received: Rows,
        f: int,
        weights: Sequence[float] | None = None,
    ) -> Merge:
        """See `merge_step`."""
        if weights is not None:
            raise RuleError(f"{self.name}: takes no weights, because they void its bound on f")
        if own is None and self.needs_own:
            raise RuleError(f"{self.name}: needs the own model; median can do without it")
        self._check(len(received), int(own is not None), f)
        rows = as_rows(self.name, own, received)
        return _finish(self.name, own, rows, lambda: self.blend(rows, f))

    def _check(self, m: int, own: int, f: int) -> None:
        need = self.per_faulty * f + self.least
        if m < 0 or f < 0:
            raise RuleError(f"{self.name}: m = {m} or f = {f} is negative")
        if m + own < need:
            needed = f"{self.per_faulty}f + {self.least} = {need}" if self.per_faulty else str(need)
            raise RuleError(
                f"{self.name}: m = {m} received models {'and' if own else 'without'} the own one "
                f"are {m + own}, but f = {f} needs {needed} or more"
            )


@dataclass(frozen=True, slots=True)
class WeightedRule:
    """weighted_mean: the one rule that takes weights, and assumes no attackers whatever f says."""

    name: str = "weighted_mean"

    def check(self, m: int, f: int) -> None:
        """Raises RuleError if f is negative; one model is enough."""
        if m < 0 or f < 0:
            raise RuleError(f"{self.name}: m = {m} or f = {f} is negative")

    def __call__(
        self,
        own: Vector | None,
        received: Rows,
        f: int,
        weights: Sequence[float] | None = None,
    ) -> Merge:
        """See `merge_step`."""
        self.check(len(received), f)
        rows = as_rows(self.name, own, received)
        return _finish(self.name, own, rows, lambda: weighted_mean(rows, weights))


RULES: dict[str, Rule] = {
    "mean": RowRule("mean", mean, per_faulty=0, least=1),
    "weighted_mean": WeightedRule(),
    "median": RowRule("median", median, per_faulty=2, least=1),
    "trimmed_mean": RowRule("trimmed_mean", trimmed_mean, per_faulty=2, least=1),
    "krum": RowRule("krum", krum, per_faulty=2, least=3),
    "multi_krum": RowRule("multi_krum", multi_krum, per_faulty=2, least=3),
    "nna": RowRule("nna", nna, per_faulty=2, least=1, needs_own=True),
}
"""Every rule by the name that a policy uses."""


def rule(name: str) -> Rule:
    """The rule of that name. Raises RuleError, with the nearest name, if there is none."""
    return _look_up(name)


def _look_up(name: str) -> Rule:
    found = RULES.get(name)
    if found is None:
        nearest = difflib.get_close_matches(name, RULES, n=1, cutoff=0.0)
        raise RuleError(f"no rule is called {name!r}; the nearest name is {nearest[0]!r}")
    return found


def merge_step(
    rule: str,
    own: Vector | None,
    received: Rows,
    f: int,
    weights: Sequence[float] | None = None,
) -> Merge:
    """Merges the own model with those received.

    own: float32[d], the device's own published model; None leaves it out (a joiner's first merge).
    received: m models of float32[d]; separate arrays are best, nothing is copied or changed.
    f: how many of them are assumed to be attackers' (see `assumed_faulty`).
    weights: weighted_mean only, one for each model of N: the own first, if it takes part.
    Raises RuleError if the rule is unknown, its precondition on m and f does not hold, a row is not
    float32[d], or NaN or infinity would count. `require_mergeable` comes first: it has the blame.
    """
    return _look_up(rule)(own, received, f, weights)


def _finish(name: str, own: Vector | None, rows: list[Vector], blend: Callable[[], Blend]) -> Merge:
    """Runs the arithmetic, refuses a merge that is not finite, drops the own model's share."""
    with np.errstate(over="ignore", invalid="ignore"):
        done = blend()
        if not all_finite(done.parameters):
            raise refuse_not_finite(name, rows)
    return Merge(done.parameters, done.shares if own is None else done.shares[1:])
