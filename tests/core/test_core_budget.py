"""Privacy in the node: entered before it is seen, refused when it does not fit, never silent."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from harness import Device, Table, Toy, plain

import gossipfl.privacy.ledger as ledger_module
from gossipfl.aggregation import merge_step
from gossipfl.budget import ONCE_PRIVATE, OWNER_DEMANDS
from gossipfl.codecs import decode_update
from gossipfl.config import Limits
from gossipfl.durable import BEHIND_OLD, LEDGER_BEHIND, LEDGER_CARRIED, Snapshot
from gossipfl.errors import PeerError, StoreError
from gossipfl.events import (
    Batch,
    Commit,
    Effect,
    Event,
    PolicyReceived,
    Reckon,
    ResourcesChanged,
    StartMerge,
    StartTraining,
    TrainingFinished,
)
from gossipfl.inheritance import WAITING
from gossipfl.interfaces import Evaluation
from gossipfl.memory import Crash, MemoryStore, StoreFault
from gossipfl.messages import Head, Privacy, Receipt, Training
from gossipfl.node import Node
from gossipfl.objects import digest
from gossipfl.parameters import Vector, to_bytes
from gossipfl.privacy import Unit
from gossipfl.privacy.entries import Released, Row, parse_entry
from gossipfl.privacy.ledger import Floors, Refusal, replay
from gossipfl.privacy.statement import Statement
from gossipfl.retention import Retention, Statements
from gossipfl.wire import decode, open_envelope
from gossipfl.work import reckon

Z = 8.0
LOCAL = Privacy(mode="local", unit="device", epsilon=8.0, delta=1e-5, clip=0.1, z=Z)
TWICE = Privacy(mode="local", unit="device", epsilon=1.0, delta=1e-5, clip=0.1, z=5.6)
RECORD = Privacy(
    mode="local", unit="record", epsilon=8.0, z=2.0, sample_rate=0.5, steps=2, lot=1, clip=0.1
)


def fleet(privacy: Privacy = LOCAL, count: int = 3, **more: Any) -> Table:
    table = Table(n=count, privacy=privacy, **more)
    for _ in range(count):
        table.device()
    table.introduce()
    table.employ()
    return table


def head_of(envelope: bytes) -> Head:
    return decode(open_envelope(envelope, "head", 4096).payload, Head)


def releases(rows: tuple[Row, ...]) -> list[bytes]:
    """Digests of what was released, in order."""
    entries = [parse_entry(row.data) for row in rows]
    return [entry.released for entry in entries if isinstance(entry, Released)]


def commits(device: Device) -> list[Batch]:
    return [effect.batch for effect in device.sent(Commit)]


def released(device: Device) -> int:
    return len(releases(device.store.load().ledger))


def change_policy(table: Table, device: Device, version: int = 2, **fields: Any) -> None:
    before = digest(table.policy)
    settings = {"n": 3, "rule": "mean", "version": version, "prev": before, **fields}
    table.policy = table.fleet.policy(table.job, **settings)
    table.send(device, PolicyReceived(table.policy))


# --- write-ahead ----------------------------------------------------------------------------------


@pytest.mark.parametrize("privacy", [LOCAL, RECORD], ids=["device", "record"])
def test_a_release_is_entered_in_the_commit_that_makes_it_public(privacy: Privacy) -> None:
    table = fleet(privacy)
    me = table.devices[0]
    table.until(lambda: me.node.base_round >= 3, 300.0)
    rows: list[Row] = []
    seen: list[bytes] = []
    for batch in commits(me):
        rows += batch.ledger
        if batch.head is None:
            assert not batch.ledger
            continue
        head = head_of(batch.head)
        if not rows:
            assert head.ledger is None
            assert head.update is None
            continue
        assert head.ledger == replay(rows).ref, "each head commits to all that was entered"
        if head.update is not None and head.update.digest not in seen:
            seen.append(head.update.digest)
            assert head.update.digest in dict(batch.objects)
        assert releases(tuple(rows)) == seen
    assert len(seen) >= 3


def test_what_is_published_is_base_plus_noise_and_no_model() -> None:
    table = fleet()
    me = table.devices[0]
    table.until(lambda: released(me) >= 1, 100.0)
    (start, *_) = me.sent(StartTraining)
    trained = me.trainer.train(start.base, Training(), 0)
    head = head_of(me.store.load().head or b"")
    assert head.update is not None
    pub = np.frombuffer((me.store.get(head.update.digest) or b"")[-16:], np.float32)
    assert not np.isin(pub, trained).any()
    assert not np.isin(pub, start.base).any()


@pytest.mark.parametrize("privacy", [LOCAL, RECORD], ids=["device", "record"])
def test_anybody_can_recompute_a_receipt_from_what_was_published(privacy: Privacy) -> None:
    table = fleet(privacy)
    me = table.devices[0]
    table.until(lambda: me.node.base_round >= 5, 300.0)
    assert all(merge.previous is None for merge in me.sent(StartMerge)), "the guard looks at data"
    public = {
        name: data for device in table.devices for b in commits(device) for name, data in b.objects
    }
    models = {
        name: decode_update(public[name], table.lineage, "f32", 4)
        for device in table.devices
        for name in releases(device.store.load().ledger)
    }
    receipts = [
        decode(open_envelope(b.receipt, "receipt", 65_536).payload, Receipt)
        for b in commits(me)
        if b.receipt is not None
    ]
    assert len(receipts) >= 4
    for receipt in receipts:
        own = models[receipt.own] if receipt.own is not None else None
        rows = [models[merged.update] for merged in receipt.merged]
        merged = merge_step(receipt.rule, own, rows, receipt.f)
        assert digest(to_bytes(merged.parameters)) == receipt.base
        shares = [merged.influence for merged in receipt.merged]
        assert shares == [float(share) for share in merged.influence]
        assert receipt.statement is not None
        said = Statement.load(public[receipt.statement])
        entered = me.store.load().ledger[: said.ledger.number]
        assert replay(entered).ref == said.ledger
        assert said.releases == len(releases(entered)) <= said.releases_max
        assert said.epsilon == replay(entered).spent(said.delta, said.unit) <= said.epsilon_max
    assert len({receipt.statement for receipt in receipts}) > 1, "a release changes it"


def test_without_privacy_receipts_name_no_statement() -> None:
    table = fleet(Privacy())
    me = table.devices[0]
    table.until(lambda: me.node.base_round >= 2, 300.0)
    for batch in commits(me):
        if batch.receipt is not None:
            envelope = open_envelope(batch.receipt, "receipt", 65_536)
            assert decode(envelope.payload, Receipt).statement is None


@pytest.mark.parametrize("privacy", [LOCAL, RECORD], ids=["device", "record"])
def test_no_event_handler_asks_the_accountant(
    privacy: Privacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes tens of milliseconds: the loop of a real agent would stand still."""
    inside: list[Event] = []
    asked: list[int] = []
    handle, spent = Node.handle, ledger_module._spent

    def watched(node: Node, event: Event, now: float) -> list[Effect]:
        inside.append(event)
        try:
            return handle(node, event, now)
        finally:
            inside.pop()

    def counted(*arguments: Any) -> float:
        asked.append(len(inside))
        return spent(*arguments)

    monkeypatch.setattr(Node, "handle", watched)
    monkeypatch.setattr(ledger_module, "_spent", counted)
    table = fleet(privacy)
    me = table.devices[0]
    table.until(lambda: released(me) >= 3, 300.0)
    change_policy(table, me, privacy=msgspec.structs.replace(privacy, epsilon=7.5))
    table.until(lambda: released(me) >= 5, 300.0)
    table.restart(me)
    table.introduce(*table.devices[1:])
    table.employ(me)
    table.until(lambda: released(me) >= 7, 300.0)
    assert asked
    assert not any(asked), "the accountant was asked inside of a handler"
    assert me.node.statement() is not None


def test_a_slow_accountant_holds_up_no_round_for_ever_and_nothing_goes_out_before() -> None:
    table = fleet()
    me = table.devices[0]
    held: list[Reckon] = []
    execute = table._execute

    def keep(device: Device, effect: Any) -> bool:
        if device is me and isinstance(effect, Reckon):
            held.append(effect)
            return True
        return execute(device, effect)

    table._execute = keep  # type: ignore[method-assign]
    table.advance(100.0)
    assert held
    assert released(me) == len(me.sent(StartTraining)) == 1, "the first was asked for at the start"
    table._execute = execute  # type: ignore[method-assign]
    table.send(me, reckon(held[-1]))
    table.until(lambda: released(me) >= 3, 200.0)


# --- refusal --------------------------------------------------------------------------------------


def test_when_the_budget_is_spent_the_node_listens_says_so_and_still_gets_better_models() -> None:
    table = fleet(TWICE)
    me = table.devices[0]
    table.until(lambda: me.node.view().listen_only, 400.0)
    assert me.node.view().listen_only == Refusal.SPENT.value
    spent = released(me)
    assert spent == 2
    assert any(Refusal.SPENT.value in notice.text for notice in me.notices)
    trainings = len(me.sent(StartTraining))
    puppets = [table.puppet() for _ in range(2)]
    for number, puppet in enumerate(puppets):
        puppet.publish_update(table.lineage, np.full(4, 7.0 + number, np.float32))
    table.introduce(*puppets)
    table.until(lambda: me.node.base is not None and me.node.base.max() > 1.5, 400.0)
    assert released(me) == spent
    assert len(me.sent(StartTraining)) == trainings
    statement = me.node.statement()
    assert statement is not None
    assert (statement.releases, statement.releases_max) == (2, 2)
    assert 0.9 < statement.epsilon <= statement.epsilon_max


def test_a_larger_budget_lets_it_publish_again() -> None:
    table = fleet(TWICE)
    me = table.devices[0]
    table.until(lambda: me.node.view().listen_only, 400.0)
    change_policy(table, me, privacy=LOCAL)
    table.until(lambda: released(me) >= 3, 200.0)
    assert me.node.view().listen_only == ""


def test_an_owner_may_allow_less_than_the_policy() -> None:
    table = Table(n=3, privacy=LOCAL)
    table.floors = Floors(epsilon=1.0, z=5.6)
    me = table.device()
    table.floors = Floors()
    for _ in range(2):
        table.device()
    table.introduce()
    table.employ()
    table.until(lambda: me.node.view().listen_only, 900.0)
    table.advance(200.0)
    assert released(me) == 4, "z = 8 and epsilon 1: four fit"
    assert all(released(device) > 4 for device in table.devices[1:])


@pytest.mark.parametrize(
    ("floors", "privacy", "why"),
    [
        (Floors(epsilon=1.0), Privacy(), OWNER_DEMANDS),
        (Floors(unit=Unit.DEVICE), RECORD, Refusal.WRONG_UNIT.value),
        (Floors(epsilon=0.001), LOCAL, Refusal.SPENT.value),
    ],
)
def test_what_an_owner_does_not_allow_is_not_published(
    floors: Floors, privacy: Privacy, why: str
) -> None:
    table = Table(n=3, privacy=privacy)
    table.floors = floors
    for _ in range(3):
        table.device()
    table.introduce()
    table.employ()
    table.advance(100.0)
    for device in table.devices:
        assert device.node.view().listen_only == why
        assert not device.sent(StartTraining)


def test_an_owners_noise_is_what_is_added() -> None:
    table = Table(n=3, privacy=LOCAL)
    table.floors = Floors(z=30.0)
    me = table.device()
    table.device()
    table.device()
    table.introduce()
    table.employ()
    table.until(lambda: released(me) >= 1, 100.0)
    entry = parse_entry(me.store.load().ledger[-1].data)
    assert isinstance(entry, Released)
    assert entry.z == 30.0


def test_who_has_published_with_a_budget_publishes_nothing_without() -> None:
    table = fleet()
    me = table.devices[0]
    table.until(lambda: released(me) >= 2, 200.0)
    change_policy(table, me, privacy=Privacy())
    table.advance(100.0)
    assert me.node.view().listen_only == ONCE_PRIVATE
    head = head_of(me.store.load().head or b"")
    assert head.update is not None
    assert head.update.digest == releases(me.store.load().ledger)[-1]


def test_a_model_of_before_the_policy_asked_for_privacy_stays_here() -> None:
    table = fleet(Privacy())
    me = table.devices[0]
    held: list[StartTraining] = []
    execute = table._execute

    def keep(device: Device, effect: Any) -> bool:
        if device is me and isinstance(effect, StartTraining):
            held.append(effect)
            return True
        return execute(device, effect)

    table.until(lambda: me.node.base_round >= 1, 100.0)
    table._execute = keep  # type: ignore[method-assign]
    table.until(lambda: held, 60.0)
    table._execute = execute  # type: ignore[method-assign]
    change_policy(table, me, privacy=LOCAL)
    before = me.node.view().seq
    lie = np.full(4, 77.0, np.float32)
    table.send(me, TrainingFinished(held[0].job, plain(lie)))
    table.until(lambda: released(me) >= 1, 200.0)
    for batch in commits(me):
        if batch.seq is not None and batch.seq > before:
            assert all(lie.tobytes() not in data for _, data in batch.objects)


# --- no telling silence ---------------------------------------------------------------------------


class Broken(Toy):
    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        raise OSError("the data are gone")

    def evaluate(self, parameters: Vector) -> Evaluation:
        return Evaluation(float("nan"), None, 0)


def test_a_device_whose_training_fails_publishes_as_often_as_the_others() -> None:
    table = fleet()
    broken = table.devices[0]
    broken.trainer = Broken(4, 0)
    table.until(lambda: broken.node.base_round >= 3, 300.0)
    assert released(broken) >= 3
    assert any("noise goes out" in notice.text for notice in broken.notices)


def test_missing_data_silence_nobody_but_a_hot_machine_does() -> None:
    table = fleet()
    me = table.devices[0]
    table.send(me, ResourcesChanged(False, "no examples", of_data=True))
    table.until(lambda: released(me) >= 2, 200.0)
    assert me.node.view().listen_only == ""
    table.send(me, ResourcesChanged(False, "too hot"))
    count = released(me)
    table.advance(100.0)
    assert released(me) == count
    assert me.node.view().listen_only == "too hot"


def test_without_privacy_missing_data_mean_listening() -> None:
    table = fleet(Privacy())
    me = table.devices[0]
    table.send(me, ResourcesChanged(False, "no examples", of_data=True))
    count = len(me.sent(StartTraining))
    table.advance(100.0)
    assert me.node.view().listen_only == "no examples"
    assert len(me.sent(StartTraining)) == count


# --- failures of the disk -------------------------------------------------------------------------


def is_release(batch: Batch) -> bool:
    return bool(batch.ledger)


@pytest.mark.parametrize("fault", [StoreFault.NOT_DONE, StoreFault.DONE_BUT_ERROR])
def test_a_retry_brings_the_bytes_that_were_made_and_spends_nothing_more(
    fault: StoreFault,
) -> None:
    table = fleet()
    me = table.devices[0]
    commit = me.store.commit
    failed: list[Batch] = []

    def failing(batch: Batch) -> None:
        if is_release(batch) and len(failed) < 2:
            failed.append(batch)
            me.store.faults = [fault]
        commit(batch)

    me.store.commit = failing  # type: ignore[method-assign]
    table.until(lambda: released(me) >= 2, 300.0)
    first = failed[0]
    assert first.ledger == me.store.load().ledger[: len(first.ledger)]
    durable = [batch for batch in commits(me) if is_release(batch)]
    digests = {name for batch in durable for name in releases(batch.ledger)}
    assert len(digests) == released(me), "one release, one blob, however often it was tried"


def test_a_disk_that_fails_for_long_costs_one_release() -> None:
    table = fleet()
    me = table.devices[0]
    table.until(lambda: released(me) == 1, 100.0)
    commit = me.store.commit

    def full(batch: Batch) -> None:
        raise StoreError("simulated: no room")

    me.store.commit = full  # type: ignore[method-assign]
    table.advance(300.0)
    me.store.commit = commit  # type: ignore[method-assign]
    before = len({name for batch in commits(me) for name in releases(batch.ledger)})
    assert before == 2
    table.until(lambda: released(me) >= 2, 200.0)


def crash_at(number: int, fault: StoreFault) -> None:
    """A crash at the commit of this number; then a restart on what is durable."""
    table = fleet()
    me = table.devices[0]
    commit, public = me.store.commit, {}
    seen = [0]

    def crashing(batch: Batch) -> None:
        seen[0] += 1
        if seen[0] == number:
            me.store.faults = [fault]
        commit(batch)

    def look() -> bool:
        served = me.node.shelf.head(None)
        if served is not None:
            head = head_of(served.envelope)
            assert public.setdefault(head.seq, served.digest) == served.digest
            if head.update is not None:
                assert head.update.digest in releases(me.store.load().ledger)
        return released(me) >= 5

    me.store.commit = crashing  # type: ignore[method-assign]
    try:
        table.until(look, 400.0)
    except Crash:
        table.restart(me)
        table.introduce(*(d for d in table.devices if d is not me))
    table.employ(me)
    table.until(look, 600.0)
    assert seen[0] >= number
    replay(me.store.load().ledger, head_of(me.store.load().head or b"").ledger)


@pytest.mark.parametrize("fault", [StoreFault.CRASH_BEFORE, StoreFault.CRASH_AFTER])
@pytest.mark.parametrize("number", range(1, 9))
def test_a_crash_at_any_commit_loses_no_entry(number: int, fault: StoreFault) -> None:
    crash_at(number, fault)


# --- old disks, new keys --------------------------------------------------------------------------


def test_a_restart_goes_on_with_what_was_spent() -> None:
    table = fleet(TWICE)
    me = table.devices[0]
    table.until(lambda: me.node.view().listen_only, 400.0)
    table.restart(me)
    table.introduce(*table.devices[1:])
    table.employ(me)
    table.advance(200.0)
    assert me.node.view().listen_only == Refusal.SPENT.value
    assert released(me) == 2


def test_an_older_copy_of_the_disk_publishes_no_more() -> None:
    table = fleet()
    me = table.devices[0]
    table.until(lambda: released(me) >= 1, 100.0)
    copy = me.store.copy()
    table.until(lambda: released(me) >= 3, 200.0)
    table.advance(5.0)
    table.restart(me, copy)
    table.introduce(*table.devices[1:])
    table.employ(me)
    table.advance(200.0)
    assert released(me) == 1
    assert "enrol it again" in me.node.view().listen_only
    assert LEDGER_BEHIND in copy.load().documents, "a new identity must not trust this ledger"
    table.restart(me, copy)
    assert "enrol it again" in me.node.view().listen_only


def test_an_older_copy_that_spent_nothing_since_is_adopted() -> None:
    table = fleet(TWICE)
    me = table.devices[0]
    table.until(lambda: me.node.view().listen_only, 400.0)
    table.advance(10.0)
    copy = me.store.copy()
    seq = me.node.view().seq
    table.until(lambda: me.node.view().seq > seq + 2, 400.0)  # it listens: receipts only
    table.advance(5.0)
    table.restart(me, copy)
    table.introduce(*table.devices[1:])
    table.employ(me)
    table.until(lambda: me.node.view().seq > seq + 2, 300.0)
    assert me.node.view().listen_only == Refusal.SPENT.value


@pytest.mark.parametrize("damage", ["all rows gone", "last row gone", "a row changed"])
def test_a_disk_without_the_ledger_that_its_head_commits_to_publishes_nothing(damage: str) -> None:
    table = fleet()
    me = table.devices[0]
    table.until(lambda: released(me) >= 2, 200.0)
    snapshot = me.store.load()
    first, *middle, last = snapshot.ledger
    rows = {
        "all rows gone": (),
        "last row gone": (first, *middle),
        "a row changed": (first, *middle, Row(last.number, middle[0].data, last.link)),
    }[damage]
    cut = MemoryStore(Snapshot(snapshot.head, snapshot.receipt, snapshot.documents, rows))
    cut._seq = me.store._seq
    table.restart(me, cut)
    table.introduce(*table.devices[1:])
    table.employ(me)
    table.advance(100.0)
    assert "enrol it again" in me.node.view().listen_only
    assert cut.load().ledger == rows


def enrolled_again(table: Table, me: Device, snapshot: Snapshot) -> Device:
    keys = table.fleet.admit(replaces=me.id)
    me.down = True
    new = table.device(keys=keys, store=MemoryStore(snapshot))
    table.introduce()
    table.employ(new)
    return new


def test_under_a_new_key_the_spent_budget_is_still_spent() -> None:
    table = fleet(TWICE)
    me = table.devices[0]
    table.until(lambda: me.node.view().listen_only, 400.0)
    rows = me.store.load().ledger
    new = enrolled_again(table, me, Snapshot(ledger=rows))
    table.advance(200.0)
    assert new.node.view().listen_only == Refusal.SPENT.value
    assert released(new) == 2
    ledger = replay(new.store.load().ledger)
    assert ledger.device == new.id, "the new key is entered"
    head = head_of(new.store.load().head or b"")
    assert head.ledger == ledger.ref


def test_under_a_new_key_without_the_old_ledger_everything_counts_as_spent() -> None:
    table = fleet()
    me = table.devices[0]
    table.until(lambda: released(me) >= 1, 100.0)
    new = enrolled_again(table, me, Snapshot())
    table.advance(100.0)
    assert new.node.view().listen_only == Refusal.UNKNOWN.value
    assert released(new) == 0


def test_a_new_key_whose_old_store_was_read_and_had_spent_nothing_may_publish() -> None:
    table = fleet(Privacy())
    me = table.devices[0]
    table.advance(50.0)
    snapshot = Snapshot(documents={LEDGER_CARRIED: b"1"})
    table.policy = table.fleet.policy(table.job, n=3, rule="mean", version=1, privacy=LOCAL, run=1)
    new = enrolled_again(table, me, snapshot)
    table.employ()
    table.until(lambda: released(new) >= 1, 200.0)


@pytest.mark.parametrize(
    ("count", "waits"),
    [(1, "a peer that knows this device"), (2, "2 of 3 peers to say"), (3, "")],
)
def test_who_has_spent_asks_a_peer_that_knows_it_or_most_of_the_fleet(
    count: int, waits: str
) -> None:
    """The first release was durable, and the process died before anybody saw it."""
    table = fleet(count=4)
    me = table.devices[0]
    table.until(lambda: released(me) >= 1, 100.0)
    for device in table.devices[1:]:
        device.down = True
    strangers = [table.puppet() for _ in range(count)]
    for stranger in strangers:
        stranger.publish()
    table.restart(me)
    table.introduce(*strangers)
    table.employ(me)
    table.advance(400.0)
    assert bool(me.sent(StartTraining)[1:]) is not bool(waits)
    assert waits in me.node.view().waiting_for


# --- old copies of old keys' disks ----------------------------------------------------------------


def spent_after_copy(table: Table, me: Device) -> tuple[Row, ...]:
    """The ledger of an older copy of the disk: one release, when there are three by now."""
    table.until(lambda: released(me) >= 1, 100.0)
    rows = me.store.load().ledger
    table.until(lambda: released(me) >= 3, 200.0)
    table.advance(5.0)
    return rows


def test_an_old_disk_under_a_new_key_gets_no_budget_back() -> None:
    table = fleet()
    me = table.devices[0]
    new = enrolled_again(table, me, Snapshot(ledger=spent_after_copy(table, me)))
    table.advance(200.0)
    assert new.node.view().listen_only == Refusal.UNKNOWN.value
    assert released(new) == 1
    assert not new.sent(StartTraining)
    assert new.node.view().merges > 1, "it still gets better models"
    assert new.store.load().documents[LEDGER_BEHIND] == BEHIND_OLD
    table.restart(new)
    table.introduce(*table.devices[1:3])
    table.employ(new)
    table.advance(100.0)
    assert new.node.view().listen_only == Refusal.UNKNOWN.value


def test_the_right_disk_under_a_new_key_goes_on_where_it_was() -> None:
    table = fleet()
    me = table.devices[0]
    table.until(lambda: released(me) >= 2, 200.0)
    table.advance(5.0)
    before = released(me)
    new = enrolled_again(table, me, Snapshot(ledger=me.store.load().ledger))
    assert new.node.view().listen_only == WAITING
    table.until(lambda: released(new) >= before + 2, 200.0)
    replay(new.store.load().ledger, head_of(new.store.load().head or b"").ledger)
    # What it has released itself needs nobody's word.
    for device in table.devices[1:3]:
        device.down = True
    table.restart(new)
    table.employ(new)
    assert new.node.view().listen_only == ""


def test_peers_that_started_again_still_know_what_an_old_key_had_spent() -> None:
    table = fleet()
    me = table.devices[0]
    rows = spent_after_copy(table, me)
    keys = table.fleet.admit(replaces=me.id)
    me.down = True
    new = table.device(keys=keys, store=MemoryStore(Snapshot(ledger=rows)))
    others = table.devices[1:3]
    table.introduce()
    table.until(
        lambda: all(d.node._core.roster.by_device(new.id) is not None for d in others), 100.0
    )
    new.down = True
    table.advance(30.0)
    for device in others:
        table.restart(device)
    new.down = False
    table.restart(new, MemoryStore(Snapshot(ledger=rows)))
    table.introduce()
    table.employ(new)
    table.advance(100.0)
    assert new.node.view().listen_only == Refusal.UNKNOWN.value
    assert released(new) == 1


@pytest.mark.parametrize("spent", [True, False], ids=["releases", "none"])
def test_without_a_peer_that_knew_the_old_key_nothing_that_was_spent_is_trusted(
    spent: bool,
) -> None:
    table = fleet()
    me = table.devices[0]
    table.until(lambda: released(me) >= 1, 100.0)
    rows = me.store.load().ledger if spent else ()
    for device in table.devices:
        device.down = True
    strangers = [table.puppet() for _ in range(2)]
    for stranger in strangers:
        stranger.publish()
    documents = {LEDGER_CARRIED: b"1"}
    new = enrolled_again(table, me, Snapshot(ledger=rows, documents=documents))
    table.advance(300.0)
    assert new.node.view().listen_only == WAITING
    assert not new.sent(StartTraining)


def test_an_heir_of_an_heir_answers_for_both() -> None:
    """Its disk is from before the first heir, its key is signed as the second one."""
    table = fleet()
    me = table.devices[0]
    table.until(lambda: released(me) >= 1, 100.0)
    table.advance(5.0)
    rows = me.store.load().ledger
    first = enrolled_again(table, me, Snapshot(ledger=rows))
    table.until(lambda: released(first) >= 3, 200.0)
    table.advance(5.0)
    second = enrolled_again(table, first, Snapshot(ledger=rows))
    table.advance(100.0)
    assert second.node.view().listen_only == Refusal.UNKNOWN.value
    assert released(second) == 1


def test_a_head_of_somebody_else_confirms_nothing() -> None:
    table = fleet()
    me = table.devices[0]
    table.until(lambda: released(me) >= 1, 100.0)
    rows = me.store.load().ledger
    for device in table.devices:
        device.down = True
    liars = [table.puppet() for _ in range(2)]
    for liar in liars:
        liar.publish()
    for liar in liars:
        assert liar.current is not None
        liar.heads[me.id] = liar.current
    new = enrolled_again(table, me, Snapshot(ledger=rows))
    table.advance(200.0)
    assert new.node.view().listen_only == WAITING
    assert released(new) == 1


def test_a_key_that_lost_its_ledger_says_so_to_the_next_key() -> None:
    """Its store has no row yet: without a word the next key would take it for the whole."""
    table = fleet()
    me = table.devices[0]
    table.until(lambda: released(me) >= 1, 100.0)
    new = enrolled_again(table, me, Snapshot())
    assert new.store.load().documents[LEDGER_BEHIND] == BEHIND_OLD, "at once, before any head"


def strangers_of(table: Table, count: int = 2) -> list[Device]:
    """Real devices that are told of nobody yet, when all that were there are gone."""
    for device in table.devices:
        device.down = True
    found = [table.device() for _ in range(count)]
    table.introduce()
    table.employ(*found)
    return found


@pytest.mark.parametrize("spent", [True, False], ids=["one release", "nothing"])
def test_an_heir_that_nobody_confirmed_leaves_the_question_to_its_own_heir(spent: bool) -> None:
    """The disk is from before most releases. Who is there knows the first heir, not whom it
    replaced; those who do come back later."""
    table = fleet()
    me, *knowing = table.devices
    if spent:
        rows = spent_after_copy(table, me)
    else:
        table.until(lambda: released(me) >= 3, 300.0)
        table.advance(5.0)
        rows = ()
    strangers_of(table)
    carried = {LEDGER_CARRIED: b"1"}
    first = enrolled_again(table, me, Snapshot(ledger=rows, documents=carried))
    table.until(lambda: first.node.view().seq >= 3, 200.0)
    table.advance(30.0)
    assert first.node.view().listen_only == WAITING
    had = released(first)
    disk = first.store.load().ledger
    second = enrolled_again(table, first, Snapshot(ledger=disk, documents=carried))
    table.advance(200.0)
    assert second.node.view().listen_only == WAITING
    assert released(second) == had
    for device in knowing:
        device.down = False
        table.restart(device)
    table.introduce()
    table.until(lambda: second.node.view().listen_only == Refusal.UNKNOWN.value, 300.0)
    assert released(second) == had


def test_an_heir_whose_first_heir_never_came_up_goes_on() -> None:
    """Most of the fleet says that it holds nothing of the first heir."""
    table = fleet(count=4)
    me = table.devices[0]
    table.until(lambda: released(me) >= 2, 200.0)
    table.advance(5.0)
    before = released(me)
    me.down = True
    never = table.fleet.admit(replaces=me.id)
    keys = table.fleet.admit(replaces=never.device)
    new = table.device(keys=keys, store=MemoryStore(Snapshot(ledger=me.store.load().ledger)))
    table.introduce()
    table.employ(new)
    table.until(lambda: released(new) >= before + 2, 300.0)


def test_what_an_heir_released_needs_no_word_on_who_was_before() -> None:
    """It could not have released anything before that was confirmed."""
    table = fleet()
    me = table.devices[0]
    table.until(lambda: released(me) >= 2, 200.0)
    table.advance(5.0)
    first = enrolled_again(table, me, Snapshot(ledger=me.store.load().ledger))
    had = released(first)
    table.until(lambda: released(first) >= had + 1, 200.0)
    table.advance(5.0)
    had = released(first)
    for device in table.devices:  # nobody holds the first key's head any more
        device.node._core.shelf._over.pop(me.id, None)
    second = enrolled_again(table, first, Snapshot(ledger=first.store.load().ledger))
    table.until(lambda: released(second) >= had + 1, 200.0)


def test_an_old_copy_does_not_believe_the_one_peer_that_was_off_as_well() -> None:
    table = fleet(count=4)
    me, off, *others = table.devices
    table.until(lambda: released(me) >= 1, 100.0)
    table.advance(12.0)  # it saves what it knows of others each ten seconds
    copy = me.store.copy()
    off.down = True
    table.until(lambda: released(me) >= 3, 300.0)
    table.advance(5.0)
    for device in others:
        device.down = True
    off.down = False
    table.restart(off)
    table.restart(me, copy)
    table.introduce()
    table.employ(me)
    table.advance(2 * table.pace.stale_s)
    assert released(me) == 1
    assert "1 of 3 peers" in me.node.view().waiting_for
    for device in others:
        device.down = False
        table.restart(device)
    table.introduce()
    table.until(lambda: "enrol it again" in me.node.view().listen_only, 100.0)
    assert released(me) == 1


# --- statements that receipts name ----------------------------------------------------------------


def statements(device: Device) -> tuple[set[bytes], set[bytes]]:
    """Digests of the statements in its store, and of those that its stored receipts name."""
    held, named = set(), set()
    for name, data in device.store._objects.items():
        try:
            Statement.load(data)
            held.add(name)
        except PeerError:
            pass
    for (chain, _), name in device.store._links.items():
        if chain == "receipt":
            envelope = open_envelope(device.store._objects[name], "receipt", 65_536)
            statement = decode(envelope.payload, Receipt).statement
            assert statement is not None
            named.add(statement)
    return held, named


def test_a_statement_stays_as_long_as_a_receipt_that_names_it() -> None:
    """Chapters of 4 receipts, 8 of them kept; also over a restart in the middle."""
    table = fleet(limits=Limits(chapter=4))
    me = table.devices[0]
    me.node._core.publisher.keeper.retention = Retention(history_links=8)
    table.until(lambda: me.node.base_round >= 9, 600.0)
    held, named = statements(me)
    assert named <= held
    table.restart(me)
    me.node._core.publisher.keeper.retention._history_links = 8
    table.introduce(*table.devices[1:])
    table.employ(me)
    table.until(lambda: released(me) >= 24, 900.0)
    table.advance(10.0)
    held, named = statements(me)
    assert 8 <= len(named) < 24, "receipts have left"
    assert named <= held
    assert len(held - named) <= 1, "the newest may be named by a receipt that is on its way"


def test_statements_are_bounded_and_one_that_comes_back_is_the_newest() -> None:
    held = Statements(most=3)
    assert held.named(b"a", 1) == []
    assert held.named(b"a", 2) is None
    assert held.named(b"b", 3) == []
    assert held.named(b"a", 5) == []
    assert held.pruned(5) == [b"b"], "receipt 5 names a again"
    assert held.pruned(99) == [], "the newest is what the next receipt names"
    assert held.named(b"c", 100) == held.named(b"d", 101) == []
    assert held.named(b"e", 102) == [b"a"]
    again = Statements(most=3)
    again.load(held.dump())
    assert again.named(b"e", 103) is None
    assert again.named(b"f", 104) == [b"c"]
