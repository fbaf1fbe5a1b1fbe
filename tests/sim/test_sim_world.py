"""The world itself, with a scripted node: time, order, requests, disks, crashes, traces."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted_node import ScriptedNode

from gossipfl.errors import Fault
from gossipfl.events import Address, FetchFailed, HeadReceived, StoreFailed
from gossipfl.memory import StoreFault
from gossipfl.objects import digest
from gossipfl.shelf import Served
from sim.checkers import DurableBeforePublic, OneHeadPerSeq
from sim.data import blobs
from sim.device import NodeLike, SimDevice
from sim.fleet import Fleet
from sim.learners import Learner, Softmax
from sim.network import Link
from sim.options import Options
from sim.world import World, WorldError


def scripted(device: SimDevice, seed: int) -> NodeLike:
    return ScriptedNode(device, seed)


def world_of(devices: int, seed: int = 1, **options: object) -> World:
    world = World(
        seed,
        Options(**options),  # type: ignore[arg-type]
        [OneHeadPerSeq(), DurableBeforePublic()],
        make_node=scripted,
    )
    fleet = Fleet(seed)
    learner = Learner(Softmax(8, 4), blobs())
    job = fleet.job("test", learner.layout)
    for _ in range(devices):
        world.add(fleet, fleet.admit(), job, learner)
    for device in world.devices:
        world.start(device)
    return world


def node(device: SimDevice) -> ScriptedNode:
    assert isinstance(device.node, ScriptedNode)
    return device.node


def heads(device: SimDevice) -> list[HeadReceived]:
    return [e for e in node(device).heard if isinstance(e, HeadReceived) and e.head]


def failures(device: SimDevice) -> list[FetchFailed]:
    return [e for e in node(device).heard if isinstance(e, FetchFailed)]


def test_devices_find_each_other_and_follow_heads_as_they_change() -> None:
    world = world_of(2)
    world.run_for(10.0)
    a, b = world.devices
    # A head a second each; a held request is answered when the head changes, so each is seen.
    assert node(b).seq >= 9
    assert len(heads(a)) >= 8
    assert heads(a)[0].tls_key == b.keys.tls_key
    world.finish()


def test_a_held_request_ends_unchanged_after_its_wait() -> None:
    world = world_of(2)
    node(world.devices[1]).interval = 1e6
    world.run_for(2.5)
    node(world.devices[1]).deadline = float("inf")
    world.run_for(10.0)
    unchanged = [e for e in node(world.devices[0]).heard if isinstance(e, HeadReceived)]
    assert unchanged[-1].head is None
    assert unchanged[-1].tls_key == world.devices[1].keys.tls_key


def test_one_seed_one_digest_whatever_the_hash_seed() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_sim_world import world_of\n"
        "from sim.network import Link\n"
        "world = world_of(4, seed=int(sys.argv[2]), link=Link(loss=0.1, duplicate=0.1))\n"
        "world.run_for(20.0)\n"
        "print(world.trace.digest(), world.trace.entries)\n"
    )

    def run(seed: int, hash_seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__).parent), str(seed)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    assert run(3, "1") == run(3, "2")
    assert run(3, "1") != run(4, "1")


def test_lost_messages_stall_after_the_clients_patience() -> None:
    world = world_of(2, link=Link(loss=1.0))
    world.run_for(3.0)
    assert failures(world.devices[0]) == []
    world.run_for(30.0)
    assert {f.fault for f in failures(world.devices[0])} == {Fault.STALLED}


def test_duplicates_are_delivered_twice() -> None:
    world = world_of(2, link=Link(duplicate=1.0))
    world.run_for(10.0)
    requests = [e.request for e in heads(world.devices[0])]
    assert len(requests) > len(set(requests))


def test_nobody_home_is_unreachable_and_a_dead_process_refuses_at_once() -> None:
    world = world_of(2)
    a, b = world.devices
    world.run_for(2.0)
    world.deliver(a, FetchFailed(0, Fault.REFUSED, "marker"))
    world.transport.fetch(a, node(a).fetch(Address("10.9.9.9", 1)))
    world.run_for(a.settings.limits.handshake_deadline_s + 0.1)
    assert failures(a)[-1].fault is Fault.UNREACHABLE
    world.crash(b)
    started = world.now
    world.transport.fetch(a, node(a).fetch(b.address))
    world.run_until(lambda: failures(a)[-1].detail == "connection refused", 1.0)
    assert world.now - started < 0.1


def test_a_crash_resets_held_requests_and_the_store_is_all_that_is_left() -> None:
    world = world_of(2)
    a, b = world.devices
    world.run_for(5.5)
    before = node(b).seq
    world.crash(b, restart_s=1.0)
    world.run_for(0.5)
    assert "reset" in failures(a)[-1].detail
    world.run_for(5.0)
    assert node(b).seq > before
    assert b.store.commits == node(b).seq
    world.finish()


@pytest.mark.parametrize("fault", list(StoreFault))
def test_every_way_a_disk_fails_reaches_the_node(fault: StoreFault) -> None:
    world = world_of(1)
    (device,) = world.devices
    device.store.faults = [None, None, fault]
    world.run_for(2.5)
    assert node(device).seq == 2
    world.run_for(1.0)
    written = fault in (StoreFault.CRASH_AFTER, StoreFault.DONE_BUT_ERROR)
    assert device.store.commits == (3 if written else 2)
    if fault in (StoreFault.NOT_DONE, StoreFault.DONE_BUT_ERROR):
        assert any(isinstance(e, StoreFailed) for e in node(device).heard)
    else:
        assert not device.up or device.incarnation == 1


def test_clocks_differ_and_a_deadline_is_never_told_early() -> None:
    world = world_of(3, wall_skew_s=300.0, drift=1e-3)
    offsets = {d.clock.monotonic_offset_s for d in world.devices}
    assert len(offsets) == 3
    seen: list[float] = []

    def watch(device: SimDevice) -> Callable[..., list[object]]:
        inner = node(device).handle

        def handle(event: object, now: float) -> list[object]:
            if type(event).__name__ == "DeadlineReached":
                seen.append(now - node(device).deadline)
            return inner(event, now)  # type: ignore[arg-type,return-value]

        return handle

    for device in world.devices:
        node(device).handle = watch(device)  # type: ignore[method-assign,assignment]
    world.run_for(10.0)
    assert len(seen) > 20
    assert min(seen) >= 0.0


def test_a_partition_cuts_and_heals() -> None:
    world = world_of(4)
    world.run_for(4.0)
    world.network.partition([0, 1], [2, 3])
    world.run_for(20.0)
    across = {world.devices[2].keys.tls_key, world.devices[3].keys.tls_key}
    count = sum(e.tls_key in across for e in heads(world.devices[0]))
    world.run_for(10.0)
    assert sum(e.tls_key in across for e in heads(world.devices[0])) == count
    world.heal()
    world.run_for(10.0)
    assert sum(e.tls_key in across for e in heads(world.devices[0])) > count


def test_another_fleet_is_refused_in_the_handshake() -> None:
    world = world_of(1)
    other = Fleet(99)
    stranger = world.add(other, other.admit(), world.devices[0].job, world.devices[0].trainer)
    world.start(stranger)
    world.run_for(5.0)
    assert failures(stranger)
    assert not heads(stranger)
    assert "not a member" in failures(stranger)[0].detail


def test_a_condition_that_is_not_reached_names_seed_and_options() -> None:
    world = world_of(1, seed=77, link=Link(loss=0.125))
    with pytest.raises(WorldError) as caught:
        world.run_until(lambda: False, 3.0)
    assert "seed 77" in str(caught.value)
    assert "loss=0.125" in str(caught.value)
    assert caught.value.seed == 77


def test_a_spinning_node_is_caught() -> None:
    world = world_of(1)
    node(world.devices[0]).interval = 0.0
    node(world.devices[0]).flight = b"never comes back"
    with pytest.raises(WorldError, match="does not move on"):
        world.run_for(3.0)


def test_checkers_catch_a_head_that_is_public_before_it_is_durable() -> None:
    world = world_of(2)
    world.run_for(2.5)
    hasty = node(world.devices[1])
    hasty.publish()
    assert hasty.flight is not None
    early = Served(hasty.flight, digest(hasty.flight), b"m" * 32)
    hasty.shelf.set_own(hasty.me.device, early)
    with pytest.raises(WorldError, match="before it is durable"):
        world.run_for(10.0)


def test_checkers_catch_two_heads_with_one_number() -> None:
    world = world_of(2)
    world.run_for(3.5)
    device = world.devices[1]
    backup = device.store.copy()
    world.run_for(5.0)
    world.crash(device)
    world.restore(device, backup)
    world.start(device)
    # The scripted node knows no better than to sign old numbers again, with another date.
    node(device).issued = 2
    with pytest.raises(WorldError, match="two heads with seq"):
        world.run_for(20.0)
