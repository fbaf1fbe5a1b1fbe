"""Sample size and assumed attackers: a table worked out apart, and exact fractions."""

from __future__ import annotations

import time
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipfl.aggregation import assumed_faulty, fits, least, plan, rule, sample_size
from gossipfl.aggregation import sampling as module

# (n, attackers): smallest s for a share below 1/2 and below 1/3; 200 rounds, 99 %
TABLE = {
    (16, 3): (6, 9),
    (16, 5): (10, 15),
    (30, 6): (12, 18),
    (30, 9): (18, 27),
    (50, 10): (20, 30),
    (50, 15): (30, 45),
    (100, 10): (16, 27),
    (100, 20): (30, 60),
    (100, 30): (52, 90),
    (100, 33): (60, 99),
    (1000, 200): (56, 213),
}


@pytest.mark.parametrize(("fleet", "expected"), TABLE.items())
def test_known_table(fleet: tuple[int, int], expected: tuple[int, int]) -> None:
    assert (sample_size(*fleet), sample_size(*fleet, share=1 / 3)) == expected


def tail(n: int, b: int, s: int, least: int) -> Fraction:
    """P(at least `least` attackers among s of the n - 1 others), by counting."""
    ways = sum(comb(b, k) * comb(n - 1 - b, s - k) for k in range(least, s + 1))
    return Fraction(ways, comb(n - 1, s))


fleets = st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1)))


@given(fleet=fleets, share=st.sampled_from([0.25, 1 / 3, 0.5, 1.0]), rounds=st.integers(1, 1000))
@settings(max_examples=100, deadline=None)
def test_sample_size_is_the_smallest_that_keeps_the_promise(
    fleet: tuple[int, int], share: float, rounds: int
) -> None:
    n, b = fleet
    part = Fraction(share).limit_denominator(100)

    def kept(s: int) -> bool:
        bad = -(-part * (s + 1) // 1)  # ceiling
        return (n - b) * rounds * tail(n, b, s, int(bad)) <= Fraction(1, 100)

    s = sample_size(n, b, share, rounds)
    assert not any(kept(smaller) for smaller in range(1, s))
    assert s == n - 1 or kept(s)


@given(fleet=fleets, data=st.data(), failure=st.sampled_from([0.5, 0.01, 1e-6]))
@settings(max_examples=100, deadline=None)
def test_assumed_faulty_is_the_least_upper_bound(
    fleet: tuple[int, int], data: st.DataObject, failure: float
) -> None:
    n, b = fleet
    s = data.draw(st.integers(0, n - 1))
    f = assumed_faulty(n, b, s, rounds=200, failure=failure)
    limit = Fraction(repr(failure)) / ((n - b) * 200)
    assert 0 <= f <= min(b, s)
    assert tail(n, b, s, f + 1) <= limit
    assert f == 0 or tail(n, b, s, f) > limit


@pytest.mark.parametrize("fleet", TABLE)
def test_the_pull_suits_the_default_rule(fleet: tuple[int, int]) -> None:
    s = sample_size(*fleet)
    rule("nna").check(s, assumed_faulty(*fleet, s))


def test_hopeless_fleets_pull_everybody() -> None:
    assert sample_size(10, 6) == 9
    assert assumed_faulty(10, 6, 9) == 6
    assert sample_size(1, 0) == 0
    assert assumed_faulty(1, 0, 0) == 0


def test_no_attackers_need_no_crowd() -> None:
    assert sample_size(100, 0) == 1
    assert assumed_faulty(100, 0, 20) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: sample_size(0, 0),
        lambda: sample_size(5, 5),
        lambda: sample_size(5, -1),
        lambda: sample_size(5, 1, share=0),
        lambda: sample_size(5, 1, share=1.5),
        lambda: sample_size(5, 1, rounds=0),
        lambda: sample_size(5, 1, failure=0),
        lambda: assumed_faulty(5, 1, 5),
        lambda: assumed_faulty(5, 1, -1),
        lambda: assumed_faulty(5, 1, 2, failure=1.0),
    ],
)
def test_impossible_numbers_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match=r"need|must"):
        call()  # type: ignore[operator]


def test_a_thousand_devices_take_milliseconds() -> None:
    module._sample_size.cache_clear()
    module._assumed_faulty.cache_clear()
    times = []
    for attackers in (330, 331, 332):  # none is cached; the best of three forgives a busy machine
        start = time.perf_counter()
        assumed_faulty(1000, attackers, sample_size(1000, attackers, 1 / 3))
        times.append(time.perf_counter() - start)
    assert min(times) < 0.050  # two or three when idle


@pytest.mark.parametrize(
    ("n", "attackers", "name", "expected"),
    [
        (100, 20, "nna", (38, 17)),  # the bound's 30, and one in eight to spare
        (100, 33, "collapse+nna", (75, 33)),
        (30, 9, "nna", (20, 9)),
        (100, 0, "nna", (module.SAMPLE_MIN, 0)),
        (5, 0, "krum", (4, 0)),  # all there are
        (20, 4, "krum", (11, 4)),  # 2f + 3 models, and one to spare
        (7, 2, "krum", (6, 2)),
        (6, 2, "krum", (5, 2)),  # not enough, and there are no more
    ],
)
def test_a_pull_is_as_large_as_the_bound_and_the_rule_ask(
    n: int, attackers: int, name: str, expected: tuple[int, int]
) -> None:
    found = plan(n, attackers, lambda m, f: fits(name, m, f))
    assert found == expected
    assert fits(name, *found) == ((n, name) != (6, "krum"))


def test_a_policy_may_prescribe_sample_and_f() -> None:
    never = plan(20, 4, lambda m, f: False, sample=5, f=1)
    assert never == (5, 1), "as prescribed, whatever the rule needs"
    assert plan(4, 1, lambda m, f: True, sample=9) == (3, 1), "no more than there are"


@pytest.mark.parametrize(
    ("name", "f", "expected"), [("nna", 2, 4), ("krum", 2, 6), ("median", 0, 1), ("no such", 1, 0)]
)
def test_the_fewest_models_that_a_rule_works_with(name: str, f: int, expected: int) -> None:
    assert least(name, f) == expected
    assert expected == 0 or fits(name, expected, f)
    assert expected < 2 or not fits(name, expected - 1, f)
