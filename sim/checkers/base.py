"""What a checker is: hooks that see every event, effect, commit and answer of a history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gossipfl.config import Limits
from gossipfl.events import Batch, Effect, Event
from gossipfl.messages import Head
from gossipfl.objects import digest
from gossipfl.shelf import Served
from gossipfl.wire import check_signature, decode, open_envelope
from sim.device import SimDevice
from sim.recall import Recall

if TYPE_CHECKING:
    from sim.world import World


HEADS_KEPT = 50_000  # read once while they are about: guess, 1,000 devices issue two a round


class Violation(Exception):
    """An invariant does not hold. `checker` says which."""

    def __init__(self, text: str, checker: str = "World") -> None:
        super().__init__(text)
        self.checker = checker


class Checker:
    """Hooks that do nothing. `bind` comes first, `at_end` last.

    `events`: `on_event` is for these types alone; `kinds`: `on_effects` is for an event or an
    effect of these types alone. None: for all. Most of a history is requests and answers, which
    few checkers look at."""

    events: frozenset[type] | None = None
    kinds: frozenset[type] | None = None

    def bind(self, world: World) -> None:
        self.world = world

    def broken(self, text: str) -> Violation:
        """What to raise when this invariant does not hold."""
        return Violation(text, type(self).__name__)

    def on_event(self, device: SimDevice, event: Event) -> None:
        """About to be handled."""

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        """Asked for by the node in answer to the event; none is executed yet."""

    def on_commit(self, device: SimDevice, batch: Batch, done: bool) -> None:
        """`done`: it is durable, whatever the node was told."""

    def on_restore(self, device: SimDevice) -> None:
        """Its disk was replaced by an older copy."""

    def on_serve_head(self, server: SimDevice, asked: bytes | None, served: Served) -> None:
        """An honest device answers a head request; `asked` None: with its own."""

    def on_serve_object(self, server: SimDevice, name: bytes, data: bytes) -> None:
        """An honest device answers an object request."""

    def at_end(self) -> None:
        """The history is over."""


class Heads:
    """Decoded heads by envelope; None for what no member of the fleet signed as it stands."""

    def __init__(self) -> None:
        self._read = Recall(entries_max=HEADS_KEPT)

    def get(self, envelope: bytes, members: set[bytes]) -> Head | None:
        head = self._read(read_head, envelope)
        return head if head is not None and head.device in members else None

    def digest(self, data: bytes) -> bytes:
        """Of anything that is served or named."""
        return self._read(digest, data)


def read_head(data: bytes) -> Head | None:
    """What these bytes say, if the key that they name signed them."""
    try:
        envelope = open_envelope(data, "head", Limits().head_bytes)
        check_signature(envelope)
        head = decode(envelope.payload, Head)
    except Exception:  # hostile bytes: whatever is wrong, it is no head
        return None
    return head if head.device == envelope.device else None
