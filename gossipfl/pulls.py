"""Requests under way and the polls that start them. Everything a node learns, it asked for.

At most `pulls_out` object transfers and `heads_out` head requests are out at once; more objects
wait in a bounded queue. Answers to numbers that are not in the table are ignored.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from gossipfl.config import Limits
from gossipfl.events import Address, Cancel, Effect, FetchHead, FetchObject


class Purpose(StrEnum):
    """Why something is being fetched: decides who handles the answer."""

    CONTACT = "contact"  # first words with an address
    POLL = "poll"
    COLLECT = "collect"  # head and update for this round
    JOIN = "join"  # models to start from
    RECONCILE = "reconcile"  # our own head, as a peer holds it
    INHERIT = "inherit"  # the newest head of a key that ours was enrolled in place of
    MEMBER = "member"
    UPDATE = "update"
    POLICY = "policy"
    REVOCATIONS = "revocations"
    EVIDENCE = "evidence"
    PEERS = "peers"
    RECEIPT = "receipt"
    WALK = "walk"  # a head below the newest one, by digest
    BUNDLE = "bundle"
    SUMS = "sums"  # the head of a member of our group, while it sums
    SUM_OBJECT = "sum object"
    SUM_VECTOR = "sum vector"
    CHECKPOINT = "checkpoint"  # of a hub's log


@dataclass(frozen=True, slots=True)
class Pending:
    """One request: what it was for, whom it went to, and what it should bring."""

    purpose: Purpose
    address: Address
    device: bytes | None  # the peer asked, None before it is known
    round: int = 0
    digest: bytes | None = None
    etag: bytes | None = None  # of a head request: the head that we hold
    seq: int = 0  # its number: a lower one in the answer is a replay
    about: bytes | None = None  # of a head: whose; of an object: who named it. None: the peer asked
    parked: bytes | None = None  # a head that waits for its member object
    parked_at: float = 0.0  # since when
    update: bytes | None = None  # the update that rode with the parked head
    tls_key: bytes | None = None
    page: bool = False  # of a list: it may not be an index again

    @property
    def namer(self) -> bytes | None:
        """Who answers for what an object is, whoever brings it: its digest was this device's word.

        The member object of a head that waits was named by who brought the head."""
        return self.device if self.about is None or self.parked is not None else self.about


Key = tuple[Purpose, bytes | None, bytes | None]
"""purpose, peer and digest: what makes two requests for an object one"""
T = TypeVar("T", bound=Hashable)
MODELS = frozenset({Purpose.UPDATE, Purpose.SUM_OBJECT, Purpose.SUM_VECTOR})
"""What a round waits for."""

QUEUED_PER_DEVICE = 16
"""Objects that may wait for one peer: guess, twice what a head can name at once."""


@dataclass(slots=True)
class _Counts:
    """How many requests there are of each kind, so that no question walks through all of them."""

    purposes: dict[Purpose, int] = field(default_factory=dict)  # of those under way
    waiting: dict[Purpose, int] = field(default_factory=dict)
    asked: dict[tuple[bytes | None, Purpose], int] = field(default_factory=dict)
    knocks: dict[Address, int] = field(default_factory=dict)  # where nobody is known yet
    objects: dict[bytes | None, int] = field(default_factory=dict)  # transfers out, by peer
    queued: dict[bytes | None, int] = field(default_factory=dict)  # waiting, by peer
    wanted: dict[Key, int] = field(default_factory=dict)  # objects under way or waiting

    def change(self, pending: Pending, by: int) -> None:
        """A request starts (1) or ends (-1)."""
        purpose = pending.purpose
        self.purposes[purpose] = self.purposes.get(purpose, 0) + by
        _change(self.asked, (pending.device, purpose), by)
        if pending.digest is not None:
            _change(self.wanted, _key(pending), by)
        if pending.device is None:
            _change(self.knocks, pending.address, by)

    def has(self, purposes: frozenset[Purpose]) -> bool:
        """Is any such request under way or waiting?"""
        return any(self.purposes.get(p) or self.waiting.get(p) for p in purposes)

    def queue(self, pending: Pending, by: int) -> None:
        """An object joins the queue (1) or leaves it (-1)."""
        self.waiting[pending.purpose] = self.waiting.get(pending.purpose, 0) + by
        _change(self.queued, pending.device, by)
        _change(self.wanted, _key(pending), by)


def _change(counts: dict[T, int], key: T, by: int) -> None:
    """A count that falls to zero leaves the table: keys come from strangers."""
    left = counts.get(key, 0) + by
    if left:
        counts[key] = left
    else:
        del counts[key]


def _key(pending: Pending) -> Key:
    return (pending.purpose, pending.device, pending.digest)


class Pulls:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._next = 0
        self._pending: dict[int, Pending] = {}
        self._objects_out: set[int] = set()
        # Models go first, so that nobody's lists and receipts hold up a round.
        self._models: deque[tuple[Pending, int]] = deque()
        self._others: deque[tuple[Pending, int]] = deque()
        self._counts = _Counts()

    def head(
        self, pending: Pending, etag: bytes | None, wait_s: float = 0.0, update_bytes: int = 0
    ) -> list[Effect]:
        """Ask for a head: `pending.about` names whose, None the peer's own."""
        if not self.has_free_head:
            return []
        request = self._register(pending if pending.etag == etag else replace(pending, etag=etag))
        return [
            FetchHead(request, pending.address, pending.about, etag, wait_s, update_bytes),
        ]

    def object(self, pending: Pending, bytes_max: int) -> list[Effect]:
        """Ask for an object, now or when a transfer ends. Asking twice for one digest is one."""
        if pending.digest is None:
            raise ValueError("an object is fetched by its digest")
        if self.is_wanted(pending):
            return []
        if self._may_start(pending):
            return [self._send(pending, bytes_max)]
        queued = self._counts.queued.get(pending.device, 0)
        if self.queued < self._limits.pulls_queued and queued < QUEUED_PER_DEVICE:
            queue = self._models if pending.purpose in MODELS else self._others
            queue.append((pending, bytes_max))
            self._counts.queue(pending, 1)
        return []

    def _may_start(self, pending: Pending) -> bool:
        """Is a transfer free, and not all but one taken by this very peer?"""
        theirs = self._counts.objects.get(pending.device, 0)
        return self._is_free and theirs < max(1, self._limits.pulls_out - 2)

    @property
    def _is_free(self) -> bool:
        return len(self._objects_out) < self._limits.pulls_out

    def is_wanted(self, pending: Pending) -> bool:
        """Is this object being fetched from this peer, or waiting to be?"""
        return _key(pending) in self._counts.wanted

    def _register(self, pending: Pending) -> int:
        self._next += 1
        self._pending[self._next] = pending
        self._counts.change(pending, 1)
        return self._next

    def _take(self, request: int) -> Pending | None:
        """Off the table, and out of every count."""
        pending = self._pending.pop(request, None)
        if pending is not None:
            self._counts.change(pending, -1)
            if request in self._objects_out:
                self._objects_out.discard(request)
                _change(self._counts.objects, pending.device, -1)
        return pending

    def _send(self, pending: Pending, bytes_max: int) -> Effect:
        request = self._register(pending)
        self._objects_out.add(request)
        _change(self._counts.objects, pending.device, 1)
        return FetchObject(request, pending.address, pending.digest or b"", bytes_max)

    def answered(self, request: int) -> tuple[Pending | None, list[Effect]]:
        """Take a request off the table; with it, transfers that may start now."""
        pending = self._take(request)
        waits = (self._models or self._others) and self._is_free
        return pending, self._advance() if waits else []

    def _advance(self) -> list[Effect]:
        """Start what waits and may."""
        effects: list[Effect] = []
        for queue in (self._models, self._others):
            place = 0
            while place < len(queue) and self._is_free:
                pending, bytes_max = queue[place]
                if self._may_start(pending):
                    del queue[place]
                    self._counts.queue(pending, -1)
                    effects.append(self._send(pending, bytes_max))
                else:
                    place += 1
        return effects

    def cancel(self, purposes: frozenset[Purpose]) -> list[Effect]:
        """Nobody waits for these any more."""
        if not self._counts.has(purposes):
            return []
        return self._drop(lambda pending: pending.purpose in purposes)

    def cancel_device(self, device: bytes) -> list[Effect]:
        """A peer was cut off: whatever it was asked for is not wanted."""
        return self._drop(lambda pending: pending.device == device)

    def give_up(self, device: bytes, purpose: Purpose, name: bytes | None = None) -> list[Effect]:
        """What this peer was asked for is asked anew, there or elsewhere."""
        return self._drop(
            lambda pending: (
                (pending.device, pending.purpose, pending.digest) == (device, purpose, name)
            )
        )

    def _drop(self, is_over: Callable[[Pending], bool]) -> list[Effect]:
        for queue in (self._models, self._others):
            over = [pending for pending, _ in queue if is_over(pending)]
            if over:
                left = [row for row in queue if not is_over(row[0])]
                queue.clear()
                queue.extend(left)
            for pending in over:
                self._counts.queue(pending, -1)
        gone = [request for request, pending in self._pending.items() if is_over(pending)]
        for request in gone:
            self._take(request)
        return [*(Cancel(request) for request in gone), *self._advance()]

    def out(self, purpose: Purpose) -> int:
        return self._counts.purposes.get(purpose, 0)

    def open(self, purpose: Purpose) -> int:
        """Requests under way or waiting."""
        return self.out(purpose) + self._counts.waiting.get(purpose, 0)

    def is_asked(self, device: bytes, purpose: Purpose) -> bool:
        return (device, purpose) in self._counts.asked

    def is_knocking(self, address: Address) -> bool:
        return address in self._counts.knocks

    @property
    def has_free_head(self) -> bool:
        """May one more head be asked for?"""
        return self.heads_out < self._limits.heads_out

    @property
    def heads_out(self) -> int:
        return len(self._pending) - len(self._objects_out)

    @property
    def objects_out(self) -> int:
        return len(self._objects_out)

    @property
    def size(self) -> int:
        return len(self._pending) + self.queued

    @property
    def queued(self) -> int:
        return len(self._models) + len(self._others)


def weighted_sample(
    items: Sequence[bytes], weights: Sequence[float], k: int, entropy: random.Random
) -> list[bytes]:
    """k different items, the chance of each proportional to its weight; weight 0 never.

    Efraimidis and Spirakis 2006: the k largest of u^(1/w).
    """
    keyed = [
        (entropy.random() ** (1.0 / weight), item)
        for item, weight in zip(items, weights, strict=True)
        if weight > 0.0
    ]
    keyed.sort(reverse=True)
    return [item for _, item in keyed[:k]]
