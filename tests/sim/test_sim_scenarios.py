"""What the fleet does as a whole, on the node that ships, in virtual time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from gossipfl.config import PACES, NodeSettings
from gossipfl.events import PolicyReceived, RevocationReceived
from gossipfl.memory import StoreFault
from gossipfl.messages import Role
from gossipfl.objects import digest
from sim.adversaries import Adversary, BitFlipper, Foe, NotANumber, StaleReplay
from sim.device import SimDevice
from sim.fleet import EPOCH, Fleet
from sim.forks import Fork, OddEven
from sim.histories import (
    CRASH_ROUNDS,
    LOSSY,
    commits_of,
    durable_seq,
    equivocation,
    foe,
    late_joiner,
    lossless,
    lossy,
    partition,
    restored,
    store_fault,
)
from sim.network import Link
from sim.options import Options
from sim.scene import Scene, Setup


def test_eight_devices_learn_digits_together() -> None:
    result = lossless()
    assert result.completed == 1.0
    assert result.accuracy_worst >= 0.89  # the same job in one place: 0.90 to 0.92


def test_one_seed_gives_one_history_whatever_the_hash_seed() -> None:
    program = "from sim.histories import lossy; print(lossy(9, rounds=4).digest)"

    def run(hash_seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    assert run("1") == run("2")
    assert lossy(9, rounds=4).digest == run("3").strip()
    assert lossy(9, rounds=4).digest != lossy(10, rounds=4).digest


@pytest.mark.parametrize("seed", [1, 2])
def test_rounds_complete_on_a_bad_network(seed: int) -> None:
    """20 % loss, 5 % duplicates, reordering, 200 ms of jitter, at the lan pace."""
    result = lossy(seed)
    assert result.completed >= 0.99
    assert result.accuracy_worst >= 0.89


def test_halves_train_on_and_agree_again_after_the_partition() -> None:
    parted, never = partition(3, heal=True), partition(3, heal=False)
    assert parted.extra["parted"] > 3 * never.extra["parted"]
    assert parted.extra["consensus"] <= 1.1 * never.extra["consensus"]
    assert parted.completed == 1.0
    assert parted.accuracy_worst >= never.accuracy_worst - 0.02


def test_a_late_joiner_starts_from_what_the_others_know() -> None:
    result = late_joiner()
    assert result.extra["first_s"] <= 5.0
    assert result.extra["joined_with"] >= 0.85  # before its first training
    assert result.accuracy_worst >= 0.88


# --- own state ----------------------------------------------------------------------------------

COMMITS = commits_of(1, CRASH_ROUNDS)


def test_there_are_persist_points_to_crash_at() -> None:
    assert COMMITS >= 2 * CRASH_ROUNDS


@pytest.mark.parametrize("fault", list(StoreFault))
@pytest.mark.parametrize("index", range(COMMITS))
def test_a_fault_at_every_persist_point(index: int, fault: StoreFault) -> None:
    """No second head for an old number, seq + 1 resumed, nobody's round late: the checkers watch
    all of it, and the device goes on."""
    result = store_fault(1, index, fault)
    assert result.extra["before"] < result.extra["after"]
    if (
        result.extra["before"] > 3
    ):  # before that, no peer may hold a head of it: numbers are skipped
        assert result.extra["after"] < result.extra["before"] + 20


def test_kill_in_the_middle_of_a_round_delays_nobody() -> None:
    scene = Scene(5, Setup(devices=6)).start()
    scene.run_rounds(2, limit_s=30.0)
    victim = scene.devices[2]
    before = durable_seq(victim)
    rounds = {d.index: scene.base_round(d) for d in scene.devices}
    scene.world.crash(victim, restart_s=1.0)
    scene.world.run_for(12.0)
    assert durable_seq(victim) > before
    for device in scene.devices:
        assert scene.base_round(device) >= rounds[device.index] + 3
    scene.world.finish()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_restored_disk_accuses_nobody(seed: int) -> None:
    """The device learns from its peers what it has signed since, and goes on above that."""
    result = restored(seed)
    assert result.extra["old"] < result.extra["newest"] < result.extra["after"]
    assert result.completed >= 0.95


# --- liars --------------------------------------------------------------------------------------

FORKS: list[Callable[[], Adversary]] = [
    Fork,
    lambda: OddEven(withhold=True),
    lambda: OddEven(withhold=False),
]


@pytest.mark.parametrize("devices", [6, 12, 30])
@pytest.mark.parametrize("liar", FORKS, ids=["equal seq", "odd/even withheld", "odd/even served"])
def test_equivocation_is_proven_within_three_rounds(
    liar: Callable[[], Adversary], devices: int
) -> None:
    """Every honest device serves evidence that verifies with the root key alone; one that was
    never shown either chain condemns too."""
    result = equivocation(liar, seed=3, devices=devices)
    assert result.extra["rounds"] <= 3
    assert result.extra["blind_rounds"] <= 3
    assert not result.extra["blind_saw"]


def test_the_foe_liar_of_the_demo_is_quarantined_everywhere() -> None:
    defended, undefended = foe(2), foe(2, rule="mean")
    assert defended.extra["quarantined_by"] == 6
    assert defended.extra["influence"] < 1 / 7  # as it was when the quarantine began
    assert defended.accuracy_worst >= 0.92
    assert undefended.accuracy_worst <= defended.accuracy_worst - 0.1


def test_an_omniscient_liar_gains_little_influence() -> None:
    scene = Scene(4, Setup(devices=8, data="digits", alpha=1.0, attackers=1))
    scene.world.corrupt(scene.devices[7], Foe())
    scene.start()
    scene.run_rounds(15, limit_s=90.0)
    name = scene.name(scene.devices[7])
    shares = [p.influence for d in scene.honest() for p in scene.view(d).peers if p.device == name]
    assert max(shares) < 0.05  # its even share would be 0.125
    assert min(scene.accuracies()) >= 0.85
    scene.world.finish()


def faults_seen(scene: Scene, liar_index: int) -> set[str]:
    name = scene.name(scene.devices[liar_index])
    views = [scene.view(d) for d in scene.honest()]
    return {fault for v in views for p in v.peers if p.device == name for fault in p.faults}


def test_nan_is_never_merged_and_is_its_senders_fault() -> None:
    scene = Scene(6, Setup(devices=6, attackers=1))
    scene.world.corrupt(scene.devices[5], NotANumber())
    scene.start()
    scene.run_rounds(6, limit_s=60.0)
    assert min(scene.accuracies()) >= 0.9
    scene.world.finish()


def test_old_heads_are_no_news() -> None:
    scene = Scene(7, Setup(devices=6, attackers=1))
    scene.world.corrupt(scene.devices[5], StaleReplay())
    scene.start()
    scene.run_rounds(6, limit_s=60.0)
    assert "replayed sequence" in faults_seen(scene, 5)
    scene.world.finish()


def test_flipped_bits_are_refused_and_blamed_on_the_carrier() -> None:
    """Everything that one device serves has one wrong bit: its own heads and updates, and the
    objects of others. `MergesVerified` would see a single one that got through."""
    scene = Scene(8, Setup(devices=6, attackers=1))
    flipper = BitFlipper(8)
    scene.world.corrupt(scene.devices[5], flipper)
    scene.start()
    scene.run_rounds(10, limit_s=90.0)
    assert flipper.flipped > 100
    names = {scene.name(d) for d in scene.honest()}
    for device in scene.honest():
        for peer in scene.view(device).peers:
            if peer.device in names:
                assert not set(peer.faults) & {"bad signature", "wrong digest", "malformed"}
    scene.world.finish()


# --- membership ---------------------------------------------------------------------------------


def test_two_fleets_on_one_network_ignore_each_other() -> None:
    scene = Scene(9, Setup(devices=4))
    other = Fleet(1_009)
    for _ in range(3):
        scene.world.add(other, other.admit(), scene.job, scene.devices[0].trainer)
    scene.start()
    scene.run_rounds(4, limit_s=60.0, who=scene.devices[:4])
    ours = {scene.name(d) for d in scene.devices[:4]}
    for device in scene.devices[:4]:
        assert {p.device for p in scene.view(device).peers} <= ours
    for stranger in scene.devices[4:]:
        assert not {p.device for p in scene.view(stranger).peers} & ours


def test_a_revocation_reaches_all_and_cuts_the_device_off() -> None:
    scene = Scene(10, Setup(devices=6)).start()
    scene.run_rounds(2, limit_s=30.0)
    gone = scene.devices[5]
    data = scene.fleet.revoke(gone.device, "stolen", since=EPOCH + scene.world.now)
    scene.world.deliver(scene.devices[0], RevocationReceived(data))
    took = scene.world.run_until(
        lambda: all(
            d.node is not None and d.node.refused(gone.keys.tls_key) for d in scene.devices[:5]
        ),
        60.0,
    )
    assert took <= 6.0  # a minute at the lan pace
    before = [scene.view(d).round for d in scene.devices[:5]]
    scene.run_rounds(2, limit_s=30.0, who=scene.devices[:5])
    name = scene.name(gone)
    for device, round_ in zip(scene.devices[:5], before, strict=True):
        assert name in scene.view(device).revoked
        assert scene.view(device).round > round_


def test_policy_and_bundle_spread_from_one_device() -> None:
    scene = Scene(11, Setup(devices=7)).start(told=[3])
    scene.run_rounds(3, limit_s=60.0)
    assert {scene.view(d).bundle for d in scene.devices} == {scene.job.bundle.hex()}
    scene.world.finish()


def test_an_asymmetric_link_stops_nobody() -> None:
    scene = Scene(12, Setup(devices=6))
    scene.world.network.block([0], [1, 2])
    scene.start()
    scene.run_rounds(5, limit_s=90.0)
    assert scene.tally.completed >= 0.95
    scene.world.finish()


def test_a_slow_device_holds_up_no_other() -> None:
    scene = Scene(13, Setup(devices=6))
    scene.devices[0].slowness = 2_000.0  # one epoch of its 60 examples takes longer than a round
    scene.start()
    fast = scene.devices[1:]
    took = scene.run_rounds(6, limit_s=60.0, who=fast)
    assert took <= 6 * 3.3 + 5.0
    scene.world.finish()


def test_churn_of_a_third_a_minute() -> None:
    """30 % of the devices leave and come back every minute (lan pace, ten virtual minutes)."""
    options = Options(settings=NodeSettings(pace=PACES["lan"]))
    scene = Scene(14, Setup(devices=12), options).start()
    draw = scene.world.random
    for second in range(30, 600, 17):  # 3.5 a minute

        def leave() -> None:
            scene.world.crash(draw.choice(scene.devices), restart_s=draw.uniform(5.0, 60.0))

        scene.world.schedule(float(second), leave)
    scene.world.run_for(600.0)
    assert scene.tally.completed >= 0.95
    scene.world.run_for(70.0)
    scene.world.finish()


def test_a_fleet_that_only_knows_one_neighbour_each_grows_together() -> None:
    """Routers drop multicast: no mDNS, a ring of static peers, the rest from gossiped records."""
    scene = Scene(15, Setup(devices=6), Options(mdns=False)).start()
    for device in scene.devices:
        scene.world.introduce(device, scene.devices[(device.index + 1) % 6])
    scene.run_rounds(6, limit_s=90.0)
    assert all(len(scene.view(d).peers) == 5 for d in scene.devices)
    scene.world.finish()


def test_a_clogged_uplink_is_no_stall() -> None:
    link = Link(bytes_per_s=8_000.0)
    scene = Scene(16, Setup(devices=6), Options(link=link)).start()
    scene.run_rounds(5, limit_s=120.0)
    assert LOSSY.bytes_per_s > link.bytes_per_s
    scene.world.finish()


# --- policy -------------------------------------------------------------------------------------


def test_a_new_run_starts_over_everywhere_and_mixes_with_nothing_old() -> None:
    scene = Scene(17, Setup(devices=6)).start()
    scene.run_rounds(4, limit_s=60.0)
    second = scene.fleet.policy(
        scene.job, n=6, version=2, run=1, prev=digest(scene.policy), training=scene.setup.training
    )
    scene.world.deliver(scene.devices[2], PolicyReceived(second))

    def on_run(device: SimDevice) -> int:
        policy = scene.view(device).policy
        return int(str(policy["run"])) if policy else -1

    scene.world.run_until(lambda: all(on_run(d) == 1 for d in scene.devices), 30.0)
    assert all(scene.base_round(d) <= 2 for d in scene.devices)
    scene.run_rounds(4, limit_s=60.0)
    assert min(scene.accuracies()) >= 0.9
    scene.world.finish()  # MergesVerified: equal lineages only


def test_the_policy_of_a_revoked_operator_falls_back_to_the_one_before() -> None:
    scene = Scene(18, Setup(devices=5)).start()
    scene.run_rounds(2, limit_s=30.0)
    thief = scene.fleet.admit(Role.OPERATOR)
    stolen = scene.fleet.policy(
        scene.job, n=5, version=2, rule="mean", prev=digest(scene.policy), signed_by=thief
    )
    scene.world.deliver(scene.devices[1], PolicyReceived(stolen))

    def rules() -> set[object]:
        return {(scene.view(d).policy or {}).get("rule") for d in scene.devices}

    scene.world.run_until(lambda: rules() == {"mean"}, 30.0)
    gone = scene.fleet.revoke(thief.device, "its key was stolen", since=EPOCH + scene.world.now)
    scene.world.deliver(scene.devices[4], RevocationReceived(gone))
    scene.world.run_until(lambda: rules() == {"nna"}, 30.0)
    scene.run_rounds(2, limit_s=30.0)
    scene.world.finish()


def test_a_policy_that_no_operator_signed_changes_nothing() -> None:
    scene = Scene(19, Setup(devices=4)).start()
    scene.run_rounds(1, limit_s=30.0)
    forged = scene.fleet.policy(
        scene.job, n=4, version=9, rule="mean", signed_by=scene.devices[3].keys
    )
    scene.world.deliver(scene.devices[0], PolicyReceived(forged))
    scene.run_rounds(2, limit_s=30.0)
    assert {(scene.view(d).policy or {}).get("rule") for d in scene.devices} == {"nna"}
    assert scene.notices("the policy is refused")
