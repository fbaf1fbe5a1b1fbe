"""What enters a merge: signed and verified, of this lineage, finite, once per device, not stale,
of nobody who is shut out; and receipts that say what was merged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from gossipfl.config import Limits
from gossipfl.events import (
    Batch,
    CutOff,
    Effect,
    Event,
    HeadReceived,
    Notice,
    ObjectReceived,
    Release,
    StartMerge,
    Topic,
)
from gossipfl.messages import Head, Lineage, Receipt
from gossipfl.parameters import Vector
from gossipfl.reputation import QUARANTINE_ROUNDS
from gossipfl.wire import decode, open_envelope
from sim.checkers.base import Checker, Heads
from sim.device import SimDevice
from sim.rows import Rows

NAMED_MAX = 1_024  # updates named to one device in a generation: an inbox holds 256 of them
SLACK_S = 0.1  # of the age of an update: clocks are read at the same events
PEERS_KEPT = 256  # per device, the last merged stay: as many as an inbox holds
MERGES_KEPT = 8  # a receipt is durable a head later than its merge


_Heads = dict[tuple[bytes, Lineage | None], Head]  # by device and lineage


class Named:
    """Which signed heads named an update to one device, and when it first took in one of each
    peer. Two generations: no list grows for ever."""

    def __init__(self) -> None:
        self._young: dict[bytes, _Heads] = {}
        self._old: dict[bytes, _Heads] = {}
        self._first: dict[tuple[int, bytes, bytes], float] = {}
        self._first_old: dict[tuple[int, bytes, bytes], float] = {}

    def heads(self, update: bytes, lineage: Lineage) -> dict[bytes, Head]:
        found = self._young.get(update) or self._old.get(update) or {}
        return {device: head for (device, of), head in found.items() if of == lineage}

    def add(self, update: bytes, head: Head) -> None:
        """A liar may name one update for two runs: neither head makes the other one undone."""
        named = self._young.get(update)
        if named is None:
            named = self._young[update] = self._old.pop(update, {})
        named[head.device, head.lineage] = head
        if len(self._young) > NAMED_MAX:
            self._old, self._young = self._young, {}

    def took(self, incarnation: int, peer: bytes, update: bytes, now: float) -> None:
        key = (incarnation, peer, update)
        if key not in self._first:
            self._first[key] = self._first_old.pop(key, now)
        if len(self._first) > NAMED_MAX:
            self._first_old, self._first = self._first, {}

    def since(self, incarnation: int, peer: bytes, update: bytes) -> float | None:
        key = (incarnation, peer, update)
        return self._first.get(key, self._first_old.get(key))


@dataclass(frozen=True, slots=True)
class Row:
    """One merged model: its update's digest and the signed heads that named it, by device."""

    name: bytes
    heads: Mapping[bytes, Head]


class Pulled(Checker):
    """No invariant: which updates came to whom, who named them, and which of them a merge takes."""

    events = kinds = frozenset({HeadReceived, ObjectReceived})

    def __init__(self, heads: Heads | None = None) -> None:
        self._heads = heads or Heads()
        self._rows = Rows()
        self._newest: tuple[bytes, Head | None] | None = None
        self._named: dict[int, Named] = {}
        self._last: tuple[StartMerge, list[Row]] | None = None
        self._waiting: dict[tuple[int, int], dict[bytes, tuple[bytes, bytes, float]]] = {}

    def on_event(self, device: SimDevice, event: Event) -> None:
        if isinstance(event, ObjectReceived):
            self._rows.saw(event.data)
        if not isinstance(event, HeadReceived) or event.head is None:
            return
        self._rows.saw(event.update)
        head = self._read(device, event.head)
        if head is not None and head.update is not None and head.fleet == device.fleet.id:
            self._of(device).add(head.update.digest, head)

    def _read(self, device: SimDevice, envelope: bytes) -> Head | None:
        """Asked for before and after the event."""
        if self._newest is None or self._newest[0] is not envelope:
            self._newest = envelope, self._heads.get(envelope, device.fleet.members)
        return self._newest[1]

    def _of(self, device: SimDevice) -> Named:
        found = self._named.get(device.index)
        if found is None:
            found = self._named[device.index] = Named()
        return found

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        """An update is seen when a head that names it is taken in. One that waits for its signer's
        member object is as old as it was when it came; one that is refused was not seen."""
        if isinstance(event, HeadReceived) and event.head is not None:
            head = self._read(device, event.head)
            if head is None or head.update is None:
                return
            waiting = self._waiting.setdefault((device.index, device.incarnation), {})
            if _is_taken(device, head.device, event.head):
                self._of(device).took(
                    device.incarnation, head.device, head.update.digest, device.now
                )
                waiting.pop(head.device, None)
            else:
                waiting[head.device] = (event.head, head.update.digest, device.now)
        elif isinstance(event, ObjectReceived):
            waiting = self._waiting.get((device.index, device.incarnation), {})
            for peer, (envelope, update, at) in list(waiting.items()):
                if _is_taken(device, peer, envelope):
                    self._of(device).took(device.incarnation, peer, update, at)
                    del waiting[peer]

    def age_s(self, device: SimDevice, row: Row) -> float:
        """How long ago this device first took in a head of the same peer that names the update;
        where several peers publish the same bytes, that of the last of them to do so."""
        named = self._of(device)
        since = [named.since(device.incarnation, peer, row.name) for peer in row.heads]
        return min((device.now - at for at in since if at is not None), default=0.0)

    def rows(self, device: SimDevice, effect: StartMerge) -> list[Row]:
        """The merge's rows in order; one that nobody named has no heads."""
        if self._last is None or self._last[0] is not effect:
            lineages = self._lineages(device)
            found = [self._row(device, row, lineages) for row in effect.received]
            self._last = (effect, found)
        return self._last[1]

    @staticmethod
    def _lineages(device: SimDevice) -> list[Lineage]:
        mine = getattr(device.node, "lineage", None)
        if mine is not None:
            return [mine]
        return [device.job.lineage(run) for run in range(device.fleet.runs)]

    def _row(self, device: SimDevice, vector: object, lineages: list[Lineage]) -> Row:
        name = b""
        for lineage, name in self._rows.names(vector, lineages):  # type: ignore[arg-type]
            heads = self._of(device).heads(name, lineage)
            if heads:
                return Row(name, heads)
        return Row(name, {})


def _is_taken(device: SimDevice, peer: bytes, envelope: bytes) -> bool:
    """Is this the head of that peer that the device passes on?"""
    served = device.node.shelf.head(peer) if device.node is not None else None
    return served is not None and served.envelope == envelope


class OfMerges(Checker):
    """A checker of merges."""

    kinds: frozenset[type] | None = frozenset({StartMerge})

    def __init__(self, pulled: Pulled) -> None:
        self.pulled = pulled

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, StartMerge) and device.honest:
                self.on_merge(device, effect, self.pulled.rows(device, effect))

    def on_merge(self, device: SimDevice, effect: StartMerge, rows: list[Row]) -> None:
        """An honest device is about to merge."""


def _is_finite(vector: Vector) -> bool:
    """A sum of squares that is finite has finite terms only, and is soon taken."""
    with np.errstate(over="ignore", invalid="ignore"):
        return isfinite(vector.dot(vector)) or bool(np.isfinite(vector).all())


class MergesVerified(OfMerges):
    """Every merged model is an update that a signed head of a member named for the lineage in
    force, one per device, and finite."""

    def __init__(self, pulled: Pulled) -> None:
        super().__init__(pulled)
        self.merges = 0
        self.rows = 0

    def on_merge(self, device: SimDevice, effect: StartMerge, rows: list[Row]) -> None:
        used: dict[bytes, int] = {}
        self.merges += 1
        self.rows += len(rows)
        for vector, row in zip(effect.received, rows, strict=True):
            if not _is_finite(vector):
                raise self.broken(f"device {device.index} merges a model that is not finite")
            if not row.heads:
                raise self.broken(f"device {device.index} merges what no signed head named")
            used[row.name] = used.get(row.name, 0) + 1
            if used[row.name] > len(row.heads):
                raise self.broken(f"device {device.index} merges one update twice in a round")


class MergesFresh(OfMerges):
    """No merged update was first seen longer ago than the pace allows, or a window of sums."""

    window_s = 0.0

    def on_merge(self, device: SimDevice, effect: StartMerge, rows: list[Row]) -> None:
        for row in rows:
            age = self.pulled.age_s(device, row)
            if age > max(device.settings.pace.stale_s, self.window_s) + SLACK_S:
                raise self.broken(f"device {device.index} merges an update that is {age:.1f} s old")


class NoOutcasts(OfMerges):
    """Nothing is merged of a device that this one has cut off or put into quarantine."""

    events = frozenset({Release})
    kinds = frozenset({StartMerge, CutOff, Notice})

    def __init__(self, pulled: Pulled) -> None:
        super().__init__(pulled)
        self._cut: set[tuple[int, int, bytes]] = set()
        self._since: dict[tuple[int, int, bytes], float] = {}

    def on_event(self, device: SimDevice, event: Event) -> None:
        if isinstance(event, Release):
            self._since.pop((device.index, device.incarnation, event.device), None)

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        super().on_effects(device, event, effects)
        for effect in effects:
            match effect:
                case CutOff(accused):
                    self._cut.add((device.index, device.incarnation, accused))
                case Notice(Topic.QUARANTINE, _, accused, True) if accused is not None:
                    key = (device.index, device.incarnation, accused)
                    self._since[key] = self.world.now

    def _is_out(self, device: SimDevice, peer: bytes) -> bool:
        """The round that was under way may still take its update; and a quarantine ends."""
        key = (device.index, device.incarnation, peer)
        if key in self._cut:
            return True
        pace = device.settings.pace
        interval = max(pace.round_interval_s, 1.0)
        since = self.world.now - self._since.get(key, self.world.now)
        under_way = 2 * pace.round_deadline_s + 2 * interval
        return under_way < since < interval * (QUARANTINE_ROUNDS - 1)

    def on_merge(self, device: SimDevice, effect: StartMerge, rows: list[Row]) -> None:
        for row in rows:
            if row.heads and all(self._is_out(device, peer) for peer in row.heads):
                raise self.broken(f"device {device.index} merges an update of one it has shut out")


class ReceiptsTrue(OfMerges):
    """A durable receipt names the updates of a merge that was, and heads never go back."""

    def __init__(self, pulled: Pulled) -> None:
        super().__init__(pulled)
        self._merges: dict[tuple[int, int], deque[list[bytes]]] = {}
        self._seqs: dict[tuple[int, int], dict[bytes, int]] = {}
        self.receipts = 0

    def on_merge(self, device: SimDevice, effect: StartMerge, rows: list[Row]) -> None:
        key = (device.index, device.incarnation)
        kept = self._merges.setdefault(key, deque(maxlen=MERGES_KEPT))
        kept.append(sorted(row.name for row in rows))

    def on_commit(self, device: SimDevice, batch: Batch, done: bool) -> None:
        if not done or batch.receipt is None or not device.honest:
            return
        limit = Limits().entry_bytes
        receipt = decode(open_envelope(batch.receipt, "receipt", limit).payload, Receipt, limit)
        self.receipts += 1
        names = sorted(entry.update for entry in receipt.merged)
        if names not in self._merges.get((device.index, device.incarnation), ()):
            raise self.broken(f"device {device.index}: a receipt of what it did not merge")
        seqs = self._seqs.setdefault((device.index, device.incarnation), {})
        for entry in receipt.merged:
            before = seqs.pop(entry.device, 0)
            if entry.seq < before:
                raise self.broken(
                    f"device {device.index} merges head {entry.seq} of a peer after head {before}"
                )
            seqs[entry.device] = entry.seq
        while len(seqs) > PEERS_KEPT:
            del seqs[next(iter(seqs))]


class AssumesEnough(OfMerges):
    """A rule stands against at least as many liars as there are in the pull."""

    def on_merge(self, device: SimDevice, effect: StartMerge, rows: list[Row]) -> None:
        if effect.own is None:
            return  # a joiner takes the median
        liars = {d.device for d in self.world.devices if not d.honest}
        lies = sum(bool(liars & set(row.heads)) for row in rows)
        if lies > effect.f:
            raise self.broken(
                f"device {device.index} assumes {effect.f} attackers, {lies} are in its pull"
            )
