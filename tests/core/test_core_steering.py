"""What the operator and the issuer say reaches every node, and what it then does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import Device, Puppet, Table, plain

from gossipfl.errors import Fault
from gossipfl.events import (
    Address,
    BundleGiven,
    CutOff,
    FetchObject,
    JobFailed,
    JobReady,
    LoadJob,
    OwnAddresses,
    PeerSeen,
    PolicyReceived,
    Release,
    RevocationReceived,
    Source,
    StartMerge,
    StartTraining,
    Stop,
    Topic,
    TrainingFailed,
    TrainingFinished,
)
from gossipfl.identity import device_name
from gossipfl.messages import Head, Role
from gossipfl.messages import Stop as StopAt
from gossipfl.objects import digest
from gossipfl.wire import decode, open_envelope
from sim.fleet import EPOCH, Keys


def fleet(count: int = 3, **policy: Any) -> Table:
    table = Table(n=count, **policy)
    for _ in range(count):
        table.device()
    table.introduce()
    return table


def head(device: Device) -> Head:
    served = device.node.shelf.head(None)
    assert served is not None
    return decode(open_envelope(served.envelope, "head", 4096).payload, Head)


def runs(table: Table) -> list[int | None]:
    policies = [d.node.view().policy for d in table.devices]
    return [p["run"] if p else None for p in policies]  # type: ignore[misc]


def issuer(table: Table) -> Keys:
    return Keys(table.fleet._issuer, table.fleet.issuer_member, b"")


# --- spreading -----------------------------------------------------------------------------------


def test_policy_and_bundle_spread_from_one_device_to_all() -> None:
    table = fleet(5)
    table.employ(table.devices[0])
    table.until(lambda: all(d.node.view().policy for d in table.devices), 60.0)
    table.until(lambda: all(d.node.base_round >= 1 for d in table.devices), 200.0)
    assert {d.node.lineage for d in table.devices} == {table.lineage}
    names = {head(d).policy for d in table.devices}
    assert names == {digest(table.policy)}, "and every head names it"


def test_a_revocation_spreads_and_cuts_off_everywhere() -> None:
    table = fleet(4)
    table.employ()
    table.until(lambda: all(d.node.base_round >= 1 for d in table.devices), 200.0)
    thief = table.devices[3]
    data = table.fleet.revoke(thief.id, "left on a train")
    table.send(table.devices[0], RevocationReceived(data))
    honest = table.devices[:3]
    table.until(lambda: all(d.node.refused(thief.keys.tls_key) for d in honest), 60.0)
    for device in honest:
        assert "left on a train" in (device.node.refused(thief.keys.tls_key) or "")
        assert [c.device for c in device.sent(CutOff)] == [thief.id]
    merges = [len(d.sent(StartMerge)) for d in honest]
    table.until(
        lambda: all(d.node.view().merges > m for d, m in zip(honest, merges, strict=True)), 200.0
    )
    for device in honest:
        assert device.node.view().sample == 2
    table.until(lambda: thief.node.view().listen_only, 60.0)
    assert "left on a train" in thief.node.view().listen_only


@pytest.mark.parametrize("numbers", ["equal", "odd and even"])
def test_a_device_that_saw_neither_head_quarantines_too(numbers: str) -> None:
    """One face to the first device, another to the second, none to the third: within 3 rounds all
    three hold proof. The two find out by the receipts that they read of each other."""
    table = fleet(4)
    table.employ()
    face, other = table.puppet(), table.puppet()
    other.keys = face.keys
    for puppet in (face, other):
        puppet.objects.clear()
        puppet.hold(face.keys.member)
        puppet.publish(capability="the same first head")
    first, second, third, _ = table.devices
    table.send(first, PeerSeen(face.address, Source.STATIC))
    table.send(second, PeerSeen(other.address, Source.STATIC))
    table.until(lambda: all(d.node.base_round >= 1 for d in table.devices), 200.0)
    for n in range(3):
        for puppet, goal in ((face, 1.0), (other, 1.5)):
            if numbers != "equal":
                puppet.seq += 1 if n or puppet is other else 0
                puppet.prev = digest(b"never shown %d" % puppet.seq)
            model = np.full(4, goal + n / 100, np.float32)
            puppet.publish_update(table.lineage, model)
        table.advance(33.0)
    for device in table.devices:
        assert device.node.view().evidence >= 1
        view = device.peer(face)
        assert view is not None
        assert view.state == "condemned"
        assert "two signed heads prove it" in view.why
        table.send(device, Release(face.id))
        assert device.node.refused(face.keys.tls_key) is not None, "nobody lifts hard proof"
    assert third.sent(StartMerge)
    for device in table.devices[:3]:
        for honest in table.devices:
            known = device.peer(honest)
            assert known is None or known.state != "condemned"


def test_addresses_spread_without_mdns() -> None:
    """Two devices know only the first: its address list brings them together."""
    table = Table(n=3)
    devices = [table.device() for _ in range(3)]
    for device in devices:
        table.send(device, OwnAddresses((device.address,)))
    for device in devices[1:]:
        table.send(device, PeerSeen(devices[0].address, Source.STATIC))
        table.send(devices[0], PeerSeen(device.address, Source.MDNS))
    table.employ()
    table.until(lambda: (p := devices[1].peer(devices[2])) is not None and p.state == "live", 120.0)


def test_two_fleets_on_one_network_ignore_each_other() -> None:
    table, other = fleet(2), Table(seed=2, n=2)
    strangers = [other.device() for _ in range(2)]
    for stranger in strangers:
        puppet = Puppet(other.fleet, stranger.keys, table._address())
        puppet.publish(policy=puppet.hold(other.policy))
        table.puppets.append(puppet)
    table.introduce(*table.puppets)
    table.employ()
    table.until(lambda: all(d.node.base_round >= 1 for d in table.devices), 200.0)
    for device in table.devices:
        assert len(device.node.view().peers) == 1
        policy = device.node.view().policy
        assert policy is not None
        assert device.node.lineage == table.lineage
        assert device.node.view().evidence == 0


# --- lineages ------------------------------------------------------------------------------------


def next_policy(table: Table, **fields: Any) -> bytes:
    before = table.policy
    table.policy = table.fleet.policy(
        table.job, **{"n": 3, "rule": "mean", "version": 2, "prev": digest(before), **fields}
    )
    return table.policy


def test_a_new_run_opens_a_lineage_and_training_under_way_is_discarded() -> None:
    table = fleet()
    table.employ()
    me = table.devices[0]
    table.until(lambda: me.node.base_round >= 2, 200.0)
    held: list[TrainingFinished] = []
    old_base = me.node.base
    assert old_base is not None
    execute = table._execute

    def keep(device: Device, effect: Any) -> bool:
        if device is me and isinstance(effect, StartTraining):
            held.append(TrainingFinished(effect.job, plain(np.full(4, 77.0, np.float32))))
            return True
        return execute(device, effect)

    table._execute = keep  # type: ignore[method-assign]
    table.until(lambda: held, 60.0)
    table._execute = execute  # type: ignore[method-assign]
    seq = me.node.view().seq
    table.send(me, PolicyReceived(next_policy(table, run=1)))
    table.send(me, held[0])
    table.advance(1.0)
    assert me.node.lineage == table.job.lineage(1)
    table.until(lambda: me.node.view().seq > seq, 30.0)
    for name in list(me.store._objects.values()):
        assert np.float32(77.0).tobytes() * 4 not in name, "it never left the node"
    table.until(lambda: set(runs(table)) == {1}, 60.0)
    table.until(lambda: all(d.node.base_round >= 1 for d in table.devices), 200.0)
    merge = me.sent(StartMerge)[-1]
    assert all(float(row.max()) < 3.0 for row in merge.received)


def test_updates_of_the_run_before_are_never_merged_again() -> None:
    table = fleet()
    table.employ()
    x = table.puppet()
    x.publish_update(table.lineage, np.full(4, 55.0, np.float32))
    table.introduce(x)
    me = table.devices[0]
    table.until(lambda: any(55.0 in row for m in me.sent(StartMerge) for row in m.received), 300.0)
    table.send(me, PolicyReceived(next_policy(table, run=1)))
    before = len(me.sent(StartMerge))
    table.until(lambda: set(runs(table)) == {1}, 60.0)
    table.until(lambda: len(me.sent(StartMerge)) > before + 2, 300.0)
    later = [row for m in me.sent(StartMerge)[before:] for row in m.received]
    assert not [row for row in later if 55.0 in row]
    assert "other lineage" not in me.faults(x)


def test_settings_of_the_same_run_change_without_a_new_start() -> None:
    table = fleet()
    table.employ()
    me = table.devices[0]
    table.until(lambda: me.node.base_round >= 2, 200.0)
    base_round = me.node.base_round
    loads = len(me.sent(LoadJob))
    table.send(me, PolicyReceived(next_policy(table, rule="median")))
    table.until(lambda: me.node.base_round > base_round, 60.0)
    assert me.sent(StartMerge)[-1].rule == "median"
    assert len(me.sent(LoadJob)) == loads


def test_rounds_end_where_the_policy_says_and_go_on_when_it_says_more() -> None:
    table = fleet(stop=StopAt(2))
    table.employ()
    me = table.devices[0]
    table.until(lambda: me.node.view().finished, 300.0)
    assert me.node.view().round == 2
    table.advance(200.0)
    assert me.node.view().round == 2
    table.send(me, PolicyReceived(next_policy(table, stop=StopAt(4))))
    table.until(lambda: me.node.view().round == 4 and me.node.view().finished, 300.0)


def test_a_policy_waits_for_its_date() -> None:
    table = fleet()
    table.employ()
    me = table.devices[0]
    table.until(lambda: me.node.base_round >= 1, 200.0)
    begin = int(EPOCH + table.now) + 100
    table.send(me, PolicyReceived(next_policy(table, run=1, not_before=begin)))
    table.until(lambda: head(me).policy == digest(table.policy), 30.0)
    table.advance(begin - EPOCH - table.now - 5.0)
    assert set(runs(table)) == {0}
    assert {head(d).policy for d in table.devices} == {digest(table.policy)}, "it is known by all"
    table.until(lambda: set(runs(table)) == {1}, 30.0)


def test_a_canary_policy_is_followed_by_its_devices_alone() -> None:
    table = fleet()
    table.employ()
    chosen = table.devices[1]
    table.until(lambda: all(d.node.base_round >= 1 for d in table.devices), 200.0)
    policy = next_policy(table, run=1, canary=[chosen.id])
    table.send(table.devices[0], PolicyReceived(policy))
    table.until(lambda: runs(table) == [0, 1, 0], 60.0)
    table.advance(100.0)
    assert runs(table) == [0, 1, 0]


def test_a_revoked_operators_run_is_left_for_the_one_before() -> None:
    table = fleet()
    table.employ()
    me = table.devices[0]
    stolen = table.fleet.admit(Role.OPERATOR)
    table.until(lambda: me.node.base_round >= 1, 200.0)
    table.send(me, PolicyReceived(next_policy(table, run=9, signed_by=stolen)))
    table.until(lambda: set(runs(table)) == {9}, 60.0)
    table.send(me, RevocationReceived(table.fleet.revoke(stolen.device, "stolen")))
    table.until(lambda: set(runs(table)) == {0}, 60.0)
    table.until(lambda: all(d.node.lineage == table.lineage for d in table.devices), 60.0)


def test_without_any_policy_left_the_fleet_waits() -> None:
    stolen_fleet = Table(n=2)
    stolen = stolen_fleet.fleet.admit(Role.OPERATOR)
    stolen_fleet.policy = stolen_fleet.fleet.policy(
        stolen_fleet.job, n=2, rule="mean", signed_by=stolen
    )
    devices = [stolen_fleet.device() for _ in range(2)]
    stolen_fleet.introduce()
    stolen_fleet.employ()
    stolen_fleet.until(lambda: all(d.node.base_round >= 1 for d in devices), 200.0)
    revoked = stolen_fleet.fleet.revoke(stolen.device, "stolen")
    stolen_fleet.send(devices[0], RevocationReceived(revoked))
    stolen_fleet.until(lambda: not any(d.node.view().policy for d in devices), 60.0)
    trained = [len(d.sent(StartTraining)) for d in devices]
    stolen_fleet.advance(200.0)
    assert [len(d.sent(StartTraining)) for d in devices] == trained
    assert devices[0].node.view().waiting_for == "a policy"


def test_an_issuer_outvotes_a_stolen_operator() -> None:
    table = fleet()
    table.employ()
    me = table.devices[0]
    table.until(lambda: me.node.base_round >= 1, 200.0)
    table.send(me, PolicyReceived(next_policy(table, run=5, version=2**40, prev=b"?" * 32)))
    table.until(lambda: set(runs(table)) == {5}, 60.0)
    opened = table.fleet.policy(table.job, n=3, rule="mean", term=1, run=6, signed_by=issuer(table))
    table.send(me, PolicyReceived(opened))
    table.until(lambda: set(runs(table)) == {6}, 60.0)
    again = table.fleet.policy(
        table.job, n=3, rule="mean", version=2**41, run=7, prev=digest(table.policy)
    )
    table.send(me, PolicyReceived(again))
    table.advance(60.0)
    assert set(runs(table)) == {6}


# --- bundles -------------------------------------------------------------------------------------


def test_a_bundle_is_fetched_from_a_peer_and_taken_only_whole() -> None:
    table = Table(n=2)
    me, x = table.device(), table.puppet()
    x.publish(policy=x.hold(table.policy), lineage=table.lineage)
    table.introduce()
    asked = []

    def tamper(device: Device, effect: Any, answer: Any) -> Any:
        if isinstance(effect, FetchObject) and effect.digest == digest(table.job.data):
            asked.append(effect)
            if len(asked) == 1:
                return type(answer)(effect.request, b"another bundle")
        return answer

    x.hold(table.job.data)
    table.tamper = tamper
    table.until(lambda: me.sent(LoadJob), 60.0)
    assert me.faults(x) == {Fault.WRONG_DIGEST.value: 1}
    assert [load.data for load in me.sent(LoadJob)] == [table.job.data]
    assert asked[0].bytes_max == len(table.job.data)


def test_a_bundle_that_fails_its_checks_is_said_and_not_tried_again() -> None:
    table = fleet(2)
    me = table.devices[0]
    execute = table._execute

    def refuse(device: Device, effect: Any) -> bool:
        if device is me and isinstance(effect, LoadJob):
            device.inbox.append(JobFailed(effect.bundle, "operator Loop is not allowed"))
            return True
        return execute(device, effect)

    table._execute = refuse  # type: ignore[method-assign]
    table.employ()
    table.advance(120.0)
    assert "operator Loop is not allowed" in me.node.view().waiting_for
    assert len(me.sent(LoadJob)) == 1
    warned = [n for n in me.notices if n.topic is Topic.POLICY and n.warning]
    assert len(warned) == 1
    table._execute = execute  # type: ignore[method-assign]
    table.send(me, PolicyReceived(next_policy(table, run=1)))
    table.until(lambda: me.node.lineage == table.job.lineage(1), 30.0)


def test_bundles_that_nobody_asked_for_are_not_loaded() -> None:
    table = fleet(2)
    me = table.devices[0]
    for n in range(10):
        table.send(me, BundleGiven(b"some file %d" % n))
    table.employ()
    assert [load.data for load in me.sent(LoadJob)] == [table.job.data]
    lineage = me.node.lineage
    table.send(me, JobReady(b"x" * 32, me.trainer.layout, me.trainer.initial))
    assert me.node.lineage == lineage


# --- rounds that go wrong ------------------------------------------------------------------------


def test_failed_training_ends_the_round_and_the_next_one_tries_again() -> None:
    table = fleet()
    me = table.devices[0]
    execute = table._execute
    failures: list[StartTraining] = []

    def fail(device: Device, effect: Any) -> bool:
        if device is me and isinstance(effect, StartTraining) and len(failures) < 2:
            failures.append(effect)
            device.inbox.append(TrainingFailed(effect.job, "not finite: training diverged"))
            return True
        return execute(device, effect)

    table._execute = fail  # type: ignore[method-assign]
    table.employ()
    table.until(lambda: me.node.view().merges >= 1, 200.0)
    assert len(failures) == 2
    assert [n for n in me.notices if "training diverged" in n.text]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_an_own_model_that_is_not_fit_to_publish_is_not_published(bad: float) -> None:
    table = fleet(4)
    me = table.devices[0]
    me.trainer.goal = np.full(4, bad, np.float32)
    table.employ()
    table.advance(200.0)
    assert head(me).update is None
    others = table.devices[1:]
    assert all(d.node.view().merges >= 1 for d in others)
    assert not any(d.faults(me) for d in others)


def test_a_released_peer_is_heard_again() -> None:
    table = fleet(2)
    me, other = table.devices
    for n in range(3):
        table.send(me, RevocationReceived(b"junk %d" % n))
    me.node._core.reputation.of(other.id).quarantined_until = 1e9
    view = me.peer(other)
    assert view is not None
    assert view.state == "quarantined"
    table.send(me, Release(other.id))
    view = me.peer(other)
    assert view is not None
    assert view.state == "live"
    assert [n for n in me.notices if "released" in n.text]


def test_a_late_joiner_starts_from_the_fleets_model() -> None:
    table = fleet()
    table.employ()
    table.until(lambda: all(d.node.base_round >= 4 for d in table.devices), 300.0)
    late = table.device()
    table.introduce()
    table.until(lambda: late.sent(StartTraining), 60.0)
    first = late.sent(StartTraining)[0]
    assert float(first.base.min()) > 0.5, "not from the initial model, which is zero"
    merge = late.sent(StartMerge)[0]
    assert merge.own is None
    assert merge.rule == "median"


def test_a_joiner_that_hears_too_few_for_the_assumed_liar_starts_from_the_initial_model() -> None:
    """Of two models one may be a liar's, and their median is the mean."""
    table = fleet(4, attackers=1, rule="median")
    table.employ()
    table.until(lambda: all(d.node.base_round >= 4 for d in table.devices), 300.0)
    for gone in table.devices[2:]:
        gone.down = True
    late = table.device()
    table.introduce()
    table.until(lambda: late.sent(StartTraining), 60.0)
    first = late.sent(StartTraining)[0]
    assert float(np.abs(first.base).max()) == 0.0
    assert all(merge.own is not None for merge in late.sent(StartMerge))


def test_a_peer_that_leaves_is_not_waited_for() -> None:
    table = fleet(4)
    table.employ()
    table.until(lambda: all(d.node.base_round >= 1 for d in table.devices), 200.0)
    gone = table.devices[3]
    table.send(gone, Stop())
    gone.down = True
    rest = table.devices[:3]
    rounds = [d.node.base_round for d in rest]
    table.until(
        lambda: all(d.node.base_round >= r + 3 for d, r in zip(rest, rounds, strict=True)), 300.0
    )
    for device in rest:
        view = device.peer(gone)
        assert view is not None
        assert view.state == "away"
        assert view.reputation == 1.0


def test_the_view_is_for_people_and_programs() -> None:
    import json

    import msgspec

    table = fleet()
    table.send(table.devices[0], OwnAddresses((Address("10.0.0.1", 1),)))
    table.employ()
    table.until(lambda: all(d.node.base_round >= 1 for d in table.devices), 200.0)
    view = table.devices[0].node.view()
    data = json.loads(json.dumps(msgspec.to_builtins(view)))
    assert data["device"] == device_name(table.devices[0].id)
    assert {p["state"] for p in data["peers"]} == {"live"}
    assert data["policy"]["rule"] == "mean"
    assert data["accuracy"] == 0.5


def test_a_waiting_policys_fault_is_not_that_of_who_brings_the_one_before_it() -> None:
    """It waited for the policy that opens its term; its operator was revoked meanwhile."""
    table = fleet(2)
    table.employ()
    me, bringer = table.devices[0], table.puppet()
    bringer.publish()
    table.introduce()
    rogue = table.fleet.admit(Role.OPERATOR)
    opens = table.fleet.policy(
        table.job, n=2, version=2, term=1, prev=digest(table.policy), signed_by=issuer(table)
    )
    waits = table.fleet.policy(
        table.job, n=2, version=3, term=1, run=7, prev=digest(opens), signed_by=rogue
    )
    table.send(me, PolicyReceived(waits))
    table.send(me, RevocationReceived(table.fleet.revoke(rogue.device, "stolen")))
    bringer.publish(policy=bringer.hold(opens))
    table.until(lambda: (me.node.view().policy or {}).get("term") == 1, 60.0)
    assert me.faults(bringer) == {}
    assert any("a policy that waited is refused" in n.text for n in me.notices)
