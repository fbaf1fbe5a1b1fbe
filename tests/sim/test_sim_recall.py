"""What a process remembers is exact, bounded, and changes no history."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from gossipfl.errors import PeerError
from gossipfl.identity import Signer
from gossipfl.node import Node
from gossipfl.objects import digest
from gossipfl.wire import check_signature, open_envelope, seal
from sim.bench.sim import measure
from sim.bench.where import OTHER, ROOMS, room
from sim.device import NodeLike, SimDevice
from sim.recall import Recall
from sim.scene import Scene, Setup
from sim.trace import Known, is_fixed
from sim.world import World


def test_a_flipped_bit_is_checked_anew_and_a_failure_each_time() -> None:
    recall = Recall()
    envelope = open_envelope(seal("head", b"payload", Signer(bytes(32))), "head", 4_096)
    recall(check_signature, envelope)
    recall(check_signature, envelope)
    assert recall.runs == 1
    wrong = open_envelope(seal("head", b"payload", Signer(bytes(32)))[:-1] + b"\x00", "head", 4_096)
    for _ in range(2):
        with pytest.raises(PeerError):
            recall(check_signature, wrong)
    assert recall.runs == 3


def test_what_is_remembered_is_bounded_and_the_used_stays() -> None:
    recall = Recall(bytes_max=1_000, entries_max=1_000)
    kept = b"k" * 100
    for number in range(200):
        recall(digest, kept)
        recall(digest, b"%0100d" % number)
    assert len(recall) <= 22
    assert recall.runs <= 200 + 200 / 5


def test_only_what_nobody_can_write_to_is_known_by_identity() -> None:
    data = bytes(16)
    owned = np.zeros(4, np.float32)
    view = owned[:2]
    view.flags.writeable = False
    assert is_fixed(np.frombuffer(data, np.float32))
    assert is_fixed(np.frombuffer(memoryview(data)[4:], np.float32))
    assert not is_fixed(owned)
    assert not is_fixed(view), "its owner may still write"
    owned.flags.writeable = False
    assert is_fixed(owned)
    known = Known()
    assert known.digest(owned, owned.tobytes) == digest(owned.tobytes())


def test_a_world_of_nodes_that_remember_nothing_has_the_same_history() -> None:
    def forgetful(device: SimDevice, seed: int) -> NodeLike:
        return Node(device.fleet.identity(device.keys), device.settings, seed)

    def trace(world: World, scene: Scene) -> str:
        scene.start().run_rounds(3, limit_s=60.0)
        return world.trace.digest()

    shared = Scene(5, Setup(devices=5))
    apart = Scene(5, Setup(devices=5))
    apart.world._make_node = forgetful
    assert trace(shared.world, shared) == trace(apart.world, apart)
    assert shared.world.recall.runs > 0
    assert apart.world.recall.runs == 0


def test_the_bench_tells_what_the_time_was_for_and_changes_nothing_by_that() -> None:
    plain = measure(devices=12, sample=3, rounds=8, known=5)
    found = measure(devices=12, sample=3, rounds=8, known=5, where=True)
    assert found["trace"] == plain["trace"]
    assert found["samples"] > 10
    assert sum(found["where"].values()) == pytest.approx(1.0, abs=0.01)
    assert found["where"]["the node"] > 0.0
    assert set(found["where"]) <= {name for _, name in ROOMS} | {OTHER}
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0.0


@pytest.mark.parametrize(
    ("file", "purpose"),
    [
        ("sim/checkers/merges.py", "checkers"),
        ("sim/world.py", "simulated network and schedule"),
        ("gossipfl/aggregation/rules.py", "merging"),
        ("gossipfl/intake.py", "the node"),
        ("tests/sim/test_sim_recall.py", None),
    ],
)
def test_work_is_named_by_the_file_that_asked_for_it(
    root: Path, file: str, purpose: str | None
) -> None:
    assert room(str(root / file)) == purpose
    assert room(np.__file__) is None, "whoever calls numpy decides"


def test_the_bench_measures_fleets_in_which_few_know_each_other() -> None:
    found = measure(devices=12, sample=3, rounds=2, known=5)
    assert found["merges_per_s"] > 0
    assert found["rounds"] == 2
    assert found["memory_mb"] > 10
