"""Canaries try a policy; the good one is kept, the bad one left, and a model serves all along.
Whom a policy blocks is shut out by everybody, until another policy lets it in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from harness import Device, Table, Toy

from gossipfl.events import (
    BundleGiven,
    CutOff,
    Effect,
    JobFailed,
    JobReady,
    LoadJob,
    PolicyReceived,
    RevocationReceived,
    StartMerge,
    StartTraining,
)
from gossipfl.identity import device_name
from gossipfl.interfaces import Evaluation
from gossipfl.messages import Gate, Head, Policy, Privacy, Role, Training
from gossipfl.objects import digest
from gossipfl.parameters import Vector
from gossipfl.trial import FAILURES_MAX, aim
from gossipfl.wire import decode, open_envelope
from sim.fleet import Job

OLD = 0.9  # accuracy of the model that the fleet has


class Shown(Toy):
    """A trainer whose accuracy is what the test says, and whose training may fail."""

    def __init__(
        self,
        count: int,
        goal: int,
        accuracy: float | None,
        *,
        fails: bool = False,
        measured: float | None = None,
    ):
        super().__init__(count, goal)
        self.accuracy = accuracy
        self.measured = measured  # in place of the loss
        self.fails = fails

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        if self.fails:
            return np.full_like(base, math.nan)
        return super().train(base, training, seed)

    def evaluate(self, parameters: Vector) -> Evaluation:
        loss = self.loss(parameters) if self.measured is None else self.measured
        return Evaluation(loss, self.accuracy, 10)


class Fleet(Table):
    """Devices that learn the old job; `new` is one that a policy may name."""

    def __init__(self, count: int = 4, **policy: Any) -> None:
        super().__init__(n=count, **policy)
        self.version = 1
        self.new: Job = self.fleet.job("another toy", Toy(6, 0).layout)
        self.trainer: Shown | None = Shown(6, 0, OLD)  # of the new job; None: it cannot be loaded
        for _ in range(count):
            self.device()
        self.introduce()
        self.employ()
        self.until(lambda: all(d.node.base_round >= 1 for d in self.devices), 200.0)

    def _execute(self, device: Device, effect: Effect) -> bool:
        if isinstance(effect, LoadJob):
            number = self.devices.index(device) if device in self.devices else len(self.devices)
            trainer: Shown | None = Shown(self.count, number, OLD)
            if effect.bundle == self.new.bundle:
                trainer = self.trainer
            if trainer is None:
                device.inbox.append(JobFailed(effect.bundle, "not a bundle at all"))
                return True
            device.trainer = trainer
            device.inbox.append(JobReady(effect.bundle, trainer.layout, trainer.initial))
            return True
        return super()._execute(device, effect)

    def issue(self, told: Device, job: Job | None = None, **fields: Any) -> None:
        """The next policy, handed to one device, with its bundle."""
        self.version += 1
        values = {"n": len(self.devices), "rule": "mean", "prev": digest(self.policy), **fields}
        self.policy = self.fleet.policy(job or self.job, version=self.version, **values)
        self.send(told, PolicyReceived(self.policy))
        self.send(told, BundleGiven((job or self.job).data))

    def try_out(self, *canaries: Device, **fields: Any) -> None:
        """The new job, on trial; the policy comes to a device that is no canary."""
        told = next(d for d in self.devices if d not in canaries)
        gate = Gate(rounds=3, drop=0.2)
        who = sorted(d.id for d in canaries)
        values = {"run": 1, "canary": who, "gate": gate, "n": len(who), **fields}
        self.issue(told, self.new, **values)


def head(device: Device) -> Head:
    served = device.node.shelf.head(None)
    assert served is not None
    return decode(open_envelope(served.envelope, "head", 4096).payload, Head)


def trial(device: Device) -> dict[str, Any]:
    return dict(device.node.view().trial or {})


def serves(device: Device) -> bytes:
    """The bundle of the model that it would answer with."""
    model = device.node.serving
    assert model is not None, "it serves nothing"
    return model.lineage.bundle


# --- trials --------------------------------------------------------------------------------------


def test_a_good_bundle_is_taken_over_and_then_by_all() -> None:
    table = Fleet()
    canary, *others = table.devices
    table.try_out(canary)
    table.until(lambda: trial(canary).get("serves") == "new", 300.0)
    assert serves(canary) == table.new.bundle
    assert head(canary).declined is None
    assert all(serves(d) == table.job.bundle for d in others)
    rounds = [d.node.base_round for d in others]
    table.until(
        lambda: all(d.node.base_round >= r + 2 for d, r in zip(others, rounds, strict=True)), 200.0
    )
    table.trainer = Shown(6, 1, OLD)
    table.issue(others[0], table.new, run=1)
    table.until(lambda: all(serves(d) == table.new.bundle for d in table.devices), 300.0)
    table.until(lambda: all(d.node.base_round >= 2 for d in table.devices), 300.0)
    assert {d.node.lineage for d in table.devices} == {table.new.lineage(1)}
    assert canary.node.view().trial is None


def test_the_old_model_serves_until_the_new_one_has_proved_itself() -> None:
    table = Fleet()
    canary = table.devices[1]
    before = canary.node.serving
    assert before is not None
    table.trainer = Shown(6, 0, 0.3)
    table.try_out(canary, gate=Gate(rounds=1000))
    table.until(lambda: canary.node.lineage == table.new.lineage(1), 60.0)
    table.advance(300.0)
    kept = canary.node.serving
    assert kept is not None
    assert kept.lineage == before.lineage
    assert kept.bundle == table.job.data, "with the bundle that it belongs to"
    table.trainer.accuracy = OLD - 0.1
    table.until(lambda: serves(canary) == table.new.bundle, 100.0)


@pytest.mark.parametrize("what", ["cannot be loaded", "diverges", "is worse", "has no loss"])
def test_a_bad_bundle_is_left_for_the_model_before(what: str) -> None:
    """Without anybody's help: the canary takes part in what the others do again."""
    table = Fleet()
    canary, *others = table.devices
    table.trainer = {
        "cannot be loaded": None,
        "diverges": Shown(6, 0, OLD, fails=True),
        "is worse": Shown(6, 0, OLD - 0.3),
        "has no loss": Shown(6, 0, 0.0, measured=math.nan),
    }[what]
    before: list[Any] = []

    def declined() -> bool:
        if trial(canary).get("state") == "declined":
            return True
        before[:] = [canary.node.serving]
        return False

    table.try_out(canary)
    table.until(declined, 600.0)
    table.until(lambda: canary.node.base_round > before[0].base_round, 200.0)
    last = max(i for i, e in enumerate(canary.effects) if isinstance(e, LoadJob))
    first = next(e for e in canary.effects[last:] if isinstance(e, StartTraining))
    assert np.array_equal(first.base, before[0].base), "it goes on from the very model it had"
    assert canary.node.lineage == table.lineage
    table.until(lambda: head(canary).declined == digest(table.policy), 60.0)
    assert {head(d).declined for d in others} == {None}
    assert all(d.node.lineage == table.lineage for d in others)
    assert trial(canary)["why"], "its owner can read why"
    loads = len(canary.sent(LoadJob))
    table.advance(200.0)
    assert len(canary.sent(LoadJob)) == loads, "it does not try again"


def test_a_model_is_served_at_every_instant_of_a_failed_trial() -> None:
    table = Fleet()
    canary = table.devices[2]
    table.trainer = Shown(6, 0, 0.1)
    table.try_out(canary)
    seen: set[bytes] = set()
    table.until(lambda: seen.add(serves(canary)) or trial(canary).get("state") == "declined", 600.0)
    table.until(lambda: seen.add(serves(canary)) or canary.node.lineage == table.lineage, 60.0)
    assert seen == {table.job.bundle}


def test_the_policy_for_all_is_followed_by_who_declined_it_as_a_canary() -> None:
    table = Fleet()
    canary, *others = table.devices
    table.trainer = Shown(6, 0, 0.1)
    table.try_out(canary)
    table.until(lambda: trial(canary).get("state") == "declined", 600.0)
    table.issue(others[0], table.new, run=1)
    table.until(lambda: {d.node.lineage for d in table.devices} == {table.new.lineage(1)}, 300.0)
    assert head(canary).declined is None


def test_another_run_is_another_trial() -> None:
    table = Fleet()
    canary = table.devices[0]
    table.trainer = None
    table.try_out(canary)
    table.until(lambda: trial(canary).get("state") == "declined", 100.0)
    table.trainer = Shown(6, 0, OLD)
    table.try_out(canary, run=2)
    table.until(lambda: serves(canary) == table.new.bundle, 300.0)


def test_a_block_amid_a_trial_does_not_begin_it_anew() -> None:
    table = Fleet(5)
    canary, told, liar = table.devices[0], table.devices[1], table.devices[4]
    table.trainer = Shown(6, 0, 0.1)
    table.try_out(canary, gate=Gate(rounds=3))
    table.until(lambda: trial(canary).get("state") == "declined", 600.0)
    loads = len(canary.sent(LoadJob))
    table.issue(told, table.new, run=1, canary=[canary.id], blocked=[liar.id])
    table.until(lambda: canary.node.view().blocked, 60.0)
    table.advance(100.0)
    assert len(canary.sent(LoadJob)) == loads
    assert head(canary).declined == digest(table.policy), "and it says so of the newest"


def test_settings_alone_may_be_on_trial() -> None:
    """The same job with a rate at which it diverges: no lineage changes, the model comes back."""
    table = Fleet()
    canary, other = table.devices[0], table.devices[1]
    trainer = canary.trainer
    assert isinstance(trainer, Shown)
    before = canary.node.base
    assert before is not None
    trainer.fails = True
    rate = Training(learning_rate=50.0)
    table.issue(other, canary=[canary.id], training=rate, run=0, gate=Gate(rounds=2))
    table.until(lambda: trial(canary).get("state") == "declined", 600.0)
    trainer.fails = False
    assert canary.node.base is not None
    number = canary.node.base_round
    table.until(lambda: canary.node.base_round > number, 200.0)
    assert canary.node.lineage == table.lineage


def test_two_canaries_learn_from_each_other_and_from_nobody_else() -> None:
    table = Fleet(5)
    first, second, *others = table.devices
    table.trainer = Shown(6, 0, OLD)
    table.try_out(first, second)
    begun = {d: len(d.sent(StartMerge)) for d in table.devices}
    table.until(lambda: serves(first) == serves(second) == table.new.bundle, 300.0)
    table.until(lambda: first.node.base_round >= 2, 300.0)
    assert max(len(m.received) for m in first.sent(StartMerge)[begun[first] :]) == 1
    table.until(lambda: all(len(d.sent(StartMerge)) > begun[d] + 2 for d in others), 300.0)
    assert all(d.node.view().below_quorum == 0 for d in others), "no round was lost"


def test_under_privacy_only_what_no_data_decide_ends_a_trial() -> None:
    table = Fleet()
    canary = table.devices[0]
    noisy = Privacy(mode="local", epsilon=100.0, clip=1.0, z=10.0)
    table.trainer = Shown(6, 0, 0.0)
    table.try_out(canary, privacy=noisy, gate=Gate(rounds=1))
    table.until(lambda: canary.node.lineage == table.new.lineage(1), 60.0)
    table.advance(300.0)
    assert canary.node.lineage == table.new.lineage(1)
    table.trainer = None
    table.try_out(canary, privacy=noisy, run=2)
    table.until(lambda: trial(canary).get("state") == "declined", 60.0)


# --- restarts ------------------------------------------------------------------------------------


def test_a_trial_goes_on_after_a_restart() -> None:
    table = Fleet()
    canary = table.devices[0]
    table.trainer = Shown(6, 0, 0.1)
    table.try_out(canary, gate=Gate(rounds=1000))
    table.until(lambda: canary.node.base is not None and trial(canary), 60.0)
    table.advance(120.0)
    table.restart(canary)
    table.introduce()
    assert serves(canary) == table.job.bundle, "from the disk, before anything is loaded"
    table.until(lambda: canary.node.lineage == table.new.lineage(1), 120.0)
    assert serves(canary) == table.job.bundle
    table.trainer.accuracy = OLD
    table.until(lambda: serves(canary) == table.new.bundle, 200.0)


def test_who_declined_does_not_try_again_after_a_restart() -> None:
    table = Fleet()
    canary = table.devices[0]
    table.trainer = None
    table.try_out(canary)
    table.until(lambda: head(canary).declined == digest(table.policy), 100.0)
    table.advance(60.0)
    table.trainer = Shown(6, 0, OLD)
    table.restart(canary)
    table.introduce()
    table.advance(200.0)
    assert canary.node.lineage == table.lineage
    assert head(canary).declined == digest(table.policy)


def test_who_comes_late_follows_what_is_for_all() -> None:
    """All heads name the canaries' policy; a newcomer has to find the one before."""
    table = Fleet()
    table.try_out(table.devices[0])
    table.until(lambda: {head(d).policy for d in table.devices} == {digest(table.policy)}, 60.0)
    late = table.device()
    table.introduce()
    table.until(lambda: late.node.lineage == table.lineage, 200.0)
    table.until(lambda: late.node.base_round >= 1, 200.0)


def test_a_flood_of_trials_leaves_the_policy_for_all() -> None:
    table = Fleet(3)
    for number in range(20):
        table.try_out(table.devices[0], run=number + 1)
    table.issue(table.devices[1], table.new, run=30, canary=[b"x" * 16])
    table.advance(30.0)
    assert all(d.node.lineage == table.lineage for d in table.devices[1:])


def test_what_a_policy_tries_out_has_one_name() -> None:
    policy = Policy(
        fleet=b"f" * 32, term=0, version=2, run=1, bundle=b"b" * 32, bundle_object=b"o" * 32,
        bundle_bytes=9, n=3, attackers=0, issued=5, prev=b"p" * 32, canary=[b"c" * 16],
    )  # fmt: skip
    same = [{"version": 3}, {"issued": 9}, {"blocked": [b"d" * 16]}, {"canary": [b"e" * 16]}]
    for change in same:
        assert aim(_changed(policy, change)) == aim(policy), change
    other = [{"run": 2}, {"bundle": b"B" * 32}, {"rule": "median"}, {"codec": "bf16"}]
    for change in other:
        assert aim(_changed(policy, change)) != aim(policy), change


def _changed(policy: Policy, change: dict[str, Any]) -> Policy:
    values = {name: getattr(policy, name) for name in policy.__struct_fields__}
    return Policy(**{**values, **change})


# --- blocks --------------------------------------------------------------------------------------


def test_a_blocked_device_is_refused_by_all_and_let_in_again() -> None:
    table = Fleet(5)
    told, *_, liar = table.devices
    others = table.devices[:4]
    table.issue(told, blocked=[liar.id])
    table.until(lambda: all(d.node.view().blocked for d in others), 60.0)
    for device in others:
        peer = device.peer(liar)
        assert peer is not None
        assert peer.state == "blocked"
        assert device.node.refused(liar.keys.tls_key) is not None
        assert liar.keys.tls_key in {e.tls_key for e in device.sent(CutOff)}
    begun = {d.id: len(d.sent(StartMerge)) for d in others}
    table.until(lambda: all(d.node.base_round >= begun[d.id] + 2 for d in others), 300.0)
    sizes = {len(m.received) for d in others for m in d.sent(StartMerge)[begun[d.id] + 1 :]}
    assert max(sizes) <= 3
    table.issue(told)
    table.until(lambda: not any(d.node.view().blocked for d in table.devices), 60.0)
    later = {d.id: len(d.sent(StartMerge)) for d in others}
    table.until(
        lambda: any(
            len(m.received) == 4 for d in others for m in d.sent(StartMerge)[later[d.id] :]
        ),
        300.0,
    )
    assert all(d.node.refused(liar.keys.tls_key) is None for d in others)


def test_a_block_counts_for_who_is_no_canary_of_its_policy() -> None:
    table = Fleet(5)
    canary, told, other, _, liar = table.devices
    table.try_out(canary, blocked=[liar.id])
    table.until(lambda: all(d.node.view().blocked for d in (canary, told, other)), 60.0)
    assert other.node.view().blocked == (device_name(liar.id),)
    assert other.node.lineage == table.lineage


def test_the_blocked_one_says_so_and_publishes_nothing() -> None:
    table = Fleet(5)
    liar = table.devices[4]
    table.issue(liar, blocked=[liar.id])
    assert "blocks it" in liar.node.view().listen_only
    update, rounds = head(liar).update, liar.node.view().round
    assert update is not None, "it had published"
    table.advance(100.0)
    assert liar.node.view().round > rounds, "it goes on listening"
    assert head(liar).update == update, "and says nothing new"


def test_nobody_can_be_made_to_refuse_half_of_a_fleet() -> None:
    """A stolen operator's key: its revocation must still reach everybody."""
    table = Fleet(4)
    stolen = table.fleet.admit(Role.OPERATOR)
    told, *others = table.devices
    table.issue(told, blocked=[d.id for d in others], signed_by=stolen)
    table.until(lambda: {head(d).policy for d in table.devices} == {digest(table.policy)}, 60.0)
    assert not any(d.node.view().blocked for d in table.devices)
    table.send(told, RevocationReceived(table.fleet.revoke(stolen.device, "stolen")))
    table.until(lambda: all(d.node._core.policies.newest().policy.version == 1
                            for d in table.devices), 60.0)  # fmt: skip


def test_hubs_and_operators_cannot_be_blocked() -> None:
    """It is through them that the revocation of a stolen key comes."""
    table = Fleet(4)
    hubs = [table.device(keys=table.fleet.admit(Role.HUB)) for _ in range(2)]
    table.introduce()
    table.advance(20.0)
    stolen = table.fleet.admit(Role.OPERATOR)
    told, *_, shut = table.devices[:4]
    named = [*(hub.id for hub in hubs), table.fleet.operator.device, shut.id]
    table.issue(told, blocked=named, signed_by=stolen)
    table.until(lambda: all(d.node.view().blocked for d in table.devices), 60.0)
    for each in table.devices:
        assert device_name(shut.id) in each.node.view().blocked
        assert not {device_name(hub.id) for hub in hubs} & set(each.node.view().blocked)
        assert all(each.node.refused(hub.keys.tls_key) is None for hub in hubs)
    table.send(hubs[0], RevocationReceived(table.fleet.revoke(stolen.device, "stolen")))
    table.until(lambda: all(not d.node.view().blocked for d in table.devices if d != shut), 120.0)


def test_a_block_outlives_a_restart() -> None:
    table = Fleet(5)
    told, liar = table.devices[0], table.devices[4]
    table.issue(told, blocked=[liar.id])
    table.until(lambda: table.devices[1].node.view().blocked, 60.0)
    table.advance(30.0)
    table.restart(table.devices[1])
    table.advance(10.0)
    assert table.devices[1].node.view().blocked == (device_name(liar.id),)


def test_failures_that_are_not_in_a_row_end_no_trial() -> None:
    assert FAILURES_MAX > 1
    table = Fleet()
    canary = table.devices[0]
    table.trainer = Shown(6, 0, OLD)
    table.try_out(canary, gate=Gate(rounds=100))
    table.until(lambda: serves(canary) == table.new.bundle, 300.0)
    for _ in range(FAILURES_MAX + 1):
        table.trainer.fails = True
        number = canary.node.view().round
        table.until(lambda n=number: canary.node.view().round > n, 100.0)
        table.trainer.fails = False
        number = canary.node.view().round
        table.until(lambda n=number: canary.node.view().round > n + 1, 100.0)
    assert canary.node.lineage == table.new.lineage(1)
