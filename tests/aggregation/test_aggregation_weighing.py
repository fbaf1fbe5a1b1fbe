"""Rules that weigh models by distance: geometric_median, centered_clip, cs_plus, balance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from byzfl_oracle import byzfl, needs_byzfl
from plain_rules import balance, by_definition, clipped, geometric_median

from gossipfl.aggregation import (
    Balance,
    CenteredClip,
    GeometricMedian,
    Merge,
    RuleError,
    Settings,
    merge_step,
    rule,
)
from gossipfl.parameters import Matrix

SIZES = [(5, 1, 70), (9, 3, 300), (20, 4, 1000), (21, 9, 64), (50, 15, 33)]


def models(count: int, d: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal((count, d), dtype=np.float32)


def merged(name: str, x: Matrix, f: int, with_settings: Settings | None = None) -> Merge:
    return merge_step(name, x[0], list(x[1:]), f, settings=with_settings)


# --- geometric median -----------------------------------------------------------------------------


@needs_byzfl
@pytest.mark.parametrize(("count", "f", "d"), SIZES)
def test_geometric_median_is_what_byzfl_converges_to(count: int, f: int, d: int) -> None:
    """byzfl starts from zero and stops after three steps unless told otherwise."""
    for seed in range(3):
        x = models(count, d, seed) + np.float32(3)
        expected = byzfl.GeometricMedian(nu=1e-3, T=1000)(x)
        got = merged("geometric_median", x, f).parameters
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


def test_no_point_nearby_has_a_smaller_sum_of_distances() -> None:
    x = models(11, 200)
    x[8:] += 4
    at = merged("geometric_median", x, 3).parameters.astype(np.float64)

    def total(point: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
        return float(np.linalg.norm(x - point, axis=1).sum())

    rng = np.random.default_rng(5)
    for size in (0.01, 0.1, 1.0):
        assert all(total(at + size * rng.standard_normal(200)) > total(at) for _ in range(20))


@pytest.mark.parametrize("far", [3.0, 30.0, 90.0])
def test_distances_between_models_suffice_for_its_steps(far: float) -> None:
    """Far models make the sums of squared distances cancel; the median must not notice."""
    x = models(15, 500)
    x[10:] += np.float32(far)
    expected = geometric_median(x.astype(np.float64), 5)
    got = merged("geometric_median", x, 5).parameters
    assert np.linalg.norm(got - expected) < 1e-4 * np.linalg.norm(expected)


def test_a_majority_of_equal_models_is_the_median() -> None:
    x = models(9, 100)
    x[2:7] = x[2]
    result = merged("geometric_median", x, 4)
    np.testing.assert_allclose(result.parameters, x[2], rtol=1e-6)
    assert result.influence == pytest.approx((0, 0.2, 0.2, 0.2, 0.2, 0.2, 0, 0))


def test_smoothing_and_steps_can_be_set() -> None:
    x = models(9, 100)
    x[6:] += 5
    whole = merged("geometric_median", x, 3)
    one = merged("geometric_median", x, 3, GeometricMedian(steps=1))
    flat = merged("geometric_median", x, 3, GeometricMedian(smoothing=1.0))
    # One step from the mean has not come far from it; the tail still weighs much.
    assert sum(one.influence[-3:]) > sum(whole.influence[-3:])
    # Distances below the median one count as that, so the near models weigh alike.
    assert np.std(flat.influence[:5]) < np.std(whole.influence[:5])


# --- clipping -------------------------------------------------------------------------------------


@needs_byzfl
@pytest.mark.parametrize("radius", [0.5, 10.0, 1e6])
@pytest.mark.parametrize(("count", "f", "d"), SIZES)
def test_centered_clip_is_byzfls_around_own(count: int, f: int, d: int, radius: float) -> None:
    for seed in range(3):
        x = models(count, d, seed)
        oracle = byzfl.CenteredClipping(L=1, tau=radius)
        oracle.m = x[0]  # its constructor takes none
        with np.errstate(divide="ignore"):  # it divides by the distance of own to itself
            expected = oracle(x)
        got = merged("centered_clip", x, f, CenteredClip(radius)).parameters
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_no_model_pulls_farther_than_the_radius() -> None:
    x = models(7, 300)
    x[5:] *= 1e4
    result = merged("centered_clip", x, 2, CenteredClip(radius=2.0))
    assert np.linalg.norm(result.parameters - x[0]) <= 2.0
    assert merged("centered_clip", x, 2, CenteredClip(radius=0.0)).influence == (0.0,) * 6


def test_hes_radius_by_hand() -> None:
    """Distances 0 1 2 3 100, f = 1: the radius is sqrt(0 + 1 + 4 + 9)."""
    x = np.array([[0.0], [1.0], [-2.0], [3.0], [100.0]], np.float32)
    result = merged("centered_clip", x, 1)
    assert result.parameters == pytest.approx([(1 - 2 + 3 + math.sqrt(14)) / 5])
    assert result.influence == pytest.approx((0.2, 0.2, 0.2, 0.2 * math.sqrt(14) / 100))
    assert merged("centered_clip", x, 0).parameters == pytest.approx([102 / 5])


def test_cs_plus_clips_at_the_distance_that_2f_lie_beyond() -> None:
    x = np.array([[0.0], [1.0], [-2.0], [3.0], [100.0]], np.float32)
    result = merged("cs_plus", x, 1)  # the third of 0 1 2 3 100
    assert result.parameters == pytest.approx([(1 - 2 + 2 + 2) / 5])
    assert result.influence == pytest.approx((0.2, 0.2, 0.2 * 2 / 3, 0.2 * 2 / 100))
    assert merged("cs_plus", x, 0).parameters == pytest.approx([102 / 5])
    # With 2f + 1 models everybody else may be clipped to nothing: own is kept.
    assert merged("cs_plus", x, 2).parameters == pytest.approx([0.0])


@pytest.mark.parametrize("name", ["centered_clip", "cs_plus"])
@pytest.mark.parametrize("lie", [2.0, 100.0, 1e9])
def test_clipped_liars_move_the_merge_by_a_bounded_step(name: str, lie: float) -> None:
    """f liars, however far: the merge stays within the clipped sum of the honest ones' reach."""
    x = models(20, 500)
    honest = clipped(x[:16].astype(np.float64), math.inf)
    x[16:] = np.float32(lie)
    spread = np.linalg.norm(x[1:16] - x[0], axis=1).max()
    moved = np.linalg.norm(merged(name, x, 4).parameters - honest)
    assert moved < 4 * spread


# --- balance --------------------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_balance_accepts_within_a_shrinking_distance(progress: float) -> None:
    """own of length 10, gamma 0.3: 3 at first, 3 exp(-1) = 1.10 in the end."""
    x = np.array([[10, 0], [10, 1], [10, 2], [10, -2.9], [10, 3.1], [-10, 0]], np.float32)
    accepted = {0.0: 3, 0.25: 2, 1.0: 1}[progress]
    result = merged("balance", x, 0, Balance(progress=progress))
    assert sum(share > 0 for share in result.influence) == accepted
    assert sum(result.influence) == pytest.approx(0.5)
    np.testing.assert_allclose(
        result.parameters, balance(x.astype(float), 0, progress=progress), rtol=1e-6
    )


def test_balance_that_accepts_nobody_keeps_own() -> None:
    x = models(9, 100)
    result = merged("balance", x, 0)
    np.testing.assert_array_equal(result.parameters, x[0])
    assert result.influence == (0.0,) * 8


def test_balance_takes_alpha_gamma_and_kappa() -> None:
    x = models(9, 100) + np.float32(2)
    chosen = Balance(gamma=0.65, kappa=0.2, alpha=0.9, progress=0.5)
    result = merged("balance", x, 0, chosen)
    expected = balance(x.astype(float), 0, 0.65, 0.2, 0.9, 0.5)
    assert 0 < sum(share > 0 for share in result.influence) < 8  # the limit cuts through
    np.testing.assert_allclose(result.parameters, expected, rtol=1e-5)


def test_a_model_at_the_very_limit_is_judged_in_float64() -> None:
    """Distance and limit differ by less than float32 can tell."""
    own = models(1, 100_000)[0]
    step = np.float32(0.3) * own[::-1].copy()
    inside, outside = own + step * np.float32(0.99999), own + step * np.float32(1.00001)
    result = merge_step("balance", own, [inside, outside], 0)
    wide = own.astype(np.float64)
    limit = 0.3 * np.linalg.norm(wide)
    expected = tuple(bool(np.linalg.norm(row - wide) <= limit) for row in (inside, outside))
    assert tuple(share > 0 for share in result.influence) == expected == (True, False)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: GeometricMedian(steps=0),
        lambda: GeometricMedian(smoothing=0),
        lambda: GeometricMedian(smoothing=math.nan),
        lambda: CenteredClip(radius=-1),
        lambda: CenteredClip(radius=math.nan),
        lambda: Balance(gamma=-1),
        lambda: Balance(gamma=math.inf),
        lambda: Balance(kappa=-1),
        lambda: Balance(alpha=1.5),
        lambda: Balance(progress=1.01),
        lambda: Balance(progress=math.nan),
    ],
)
def test_senseless_settings_are_refused(make: object) -> None:
    with pytest.raises(RuleError, match=r"must|need"):
        make()  # type: ignore[operator]


def test_settings_go_with_their_rule_alone() -> None:
    x = models(7, 50)
    with pytest.raises(RuleError, match="Balance is not this rule's settings"):
        merged("centered_clip", x, 1, Balance())
    with pytest.raises(RuleError, match="CenteredClip is not this rule's settings"):
        rule("nnm+nna", CenteredClip())
    with pytest.raises(RuleError, match="not this rule's settings"):
        merged("weighted_mean", x, 1, Balance())


def test_settings_reach_the_rule_behind_its_steps() -> None:
    x = models(9, 300)
    tight = merged("nnm+centered_clip", x, 2, CenteredClip(radius=1e-3))
    own = by_definition("nnm+mean", x[[0, *np.argsort(np.linalg.norm(x - x[0], axis=1))[1:7]]], 0)
    assert np.linalg.norm(tight.parameters - own) < 2e-3
    assert rule("centered_clip") is rule("centered_clip")  # the defaults are not touched
    assert merged("centered_clip", x, 0).influence == pytest.approx((1 / 9,) * 8)
