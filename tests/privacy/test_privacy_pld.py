"""The accountant of DP-SGD: never optimistic, hardly pessimistic, quick, and sane at the ends."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipfl.privacy.gaussian import epsilon_of
from gossipfl.privacy.pld import Spend, epsilon_of_steps
from sim.bench.accountant import oracle, record

DELTA = 1e-5


@pytest.mark.slow
def test_epsilon_lies_between_the_estimates_of_an_independent_accountant() -> None:
    """Forty schedules here, a thousand with script/bench accountant."""
    pytest.importorskip("dp_accounting")
    found = record(40, seed=3)
    assert found["below_optimistic"] == 0
    assert found["worst_above_pessimistic"] < 0.01


@pytest.mark.parametrize(
    ("z", "rate", "steps", "epsilon"),
    [
        # dp-accounting 0.6.0, connect-the-dots, interval 10^-5 (10^-6 for the last two)
        (1.0, 0.01, 1000, 1.8282),
        (0.8, 0.05, 500, 12.035),
        (2.0, 0.1, 200, 3.3597),
        (1.2, 0.1, 200, 7.2128),
        (0.6, 0.001, 5000, 2.0549),
        (1.0, 1e-4, 10_000, 0.0380),
    ],
)
def test_known_values(z: float, rate: float, steps: int, epsilon: float) -> None:
    assert epsilon_of_steps(DELTA, [Spend(z, rate, steps)]) == pytest.approx(epsilon, rel=2e-3)


def direct_delta(epsilon: float, z: float, rate: float, there: bool) -> float:
    """One step's delta by integration, without any grid of losses."""
    count, reach = 400_000, 12.0 * z + 1.0
    width = 2.0 * reach / count
    total = []
    for k in range(count):
        x = -reach + (k + 0.5) * width
        q = math.exp(-x * x / (2 * z * z))
        p = (1 - rate) * q + rate * math.exp(-((x - 1) ** 2) / (2 * z * z))
        mine, theirs = (p, q) if there else (q, p)
        total.append(max(0.0, mine - math.exp(epsilon) * theirs))
    return math.fsum(total) * width / (z * math.sqrt(2 * math.pi))


@pytest.mark.parametrize(("z", "rate"), [(1.0, 0.1), (0.5, 0.01), (3.0, 0.9)])
def test_one_step_is_the_integral_it_should_be(z: float, rate: float) -> None:
    epsilon = epsilon_of_steps(DELTA, [Spend(z, rate, 1)])
    worst = max(direct_delta(epsilon, z, rate, there) for there in (True, False))
    assert worst <= DELTA
    slightly_less = epsilon * 0.999
    worst = max(direct_delta(slightly_less, z, rate, there) for there in (True, False))
    assert worst > DELTA


def test_without_sampling_it_is_the_closed_form() -> None:
    spends = [Spend(3.0, 1.0, 7), Spend(5.0, 1.0, 2)]
    assert epsilon_of_steps(DELTA, spends) == epsilon_of(DELTA, math.sqrt(7 / 9 + 2 / 25))
    almost = [Spend(3.0, 0.999999, 7), Spend(5.0, 1.0, 2)]
    assert epsilon_of_steps(DELTA, almost) == pytest.approx(epsilon_of_steps(DELTA, spends), 1e-3)


@settings(max_examples=12, deadline=None)
@given(
    st.floats(0.4, 20.0),
    st.floats(1e-3, 1.0),
    st.integers(1, 3000),
    st.floats(1e-10, 1e-2),
)
def test_sampling_and_noise_help_and_steps_cost(
    z: float, rate: float, steps: int, delta: float
) -> None:
    spent = epsilon_of_steps(delta, [Spend(z, rate, steps)])
    unsampled = epsilon_of(delta, math.sqrt(steps) / z)
    assert 0.0 <= spent <= unsampled * 1.001
    assert epsilon_of_steps(delta, [Spend(z, rate, steps + 1 + steps // 10)]) >= spent * 0.999
    assert epsilon_of_steps(delta, [Spend(z * 1.1, rate, steps)]) <= spent * 1.001
    assert epsilon_of_steps(delta * 2, [Spend(z, rate, steps)]) <= spent * 1.001


@pytest.mark.parametrize(
    "spends",
    [
        [Spend(0.25, 1.0, 3), Spend(1.0, 0.5, 2)],
        [Spend(0.12, 1.0, 1), Spend(2.0, 0.5, 2)],
        [Spend(4.0, 1.0, 10), Spend(1.2, 0.1, 100)],
        [Spend(0.5, 1.0, 1), Spend(0.8, 0.001, 1000)],
        [Spend(0.12, 0.9999, 1)],
    ],
)
@pytest.mark.parametrize("delta", [1e-5, 1e-10])
def test_releases_of_a_whole_device_and_steps_compose(spends: list[Spend], delta: float) -> None:
    """A ledger may hold both; large losses must not get lost in 1 - 1."""
    pytest.importorskip("dp_accounting")
    ours = epsilon_of_steps(delta, spends)
    assert ours == pytest.approx(oracle(delta, spends, 1e-3), rel=0.01)


def test_the_order_and_the_cut_of_phases_do_not_matter() -> None:
    whole = [Spend(1.0, 0.05, 100), Spend(2.0, 0.2, 40)]
    pieces = [Spend(2.0, 0.2, 30), Spend(1.0, 0.05, 60), Spend(2.0, 0.2, 10), Spend(1.0, 0.05, 40)]
    assert epsilon_of_steps(DELTA, whole) == epsilon_of_steps(DELTA, pieces)


@pytest.mark.parametrize(
    "spend",
    [
        Spend(0.26, 1e-6, 1_000_000),
        Spend(1e5, 1e-6, 1_000_000),
        Spend(1e5, 1.0, 1),
        Spend(0.25, 0.999, 1000),
        Spend(1e-3, 0.5, 3),
        Spend(50.0, 0.5, 1_000_000),
    ],
)
def test_the_ends_of_the_range_give_a_number(spend: Spend) -> None:
    epsilon = epsilon_of_steps(1e-6, [spend])
    assert 0.0 <= epsilon <= epsilon_of(1e-6, math.sqrt(spend.steps) / spend.z) * 1.001


def test_nothing_spent_is_nothing() -> None:
    assert epsilon_of_steps(DELTA, []) == 0.0
    assert epsilon_of_steps(DELTA, [Spend(1.0, 0.1, 0)]) == 0.0


@pytest.mark.parametrize(
    ("z", "rate", "steps"), [(0.0, 0.1, 1), (1.0, 0.0, 1), (1.0, 1.1, 1), (1.0, 0.1, -1)]
)
def test_a_spend_that_makes_no_sense_is_refused(z: float, rate: float, steps: int) -> None:
    with pytest.raises(ValueError, match="no spend"):
        Spend(z, rate, steps)
