"""A node in forty lines: enough protocol to test the world without the real node.

It stores a new head every `interval` seconds of its own clock, serves it once it is durable, and
follows every peer that it sees with held head requests.
"""

from __future__ import annotations

from typing import Any

from gossipfl.events import (
    Address,
    Batch,
    Commit,
    DeadlineReached,
    Effect,
    Event,
    FetchFailed,
    FetchHead,
    HeadReceived,
    PeerSeen,
    Start,
    Stored,
    StoreFailed,
)
from gossipfl.messages import Head
from gossipfl.objects import digest
from gossipfl.parameters import Vector
from gossipfl.shelf import Served, Shelf
from gossipfl.wire import decode, encode, open_envelope, seal
from sim.device import SimDevice


class ScriptedNode:
    def __init__(self, device: SimDevice, seed: int, interval: float = 1.0) -> None:
        self.me = device
        self.interval = interval
        self.base: Vector | None = None
        self.base_round = 0
        self.shelf = Shelf(1 << 20, 64)
        self.deadline = float("inf")
        self.seq = 0
        self.prev: bytes | None = None
        self.requests: dict[int, Address] = {}
        self.etags: dict[Address, bytes] = {}
        self.heard: list[Any] = []
        self.seen: list[Address] = []
        self.issued = 1
        self.flight: bytes | None = None
        self._retry: list[Address] = []
        self._number = seed % 1_000

    def refused(self, tls_key: bytes) -> str | None:
        return None

    def view(self) -> Any:
        raise NotImplementedError

    def pulse(self) -> Any:
        raise NotImplementedError

    def handle(self, event: Event, now: float) -> list[Effect]:
        match event:
            case Start(snapshot):
                if snapshot.head is not None:
                    head = decode(open_envelope(snapshot.head, "head", 4096).payload, Head)
                    self.seq, self.prev = head.seq, digest(snapshot.head)
                self.deadline = now + self.interval
            case DeadlineReached():
                self.deadline = now + self.interval
                again, self._retry = self._retry, []
                fetches = [self.fetch(address) for address in again]
                return fetches + (self.publish() if self.flight is None else [])
            case Stored():
                assert self.flight is not None
                self.seq, self.prev = self.seq + 1, digest(self.flight)
                self.shelf.set_own(self.me.device, Served(self.flight, self.prev, b"m" * 32))
                self.flight = None
            case StoreFailed():
                self.heard.append(event)
                self.flight = None
            case PeerSeen(address):
                self.seen.append(address)
                return [self.fetch(address)]
            case HeadReceived(request, head):
                self.heard.append(event)
                address = self.requests[request]
                if head is not None:
                    self.etags[address] = digest(head)
                return [self.fetch(address)]
            case FetchFailed(request):
                self.heard.append(event)
                if request in self.requests:
                    self._retry.append(self.requests[request])
        return []

    def publish(self) -> list[Effect]:
        head = Head(
            fleet=self.me.fleet.id,
            device=self.me.device,
            seq=self.seq + 1,
            prev=self.prev,
            member=b"m" * 32,
            issued=self.issued,
        )
        self.flight = seal("head", encode(head), self.me.keys.signer)
        return [Commit(self.seq + 1, Batch(seq=self.seq + 1, head=self.flight))]

    def fetch(self, address: Address) -> FetchHead:
        self._number += 1
        self.requests[self._number] = address
        return FetchHead(self._number, address, None, self.etags.get(address), 5.0, 0)
