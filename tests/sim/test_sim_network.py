"""The network model: delay, loss, duplicates, rate, partitions."""

from __future__ import annotations

import pytest

from sim.network import Link, Network


def test_delay_is_latency_jitter_and_transfer_time() -> None:
    network = Network(1, Link(latency_s=0.1, jitter_s=0.05, bytes_per_s=1_000.0))
    (delay,) = network.transit(0, 1, 500, now=10.0)
    assert 0.6 <= delay <= 0.65
    assert network.counter(0).bytes_sent == 500
    assert network.counter(1).bytes_received == 500


def test_transfers_of_one_sender_queue_behind_each_other() -> None:
    network = Network(1, Link(latency_s=0.0, jitter_s=0.0, bytes_per_s=1_000.0))
    first = network.transit(0, 1, 1_000, now=0.0)
    second = network.transit(0, 2, 1_000, now=0.0)
    other = network.transit(3, 2, 1_000, now=0.0)
    assert (first, second, other) == ((1.0,), (2.0,), (1.0,))


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_loss_and_duplication_come_at_their_rate(share: float) -> None:
    network = Network(7, Link(loss=share, duplicate=share))
    copies = [len(network.transit(0, 1, 10, 0.0)) for _ in range(4_000)]
    assert copies.count(0) / 4_000 == pytest.approx(share, abs=0.02)
    assert copies.count(2) / 4_000 == pytest.approx(share * (1 - share), abs=0.02)


def test_reordering_lets_later_messages_pass() -> None:
    network = Network(3, Link(latency_s=0.01, jitter_s=0.0, reorder=0.3, reorder_s=1.0))
    arrivals = [i * 0.001 + network.transit(0, 1, 1, i * 0.001)[0] for i in range(200)]
    assert arrivals != sorted(arrivals)


def test_partitions_may_be_one_way_and_heal() -> None:
    network = Network(1)
    network.block([0], [1])
    assert not network.passes(0, 1)
    assert network.passes(1, 0)
    assert not network.reaches(1, 0)
    assert network.transit(0, 1, 10, 0.0) == ()
    network.partition([0, 1], [2, 3])
    assert not network.passes(2, 1)
    assert network.passes(2, 3)
    network.heal()
    assert network.reaches(0, 1)
    assert network.reaches(1, 2)


def test_a_sleeping_host_hears_and_says_nothing() -> None:
    network = Network(1)
    network.sleep(2)
    assert network.transit(2, 0, 1, 0.0) == ()
    assert network.transit(0, 2, 1, 0.0) == ()
    network.wake(2)
    assert len(network.transit(0, 2, 1, 0.0)) == 1


def test_one_seed_gives_one_history() -> None:
    def draws(seed: int) -> list[tuple[float, ...]]:
        network = Network(seed, Link(loss=0.2, duplicate=0.2, reorder=0.2))
        return [network.transit(0, 1, 100, float(i)) for i in range(50)]

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)
