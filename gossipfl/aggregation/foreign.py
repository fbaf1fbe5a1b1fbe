"""Rules from other packages, by the entry point group `gossipfl.rules`.

An entry point's name is the rule's name, its object is a `Rule`: `check(m, f)` and
`__call__(own, received, f) -> Merge`. A foreign rule is code that its owner chose to install, but
it is still checked: whatever it raises or returns out of order becomes a RuleError, so that a node
keeps its own model and says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from gossipfl.aggregation.base import Blend, Merge, RuleError
from gossipfl.aggregation.models import Models
from gossipfl.parameters import Vector

GROUP = "gossipfl.rules"

SUM_SLACK = 1e-6
"""By how much float32 shares may sum to more than 1."""


@lru_cache(maxsize=1)  # packages do not change under a running process
def offered() -> dict[str, tuple[EntryPoint, ...]]:
    """Entry points by the rule's name. More than one for a name is an error when it is used."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=GROUP):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def load(name: str) -> Any:
    """The object behind a foreign rule's name. Raises RuleError if it is not a rule."""
    points = offered()[name]
    if len(points) > 1:
        places = ", ".join(point.value for point in points)
        raise RuleError(f"{name}: more than one package offers this rule: {places}")
    try:
        loaded = points[0].load()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise RuleError(f"{name}: {points[0].value} cannot be loaded: {reason}") from error
    if (
        isinstance(loaded, type)
        or not callable(loaded)
        or not callable(getattr(loaded, "check", None))
    ):
        raise RuleError(f"{name}: {points[0].value} is not a rule: it needs check and __call__")
    return loaded


def checked_precondition(name: str, foreign: Any) -> Callable[[int, int], None]:
    """The foreign rule's check, raising nothing but RuleError."""

    def check(m: int, f: int) -> None:
        try:
            foreign.check(m, f)
        except RuleError:
            raise
        except Exception as error:
            raise RuleError(f"{name}: {type(error).__name__}: {error}") from error

    return check


def checked_blend(name: str, foreign: Any) -> Callable[[Models, int], Blend]:
    """The foreign rule's arithmetic: it sees read-only models, and its answer is checked.

    After a step such as nnm it gets whole models, which takes m' x d of memory.
    """

    def blend(models: Models, f: int) -> Blend:
        rows = [_read_only(models.model(index)) for index in range(len(models))]
        own = rows[0] if models.owned else None
        received = rows[1:] if models.owned else rows
        try:
            answer = foreign(own, received, f)
        except RuleError:
            raise
        except Exception as error:
            raise RuleError(f"{name}: {type(error).__name__}: {error}") from error
        parameters, influence = _checked(name, answer, models.size, len(received))
        if any(np.may_share_memory(parameters, row) for row in rows):
            parameters = parameters.copy()
        rest = (max(0.0, 1.0 - math.fsum(influence)),) if models.owned else ()
        return Blend(parameters, (*rest, *influence))

    return blend


def _read_only(row: Vector) -> Vector:
    view = row.view()
    view.flags.writeable = False
    return view


def _checked(name: str, answer: object, size: int, m: int) -> tuple[Vector, tuple[float, ...]]:
    """What a foreign rule returned, if it is a merge. Finite is checked for all rules alike."""
    if not isinstance(answer, Merge):
        raise RuleError(f"{name}: returned {type(answer).__name__}, expected Merge")
    parameters = answer.parameters
    if not isinstance(parameters, np.ndarray) or parameters.dtype != np.float32:
        raise RuleError(f"{name}: returned parameters that are not a float32 array")
    if parameters.shape != (size,):
        raise RuleError(f"{name}: returned shape {parameters.shape}, expected {(size,)}")
    try:
        influence = tuple(float(share) for share in answer.influence)
    except (TypeError, ValueError) as error:
        raise RuleError(f"{name}: returned an influence that is no list of numbers") from error
    if len(influence) != m:
        raise RuleError(f"{name}: returned {len(influence)} influences for {m} models")
    if not all(0 <= share <= 1 for share in influence) or math.fsum(influence) > 1 + SUM_SLACK:
        raise RuleError(f"{name}: returned influences outside 0..1 or summing to more than 1")
    return np.require(parameters, np.float32, ["C", "W"]), influence
