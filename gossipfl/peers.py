"""The address book: where peers are, which device answers there, and whether it is awake.

Addresses are hints (mDNS, static, gossiped records) until a device proves itself there; from then
on the book is keyed by device, so that a changed mDNS label or address is no departure. A peer
that cannot be reached is left alone for a while (circuit breaker), twice as long each time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from gossipfl.config import Limits, Pace
from gossipfl.events import Address, Source
from gossipfl.messages import Head

BREAKER_FAILURES = 3
"""Failures in a row, per address, before a peer is left alone. At 20 % loss each way one request in
three fails, so that a single failure means little; three in a row happen once in twenty."""
BREAKER_DOUBLINGS_MAX = 5  # guess: 32 times the first pause, 160 s in the lan preset


@dataclass(slots=True)
class Candidate:
    """An address that no device has answered from yet."""

    source: Source
    next_try: float
    failures: int = 0


@dataclass(slots=True)
class Peer:
    """One device that has proved itself. `head` is its newest verified head."""

    device: bytes
    addresses: list[Address] = field(default_factory=list)  # the one that worked last first
    head: Head | None = None
    head_digest: bytes | None = None
    update_seen_at: float = 0.0  # own monotonic time at which its update was first seen
    live_at: float = 0.0
    failures: int = 0
    open_until: float = 0.0  # the breaker is open until then
    list_read: bytes | None = None  # digest of its address list, if we know all that is in it
    receipts_read: int = 0  # number of its newest receipt that we have read
    suspended: bool = False  # said goodbye (mDNS), still tried when polled

    @property
    def address(self) -> Address | None:
        """Where to ask; None if another device took over the only place that we knew."""
        return self.addresses[0] if self.addresses else None

    @property
    def seq(self) -> int:
        """The number of its newest verified head, 0 before the first."""
        return self.head.seq if self.head is not None else 0


class PeerBook:
    def __init__(self, pace: Pace, limits: Limits) -> None:
        self._pace = pace
        self._limits = limits
        self.candidates: dict[Address, Candidate] = {}
        self.peers: dict[bytes, Peer] = {}
        self._bound: dict[Address, bytes] = {}
        self._static: set[Address] = set()
        self._own: set[Address] = set()
        self._ordered: list[Peer] | None = None
        self._quiet_until = -math.inf  # no candidate is due before; -inf: not known

    def see(self, address: Address, source: Source, now: float) -> bool:
        """A hint. True if the address is new and worth a try at once."""
        if source is Source.STATIC:
            self._static.add(address)
        if address in self._own:
            return False
        bound = self._bound.get(address)
        if bound is not None:
            # It announces itself: whatever kept us from it may be over.
            peer = self.peers[bound]
            peer.open_until, peer.suspended = min(peer.open_until, now), False
            return False
        if address in self.candidates or (self.is_full and source is not Source.STATIC):
            return False
        if len(self.candidates) >= self._limits.candidates and not self._evict():
            return False
        self.candidates[address] = Candidate(source, now)
        self._quiet_until = -math.inf
        return True

    def _evict(self) -> bool:
        """Make room: the candidate that failed most and is not static."""
        loose = [a for a in self.candidates if a not in self._static]
        if not loose:
            return False
        self._no_candidate(max(loose, key=lambda a: self.candidates[a].failures))
        return True

    @property
    def is_full(self) -> bool:
        """Are so many peers known, or about to be, that no more are looked for?"""
        return len(self.peers) + len(self.candidates) >= self._limits.peers

    def _no_candidate(self, address: Address) -> None:
        if self.candidates.pop(address, None) is not None:
            self._quiet_until = -math.inf

    def gone(self, address: Address) -> None:
        """mDNS says goodbye. A bound peer stays known: it may only have changed its label."""
        bound = self._bound.get(address)
        if bound is not None:
            self.peers[bound].suspended = True
        elif address not in self._static:
            self._no_candidate(address)

    def is_self(self, address: Address) -> None:
        """Our own daemon answered there."""
        self._own.add(address)
        self._no_candidate(address)

    def bind(self, address: Address, device: bytes, now: float) -> Peer:
        """`device` answered at `address` with its own key."""
        old = self._bound.get(address)
        if old == device and self.peers[device].address == address:  # as nearly always
            self.reached(device, now)
            return self.peers[device]
        if old is not None and old != device:
            self.peers[old].addresses.remove(address)
        self._no_candidate(address)
        self._bound[address] = device
        peer = self.peers.get(device)
        if peer is None:
            peer = self.peers[device] = Peer(device)
            self._ordered = None
        if address in peer.addresses:
            peer.addresses.remove(address)
        peer.addresses.insert(0, address)
        for extra in peer.addresses[self._limits.addresses_per_device :]:
            self._bound.pop(extra, None)
        del peer.addresses[self._limits.addresses_per_device :]
        self.reached(device, now)
        return peer

    def unbind(self, address: Address, now: float) -> None:
        """Another device answers there: whoever used to is not there any more."""
        old = self._bound.pop(address, None)
        if old is not None:
            self.peers[old].addresses.remove(address)
            self.see(address, Source.RECORD, now)

    def reached(self, device: bytes, now: float) -> None:
        peer = self.peers.get(device)
        if peer is not None:
            peer.live_at, peer.failures, peer.open_until = now, 0, 0.0
            peer.suspended = False

    def unreached(self, address: Address, now: float) -> bytes | None:
        """Nobody answered there. Returns the device that used to, if one did."""
        bound = self._bound.get(address)
        if bound is None:
            candidate = self.candidates.get(address)
            if candidate is not None:
                candidate.failures += 1
                candidate.next_try = now + self._pause(candidate.failures)
                self._quiet_until = -math.inf
            return None
        peer = self.peers[bound]
        peer.failures += 1
        if len(peer.addresses) > 1:
            peer.addresses.append(peer.addresses.pop(0))  # try its other address next
        patience = BREAKER_FAILURES * len(peer.addresses)
        if peer.failures >= patience:
            peer.open_until = now + self._pause(peer.failures - patience + 1)
        return bound

    def _pause(self, failures: int) -> float:
        return self._pace.breaker_s * float(2 ** min(failures - 1, BREAKER_DOUBLINGS_MAX))

    def due(self, now: float) -> Iterator[Address]:
        """Candidates to knock at now, in the order in which they were seen."""
        if now < self._quiet_until:
            return iter(())
        return (a for a, c in self.candidates.items() if c.next_try <= now)

    def next_due(self, now: float) -> float:
        """When the next candidate is due; `now` if one is already."""
        if now < self._quiet_until:
            return self._quiet_until
        soonest = math.inf
        for candidate in self.candidates.values():
            if candidate.next_try <= now:
                return now
            soonest = min(soonest, candidate.next_try)
        self._quiet_until = soonest  # so that this is not looked for at each event
        return soonest

    def knocked(self, address: Address, now: float) -> None:
        """It is being tried; again after a while, if nobody answers."""
        candidate = self.candidates[address]
        candidate.next_try = now + self._pace.breaker_s * float(
            2 ** min(candidate.failures, BREAKER_DOUBLINGS_MAX)
        )
        self._quiet_until = -math.inf

    def live(self, now: float) -> Iterator[Peer]:
        """Peers that answered lately and whose breaker is closed, in a fixed order."""
        live_s = self._pace.live_s
        return (
            peer
            for peer in self._in_order()
            if peer.open_until <= now and now - peer.live_at <= live_s and peer.addresses
        )

    def is_live(self, device: bytes, now: float) -> bool:
        peer = self.peers.get(device)
        return peer is not None and self._answers(peer, now)

    def _answers(self, peer: Peer, now: float) -> bool:
        return (
            peer.open_until <= now
            and now - peer.live_at <= self._pace.live_s
            and bool(peer.addresses)
        )

    def away(self, now: float) -> Iterator[Peer]:
        """Known peers that are not live but may be tried again."""
        return (
            peer
            for peer in self._in_order()
            if peer.addresses and peer.open_until <= now and not self._answers(peer, now)
        )

    def _in_order(self) -> list[Peer]:
        """By device. Sorted anew only when somebody came or went: this is asked many times."""
        if self._ordered is None:
            self._ordered = [self.peers[device] for device in sorted(self.peers)]
        return self._ordered

    def drop(self, device: bytes) -> None:
        """Revoked or condemned: forget where it is."""
        peer = self.peers.pop(device, None)
        if peer is not None:
            self._ordered = None
            for address in peer.addresses:
                self._bound.pop(address, None)
