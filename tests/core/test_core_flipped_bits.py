"""One flipped bit anywhere, at the real node: refused before it can mean anything.

Small objects exhaustively, a large update 10^5 times at random. Each flip is answered to a request
that the node itself sent; `ask_again` puts that request back for the next flip. Afterwards the
same request is answered with the true bytes and is taken, so that refusing everything would fail.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from harness import Device, Puppet, Table, ask_again, base_of, flip, opened, pending_of

from gossipfl.chains import pack_evidence
from gossipfl.codecs import encode_update
from gossipfl.errors import Fault
from gossipfl.events import FetchHead, FetchObject, HeadReceived, ObjectReceived, StartMerge
from gossipfl.messages import (
    ChainRef,
    Evidence,
    EvidenceKind,
    Head,
    Lineage,
    Merged,
    Receipt,
    Record,
)
from gossipfl.objects import digest, pack_list
from gossipfl.wire import encode, seal
from sim.fleet import EPOCH

RANDOM_FLIPS = 100_000


class Scene:
    """A node, a member `x` that brings the flipped bytes, and one whose name they bear."""

    def __init__(self, count: int = 4) -> None:
        self.table = Table(n=3, count=count)
        self.me = self.table.device()
        self.x, self.named = self.table.puppet(), self.table.puppet()
        for puppet in (self.x, self.named):
            puppet.publish()
        self.table.introduce()
        self.table.advance(3.0)
        assert self.me.node.view().waiting_for == "a policy"

    def asked_for(self, kind: type[Any]) -> Any:
        return opened(self.table, self.me, kind, self.x)

    def answer_all(
        self, effect: Any, answers: Iterable[Any], name: Callable[[Any], bytes] | None = None
    ) -> int:
        """Answers one request again and again. `name`: the digest that the request names then."""
        pending = pending_of(self.me, effect)
        count = 0
        for answer in answers:
            named = replace(pending, digest=name(answer)) if name else pending
            ask_again(self.me, effect, named)
            self.table.send(self.me, answer)
            count += 1
        ask_again(self.me, effect, pending)
        return count

    def charged(self) -> int:
        assert self.me.faults(self.named) == {}, "the device whose name it bears is not blamed"
        return sum(self.me.faults(self.x).values())


# --- heads ---------------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_head() -> None:
    scene = Scene()
    before = scene.me.peer(scene.x)
    good = scene.x.publish(capability="pi 5")
    asked = scene.asked_for(FetchHead)
    flips = (scene.x.says(asked, flip(good, bit)) for bit in range(8 * len(good)))
    assert scene.answer_all(asked, flips) == 8 * len(good) == scene.charged()
    after = scene.me.peer(scene.x)
    assert before is not None
    assert after is not None
    assert after.seq == before.seq
    assert scene.me.node.view().evidence == 0
    faults = set(scene.me.faults(scene.x))
    known = {Fault.BAD_SIGNATURE, Fault.MALFORMED, Fault.UNKNOWN_TYPE, Fault.UNKNOWN_MEMBER}
    assert faults <= {fault.value for fault in known}
    scene.table.send(scene.me, scene.x.says(asked, good))
    taken = scene.me.peer(scene.x)
    assert taken is not None
    assert taken.seq == before.seq + 1


def test_every_flipped_bit_of_somebody_elses_head_costs_its_carrier() -> None:
    """x shows a damaged head of another device as its own: that device has done nothing."""
    scene = Scene()
    theirs = scene.named.publish()
    asked = scene.asked_for(FetchHead)
    bits = range(0, 8 * len(theirs), 3)
    flips = (scene.x.says(asked, flip(theirs, bit)) for bit in bits)
    assert scene.answer_all(asked, flips) == len(bits) == scene.charged()


def test_every_flipped_bit_of_our_own_head_at_a_peer() -> None:
    """After a restart a peer shows us our own head, damaged: nothing is adopted, we stay quiet."""
    scene = Scene()
    me, table, x = scene.me, scene.table, scene.x
    table.employ()
    table.until(lambda: me.node.view().seq >= 2, 60.0)
    own = me.node.shelf.head(None)
    assert own is not None
    scene.named.heads[me.id] = x.heads[me.id] = own.envelope
    table.hold = lambda d, e: isinstance(e, FetchHead) and e.device == me.id
    table.restart(me)
    table.introduce()
    table.until(lambda: len(me.open) == 2, 60.0)
    asked = next(e for e in me.open.values() if e.address == x.address)
    assert isinstance(asked, FetchHead)
    pending = pending_of(me, asked)
    notices = len(me.notices)
    for bit in range(0, 8 * len(own.envelope), 3):
        ask_again(me, asked, pending)
        table.send(me, x.says(asked, flip(own.envelope, bit)))
    assert me.node.view().seq == 2
    assert me.node.view().waiting_for != ""
    assert scene.charged() > 0
    assert not [n for n in me.notices[notices:] if "key" in n.text and "signed with" in n.text]


# --- objects -------------------------------------------------------------------------------------


def receipt_of(x: Puppet, lineage: Lineage) -> bytes:
    row = Merged(b"p" * 16, 1, b"h" * 32, b"u" * 32, 0.5)
    receipt = Receipt(
        *(x.fleet.id, x.id, 1, 1, lineage, b"b" * 32, "mean", 0, int(EPOCH)), merged=[row]
    )
    return seal("receipt", encode(receipt), x.keys.signer)


def record_of(x: Puppet) -> bytes:
    record = Record(x.fleet.id, x.id, 1, digest(x.keys.member), ["10.9.9.9:7000"])
    return seal("record", encode(record), x.keys.signer)


def evidence_of(x: Puppet) -> bytes:
    liar = x.fleet.admit()
    heads = [
        seal(
            "head",
            encode(Head(x.fleet.id, liar.device, 9, digest(liar.member), n, b"p" * 32)),
            liar.signer,
        )
        for n in (1, 2)
    ]
    return pack_evidence(Evidence(EvidenceKind.EQUAL_SEQ, heads[0], heads[1], liar.member))


def policy_object(scene: Scene) -> tuple[bytes, dict[str, Any]]:
    return scene.table.policy, {"policy": digest(scene.table.policy)}


def member_object(scene: Scene) -> tuple[bytes, dict[str, Any]]:
    """The object that the next head names as its signer's: a renewal."""
    data = scene.table.fleet.admit().member
    return data, {"member": digest(data)}


def revocations_object(scene: Scene) -> tuple[bytes, dict[str, Any]]:
    data = pack_list([scene.table.fleet.revoke(b"r" * 16, "lost")])
    return data, {"revocations": digest(data)}


def evidence_object(scene: Scene) -> tuple[bytes, dict[str, Any]]:
    data = pack_list([evidence_of(scene.x)])
    return data, {"evidence": digest(data)}


def peers_object(scene: Scene) -> tuple[bytes, dict[str, Any]]:
    data = pack_list([record_of(scene.x)])
    return data, {"peers": digest(data)}


OBJECTS: dict[str, Callable[[Scene], tuple[bytes, dict[str, Any]]]] = {
    "policy": policy_object,
    "member": member_object,
    "revocations": revocations_object,
    "evidence": evidence_object,
    "peers": peers_object,
}


def means_something(me: Device) -> tuple[Any, ...]:
    """All that such an object could have changed."""
    view = me.node.view()
    return view.policy, view.revoked, view.evidence, view.candidates, len(view.peers), view.seq


def offered(scene: Scene, kind: str) -> tuple[bytes, FetchObject]:
    """The true object, and the node's request for it."""
    data, names = OBJECTS[kind](scene)
    scene.x.hold(data)
    scene.x.publish(**names)
    return data, scene.asked_for(FetchObject)


@pytest.mark.parametrize("kind", OBJECTS)
def test_every_flipped_bit_of_an_object_has_another_digest(kind: str) -> None:
    """Whoever carries it changed it: the carrier is charged."""
    scene = Scene()
    data, asked = offered(scene, kind)
    assert asked.digest == digest(data)
    before = means_something(scene.me)
    bits = 8 * len(data)
    flips = (ObjectReceived(asked.request, flip(data, bit)) for bit in range(bits))
    assert scene.answer_all(asked, flips) == bits
    assert scene.me.faults(scene.x) == {Fault.WRONG_DIGEST.value: bits}
    assert scene.charged() == bits
    assert means_something(scene.me) == before


@pytest.mark.parametrize(
    ("kind", "step"),
    [("policy", 1), ("member", 1), ("revocations", 1), ("evidence", 5), ("peers", 1)],
)
def test_every_flipped_bit_of_an_object_under_its_own_digest(kind: str, step: int) -> None:
    """x's signed head names the damaged object: digests agree, what is inside must not."""
    scene = Scene()
    data, asked = offered(scene, kind)
    before = means_something(scene.me)
    bits = range(0, 8 * len(data), step)
    flips = (ObjectReceived(asked.request, flip(data, bit)) for bit in bits)
    assert scene.answer_all(asked, flips, name=lambda a: digest(a.data)) == len(bits)
    assert scene.charged() == len(bits)
    assert means_something(scene.me) == before
    scene.table.send(scene.me, ObjectReceived(asked.request, data))
    if kind != "member":
        assert means_something(scene.me) != before, "the true one is taken"


def test_every_flipped_bit_of_a_receipt() -> None:
    scene = Scene()
    scene.table.employ()
    receipt = receipt_of(scene.x, scene.table.lineage)
    scene.x.hold(receipt)
    scene.x.publish(receipts=ChainRef(1, digest(receipt)))
    asked = scene.asked_for(FetchObject)
    assert asked.digest == digest(receipt)
    bits = 8 * len(receipt)
    flips = [ObjectReceived(asked.request, flip(receipt, bit)) for bit in range(bits)]
    scene.answer_all(asked, flips)
    assert scene.me.faults(scene.x) == {Fault.WRONG_DIGEST.value: bits}
    scene.answer_all(asked, flips, name=lambda a: digest(a.data))
    assert scene.charged() == 2 * bits


# --- updates -------------------------------------------------------------------------------------


class Round(Scene):
    """The node collects: it asks x for its update, and waits for `named` until `release`."""

    def __init__(self, count: int, ride: bool) -> None:
        super().__init__(count)
        table, me = self.table, self.me
        table.hold = lambda d, e: isinstance(e, FetchHead) and e.wait_s > 0.0
        table.employ()
        table.until(lambda: len(me.open) == 2, 120.0)
        vector = np.linspace(-1.0, 1.0, count, dtype=np.float32)
        self.data = encode_update(table.lineage, "f32", vector)
        self.x.publish_update(table.lineage, vector, ride)
        self.named.publish_update(table.lineage, -vector, ride)
        by_address: dict[Any, Any] = {effect.address: effect for effect in me.open.values()}
        self.asked: Any = by_address[self.x.address]
        self.other: Any = by_address[self.named.address]
        if not ride:
            table.hold = lambda d, e: isinstance(e, FetchObject)
            table.send(me, self.x.says(self.asked, self.x.current))
            [self.asked] = [e for e in me.open.values() if isinstance(e, FetchObject)]
        assert me.node.view().phase == "collecting"

    def merged(self) -> list[bytes]:
        """The rest goes its way; the updates that were merged."""
        self.table.hold = lambda d, e: False
        assert not self.me.sent(StartMerge)
        self.table.send(self.me, self.named.serve(self.other))
        self.table.until(lambda: self.me.sent(StartMerge), 60.0)
        rows = self.me.sent(StartMerge)[0].received
        return [encode_update(self.table.lineage, "f32", row) for row in rows]

    def flipped(self, bit: int) -> Any:
        if isinstance(self.asked, FetchObject):
            return ObjectReceived(self.asked.request, flip(self.data, bit))
        return self.x.says(self.asked, self.x.current, flip(self.data, bit))


@pytest.mark.parametrize("ride", [False, True])
def test_every_flipped_bit_of_an_update(ride: bool) -> None:
    scene = Round(16, ride)
    before = base_of(scene.me)
    bits = 8 * len(scene.data)
    assert scene.answer_all(scene.asked, (scene.flipped(bit) for bit in range(bits))) == bits
    assert scene.me.faults(scene.x) == {Fault.WRONG_DIGEST.value: bits}
    assert scene.charged() == bits
    assert base_of(scene.me) == before
    assert scene.data not in scene.merged(), "the carrier failed: this round goes without x"


@pytest.mark.parametrize("ride", [False, True])
def test_the_true_update_is_merged_after_false_ones(ride: bool) -> None:
    scene = Round(16, ride)
    scene.answer_all(scene.asked, (scene.flipped(bit) for bit in (0, 999)))
    if ride:
        scene.table.send(scene.me, scene.x.says(scene.asked, scene.x.current, scene.data))
    else:
        scene.table.send(scene.me, ObjectReceived(scene.asked.request, scene.data))
    merged = scene.merged()
    assert scene.data in merged
    assert len(merged) == 2


def test_a_hundred_thousand_random_bits_of_a_large_update() -> None:
    scene = Round(12_000, ride=False)
    assert len(scene.data) > 48_000
    entropy = random.Random(7)
    bits = (entropy.randrange(8 * len(scene.data)) for _ in range(RANDOM_FLIPS))
    assert scene.answer_all(scene.asked, (scene.flipped(bit) for bit in bits)) == RANDOM_FLIPS
    assert scene.me.faults(scene.x) == {Fault.WRONG_DIGEST.value: RANDOM_FLIPS}
    assert scene.charged() == RANDOM_FLIPS
    assert scene.data not in scene.merged()


def test_an_update_that_rides_with_a_damaged_head_is_not_looked_at() -> None:
    scene = Round(16, ride=True)
    head = scene.x.current
    assert head is not None
    bits = range(0, 8 * len(head), 7)
    scene.answer_all(
        scene.asked, (scene.x.says(scene.asked, flip(head, bit), scene.data) for bit in bits)
    )
    assert Fault.WRONG_DIGEST.value not in scene.me.faults(scene.x)
    assert scene.data not in scene.merged()


def test_nobody_is_charged_for_an_answer_that_was_not_asked_for() -> None:
    scene = Scene()
    before = means_something(scene.me)
    for request in (0, 10**6, -1):
        scene.table.send(scene.me, ObjectReceived(request, b"unasked"))
        scene.table.send(scene.me, HeadReceived(request, b"unasked"))
    assert scene.charged() == 0
    assert means_something(scene.me) == before
