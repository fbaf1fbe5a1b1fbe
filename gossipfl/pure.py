"""The seam for pure functions of bytes: checks, digests, decodings.

A device simply calls them. A process that holds many nodes may know the outcome already, because
another of them was given the same bytes: objects are named by their content, which makes that
exact. It says so by another `Pure` (the simulator's is `sim.recall`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Pure(Protocol):
    """Runs a function whose outcome depends on its arguments alone. Exceptions pass through."""

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...


def call(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What a device does: run it, each time."""
    return function(*args, **kwargs)
