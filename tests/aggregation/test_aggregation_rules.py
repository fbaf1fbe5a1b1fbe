"""The rules against byzfl, against their definitions, and against hostile input.

byzfl 0.0.11 counts f otherwise in its Krum: it sums the n-f-1 nearest others, Blanchard's paper and
we the m'-f-2 nearest. So our krum with f is byzfl's Krum with f+1. Its MultiKrum keeps n-f models;
with f+1 it has our scores but keeps one fewer. Its MoNNA with idx 0 is our nna.
"""

from __future__ import annotations

import importlib
import itertools
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byzfl_oracle import byzfl, needs_byzfl
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rules import by_definition
from plain_rules import squared_distances as slow

from gossipfl.aggregation import (
    RULES,
    RuleError,
    between,
    distances,
    merge_step,
    rule,
    squared_distances,
)
from gossipfl.aggregation.linear import STREAM_CHUNK
from gossipfl.aggregation.means import WEIGHT_CAP
from gossipfl.aggregation.network import merge_exchange, networks, program
from gossipfl.aggregation.ordered import chunk_length
from gossipfl.parameters import Matrix, Vector

STEPPED = [f"nnm+{name}" for name in sorted(set(RULES) - {"weighted_mean"})]
STEPPED += ["collapse+nna", "collapse+cs_plus", "collapse+nnm+trimmed_mean"]
ALL = sorted(RULES) + STEPPED
FRAGILE = {"mean", "weighted_mean", "nnm+mean"}
ROBUST = sorted(set(ALL) - FRAGILE)
ANCHORED = {"nna", "centered_clip", "cs_plus", "balance"}  # they need the own model
CHOOSING = {"nna", "krum", "multi_krum", "mean", "weighted_mean", "median", "trimmed_mean"}


def last(name: str) -> str:
    """The rule after its steps."""
    return name.rpartition("+")[2]


def anchored(name: str) -> bool:
    return last(name) in ANCHORED or name.startswith("collapse")


def models(count: int, d: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal((count, d), dtype=np.float32)


def merged(name: str, x: Matrix, f: int) -> Vector:
    return merge_step(name, x[0], list(x[1:]), f).parameters


# --- values ---------------------------------------------------------------------------------------

BYZFL: dict[str, Any] = {
    "mean": lambda f: byzfl.Average(),
    "weighted_mean": lambda f: byzfl.Average(),
    "median": lambda f: byzfl.Median(),
    "trimmed_mean": lambda f: byzfl.TrMean(f),
    "krum": lambda f: byzfl.Krum(f + 1),
    "nna": lambda f: byzfl.MoNNA(f, 0),
}
SIZES = [(5, 1, 7), (6, 0, 40), (9, 3, 300), (20, 4, 1000), (21, 9, 64), (50, 15, 33)]


@needs_byzfl
@pytest.mark.parametrize("name", sorted(BYZFL))
@pytest.mark.parametrize(("count", "f", "d"), SIZES)
def test_equals_byzfl(name: str, count: int, f: int, d: int) -> None:
    for seed in range(3):
        x = models(count, d, seed)
        expected = BYZFL[name](f)(x)
        np.testing.assert_allclose(merged(name, x, f), expected, rtol=1e-5, atol=1e-6)


@needs_byzfl
@pytest.mark.parametrize(("count", "f", "d"), SIZES)
def test_multi_krum_is_byzfls_choice_with_one_model_more(count: int, f: int, d: int) -> None:
    for seed in range(3):
        x = models(count, d, seed)
        kept = count - f
        one_more = kept * merged("multi_krum", x, f) - (kept - 1) * byzfl.MultiKrum(f + 1)(x)
        distance = np.abs(x - one_more).max(axis=1)
        assert distance.min() < 1e-3
        np.testing.assert_allclose(
            merged("multi_krum", x, f), by_definition("multi_krum", x, f), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("chunk", [STREAM_CHUNK, chunk_length(6)])
@pytest.mark.parametrize("offset", [None, -1, 0, 1])
def test_chunk_boundaries(name: str, chunk: int, offset: int | None) -> None:
    d = 1 if offset is None else chunk + offset
    x = models(6, d)
    result = merge_step(name, x[0], list(x[1:]), 1)
    # On a line every point between the middle two is a geometric median: steps get slow.
    slack = 1e-4 if name == "geometric_median" and d == 1 else 1e-6
    np.testing.assert_allclose(result.parameters, by_definition(name, x, 1), rtol=1e-5, atol=slack)
    assert result.parameters.shape == (d,)
    assert result.parameters.dtype == np.float32


@pytest.mark.parametrize("name", ALL)
def test_matrix_and_separate_rows_give_the_same_bits(name: str) -> None:
    x = models(9, 5000)
    from_matrix = merge_step(name, x[0], x[1:], 2)
    from_rows = merge_step(name, x[0].copy(), [row.copy() for row in x[1:]], 2)
    np.testing.assert_array_equal(from_matrix.parameters, from_rows.parameters)
    assert from_matrix.influence == from_rows.influence


@pytest.mark.parametrize("name", ALL)
def test_inputs_stay_as_they_are_and_the_merge_is_fresh(name: str) -> None:
    x = models(7, 1000)
    before = x.copy()
    x.flags.writeable = False
    result = merge_step(name, x[0], list(x[1:]), 1)
    np.testing.assert_array_equal(x, before)
    assert result.parameters.flags.writeable
    assert not np.shares_memory(result.parameters, x)


@pytest.mark.parametrize("name", ALL)
def test_strided_and_unaligned_rows_merge_alike(name: str) -> None:
    x = models(7, 1000)
    odd = np.frombuffer(b"\0" + x.tobytes(), dtype="u1")[1:].view("<f4").reshape(x.shape)
    strided = np.asfortranarray(x)
    expected = merge_step(name, x[0], list(x[1:]), 1)
    for other in (odd, strided):
        result = merge_step(name, other[0], list(other[1:]), 1)
        np.testing.assert_array_equal(result.parameters, expected.parameters)


@pytest.mark.parametrize("name", ALL)
def test_one_model_alone_is_itself(name: str) -> None:
    own = models(1, 50)[0]
    if "krum" in name:
        with pytest.raises(RuleError, match="3 or more"):
            merge_step(name, own, [], 0)
    else:
        result = merge_step(name, own, [], 0)
        np.testing.assert_array_equal(result.parameters, own)
        assert result.influence == ()


@pytest.mark.parametrize("name", ALL)
def test_no_memory_beyond_output_and_chunks(name: str) -> None:
    rows = [row.copy() for row in models(8, 2_000_000)]  # 64 MB of models
    merge_step(name, rows[0], rows[1:], 2)
    tracemalloc.start()
    try:
        merge_step(name, rows[0], rows[1:], 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8e6 + (6e6 if "nnm" in name else 4e6)


@pytest.mark.slow
def test_krum_winner_at_ten_million_parameters() -> None:
    """Models far from zero and close together, where one float32 Gram matrix goes wrong."""
    d, n, f = 10_000_000, 7, 1
    rng = np.random.default_rng(3)
    common = rng.standard_normal(d, dtype=np.float32)
    rows = [common + np.float32(0.02) * rng.standard_normal(d, dtype=np.float32) for _ in range(n)]
    squared = np.zeros((n, n))
    for start in range(0, d, 1_000_000):
        part = [row[start : start + 1_000_000].astype(np.float64) for row in rows]
        for i, j in itertools.combinations(range(n), 2):
            squared[i, j] += np.dot(part[i] - part[j], part[i] - part[j])
    squared += squared.T
    scores = np.sort(squared, axis=1)[:, 1 : n - f - 1].sum(axis=1)
    np.testing.assert_allclose(distances.pairwise(rows), squared, rtol=1e-6)
    result = merge_step("krum", rows[0], rows[1:], f)
    np.testing.assert_array_equal(result.parameters, rows[int(np.argmin(scores))])


# --- influence ------------------------------------------------------------------------------------


def fair_shares(x: Matrix, low: int, high: int) -> np.ndarray[Any, Any]:
    """Each row's share of ranks low..high-1, equal values dividing the ranks they cover."""
    shares = np.zeros(len(x))
    for column in x.T:
        for value in set(column.tolist()):
            rows = np.flatnonzero(column == value)
            first = int((column < value).sum())
            kept = max(0, min(first + len(rows), high) - max(first, low))
            shares[rows] += kept / len(rows)
    return np.asarray(shares / ((high - low) * x.shape[1]))


@pytest.mark.parametrize("levels", [2, 3, 6, 10_000])  # few levels: many ties
@pytest.mark.parametrize(("count", "f"), [(1, 0), (2, 0), (3, 1), (6, 1), (7, 2), (8, 3), (20, 4)])
def test_influence_by_coordinate_is_the_share_of_ranks(levels: int, count: int, f: int) -> None:
    x = np.random.default_rng(levels).integers(0, levels, (count, 400)).astype(np.float32)
    median = merge_step("median", x[0], list(x[1:]), f)
    expected = fair_shares(x, (count - 1) // 2, count // 2 + 1)
    np.testing.assert_allclose(median.influence, expected[1:], atol=1e-12)
    np.testing.assert_array_equal(median.parameters, np.median(x, axis=0))
    trimmed = merge_step("trimmed_mean", x[0], list(x[1:]), f)
    np.testing.assert_allclose(trimmed.influence, fair_shares(x, f, count - f)[1:], atol=1e-12)


def test_influence_of_rules_that_keep_whole_models() -> None:
    x = np.array([[0.0], [1.0], [9.0], [2.0], [-1.5]], np.float32)
    nna = merge_step("nna", x[0], list(x[1:]), 1)
    assert nna.influence == (0.25, 0.0, 0.25, 0.25)
    krum = merge_step("krum", x[0], list(x[1:]), 1)  # two nearest: 3.25, 2, ..., 5, 8.5
    assert krum.influence == (1.0, 0.0, 0.0, 0.0)
    assert krum.parameters == pytest.approx([1.0])
    multi = merge_step("multi_krum", x[0], list(x[1:]), 1)
    assert multi.influence == (0.25, 0.0, 0.25, 0.25)
    mean = merge_step("mean", x[0], list(x[1:]), 1)
    assert mean.influence == (0.2,) * 4


def test_own_may_win_krum_and_then_nobody_has_influence() -> None:
    x = np.array([[0.0], [1.0], [-1.0], [3.0], [-3.0]], np.float32)
    result = merge_step("krum", x[0], list(x[1:]), 1)
    assert result.influence == (0.0,) * 4
    assert result.parameters == pytest.approx([0.0])


@pytest.mark.parametrize("name", [name for name in ALL if not anchored(name)])
def test_own_left_out(name: str) -> None:
    x = models(7, 300)
    result = merge_step(name, None, list(x), 2)
    np.testing.assert_allclose(result.parameters, by_definition(name, x, 2), rtol=1e-5, atol=1e-6)
    assert len(result.influence) == 7
    assert sum(result.influence) == pytest.approx(1.0)


rows_strategy = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: st.tuples(st.just(seed), st.integers(5, 12), st.integers(1, 40))
)


@pytest.mark.parametrize("name", ALL)
@given(shape=rows_strategy, data=st.data())
@settings(max_examples=25, deadline=None)
def test_influence_follows_the_rows(name: str, shape: tuple[int, int, int], data: Any) -> None:
    """Reordering what was received reorders the influence and leaves the merge; shares are 0..1."""
    seed, count, d = shape
    x = models(count, d, seed)
    f = data.draw(st.integers(0, (count - 3) // 2))
    order = data.draw(st.permutations(range(count - 1)))
    first = merge_step(name, x[0], list(x[1:]), f)
    second = merge_step(name, x[0], [x[1 + index] for index in order], f)
    np.testing.assert_allclose(second.parameters, first.parameters, rtol=1e-5, atol=1e-6)
    # Rules that weigh by distance follow its float32 rounding, which knows the order of the rows.
    slack = 1e-12 if last(name) in CHOOSING else 1e-5
    np.testing.assert_allclose(second.influence, [first.influence[i] for i in order], atol=slack)
    assert all(0 <= share <= 1 for share in first.influence)
    assert sum(first.influence) <= 1 + 1e-9


@pytest.mark.parametrize("name", ["median", "trimmed_mean"])
@given(shape=rows_strategy, data=st.data())
@settings(max_examples=50, deadline=None)
def test_stays_within_the_honest_hull(name: str, shape: tuple[int, int, int], data: Any) -> None:
    """Whatever f attackers send, each coordinate lies between two honest values, to the bit."""
    seed, count, d = shape
    x = models(count, d, seed)
    f = data.draw(st.integers(0, (count - 1) // 2))
    lie = data.draw(st.sampled_from([-1e30, -3.0, 0.0, 1e-30, 7.0, 1e30]))
    x[count - f :] = np.float32(lie)
    honest = x[: count - f]
    result = merged(name, x, f)
    if name == "trimmed_mean" and f == 0:  # then it is the mean, which rounds
        np.testing.assert_allclose(result, honest.mean(axis=0), rtol=1e-5, atol=1e-6)
    else:
        assert (result >= honest.min(axis=0)).all()
        assert (result <= honest.max(axis=0)).all()


@given(shape=rows_strategy)
@settings(max_examples=25, deadline=None)
def test_nna_without_attackers_is_the_mean(shape: tuple[int, int, int]) -> None:
    seed, count, d = shape
    x = models(count, d, seed)
    nna, mean = (merge_step(name, x[0], list(x[1:]), 0) for name in ("nna", "mean"))
    np.testing.assert_array_equal(nna.parameters, mean.parameters)
    assert nna.influence == mean.influence


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("count", [5, 6, 11])
def test_identical_models_merge_to_themselves(name: str, count: int) -> None:
    x = np.tile(models(1, 5000), (count, 1))
    result = merge_step(name, x[0], list(x[1:]), 1)
    np.testing.assert_allclose(result.parameters, x[0], rtol=1e-6)
    if name in ("median", "trimmed_mean"):
        np.testing.assert_array_equal(result.parameters, x[0])
        assert result.influence == pytest.approx((1 / count,) * (count - 1))


def test_ties_go_to_the_row_that_comes_first() -> None:
    x = np.array([[0.0], [1.0], [-1.0], [1.0], [-1.0], [1.0]], np.float32)
    assert merge_step("nna", x[0], list(x[1:]), 2).influence == (0.25, 0.25, 0.25, 0.0, 0.0)
    # Copies of one model have equal scores; own is none of them.
    y = models(9, 20_000)
    y[[3, 5, 6, 8]] = y[3]
    assert merge_step("krum", y[0], list(y[1:]), 3).influence == (0, 0, 1.0, 0, 0, 0, 0, 0)
    # All equal: own is the first row, so nobody else has influence.
    z = np.tile(y[0], (6, 1))
    assert merge_step("krum", z[0], list(z[1:]), 1).influence == (0.0,) * 5


# --- preconditions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "f", "least_m"),
    [
        ("mean", 3, 0),
        ("weighted_mean", 3, 0),
        ("median", 0, 0),
        ("median", 3, 6),
        ("trimmed_mean", 3, 6),
        ("nna", 0, 0),
        ("nna", 3, 6),
        ("krum", 0, 2),
        ("krum", 3, 8),
        ("multi_krum", 3, 8),
        ("geometric_median", 3, 6),
        ("centered_clip", 3, 6),
        ("cs_plus", 3, 6),
        ("balance", 3, 0),
        ("nnm+mean", 3, 6),
        ("nnm+krum", 3, 8),
        ("collapse+nna", 3, 6),
        ("collapse+nnm+krum", 3, 8),
    ],
)
def test_too_few_models_is_refused_in_words(name: str, f: int, least_m: int) -> None:
    x = models(least_m + 1, 10)
    rule(name).check(least_m, f)
    merge_step(name, x[0], list(x[1:]), f)
    with pytest.raises(RuleError, match=re.escape(name)) as error:
        rule(name).check(least_m - 1, f)
    assert f"m = {least_m - 1}" in str(error.value)
    if least_m:
        assert f"f = {f} needs" in str(error.value)
        assert f"= {least_m + 1} or more" in str(error.value)
        with pytest.raises(RuleError):
            merge_step(name, x[0], list(x[1:-1]), f)


@pytest.mark.parametrize("name", ALL)
def test_negative_f_and_nothing_at_all_are_refused(name: str) -> None:
    x = models(7, 10)
    with pytest.raises(RuleError, match="negative"):
        merge_step(name, x[0], list(x[1:]), -1)
    with pytest.raises(RuleError):
        merge_step(name, None, [], 0)


@pytest.mark.parametrize("name", [name for name in ALL if anchored(name)])
def test_anchored_rules_need_the_own_model(name: str) -> None:
    with pytest.raises(RuleError, match="median can do without"):
        merge_step(name, None, list(models(7, 10)), 1)


def test_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(RuleError, match="'trimmed_mean'"):
        rule("trimed-mean")
    with pytest.raises(RuleError, match="'nna'"):
        merge_step("nnna", None, [], 0)
    assert rule("nna").name == "nna"


@pytest.mark.parametrize("name", ALL)
def test_rows_of_wrong_kind_are_refused_by_their_number(name: str) -> None:
    x = list(models(7, 10))
    for bad in (x[3][:9], x[3].astype(np.float64), x[3].reshape(2, 5), x[3][:0]):
        with pytest.raises(RuleError, match="received row 2"):
            merge_step(name, x[0], [*x[1:3], bad, *x[4:]], 1)


# --- hostile values -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", range(7))
def test_not_finite_never_merges(name: str, value: float, row: int) -> None:
    x = models(7, 50)
    x[row, 17] = value
    with pytest.raises(RuleError, match=f"rows {row} of 7"):
        merge_step(name, x[0], list(x[1:]), 2)


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("size", [1e10, 1e19, 1e30, 3e38])
def test_huge_liars_change_nothing(name: str, size: float) -> None:
    """Squares of such values overflow float32; they must be far away, not undefined."""
    x = models(9, 3000)
    x[7], x[8] = size, -size
    result = merge_step(name, x[0], list(x[1:]), 2)
    assert np.abs(result.parameters).max() < 6
    clips = "clip" in name or "cs_plus" in name  # they are heard, but from no farther than others
    assert sum(result.influence[-2:]) <= (1e-9 if clips else 0)
    honest = by_definition(name, x[:7], 0) if name in ("nna", "multi_krum") else None
    if honest is not None:
        np.testing.assert_allclose(result.parameters, honest, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_known_distances_change_no_merge(name: str) -> None:
    """Who measured them before the merge gets the very bits of who lets the rule do it."""
    x = models(13, 5000)
    own, received = x[0], list(x[1:])
    plain = merge_step(name, own, received, 3)
    known = merge_step(name, own, received, 3, squared=between(own, received))
    if last(name) in CHOOSING:
        np.testing.assert_array_equal(known.parameters, plain.parameters)
    np.testing.assert_allclose(known.parameters, plain.parameters, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(known.influence, plain.influence, rtol=1e-5)
    received[4] = np.full_like(own, np.nan)
    with pytest.raises(RuleError, match="rows 5 of 13"):
        merge_step(name, own, received, 3, squared=between(own, received))


def test_distances_of_other_models_are_refused() -> None:
    x = models(5, 10)
    with pytest.raises(RuleError, match="another number of models"):
        merge_step("nna", x[0], list(x[1:]), 1, squared=between(x[0], list(x[1:4])))
    with pytest.raises(RuleError, match="received row 1 has shape 9, expected 10"):
        between(x[0], [x[1], x[2][:9]])


@pytest.mark.parametrize("name", ["krum", "multi_krum"])
def test_a_far_first_model_does_not_blur_the_others(name: str) -> None:
    """Distances are centred on the first row. It may be a liar's (own left out), or an outlier."""
    x = models(8, 20_000)
    x[0] = 1e6
    for own, received in ((None, list(x)), (x[0], list(x[1:]))):
        result = merge_step(name, own, received, 2)
        np.testing.assert_allclose(
            result.parameters, by_definition(name, x, 2), rtol=1e-5, atol=1e-6
        )
    np.testing.assert_allclose(
        distances.pairwise(list(x))[1:, 1:], slow(x[1:].astype(float)), rtol=1e-5
    )


def near_ties(seed: int, changed: int) -> tuple[Vector, Vector]:
    """A noise vector, and the same values in another order with a few a shade nearer to zero."""
    noise = models(1, 200_000, seed)[0]
    other = np.random.default_rng(seed).permutation(noise)
    other[:changed] *= np.float32(0.9999)
    return noise, other


@pytest.mark.parametrize("seed", range(8))
def test_near_ties_are_settled_in_float64(seed: int) -> None:
    """Distances that differ by one part in 10^7: float32 sums alone toss a coin."""
    noise, other = near_ties(seed, 200)
    flat = np.ones_like(noise)
    x = np.array([0 * flat, noise, 0.1 * flat, 0.2 * flat, other])
    np.testing.assert_array_equal(merged("nna", x, 1), merged("mean", x[[0, 2, 3, 4]], 0))
    noise, other = near_ties(seed, 1000)
    y = np.array([3 * flat, noise, -3 * flat, 10 * flat, other])
    np.testing.assert_array_equal(merged("krum", y, 0), by_definition("krum", y, 0))
    assert merge_step("krum", y[0], list(y[1:]), 0).influence == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("name", ["nna", "krum", "nnm+mean"])
def test_equal_float32_distances_do_not_make_copies(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distances rounded so that two different models seem equally far: the nearer one counts."""
    near, far = np.float32(0.999999), np.float32(1.0)
    noise = models(1, 4000)[0]
    flat = np.ones_like(noise)
    rows = [0 * flat, far * noise, 0.1 * flat, 0.2 * flat, near * noise[::-1]]
    x = np.array([3 * flat, rows[1], -3 * flat, 10 * flat, rows[4]]) if name == "krum" else rows
    x = np.array(x, np.float32)
    f = 0 if name == "krum" else 1
    fast, exact_pairs = distances.squared_distances, distances.pairwise

    def blurred(values: Any) -> Any:
        return np.float64(np.round(np.asarray(values), -1))

    module = "gossipfl.aggregation.models."
    monkeypatch.setattr(module + "squared_distances", lambda a, b: list(blurred(fast(a, b))))
    monkeypatch.setattr(module + "pairwise", lambda given: blurred(exact_pairs(given)))
    result = merge_step(name, x[0], list(x[1:]), f)
    assert result.influence[3] > result.influence[0]


def test_krum_picks_the_right_model_on_a_hundred_near_ties(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `script/bench rules --krum-ties`, smaller. One float32 Gram matrix tosses coins."""
    monkeypatch.syspath_prepend(str(root / "script"))
    found = importlib.import_module("bench_krum").run(d=20_000, cases=100)
    assert found["gap_largest"] < 1e-7
    assert found["ours_right"] == 100
    assert found["float32_gram_right"] < 90


def test_copies_have_the_same_distances_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever order this machine's BLAS adds in, here played by noise on its result."""
    exact_gram = distances._centred_gram

    def noisy_gram(rows: list[Vector]) -> np.ndarray[Any, Any]:
        noise = np.random.default_rng(0).normal(1, 1e-7, (len(rows), len(rows)))
        return exact_gram(rows) * (noise + noise.T) / 2

    monkeypatch.setattr(distances, "_centred_gram", noisy_gram)
    x = models(9, 3001)
    copies = [1, 3, 7, 8]
    x[copies] = x[1]
    squared = distances.pairwise(list(x))
    for copy in copies:
        np.testing.assert_array_equal(squared[copy], squared[1])
    np.testing.assert_array_equal(squared, squared.T)


def test_distances_to_own() -> None:
    x = models(6, STREAM_CHUNK + 5)
    got = squared_distances(x[0], list(x))
    assert got[0] == 0.0
    np.testing.assert_allclose(got, slow(x.astype(float))[0], rtol=1e-6)


# --- weights --------------------------------------------------------------------------------------


def test_weights_count_up_to_the_cap() -> None:
    x = models(4, 10)
    result = merge_step("weighted_mean", x[0], list(x[1:]), 0, weights=[1, 2, 0, 1e9])
    # The median positive weight is 2, so the last counts for 8.
    assert result.influence == pytest.approx((2 / 11, 0.0, 2 * WEIGHT_CAP / 11))
    np.testing.assert_allclose(
        result.parameters, (x[0] + 2 * x[1] + 8 * x[3]) / 11, rtol=1e-5, atol=1e-6
    )


def test_half_of_the_weights_cannot_lift_the_cap() -> None:
    x = models(2, 10)
    result = merge_step("weighted_mean", x[0], [x[1]], 0, weights=[1, 1e9])
    assert result.influence == pytest.approx((WEIGHT_CAP / (1 + WEIGHT_CAP),))


def test_without_weights_all_count_alike() -> None:
    x = models(4, 10)
    assert merge_step("weighted_mean", x[0], list(x[1:]), 0).influence == (0.25,) * 3


@pytest.mark.parametrize(
    "weights", [[1, 1, 1], [1] * 5, [1, 1, 1, -1], [1, 1, 1, np.nan], [1, 1, 1, np.inf], [0] * 4]
)
def test_bad_weights_are_refused(weights: list[float]) -> None:
    x = models(4, 10)
    with pytest.raises(RuleError, match="weight"):
        merge_step("weighted_mean", x[0], list(x[1:]), 0, weights=weights)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"weighted_mean"}))
def test_other_rules_refuse_weights(name: str) -> None:
    x = models(6, 10)
    with pytest.raises(RuleError, match="takes no weights"):
        merge_step(name, x[0], list(x[1:]), 1, weights=[1.0] * 6)


# --- the network ----------------------------------------------------------------------------------


def run_program(n: int, low: int, high: int, inputs: Matrix) -> tuple[Vector, Vector, Vector]:
    plan = program(n, low, high)
    registers = list(inputs) + [np.empty_like(inputs[0]) for _ in range(plan.scratch)]
    for smaller, left, right, out in plan.steps:
        assert out >= n  # inputs are never written
        function = np.minimum if smaller else np.maximum
        registers[out] = function(registers[left], registers[right])
    kept = [registers[index] for index in plan.kept]
    return kept[0], kept[-1], np.sum(kept, axis=0)


@pytest.mark.parametrize("n", range(1, 11))
def test_networks_find_every_range_of_ranks(n: int) -> None:
    """Knuth's 0-1 principle: right for all 2^n inputs of zeros and ones, right for all inputs."""
    inputs = np.array(list(itertools.product([0, 1], repeat=n)), np.float32).T
    ordered = np.sort(inputs, axis=0)
    for low, high in itertools.combinations(range(n + 1), 2):
        lowest, highest, total = run_program(n, low, high, inputs)
        np.testing.assert_array_equal(lowest, ordered[low])
        np.testing.assert_array_equal(highest, ordered[high - 1])
        np.testing.assert_array_equal(total, ordered[low:high].sum(axis=0))


@pytest.mark.parametrize("n", [2, 16, 20, 33, 100])
def test_large_networks_sort(n: int) -> None:
    tried = list(networks(n))
    assert len(tried) > 1
    for comparators in tried:
        values = list(np.random.default_rng(n).permutation(n))
        for i, j in comparators:
            assert i < j
            values[i], values[j] = min(values[i], values[j]), max(values[i], values[j])
        assert values == list(range(n))


@pytest.mark.parametrize(("low", "high"), [(9, 11), (4, 16)])
def test_the_network_of_twenty_finds_its_ranks(low: int, high: int) -> None:
    """Zeros and ones again, all 2^20 of them: this is the size that the figures are for."""
    numbers = np.arange(1 << 20, dtype=np.uint32)
    inputs = np.array([(numbers >> wire) & 1 for wire in range(20)], np.float32)
    zeros = 20 - inputs.sum(axis=0)  # the ranks below it are 0
    lowest, highest, total = run_program(20, low, high, inputs)
    np.testing.assert_array_equal(lowest, zeros <= low)
    np.testing.assert_array_equal(highest, zeros < high)
    np.testing.assert_array_equal(total, np.clip(high - zeros, 0, high - low))


def test_a_median_network_is_much_smaller_than_a_sort() -> None:
    sort = 2 * len(list(merge_exchange(20)))
    assert len(program(20, 9, 11).steps) < 0.7 * sort
    with pytest.raises(ValueError, match="ranks"):
        program(5, 3, 3)
