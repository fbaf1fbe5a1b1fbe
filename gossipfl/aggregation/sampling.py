"""How many peers to pull, and how many attackers to assume among them: exact, never guessed.

The convention. A fleet of n devices has b attackers and h = n - b honest ones. Each honest device
draws s of its n - 1 peers without replacement, so the attackers in a pull are hypergeometric:
P(k) = C(b, k) C(n-1-b, s-k) / C(n-1, s). A pull is bad when attackers reach `share` of it, the
own model counted in: k >= share * (s + 1). The chance that any of the h * rounds pulls is bad is
bounded by the union bound, h * rounds * P(bad), and that must not exceed `failure`. (Taking the
draws as independent, 1 - (1 - P)^(h * rounds), gives the same numbers for all fleets in the tests.)

All decisions are made in whole numbers; floats only skip sizes that are far off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

SAMPLE_MIN = 8
"""Peers asked even where no attacker is assumed: guess, mixes 100 devices in three rounds."""

SPARE_SHARE = 8
"""One in eight of a pull may be asleep or late, and the rest must still be enough for the rule:
guess, more than churn of 30 % a minute takes. Without it all 18 of a pull of 18 (30 devices, 9
attackers) have to answer, or the round is lost."""

SHARE_DENOMINATOR_MAX = 10_000
"""A share such as 1/3 arrives as a float; it is read as the nearest fraction up to this fine."""


def sample_size(
    n: int, attackers: int, share: float = 0.5, rounds: int = 200, failure: float = 0.01
) -> int:
    """The smallest s so that attackers stay below `share` of every pull, own model counted in.

    n devices, `attackers` of them hostile; the promise holds for all honest devices over `rounds`
    rounds except with probability `failure` (200 rounds and 1 %: a long run, a guess). Where no s
    keeps it, n - 1: pull everybody. Raises ValueError if the numbers make no fleet.
    """
    _check(n, attackers, rounds, failure)
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    return _sample_size(n, attackers, share, rounds, failure)


def assumed_faulty(n: int, attackers: int, s: int, rounds: int = 200, failure: float = 0.01) -> int:
    """f: the most attackers that a pull of s holds, except with probability `failure` (as above).

    The smallest f with h * rounds * P(k > f) <= failure. Raises ValueError unless 0 <= s < n.
    """
    _check(n, attackers, rounds, failure)
    if not 0 <= s < n:
        raise ValueError(f"s must be in 0..{n - 1}, got {s}")
    return _assumed_faulty(n, attackers, s, rounds, failure)


def plan(
    n: int,
    attackers: int,
    fits: Callable[[int, int], bool],
    sample: int | None = None,
    f: int | None = None,
) -> tuple[int, int]:
    """(s, f) of a pull in a fleet of n devices: how many peers, and how many liars among them.

    s is the exact bound's, SAMPLE_MIN at least, and more where the rule needs more models for its
    f: the first for which fits(s - s // SPARE_SHARE, f), everybody if there is none. `sample` and
    `f` are what a policy prescribes instead. Raises ValueError if the numbers make no fleet.
    """
    others = n - 1
    wanted = sample
    if wanted is None:
        wanted = max(sample_size(n, attackers) if attackers else 1, SAMPLE_MIN)
    size = min(wanted, others)
    while True:
        faulty = f if f is not None else assumed_faulty(n, attackers, size)
        if size >= others or sample is not None or fits(size - size // SPARE_SHARE, faulty):
            return size, faulty
        size += 1


def _check(n: int, attackers: int, rounds: int, failure: float) -> None:
    if n < 1 or not 0 <= attackers < n:
        raise ValueError(f"need 0 <= attackers < n, got {attackers} of {n}")
    if rounds < 1 or not 0 < failure < 1:
        raise ValueError(f"need rounds >= 1 and 0 < failure < 1, got {rounds} and {failure}")


def _per_pull(n: int, attackers: int, rounds: int, failure: float) -> Fraction:
    """The greatest probability of one bad pull that the union bound leaves room for."""
    return Fraction(repr(failure)) / ((n - attackers) * rounds)


@lru_cache(maxsize=1024)  # nodes ask again each round, with a fleet that rarely changes
def _sample_size(n: int, attackers: int, share: float, rounds: int, failure: float) -> int:
    limit = _per_pull(n, attackers, rounds, failure)
    part = Fraction(share).limit_denominator(SHARE_DENOMINATOR_MAX)
    others, log_limit = n - 1, math.log(limit)
    for s in range(1, n):
        bad = math.ceil(part * (s + 1))
        if bad > min(attackers, s):
            return s
        if others - attackers < s - bad:
            continue  # fewer attackers than `bad` cannot even happen
        log_first = (
            _log_comb(attackers, bad)
            + _log_comb(others - attackers, s - bad)
            - _log_comb(others, s)
        )
        if log_first > log_limit + 1e-6:  # lgamma errs by far less
            continue
        if _tail_within(others, attackers, s, bad, limit):
            return s
    return n - 1


@lru_cache(maxsize=1024)
def _assumed_faulty(n: int, attackers: int, s: int, rounds: int, failure: float) -> int:
    limit = _per_pull(n, attackers, rounds, failure)
    others = n - 1
    allowed = limit.numerator * math.comb(others, s)
    top = min(attackers, s)
    bottom = max(0, s - (others - attackers))
    tail = 0
    for k in range(top, bottom, -1):
        tail += _ways(others, attackers, s, k)
        if tail * limit.denominator > allowed:
            return k
    return bottom


def _tail_within(others: int, attackers: int, s: int, bad: int, limit: Fraction) -> bool:
    """Whether P(k >= bad) <= limit, in whole numbers, from the largest term on."""
    allowed = limit.numerator * math.comb(others, s)
    tail = 0
    for k in range(bad, min(attackers, s) + 1):
        tail += _ways(others, attackers, s, k)
        if tail * limit.denominator > allowed:
            return False
    return True


def _ways(others: int, attackers: int, s: int, k: int) -> int:
    """Draws of s that hold exactly k attackers."""
    return math.comb(attackers, k) * math.comb(others - attackers, s - k)


def _log_comb(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
