"""Blocks and canaries in a simulated fleet, with the checkers of every history watching."""

from __future__ import annotations

from typing import Any

import pytest

from gossipfl.events import BundleGiven, PolicyReceived
from gossipfl.messages import Head
from gossipfl.node import Node
from gossipfl.objects import digest
from gossipfl.wire import decode, open_envelope
from sim.device import SimDevice
from sim.network import Link
from sim.options import Options
from sim.scene import Every, Scene, Setup

DEVICES = 12
ROUNDS_MAX = 2  # issue: every awake device refuses the blocked one within so many rounds


def issue(scene: Scene, told: SimDevice, **fields: Any) -> bytes:
    """The next policy, handed to one device."""
    values = {"job": scene.job, "n": DEVICES, "attackers": 1, "rule": "nna", **fields}
    job = values.pop("job")
    data = scene.fleet.policy(job, version=2, prev=digest(scene.policy), **values)
    scene.world.deliver(told, PolicyReceived(data))
    scene.world.deliver(told, BundleGiven(job.data))
    return data


def name_it(devices: list[SimDevice], policy: bytes) -> int:
    """How many durable heads of these devices name the policy."""
    heads = [d.node.shelf.head(None) for d in devices if d.node is not None]
    opened = [decode(open_envelope(h.envelope, "head", 4_096).payload, Head) for h in heads if h]
    return sum(head.policy == digest(policy) for head in opened)


@pytest.mark.parametrize("seed", [71, 72])
def test_a_block_reaches_all_within_two_rounds_though_its_issuer_dies(seed: int) -> None:
    """Some messages are lost, one device sleeps, and who was told dies once three know."""
    scene = Scene(seed, Setup(devices=DEVICES, attackers=1), Options(link=Link(loss=0.02)))
    scene.start()
    scene.run_rounds(3, limit_s=200.0)
    told, liar, sleeper = scene.devices[0], scene.devices[5], scene.devices[7]
    awake = [d for d in scene.devices if d not in (told, liar, sleeper)]
    scene.world.network.sleep(sleeper.index)
    policy = issue(scene, told, blocked=[liar.device])
    scene.world.run_until(lambda: name_it(awake, policy) >= 3, 60.0)
    scene.world.crash(told)
    begun = {d.index: scene.view(d).round for d in awake}
    refuse = Every(scene.world, lambda: all(scene.view(d).blocked for d in awake))
    scene.world.run_until(refuse, 120.0)
    late = {d.index: scene.view(d).round - begun[d.index] for d in awake}
    assert max(late.values()) <= ROUNDS_MAX, late
    assert all(d.node is not None and d.node.refused(liar.keys.tls_key) for d in awake)
    scene.run_rounds(2, limit_s=200.0, who=awake)
    scene.world.network.wake(sleeper.index)
    scene.world.run_until(lambda: bool(scene.view(sleeper).blocked), 120.0)
    scene.world.finish()


def test_canaries_that_cannot_load_a_bundle_cost_nobody_a_round() -> None:
    scene = Scene(73, Setup(devices=DEVICES, attackers=1))
    scene.start()
    scene.run_rounds(3, limit_s=200.0)
    canaries = scene.devices[:2]
    other = scene.fleet.job("a bundle that no device can load", scene.job.layout)
    chosen = sorted(d.device for d in canaries)
    policy = issue(scene, scene.devices[9], job=other, run=1, n=2, attackers=0, canary=chosen)
    gone_back = Every(
        scene.world,
        lambda: all((scene.view(d).trial or {}).get("state") == "declined" for d in canaries),
    )
    scene.world.run_until(gone_back, 200.0)
    assert scene.tally.unmerged == {}, "no round was lost"
    scene.run_rounds(3, limit_s=200.0)
    assert all(scene.view(d).below_quorum == 0 for d in scene.devices)
    assert min(scene.accuracies()) >= 0.9
    assert name_it(scene.devices, policy) == DEVICES
    scene.world.finish()


def test_canaries_and_the_rest_learn_apart_and_then_together() -> None:
    """Another run of the same bundle, first for three, then for all."""
    scene = Scene(74, Setup(devices=DEVICES, attackers=1))
    scene.start()
    scene.run_rounds(3, limit_s=200.0)
    canaries, rest = scene.devices[:3], scene.devices[3:]
    chosen = sorted(d.device for d in canaries)
    trial = issue(scene, rest[0], run=1, n=3, attackers=0, canary=chosen)
    new = scene.job.lineage(1)

    def serves(device: SimDevice) -> Any:
        serving = device.node.serving if isinstance(device.node, Node) else None
        return serving.lineage if serving else None

    taken = Every(scene.world, lambda: all(serves(d) == new for d in canaries))
    scene.world.run_until(taken, 400.0)
    assert {serves(d) for d in rest} == {scene.job.lineage(0)}
    scene.run_rounds(3, limit_s=300.0)
    forward = scene.fleet.policy(
        scene.job, version=3, prev=digest(trial), n=DEVICES, attackers=1, rule="nna", run=1
    )
    scene.world.deliver(rest[3], PolicyReceived(forward))
    scene.world.run_until(
        Every(scene.world, lambda: all(serves(d) == new for d in scene.devices)), 400.0
    )
    scene.run_rounds(4, limit_s=400.0)
    assert min(scene.accuracies()) >= 0.9
    scene.world.finish()
