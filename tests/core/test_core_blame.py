"""Everything that can be wrong with what a peer sends: a typed fault, at the right door.

Two members stand beside the node: `x` answers, and `named` is the device whose name the bytes may
bear. Whoever only has its name in somebody else's forgery is never charged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from harness import Device, Puppet, Table, opened

from gossipfl.chains import pack_evidence
from gossipfl.codecs import encode_update
from gossipfl.errors import Fault
from gossipfl.events import (
    CutOff,
    FetchFailed,
    FetchHead,
    FetchObject,
    HeadReceived,
    ObjectReceived,
    PeerSeen,
    Source,
    StartMerge,
)
from gossipfl.messages import ChainRef, Evidence, EvidenceKind, Lineage, Receipt, Role, UpdateRef
from gossipfl.objects import digest, pack_list
from gossipfl.wire import encode, pack, seal, unpack
from sim.fleet import DAY_S, EPOCH, Fleet


class Scene:
    def __init__(self, employed: bool = False, **table: Any) -> None:
        self.table = Table(n=3, **table)
        self.me: Device = self.table.device()
        self.x, self.named = self.table.puppet(), self.table.puppet()
        for puppet in (self.x, self.named):
            puppet.publish()
        self.table.introduce()
        self.table.advance(3.0)
        if employed:
            self.table.employ()

    def answer_poll(self, make: Callable[[FetchHead], Any]) -> None:
        asked = opened(self.table, self.me, FetchHead, self.x)
        self.table.send(self.me, make(asked))

    def show(self, head: bytes | None, update: bytes | None = None) -> None:
        """x answers the next poll with this."""
        self.answer_poll(lambda asked: self.x.says(asked, head, update))

    def object_asked(self, **names: Any) -> FetchObject:
        """x publishes a head with these fields; the object that the node then asks for."""
        self.x.publish(**names)
        found = opened(self.table, self.me, FetchObject, self.x)
        assert isinstance(found, FetchObject)
        return found

    def expect(self, x: dict[Fault, int], named: dict[Fault, int] | None = None) -> None:
        for puppet, faults in ((self.x, x), (self.named, named or {})):
            assert self.me.faults(puppet) == {f.value: n for f, n in faults.items()}

    def seq(self, of: Puppet) -> int:
        view = self.me.peer(of)
        assert view is not None
        return view.seq


# --- heads ---------------------------------------------------------------------------------------


def forged(scene: Scene, **fields: Any) -> bytes:
    """A head in `named`'s name that x made up: the key is right, the signature is not."""
    head = scene.named.compose(**fields)
    kind, payload, _, signature = unpack(seal("head", encode(head), scene.x.keys.signer), 4096)
    return pack([kind, payload, bytes(scene.named.keys.signer.key_id), signature])


def other_fleets_head(scene: Scene) -> bytes:
    return scene.x.sign(scene.x.compose(fleet=Fleet(99).id))


def too_big(scene: Scene) -> bytes:
    return scene.x.sign(scene.x.compose()) + bytes(4096)


HEADS: dict[str, tuple[Callable[[Scene], bytes], Fault]] = {
    "forged in another's name": (forged, Fault.BAD_SIGNATURE),
    "another's true head as its own": (
        lambda s: s.named.sign(s.named.compose()),
        Fault.TLS_MISMATCH,
    ),
    "another fleet": (other_fleets_head, Fault.WRONG_FLEET),
    "another's device id": (
        lambda s: s.x.sign(s.x.compose(device=s.named.id)),
        Fault.WRONG_DEVICE,
    ),
    "oversized": (too_big, Fault.OVERSIZED),
    "truncated": (lambda s: s.x.sign(s.x.compose())[:-20], Fault.MALFORMED),
    "empty": (lambda s: b"", Fault.MALFORMED),
    "no envelope": (lambda s: b"<html>", Fault.MALFORMED),
    "a record": (lambda s: seal("record", b"", s.x.keys.signer), Fault.UNKNOWN_TYPE),
    "no head inside": (lambda s: seal("head", b"\x90", s.x.keys.signer), Fault.MALFORMED),
    "first without prev, again": (
        lambda s: s.x.sign(s.x.compose(prev=None)),
        Fault.MALFORMED,
    ),
    "a prev before the first": (
        lambda s: s.x.sign(s.x.compose(seq=1, prev=b"p" * 32)),
        Fault.MALFORMED,
    ),
}


@pytest.mark.parametrize("what", HEADS)
def test_a_bad_head_costs_whoever_brought_it(what: str) -> None:
    scene = Scene()
    make, fault = HEADS[what]
    before = scene.seq(scene.x), scene.seq(scene.named)
    scene.show(make(scene))
    scene.expect({fault: 1})
    assert (scene.seq(scene.x), scene.seq(scene.named)) == before
    view = scene.me.peer(scene.x)
    assert view is not None
    assert view.reputation < 1.0
    assert scene.me.node.view().evidence == 0


def test_an_older_head_is_a_replay() -> None:
    scene = Scene()
    old = scene.x.current
    scene.x.publish()
    scene.table.until(lambda: scene.seq(scene.x) == 2, 20.0)
    scene.show(old)
    scene.expect({Fault.REPLAYED_SEQ: 1})
    assert scene.seq(scene.x) == 2


def test_an_answer_that_was_overtaken_is_no_replay() -> None:
    """Two requests out at once: the later one is answered first. Nobody did anything wrong."""
    scene = Scene(employed=True)
    table, me, x = scene.table, scene.me, scene.x

    def is_poll(effect: FetchHead | FetchObject) -> bool:
        head = isinstance(effect, FetchHead) and effect.update_bytes == 0
        return head and effect.address == x.address

    table.hold = lambda d, e: is_poll(e)
    table.until(lambda: me.open, 60.0)
    [poll] = me.open.values()
    assert isinstance(poll, FetchHead)
    x.publish()
    early = x.says(poll, x.current)
    x.publish_update(table.lineage, np.ones(4, np.float32))
    table.until(lambda: scene.seq(x) == 3, 60.0)
    table.send(me, early)
    scene.expect({})
    assert scene.seq(x) == 3


def test_an_older_head_of_another_branch_is_proof() -> None:
    """A replay that contradicts what we hold says more than that it is old."""
    scene = Scene()
    fork = scene.x.sign(scene.x.compose(capability="the other branch"))
    for _ in range(2):
        scene.x.publish()
        scene.table.advance(6.0)
    assert scene.seq(scene.x) == 3
    scene.show(fork)
    view = scene.me.peer(scene.x)
    assert view is not None
    assert view.state == "condemned"


def test_two_heads_with_one_number_condemn_for_good() -> None:
    scene = Scene()
    one = scene.x.sign(scene.x.compose(capability="one"))
    two = scene.x.sign(scene.x.compose(capability="two"))
    scene.show(one)
    scene.show(two)
    view = scene.me.peer(scene.x)
    assert view is not None
    assert view.state == "condemned"
    assert "two signed heads" in view.why
    assert scene.me.node.view().evidence == 1
    [cut] = scene.me.sent(CutOff)
    assert (cut.device, cut.tls_key) == (scene.x.id, scene.x.keys.tls_key)
    assert scene.me.node.refused(scene.x.keys.tls_key) is not None
    assert scene.me.node.refused(scene.named.keys.tls_key) is None


# --- members -------------------------------------------------------------------------------------


def meet(scene: Scene, puppet: Puppet) -> None:
    scene.table.send(scene.me, PeerSeen(puppet.address, Source.STATIC))
    scene.table.advance(1.0)


def test_a_member_of_another_fleet_gets_nowhere() -> None:
    scene = Scene()
    stranger = Puppet(Fleet(50), Fleet(50).admit(), scene.table._address())
    stranger.publish()
    scene.table.puppets.append(stranger)
    meet(scene, stranger)
    assert scene.me.peer(stranger) is None
    assert scene.me.node.device_of_tls(stranger.keys.tls_key) is None
    scene.expect({})


def test_a_head_whose_member_object_nobody_has_is_dropped() -> None:
    scene = Scene()
    late = scene.table.puppet()
    late.publish()
    late.objects.clear()
    meet(scene, late)
    assert scene.me.peer(late) is None
    late.hold(late.keys.member)
    scene.table.advance(60.0)
    assert scene.me.peer(late) is not None, "and taken as soon as it is there"


def test_an_update_is_as_old_as_the_head_that_waited_for_its_signers_member() -> None:
    """The head comes at once, the member object when the update is stale: it was taken for new."""
    scene = Scene(employed=True)
    table, me, late = scene.table, scene.me, scene.table.puppet()
    stale = np.full(table.count, 7.0, np.float32)
    late.publish_update(table.lineage, stale, ride=True)
    member = digest(late.keys.member)
    table.hold = lambda _, effect: isinstance(effect, FetchObject) and effect.digest == member
    meet(scene, late)
    table.advance(table.pace.stale_s)
    asked = next(e for e in me.open.values() if isinstance(e, FetchObject))
    for puppet in (scene.x, scene.named):
        puppet.publish_update(table.lineage, np.ones(table.count, np.float32), ride=True)
    table.send(me, late.serve(asked))
    assert me.peer(late) is not None
    before = len(me.sent(StartMerge))
    table.until(lambda: len(me.sent(StartMerge)) > before, 90.0)
    rows = [row for effect in me.sent(StartMerge)[before:] for row in effect.received]
    assert len(rows) == 2
    assert not any(np.array_equal(row, stale) for row in rows)


def test_a_carrier_that_brings_a_strangers_head_is_not_its_signer() -> None:
    """x answers with a head of an unknown key and a member object that is no member's."""
    scene = Scene()
    stranger = Puppet(Fleet(50), Fleet(50).admit(), scene.x.address)
    head = stranger.publish()
    scene.x.hold(stranger.keys.member)
    name = digest(stranger.keys.member)
    scene.answer_poll(
        lambda asked: HeadReceived(asked.request, head, name, None, scene.x.keys.tls_key)
    )
    scene.expect({Fault.UNKNOWN_MEMBER: 1})
    assert scene.me.node.view().evidence == 0


def test_an_expired_member_is_no_member() -> None:
    scene = Scene()
    short = scene.table.puppet(days=0.0, not_before=EPOCH - DAY_S + 100.0)
    short.publish()
    meet(scene, short)
    before = scene.me.peer(short)
    assert before is not None
    assert before.seq == 1
    scene.table.advance(150.0)
    short.publish()
    scene.table.advance(30.0)
    after = scene.me.peer(short)
    assert after is not None
    assert after.seq == 1
    assert set(after.faults) == {Fault.EXPIRED_MEMBER.value}
    assert after.reputation == 1.0, "an old card is no attack"


def test_expiry_goes_by_fleet_time_not_by_the_wall_clock() -> None:
    """Our own clock jumps ten years ahead: that ends nobody's membership."""
    scene = Scene()
    third = scene.table.puppet()
    third.publish()
    meet(scene, third)
    scene.table.wall_offset = 3650.0 * DAY_S
    for _ in range(10):
        for puppet in (scene.x, scene.named, third):
            puppet.publish(issued=int(EPOCH + scene.table.now))
        scene.table.advance(10.0)
    for puppet in (scene.x, scene.named, third):
        assert scene.me.faults(puppet) == {}
        assert scene.seq(puppet) > 1


def test_a_revoked_member_is_cut_off_and_refused() -> None:
    scene = Scene()
    revocations = pack_list([scene.table.fleet.revoke(scene.x.id, "stolen")])
    scene.named.hold(revocations)
    scene.named.publish(revocations=digest(revocations))
    scene.table.until(lambda: scene.me.sent(CutOff), 30.0)
    assert "stolen" in (scene.me.node.refused(scene.x.keys.tls_key) or "")
    view = scene.me.peer(scene.x)
    assert view is not None
    assert (view.state, view.why) == ("revoked", "stolen")
    scene.x.publish()
    meet(scene, scene.x)
    after = scene.me.peer(scene.x)
    assert after is not None
    assert set(after.faults) == {Fault.REVOKED_MEMBER.value}
    assert after.seq == 0


def test_nobody_asks_for_the_membership_of_a_device_that_is_known_to_be_revoked() -> None:
    """Whoever has let go of it, as a hub that erased it, does not get it back that way."""
    scene = Scene()
    stolen = scene.table.puppet()
    stolen.publish()
    revocations = pack_list([scene.table.fleet.revoke(stolen.id, "stolen")])
    scene.named.hold(revocations)
    scene.named.publish(revocations=digest(revocations))
    scene.table.until(lambda: scene.me.node.view().revoked, 30.0)
    meet(scene, stolen)
    asked = [effect.digest for effect in scene.me.sent(FetchObject)]
    assert digest(stolen.keys.member) not in asked
    assert stolen.id not in [k.member.device for k in scene.me.node.holdings().members]


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.AUDITOR])
def test_who_publishes_nothing_has_no_head(role: Role) -> None:
    """A signed head by an operator's key, brought by x."""
    scene = Scene()
    office = Puppet(scene.table.fleet, scene.table.fleet.admit(role), scene.x.address)
    head = office.publish()
    scene.x.hold(office.keys.member)
    name = digest(office.keys.member)
    scene.answer_poll(
        lambda asked: HeadReceived(asked.request, head, name, None, scene.x.keys.tls_key)
    )
    assert scene.me.node.view().evidence == 0
    view = scene.me.peer(office)
    assert view is None or view.state != "live"


# --- objects -------------------------------------------------------------------------------------


def test_other_bytes_than_asked_for_cost_the_carrier() -> None:
    scene = Scene()
    asked = scene.object_asked(policy=b"p" * 32)
    scene.table.send(scene.me, ObjectReceived(asked.request, b"other bytes"))
    scene.expect({Fault.WRONG_DIGEST: 1})


def test_whoever_took_over_an_address_pays_for_what_it_serves_there() -> None:
    """x answers where `named` used to live (a new lease, or a forged ARP answer): the TLS key says
    who it is, the address book does not."""
    scene = Scene()
    scene.named.publish(policy=b"p" * 32)
    asked = opened(scene.table, scene.me, FetchObject, scene.named)
    wrong = ObjectReceived(asked.request, b"other bytes", scene.x.keys.tls_key)
    scene.table.send(scene.me, wrong)
    scene.expect({Fault.WRONG_DIGEST: 1})
    scene.named.publish(revocations=b"r" * 32)
    asked = opened(scene.table, scene.me, FetchObject, scene.named)
    failed = FetchFailed(asked.request, Fault.OVERSIZED, "5 GB", tls_key=scene.x.keys.tls_key)
    scene.table.send(scene.me, failed)
    scene.expect({Fault.WRONG_DIGEST: 1, Fault.OVERSIZED: 1})


@pytest.mark.parametrize("key", [b"s" * 32, None], ids=["a stranger's key", "its own"])
def test_nothing_new_is_the_asked_peers_word_only_with_its_key(key: bytes | None) -> None:
    """A member that was never met holds a peer's old address and says "unchanged" for it: that
    keeps nobody live. The peer itself, under its own key, is."""
    scene = Scene()
    asked = opened(scene.table, scene.me, FetchHead, scene.named)
    tls_key = scene.named.keys.tls_key if key is None else key
    scene.table.hold = lambda d, e: True  # nobody is asked again yet
    scene.table.send(scene.me, HeadReceived(asked.request, None, None, tls_key=tls_key))
    view = scene.me.peer(scene.named)
    assert view is not None
    assert bool(view.addresses) is (key is None)
    scene.expect({})


def test_bytes_from_a_stranger_are_charged_to_nobody() -> None:
    scene = Scene()
    asked = scene.object_asked(policy=b"p" * 32)
    scene.table.send(scene.me, ObjectReceived(asked.request, b"other bytes", b"s" * 32))
    scene.expect({})


@pytest.mark.parametrize("field", ["policy", "revocations", "evidence", "peers", "member"])
def test_a_head_that_names_garbage_costs_its_signer(field: str) -> None:
    scene = Scene()
    scene.x.publish(**{field: scene.x.hold(b"garbage")})
    scene.table.until(lambda: scene.me.faults(scene.x), 30.0)
    faults = scene.me.faults(scene.x)
    assert sum(faults.values()) == 1
    assert set(faults) <= {Fault.MALFORMED.value, Fault.BAD_EVIDENCE.value}
    fetched = len(scene.me.sent(FetchObject))
    for _ in range(3):
        scene.x.publish(**{field: digest(b"garbage")})
        scene.table.advance(20.0)
    assert scene.me.faults(scene.x) == faults
    assert len(scene.me.sent(FetchObject)) == fetched, "it is not fetched again"


def test_bad_evidence_costs_the_lister_and_not_the_accused() -> None:
    scene = Scene()
    one = scene.named.current
    assert one is not None
    two = forged(scene, seq=1, prev=None, capability="forged")
    claim = Evidence(EvidenceKind.EQUAL_SEQ, one, two, scene.named.keys.member)
    listed = scene.x.hold(pack_list([pack_evidence(claim)]))
    scene.x.publish(evidence=listed)
    scene.table.until(lambda: scene.me.faults(scene.x), 30.0)
    scene.expect({Fault.BAD_EVIDENCE: 1})
    view = scene.me.peer(scene.named)
    assert view is not None
    assert view.state == "live"


def test_a_receipt_of_another_device_is_refused() -> None:
    scene = Scene(employed=True)
    theirs = Receipt(
        *(scene.table.fleet.id, scene.named.id, 1, 1, scene.table.lineage, b"b" * 32),
        *("mean", 0, int(EPOCH)),
    )
    data = seal("receipt", encode(theirs), scene.named.keys.signer)
    scene.x.publish(receipts=ChainRef(1, scene.x.hold(data)))
    scene.table.until(lambda: scene.me.faults(scene.x), 120.0)
    scene.expect({Fault.WRONG_DEVICE: 1})


def test_a_head_below_the_newest_that_is_not_served_is_withheld() -> None:
    scene = Scene()
    for _ in range(3):
        scene.x.publish()
    for name in list(scene.x.objects):
        if name not in (digest(scene.x.current or b""), digest(scene.x.keys.member)):
            del scene.x.objects[name]
    scene.table.employ()
    scene.table.until(lambda: scene.me.faults(scene.x), 120.0)
    scene.expect({Fault.WITHHELD_CHAIN: 1})


# --- updates -------------------------------------------------------------------------------------


def update_scene() -> Scene:
    scene = Scene(employed=True)
    scene.named.publish_update(scene.table.lineage, np.zeros(4, np.float32))
    return scene


def offer(scene: Scene, data: bytes, **ref: Any) -> None:
    """x's next head names this as its update; x holds it."""
    values = {"digest": scene.x.hold(data), "size": len(data), "codec": "f32", "round": 1}
    scene.x.publish(lineage=scene.table.lineage, update=UpdateRef(**{**values, **ref}))


def model(values: list[float], lineage: Lineage) -> bytes:
    return encode_update(lineage, "f32", np.array(values, np.float32))


def other_lineage(scene: Scene) -> Lineage:
    return scene.table.job.lineage(run=7)


UPDATES: dict[str, tuple[Callable[[Scene], tuple[bytes, dict[str, Any]]], Fault]] = {
    "NaN": (lambda s: (model([1, float("nan"), 1, 1], s.table.lineage), {}), Fault.NOT_FINITE),
    "infinity": (lambda s: (model([1, 1, 1, -np.inf], s.table.lineage), {}), Fault.NOT_FINITE),
    "above the norm bound": (
        lambda s: (model([1e7, 0, 0, 0], s.table.lineage), {}),
        Fault.NORM_BOUND,
    ),
    "overflowing norm": (
        lambda s: (model([3e38, 3e38, 3e38, 3e38], s.table.lineage), {}),
        Fault.NORM_BOUND,
    ),
    "one parameter more": (
        lambda s: (model([1, 1, 1, 1, 1], s.table.lineage), {}),
        Fault.WRONG_LENGTH,
    ),
    "one byte less": (
        lambda s: (model([1, 1, 1, 1], s.table.lineage)[:-1], {}),
        Fault.WRONG_LENGTH,
    ),
    "declared as four gigabytes": (
        lambda s: (model([1, 1, 1, 1], s.table.lineage), {"size": 2**32}),
        Fault.WRONG_LENGTH,
    ),
    "an unknown codec": (
        lambda s: (model([1, 1, 1, 1], s.table.lineage), {"codec": "q9"}),
        Fault.MALFORMED,
    ),
    "another lineage inside": (
        lambda s: (model([1, 1, 1, 1], other_lineage(s)), {}),
        Fault.OTHER_LINEAGE,
    ),
}


@pytest.mark.parametrize("what", UPDATES)
def test_a_bad_update_costs_its_signer_and_is_never_merged(what: str) -> None:
    scene = update_scene()
    make, fault = UPDATES[what]
    data, ref = make(scene)
    offer(scene, data, **ref)
    scene.table.until(lambda: scene.me.faults(scene.x), 120.0)
    assert set(scene.me.faults(scene.x)) == {fault.value}
    scene.expect(dict.fromkeys([fault], scene.me.faults(scene.x)[fault.value]))
    if "size" in ref or "codec" in ref or fault is Fault.WRONG_LENGTH:
        asked = [e for e in scene.me.sent(FetchObject) if e.digest == digest(data)]
        assert asked == [], "what is declared is checked before anything is read"
    scene.table.advance(60.0)
    for merge in scene.me.sent(StartMerge):
        rows = [encode_update(scene.table.lineage, "f32", row) for row in merge.received]
        assert data not in rows
    view = scene.me.peer(scene.x)
    assert view is not None
    assert (view.reputation == 1.0) == (fault is Fault.OTHER_LINEAGE)


def test_a_head_of_another_lineage_is_no_fault_and_nothing_is_fetched() -> None:
    """During a roll-out half of the fleet is on the other one."""
    scene = update_scene()
    scene.x.publish_update(other_lineage(scene), np.ones(4, np.float32))
    name = scene.x.compose().prev
    assert name is not None
    scene.table.advance(120.0)
    scene.expect({})
    fetched = {effect.digest for effect in scene.me.sent(FetchObject)}
    theirs = {n for n, data in scene.x.objects.items() if data.startswith(b"GFU1")}
    assert not fetched & theirs


def test_the_wrong_update_riding_with_a_true_head_costs_the_carrier() -> None:
    scene = update_scene()
    scene.x.publish_update(scene.table.lineage, np.ones(4, np.float32), ride=True)
    scene.x.update = model([2, 2, 2, 2], scene.table.lineage)
    scene.table.until(lambda: scene.me.faults(scene.x), 120.0)
    scene.expect({Fault.WRONG_DIGEST: scene.me.faults(scene.x)[Fault.WRONG_DIGEST.value]})
    served = scene.me.node.shelf.head(scene.x.id)
    assert served is not None
    assert served.update is None, "nor do we pass it on"


def test_what_we_serve_of_others_is_what_their_heads_name() -> None:
    """A head with a new update must not be served beside the bytes of the last one."""
    scene = update_scene()
    for value in (1.0, 2.0, 3.0):
        scene.x.publish_update(scene.table.lineage, np.full(4, value, np.float32), ride=True)
        scene.table.advance(31.0)
        scene.x.publish(lineage=scene.table.lineage)
        scene.table.advance(5.0)
        served = scene.me.node.shelf.head(scene.x.id)
        assert served is not None
        assert served.update is None or digest(served.update) == served.update_digest


# --- the link ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "price"),
    [
        (Fault.STALLED, 0.0),
        (Fault.UNREACHABLE, 0.0),
        (Fault.TRUNCATED, 0.1),
        (Fault.OVERSIZED, 0.25),
        (Fault.MALFORMED, 0.25),
    ],
)
def test_what_the_transport_found_is_charged_to_who_lives_there(fault: Fault, price: float) -> None:
    """A slow body is STALLED: counted, and free of charge, for the network may be to blame."""
    scene = Scene()
    scene.answer_poll(lambda asked: FetchFailed(asked.request, fault, "by the transport"))
    scene.expect({fault: 1})
    view = scene.me.peer(scene.x)
    assert view is not None
    assert view.reputation == pytest.approx(1.0 - price)


@pytest.mark.parametrize("absent", [True, False])
def test_a_refusal_is_no_fault(absent: bool) -> None:
    scene = Scene()
    scene.answer_poll(lambda asked: FetchFailed(asked.request, Fault.REFUSED, "429", absent))
    scene.expect({})


def test_a_slow_peer_does_not_hold_up_the_round() -> None:
    """Two of three answered: the third one has the grace, not the whole deadline."""
    scene = Scene()
    third = scene.table.puppet()
    third.publish()
    meet(scene, third)
    scene.table.employ()
    scene.table.until(lambda: scene.me.node.view().phase == "collecting", 60.0)
    scene.table.hold = lambda d, e: e.address == scene.x.address
    for puppet in (scene.named, third):
        puppet.publish_update(scene.table.lineage, np.ones(4, np.float32))
    began = scene.table.now
    scene.table.until(lambda: scene.me.node.base_round >= 1, 60.0)
    pace = scene.table.pace
    assert scene.table.now - began <= pace.grace_s + pace.poll_interval_s
    [merge] = scene.me.sent(StartMerge)
    assert len(merge.received) == 2


# --- many faults ---------------------------------------------------------------------------------


def test_three_forgeries_silence_a_peer_and_the_reason_is_readable() -> None:
    scene = Scene()
    for n in range(3):
        scene.show(forged(scene, capability=str(n)))
    view = scene.me.peer(scene.x)
    assert view is not None
    assert view.state == "quarantined"
    assert view.why.startswith("broke the protocol: bad signature, 3 times")
    warned = [n for n in scene.me.notices if n.warning and n.device == scene.x.id]
    assert len(warned) == 1
    scene.expect({Fault.BAD_SIGNATURE: 3})


def test_who_is_quarantined_is_not_merged() -> None:
    scene = Scene(employed=True)
    for n in range(3):
        scene.show(forged(scene, capability=str(n)))
    scene.x.publish_update(scene.table.lineage, np.full(4, 9.0, np.float32))
    scene.named.publish_update(scene.table.lineage, np.ones(4, np.float32))
    scene.table.advance(200.0)
    rows = [tuple(row) for merge in scene.me.sent(StartMerge) for row in merge.received]
    assert (9.0,) * 4 not in rows
    assert (1.0,) * 4 in rows
