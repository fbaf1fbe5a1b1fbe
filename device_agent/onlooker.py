"""Looks over the driver's shoulder: log lines, progress, the watchdog, and who waits locally."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from device_agent.progress import Progress
from gossipfl.events import Effect, Event, Notice, Start, Stored, StoreFailed, Topic
from gossipfl.net.notify import Notifier
from gossipfl.net.ports import Hooks

HAND_S = 5.0  # how long a local request waits for the node to have handled it

log = logging.getLogger(__name__)
Said = list[tuple[str, bool]]
"""What the node said: (text, whether it is a warning)."""


class Onlooker:
    """Its `hooks` go into the driver. `name` is what systemd shows."""

    def __init__(self, name: str, progress: Progress, notifier: Notifier) -> None:
        self._name = name
        self._progress = progress
        self._notifier = notifier
        self._current: Event | None = None
        self._awaited: dict[int, tuple[asyncio.Future[None], Said]] = {}
        self._fed_at = time.monotonic()
        self.store_problem = ""
        self.first_round = asyncio.Event()  # the first merge of this process

    @property
    def hooks(self) -> Hooks:
        return Hooks(self._event, self._effect, self._turn, self._feed)

    async def hand(self, event: Event, submit: Callable[[Event], Awaitable[None]]) -> Said:
        """Gives the node an event by `submit` and waits until it is handled: what was said."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        said: Said = []
        self._awaited[id(event)] = (future, said)  # we hold the event, so its id is its own
        try:
            await submit(event)
            with suppress(TimeoutError):
                async with asyncio.timeout(HAND_S):
                    await future
            return said
        finally:
            del self._awaited[id(event)]

    def _event(self, event: Event) -> None:
        self._current = event
        match event:
            case Start():
                self._progress.ready()
                self._notifier.ready(self._name)
            case StoreFailed(_, reason):
                self.store_problem = reason
            case Stored():
                self.store_problem = ""

    def _effect(self, effect: Effect) -> None:
        if not isinstance(effect, Notice):
            return
        log.log(logging.WARNING if effect.warning else logging.INFO, "%s", effect.text)
        if effect.topic is Topic.MERGE:
            self._progress.merged()
            self.first_round.set()
            self._notifier.status(effect.text)
        awaited = self._awaited.get(id(self._current))
        if awaited is not None:
            awaited[1].append((effect.text, effect.warning))

    def _turn(self) -> None:
        awaited = self._awaited.get(id(self._current))
        if awaited is not None and not awaited[0].done():
            awaited[0].set_result(None)
        self._current = None
        self._feed()

    def _feed(self) -> None:
        """The watchdog, from the driver's own loop: who feeds it is who would hang."""
        watchdog_s = self._notifier.watchdog_s
        if watchdog_s is not None and time.monotonic() - self._fed_at > watchdog_s / 4:
            self._fed_at = time.monotonic()
            self._notifier.alive()
