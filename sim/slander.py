"""Liars who each try one check: a signature that is missing, a digest that does not fit, a value
that is no number, an update that never changes, questions without end.

None of it holds. Whoever skips one check believes one of them.
"""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from gossipfl.chains import pack_evidence
from gossipfl.identity import KeyId, Signer
from gossipfl.messages import (
    Evidence,
    EvidenceKind,
    Head,
    Merged,
    Receipt,
    Revocation,
    UpdateRef,
)
from gossipfl.objects import Vouched, digest, pack_list, pack_vouched
from gossipfl.shelf import Served
from gossipfl.wire import decode, encode, open_envelope, seal
from sim.adversaries import Adversary, Withheld
from sim.fleet import EPOCH
from sim.forks import Rewritten

if TYPE_CHECKING:
    from sim.device import SimDevice

ENTRY_BYTES = 65_536
NAN = struct.pack("<f", float("nan"))
RECEIPT_LIES = 256  # false entries of one receipt: as many as its type allows


class Claimed(Signer):
    """Claims a key that it does not have: signatures are zeros."""

    def __init__(self, key_id: bytes) -> None:
        super().__init__(b"x" * 32)
        self.key_id = KeyId(key_id)

    def sign(self, message: bytes) -> bytes:
        return bytes(64)


class Forger(Rewritten):
    """Its own heads, with a signature of zeros. Also what a stranger without the key would send."""

    def __init__(self) -> None:
        super().__init__(lambda head, update: (head, update))

    def signer(self, device: SimDevice) -> Signer:
        return Claimed(device.keys.signer.key_id)


class Framer(Rewritten):
    """Its heads name a proof against an honest device: two heads that it never signed."""

    def __init__(self) -> None:
        super().__init__(lambda head, update: (head, update))
        self._list: bytes | None = None

    def _accusation(self) -> bytes | None:
        victim = next((d for d in self.world.devices if d.honest and d.up), None)
        if victim is None:
            return None
        key = Claimed(victim.keys.signer.key_id)
        first, second = (
            seal(
                "head",
                encode(Head(victim.fleet.id, victim.device, 9, b"m" * 32, n, b"p" * 32)),
                key,
            )
            for n in (1, 2)
        )
        lie = Evidence(EvidenceKind.EQUAL_SEQ, first, second, victim.keys.member)
        return pack_list([pack_evidence(lie)])

    def rewrite(self, head: Head, update: bytes | None) -> tuple[Head, bytes | None]:
        if self._list is None:
            self._list = self._accusation()
        if self._list is None:
            return head, update
        self._objects[digest(self._list)] = self._list
        return msgspec.structs.replace(head, evidence=digest(self._list)), update


class Slanderer(Rewritten):
    """Its heads name a list with the revocation of an honest device, in the issuer's name."""

    def __init__(self) -> None:
        super().__init__(lambda head, update: (head, update))
        self._list: bytes | None = None

    def _revocation(self) -> bytes | None:
        victim = next((d for d in self.world.devices if d.honest and d.up), None)
        if victim is None:
            return None
        fleet = victim.fleet
        lie = Revocation(fleet.id, victim.device, "said to be stolen", int(EPOCH))
        envelope = seal("revocation", encode(lie), Claimed(fleet.issuer_key))
        return pack_list([pack_vouched(Vouched(envelope, fleet.issuer_member))])

    def rewrite(self, head: Head, update: bytes | None) -> tuple[Head, bytes | None]:
        if self._list is None:
            self._list = self._revocation()
        if self._list is None:
            return head, update
        self._objects[digest(self._list)] = self._list
        return msgspec.structs.replace(head, revocations=digest(self._list)), update


class Flooder(Rewritten):
    """Its receipts say that it merged hundreds of heads of one honest device, another one each
    time, that nobody ever signed. Each is worth a look, no look is answered, and all of them
    together would keep the reader busy for ever."""

    def __init__(self) -> None:
        super().__init__(lambda head, update: (head, update))
        self._lies = 0
        self._made_up: set[bytes] = set()
        self._fresh: dict[bytes, bytes] = {}  # of the commit under way

    def serve_object(
        self, device: SimDevice, asker: SimDevice, name: bytes, data: bytes | None
    ) -> bytes | None:
        if name in self._made_up:
            raise Withheld
        return super().serve_object(device, asker, name, data)

    def _twin(self, device: SimDevice, envelope: bytes, objects: dict[bytes, bytes]) -> None:
        self._fresh = objects
        super()._twin(device, envelope, objects)

    def rewrite(self, head: Head, update: bytes | None) -> tuple[Head, bytes | None]:
        ref = head.receipts
        me = next((d for d in self.world.devices if d.device == head.device), None)
        if ref is None or me is None or head.lineage is None:
            return head, update
        data = self._fresh.get(ref.digest) or me.store.get(ref.digest)
        if data is None:
            return head, update
        receipt = decode(open_envelope(data, "receipt", ENTRY_BYTES).payload, Receipt)
        victims = [d for d in self.world.devices if d.honest]
        victim = victims[ref.number % len(victims)]
        merged = []
        for _ in range(RECEIPT_LIES):
            self._lies += 1
            name = digest(self._lies.to_bytes(8, "little"))
            self._made_up.add(name)
            merged.append(Merged(victim.device, 2**40 + self._lies, name, name, 0.0))
        envelope = seal(
            "receipt", encode(msgspec.structs.replace(receipt, merged=merged)), me.keys.signer
        )
        self._objects[digest(envelope)] = envelope
        lie = msgspec.structs.replace(ref, digest=digest(envelope))
        return msgspec.structs.replace(head, receipts=lie), update


class Frozen(Rewritten):
    """Publishes `times` updates and then names the last one for ever, in ever new heads."""

    def __init__(self, times: int = 3) -> None:
        super().__init__(self._freeze)
        self._times = times
        self._kept: tuple[UpdateRef, bytes] | None = None

    def _freeze(self, head: Head, update: bytes | None) -> tuple[Head, bytes | None]:
        if update is not None and head.update is not None and self._times > 0:
            self._times -= 1
            self._kept = (head.update, update)
        if self._kept is None:
            return head, update
        return msgspec.structs.replace(head, update=self._kept[0]), self._kept[1]


class NotANumber(Rewritten):
    """Its updates are well-formed and signed, and their last value is NaN. (Its own node would not
    publish that: the lie is made behind it.)"""

    def __init__(self) -> None:
        super().__init__(self._spoil)
        self._lies: dict[bytes, tuple[UpdateRef, bytes]] = {}  # a head may name an update again

    def _spoil(self, head: Head, update: bytes | None) -> tuple[Head, bytes | None]:
        ref = head.update
        if ref is None:
            return head, update
        if update is not None:
            lie = update[:-4] + NAN
            self._lies[ref.digest] = (msgspec.structs.replace(ref, digest=digest(lie)), lie)
        if ref.digest not in self._lies:
            return head, update
        false, lie = self._lies[ref.digest]
        return msgspec.structs.replace(head, update=false), lie


class Tamperer(Adversary):
    """Honest but for one bit of every update that it hands out, its own or others'."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"tamper {seed}")

    def _spoilt(self, update: bytes) -> bytes:
        """A low bit of a value near the end: still a model, and another one."""
        wrong = bytearray(update)
        wrong[-4 * self._random.randint(1, 8)] ^= 1
        return bytes(wrong)

    def serve_head(
        self, device: SimDevice, asker: SimDevice, which: bytes | None, served: Served | None
    ) -> Served | None:
        if served is None or served.update is None:
            return served
        return replace(served, update=self._spoilt(served.update))

    def serve_object(
        self, device: SimDevice, asker: SimDevice, name: bytes, data: bytes | None
    ) -> bytes | None:
        return self._spoilt(data) if data is not None and data[:4] == b"GFU1" else data
