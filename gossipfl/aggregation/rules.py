"""The registry of rules by name, and `merge_step`, which is what a node's worker runs.

A name is a rule's (`nna`), or steps and a rule joined by plus signs (`nnm+trimmed_mean`,
`collapse+nna`). Rules of other packages are found by entry point, see foreign.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from gossipfl.aggregation import foreign
from gossipfl.aggregation.anchored import Balance, CenteredClip, cs_plus
from gossipfl.aggregation.base import (
    Blend,
    Merge,
    NotFinite,
    Rows,
    Rule,
    RuleError,
    all_finite,
    as_rows,
    refuse_not_finite,
)
from gossipfl.aggregation.collapse import collapse
from gossipfl.aggregation.distances import Squares, pairwise
from gossipfl.aggregation.means import mean, weighted_mean
from gossipfl.aggregation.mixing import Mixed, neighbours
from gossipfl.aggregation.models import Models, Plain
from gossipfl.aggregation.ordered import median, trimmed_mean
from gossipfl.aggregation.selecting import krum, multi_krum, nna
from gossipfl.aggregation.weiszfeld import GeometricMedian
from gossipfl.parameters import Vector

Settings = GeometricMedian | CenteredClip | Balance
"""What may be set in a rule. It is the rule's arithmetic itself, with other values."""


@dataclass(frozen=True, slots=True)
class RowRule:
    """A rule over the rows of N. It needs m' >= per_faulty * f + least models.

    needs_own: the rule measures from the own model, so it cannot leave it out.
    also: a further precondition, as a foreign rule may have.
    """

    name: str
    blend: Callable[[Models, int], Blend]
    per_faulty: int
    least: int
    needs_own: bool = False
    also: Callable[[int, int], None] | None = None

    def check(self, m: int, f: int) -> None:
        """Raises RuleError if m received models beside the own one are too few for f."""
        self._check(m, 1, f)

    def __call__(
        self,
        own: Vector | None,
        received: Rows,
        f: int,
        weights: Sequence[float] | None = None,
        squared: Squares | None = None,
    ) -> Merge:
        """See `merge_step`."""
        if weights is not None:
            raise RuleError(f"{self.name}: takes no weights, because they void its bound on f")
        if own is None and self.needs_own:
            raise RuleError(f"{self.name}: needs the own model; median can do without it")
        self._check(len(received), int(own is not None), f)
        rows = as_rows(self.name, own, received)
        if squared is not None and squared.shape != (len(rows), len(rows)):
            raise RuleError(f"{self.name}: distances of another number of models")
        if squared is not None and not np.isfinite(squared).all():
            squared = None  # the rule itself finds out whether that counts
        models = Plain(rows, own is not None, squared)
        return _finish(self.name, own, rows, lambda: self.blend(models, f))

    def fits(self, models: int, f: int) -> bool:
        """Whether so many models, the own one among them, are enough for f."""
        try:
            self.check(models - 1, f)
        except RuleError:
            return False
        return True

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
        if self.also is not None:
            self.also(m, f)


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
        squared: Squares | None = None,
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
    "geometric_median": RowRule("geometric_median", GeometricMedian(), per_faulty=2, least=1),
    "centered_clip": RowRule(
        "centered_clip", CenteredClip(), per_faulty=2, least=1, needs_own=True
    ),
    "cs_plus": RowRule("cs_plus", cs_plus, per_faulty=2, least=1, needs_own=True),
    "balance": RowRule("balance", Balance(), per_faulty=0, least=1, needs_own=True),
}
"""Every rule of this package by the name that a policy uses."""


def _after_mixing(name: str, then: RowRule) -> RowRule:
    """nnm before a rule. Mixing itself needs an honest majority, m' >= 2f + 1."""

    def blend(models: Models, f: int) -> Blend:
        mixed = Mixed(models, neighbours(models, f))
        done = then.blend(mixed, f)
        return Blend(done.parameters, mixed.shares_of_base(done.shares))

    return replace(
        then,
        name=name,
        blend=blend,
        per_faulty=max(then.per_faulty, 2),
    )


def _after_collapse(name: str, then: RowRule) -> RowRule:
    """collapse before a rule. It measures from the own model."""

    def blend(models: Models, f: int) -> Blend:
        found = collapse(models, f, then.fits)
        done = then.blend(models.subset(found.kept), found.f)
        return Blend(done.parameters, found.spread(done.shares), found.collapsed, found.clusters)

    return replace(
        then,
        name=name,
        blend=blend,
        per_faulty=max(then.per_faulty, 2),
        needs_own=True,
    )


STEPS: dict[str, Callable[[str, RowRule], RowRule]] = {
    "collapse": _after_collapse,
    "nnm": _after_mixing,
}
"""What may stand before a rule, in the order in which it may: each once at most."""


@lru_cache(maxsize=256)  # a node asks for the policy's rule many times a round
def rule(name: str, settings: Settings | None = None) -> Rule:
    """The rule of that name, steps before it included.

    settings: other values for geometric_median, centered_clip or balance. Raises RuleError, with
    the nearest name, if there is no such rule, or if the settings are another rule's.
    """
    *steps, last = name.split("+")
    found = _last_rule(last, steps, settings)
    if not steps:
        return found
    for step in steps:
        if step not in STEPS:
            raise RuleError(f"no step is called {step!r}; {_nearest(step, STEPS)}")
    order = [list(STEPS).index(step) for step in steps]
    if order != sorted(set(order)):
        raise RuleError(f"{name}: steps come once each and in the order {'+'.join(STEPS)}")
    if not isinstance(found, RowRule):
        raise RuleError(f"{name}: weights void the bound on f, so no step helps {last}")
    for index in range(len(steps) - 1, -1, -1):
        found = STEPS[steps[index]]("+".join([*steps[index:], last]), found)
    return found


def fits(name: str, m: int, f: int) -> bool:
    """Whether there is such a rule and m received models beside the own one are enough for f."""
    try:
        rule(name).check(m, f)
    except RuleError:
        return False
    return True


@lru_cache(maxsize=64)  # asked after every merge, of a policy that rarely changes
def least(name: str, f: int) -> int:
    """The fewest received models that are enough for f; 0 if none of up to 4f + 8 is."""
    return next((m for m in range(1, 4 * f + 9) if fits(name, m, f)), 0)


def _last_rule(name: str, steps: Sequence[str], settings: Settings | None) -> Rule:
    """The rule without its steps."""
    found = RULES.get(name)
    if found is None and name in foreign.offered():
        loaded = foreign.load(name)
        found = RowRule(
            name,
            foreign.checked_blend(name, loaded),
            per_faulty=0,
            least=1,
            also=foreign.checked_precondition(name, loaded),
        )
    if found is None:
        if name in STEPS:
            raise RuleError(f"{name} is a step before a rule, as in {name}+nna")
        known = [*RULES, *foreign.offered()]
        raise RuleError(f"no rule is called {name!r}; {_nearest(name, known)}")
    if settings is None:
        return found
    if not isinstance(found, RowRule) or type(found.blend) is not type(settings):
        raise RuleError(f"{name}: {type(settings).__name__} is not this rule's settings")
    return replace(found, blend=settings)


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"the nearest name is {nearest[0]!r}"


def between(own: Vector | None, received: Rows) -> Squares:
    """float64[m', m'] of squared distances in N, own first; infinite or NaN only where a row is.

    Raises RuleError if a row is not float32[d].
    """
    return pairwise(as_rows("distances", own, received))


_rule = rule  # `merge_step` has an argument of that name


def merge_step(
    rule: str,
    own: Vector | None,
    received: Rows,
    f: int,
    weights: Sequence[float] | None = None,
    settings: Settings | None = None,
    squared: Squares | None = None,
) -> Merge:
    """Merges the own model with those received.

    own: float32[d], the device's own published model; None leaves it out (a joiner's first merge).
    received: m models of float32[d]; separate arrays are best, nothing is copied or changed.
    f: how many of them are assumed to be attackers' (see `assumed_faulty`).
    weights: weighted_mean only, one for each model of N: the own first, if it takes part.
    settings: other values for a rule that has some, such as `Balance(progress=t / T)`.
    squared: what `between(own, received)` returned, if the caller has need of it too.
    Raises RuleError if the rule is unknown, its precondition on m and f does not hold, a row is not
    float32[d], or NaN or infinity would count. `require_mergeable` comes first: it has the blame.
    """
    return _rule(rule, settings)(own, received, f, weights, squared)


def _finish(name: str, own: Vector | None, rows: list[Vector], blend: Callable[[], Blend]) -> Merge:
    """Runs the arithmetic, refuses a merge that is not finite, drops the own model's share."""
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            done = blend()
        except NotFinite as error:
            raise refuse_not_finite(name, rows) from error
        if not all_finite(done.parameters):
            raise refuse_not_finite(name, rows)
    first = int(own is not None)
    return Merge(
        done.parameters,
        done.shares[first:],
        tuple(place - first for place in done.collapsed),
        tuple(place - first for place in done.clusters),
    )
