"""Our epsilon beside that of dp-accounting, an independent accountant, on random schedules.

Device unit: up to five noise multipliers, up to 300 releases. Record unit: one to three phases of
DP-SGD. delta from 10^-8 to 10^-3; schedules that cost more than 50 are drawn again.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from gossipfl.errors import UserError
from gossipfl.privacy.gaussian import compose, epsilon_of
from gossipfl.privacy.pld import Spend, epsilon_of_steps
from sim.bench.report import Figures, progress

EPSILON_MAX = 50.0
EPSILON_MIN = 1e-3  # below, nobody plans
REPORT_EVERY = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--schedules", type=int, default=1000, metavar="N", help="of each unit")
    parser.add_argument("--seed", type=int, default=1)


def run(args: Namespace) -> Figures:
    """Worst and typical ratios, and how many broke a bound (0 of each, if all is well)."""
    return {
        "schedules": args.schedules,
        "seed": args.seed,
        "device": device(args.schedules, args.seed),
        "record": record(args.schedules, args.seed),
    }


def device(count: int, seed: int) -> dict[str, Any]:
    """Closed form against PLD, and against the same formula with 50 digits."""
    ratios, below, took = [], 0, 0.0
    for number, (releases, delta) in enumerate(_drawn(count, seed, _device_schedule)):
        began = time.perf_counter()
        mu = compose(releases)
        ours = epsilon_of(delta, mu)
        took += time.perf_counter() - began
        spends = [Spend(z, 1.0, releases.count(z)) for z in sorted(set(releases))]
        ratios.append(ours / oracle(delta, spends, _interval(ours, len(releases))))
        below += exceeds_delta(ours, mu, delta)
        _tell("device", number, count)
    return {
        "worst_off": max(abs(ratio - 1.0) for ratio in ratios),
        "over_a_thousandth": sum(abs(ratio - 1.0) > 1e-3 for ratio in ratios),
        "below_closed_form": below,
        "ms_each": round(1000 * took / count, 3),
    }


def record(count: int, seed: int) -> dict[str, Any]:
    """Ours between dp-accounting's optimistic and pessimistic estimates."""
    over, below, took = [], 0, 0.0
    for number, (spends, delta) in enumerate(_drawn(count, seed, _record_schedule)):
        began = time.perf_counter()
        ours = epsilon_of_steps(delta, spends)
        took += time.perf_counter() - began
        interval = _interval(ours, sum(spend.steps for spend in spends))
        over.append(ours / oracle(delta, spends, interval))
        below += ours < oracle(delta, spends, interval, pessimistic=False)
        _tell("record", number, count)
    return {
        "below_optimistic": below,
        "over_a_tenth_above_pessimistic": sum(ratio > 1.1 for ratio in over),
        "worst_above_pessimistic": max(over) - 1.0,
        "median_above_pessimistic": statistics.median(over) - 1.0,
        "lowest_above_pessimistic": min(over) - 1.0,
        "ms_each": round(1000 * took / count, 3),
    }


def _device_schedule(rng: random.Random) -> tuple[list[float], float, float]:
    kinds = [math.exp(rng.uniform(math.log(0.5), math.log(60.0))) for _ in range(5)]
    releases = [rng.choice(kinds) for _ in range(int(math.exp(rng.uniform(0.0, math.log(300.0)))))]
    delta = 10.0 ** rng.uniform(-8.0, -3.0)
    return releases, delta, epsilon_of(delta, compose(releases))


def _record_schedule(rng: random.Random) -> tuple[list[Spend], float, float]:
    spends = [
        Spend(
            math.exp(rng.uniform(math.log(0.4), math.log(10.0))),
            math.exp(rng.uniform(math.log(1e-3), 0.0)),
            int(math.exp(rng.uniform(0.0, math.log(5000.0)))),
        )
        for _ in range(rng.choice((1, 1, 2, 3)))
    ]
    delta = 10.0 ** rng.uniform(-8.0, -3.0)
    return spends, delta, epsilon_of_steps(delta, spends)


def _drawn(
    count: int, seed: int, draw: Callable[[random.Random], tuple[Any, float, float]]
) -> list[tuple[Any, float]]:
    rng = random.Random(seed)
    found: list[tuple[Any, float]] = []
    while len(found) < count:
        schedule, delta, epsilon = draw(rng)
        if EPSILON_MIN <= epsilon <= EPSILON_MAX:
            found.append((schedule, delta))
    return found


def _interval(epsilon: float, steps: int) -> float:
    """The oracle's grid: fine enough for its own error to be a fraction of ours."""
    return min(1e-3, max(1e-5, epsilon / 200.0 / math.sqrt(steps)))


def oracle(delta: float, spends: list[Spend], interval: float, pessimistic: bool = True) -> float:
    """dp-accounting's epsilon. Raises UserError GF106 if it is not installed."""
    try:
        from dp_accounting.pld import privacy_loss_distribution
    except ImportError:
        hint = "pip install 'gossipfl[oracles]'"
        raise UserError("GF106", "dp-accounting, the independent accountant", hint) from None
    logging.getLogger().setLevel(logging.ERROR)  # it warns of its choice of algorithm every time
    total: Any = None
    for spend in spends:
        one = privacy_loss_distribution.from_gaussian_mechanism(
            spend.z,
            sampling_prob=spend.rate,
            value_discretization_interval=interval,
            pessimistic_estimate=pessimistic,
        ).self_compose(spend.steps)
        total = one if total is None else total.compose(one)
    return float(total.get_epsilon_for_delta(delta))


def exceeds_delta(epsilon: float, mu: float, delta: float) -> bool:
    """Is `epsilon` below the closed form's, by the formula with 50 digits?"""
    import mpmath  # comes with dp-accounting

    with mpmath.workdps(50):
        e, m = mpmath.mpf(epsilon), mpmath.mpf(mu)
        found = mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m)
        return bool(found > delta)


def _tell(unit: str, number: int, count: int) -> None:
    if (number + 1) % REPORT_EVERY == 0:
        progress(f"{unit}: {number + 1} of {count}")
