"""A fleet under changing policies: rules switched without a lost round, rests and what ends them.

Each test prints its figures; `pytest -s` shows them.
"""

# ruff: noqa: T201

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from gossipfl.config import PACES, NodeSettings
from gossipfl.events import DataChanged, Effect, Event, PolicyReceived, StartMerge
from gossipfl.messages import Stop, Training
from gossipfl.objects import digest
from sim.adversaries import FoeTrainer
from sim.checkers import Checker, all_checkers
from sim.data import Examples, Split, hold_out
from sim.device import SimDevice
from sim.learners import Learner
from sim.network import Link
from sim.options import Options
from sim.scene import Every, Scene, Setup

SEEDS = (1, 2, 3, 4, 5)
LAN = PACES["lan"].round_interval_s
DEMO = PACES["demo"].round_interval_s


class Merges(Checker):
    """When each device merged by which rule."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int, str]] = []

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, StartMerge) and effect.own is not None:
                self.seen.append((self.world.now, device.index, effect.rule))


# --- a policy that switches the rule ------------------------------------------------------------


def switch(scene: Scene, version: int, prev: bytes, rule: str, who: SimDevice) -> bytes:
    setup = scene.setup
    policy = scene.fleet.policy(
        scene.job,
        n=setup.devices,
        attackers=setup.attackers,
        version=version,
        prev=digest(prev),
        rule=rule,
        training=setup.training,
    )
    scene.world.deliver(who, PolicyReceived(policy))
    return policy


@pytest.mark.parametrize("seed", SEEDS)
def test_a_switch_of_the_rule_reaches_all_within_two_rounds_and_costs_none(seed: int) -> None:
    """20 devices at the lan pace, 4 assumed hostile; each policy is handed to one device."""
    merges = Merges()
    options = Options(settings=NodeSettings(pace=PACES["lan"]))
    scene = Scene(seed, Setup(devices=20, attackers=4), options, [*all_checkers(), merges])
    scene.start()
    scene.run_rounds(3, limit_s=10 * LAN)
    prev, incarnations = scene.policy, [d.incarnation for d in scene.devices]
    known = first = 0.0
    for version, rule in enumerate(("trimmed_mean", "krum", "median", "nna"), start=2):
        at = scene.world.now
        rounds = [scene.base_round(d) for d in scene.devices]
        prev = switch(scene, version, prev, rule, scene.devices[version])
        known = max(known, followed(scene, scene.devices, rule))
        scene.world.run_for(at + 4 * LAN - scene.world.now)
        by_rule = [(t - at, index) for t, index, used in merges.seen if t >= at and used == rule]
        first = max(first, *(min(t for t, i in by_rule if i == d.index) for d in scene.devices))
        gained = [scene.base_round(d) - r for d, r in zip(scene.devices, rounds, strict=True)]
        assert min(gained) >= 3, "rounds go on at their pace"
    scene.world.finish()
    print(
        f"\nseed {seed}: 4 switches, known to all after {known / LAN:.2f} rounds, merged by it by "
        f"all after {first / LAN:.2f}; {scene.tally.ended} rounds, {scene.tally.unmerged} lost"
    )
    assert first <= 2 * LAN
    assert scene.tally.unmerged == {}
    assert [d.incarnation for d in scene.devices] == incarnations, "no process was restarted"
    policies = [scene.view(d).policy for d in scene.devices]
    assert {(p["run"], p["version"]) for p in policies if p} == {(0, 5)}


@pytest.mark.parametrize("seed", SEEDS)
def test_who_slept_through_a_switch_follows_within_two_rounds_of_waking(seed: int) -> None:
    options = Options(settings=NodeSettings(pace=PACES["lan"]))
    scene = Scene(seed, Setup(devices=8), options).start()
    scene.run_rounds(2, limit_s=10 * LAN)
    sleepers = scene.devices[5:]
    for device in sleepers:
        scene.world.crash(device)
    switch(scene, 2, scene.policy, "median", scene.devices[0])
    scene.world.run_for(5 * LAN)
    for device in sleepers:
        scene.world.start(device)
    woke_s = followed(scene, sleepers, "median")
    print(f"\nseed {seed}: three that slept follow {woke_s:.2f} s after waking, a round is {LAN} s")
    assert woke_s <= 2 * LAN
    scene.run_rounds(2, limit_s=10 * LAN)
    scene.world.finish()


def followed(scene: Scene, devices: Sequence[SimDevice], rule: str) -> float:
    """Seconds until all of these follow a policy with this rule."""
    began = scene.world.now
    scene.world.run_until(Every(scene.world, lambda: follow(scene, devices, rule)), 4 * LAN)
    return scene.world.now - began


def follow(scene: Scene, devices: Sequence[SimDevice], rule: str) -> bool:
    policies = [scene.view(d).policy for d in devices]
    return all(policy is not None and policy["rule"] == rule for policy in policies)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_switch_in_the_middle_of_a_round_loses_it_for_nobody(seed: int) -> None:
    """Pulls were planned for the old rule and may be too few for the new: all devices are told at
    many moments of their rounds."""
    scene = Scene(seed, Setup(devices=20, attackers=4)).start()
    scene.run_rounds(2, limit_s=10 * DEMO)
    prev = scene.policy
    for version in range(2, 26):
        rule = "krum" if version % 2 == 0 else "nna"
        policy = switch(scene, version, prev, rule, scene.devices[0])
        for device in scene.devices[1:]:
            scene.world.deliver(device, PolicyReceived(policy))
        prev = policy
        scene.world.run_for(DEMO * 0.37)
    print(f"\nseed {seed}: {scene.tally.ended} rounds over 24 switches, {scene.tally.unmerged}")
    assert scene.tally.completed == 1.0
    scene.world.finish()


# --- early stop ---------------------------------------------------------------------------------


def apart(scene: Scene) -> float:
    """What no device can see: the mean distance of all honest models to their mean, over the way
    that this mean has come. Infinite until all have trained."""
    steps = [d.last_step for d in scene.honest()]
    models = [step[1] for step in steps if step is not None]
    if len(models) < len(steps):
        return np.inf
    mean = np.mean(models, axis=0)
    way = np.linalg.norm(mean - scene.devices[0].trainer.initial)
    distance = np.mean([np.linalg.norm(m - mean) for m in models])
    return float(distance * np.sqrt(len(models) / (len(models) - 1)) / way)


def reach(scene: Scene, target: float) -> str:
    """Until the fleet is at the target: by the figure that no device can see, or by the view of
    half of the devices, which see a part of it each. What of that came first, in words."""
    rested: list[int] = []

    def reached() -> bool:
        rested[:] = [scene.view(d).round for d in scene.honest() if scene.view(d).finished]
        return apart(scene) <= target or 2 * len(rested) >= len(scene.honest())

    scene.world.run_until(Every(scene.world, reached), 150 * DEMO)
    return f"at {min(rested)} ({len(rested)} of them before it)" if rested else "later"


def rest(scene: Scene, limit_s: float = 150 * DEMO) -> float:
    return scene.world.run_until(
        Every(scene.world, lambda: all(scene.view(d).finished for d in scene.honest())), limit_s
    )


def going(scene: Scene, limit_s: float) -> float:
    """Seconds until no honest device is at rest."""
    return scene.world.run_until(
        Every(scene.world, lambda: not any(scene.view(d).finished for d in scene.honest())), limit_s
    )


def rounds_of(scene: Scene) -> list[int]:
    return [scene.view(d).round for d in scene.honest()]


def causes(scene: Scene) -> set[object]:
    return {scene.view(d).stopping["cause"] for d in scene.honest()}


def hide(scene: Scene, classes: int) -> list[Split]:
    """Nobody has examples of the last `classes` digits; returns what everybody would have."""
    whole = []
    for device in scene.devices:
        learner = device.trainer
        assert isinstance(learner, Learner)
        whole.append(learner.data)
        known = np.flatnonzero(learner.data.train.y < learner.data.train.classes - classes)
        learner.data = Split(learner.data.train.take(known), learner.data.test)
    return whole


def bring(scene: Scene, devices: Sequence[int], data: list[Split]) -> None:
    """New data for these devices, as the agent tells of them."""
    for index in devices:
        learner = scene.devices[index].trainer
        assert isinstance(learner, Learner)
        learner.data = data[index]
        scene.world.deliver(scene.devices[index], DataChanged())


SETTINGS: dict[str, tuple[float, Setup]] = {
    "iid": (0.08, Setup(data="digits")),
    "skewed": (0.15, Setup(data="digits", alpha=0.5)),
    "sampled": (0.14, Setup(devices=24, data="digits", attackers=2)),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SETTINGS)
def test_it_halts_within_five_rounds_of_the_target_and_restarts_on_new_data(
    seed: int, name: str
) -> None:
    target, setup = SETTINGS[name]
    setup = replace(setup, policy={"stop": Stop(distance=target)})
    scene = Scene(seed, setup).start()
    data = hide(scene, 2)
    first = reach(scene, target)
    reached = rounds_of(scene)
    rest(scene)
    late = [now - then for now, then in zip(rounds_of(scene), reached, strict=True)]
    assert 0 <= max(late) <= 5
    assert causes(scene) <= {"distance", "quiet"}
    before, seqs = np.mean(scene.accuracies()), [scene.view(d).seq for d in scene.honest()]
    scene.world.run_for(10 * DEMO)
    at_rest = rounds_of(scene)
    assert max(now - then for now, then in zip(at_rest, reached, strict=True)) == max(late)
    heads = [scene.view(d).seq - s for d, s in zip(scene.honest(), seqs, strict=True)]
    assert max(heads) <= 1, "at most the one that names its last receipt"
    bring(scene, range(setup.attackers + 1), data)
    awake_s = going(scene, 2 * DEMO)
    bring(scene, range(setup.attackers + 1, setup.devices), data)
    rest(scene)
    after = np.mean(scene.accuracies())
    gained = [now - then for now, then in zip(rounds_of(scene), at_rest, strict=True)]
    assert min(gained) >= 5
    assert after > before + 0.01, "they learn the new digits"
    scene.world.finish()
    print(
        f"\n{name}, seed {seed}: target at round {max(reached)}, first at rest {first}, all "
        f"{max(late)} rounds after the target; {setup.attackers + 1} with new data: all going "
        f"after {awake_s / DEMO:.2f} rounds, at rest again after {max(gained)}; accuracy "
        f"{before:.3f} to {after:.3f}"
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_patience_on_the_local_figure(seed: int) -> None:
    """Each device decides by held-out data of its own, some 45 examples; none is left alone."""
    setup = Setup(data="digits", alpha=0.5, policy={"stop": Stop(patience=6)})
    scene = Scene(seed, setup).start()
    test = scene.devices[0].trainer.data.test  # type: ignore[attr-defined]
    for device in scene.devices:
        learner = device.trainer
        assert isinstance(learner, Learner)
        learner.data = hold_out(learner.data.train, 0.25, seed)
    first = scene.world.run_until(
        Every(scene.world, lambda: any(scene.view(d).finished for d in scene.honest())), 200 * DEMO
    )
    rest(scene, 300 * DEMO)
    rounds, last = rounds_of(scene), scene.world.now
    assert causes(scene) <= {"patience", "quiet"}
    scene.world.run_for(20 * DEMO)
    assert rounds_of(scene) == rounds, "it stays at rest"
    scene.world.finish()
    for device in scene.devices:
        device.trainer.data = Split(test, test)  # type: ignore[attr-defined]
    worst = min(scene.accuracies())
    print(
        f"\nseed {seed}: the first at rest after {first / DEMO:.0f} rounds, the last after "
        f"{last / DEMO:.0f}; worst accuracy {worst:.3f}"
    )
    assert worst >= 0.85


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_quick_do_not_take_the_slow_for_resting(seed: int) -> None:
    """Five of eight train for two and a half rounds at a time: they publish less often than a
    device looks back. The quick ones may pause, but all come to the target."""
    target = 0.05
    scene = Scene(seed, Setup(policy={"stop": Stop(distance=target)}))
    for device in scene.devices[3:]:
        device.examples = int(2.5 * DEMO / scene.world.options.costs.train_s_per_example)
        device.slowness = 1.0
    scene.start()
    rest(scene, 300 * DEMO)
    scene.world.run_for(30 * DEMO)
    rest(scene, 100 * DEMO)
    scene.world.finish()
    print(
        f"\nseed {seed}: rounds {rounds_of(scene)}, {apart(scene):.3f} apart, accuracies "
        f"{min(scene.accuracies()):.3f} to {max(scene.accuracies()):.3f}, "
        f"{len(scene.notices('training goes on'))} times on again"
    )
    assert apart(scene) <= 1.5 * target
    assert min(scene.accuracies()) >= 0.95


@pytest.mark.parametrize("seed", SEEDS)
def test_a_liar_neither_keeps_a_fleet_going_nor_stops_it(seed: int) -> None:
    """A FOE liar's models lie far from the others': a mean would never reach the target."""
    target = 0.12
    setup = Setup(
        devices=7,
        data="digits",
        model="mlp",
        alpha=0.5,
        attackers=1,
        training=Training(learning_rate=0.05, momentum=0.9),
        scale=4.0,
        poison=((6, FoeTrainer),),
        policy={"stop": Stop(distance=target)},
    )
    scene = Scene(seed, setup).start()
    reach(scene, target)
    reached = rounds_of(scene)
    rest(scene)
    late = [now - then for now, then in zip(rounds_of(scene), reached, strict=True)]
    print(f"\nseed {seed}: target at round {max(reached)}, all at rest {max(late)} rounds later")
    assert 0 <= max(late) <= 5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_drift_of_the_local_loss_ends_the_rest(seed: int) -> None:
    """Labels change their meaning at all devices, and nobody is told: the checks find it."""
    stop = Stop(distance=0.05, new_data=False, drift=0.3, drift_checks=3)
    scene = Scene(seed, Setup(policy={"stop": stop})).start()
    rest(scene)
    scene.world.run_for(10 * DEMO)
    for device in scene.devices:
        learner = device.trainer
        assert isinstance(learner, Learner)
        learner.data = Split(*(swapped(part) for part in (learner.data.train, learner.data.test)))
    bad = np.mean(scene.accuracies())
    awake_s = going(scene, 6 * DEMO)
    assert awake_s <= 5 * DEMO, "three checks in a row, one a round, and a jitter"
    rest(scene)
    good = np.mean(scene.accuracies())
    assert good > bad + 0.1
    print(
        f"\nseed {seed}: going {awake_s / DEMO:.2f} rounds after the drift; {bad:.3f} to {good:.3f}"
    )


def swapped(part: Examples) -> Examples:
    return replace(part, y=(part.y + 1) % part.classes)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_a_bad_network_a_fleet_rests_and_wakes_too(seed: int) -> None:
    """20 % loss and 200 ms of jitter at the lan pace."""
    link = Link(latency_s=0.005, jitter_s=0.2, loss=0.2)
    options = Options(link=link, settings=NodeSettings(pace=PACES["lan"]))
    scene = Scene(seed, Setup(policy={"stop": Stop(distance=0.05)}), options).start()
    rest(scene, 60 * LAN)
    first = rounds_of(scene)
    scene.world.run_for(20 * LAN)
    assert rounds_of(scene) == first, "lost requests wake nobody"
    scene.world.deliver(scene.devices[0], DataChanged())
    awake_s = going(scene, 3 * LAN)
    rest(scene, 60 * LAN)
    scene.world.finish()
    print(
        f"\nseed {seed}: rest after {max(first)} rounds, all going {awake_s / LAN:.2f} rounds "
        f"after one device's new data, at rest again after {max(rounds_of(scene))}"
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_partition_leaves_nobody_training_for_ever(seed: int) -> None:
    """One device is cut off for good before the target: it rests, and follows when it is back."""
    scene = Scene(seed, Setup(policy={"stop": Stop(distance=0.05)})).start()
    scene.run_rounds(2, limit_s=10 * DEMO)
    scene.world.network.partition([0], range(1, 8))
    rest(scene)
    alone = scene.view(scene.devices[0])
    assert alone.stopping["cause"] == "quiet"
    scene.world.heal()
    scene.world.run_for(10 * DEMO)
    scene.world.deliver(scene.devices[3], DataChanged())
    awake_s = going(scene, 5 * DEMO)
    rest(scene)
    spread = scene.consensus_distance()
    print(f"\nseed {seed}: all going again after {awake_s / DEMO:.2f} rounds, {spread:.4f} apart")
    assert spread <= 0.05
