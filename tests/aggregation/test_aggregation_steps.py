"""What stands before a rule: nearest-neighbour mixing, and the collapse of duplicates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from byzfl_oracle import byzfl, needs_byzfl
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rules import by_definition, collapsed, mixed
from plain_rules import squared_distances as slow

from gossipfl.aggregation import Merge, RuleError, distances, merge_step, rule
from gossipfl.aggregation.mixing import Mixed, neighbours
from gossipfl.aggregation.models import Plain
from gossipfl.aggregation.sharing import sum_program
from gossipfl.parameters import Matrix, Vector


def models(count: int, d: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal((count, d), dtype=np.float32)


def merged(name: str, x: Matrix, f: int) -> Merge:
    return merge_step(name, x[0], list(x[1:]), f)


# --- mixing ---------------------------------------------------------------------------------------

BYZFL: dict[str, Any] = {
    "mean": lambda f: byzfl.Average(),
    "median": lambda f: byzfl.Median(),
    "trimmed_mean": lambda f: byzfl.TrMean(f),
    "krum": lambda f: byzfl.Krum(f + 1),
    "nna": lambda f: byzfl.MoNNA(f, 0),
    "geometric_median": lambda f: byzfl.GeometricMedian(nu=1e-3, T=1000),
}


@needs_byzfl
@pytest.mark.parametrize("name", sorted(BYZFL))
@pytest.mark.parametrize(
    ("count", "f", "d"), [(5, 1, 70), (9, 3, 300), (20, 4, 1000), (21, 9, 64), (50, 15, 33)]
)
def test_mixing_equals_byzfls_nnm(name: str, count: int, f: int, d: int) -> None:
    for seed in range(3):
        x = models(count, d, seed)
        ours = merged(f"nnm+{name}", x, f).parameters
        # Mixed models may coincide with their median, where the two smoothings differ.
        slack = 5e-4 if name == "geometric_median" else 2e-5
        np.testing.assert_allclose(ours, BYZFL[name](f)(byzfl.NNM(f)(x)), rtol=slack, atol=slack)


@pytest.mark.parametrize(("count", "f", "d"), [(1, 0, 5), (7, 2, 1), (12, 3, 300), (25, 8, 700)])
def test_mixed_models_are_what_they_say(count: int, f: int, d: int) -> None:
    """Chunks, whole models, sums and distances all agree with the mixed matrix written out."""
    x = models(count, d, seed=count)
    base = Plain(list(x), owned=True)
    seen = Mixed(base, neighbours(base, f))
    expected = mixed(x.astype(np.float64), f)
    chunks = [np.array(part) for _, part in seen.parts(64)]
    np.testing.assert_allclose(np.concatenate(chunks, axis=1), expected, rtol=1e-5, atol=1e-6)
    shares = np.random.default_rng(1).random(count)
    np.testing.assert_allclose(seen.combine(list(shares)), shares @ expected, rtol=1e-4, atol=1e-5)
    squared = slow(expected)
    scale = squared.max() or 1.0
    np.testing.assert_allclose(seen.pairwise(), squared, rtol=1e-5, atol=1e-6 * scale)
    for index in range(count):
        np.testing.assert_allclose(seen.model(index), expected[index], rtol=1e-5, atol=1e-6)
        exact = seen.exact(index, range(count))
        np.testing.assert_allclose(exact, squared[index], rtol=1e-9, atol=1e-13 * scale)


def test_mixing_hears_no_liar_that_is_far_away() -> None:
    x = models(12, 400)
    x[10], x[11] = 1e6, -1e30
    nearest = neighbours(Plain(list(x), owned=True), 2)
    assert all(not {10, 11} & set(chosen) for chosen in nearest[:10])
    np.testing.assert_allclose(
        merged("nnm+median", x, 2).parameters, by_definition("nnm+median", x, 2), atol=1e-5
    )


@pytest.mark.parametrize("seed", range(4))
def test_near_tied_neighbours_are_settled_in_float64(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Another machine's BLAS, played by noise on its result, mixes the same models."""
    noise = models(1, 100_000, seed)[0]
    other = np.ascontiguousarray(noise[::-1])
    other[:200] *= np.float32(0.9999)
    flat = np.ones_like(noise)
    rows = [0 * flat, noise, 0.1 * flat, other, 0.2 * flat]
    first = neighbours(Plain(rows, owned=True), 1)
    exact_gram = distances._centred_gram

    def noisy_gram(given: list[Vector]) -> np.ndarray[Any, Any]:
        error = np.random.default_rng(seed).normal(1, 3e-7, (len(given), len(given)))
        return exact_gram(given) * (error + error.T) / 2

    monkeypatch.setattr(distances, "_centred_gram", noisy_gram)
    assert neighbours(Plain(rows, owned=True), 1) == first
    assert first[0] == (0, 2, 3, 4)


def test_influence_passes_through_the_mixing() -> None:
    """Krum picks one mixed model: those mixed into it share the influence evenly."""
    x = models(9, 200)
    result = merged("nnm+krum", x, 2)
    shares = np.array([1 - sum(result.influence), *result.influence])
    np.testing.assert_allclose(shares @ x, result.parameters, rtol=1e-4, atol=1e-5)
    assert sorted(shares.tolist()) == pytest.approx([0.0] * 2 + [1 / 7] * 7)


sets_strategy = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.frozensets(st.integers(0, n - 1), min_size=1), min_size=1, max_size=12),
    )
)


@given(case=sets_strategy)
@settings(max_examples=100, deadline=None)
def test_shared_sums_are_the_sums(case: tuple[int, list[frozenset[int]]]) -> None:
    n, sets = case
    plan = sum_program(n, sets)
    registers: list[Any] = [frozenset({index}) for index in range(n)] + [None] * plan.scratch
    for left, right, out in plan.steps:
        assert out >= n  # inputs are never written
        assert not registers[left] & registers[right]  # nothing is counted twice
        registers[out] = registers[left] | registers[right]
    assert [registers[place] for place in plan.sums] == sets
    assert len(plan.steps) <= sum(len(members) - 1 for members in set(sets))


def test_shared_sums_save_most_additions() -> None:
    base = Plain(list(models(20, 2000)), owned=True)
    sets = [frozenset(chosen) for chosen in neighbours(base, 4)]
    assert len(sum_program(20, sets).steps) < 0.4 * sum(len(members) - 1 for members in sets)
    assert len(sum_program(20, [sets[0]] * 20).steps) == 15  # all alike: once


def test_shared_sums_refuse_what_is_no_set_of_inputs() -> None:
    for bad in (frozenset[int](), frozenset({3})):
        with pytest.raises(ValueError, match="set"):
            sum_program(3, [frozenset({0}), bad])


# --- collapse -------------------------------------------------------------------------------------


def fleet(
    honest: int, liars: int, noise: float, d: int = 400, seed: int = 0, at: float = 0.5
) -> Matrix:
    """Own and other honest models around 0, then liars around one point, `noise` of their size.

    The point is `at` from 0 in each coordinate: nearer to everybody than honest models are to each
    other, as a lie that hides in the mean is.
    """
    x = models(honest + liars, d, seed)
    x[honest:] = np.float32(at) + np.float32(noise) * x[honest:]
    return x


def test_equal_liars_get_one_vote() -> None:
    x = fleet(honest=20, liars=10, noise=0)
    alone, defended = merged("nna", x, 10), merged("collapse+nna", x, 10)
    assert sum(alone.influence[19:]) == pytest.approx(10 / 20)
    assert sum(defended.influence[19:]) == pytest.approx(1 / 17)  # 21 votes, 4 dropped
    assert len(set(defended.influence[19:])) == 1  # they share it
    assert defended.collapsed == tuple(range(20, 29))
    assert defended.clusters == ()  # equal models are no one's fault
    assert alone.collapsed == alone.clusters == ()


def test_nearly_equal_liars_get_one_vote_and_are_named() -> None:
    x = fleet(honest=20, liars=10, noise=0.1)
    result = merged("collapse+nna", x, 10)
    assert sum(result.influence[19:]) == pytest.approx(1 / 17)
    assert len(result.collapsed) == 9
    assert set(result.collapsed) < set(range(19, 29))
    assert result.clusters == tuple(range(19, 29))


def test_noisier_liars_keep_their_votes_but_cluster() -> None:
    x = fleet(honest=20, liars=10, noise=0.4)
    result = merged("collapse+nna", x, 10)
    assert result.collapsed == ()
    assert result.clusters == tuple(range(19, 29))
    np.testing.assert_array_equal(result.parameters, merged("nna", x, 10).parameters)


def test_honest_models_neither_collapse_nor_cluster() -> None:
    for seed in range(20):
        x = models(31, 300, seed)
        result = merged("collapse+nna", x, 10)
        assert result.collapsed == result.clusters == ()
        assert result.influence == merged("nna", x, 10).influence


def test_two_alike_are_no_cluster_and_keep_their_votes() -> None:
    """Two devices with like data are no conspiracy; three who say nearly the same are."""
    x = models(31, 300)
    x[7] = x[3] + np.float32(0.1) * x[7]
    result = merged("collapse+nna", x, 10)
    assert result.collapsed == ()
    assert result.clusters == ()
    x[9] = x[3] + np.float32(0.1) * x[9]
    result = merged("collapse+nna", x, 10)
    assert len(result.collapsed) == 2
    assert result.clusters == (2, 6, 8)


def test_few_received_models_collapse_only_when_equal() -> None:
    x = fleet(honest=9, liars=3, noise=0.01)  # 11 received
    assert merged("collapse+nna", x, 3).collapsed == ()
    x = fleet(honest=9, liars=3, noise=0)
    assert merged("collapse+nna", x, 3).collapsed == (9, 10)


def test_no_more_collapse_than_there_can_be_attackers() -> None:
    """Nine honest models alike, f = 4: only four may be attackers', the others keep their votes."""
    x = fleet(honest=20, liars=9, noise=0.1)
    result = merged("collapse+nna", x, 4)
    assert len(result.collapsed) == 4
    assert merged("collapse+nna", x, 0).collapsed == ()
    x[20:] = x[20]
    assert len(merged("collapse+nna", x, 4).collapsed) == 4


@pytest.mark.parametrize("alike", [2, 5, 10, 15, 19])
@pytest.mark.parametrize("own_too", [False, True])
@pytest.mark.parametrize("lie", [0.3, 5.0, 1e6, 1e30])
def test_honest_copies_open_no_door(alike: int, own_too: bool, lie: float) -> None:
    """Honest devices that have not trained yet are equal. Liars far away gain nothing by that."""
    liars = 9
    x = np.float32(0.1) * models(20 + liars, 300)
    x[int(not own_too) : alike + 1] = x[1]
    x[20:] = np.float32(lie) * models(liars, 300, seed=9)
    far = lie * 300**0.5 > 3 * 0.1 * 600**0.5  # beyond three median distances
    result = merged("collapse+nna", x, liars)
    assert sum(result.influence[19:]) == 0 or not far
    assert np.isfinite(result.parameters).all()


def test_everyone_at_the_start() -> None:
    """All publish the same parameters: the merge is these, and all have the same influence."""
    x = np.tile(models(1, 100), (16, 1))
    result = merged("collapse+nna", x, 5)
    np.testing.assert_allclose(result.parameters, x[0], rtol=1e-6)
    assert result.influence == pytest.approx((1 / 16,) * 15)
    assert len(result.collapsed) == 5
    assert result.clusters == ()


fleets = st.tuples(
    st.integers(0, 2**32 - 1),
    st.integers(3, 24),
    st.integers(0, 10),
    st.sampled_from([0.0, 0.05, 0.2, 0.4, 0.8]),
    st.sampled_from([0.0, 0.5, 3.0, 1e4]),
    st.integers(0, 8),
)


@given(case=fleets, data=st.data())
@settings(max_examples=150, deadline=None)
def test_collapse_is_as_defined(case: tuple[Any, ...], data: st.DataObject) -> None:
    """Liars near or far, noisy or equal, honest copies: rows, f and clusters as in plain loops.

    And the rule that follows can always work with what is left, whatever happens.
    """
    seed, honest, liars, noise, at, copies = case
    x = fleet(honest, liars, noise, d=60, seed=seed, at=at)
    twins = min(copies, honest - 1)
    x[1 : 1 + twins] = x[min(1, twins)]
    f = data.draw(st.integers(0, (len(x) - 1) // 2))
    for name in ("collapse+nna", "collapse+nnm+trimmed_mean"):
        result = merged(name, x, f)
        np.testing.assert_allclose(
            result.parameters, by_definition(name, x, f), rtol=1e-4, atol=1e-4 * max(at, 1)
        )
        kept, _, clusters = collapsed(x.astype(np.float64), f)
        expected = {i - 1 for i in range(len(x)) if i not in kept}
        assert len(result.collapsed) == len(expected)
        # Of two copies, which one goes hangs on the last bit of a distance; they are as far away.
        for ours, theirs in zip(
            sorted(set(result.collapsed) - expected),
            sorted(expected - set(result.collapsed)),
            strict=True,
        ):
            far = [float(np.linalg.norm(x[i + 1] - x[0])) for i in (ours, theirs)]
            assert math.isclose(*far, rel_tol=1e-4)
        assert result.clusters == tuple(i - 1 for i in clusters)
        assert sum(result.influence) <= 1 + 1e-9


@given(case=fleets, order=st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_collapse_does_not_mind_the_order(case: tuple[Any, ...], order: Any) -> None:
    seed, honest, liars, noise, at, _ = case
    x = fleet(honest, liars, noise, d=60, seed=seed, at=at)
    f = (len(x) - 1) // 3
    places = list(range(1, len(x)))
    order.shuffle(places)
    first = merged("collapse+nna", x, f)
    second = merged("collapse+nna", x[[0, *places]], f)
    np.testing.assert_allclose(second.parameters, first.parameters, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        second.influence, [first.influence[place - 1] for place in places], atol=1e-9
    )
    assert {places[row] - 1 for row in second.clusters} == set(first.clusters)


# --- names ----------------------------------------------------------------------------------------


def test_steps_join_any_rule_by_name() -> None:
    assert rule("nnm+trimmed_mean").name == "nnm+trimmed_mean"
    assert rule("collapse+nnm+nna") is rule("collapse+nnm+nna")  # a node asks often


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nnm", r"nnm is a step before a rule, as in nnm\+nna"),
        ("nmm+nna", "no step is called 'nmm'; the nearest name is 'nnm'"),
        ("nnm+trimed_mean", "no rule is called 'trimed_mean'; .* 'trimmed_mean'"),
        ("nnm+", "no rule is called ''"),
        ("nnm+nnm+nna", r"once each and in the order collapse\+nnm"),
        ("nnm+collapse+nna", r"once each and in the order collapse\+nnm"),
        ("nna+nnm", "nnm is a step before a rule"),
        ("nna+krum", "no step is called 'nna'"),
        ("nnm+weighted_mean", "no step helps weighted_mean"),
    ],
)
def test_wrong_names_are_refused_in_words(name: str, words: str) -> None:
    with pytest.raises(RuleError, match=words):
        rule(name)
