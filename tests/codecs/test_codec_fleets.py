"""Simulated fleets under each codec: they learn, through faults and beside a liar, all invariants
watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gossipfl import collector
from gossipfl.codecs import Assembly
from gossipfl.memory import StoreFault
from gossipfl.parameters import Vector
from sim.adversaries import FoeTrainer
from sim.network import Link
from sim.options import Options
from sim.scene import Every, Scene, Setup
from sim.world import WorldError

PARTIAL = "partial:0.25+int8"


def scene(codec: str, seed: int = 1, options: Options | None = None, **setup: Any) -> Scene:
    return Scene(seed, Setup(**{"devices": 5, **setup}, policy={"codec": codec}), options).start()


@pytest.mark.parametrize("codec", ["bf16", "int8", "bf16+zlib", PARTIAL, "partial:0.1+int8+zlib"])
def test_a_fleet_learns(codec: str) -> None:
    fleet = scene(codec, data="digits")
    fleet.run_rounds(12, limit_s=120.0)
    assert min(fleet.accuracies()) >= 0.90
    assert fleet.tally.completed == 1.0
    fleet.world.finish()


@pytest.mark.parametrize("fault", list(StoreFault))
@pytest.mark.parametrize("index", range(2, 9))
def test_a_store_that_fails_costs_nobody_a_part(index: int, fault: StoreFault) -> None:
    fleet = scene(PARTIAL, devices=4)
    device = fleet.devices[0]
    device.store.faults = [None] * index + [fault]
    fleet.world.run_until(Every(fleet.world, lambda: not device.store.faults), 60.0)
    fleet.world.run_for(0.1)
    fleet.world.run_until(Every(fleet.world, lambda: device.up), 10.0)
    fleet.tell(device)
    fleet.run_rounds(3, limit_s=90.0)
    for other in fleet.devices[1:]:
        peer = next(p for p in fleet.view(other).peers if p.device == fleet.name(device))
        assert set(peer.faults) <= {"unreachable"}  # a crashed device is
        assert peer.influence > 0.0
    fleet.world.finish()


def test_a_lossy_network_delays_parts_and_loses_none() -> None:
    options = Options(link=Link(latency_s=0.005, jitter_s=0.1, loss=0.1, duplicate=0.05))
    fleet = scene(PARTIAL, 3, options)
    fleet.run_rounds(15, limit_s=600.0)
    assert min(fleet.accuracies()) >= 0.85
    assert fleet.tally.completed >= 0.8
    fleet.world.finish()


def test_a_device_that_was_away_is_followed_again() -> None:
    fleet = scene(PARTIAL)
    device = fleet.devices[0]
    fleet.run_rounds(3, limit_s=60.0)
    fleet.world.crash(device, reboot=False)
    fleet.run_rounds(6, limit_s=90.0, who=fleet.devices[1:])
    fleet.world.start(device)
    fleet.tell(device)
    fleet.run_rounds(4, limit_s=60.0)
    assert fleet.accuracy(device) >= 0.85
    fleet.world.finish()


def test_a_joiner_starts_from_a_whole_model() -> None:
    """Its first base is the median of peers' vectors, parts and all."""
    fleet = Scene(2, Setup(devices=5, data="digits", policy={"codec": PARTIAL}))
    fleet.start(absent=[4])
    fleet.run_rounds(10, limit_s=90.0)
    joiner = fleet.devices[4]
    fleet.world.start(joiner)
    fleet.world.run_until(Every(fleet.world, lambda: fleet.base(joiner) is not None), 30.0)
    assert fleet.accuracy(joiner) >= 0.85  # before its first training
    fleet.world.finish()


def worst_beside_a_liar(codec: str) -> float:
    """Six honest devices and one that sends the inverse of the honest step, skewed digits."""
    fleet = scene(
        codec,
        devices=7,
        data="digits",
        model="mlp",
        alpha=0.5,
        attackers=1,
        scale=4.0,
        poison=((6, FoeTrainer),),
    )
    fleet.run_rounds(16, limit_s=150.0)
    fleet.world.finish()
    return min(fleet.accuracies())


@pytest.mark.slow
def test_one_liar_does_no_more_harm_than_to_whole_updates() -> None:
    whole = worst_beside_a_liar("f32")
    assert whole >= 0.9
    assert worst_beside_a_liar("int8") >= whole - 0.02
    assert worst_beside_a_liar(PARTIAL) >= whole - 0.05


@pytest.mark.parametrize("codec", ["int8", PARTIAL])
def test_a_node_that_decodes_something_else_is_seen(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who checks the checker: it must decode for itself, not believe the node."""

    def wrong(decode: Callable[..., Vector]) -> Callable[..., Vector]:
        def read(*args: Any) -> Vector:
            vector = np.array(decode(*args))
            vector[0] += np.float32(1e-3)
            return vector

        return read

    # Updates that stand alone are read by the first, partial ones by the second.
    monkeypatch.setattr(collector, "decode_update", wrong(collector.decode_update))
    monkeypatch.setattr(Assembly, "decode", wrong(Assembly.decode))
    with pytest.raises(WorldError, match="what no signed head named"):
        scene(codec).run_rounds(3, limit_s=60.0)
