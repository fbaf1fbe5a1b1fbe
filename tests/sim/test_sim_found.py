"""Bugs that the simulator found, each with the smallest case that shows it again."""

# ruff: noqa: T201

from __future__ import annotations

import pytest

from gossipfl.config import PACES, Limits, NodeSettings
from gossipfl.errors import Fault
from gossipfl.events import Address, Batch, Source
from gossipfl.fleettime import FleetClock
from gossipfl.peers import BREAKER_FAILURES, PeerBook
from gossipfl.publisher import SAVE_S
from gossipfl.reputation import Reputation
from gossipfl.restorer import RESTORE_SKIP
from sim.checkers import Checker
from sim.device import SimDevice
from sim.fleet import EPOCH
from sim.histories import durable_seq
from sim.options import Options
from sim.scene import Scene, Setup

YEAR_S = 31_557_600.0


def test_a_bad_network_puts_nobody_into_quarantine() -> None:
    """20 % loss at the lan pace: each stall cost 0.02, and all honest peers fell out of favour."""
    reputation = Reputation(round_s=30.0)
    for second in range(500):
        for fault in (Fault.STALLED, Fault.UNREACHABLE, Fault.REFUSED):
            assert reputation.fault(b"p" * 16, fault, float(second)) is None
    assert reputation.weight(b"p" * 16, 500.0) == 1.0


def test_one_lost_request_is_no_reason_to_leave_a_peer_alone() -> None:
    """20 % loss: the breaker opened at the first failure, and rounds found one peer in seven."""
    book = PeerBook(PACES["lan"], Limits())
    address, device = Address("10.0.0.1", 1), b"p" * 16
    book.see(address, Source.MDNS, 0.0)
    book.bind(address, device, 0.0)
    for _ in range(BREAKER_FAILURES - 1):
        book.unreached(address, 1.0)
        assert book.is_live(device, 1.0)
    book.unreached(address, 1.0)
    assert not book.is_live(device, 1.0)
    book.reached(device, 2.0)
    assert book.is_live(device, 2.0)


def test_a_board_that_boots_ten_years_ahead_finds_back() -> None:
    """Its own wall clock made every peer look expired, for ever, and raised the durable floor."""
    clock = FleetClock()
    clock.raise_floor(int(EPOCH))
    clock.hear_wall(EPOCH + 10 * YEAR_S, now=0.0)
    assert clock.time(1.0) > EPOCH + 9 * YEAR_S
    for peer in range(3):
        for seq in (1, 2):
            clock.hear_issued(bytes([peer]) * 16, seq, int(EPOCH) + 5, now=1.0)
    clock.hear_wall(EPOCH + 10 * YEAR_S, now=2.0)
    assert abs(clock.time(2.0) - EPOCH) < 60
    assert clock.floor < EPOCH + 60


def test_voices_just_below_the_floor_end_a_wrong_belief_too() -> None:
    """Skews differ by minutes: the fleet's median may lie under our own durable floor."""
    clock = FleetClock()
    clock.raise_floor(int(EPOCH) + 300)
    clock.hear_wall(EPOCH + 10 * YEAR_S, now=0.0)
    for peer in range(3):
        for seq in (1, 2):
            clock.hear_issued(bytes([peer]) * 16, seq, int(EPOCH) + 200, now=1.0)
    clock.hear_wall(EPOCH + 10 * YEAR_S, now=2.0)
    assert EPOCH + 300 <= clock.time(3.0) < EPOCH + 310


def test_one_voice_cannot_move_the_durable_floor() -> None:
    clock = FleetClock()
    clock.raise_floor(int(EPOCH))
    for seq in (1, 2):
        clock.hear_issued(b"l" * 16, seq, int(EPOCH + YEAR_S), now=0.0)
    clock.hear_wall(EPOCH + 3.0, now=0.0)
    clock.time(1.0)
    assert clock.floor < EPOCH + 60


@pytest.mark.parametrize("off_s", [-300.0, -3_600.0, 3_600.0, 10 * YEAR_S, -50 * YEAR_S])
def test_a_wrong_wall_clock_stalls_nobody(off_s: float) -> None:
    """Over a reboot and a jump while it runs: rounds go on within two intervals. -50 years is a
    board that boots in 1970 or thereabouts."""
    interval = PACES["demo"].round_interval_s
    scene = Scene(3, Setup(devices=5)).start()
    device = scene.devices[0]
    scene.run_rounds(2, limit_s=30.0)
    device.clock.wall_offset_s = off_s
    jumped = scene.run_rounds(2, limit_s=4 * 3.3, who=[device])
    scene.world.crash(device, 1.0, reboot=True)
    scene.world.run_for(2.0)
    booted = scene.run_rounds(2, limit_s=4 * 3.3, who=[device])
    scene.world.finish()
    print(
        f"\nclock off by {off_s:.0f} s: two rounds in {jumped / interval:.2f} intervals after the "
        f"jump, in {booted / interval:.2f} after a reboot"
    )
    assert jumped <= 4 * interval  # two rounds, each at most an interval late
    assert booted <= 4 * interval


def test_a_large_fleet_samples_for_the_peers_that_are_live() -> None:
    """s came from the policy's n, f from the live: while some were missing, no pull was enough."""
    scene = Scene(1, Setup(devices=60, attackers=12)).start()
    scene.run_rounds(2, limit_s=60.0)
    assert scene.tally.completed == 1.0


def test_a_quick_restart_leaves_no_number_out_and_a_long_sleep_does() -> None:
    scene = Scene(5, Setup(devices=5)).start()
    scene.run_rounds(2, limit_s=30.0)
    device = scene.devices[0]
    before = durable_seq(device)
    scene.world.crash(device, 1.0)
    scene.world.run_for(8.0)
    after = durable_seq(device)
    assert before < after < before + 10
    scene.world.crash(device, 60.0)
    scene.world.run_for(70.0)
    assert durable_seq(device) > after + RESTORE_SKIP
    scene.world.finish()


def test_peers_beyond_the_head_requests_at_once_are_asked_when_one_is_free() -> None:
    """100 devices with a third of liars: of 66 sampled peers two were never asked, and the rule
    needed all of them: 16 of 100 rounds were lost, always the same devices' among them."""
    few = NodeSettings(pace=PACES["demo"], limits=Limits(heads_out=3))
    scene = Scene(3, Setup(devices=8, attackers=3), Options(settings=few)).start()
    scene.run_rounds(6, limit_s=60.0)
    scene.world.finish()
    assert scene.tally.completed == 1.0


def test_what_changes_at_each_pull_is_written_every_ten_seconds() -> None:
    """In a large fleet the heads of all peers were most of what each round wrote."""

    class Written(Checker):
        heads = 0
        with_heads = 0

        def on_commit(self, device: SimDevice, batch: Batch, done: bool) -> None:
            if device.index == 0:
                self.heads += batch.head is not None
                self.with_heads += "heads" in batch.documents

    written = Written()
    scene = Scene(3, Setup(devices=4), checkers=[written]).start()
    scene.run_rounds(12, limit_s=60.0)
    passed = scene.world.now
    assert written.heads >= 12
    assert passed / 20.0 <= written.with_heads <= passed / SAVE_S + 2
