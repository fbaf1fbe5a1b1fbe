"""The closed form against 60-digit arithmetic, dp-accounting, and learning's table of z."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.privacy.gaussian import (
    compose,
    delta_of,
    epsilon_of,
    mu_within,
    multiplier_for,
)
from sim.bench.accountant import device

# (releases, epsilon) -> z at delta = 1e-5, three digits.
TABLE = {
    (10, 8.0): 1.90,
    (10, 4.0): 3.42,
    (10, 1.0): 11.8,
    (100, 8.0): 6.01,
    (100, 4.0): 10.8,
    (100, 1.0): 37.3,
    (200, 8.0): 8.49,
    (200, 4.0): 15.3,
    (200, 1.0): 52.8,
}


def exact(epsilon: float, mu: float) -> Any:
    """delta(epsilon) with 60 digits."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        e, m = mpmath.mpf(epsilon), mpmath.mpf(mu)
        upper = mpmath.ncdf(-e / m + m / 2)
        return upper - mpmath.exp(e) * mpmath.ncdf(-e / m - m / 2)


@pytest.mark.parametrize(("key", "z"), TABLE.items())
def test_the_table_of_multipliers(key: tuple[int, float], z: float) -> None:
    digit = 0.01 if z < 10 else 0.1  # the table's last
    assert abs(multiplier_for(key[0], key[1], 1e-5) - z) < digit


@pytest.mark.parametrize("mu", [1e-6, 1e-3, 0.05, 0.5, 1.0, 3.0, 10.0, 40.0, 1000.0])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0, 1.5, 3.0])
def test_delta_agrees_with_sixty_digits(mu: float, share: float) -> None:
    epsilon = share * (mu * mu / 2 + 5 * mu)
    wanted = exact(epsilon, mu)
    if wanted < 1e-290:
        assert delta_of(epsilon, mu) < 1e-280
    else:
        # The argument's last digit is worth x^2 / 10^16 of the answer.
        far = epsilon / mu + mu
        assert delta_of(epsilon, mu) == pytest.approx(float(wanted), rel=1e-12 + far**2 * 1e-15)


def test_a_thousand_random_schedules_are_never_below_the_exact_value_and_hardly_above() -> None:
    rng = random.Random(1)
    seen = 0
    while seen < 1000:
        releases = [rng.uniform(0.5, 60.0) for _ in range(rng.randint(1, 300))]
        delta = 10.0 ** rng.uniform(-12, -3)
        mu = compose(releases)
        epsilon = epsilon_of(delta, mu)
        if epsilon > 50 or epsilon == 0:
            continue
        seen += 1
        assert exact(epsilon, mu) <= delta
        assert exact(epsilon * (1 - 1e-9), mu) > delta


def test_epsilon_is_that_of_an_independent_accountant() -> None:
    """A thousand schedules: script/bench accountant."""
    pytest.importorskip("dp_accounting")
    found = device(20, seed=3)
    assert found["over_a_thousandth"] == 0
    assert found["below_closed_form"] == 0


@given(st.floats(1e-3, 100.0), st.floats(1e-12, 0.5))
def test_more_noise_never_costs_more(mu: float, delta: float) -> None:
    assert epsilon_of(delta, mu) <= epsilon_of(delta, mu * 1.01) + 1e-12
    assert epsilon_of(delta, mu) <= epsilon_of(delta / 2, mu) + 1e-12


@given(st.floats(1e-3, 60.0), st.floats(1e-12, 0.1))
def test_mu_and_epsilon_are_each_others_inverse(epsilon: float, delta: float) -> None:
    mu = mu_within(epsilon, delta)
    assert delta_of(epsilon, mu) <= delta
    assert epsilon_of(delta, mu) <= epsilon * (1 + 1e-9) + 1e-12
    assert epsilon_of(delta, mu * (1 + 1e-6)) > epsilon * (1 - 1e-9)


def test_small_budgets_are_kept_to_the_last_digit() -> None:
    """Once the difference of two nearly equal numbers put delta a digit too low."""
    rng = random.Random(9)
    for _ in range(300):
        epsilon, delta = 10.0 ** rng.uniform(-3, 0), 10.0 ** rng.uniform(-12, -1)
        mu = mu_within(epsilon, delta)
        assert delta_of(epsilon, mu) <= delta
        assert exact(epsilon, mu) <= delta
        assert exact(epsilon, mu * (1 + 1e-6)) > delta


@pytest.mark.parametrize("mu", [0.0, 1e-300, 1e-9, 1e6, 1e154, 1e200, math.inf])
def test_extreme_values_give_answers_and_no_exception(mu: float) -> None:
    epsilon = epsilon_of(1e-5, mu)
    assert epsilon >= 0.0
    assert not math.isnan(epsilon)
    assert (mu < 1) == (epsilon < 10)


def test_no_release_costs_nothing_and_a_delta_of_nothing_is_refused() -> None:
    assert compose([]) == 0.0
    assert epsilon_of(1e-5, compose([])) == 0.0
    for delta in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="delta is"):
            epsilon_of(delta, 1.0)
    with pytest.raises(ValueError, match="releases"):
        multiplier_for(0, 1.0, 1e-5)
