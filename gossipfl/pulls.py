"""Requests under way and the polls that start them. Everything a node learns, it asked for.

At most `pulls_out` object transfers and `heads_out` head requests are out at once; more objects
wait in a bounded queue. Answers to numbers that are not in the table are ignored.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from gossipfl.config import Limits
from gossipfl.events import Address, Cancel, Effect, FetchHead, FetchObject


class Purpose(StrEnum):
    """Why something is being fetched: decides who handles the answer."""

    CONTACT = "contact"  # first words with an address
    POLL = "poll"
    COLLECT = "collect"  # head and update for this round
    JOIN = "join"  # models to start from
    RECONCILE = "reconcile"  # our own head, as a peer holds it
    MEMBER = "member"
    UPDATE = "update"
    POLICY = "policy"
    REVOCATIONS = "revocations"
    EVIDENCE = "evidence"
    PEERS = "peers"
    RECEIPT = "receipt"
    WALK = "walk"  # a head below the newest one, by digest
    BUNDLE = "bundle"


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
    about: bytes | None = None  # device that the object speaks of, where it is not the peer asked
    parked: bytes | None = None  # a head that waits for its member object
    update: bytes | None = None  # the update that rode with the parked head
    tls_key: bytes | None = None
    page: bool = False  # of a list: it may not be an index again


QUEUED_PER_DEVICE = 16
"""Objects that may wait for one peer: guess, twice what a head can name at once."""


class Pulls:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._next = 0
        self._pending: dict[int, Pending] = {}
        self._objects_out: set[int] = set()
        self._waiting: deque[tuple[Pending, int]] = deque()

    def head(
        self, pending: Pending, etag: bytes | None, wait_s: float = 0.0, update_bytes: int = 0
    ) -> list[Effect]:
        """Ask for a head: `pending.about` names whose, None the peer's own."""
        if len(self._pending) - len(self._objects_out) >= self._limits.heads_out:
            return []
        request = self._register(replace(pending, etag=etag))
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
        queued = sum(p.device == pending.device for p, _ in self._waiting)
        if len(self._waiting) < self._limits.pulls_queued and queued < QUEUED_PER_DEVICE:
            self._waiting.append((pending, bytes_max))
        return []

    def _may_start(self, pending: Pending) -> bool:
        """Is a transfer free, and not all but one taken by this very peer?"""
        out = len(self._objects_out)
        theirs = sum(self._pending[r].device == pending.device for r in self._objects_out)
        return out < self._limits.pulls_out and theirs < max(1, self._limits.pulls_out - 2)

    def is_wanted(self, pending: Pending) -> bool:
        """Is this object being fetched from this peer, or waiting to be?"""
        key = (pending.purpose, pending.device, pending.digest)
        return any((p.purpose, p.device, p.digest) == key for p in self._pending.values()) or any(
            (p.purpose, p.device, p.digest) == key for p, _ in self._waiting
        )

    def _register(self, pending: Pending) -> int:
        self._next += 1
        self._pending[self._next] = pending
        return self._next

    def _send(self, pending: Pending, bytes_max: int) -> Effect:
        request = self._register(pending)
        self._objects_out.add(request)
        return FetchObject(request, pending.address, pending.digest or b"", bytes_max)

    def answered(self, request: int) -> tuple[Pending | None, list[Effect]]:
        """Take a request off the table; with it, transfers that may start now."""
        pending = self._pending.pop(request, None)
        self._objects_out.discard(request)
        return pending, self._advance()

    def _advance(self) -> list[Effect]:
        """Start what waits: models first, so that nobody's lists and receipts hold up a round."""
        effects: list[Effect] = []
        for models in (True, False):
            for row in list(self._waiting):
                is_model = row[0].purpose is Purpose.UPDATE
                if is_model is models and self._may_start(row[0]):
                    self._waiting.remove(row)
                    effects.append(self._send(*row))
        return effects

    def cancel(self, purposes: frozenset[Purpose]) -> list[Effect]:
        """Nobody waits for these any more."""
        self._waiting = deque(w for w in self._waiting if w[0].purpose not in purposes)
        gone = [r for r, p in self._pending.items() if p.purpose in purposes]
        for request in gone:
            del self._pending[request]
            self._objects_out.discard(request)
        return [*(Cancel(request) for request in gone), *self._advance()]

    def cancel_device(self, device: bytes) -> list[Effect]:
        """A peer was cut off: whatever it was asked for is not wanted."""
        self._waiting = deque(w for w in self._waiting if w[0].device != device)
        gone = [r for r, p in self._pending.items() if p.device == device]
        for request in gone:
            del self._pending[request]
            self._objects_out.discard(request)
        return [*(Cancel(request) for request in gone), *self._advance()]

    def out(self, purpose: Purpose) -> int:
        return sum(p.purpose is purpose for p in self._pending.values())

    def is_asked(self, device: bytes, purpose: Purpose) -> bool:
        return any(p.device == device and p.purpose is purpose for p in self._pending.values())

    def is_knocking(self, address: Address) -> bool:
        return any(p.address == address and p.device is None for p in self._pending.values())

    @property
    def size(self) -> int:
        return len(self._pending) + len(self._waiting)


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
