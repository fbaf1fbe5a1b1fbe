"""Durable before public: at every way a disk can fail, one head per number and nothing early."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from harness import Device, Puppet, Table
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipfl.chains import pack_evidence
from gossipfl.config import Limits
from gossipfl.errors import Fault
from gossipfl.events import (
    Address,
    Commit,
    FetchHead,
    Loaded,
    OwnAddresses,
    PolicyReceived,
    ResourcesChanged,
    RevocationReceived,
    Start,
    StartTraining,
    Stop,
    Stored,
    Topic,
)
from gossipfl.memory import Crash, MemoryStore, StoreFault
from gossipfl.messages import ChainRef, Evidence, EvidenceKind, Head, Merged, Receipt
from gossipfl.objects import digest, pack_list, unpack_list
from gossipfl.wire import check_signature, decode, encode, open_envelope, pack, seal, unpack
from sim.fleet import EPOCH


def read(envelope: bytes) -> Head:
    opened = open_envelope(envelope, "head", 4096)
    check_signature(opened)
    return decode(opened.payload, Head)


class Watched(Table):
    """A table that notes each head that becomes public, and what is public at each commit."""

    def watch(self, me: Device) -> None:
        self.me = me
        self.public: dict[int, bytes] = {}
        self.early: list[bytes] = []
        self.commits = 0

    def _commit(self, device: Device, effect: Commit) -> bool:
        if device is self.me:
            self.commits += 1
            self.look()
            shelf = device.node.shelf
            if effect.batch.head is not None and shelf.object(digest(effect.batch.head)):
                self.early.append(effect.batch.head)
        try:
            return super()._commit(device, effect)
        except Crash:
            self.restart(device)
            self.introduce()
            return False

    def look(self) -> None:
        served = self.me.node.shelf.head(None)
        if served is None:
            return
        head = read(served.envelope)
        before = self.public.setdefault(head.seq, served.digest)
        assert before == served.digest, f"a second head for {head.seq}"
        assert digest(served.envelope) == served.digest
        if head.update is not None and served.update is not None:
            assert digest(served.update) == head.update.digest

    def check(self) -> None:
        self.look()
        assert not self.early, "a head was on the shelf before its commit"


def scene(*, employed: bool = True, **table: object) -> tuple[Watched, Device, list[Puppet]]:
    room = Watched(n=3, **table)  # type: ignore[arg-type]
    me = room.device()
    room.watch(me)
    others = [room.puppet() for _ in range(2)]
    for other in others:
        other.publish()
    room.introduce()
    room.advance(3.0)
    if employed:
        room.employ()
    return room, me, others


def remember(table: Watched, me: Device, others: list[Puppet]) -> None:
    """Peers hold what is public of us."""
    served = me.node.shelf.head(None)
    if served is not None:
        for other in others:
            other.heads[me.id] = served.envelope


# --- the order of things -------------------------------------------------------------------------


def test_nothing_is_public_before_it_is_durable() -> None:
    table, me, _ = scene()
    table.advance(200.0)
    assert table.commits >= 5
    table.check()
    stored = me.store.load()
    served = me.node.shelf.head(None)
    assert served is not None
    assert stored.head == served.envelope


def test_while_a_commit_is_under_way_the_shelf_does_not_change() -> None:
    table, me, _ = scene(employed=False)
    before = me.node.shelf.head(None)
    effects = me.node.handle(PolicyReceived(table.policy), table.now + 10.0)
    commits = [e for e in effects if isinstance(e, Commit)]
    assert len(commits) == 1
    assert effects[-1] is commits[0], "what follows a commit would be dropped if it failed"
    batch = commits[0].batch
    assert batch.head is not None
    assert me.node.shelf.head(None) == before
    assert me.node.shelf.object(digest(batch.head)) is None
    me.node.handle(Stored(commits[0].commit + 5), table.now + 10.0)
    assert me.node.shelf.head(None) == before, "an answer to another commit"
    me.node.handle(Stored(commits[0].commit), table.now + 10.0)
    served = me.node.shelf.head(None)
    assert served is not None
    assert served.envelope == batch.head
    assert batch.seq == read(batch.head).seq


def test_what_a_head_names_is_stored_with_it_or_before() -> None:
    table, me, others = scene()
    for other in others:
        other.publish_update(table.lineage, np.ones(4, np.float32))
    table.send(me, OwnAddresses((Address("10.0.0.1", 7000),)))
    table.send(me, RevocationReceived(table.fleet.revoke(b"r" * 16, "lost")))
    table.advance(120.0)
    for name, data in list(me.store._objects.items()):
        assert digest(data) == name
    served = me.node.shelf.head(None)
    assert served is not None
    head = read(served.envelope)
    assert head.receipts is not None
    assert head.update is not None
    for named in (
        *(head.policy, head.revocations, head.peers),
        *(head.receipts.digest, head.update.digest),
    ):
        assert named is not None
        assert me.store.get(named) is not None
        assert me.node.shelf.object(named) is not None


def test_heads_are_not_issued_faster_than_the_pace_without_a_new_update() -> None:
    table, me, _ = scene(employed=False)
    table.advance(10.0)
    before = me.node.view().seq
    for n in range(20):
        table.send(me, RevocationReceived(table.fleet.revoke(bytes([n]) * 16, "lost")))
        table.advance(table.pace.head_interval_s / 10)
    assert 1 <= me.node.view().seq - before <= 3
    table.check()


def test_a_head_that_would_say_nothing_new_is_not_issued() -> None:
    table, me, _ = scene(employed=False)
    table.advance(10.0)
    before = me.node.view().seq
    table.send(me, PolicyReceived(b"no policy"))
    table.advance(300.0)
    assert me.node.view().seq == before


# --- a disk that fails ---------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [StoreFault.NOT_DONE, StoreFault.DONE_BUT_ERROR])
@pytest.mark.parametrize("at", range(6))
def test_one_failed_commit_at_any_time(fault: StoreFault, at: int) -> None:
    table, me, _ = scene()
    me.store.faults = [None] * at + [fault]
    table.advance(300.0)
    table.check()
    assert me.node.base_round >= 1 or me.node.view().below_quorum >= 1
    heads = sorted(table.public)
    assert len(heads) >= 3
    assert me.store.load().head is not None
    warned = [n for n in me.notices if n.topic is Topic.STORE]
    assert len(warned) == 1
    assert "nothing was published" in warned[0].text


def test_not_done_leaves_the_number_free() -> None:
    table, me, _ = scene(employed=False)
    table.advance(20.0)
    before = me.node.view().seq
    me.store.faults = [StoreFault.NOT_DONE]
    table.send(me, PolicyReceived(table.policy))
    assert me.node.view().seq == before
    table.advance(10.0)
    table.check()
    assert sorted(table.public)[-1] == before + 1
    served = me.node.shelf.head(None)
    assert served is not None
    assert read(served.envelope).policy == digest(table.policy)


def test_done_but_error_publishes_the_very_head_that_is_durable() -> None:
    table, me, _ = scene(employed=False)
    table.advance(20.0)
    before = me.node.view().seq
    me.store.faults = [StoreFault.DONE_BUT_ERROR]
    table.send(me, PolicyReceived(table.policy))
    served = me.node.shelf.head(None)
    assert served is not None
    assert read(served.envelope).seq == before + 1
    assert me.store.load().head == served.envelope
    table.advance(30.0)
    table.check()


def test_a_disk_that_stays_broken_is_tried_more_and_more_rarely() -> None:
    table, me, _ = scene(employed=False)
    table.advance(20.0)
    before = me.node.view().seq
    me.store.faults = [StoreFault.NOT_DONE] * 10_000
    commits = table.commits
    table.send(me, PolicyReceived(table.policy))
    table.advance(3_600.0)
    assert me.node.view().seq == before
    assert 10 <= table.commits - commits <= 120
    me.store.faults = []
    table.advance(120.0)
    assert me.node.view().seq > before
    table.check()


def test_a_wish_for_a_head_survives_a_failed_saving_of_documents() -> None:
    """The policy came while the pace held the head back; then saving something else failed."""
    pace = replace(Table().pace, head_interval_s=60.0)
    table, me, _ = scene(employed=False, pace=pace)
    table.advance(30.0)
    before = me.node.view().seq
    me.store.faults = [StoreFault.NOT_DONE] * 2
    table.send(me, PolicyReceived(table.policy))
    table.advance(600.0)
    assert not me.store.faults, "the faults have struck"
    assert me.node.view().seq > before
    served = me.node.shelf.head(None)
    assert served is not None
    assert read(served.envelope).policy == digest(table.policy)


FAULTS = st.lists(
    st.sampled_from([None, None, StoreFault.NOT_DONE, StoreFault.DONE_BUT_ERROR]), max_size=40
)


@settings(max_examples=40, deadline=None)
@given(FAULTS, st.integers(0, 2**32))
def test_any_faults_of_the_disk_leave_one_chain(faults: list[StoreFault | None], seed: int) -> None:
    table, me, _ = scene()
    entropy = random.Random(seed)
    me.store.faults = faults
    for n in range(12):
        if entropy.random() < 0.3:
            table.send(me, RevocationReceived(table.fleet.revoke(bytes([n]) * 16, "x")))
        if entropy.random() < 0.2:
            table.send(me, Loaded(me.store.load()))
        table.advance(entropy.uniform(0.0, 25.0))
        table.look()
    me.store.faults = []
    table.advance(200.0)
    table.check()
    links = sorted(table.public)
    assert links == list(range(links[0], links[-1] + 1)), "no number was lost either"
    saved = me.store.load().documents.get("revocations", pack_list([]))
    assert len(unpack_list(saved, 1 << 20)) == len(me.node.view().revoked)


CRASHES = st.lists(
    st.sampled_from([None, None, None, StoreFault.CRASH_BEFORE, StoreFault.CRASH_AFTER]),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(CRASHES)
def test_a_crash_at_any_commit_leaves_one_head_per_number(faults: list[StoreFault | None]) -> None:
    table, me, others = scene()
    me.store.faults = faults
    for _ in range(12):
        table.advance(15.0)
        table.look()
        remember(table, me, others)
    me.store.faults = []
    table.advance(100.0)
    table.check()
    prevs = {}
    for name, data in me.store._objects.items():
        if table.public and name in table.public.values():
            head = read(data)
            prevs[head.seq] = head.prev
    for seq, prev in prevs.items():
        if seq - 1 in table.public:
            assert prev == table.public[seq - 1]


# --- restored from an old copy -------------------------------------------------------------------


def restored(fault: StoreFault | None = None) -> tuple[Watched, Device, list[Puppet], int]:
    """The disk is an hour-old copy; peers hold the newest head."""
    table, me, others = scene()
    for other in others:
        other.publish_update(table.lineage, np.ones(4, np.float32))
    table.until(lambda: me.node.base_round >= 2, 120.0)
    table.advance(15.0)
    old = me.store.copy()
    table.advance(300.0)
    remember(table, me, others)
    newest = me.node.view().seq
    table.look()
    table.restart(me, old)
    table.advance(30.0)  # its bundle is loaded before it meets anybody, and its disk is idle
    old.faults = [] if fault is None else [fault]
    return table, me, others, newest


@pytest.mark.parametrize("fault", [None, StoreFault.NOT_DONE, StoreFault.DONE_BUT_ERROR])
def test_a_restored_device_goes_on_above_what_peers_have_seen(fault: StoreFault | None) -> None:
    table, me, _, newest = restored(fault)
    trained = len(me.sent(StartTraining))
    table.introduce()
    assert not me.store.faults
    merges = me.node.view().merges + me.node.view().below_quorum
    table.until(lambda: me.node.view().seq > newest, 200.0)
    table.until(lambda: me.node.view().merges + me.node.view().below_quorum > merges + 1, 400.0)
    table.check()
    assert me.node.view().listen_only == ""
    assert len(me.sent(StartTraining)) > trained + 1


def test_a_restored_device_shows_no_old_head_before_it_has_asked() -> None:
    """Peers that poll it meanwhile would charge it with replays that it cannot help."""
    table, me, _, newest = restored()
    shown = me.node.shelf.head(None)
    assert shown is None or read(shown.envelope).seq >= newest
    table.introduce()
    table.advance(30.0)
    shown = me.node.shelf.head(None)
    assert shown is not None
    assert read(shown.envelope).seq >= newest


def test_nobody_to_ask_nothing_to_sign() -> None:
    """Alone after a restart: it listens, and says what it waits for."""
    table, me, _ = scene()
    table.advance(60.0)
    before = me.node.view().seq
    table.puppets.clear()
    table.restart(me)
    table.introduce()
    table.advance(600.0)
    assert me.node.view().seq == before
    assert me.node.view().waiting_for == "a first peer to answer"


def test_a_head_of_ours_that_we_never_signed_stops_us() -> None:
    """A peer's receipt shows that somebody else has our key: this device signs nothing more."""
    table, me, (x, _) = scene()
    table.advance(60.0)
    twin = Puppet(table.fleet, me.keys, x.address)
    twin.seq, twin.prev = me.node.view().seq + 5, b"t" * 32
    row = Merged(me.id, twin.seq + 1, x.hold(twin.publish()), b"u" * 32, 0.5)
    receipt = Receipt(
        *(table.fleet.id, x.id, 1, 1, table.lineage, b"b" * 32, "mean", 0, int(EPOCH)),
        merged=[row],
    )
    x.publish(receipts=ChainRef(1, x.hold(seal("receipt", encode(receipt), x.keys.signer))))
    table.until(lambda: me.node.view().listen_only, 120.0)
    assert "join with a new state folder" in me.node.view().listen_only
    before = me.node.view().seq
    table.send(me, RevocationReceived(table.fleet.revoke(b"r" * 16, "lost")))
    table.advance(200.0)
    assert me.node.view().seq == before
    table.check()


def test_a_forged_head_of_ours_stops_nobody() -> None:
    table, me, (x, _) = scene()
    table.advance(60.0)
    twin = Puppet(table.fleet, replace(me.keys, signer=x.keys.signer), x.address)
    twin.seq, twin.prev = me.node.view().seq + 5, b"t" * 32
    head = twin.compose(device=me.id)
    kind, payload, _, signature = unpack(seal("head", encode(head), x.keys.signer), 4096)
    forged = x.hold(pack([kind, payload, bytes(me.keys.signer.key_id), signature]))
    row = Merged(me.id, head.seq, forged, b"u" * 32, 0.5)
    receipt = Receipt(
        *(table.fleet.id, x.id, 1, 1, table.lineage, b"b" * 32, "mean", 0, int(EPOCH)),
        merged=[row],
    )
    x.publish(receipts=ChainRef(1, x.hold(seal("receipt", encode(receipt), x.keys.signer))))
    table.until(lambda: me.faults(x), 120.0)
    assert me.node.view().listen_only == ""
    assert me.faults(x) == {Fault.BAD_SIGNATURE.value: 1}


# --- stopping and listening ----------------------------------------------------------------------


def test_a_clean_stop_saves_and_is_quiet() -> None:
    table, me, _ = scene()
    table.advance(100.0)
    effects = table.send(me, Stop())
    assert [e for e in effects if isinstance(e, Commit)]
    assert me.node.deadline == float("inf")
    assert table.send(me, PolicyReceived(table.policy)) == [] or me.node.deadline == float("inf")
    assert unpack(me.store.load().documents["clock"], 16) > 0


def test_a_device_that_may_not_train_listens_and_spreads() -> None:
    """Merges without training; its heads name policies and revocations, and no update."""
    table, me, (x, y) = scene()
    table.send(me, ResourcesChanged(False, "on battery"))
    for n in range(4):
        for puppet in (x, y):
            puppet.publish_update(table.lineage, np.full(4, 1.0 + n, np.float32))
        table.advance(30.0)
    view = me.node.view()
    assert view.listen_only == "on battery"
    assert view.merges >= 2
    trained = len(me.sent(StartTraining))
    table.send(me, RevocationReceived(table.fleet.revoke(b"r" * 16, "lost")))
    table.advance(10.0)
    served = me.node.shelf.head(None)
    assert served is not None
    head = read(served.envelope)
    assert head.revocations is not None
    assert head.receipts is not None
    assert len(me.sent(StartTraining)) == trained
    table.send(me, ResourcesChanged(True))
    table.until(lambda: len(me.sent(StartTraining)) > trained, 60.0)
    table.check()


def test_the_first_start_has_no_history() -> None:
    table = Table()
    me = table.device(store=MemoryStore())
    assert me.node.view().seq == 0
    assert me.node.shelf.head(None) is None
    assert me.node.shelf.member == digest(me.keys.member)
    node = table._node(me.keys, 3)
    assert node.deadline == float("inf"), "before Start it wants nothing"
    node.handle(Start(MemoryStore().load(), table.wall), 0.0)
    assert node.deadline < float("inf")


def test_limits_reach_the_wire() -> None:
    """What a request may bring is bounded by what the lineage says."""
    table, me, _ = scene(limits=Limits(ride_bytes=50))
    table.advance(60.0)
    rides = {e.update_bytes for e in me.sent(FetchHead)}
    assert max(rides) == 50


def test_proof_against_ourselves_stops_us() -> None:
    """A peer lists two heads that our key signed: whoever else holds it, we sign no more."""
    table, me, (x, _) = scene()
    table.advance(60.0)
    twin = Puppet(table.fleet, me.keys, x.address)
    twin.seq, twin.prev = 900, b"t" * 32
    heads = [twin.sign(twin.compose(capability=word)) for word in ("one", "two")]
    proof = pack_evidence(Evidence(EvidenceKind.EQUAL_SEQ, heads[0], heads[1], me.keys.member))
    x.publish(evidence=x.hold(pack_list([proof])))
    table.until(lambda: me.node.view().listen_only, 60.0)
    assert "two different heads are signed with this device's key" in me.node.view().listen_only
    before = me.node.view().seq
    table.advance(200.0)
    assert me.node.view().seq == before
    assert me.faults(x) == {}, "whoever shows it has told the truth"
    table.restart(me)
    table.introduce()
    table.advance(100.0)
    assert me.node.view().seq == before, "after a restart too"
