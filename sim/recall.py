"""What one process has verified, hashed or decoded before: each object once, whoever asks.

All nodes of a world are handed the same bytes, and the outcome of a pure function of bytes is the
same for all of them. Keys are the function and its whole arguments, compared by content, so a
single flipped bit is another key: the nodes make every check that the shipped ones make. Failures
are not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from gossipfl.pure import P, T

BYTES_MAX = 128 * 1024 * 1024
"""Bytes in the keys of one generation: guess, some thousand updates of the digits MLP. What was
decoded from them is as large again."""
ENTRIES_MAX = 400_000
"""Outcomes in one generation: guess, 1,000 devices make some 5 per head, receipt and update."""


class Recall:
    """A `Pure`. Two generations, so that the least used half leaves at once and without a list of
    who was used when."""

    def __init__(self, bytes_max: int = BYTES_MAX, entries_max: int = ENTRIES_MAX) -> None:
        self._bytes_max = bytes_max
        self._entries_max = entries_max
        self._young: dict[Any, Any] = {}
        self._old: dict[Any, Any] = {}
        self._held = 0
        self.runs = 0  # functions really run

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if kwargs:
            return function(*args, **kwargs)
        key = (function, args)
        found: T | Recall = self._young.get(key, self)
        if found is not self:
            return found  # type: ignore[return-value]
        return self._run(key, function, args)

    def _run(self, key: Any, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        found: Any = self._old.pop(key, self)
        if found is self:
            self.runs += 1
            found = function(*args)
        self._keep(key, args, found)
        return cast("T", found)

    def _keep(self, key: Any, args: tuple[Any, ...], found: Any) -> None:
        self._young[key] = found
        self._held += sum(len(arg) for arg in args if isinstance(arg, bytes))
        if self._held > self._bytes_max or len(self._young) > self._entries_max:
            self._old, self._young, self._held = self._young, {}, 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
