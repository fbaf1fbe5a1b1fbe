"""Which checker looks at what, found once for each kind of event instead of at each event."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gossipfl.events import Batch, Effect, Event
from gossipfl.shelf import Served
from sim.checkers.base import Checker
from sim.device import SimDevice

OnEvent = Callable[[SimDevice, Event], None]
OnEffects = Callable[[SimDevice, Event, Sequence[Effect]], None]
OnCommit = Callable[[SimDevice, Batch, bool], None]
OnServeHead = Callable[[SimDevice, bytes | None, Served], None]
OnServeObject = Callable[[SimDevice, bytes, bytes], None]


def looks(checker: Checker, hook: str) -> bool:
    """Does it do anything at this hook?"""
    return getattr(type(checker), hook) is not getattr(Checker, hook)


class Hooks:
    """The hooks of these checkers that do anything, in the order of the checkers."""

    def __init__(self, checkers: Sequence[Checker]) -> None:
        self.on_commit: list[OnCommit] = [c.on_commit for c in checkers if looks(c, "on_commit")]
        self.on_serve_head: list[OnServeHead] = [
            c.on_serve_head for c in checkers if looks(c, "on_serve_head")
        ]
        self.on_serve_object: list[OnServeObject] = [
            c.on_serve_object for c in checkers if looks(c, "on_serve_object")
        ]
        self._events = [c for c in checkers if looks(c, "on_event")]
        self._effects = [c for c in checkers if looks(c, "on_effects")]
        self._of_event: dict[type, list[OnEvent]] = {}
        self._of_effects: dict[tuple[type, frozenset[type]], list[OnEffects]] = {}

    def before(self, event: Event) -> list[OnEvent]:
        """Who looks at an event of this type."""
        found = self._of_event.get(type(event))
        if found is None:
            kind = type(event)
            found = [c.on_event for c in self._events if c.events is None or kind in c.events]
            self._of_event[kind] = found
        return found

    def after(self, event: Event, effects: Sequence[Effect]) -> list[OnEffects]:
        """Who looks at an event and effects of these types."""
        key = type(event), frozenset(map(type, effects))
        found = self._of_effects.get(key)
        if found is None:
            kinds = {key[0], *key[1]}
            found = [
                c.on_effects
                for c in self._effects
                if c.kinds is None or not c.kinds.isdisjoint(kinds)
            ]
            self._of_effects[key] = found
        return found
