"""unit=device: the bound on a change is exact, whatever training made of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gossipfl.parameters import Vector
from gossipfl.privacy import DevicePrivacy
from gossipfl.privacy.device_unit import clipped, grid_of, noised, shortened
from gossipfl.privacy.stream import REACH, Stream

HOSTILE = np.array(
    [
        *(0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1.17e-38, 1e-20, 1e-6, 0.5, 2.0),
        *(1e20, -1e20, 3.4028235e38, -3.4028235e38, math.inf, -math.inf, math.nan),
    ],
    np.float32,
)
GRID = grid_of(8)


def key(number: int) -> bytes:
    return number.to_bytes(32, "little")


def square(steps: np.ndarray) -> int:
    return sum(int(k) ** 2 for k in steps)


def test_the_bound_is_exact_for_a_hundred_thousand_hostile_vectors() -> None:
    rng = np.random.default_rng(1)
    stream = Stream(key(1))
    for number in range(100_000):
        clip = float(10.0 ** rng.uniform(-6, 6))
        trained = rng.choice(HOSTILE, 8).astype(np.float32)
        if number % 2:  # without what makes it no change at all
            trained[~np.isfinite(trained)] = 3.4028235e38
        if number % 3 == 0:  # just about the bound
            scaled = rng.standard_normal(8)
            scaled *= clip / np.linalg.norm(scaled) * (1 + rng.uniform(-1e-7, 1e-7))
            trained = scaled.astype(np.float32)
        base = np.zeros(8, np.float32)
        if number % 5 == 0:
            base = rng.choice(HOSTILE[np.isfinite(HOSTILE)], 8)
        steps = clipped(base, trained, clip, GRID, stream)
        assert square(steps) <= GRID**2, (number, clip, trained.tolist())


@settings(max_examples=300)
@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32)),
    st.floats(1e-6, 1e6),
    st.binary(min_size=32, max_size=32),
)
def test_the_bound_is_exact_for_any_vector(trained: Vector, clip: float, seed: bytes) -> None:
    grid = grid_of(len(trained))
    base = np.zeros(len(trained), np.float32)
    assert square(clipped(base, trained, clip, grid, Stream(seed))) <= grid**2


@settings(max_examples=300)
@given(
    hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(-(2**28), 2**28)),
    st.integers(1, 2**24),
)
def test_shortening_goes_toward_zero_and_keeps_the_bound(steps: np.ndarray, most: int) -> None:
    short = shortened(steps, most)
    assert square(short) <= most**2
    assert (np.abs(short) <= np.abs(steps)).all()
    assert (short * steps >= 0).all()
    if square(steps) <= most**2:
        assert (short == steps).all()
    else:  # no more is lost than rounding takes
        assert math.sqrt(square(short)) > most - math.sqrt(len(steps)) - 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_model_that_is_not_finite_goes_out_as_noise_around_the_base(bad: float) -> None:
    """A publication that did not come would tell about the data."""
    base = np.full(1000, 3.0, np.float32)
    trained = base + 1
    trained[500] = bad
    out = noised(DevicePrivacy(clip=1.0, z=1.0), base, trained, key(2)).vector
    same = noised(DevicePrivacy(clip=1.0, z=1.0), base, base, key(2)).vector
    assert np.isfinite(out).all()
    assert (out == same).all()


def test_a_small_change_goes_through_unclipped_and_without_bias() -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal(500).astype(np.float32)
    change = rng.standard_normal(500) * 0.02
    trained = (base + change).astype(np.float32)
    grid = grid_of(500)
    mean = np.mean([clipped(base, trained, 1.0, grid, Stream(key(i))) for i in range(400)], axis=0)
    assert np.abs(mean / grid - (trained.astype(float) - base)).max() < 6 * 0.5 / 20 / grid


def test_a_long_change_keeps_its_direction_and_gets_the_clips_length() -> None:
    trained = np.array([300.0, -400.0] + [0.0] * 98, np.float32)
    steps = clipped(np.zeros(100, np.float32), trained, 2.0, grid_of(100), Stream(key(4)))
    assert steps[:2] / grid_of(100) == pytest.approx([0.6, -0.8], abs=1e-3)
    assert math.sqrt(square(steps)) == pytest.approx(grid_of(100), rel=1e-3)


def test_the_noise_has_the_deviation_that_the_claim_needs() -> None:
    """sigma = 2 z C: two clipped changes can be 2 C apart."""
    mode = DevicePrivacy(clip=0.5, z=3.0)
    base = np.zeros(200_000, np.float32)
    out = noised(mode, base, base, key(5)).vector
    assert mode.sigma == 3.0
    assert float(np.std(out)) == pytest.approx(3.0, rel=0.01)


def test_two_opposite_changes_are_two_clips_apart_and_no_more() -> None:
    mode = DevicePrivacy(clip=0.5, z=0.25)
    base = np.zeros(100, np.float32)
    ends = [
        noised(mode, base, np.full(100, sign * 1e30, np.float32), key(6)).vector
        for sign in (1.0, -1.0)
    ]
    distance = float(np.linalg.norm(ends[0].astype(float) - ends[1]))
    assert distance == pytest.approx(2 * 0.5, rel=5e-3)
    assert distance <= 1.0 + 1e-5  # float32 of what was released


def test_outputs_lie_on_one_grid_within_one_range_whatever_the_input() -> None:
    mode = DevicePrivacy(clip=1.0, z=0.25)
    base = np.zeros(64, np.float32)
    grid = grid_of(64)
    limit = math.floor(REACH * 2 * mode.z * grid) - grid
    for number, scale in enumerate((0.0, 1e-45, 1e-3, 0.37, 1.0, 1e9)):
        for seed in range(50):
            trained = np.full(64, scale, np.float32)
            out = noised(mode, base, trained, key(100 * number + seed)).vector
            steps = out.astype(float) * grid
            assert (steps == np.rint(steps)).all()
            assert np.abs(steps).max() <= limit
    # The noise alone goes at least `limit + grid` far both ways: no output tells the input.
    assert limit + grid <= math.floor(REACH * 2 * mode.z * grid)


def test_each_key_gives_other_noise_and_no_argument_can_fix_it() -> None:
    base = np.zeros(1000, np.float32)
    mode = DevicePrivacy(clip=1.0, z=1.0)
    first, second = (noised(mode, base, base, key(i)).vector for i in (7, 8))
    assert (first != second).mean() > 0.99


def test_what_everybody_knows_may_be_refused() -> None:
    mode = DevicePrivacy(clip=1.0, z=1.0)
    good = np.zeros(4, np.float32)
    for base, trained in (
        (np.array([0, math.nan, 0, 0], np.float32), good),
        (good, np.zeros(5, np.float32)),
        (np.zeros(0, np.float32), np.zeros(0, np.float32)),
    ):
        with pytest.raises(ValueError, match="base"):
            noised(mode, base, trained, key(9))


@pytest.mark.parametrize(
    ("clip", "z"), [(0.0, 1.0), (math.nan, 1.0), (1.0, 0.1), (1.0, math.inf), (1e7, 1.0)]
)
def test_settings_that_protect_nothing_are_refused(clip: float, z: float) -> None:
    with pytest.raises(ValueError, match="allowed"):
        DevicePrivacy(clip=clip, z=z)
