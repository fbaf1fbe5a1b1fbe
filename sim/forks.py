"""Liars that sign more than one chain, or a chain that says what their node never said.

Each keeps a second, complete chain of heads beside the node's own: every head signed twice, every
chain linked. Who is shown which, and what the second chain says, is the lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from gossipfl.events import Commit, Effect
from gossipfl.identity import Signer
from gossipfl.messages import Head
from gossipfl.objects import digest
from gossipfl.shelf import Served
from gossipfl.wire import decode, encode, open_envelope, seal
from sim.adversaries import Adversary

if TYPE_CHECKING:
    from sim.device import SimDevice

HEAD_BYTES = 4_096


class Fork(Adversary):
    """Two complete chains. Askers with an odd number are shown the second one.

    Both are served as objects, so a walk back along either finds all of it.
    """

    def __init__(self, since_seq: int = 2) -> None:
        self.since_seq = since_seq
        self._twins: dict[bytes, Served] = {}  # digest of an own head -> its twin
        self._seqs: dict[bytes, int] = {}
        self._objects: dict[bytes, bytes] = {}
        self._last: bytes | None = None  # digest of the newest twin

    def effects(self, device: SimDevice, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, Commit) and effect.batch.head is not None:
                self._twin(device, effect.batch.head, dict(effect.batch.objects))
        return effects

    def _twin(self, device: SimDevice, envelope: bytes, objects: dict[bytes, bytes]) -> None:
        head = decode(open_envelope(envelope, "head", HEAD_BYTES).payload, Head)
        name = digest(envelope)
        self._seqs[name] = head.seq
        self._objects[name] = envelope
        if head.seq < self.since_seq:
            self._last = name
            return
        update = objects.get(head.update.digest) if head.update is not None else None
        twin, update = self.rewrite(msgspec.structs.replace(head, prev=self._last), update)
        forged = seal("head", encode(twin), self.signer(device))
        self._last = digest(forged)
        self._objects[self._last] = forged
        if update is not None:
            self._objects[digest(update)] = update
        self._twins[name] = Served(
            forged, self._last, twin.member, update, update and digest(update)
        )

    def rewrite(self, head: Head, update: bytes | None) -> tuple[Head, bytes | None]:
        """What the second chain says instead. `update` is None when it did not change."""
        return msgspec.structs.replace(head, capability="other"), update

    def signer(self, device: SimDevice) -> Signer:
        return device.keys.signer

    def _is_second(self, asker: SimDevice) -> bool:
        return asker.index % 2 == 1

    def _shown(self, served: Served) -> Served:
        twin = self._twins.get(served.digest)
        if twin is None:
            return served
        return replace(twin, update=twin.update if twin.update else served.update)

    def serve_head(
        self, device: SimDevice, asker: SimDevice, which: bytes | None, served: Served | None
    ) -> Served | None:
        if served is None or which not in (None, device.device) or not self._is_second(asker):
            return served
        return self._shown(served)

    def serve_object(
        self, device: SimDevice, asker: SimDevice, name: bytes, data: bytes | None
    ) -> bytes | None:
        return self._objects.get(name, data)


class OddEven(Fork):
    """Shows odd numbers of one chain to some, even numbers of the other chain to the rest.

    No two askers ever see equal numbers. `withhold`: heads in between are not served as objects,
    so a walk back ends in nothing.
    """

    def __init__(self, withhold: bool = True) -> None:
        super().__init__(since_seq=1)
        self.withhold = withhold
        self._newest: dict[int, Served] = {}

    def serve_head(
        self, device: SimDevice, asker: SimDevice, which: bytes | None, served: Served | None
    ) -> Served | None:
        if served is None or which not in (None, device.device):
            return served
        even = self._seqs.get(served.digest, 0) % 2 == 0
        self._newest[0 if even else 1] = self._shown(served) if even else served
        return self._newest.get(0 if self._is_second(asker) else 1)

    def serve_object(
        self, device: SimDevice, asker: SimDevice, name: bytes, data: bytes | None
    ) -> bytes | None:
        if self.withhold and name in self._objects:
            return None
        return super().serve_object(device, asker, name, data)


Rewrite = Callable[[Head, bytes | None], tuple[Head, bytes | None]]


class Rewritten(Fork):
    """One chain only, shown to all, in which every head says what `change` makes of it."""

    def __init__(self, change: Rewrite, signer: Signer | None = None) -> None:
        super().__init__(since_seq=1)
        self._change = change
        self._signer = signer

    def rewrite(self, head: Head, update: bytes | None) -> tuple[Head, bytes | None]:
        return self._change(head, update)

    def signer(self, device: SimDevice) -> Signer:
        return self._signer or device.keys.signer

    def _is_second(self, asker: SimDevice) -> bool:
        return True
