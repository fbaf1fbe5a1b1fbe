"""Every way to break the protocol's rules, played by a liar in a fleet of honest devices.

Each is a typed fault at those who see it, charged to whom it belongs and to nobody else; nothing of
it is merged, and the honest devices learn on.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from gossipfl.chains import pack_evidence, verify_evidence
from gossipfl.codecs import encode_update
from gossipfl.config import Limits
from gossipfl.errors import PeerError
from gossipfl.events import Commit, Topic
from gossipfl.identity import Signer, device_name
from gossipfl.membership import Roster
from gossipfl.messages import Evidence, EvidenceKind, Head, Lineage, Receipt, UpdateRef
from gossipfl.objects import digest, pack_list
from gossipfl.policies import Policies
from gossipfl.shelf import Served
from gossipfl.wire import check_signature, decode, encode, open_envelope, seal
from sim.adversaries import Adversary
from sim.checkers import Checker
from sim.device import SimDevice
from sim.fleet import EPOCH, Fleet
from sim.forks import Rewrite, Rewritten
from sim.network import Link
from sim.scene import Scene, Setup

LIAR = 5


def scene_with(adversary: Adversary, seed: int = 21, rounds: int = 6) -> Scene:
    scene = Scene(seed, Setup(devices=6, attackers=1))
    scene.world.corrupt(scene.devices[LIAR], adversary)
    scene.start()
    scene.run_rounds(rounds, limit_s=90.0)
    scene.world.finish()
    return scene


def charged(scene: Scene, index: int) -> set[str]:
    """Faults for which honest devices refused something of that device."""
    device = scene.devices[index].device
    texts = [
        notice.text.split(": ", 1)[1].split(": ")[0]
        for _, by, notice in scene.world.notices
        if by.honest and notice.topic is Topic.REFUSED and notice.device == device
    ]
    return set(texts)


def merged_from(scene: Scene, index: int) -> int:
    """In how many receipts of honest devices the update of that device took part."""
    device = scene.devices[index].device
    count = 0
    for peer in scene.honest():
        data = peer.store.load().receipt
        if data is not None:
            receipt = decode(open_envelope(data, "receipt", 65_536).payload, Receipt)
            count += sum(entry.device == device for entry in receipt.merged)
    return count


def changed(**fields: object) -> Rewrite:
    return lambda head, update: (msgspec.structs.replace(head, **fields), update)


def poisoned(make: Callable[[Lineage, bytes], bytes]) -> Rewrite:
    """Every update is replaced by `make(lineage, update)` and named truthfully in the head."""
    lies: dict[bytes, bytes] = {}  # a head may name an update again

    def rewrite(head: Head, update: bytes | None) -> tuple[Head, bytes | None]:
        ref = head.update
        if ref is None or head.lineage is None:
            return head, update
        if update is not None:
            lies[ref.digest] = make(head.lineage, update)
        lie = lies[ref.digest]
        false = UpdateRef(digest(lie), len(lie), ref.codec, ref.round)
        return msgspec.structs.replace(head, update=false), lie

    return rewrite


def of_values(value: float) -> Rewrite:
    def make(lineage: Lineage, update: bytes) -> bytes:
        vector = np.full(36, 0.5, np.float32)
        vector[7] = value
        return encode_update(lineage, "f32", vector)

    return poisoned(make)


def other_lineage(head: Head, update: bytes | None) -> tuple[Head, bytes | None]:
    if head.lineage is None:
        return head, update
    return msgspec.structs.replace(head, lineage=msgspec.structs.replace(head.lineage, run=7)), None


def claims_size(head: Head, update: bytes | None) -> tuple[Head, bytes | None]:
    if head.update is None:
        return head, update
    ref = msgspec.structs.replace(head.update, size=2**31)
    return msgspec.structs.replace(head, update=ref), update


CASES: dict[str, tuple[Rewrite, str]] = {
    "wrong fleet": (changed(fleet=b"f" * 32), "wrong fleet"),
    "wrong device": (changed(device=b"d" * 16), "wrong device"),
    "NaN": (of_values(float("nan")), "not finite"),
    "infinity": (of_values(float("inf")), "not finite"),
    "enormous": (of_values(1e30), "norm bound"),
    "truncated": (poisoned(lambda _, update: update[:-4]), "wrong length"),
    "longer": (poisoned(lambda _, update: update + b"\0" * 4), "wrong length"),
    "declares two gigabytes": (claims_size, "wrong length"),
    "another header": (poisoned(lambda _, update: b"GFU9" + update[4:]), "other lineage"),
}


@pytest.mark.parametrize(("change", "fault"), CASES.values(), ids=CASES.keys())
def test_a_broken_rule_is_a_typed_fault_of_its_signer(change: Rewrite, fault: str) -> None:
    scene = scene_with(Rewritten(change))
    assert fault in charged(scene, LIAR)
    for device in scene.honest():
        assert not charged(scene, device.index)
    assert merged_from(scene, LIAR) == 0
    assert min(scene.accuracies()) >= 0.9


def test_an_update_of_another_lineage_is_not_merged_and_no_crime() -> None:
    """Its publisher may just be a policy ahead."""
    scene = scene_with(Rewritten(other_lineage))
    assert merged_from(scene, LIAR) == 0
    assert min(scene.accuracies()) >= 0.9


def test_heads_of_an_unknown_signer_are_refused() -> None:
    stranger = Signer(b"s" * 32)
    scene = scene_with(Rewritten(changed(), signer=stranger))
    names = {p.device for d in scene.honest() for p in scene.view(d).peers}
    assert device_name(stranger.device) not in names
    assert merged_from(scene, LIAR) == 0


@pytest.mark.parametrize("ends_s", [-20 * 86_400, 10])
def test_a_membership_that_has_ended_is_refused(ends_s: int) -> None:
    """Ended long ago, or ten seconds after the start: by fleet time, TLS does not look at dates."""
    scene = Scene(22, Setup(devices=6))
    begins = EPOCH + ends_s - 2 * 86_400
    scene.devices[LIAR].keys = scene.fleet.admit(days=1, not_before=begins)
    scene.start()
    scene.run_rounds(12, limit_s=90.0, who=scene.devices[:LIAR])
    assert "expired member" in charged(scene, LIAR)
    assert merged_from(scene, LIAR) == 0


class Impostor(Adversary):
    """Once it is known, it shows another device's head as its own."""

    def serve_head(
        self, device: SimDevice, asker: SimDevice, which: bytes | None, served: Served | None
    ) -> Served | None:
        if which is not None or device.node is None or self.world.now < 8.0:
            return served
        others = [d.device for d in self.world.devices if d is not device and d is not asker]
        heads = [device.node.shelf.head(other) for other in others]
        return next((head for head in heads if head is not None), served)


def test_a_head_behind_another_tls_key_is_the_carriers_fault() -> None:
    scene = scene_with(Impostor())
    assert "TLS key of another device" in charged(scene, LIAR)
    for device in scene.honest():
        assert not charged(scene, device.index)


class Framer(Rewritten):
    """Its heads name an evidence list that accuses an honest device, with heads forged for it."""

    def __init__(self, fleet: Fleet, victim: SimDevice, thief: SimDevice) -> None:
        super().__init__(lambda head, update: (head, update))
        key = thief.keys.signer
        first, second = (
            seal("head", encode(Head(fleet.id, victim.device, 9, b"m" * 32, n, b"p" * 32)), key)
            for n in (1, 2)
        )
        accusation = Evidence(EvidenceKind.EQUAL_SEQ, first, second, victim.keys.member)
        self._list = pack_list([pack_evidence(accusation)])
        self._objects[digest(self._list)] = self._list

    def rewrite(self, head: Head, update: bytes | None) -> tuple[Head, bytes | None]:
        return msgspec.structs.replace(head, evidence=digest(self._list)), update


def test_false_evidence_is_the_listers_fault() -> None:
    """`NobodyFramed` watches that the accused is condemned by nobody."""
    scene = Scene(25, Setup(devices=6, attackers=1))
    liar = scene.devices[LIAR]
    scene.world.corrupt(liar, Framer(scene.fleet, scene.devices[0], liar))
    scene.start()
    scene.run_rounds(6, limit_s=60.0)
    scene.world.finish()
    assert "bad evidence" in charged(scene, LIAR)
    assert not charged(scene, 0)


def test_a_slow_body_is_a_stall_and_holds_up_nobody() -> None:
    scene = Scene(23, Setup(devices=6))
    for other in range(LIAR):
        scene.world.network.set_link(LIAR, other, Link(bytes_per_s=20.0))
    scene.start()
    took = scene.run_rounds(6, limit_s=60.0, who=scene.devices[:LIAR])
    assert took <= 6 * 3.3 + 6.0
    assert "bad signature" not in charged(scene, LIAR)


class Swapper(Adversary):
    """Says truly who it is, and serves the bytes of something else for all that it is asked."""

    def serve_object(
        self, device: SimDevice, asker: SimDevice, name: bytes, data: bytes | None
    ) -> bytes | None:
        return data if name == digest(device.keys.member) else b"not what you asked for"

    def serve_head(
        self, device: SimDevice, asker: SimDevice, which: bytes | None, served: Served | None
    ) -> Served | None:
        return replace(served, update=b"other bytes") if served is not None else None


def test_wrong_bytes_are_the_carriers_fault() -> None:
    scene = scene_with(Swapper())
    assert "wrong digest" in charged(scene, LIAR)
    for device in scene.honest():
        assert "wrong digest" not in charged(scene, device.index)


# --- one flipped bit ----------------------------------------------------------------------------


class Recorder(Checker):
    """Keeps one of each signed thing that passes by."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []

    def on_effects(self, device: SimDevice, event: object, effects: object) -> None:
        if isinstance(effects, list):
            self.commits += [e for e in effects if isinstance(e, Commit)]


@pytest.fixture(scope="module")
def things() -> dict[str, bytes]:
    """A member, head, receipt, policy, revocation, evidence and update of one fleet."""
    recorder = Recorder()
    scene = Scene(24, Setup(devices=4), checkers=[recorder]).start()
    scene.run_rounds(3, limit_s=60.0)
    batches = [c.batch for c in recorder.commits if c.batch.head is not None]
    batch = next(b for b in reversed(batches) if b.receipt is not None)
    assert batch.head is not None
    assert batch.receipt is not None
    objects = [data for b in batches for _, data in b.objects]
    device = scene.devices[0]
    first = seal(
        "head", encode(Head(scene.fleet.id, device.device, 1, b"m" * 32, 1)), device.keys.signer
    )
    second = seal(
        "head", encode(Head(scene.fleet.id, device.device, 1, b"m" * 32, 2)), device.keys.signer
    )
    proof = Evidence(EvidenceKind.EQUAL_SEQ, first, second, device.keys.member)
    return {
        "root": scene.fleet.root.key_id,
        "member": device.keys.member,
        "head": batch.head,
        "receipt": batch.receipt,
        "policy": scene.policy,
        "revocation": scene.fleet.revoke(b"r" * 16, "lost"),
        "evidence": pack_evidence(proof),
        "update": next(data for data in objects if data[:4] == b"GFU1"),
    }


def check_of(kind: str, root: bytes) -> Callable[[bytes], object]:
    """How a receiver takes this kind in; raises PeerError on anything wrong."""
    limits = Limits()
    roster = Roster(root, limits)

    def envelope(data: bytes) -> object:
        opened = open_envelope(data, kind, limits.entry_bytes)
        check_signature(opened)
        return decode(opened.payload, Head if kind == "head" else Receipt)

    policies = Policies(roster.fleet, limits, roster.verify_chain, lambda device: False)
    checks: dict[str, Callable[[bytes], object]] = {
        "member": roster.verify_chain,
        "head": envelope,
        "receipt": envelope,
        "policy": policies.verify,
        "revocation": roster.revoke,
        "evidence": lambda data: verify_evidence(data, roster.verify_chain, limits),
    }
    return checks[kind]


def flipped(data: bytes, bit: int) -> bytes:
    wrong = bytearray(data)
    wrong[bit // 8] ^= 1 << (bit % 8)
    return bytes(wrong)


@pytest.mark.parametrize("kind", ["member", "head", "receipt", "policy", "revocation", "evidence"])
def test_every_single_flipped_bit_is_refused(kind: str, things: dict[str, bytes]) -> None:
    data = things[kind]
    check = check_of(kind, things["root"])
    check(data)
    for bit in range(len(data) * 8):
        with pytest.raises(PeerError):
            check(flipped(data, bit))


def test_flipped_bits_of_an_update_change_its_name(things: dict[str, bytes]) -> None:
    """100,000 random ones; a signed head names an update by digest."""
    data, draw = things["update"], random.Random(1)
    named = digest(data)
    for _ in range(100_000):
        assert digest(flipped(data, draw.randrange(len(data) * 8))) != named
