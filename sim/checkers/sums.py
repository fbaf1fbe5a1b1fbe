"""Group sums: nothing bare leaves, sums are exact, nobody signs twice or reveals both secrets."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

import numpy as np

from gossipfl.errors import PeerError
from gossipfl.events import (
    Batch,
    Effect,
    Event,
    StartTraining,
    SumMask,
    SumMasked,
    SumUncover,
    SumUncovered,
)
from gossipfl.groups import grid
from gossipfl.groups.grid import Words
from gossipfl.groups.messages import TYPES, Message, SumReveal, SumShares, kind_of
from gossipfl.groups.sealing import mark
from gossipfl.objects import digest
from gossipfl.parameters import to_bytes
from gossipfl.privacy import OFF, GroupSum
from gossipfl.shelf import Served
from gossipfl.wire import decode, open_envelope
from sim.checkers.base import Checker
from sim.device import SimDevice

KEPT = 1_024  # masked vectors, signed objects: guess, far more than are about at one time
MODELS_KEPT = 8  # of each device
SIGNED_BYTES = 4_096


class Bounded(OrderedDict[bytes, object]):
    """The newest entries."""

    def put(self, key: bytes, value: object) -> None:
        self[key] = value
        while len(self) > KEPT:
            self.popitem(last=False)


class NothingBare(Checker):
    """What an honest device trains under group sums is in nothing that it stores or serves, and
    goes out masked once; without noise one model in a window does."""

    def __init__(self) -> None:
        self._models: dict[int, deque[tuple[bytes, bytes]]] = {}
        self._jobs: dict[tuple[int, int, int], tuple[bytes, int]] = {}  # model, window
        self._out: dict[int, deque[bytes]] = {}  # models whose masked form was stored
        self._masked = Bounded()
        self._windows: dict[int, tuple[int, bytes]] = {}  # the newest that a model went out in
        self._noisy: dict[int, bool] = {}
        self.looked = 0

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, StartTraining) and isinstance(effect.protection, GroupSum):
                self._noisy[device.index] = effect.protection.noise != OFF
            if isinstance(effect, SumMask) and device.honest:
                self._on_mask(device, effect)

    def _on_mask(self, device: SimDevice, effect: SumMask) -> None:
        plan, bare = effect.plan, to_bytes(effect.vector)
        if bare in self._out.get(device.index, ()):
            raise self.broken(f"device {device.index} masks a model again that has left before")
        words = grid.to_bytes(grid.quantise(effect.vector, plan.reach, plan.size))
        self._models.setdefault(device.index, deque(maxlen=MODELS_KEPT)).append((bare, words))
        self._jobs = {k: v for k, v in self._jobs.items() if k[0] != device.index}
        self._jobs[device.index, device.incarnation, effect.job] = bare, plan.window

    def on_event(self, device: SimDevice, event: Event) -> None:
        if isinstance(event, SumMasked) and device.honest:
            found = self._jobs.get((device.index, device.incarnation, event.job))
            if found is not None:
                self._masked.put(event.name, found)

    def on_commit(self, device: SimDevice, batch: Batch, done: bool) -> None:
        for name, data in batch.objects if device.honest and done else ():
            self._look(device, data)
            found = self._masked.get(name)
            if isinstance(found, tuple):
                self._went_out(device, *found)

    def _went_out(self, device: SimDevice, bare: bytes, window: int) -> None:
        self._out.setdefault(device.index, deque(maxlen=MODELS_KEPT)).append(bare)
        before = self._windows.get(device.index)
        if before == (window, bare) or self._noisy.get(device.index):
            return
        if before is not None and before[0] == window:
            raise self.broken(f"device {device.index}: two models without noise in one window")
        self._windows[device.index] = window, bare

    def on_serve_head(self, server: SimDevice, asked: bytes | None, served: Served) -> None:
        if served.update is not None:
            self._look(server, served.update)

    def _look(self, device: SimDevice, data: bytes) -> None:
        for forms in self._models.get(device.index, ()):
            self.looked += 1
            if len(data) >= len(forms[0]) and any(form in data for form in forms):
                raise self.broken(f"device {device.index}: a trained model leaves as it is")


class SumsExact(Checker):
    """A group's mean is that of its survivors' vectors, to the last bit of the grid."""

    def __init__(self) -> None:
        self._words = Bounded()  # masked vector's digest -> what is under it
        self._jobs: dict[tuple[int, int, int], Words] = {}
        self._sums: dict[tuple[int, int, int], tuple[SumUncover, tuple[bytes, ...]]] = {}
        self.sums = 0

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        for effect in effects:
            key = (device.index, device.incarnation)
            if isinstance(effect, SumMask):
                plan = effect.plan
                words = grid.quantise(effect.vector, plan.reach, plan.size)
                self._jobs = {k: v for k, v in self._jobs.items() if k[0] != device.index}
                self._jobs[*key, effect.job] = words
            elif isinstance(effect, SumUncover) and device.honest:
                names = tuple(digest(data) for data in effect.vectors)
                self._sums = {k: v for k, v in self._sums.items() if k[0] != device.index}
                self._sums[*key, effect.job] = (effect, names)

    def on_event(self, device: SimDevice, event: Event) -> None:
        key = (device.index, device.incarnation)
        if isinstance(event, SumMasked):
            words = self._jobs.get((*key, event.job))
            if words is not None:
                self._words.put(event.name, words)
        elif isinstance(event, SumUncovered) and device.honest:
            effect, names = self._sums.get((*key, event.job), (None, ()))
            under = [self._words.get(name) for name in names]
            if effect is None or any(words is None for words in under):
                return
            self._compare(device, effect, event, under)

    def _compare(
        self, device: SimDevice, effect: SumUncover, event: SumUncovered, under: list[object]
    ) -> None:
        plan = effect.plan
        total = np.zeros(plan.count, np.uint32)
        for words in under:
            total += np.asarray(words, np.uint32)
        wanted = grid.mean(total, plan.reach, plan.size, len(under))
        self.sums += 1
        if event.mean is None or not np.array_equal(event.mean.vector, wanted):
            raise self.broken(f"device {device.index}: its group's mean is not the survivors'")


class OneWordInSums(Checker):
    """An honest device signs one object for a step of an attempt, and of nobody's two secrets more
    than one is revealed."""

    def __init__(self) -> None:
        self._said = Bounded()  # attempt, type and device -> digest
        self._marks = Bounded()  # attempt and dealer -> SumShares
        self._revealed = Bounded()  # attempt and dealer -> which secret
        self.seen = 0

    def on_commit(self, device: SimDevice, batch: Batch, done: bool) -> None:
        if device.honest and done:
            for name, data in batch.objects:
                message = _read(data)
                if message is not None:
                    self._on_message(device, name, message)

    def _on_message(self, device: SimDevice, name: bytes, message: Message) -> None:
        self.seen += 1
        key = message.attempt + type(message).__name__.encode() + message.device
        before = self._said.get(key)
        if before is not None and before != name:
            raise self.broken(f"device {device.index} signs two {type(message).__name__}")
        self._said.put(key, name)
        if isinstance(message, SumShares):
            place = next(n for n, k in enumerate(message.keys) if k and not message.sealed[n])
            self._marks.put(message.attempt + bytes([place]), message)
        elif isinstance(message, SumReveal):
            self._on_reveal(device, message)

    def _on_reveal(self, device: SimDevice, message: SumReveal) -> None:
        if message.seed:
            self._note(device, message.attempt + bytes([self._place(message)]), b"seed")
        for dealer, share in enumerate(message.shares):
            key = message.attempt + bytes([dealer])
            dealt = self._marks.get(key)
            if not share or not isinstance(dealt, SumShares):
                continue
            what = _what(message, dealer, share, dealt)
            if what is None:
                continue
            self._note(device, key, what)

    def _place(self, message: SumReveal) -> int:
        """Of the member that reveals; 16 is nobody's."""
        for place in range(16):
            dealt = self._marks.get(message.attempt + bytes([place]))
            if isinstance(dealt, SumShares) and dealt.device == message.device:
                return place
        return 16

    def _note(self, device: SimDevice, key: bytes, what: bytes) -> None:
        before = self._revealed.get(key)
        if before is not None and before != what:
            raise self.broken(f"device {device.index}: both secrets of a member are revealed")
        self._revealed.put(key, what)


def _what(message: SumReveal, dealer: int, share: bytes, dealt: SumShares) -> bytes | None:
    """Which secret this is a share of, by the dealer's marks."""
    for place, marks in enumerate(dealt.marks):
        for what, half in ((b"key ", marks[:32]), (b"seed", marks[32:])):
            if mark(message.attempt, dealer, place, what, share) == half:
                return what
    return None


def _read(data: bytes) -> Message | None:
    if len(data) > SIGNED_BYTES:
        return None
    try:
        kind = kind_of(data)
        return decode(open_envelope(data, kind, SIGNED_BYTES).payload, TYPES[kind])
    except PeerError:
        return None
