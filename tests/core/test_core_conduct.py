"""How conduct is judged: staleness, copies, lateness, silence; and what is no ground for a word."""

from __future__ import annotations

import pytest

from gossipfl.anomaly import Cause
from gossipfl.conduct import (
    COPY_CHANCE,
    COPY_STRIKES,
    DIGESTS_MAX,
    LATE_STRIKES,
    ORIGINS_MAX,
    STALE_CHANCE,
    STALLS_MIN,
    WINDOW,
    WITNESSES_MAX,
    Conduct,
)

P, Q, R = b"p" * 16, b"q" * 16, b"r" * 16
ROUND_S, STALE_S = 30.0, 150.0


def conduct() -> Conduct:
    return Conduct(ROUND_S, STALE_S)


def cause(held: Conduct, now: float = 0.0, *, live: bool = True, age: float | None = 10.0) -> Cause:
    found = held.judge(P, now, live=live, update_age_s=age)
    return found.cause if found is not None else None  # type: ignore[return-value]


def test_a_stranger_is_suspected_of_nothing() -> None:
    assert conduct().judge(P, 0.0, live=True, update_age_s=9_999.0) is None


@pytest.mark.parametrize(
    ("age", "live", "expected"),
    [
        (STALE_S - 1.0, True, None),
        (STALE_S + 1.0, True, Cause.STALE),
        (STALE_S + 1.0, False, None),  # it is away: nothing new is expected
        (None, True, None),  # it does not train: a hub, or only listening
    ],
)
def test_stale(age: float | None, live: bool, expected: Cause | None) -> None:
    held = conduct()
    held.answered(P, 0.0)
    assert cause(held, 1.0, live=live, age=age) is expected


def test_stale_says_for_how_long_and_leaves_a_chance() -> None:
    held = conduct()
    held.answered(P, 0.0)
    found = held.judge(P, 1.0, live=True, update_age_s=400.0)
    assert found is not None
    assert "400 s" in found.words
    assert found.chance == STALE_CHANCE > 0.0


def test_an_old_update_that_comes_again_is_still_old() -> None:
    held = conduct()
    assert held.first_seen(P, b"1" * 32, 10.0) == 10.0
    assert held.first_seen(P, b"2" * 32, 40.0) == 40.0
    assert held.first_seen(P, b"1" * 32, 70.0) == 10.0
    assert held.first_seen(Q, b"1" * 32, 80.0) == 80.0, "each peer for itself"


def test_memory_of_updates_is_bounded() -> None:
    held = conduct()
    for n in range(ORIGINS_MAX + 100):
        held.first_seen(P, n.to_bytes(32, "big"), float(n))
    assert len(held.of(P).digests) == DIGESTS_MAX
    assert held.origin((0).to_bytes(32, "big")) is None
    assert held.origin((ORIGINS_MAX).to_bytes(32, "big")) == P


def test_copies() -> None:
    held = conduct()
    held.first_seen(Q, b"u" * 32, 0.0)
    held.first_seen(P, b"u" * 32, 5.0)
    assert held.origin(b"u" * 32) == Q, "who had it first"
    for n in range(COPY_STRIKES):
        assert cause(held) is None, n
        held.copied(P, Q)
    found = held.judge(P, 0.0, live=True, update_age_s=1.0)
    assert found is not None
    assert (found.cause, found.chance) == (Cause.COPIES, COPY_CHANCE)
    for _ in range(WINDOW - COPY_STRIKES + 1):
        held.copied(P, None)
    assert cause(held) is None, "its own again"


def test_slow_is_said_and_costs_nothing() -> None:
    held = conduct()
    for n in range(LATE_STRIKES):
        assert cause(held) is None, n
        held.round_over(P, None)
    found = held.judge(P, 0.0, live=True, update_age_s=1.0)
    assert found is not None
    assert (found.cause, found.chance) == (Cause.SLOW, 1.0)
    for _ in range(2):
        held.round_over(P, 3.0)
    assert cause(held) is None
    assert held.of(P).latency_s == pytest.approx(3.0)


def test_silent_after_stalls_in_a_row() -> None:
    held = conduct()
    held.answered(P, 0.0)
    for _ in range(STALLS_MIN):
        assert cause(held, 100.0, live=False) is None
        held.failed(P, stalled=True)
    assert cause(held, 80.0, live=False) is None, "not for long enough yet"
    assert cause(held, 100.0, live=False) is Cause.SILENT
    held.answered(P, 101.0)
    assert cause(held, 999.0, live=False) is None, "it answered"


def test_nobody_there_is_not_silence() -> None:
    """A device that sleeps or is down refuses connections; so does a dead network."""
    held = conduct()
    held.answered(P, 0.0)
    for _ in range(50):
        held.failed(P, stalled=True)
        held.failed(P, stalled=False)
    assert cause(held, 5_000.0, live=False) is None
    assert held.of(P).available < 0.01


@pytest.mark.parametrize(
    ("witnesses", "at", "expected"),
    [
        ([(Q, 7)], 100.0, None),  # one may lie
        ([(Q, 7), (R, 8)], 100.0, Cause.SILENT),
        ([(Q, 7), (R, 8)], 20.0, None),  # perhaps it answers yet
        ([(Q, 7), (R, 3)], 100.0, None),  # what is older than we heard is no news
        ([(Q, 7), (Q, 8)], 100.0, None),
    ],
)
def test_silent_to_us_alone(
    witnesses: list[tuple[bytes, int]], at: float, expected: Cause | None
) -> None:
    """Others merge its updates, we never get an answer."""
    held = conduct()
    for by, seq in witnesses:
        held.mentioned(P, seq, by, 0.0)
    assert cause(held, at, live=False, age=None) is expected


def test_witnesses_are_bounded_and_age() -> None:
    held = conduct()
    for n in range(200):
        held.mentioned(P, n, n.to_bytes(16, "big"), 0.0)
    assert len(held.of(P).witnesses) == WITNESSES_MAX
    assert cause(held, 100.0, live=False) is Cause.SILENT
    assert cause(held, 1_000.0, live=False) is None, "that was long ago"


def test_availability_is_a_decayed_share() -> None:
    held = conduct()
    for _ in range(100):
        held.answered(P, 0.0)
        held.failed(P, stalled=True)
    assert held.of(P).available == pytest.approx(0.47, abs=0.02)
