"""What is measured of a pull, and who stands out in it: tables, and spreads that must not count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.aggregation.collapse import RECEIVED_MIN
from gossipfl.anomaly import (
    AGAINST,
    BACKWARD,
    FAR_RATIO,
    FAR_WAY,
    OF_FAULT,
    Cause,
    Traits,
    apart,
    backward,
    measure,
    named,
    opposed,
)
from gossipfl.config import Limits
from gossipfl.errors import Fault
from gossipfl.parameters import Vector


def rows(seed: int, count: int, size: int = 400, scale: float = 1.0) -> list[Vector]:
    generator = np.random.default_rng(seed)
    return [generator.normal(0.0, scale, size).astype(np.float32) for _ in range(count)]


# --- measuring -----------------------------------------------------------------------------------


def test_traits_are_the_norms_distances_and_cosines_of_the_textbook() -> None:
    own, before, *received = rows(1, 9, 70_000)
    merge = np.mean([own, *received], axis=0, dtype=np.float64).astype(np.float32)
    influence = [1 / 8] * 7
    step = merge.astype(np.float64) - before
    for row, found in zip(received, measure(own, before, merge, received, influence), strict=True):
        x = row.astype(np.float64)
        u = x - before
        assert found.distance == pytest.approx(np.linalg.norm(x - merge), rel=1e-5)
        assert found.step == pytest.approx(np.linalg.norm(u), rel=1e-5)
        assert found.norm == pytest.approx(np.linalg.norm(x), rel=1e-5)
        assert found.towards == pytest.approx(u @ step / math.sqrt(u @ u * (step @ step)), abs=1e-5)
        assert found.alike == pytest.approx(
            x @ merge / (np.linalg.norm(x) * np.linalg.norm(merge)), abs=1e-5
        )
        assert found.share == pytest.approx((u @ step) / (step @ step) / 8, abs=1e-5)


def test_the_shares_of_all_devices_make_one() -> None:
    """Of a mean: what the own model did not contribute, the received ones did."""
    own, before, *received = rows(2, 8)
    merge = np.mean([own, *received], axis=0).astype(np.float32)
    everybody = measure(own, before, merge, [own, *received], [1 / 7] * 7)
    assert sum(t.share for t in everybody) == pytest.approx(1.0, abs=1e-4)


def test_a_share_is_what_is_missing_when_the_vote_stays_at_the_base() -> None:
    own, before, *received = rows(3, 6)
    merge = np.mean([own, *received], axis=0).astype(np.float32)
    without = np.mean([own, before, *received[1:]], axis=0)
    step = merge - before
    missing = 1.0 - (without - before) @ step / (step @ step)
    assert measure(own, before, merge, received, [1 / 5] * 4)[0].share == pytest.approx(
        missing, abs=1e-4
    )


def test_nothing_moved_gives_no_nonsense() -> None:
    still = np.ones(10, np.float32)
    [found] = measure(still, still, still, [still.copy()], [0.5])
    assert found == Traits(0.0, 0.0, found.norm, 0.0, pytest.approx(1.0), 0.0, None, None)


def test_the_largest_norm_that_is_let_in_spoils_no_other() -> None:
    own, before, *received = rows(4, 14, 50)
    clean = measure(own, before, own, received, [0.0] * 12)
    received[3] = np.full(50, Limits().norm_max / math.sqrt(50), np.float32)
    found = measure(own, before, own, received, [0.0] * 12)
    assert apart([t.distance for t in found], 3) == {3}
    for i in {*range(12)} - {3}:
        assert found[i].distance == pytest.approx(clean[i].distance, rel=1e-5)
        assert found[i].crowd == 0


# --- near copies ---------------------------------------------------------------------------------


def crowds(copies: int, noise: float, honest: int = 14, seed: int = 5) -> list[Traits]:
    """`copies` colluders who send the honest mean plus `noise` standard deviations, after the
    honest ones."""
    before, own, *received = rows(seed, honest + 2)
    mean = np.mean(received, axis=0)
    lies = [(mean + noise * row).astype(np.float32) for row in rows(seed + 1, copies)]
    return list(measure(own, before, mean.astype(np.float32), [*received, *lies], [0.0] * 99))


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_three_who_say_the_same_are_a_crowd(noise: float) -> None:
    found = crowds(4, noise)
    assert [t.crowd for t in found[14:]] == [3] * 4
    assert [t.crowd for t in found[:14]] == [0] * 14


def test_who_carries_noise_of_honest_size_is_no_crowd() -> None:
    assert {t.crowd for t in crowds(4, 1.0)} == {0}


def test_a_third_of_colluders_do_not_move_the_scale() -> None:
    found = crowds(7, 0.1, honest=14)
    assert min(t.crowd or 0 for t in found[14:]) == 6
    assert max(t.crowd or 0 for t in found[:14]) == 0


def test_far_ones_do_not_make_copies_of_honest_ones() -> None:
    before, own, *received = rows(7, 16)
    far = rows(8, 6, scale=50.0)
    merge = np.mean(received, axis=0).astype(np.float32)
    found = measure(own, before, merge, [*received, *far], [0.0] * 20)
    assert {t.crowd for t in found[:14]} == {0}


def test_a_small_pull_says_nothing_of_copies() -> None:
    before, own, *received = rows(9, RECEIVED_MIN + 1)
    received[1:4] = [received[0].copy() for _ in range(3)]
    found = measure(own, before, own, received, [0.0] * len(received))
    assert {(t.crowd, t.twin) for t in found} == {(None, None)}


def test_devices_that_did_not_train_are_no_copies() -> None:
    """All still hold the base: that is no collusion."""
    before, own, *received = rows(10, 16)
    received[:5] = [before.copy() for _ in range(5)]
    found = measure(own, before, own, received, [0.0] * 14)
    assert {t.crowd for t in found} == {0}


def test_a_twin_is_named() -> None:
    before, own, *received = rows(11, 16)
    received[9] = received[2] + np.float32(0.01)
    found = measure(own, before, own, received, [0.0] * 14)
    assert (found[9].twin, found[2].twin) == (2, 9)
    assert all(t.twin is None for i, t in enumerate(found) if i not in (2, 9))


# --- who stands apart ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distances", "most", "out"),
    [
        ([1, 1, 1.1, 1.2, 9], 1, {4}),  # one liar in a tight fleet
        ([9, 1, 1, 10, 1.1, 1.2, 1], 2, {0, 3}),  # two
        ([9, 1, 1, 10, 1.1, 1.2, 1], 1, set()),  # more than may lie: nobody is named
        ([1, 1, 1.1, 1.2, 2.9], 1, set()),  # below three times the median
        ([1, 1.5, 2, 3, 4.2], 1, set()),  # a skewed fleet: no gap
        ([1, 1, 1, 2.5, 3.2], 1, set()),  # its farthest spread as wide as this gap
        ([1, 1, 1, 4, 30], 1, {4}),  # beyond what the spread explains
        ([1, 1, 1, 4, 5, 60, 70], 2, {5, 6}),
        ([1, 1, 9], 1, set()),  # three say nothing of a median
        ([0, 0, 0, 0, 1], 1, set()),  # nobody has moved
        ([1, 1, 1, 1, 9], 0, set()),  # nobody is assumed to lie
        ([1, 1, 9, 9, 9], 4, set()),  # never the majority
    ],
)
def test_who_is_apart(distances: list[float], most: int, out: set[int]) -> None:
    assert apart(distances, most) == out


@pytest.mark.parametrize(
    ("distances", "way", "out"),
    [
        ([1, 1, 1.1, 1.2, 9], 9 / FAR_WAY, {4}),
        ([1, 1, 1.1, 1.2, 9], 9.1 / FAR_WAY, set()),  # far for the others, near for the way come
        ([1, 1, 1.1, 1.2, 2.9], 0.1, set()),  # at the start: by the spread alone
        ([1, 1, 1.1, 6, 40], 40 / FAR_WAY, {4}),  # the near one of two stays
        ([0.01, 0.01, 0.02, 0.01, 5], 1e6, set()),
    ],
)
def test_nobody_is_apart_who_is_near_for_the_way_that_all_have_come(
    distances: list[float], way: float, out: set[int]
) -> None:
    assert apart(distances, 2, way) == out


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=4, max_size=40),
    st.integers(0, 40),
    st.just(0.0) | st.floats(0.0, 1e6),
)
def test_the_nearest_half_and_the_ordinary_are_never_apart(
    distances: list[float], most: int, way: float
) -> None:
    out = apart(distances, most, way)
    assert len(out) <= most
    middle = sorted(distances)[(len(distances) - 1) // 2]
    for i in out:
        assert distances[i] >= max(FAR_RATIO * middle, FAR_WAY * way)
        assert all(d <= distances[i] or j in out for j, d in enumerate(distances))


@given(st.integers(0, 10_000), st.integers(6, 40))
def test_devices_of_one_kind_are_never_apart(seed: int, count: int) -> None:
    """Distances that vary by a sixth around their median, as on data dealt at random."""
    draw = np.random.default_rng(seed)
    assert apart(list(np.exp(draw.normal(0.0, 0.15, count))), count // 3) == set()


@pytest.mark.parametrize(
    ("cosines", "most", "out"),
    [
        ([0.9, 0.9, 0.8, 0.9, -0.9], 1, {4}),
        ([0.9, 0.9, 0.8, 0.9, AGAINST + 0.01], 1, set()),  # astray, not against
        ([0.9, 0.9, -0.8, 0.9, -0.9], 1, set()),  # more than may lie
        ([0.3, 0.4, 0.2, 0.4, -0.9], 1, set()),  # no common direction yet
        ([0.9, 0.9, -0.9], 1, set()),
    ],
)
def test_who_is_opposed(cosines: list[float], most: int, out: set[int]) -> None:
    assert opposed(cosines, most) == out


@pytest.mark.parametrize(
    ("cosines", "most", "out"),
    [
        ([0.5, 0.6, 0.4, 0.5, 0.5, -0.6], 1, {5}),  # an inner product liar in a like fleet
        ([0.5, 0.6, -0.6, 0.4, 0.5, 0.5, -0.5, 0.6], 2, {2, 6}),
        ([0.5, 0.6, -0.6, 0.4, 0.5, 0.5, -0.5, 0.6], 1, set()),  # more than may lie
        ([0.5, 0.6, 0.4, 0.5, 0.5, 0.0], 1, set()),  # beside the way, not against it
        ([0.7, 0.5, 0.2, 0.1, -0.2, -0.4], 2, set()),  # a skewed fleet: that is its spread
        ([0.7, 0.5, 0.3, 0.2, 0.0, -0.9], 2, {5}),  # beyond what its spread explains
        ([0.5, 0.6, 0.4, 0.5, -0.6], 1, set()),  # too few to know the spread
    ],
)
def test_who_goes_backward(cosines: list[float], most: int, out: set[int]) -> None:
    assert backward(cosines, most) == out


@given(st.integers(0, 10_000), st.integers(6, 40), st.floats(0.1, 0.5), st.floats(0.0, 0.6))
def test_who_goes_backward_is_lower_than_all_who_do_not(
    seed: int, count: int, spread: float, middle: float
) -> None:
    draw = np.random.default_rng(seed)
    cosines = list(np.clip(draw.normal(middle, spread, count), -1.0, 1.0))
    out = backward(cosines, count // 3)
    assert len(out) <= count // 3
    assert all(cosines[i] < min(c for j, c in enumerate(cosines) if j not in out) for i in out)
    assert all(cosines[i] <= BACKWARD for i in out)


# Each row is what one attack looked like in simulated fleets of 20 (digits, Dirichlet 1).
@pytest.mark.parametrize(
    ("towards", "alike", "norm", "cause"),
    [
        (-0.6, 0.95, 1.0, Cause.DIRECTION),  # inner product
        (-0.1, -1.0, 1.0, Cause.DIRECTION),  # sign flip
        (0.0, 0.6, 1.6, Cause.NORM),  # Gaussian noise
        (0.8, 0.99, 12.0, Cause.NORM),  # a scaled model
        (0.1, 0.9, 1.1, Cause.FAR),
    ],
)
def test_what_an_outlier_is_called(towards: float, alike: float, norm: float, cause: Cause) -> None:
    assert named(Traits(9.0, 9.0, norm, towards, alike, 0.0), largest_norm=1.0) is cause


def test_every_fault_points_to_something_or_is_the_links() -> None:
    assert set(OF_FAULT) == set(Fault)
