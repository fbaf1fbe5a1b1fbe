"""A hub in a fleet: devices witness its log, and a hub that lies is caught within an interval."""

from __future__ import annotations

import pytest

from gossipfl.audit.cosignatures import check_cosignature
from gossipfl.audit.memory import digest_of
from gossipfl.audit.notes import parse_note, witness_key
from gossipfl.chains import verify_evidence
from gossipfl.config import Limits
from gossipfl.membership import Roster
from gossipfl.messages import Head
from gossipfl.objects import unpack_list
from gossipfl.wire import decode, open_envelope
from sim.device import SimDevice
from sim.hub import SimHub
from sim.scene import Every, Scene, Setup

INTERVAL_S = 6.0


def scene_with_hub(seed: int = 5, devices: int = 5) -> tuple[Scene, SimHub]:
    scene = Scene(seed, Setup(devices=devices))
    hub = SimHub(scene, INTERVAL_S)
    scene.start(absent=[hub.device.index])
    hub.start()
    return scene, hub


def head_of(device: SimDevice) -> Head:
    envelope = device.store.load().head
    assert envelope is not None
    return decode(open_envelope(envelope, "head", 4_096).payload, Head)


def until(scene: Scene, condition: object, limit_s: float) -> float:
    """Virtual seconds until it holds."""
    assert callable(condition)
    begin = scene.world.now
    scene.world.run_until(Every(scene.world, condition), limit_s)
    return scene.world.now - begin


def learners(scene: Scene, hub: SimHub) -> list[SimDevice]:
    return [d for d in scene.devices if d is not hub.device]


def condemned_by(scene: Scene, hub: SimHub) -> list[SimDevice]:
    """Devices that shut the hub out."""
    return [
        device
        for device in learners(scene, hub)
        if device.node is not None and device.node.refused(hub.device.keys.tls_key)
    ]


def test_devices_cosign_what_the_hub_shows_and_name_it_in_their_heads() -> None:
    scene, hub = scene_with_hub()
    told = until(
        scene,
        lambda: (
            all(
                head_of(d).checkpoint == hub.told[-1] if d.store.load().head else False
                for d in learners(scene, hub)
            )
            and len(hub.told) > 3
        ),
        60.0,
    )
    assert told < 60.0
    for device in learners(scene, hub):
        head = head_of(device)
        assert head.cosignature is not None
        line = device.store.get(head.cosignature)
        assert line is not None
        text = hub.log.checkpoints[len(hub.told) - 1].text()
        (signature,) = parse_note(text + b"\n" + line).signatures
        assert check_cosignature(text, signature, witness_key(device.keys.signer.key_id)) > 0
    assert not condemned_by(scene, hub)
    scene.world.finish()


def test_a_device_that_was_away_walks_to_what_it_knew() -> None:
    scene, hub = scene_with_hub()
    away = learners(scene, hub)[0]
    scene.world.run_for(15.0)
    scene.world.stop(away)
    scene.world.run_for(20 * INTERVAL_S)
    before = hub.told[-1]
    scene.world.start(away)
    until(scene, lambda: head_of(away).checkpoint in hub.told[hub.told.index(before) :], 60.0)
    assert not condemned_by(scene, hub)
    scene.world.finish()


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_a_hub_that_rewrites_its_log_is_caught_within_one_interval(seed: int) -> None:
    scene, hub = scene_with_hub(seed)
    scene.world.run_for(30.0)
    assert not condemned_by(scene, hub)
    hub.rewrite()
    took = until(
        scene, lambda: len(condemned_by(scene, hub)) == len(learners(scene, hub)), 4 * INTERVAL_S
    )
    # The lie is told with the next checkpoint, up to one interval after the rewriting.
    assert took <= 2 * INTERVAL_S
    prove_to_a_stranger(scene, hub)
    scene.world.finish()


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_a_hub_that_shows_two_audiences_two_logs_is_caught_by_any_two(seed: int) -> None:
    """Two devices only, one of each audience. The heads are one honest chain; only the log lies."""
    scene, hub = scene_with_hub(seed, devices=2)
    scene.world.run_for(12.0)
    hub.divide()
    took = until(scene, lambda: len(condemned_by(scene, hub)) == 2, 4 * INTERVAL_S)
    assert took <= 2 * INTERVAL_S
    prove_to_a_stranger(scene, hub)
    scene.world.finish()


def prove_to_a_stranger(scene: Scene, hub: SimHub) -> None:
    """The evidence list of every device proves the hub's lie with the fleet's root alone."""
    roster = Roster(scene.fleet.root.key_id, Limits())
    for device in learners(scene, hub):
        named = head_of(device).evidence
        data = device.store.get(named) if named is not None else None
        assert data is not None
        (item,) = unpack_list(data, 10**6)
        evidence, accused = verify_evidence(item, roster.verify_chain, Limits())
        assert accused == hub.device.device
        assert evidence.kind.value in ("forked log", "false checkpoint")
        assert digest_of(item)
