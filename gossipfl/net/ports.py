"""What the driver reaches the world through, and who may look on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gossipfl.events import (
    Effect,
    Event,
    FetchFailed,
    FetchHead,
    FetchObject,
    HeadReceived,
    Notice,
    ObjectReceived,
)
from gossipfl.interfaces import Store, Trainer
from gossipfl.net.worker import ThreadWorker, Worker


class NodeLike(Protocol):
    @property
    def deadline(self) -> float: ...
    @property
    def shelf(self) -> HasVersion: ...
    def handle(self, event: Event, now: float) -> list[Effect]: ...


class HasVersion(Protocol):
    version: int


class Fetcher(Protocol):
    """`gossipfl.net.client.Client`, or a transport in memory."""

    async def fetch_head(self, effect: FetchHead) -> HeadReceived | FetchFailed: ...
    async def fetch_object(self, effect: FetchObject) -> ObjectReceived | FetchFailed: ...


def _nothing(*_: Any) -> None:
    """A hook that nobody uses."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What the driver reaches the world through. Callbacks run in the loop and must be quick."""

    fetcher: Fetcher
    store: Store
    load_job: Callable[[bytes, bytes], Trainer]  # (bundle id, bundle) in the heavy thread
    notice: Callable[[Notice], None]
    cut_off: Callable[[bytes], None] = _nothing  # a TLS key
    head_changed: Callable[[], None] = _nothing
    heavy: Worker = field(default_factory=lambda: ThreadWorker("gossipfl-work"))
    disk: Worker = field(default_factory=lambda: ThreadWorker("gossipfl-disk"))


@dataclass(frozen=True, slots=True)
class Hooks:
    """For those who look on: a live table, a watchdog, a test."""

    on_event: Callable[[Event], None] = _nothing
    on_effect: Callable[[Effect], None] = _nothing
    on_turn: Callable[[], None] = _nothing  # at least every five seconds while the loop is healthy
    on_wait: Callable[[], None] = _nothing  # as often, while a commit takes long: the disk is slow
