"""Members that do their worst within the protocol: the node goes on, and forgets nothing it needs.

Each case is an attack that one device of the fleet can mount with its own keys.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from harness import Device, Puppet, Table, ask_again, opened, pending_of, plain
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipfl.addresses import parse_address
from gossipfl.config import PACES, Limits
from gossipfl.errors import Fault, LocalError
from gossipfl.events import (
    DeadlineReached,
    Event,
    FetchFailed,
    FetchHead,
    FetchObject,
    HeadReceived,
    JobFailed,
    JobReady,
    Loaded,
    MergeFailed,
    MergeFinished,
    ObjectReceived,
    PeerSeen,
    PolicyReceived,
    Release,
    ResourcesChanged,
    RevocationReceived,
    Source,
    Start,
    StartMerge,
    Stop,
    Stored,
    StoreFailed,
    TrainingFailed,
    TrainingFinished,
)
from gossipfl.identity import Signer
from gossipfl.messages import ChainRef, EvidenceKind, Merged, Receipt, Record
from gossipfl.objects import digest, pack_list
from gossipfl.wire import encode, seal, unpack
from sim.fleet import DAY_S, EPOCH


def scene(*, employed: bool = False, others: int = 2, **table: Any) -> tuple[Table, Device, Any]:
    """A node that has met so many members and may sign."""
    room = Table(n=others + 1, **table)
    me = room.device()
    puppets = [room.puppet() for _ in range(others)]
    for puppet in puppets:
        puppet.publish()
    room.introduce()
    room.advance(3.0)
    if employed:
        room.employ()
    return room, me, puppets


# --- digests named under false colours -----------------------------------------------------------


@pytest.mark.parametrize("field", ["evidence", "peers", "member", "revocations"])
def test_a_policy_named_as_something_else_first_is_still_taken(field: str) -> None:
    """A revoked operator's friend sees the new policy first and spoils its digest for everybody."""
    table, me, (x, y) = scene()
    x.publish(**{field: x.hold(table.policy)})
    table.until(lambda: me.faults(x), 30.0)
    y.publish(policy=y.hold(table.policy))
    table.until(lambda: me.node.view().policy, 30.0)


def test_revocations_named_as_something_else_first_are_still_taken() -> None:
    """The thief of a device knows the list that revokes it before most others do."""
    table, me, (x, y) = scene()
    revocations = pack_list([table.fleet.revoke(x.id, "stolen")])
    x.publish(evidence=x.hold(revocations))
    table.until(lambda: me.faults(x), 30.0)
    y.publish(revocations=y.hold(revocations))
    table.until(lambda: me.node.view().revoked, 30.0)


def receipt(table: Table, of: Puppet, *rows: Merged) -> bytes:
    body = Receipt(
        *(table.fleet.id, of.id, 1, 1, table.lineage, b"b" * 32, "mean", 0, int(EPOCH)),
        merged=list(rows),
    )
    return seal("receipt", encode(body), of.keys.signer)


def test_an_accomplice_cannot_hide_a_fork_by_naming_it_first_and_withholding_it() -> None:
    """x's receipt names the forked head and x has it not; y's receipt names it and y has it."""
    table, me, (x, y, liar) = scene(employed=True, others=3)
    shown = liar.sign(liar.compose(capability="to you"))
    other = liar.sign(liar.compose(capability="to y"))
    liar.current, liar.seq, liar.prev = shown, 2, digest(shown)
    table.until(lambda: (p := me.peer(liar)) and p.seq == 2, 60.0)
    row = Merged(liar.id, 2, digest(other), b"u" * 32, 0.5)
    x.publish(receipts=ChainRef(1, x.hold(receipt(table, x, row))))
    table.until(lambda: digest(other) in {e.digest for e in me.sent(FetchObject)}, 120.0)
    y.hold(other)
    y.publish(receipts=ChainRef(1, y.hold(receipt(table, y, row))))
    table.until(lambda: me.node.view().evidence, 240.0)
    view = me.peer(liar)
    assert view is not None
    assert view.state == "condemned"


# --- lists of strangers --------------------------------------------------------------------------


def records(table: Table, count: int, *texts: str) -> list[bytes]:
    """Address records of keys that nobody enrolled; each is properly signed by its key."""
    listed = []
    for n in range(count):
        signer = Signer(random.Random(n).randbytes(32))
        record = Record(table.fleet.id, signer.device, 1, b"m" * 32, list(texts) or ["10.8.8.8:1"])
        listed.append(seal("record", encode(record), signer))
    return listed


def test_lists_of_made_up_devices_cost_nothing_that_lasts() -> None:
    table, me, (x, _) = scene()
    x.publish(peers=x.hold(pack_list(records(table, 256))))
    table.advance(60.0)
    rows = [
        Merged(random.Random(n).randbytes(16), 1, b"h" * 32, b"u" * 32, 0.0) for n in range(256)
    ]
    table.employ()
    x.publish(receipts=ChainRef(1, x.hold(receipt(table, x, *rows))))
    table.advance(120.0)
    table.send(me, Stop())
    *_, saved = unpack(me.store.load().documents["reputation"], 1 << 24)
    assert len(saved) <= 2
    assert me.node.view().candidates == 0


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.9:²",  # a digit to str.isdigit, not to int
        "10.0.0.9:７０",
        "10.0.0.9:70000",
        "10.0.0.9:0",
        "10.0.0.9:-1",
        "10.0.0.9:",
        ":7000",
        "[]:7000",
        "nowhere",
        "",
        "a b:80",
        "host\n:80",
        "host\x00:80",
        "user@host:80",
        "host/path:80",
        "?:80",
        "ｈｏｓｔ:80",
        "[fe80::1]x:80",
    ],
)
def test_what_is_no_address_is_no_candidate(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize(
    "text", ["10.0.0.9:7000", "pi-4.local:7000", "[fe80::1%eth0]:7000", "[2001:db8::1]:65535"]
)
def test_what_is_an_address_comes_back(text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert str(address) == text


@given(st.text(max_size=64))
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = parse_address(text)
    assert address is None or 0 < address.port < 65_536


def test_a_members_record_with_such_an_address_ends_no_node() -> None:
    table, me, (x, _) = scene()
    record = Record(table.fleet.id, x.id, 1, digest(x.keys.member), ["10.0.0.9:²", "10.0.0.7:7"])
    x.publish(peers=x.hold(pack_list([seal("record", encode(record), x.keys.signer)])))
    table.advance(30.0)
    assert me.node.view().candidates == 1, "the address that is one is tried"


# --- own head after a restart --------------------------------------------------------------------


@pytest.mark.parametrize("others", [2, 3, 5])
def test_a_liar_cannot_keep_a_restarted_device_from_signing(others: int) -> None:
    """It answers with rubbish whenever it is asked for our own head."""
    table, me, (liar, *honest) = scene(employed=True, others=others)
    table.advance(60.0)
    before = me.node.view().seq
    served = me.node.shelf.head(None)
    assert served is not None
    for puppet in honest:
        puppet.heads[me.id] = served.envelope
    liar.heads[me.id] = b"rubbish"
    table.restart(me)
    table.introduce()
    table.until(lambda: me.node.view().waiting_for == "", 60.0)
    table.until(lambda: me.node.view().seq > before, 60.0)


def test_a_liar_is_not_asked_for_our_head_without_end() -> None:
    table, me, (liar, y) = scene(employed=True)
    table.until(lambda: me.node.view().seq >= 2, 120.0)
    liar.heads[me.id] = b"rubbish"
    liar.asked.clear()
    table.hold = lambda d, e: e.address == y.address
    table.restart(me)
    table.introduce()
    table.advance(60.0)
    asked = [e for e in liar.asked if isinstance(e, FetchHead) and e.device == me.id]
    assert 1 <= len(asked) <= 60


# --- operators' mistakes, and worse --------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        {"codec": "q8"},
        {"codec": ""},
        {"rule": "no such rule"},
        {"rule": "krum"},
        {"n": 1, "attackers": 0},
        {"n": 1, "attackers": 1},
        {"n": 2, "attackers": 9},
        {"n": 100_000, "attackers": 0},
        {"n": 3, "attackers": 2**53},
        {"sample": 0},
        {"sample": 2**53},
        {"f": 2**53},
        {"f": 1, "rule": "median"},
        {"canary": [b"c" * 16]},
    ],
    ids=str,
)
def test_no_policy_ends_a_node(policy: dict[str, Any]) -> None:
    fields = {"n": 3, "attackers": 0, **policy}
    table = Table(**fields)
    me = table.device()
    puppets = [table.puppet() for _ in range(3)]
    for puppet in puppets:
        puppet.publish_update(table.lineage, np.ones(4, np.float32))
    table.introduce()
    table.employ()
    table.advance(300.0)
    repaired = table.fleet.policy(
        table.job, n=3, version=2, prev=digest(table.policy), rule="mean", run=1
    )
    table.send(me, PolicyReceived(repaired))
    for puppet in puppets:
        puppet.publish_update(table.job.lineage(1), np.ones(4, np.float32))
    table.until(lambda: me.sent(StartMerge), 300.0)


# --- clocks --------------------------------------------------------------------------------------


def test_a_wrong_clock_at_boot_is_not_kept_for_ever() -> None:
    """Booted ten years ahead, alone, and stopped: after the restart the clock is right again."""
    table = Table()
    table.wall_offset = 3650.0 * DAY_S
    me = table.device()
    table.employ()
    table.advance(60.0)
    table.send(me, Stop())
    table.wall_offset = 0.0
    table.restart(me)
    assert abs(me.node.view().fleet_time - table.wall) < 5.0


def test_one_head_from_the_far_future_ends_nobodys_membership() -> None:
    table, me, (liar, y) = scene()
    liar.publish(issued=2**40)
    table.advance(10.0)
    for _ in range(3):
        y.publish(issued=int(table.wall))
        table.advance(10.0)
    view = me.peer(y)
    assert view is not None
    assert view.seq == 4
    assert me.faults(y) == {}


# --- who answers where ---------------------------------------------------------------------------


def test_a_peer_whose_address_was_taken_over_does_not_hold_up_the_round() -> None:
    """We ask x at its old address; y lives there now and answers with its own head."""
    table, me, (x, y) = scene(employed=True)
    table.until(lambda: me.node.view().phase == "collecting", 60.0)
    began = table.now
    moved = x.address
    x.address, y.address = table._address(), moved
    for puppet in (x, y):
        puppet.publish_update(table.lineage, np.ones(4, np.float32))
    table.until(lambda: me.node.view().phase == "idle", 60.0)
    for puppet in (x, y):
        assert set(me.faults(puppet)) <= {Fault.UNREACHABLE.value}
    assert table.now - began <= table.pace.grace_s + table.pace.poll_interval_s


def test_an_update_that_a_newer_head_replaced_does_not_lose_its_peer() -> None:
    """While its update is on the way a poll brings x's next head: x still takes part."""
    pace = replace(PACES["lan"], round_deadline_s=20.0)
    table, me, (x, y) = scene(employed=True, pace=pace)
    table.until(lambda: me.node.view().phase == "collecting", 60.0)
    x.publish_update(table.lineage, np.full(4, 1.0, np.float32))
    asked = opened(table, me, FetchObject, x)
    old = x.objects[asked.digest]
    x.publish_update(table.lineage, np.full(4, 2.0, np.float32))
    table.until(lambda: (p := me.peer(x)) and p.seq == 3, 30.0)
    table.send(me, ObjectReceived(asked.request, old))
    y.publish_update(table.lineage, np.full(4, 3.0, np.float32))
    table.until(lambda: me.sent(StartMerge), 30.0)
    values = sorted(float(row[0]) for row in me.sent(StartMerge)[0].received)
    assert values == [2.0, 3.0]


# --- anything at any time ------------------------------------------------------------------------

BLOBS = st.binary(max_size=60)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        HeadReceived,
        st.integers(0, 40),
        st.none() | BLOBS,
        st.none() | BLOBS,
        st.none() | BLOBS,
        st.none() | BLOBS,
    ),
    st.builds(ObjectReceived, st.integers(0, 40), BLOBS),
    st.builds(FetchFailed, st.integers(0, 40), st.sampled_from(Fault), st.just("x"), st.booleans()),
    st.builds(Stored, st.integers(0, 9)),
    st.builds(StoreFailed, st.integers(0, 9), st.just("x")),
    st.builds(TrainingFailed, st.integers(0, 9), st.just("x")),
    st.builds(MergeFailed, st.integers(0, 9), st.just("x")),
    st.builds(JobFailed, BLOBS, st.just("x")),
    st.builds(PolicyReceived, BLOBS),
    st.builds(RevocationReceived, BLOBS),
    st.builds(ResourcesChanged, st.booleans(), st.just("hot")),
    st.builds(Release, BLOBS),
    st.builds(DeadlineReached, st.floats(0.0, 4e9)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(EVENTS, st.floats(0.0, 20.0)), max_size=40), st.booleans())
def test_no_event_at_any_time_raises_or_makes_the_node_spin(
    events: list[tuple[Event, float]], employed: bool
) -> None:
    table, me, (x, y) = scene(employed=employed)
    for event, pause in events:
        table.send(me, event)
        table.advance(pause)
    table.advance(30.0)
    for puppet in (x, y):
        assert set(me.faults(puppet)) <= {fault.value for fault in Fault}
    assert me.node.view().evidence == 0


def test_answers_to_jobs_of_before_are_ignored() -> None:
    table, me, _ = scene(employed=True)
    table.until(lambda: me.node.view().phase == "collecting", 60.0)
    before = me.node.view()
    from gossipfl.aggregation import Merge

    old = np.full(4, 7.0, np.float32)
    for job in range(9):
        table.send(me, TrainingFinished(job, plain(old)))
        table.send(me, MergeFinished(job, Merge(old, ()), ()))
        table.send(me, JobReady(b"another bundle".ljust(32), me.trainer.layout, old))
        table.send(me, Loaded(me.store.load()))
    assert me.node.view() == before


# --- what the disk says --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("members", "revocations", "evidence", "policies", "reputation", "clock", "records"),
        *("base", "logs", "kept", "heads", "history"),
    ],
)
def test_a_damaged_document_is_our_own_fault_and_said_so(name: str) -> None:
    """Never a peer's: the node refuses to start on it, loudly and by name."""
    table, me, _ = scene(employed=True)
    table.until(lambda: me.node.base_round >= 1 or table.now > 100.0, 200.0)
    table.send(me, Stop())
    snapshot = me.store.load()
    for damage in (b"\xc1", b"\x91\x91\x01", b"\xff" * 40):
        documents = {**snapshot.documents, name: damage}
        node = table._node(me.keys, 1)
        with pytest.raises(LocalError, match=name):
            node.handle(Start(replace(snapshot, documents=documents), table.wall), 0.0)


def test_a_fleet_with_many_revoked_and_condemned_devices_restarts() -> None:
    """The lists only grow: at no length may they keep a device from starting."""
    limits = replace(Limits(), list_bytes=4_096)
    table, me, _ = scene(limits=limits)
    for n in range(12):
        data = table.fleet.revoke(n.to_bytes(16, "big"), "lost " * 20)
        table.send(me, RevocationReceived(data))
    assert len(me.node.view().revoked) == 12
    table.send(me, Stop())
    table.restart(me)
    assert len(me.node.view().revoked) == 12


def test_many_address_records_do_not_keep_a_device_from_starting() -> None:
    limits = replace(Limits(), list_bytes=2_000)
    table, me, (x, _) = scene(limits=limits)
    others = [table.puppet() for _ in range(20)]
    for other in others:
        x.hold(other.keys.member)
        other.publish()
    table.introduce(*others)
    table.advance(10.0)
    listed = []
    for other in others:
        record = Record(table.fleet.id, other.id, 1, digest(other.keys.member), ["10.1.1.1:7000"])
        listed.append(seal("record", encode(record), other.keys.signer))
    x.publish(peers=x.hold(pack_list(listed)))
    table.advance(30.0)
    table.send(me, Stop())
    assert len(me.store.load().documents["records"]) > 2_000
    table.restart(me)
    assert me.node.view().candidates >= 1


def test_a_device_that_sees_only_liars_goes_on_after_they_leave() -> None:
    """Everything a liar does to one request is over with the next."""
    table, me, (x, y) = scene(employed=True)
    for _ in range(5):
        asked = opened(table, me, FetchHead, x)
        pending = pending_of(me, asked)
        for junk in (b"", b"\x94", bytes(5_000)):
            ask_again(me, asked, pending)
            table.send(me, x.says(asked, junk))
    for puppet in (x, y):
        puppet.publish_update(table.lineage, np.ones(4, np.float32))
    table.send(me, Release(x.id))
    table.send(me, PeerSeen(x.address, Source.MDNS))
    table.until(lambda: me.sent(StartMerge), 120.0)


def test_a_liar_that_names_anothers_receipt_makes_nobody_refuse_it() -> None:
    """Wrong from the liar, right from its owner: a fork would hide in what is not read."""
    table = Table(n=4)
    me, liar, owner = table.device(), table.puppet(), table.puppet()
    liar.publish()
    owner.publish()
    table.introduce()
    table.employ()
    table.advance(5.0)
    theirs = receipt(table, owner)
    liar.publish(receipts=ChainRef(1, liar.hold(theirs)))
    table.until(lambda: me.faults(liar), 200.0)
    owner.publish(receipts=ChainRef(1, owner.hold(theirs)))
    wanted = digest(theirs)
    table.until(
        lambda: any(isinstance(e, FetchObject) and e.digest == wanted for e in owner.asked), 300.0
    )


def test_a_record_does_not_make_a_device_call_its_own_ports() -> None:
    table, me, (x, _) = scene()
    own = ("0.0.0.0:22", "255.255.255.255:80", "[::ffff:127.0.0.1]:6379", "[::]:5432")
    record = Record(table.fleet.id, x.id, 5, digest(x.keys.member), [*own, "10.8.8.8:1"])
    x.publish(peers=x.hold(pack_list([seal("record", encode(record), x.keys.signer)])))
    table.until(lambda: any(e.address.host == "10.8.8.8" for e in me.sent(FetchHead)), 60.0)
    table.advance(30.0)
    called = {e.address.host for e in me.sent(FetchHead)}
    assert not called & {"0.0.0.0", "255.255.255.255", "::ffff:127.0.0.1", "::"}, called


def test_proofs_against_revoked_devices_leave_the_defence_as_it_is() -> None:
    _, me, (x, _) = scene()
    core: Any = me.node._core
    gone, member = b"g" * 16, x.id
    core.evidence[gone, EvidenceKind.EQUAL_SEQ] = b""
    core.evidence[member, EvidenceKind.EQUAL_SEQ] = b""
    assert core.condemned == 2
    core.roster._replaced[gone] = b"n" * 16
    assert core.condemned == 1
