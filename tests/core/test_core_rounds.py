"""The round as a table: every step in every phase, quorum, grace, deadline, staleness."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.config import PACES
from gossipfl.errors import LocalError
from gossipfl.rounds import INBOX_MAX, TABLE, Phase, Received, Rounds, Step

PACE = PACES["lan"]
A, B, C, D = (bytes([n]) * 16 for n in range(4))


def received(device: bytes, seen_at: float = 0.0, merged_in: int = 0) -> Received:
    name = device + b"update".ljust(16)
    return Received(device, 1, b"h" * 32, name, np.zeros(2, np.float32), seen_at, merged_in)


def collecting(*sampled: bytes, now: float = 0.0) -> Rounds:
    rounds = Rounds(PACE)
    rounds.begin(Step.BEGIN_TRAIN, now, 0.0)
    rounds.step(Step.TRAINED)
    rounds.step(Step.PUBLISHED)
    rounds.collect(list(sampled), now)
    return rounds


# --- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", list(Step))
@pytest.mark.parametrize("phase", list(Phase))
def test_every_pair_is_a_row_or_our_own_bug(phase: Phase, step: Step) -> None:
    rounds = Rounds(PACE)
    rounds.phase = phase
    if (phase, step) in TABLE:
        rounds.step(step)
        assert rounds.phase is TABLE[phase, step]
    else:
        with pytest.raises(LocalError, match=step.value):
            rounds.step(step)
        assert rounds.phase is phase


def test_the_table_has_no_more_rows_than_these() -> None:
    assert {pair: to for pair, to in TABLE.items() if pair[1] is not Step.DONE} == {
        (Phase.IDLE, Step.BEGIN_JOIN): Phase.JOINING,
        (Phase.IDLE, Step.BEGIN_TRAIN): Phase.TRAINING,
        (Phase.IDLE, Step.LISTEN): Phase.COLLECTING,
        (Phase.IDLE, Step.WAIT): Phase.SUMMING,
        (Phase.TRAINING, Step.TRAINED): Phase.PUBLISHING,
        (Phase.TRAINING, Step.HIDDEN): Phase.SUMMING,
        (Phase.SUMMING, Step.AGAIN): Phase.TRAINING,
        (Phase.SUMMING, Step.SUMMED): Phase.PUBLISHING,
        (Phase.SUMMING, Step.NO_SUM): Phase.COLLECTING,
        (Phase.PUBLISHING, Step.PUBLISHED): Phase.COLLECTING,
        (Phase.JOINING, Step.COLLECTED): Phase.MERGING,
        (Phase.COLLECTING, Step.COLLECTED): Phase.MERGING,
    }
    assert {phase for phase, step in TABLE if step is Step.DONE} == set(Phase)


def test_every_phase_is_reached_and_left() -> None:
    assert {*TABLE.values()} == set(Phase)
    assert {phase for phase, _ in TABLE} == set(Phase)


# --- quorum --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sample", "quorum"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 2), (5, 3), (8, 4), (13, 7)]
)
def test_a_quorum_is_half_and_at_least_two(sample: int, quorum: int) -> None:
    assert Rounds.quorum(sample) == quorum


def test_a_round_ends_when_everybody_has_answered() -> None:
    rounds = collecting(A, B, C)
    rounds.take(received(A), 1.0)
    rounds.take(received(B), 1.0)
    assert not rounds.is_collected(1.0)
    rounds.settle(C, 1.0)
    assert rounds.is_collected(1.0)
    assert [entry.device for entry in rounds.gathered(1.0)] == [A, B]


def test_after_a_quorum_the_slow_ones_have_a_grace() -> None:
    rounds = collecting(A, B, C, D)
    rounds.take(received(A), 1.0)
    assert rounds.grace_at == math.inf
    rounds.take(received(B), 2.0)
    assert rounds.grace_at == 2.0 + PACE.grace_s
    assert not rounds.is_collected(2.0)
    rounds.take(received(C), 3.0)
    assert rounds.wake_at() == 2.0 + PACE.grace_s, "a third one does not prolong it"
    assert rounds.is_collected(2.0 + PACE.grace_s)


def test_failures_are_no_quorum() -> None:
    rounds = collecting(A, B, C, D)
    for device in (A, B, C):
        rounds.settle(device, 1.0)
    assert rounds.grace_at == math.inf


def test_a_round_ends_at_its_deadline_whatever_happens() -> None:
    rounds = collecting(A, B, C)
    assert rounds.wake_at() == PACE.round_deadline_s
    assert not rounds.is_collected(PACE.round_deadline_s - 0.01)
    assert rounds.is_collected(PACE.round_deadline_s)


def test_long_training_leaves_time_to_listen() -> None:
    rounds = Rounds(PACE)
    rounds.begin(Step.BEGIN_TRAIN, 0.0, 0.0)
    rounds.step(Step.TRAINED)
    rounds.step(Step.PUBLISHED)
    late = 3 * PACE.round_deadline_s
    rounds.collect([A, B], late)
    assert rounds.deadline == late + PACE.round_deadline_s / 2


def test_a_sample_of_nobody_is_done_at_once() -> None:
    assert collecting().is_collected(0.0)


# --- what is merged ------------------------------------------------------------------------------


def test_a_stale_update_is_not_merged() -> None:
    rounds = collecting(A, B)
    rounds.take(received(A, seen_at=0.0), 0.0)
    rounds.take(received(B, seen_at=10.0), 10.0)
    late = PACE.stale_s + 5.0
    assert [entry.device for entry in rounds.gathered(late)] == [B]


def test_an_update_that_was_merged_before_is_no_news() -> None:
    """It still counts as its peer's newest, once per round, but the round waits for a new one."""
    rounds = collecting(A, B)
    for device in (A, B):
        rounds.take(received(device), 0.0)
    rounds.merged(rounds.gathered(0.0))
    rounds.step(Step.COLLECTED)
    rounds.end()
    rounds.begin(Step.LISTEN, 1.0, 0.0)
    rounds.collect([A, B], 1.0)
    assert rounds.open == {A, B}
    assert rounds.fresh() == 0
    assert [entry.device for entry in rounds.gathered(1.0)] == [A, B]


def test_one_update_per_peer() -> None:
    rounds = collecting(A, B)
    rounds.take(received(A), 0.0)
    newer = replace(received(A), update=b"n" * 32)
    rounds.take(newer, 1.0)
    assert rounds.gathered(1.0) == [newer]


def test_nobody_outside_the_sample_is_merged() -> None:
    rounds = collecting(A)
    rounds.take(received(A), 0.0)
    rounds.take(received(B), 0.0)
    assert [entry.device for entry in rounds.gathered(0.0)] == [A]


def test_the_inbox_is_bounded_and_keeps_the_sampled() -> None:
    rounds = collecting(A)
    rounds.take(received(A), 0.0)
    for n in range(3 * INBOX_MAX):
        rounds.take(received(n.to_bytes(16, "big"), seen_at=1.0), 1.0)
    assert len(rounds.inbox) == INBOX_MAX
    assert A in rounds.inbox


def test_another_lineage_empties_everything() -> None:
    rounds = collecting(A, B)
    rounds.take(received(A), 0.0)
    job = rounds.job
    rounds.reset()
    assert rounds.phase is Phase.IDLE
    assert not rounds.inbox
    assert rounds.gathered(0.0) == []
    assert rounds.job > job, "an answer to the old job is recognised"


# --- pace ----------------------------------------------------------------------------------------


@given(st.floats(-1.0, 1.0), st.floats(0.0, 1e6))
def test_jitter_keeps_the_interval(jitter: float, now: float) -> None:
    rounds = Rounds(PACE)
    rounds.begin(Step.BEGIN_TRAIN, now, jitter)
    share = (rounds.next_at - now) / PACE.round_interval_s
    assert 1 - PACE.round_jitter - 1e-6 <= share <= 1 + PACE.round_jitter + 1e-6


@given(st.lists(st.floats(-1e4, 1e4), max_size=9), st.floats(0.0, 1e4))
def test_nobody_drags_the_rhythm_far(seen: list[float], now: float) -> None:
    rounds = collecting(A, now=now)
    before = rounds.next_at
    rounds.align([received(bytes([n]) * 16, at) for n, at in enumerate(seen)])
    assert abs(rounds.next_at - before) <= PACE.round_interval_s / 4 + 1e-9


def test_a_minority_does_not_move_the_rhythm() -> None:
    rounds = collecting(A, now=100.0)
    before = rounds.next_at
    offsets = [0.0, 0.0, 0.0, 14.0, 14.0]
    rounds.align([received(bytes([n]) * 16, 100.0 + o) for n, o in enumerate(offsets)])
    assert rounds.next_at == before


def test_an_idle_machine_wakes_for_the_next_round_and_a_working_one_for_nothing() -> None:
    rounds = Rounds(PACE)
    assert rounds.wake_at() == math.inf
    rounds.begin(Step.BEGIN_TRAIN, 0.0, 0.0)
    assert rounds.wake_at() == math.inf, "training ends by an event"
    rounds.end()
    assert rounds.wake_at() == rounds.next_at
