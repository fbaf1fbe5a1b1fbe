"""Liars that sign for others, or would if anybody believed them: heads, evidence, revocations.

None of it holds: a signature is missing each time. Whoever skips one check believes one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gossipfl.chains import pack_evidence
from gossipfl.identity import KeyId, Signer
from gossipfl.messages import Evidence, EvidenceKind, Head, Merged, Receipt, Revocation
from gossipfl.objects import Vouched, digest, pack_list, pack_vouched
from gossipfl.wire import decode, encode, open_envelope, seal
from sim.fleet import EPOCH
from sim.forks import Rewritten

if TYPE_CHECKING:
    from sim.device import SimDevice

ENTRY_BYTES = 65_536
RECEIPT_LIES = 250  # false entries of one receipt: what an envelope of 64 KiB has room for, about


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
    """Its receipts say that it merged hundreds of heads of honest devices that nobody ever signed:
    each is worth a look, and all of them together would keep a reader busy for ever."""

    def __init__(self) -> None:
        super().__init__(lambda head, update: (head, update))
        self._lies = 0
        self._fresh: dict[bytes, bytes] = {}  # of the commit under way

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
        merged = []
        for number in range(RECEIPT_LIES):
            self._lies += 1
            name = digest(self._lies.to_bytes(8, "little"))
            victim = victims[number % len(victims)]
            merged.append(Merged(victim.device, 2**40 + self._lies, name, name, 0.0))
        envelope = seal(
            "receipt", encode(msgspec.structs.replace(receipt, merged=merged)), me.keys.signer
        )
        self._objects[digest(envelope)] = envelope
        lie = msgspec.structs.replace(ref, digest=digest(envelope))
        return msgspec.structs.replace(head, receipts=lie), update
