"""What a privacy budget buys, before anything is spent: noise, rounds, and whether it can work.

The signal counted here is the most there can be: every device's clipped change points the same way
each time. Real training keeps a part of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from gossipfl.privacy.gaussian import epsilon_of, mu_within, multiplier_for
from gossipfl.privacy.pld import Spend, epsilon_of_steps
from gossipfl.privacy.protection import STEPS_MAX, Z_MAX, Z_MIN, Unit

Z_DIGITS = 3  # significant digits of a proposed z, rounded up
EPSILON_HIGH = 10.0  # guess: e^10 is 22,026 to 1, hardly a promise
# Total signal to noise. Measured on three small jobs (docs/results/privacy-utility.md): below 0.3
# it stayed near chance, at 2 it learnt a third or less of what there is beyond guessing, at 4 six
# tenths, from 12 to 14 noise cost up to 9 points, at 24 four, at 39 two. Guess for other jobs.
USELESS_BELOW = 0.5
DOUBTFUL_BELOW = 3.0
GOOD_FROM = 30.0


class Verdict(StrEnum):
    UNKNOWN = "unknown"  # the model's size or the number of devices was not given
    USELESS = "useless"
    DOUBTFUL = "doubtful"
    PART = "part"
    GOOD = "good"


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator would like. `steps`, `lot` and `sample_rate` matter to unit=record alone."""

    rounds: int
    epsilon: float
    delta: float
    unit: Unit
    clip: float = 1.0
    z: float | None = None  # None: the least that fits
    sample_rate: float = 1.0
    steps: int = 1  # a round
    lot: int = 32
    devices: int | None = None
    parameters: int | None = None

    def __post_init__(self) -> None:
        limits = (
            ("rounds", self.rounds, 1, STEPS_MAX),
            ("epsilon", self.epsilon, 1e-3, 1e3),
            ("delta", self.delta, 1e-15, 0.1),
            ("clip", self.clip, 1e-6, 1e6),
            ("z", self.z, Z_MIN, Z_MAX),
            ("sample rate", self.sample_rate, 1e-6, 1.0),
            ("steps", self.steps, 1, STEPS_MAX),
            ("lot", self.lot, 1, 65_536),
            ("devices", self.devices, 1, 100_000),
            ("parameters", self.parameters, 1, 2**32),
            ("rounds times steps", self.rounds * self.steps, 1, STEPS_MAX),
        )
        for what, value, low, high in limits:
            if value is not None and not low <= value <= high:
                raise ValueError(f"{what} is {value:g}, allowed {low:g} to {high:g}")


@dataclass(frozen=True, slots=True)
class Plan:
    z: float
    sigma: float  # deviation of the noise in each coordinate, of the model or of a step's sum
    clip: float
    clip_advice: str
    epsilon: float  # after all rounds that were asked for
    rounds_affordable: int  # within the budget, with this z
    signal_to_noise: float | None  # over all affordable rounds, in the average of all devices
    devices_needed: int | None  # for a signal that is worth it, DOUBTFUL_BELOW
    verdict: Verdict
    sentence: str


CLIP_ADVICE = {
    Unit.DEVICE: "about half the length of one round's change, measured on public or made-up data "
    "(never on private data: that would leak); shorter means less noise and slower learning",
    Unit.RECORD: "about the median length of one example's gradient, measured on public or made-up "
    "data; 1.0 is a usual start; halve it rather than lower z",
}


def plan(wish: Wish) -> Plan:
    """The noise that the wish needs and what comes of it. Raises ValueError if none would do."""
    z = wish.z or _least_z(wish)
    affordable = _affordable(wish, z)
    rounds = min(wish.rounds, affordable)
    ratio = _signal_to_noise(wish, z, rounds)
    verdict = _verdict(ratio, affordable)
    needed = None
    if ratio and wish.devices:
        needed = math.ceil(wish.devices * (DOUBTFUL_BELOW / ratio) ** 2)
    return Plan(
        z=z,
        sigma=(2.0 if wish.unit is Unit.DEVICE else 1.0) * z * wish.clip,
        clip=wish.clip,
        clip_advice=CLIP_ADVICE[wish.unit],
        epsilon=_epsilon(wish, z, wish.rounds),
        rounds_affordable=affordable,
        signal_to_noise=ratio,
        devices_needed=needed,
        verdict=verdict,
        sentence=_sentence(wish, verdict, ratio, affordable, needed),
    )


def _epsilon(wish: Wish, z: float, rounds: int) -> float:
    if wish.unit is Unit.DEVICE:
        return epsilon_of(wish.delta, math.sqrt(rounds) / z)
    return epsilon_of_steps(wish.delta, [Spend(z, wish.sample_rate, rounds * wish.steps)])


def _least_z(wish: Wish) -> float:
    if wish.unit is Unit.DEVICE:
        exact = multiplier_for(wish.rounds, wish.epsilon, wish.delta)
    else:
        exact = _bisect(lambda z: _epsilon(wish, z, wish.rounds) <= wish.epsilon, Z_MIN, Z_MAX)
    if exact > Z_MAX:
        raise ValueError(f"z would be {exact:g}, allowed up to {Z_MAX:g}")
    return max(Z_MIN, _rounded_up(exact))


def _bisect(fits: Callable[[float], bool], low: float, high: float) -> float:
    """The least value in [low, high] that fits, to a thousandth, from above."""
    if fits(low):
        return low
    trial = 2.0 * low
    while not fits(trial):  # from small to large: large z are quick, very large ones are rare
        low, trial = trial, 2.0 * trial
        if low > high:
            raise ValueError("no noise is enough for this budget")
    high = trial
    while high / low > 1.0 + 1e-3:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _rounded_up(value: float) -> float:
    digits = Z_DIGITS - 1 - math.floor(math.log10(value))
    return round(math.ceil(value * 10.0**digits - 1e-9) * 10.0**-digits, 12)


def _affordable(wish: Wish, z: float) -> int:
    """Rounds within the budget, at most STEPS_MAX steps."""
    most = STEPS_MAX // (wish.steps if wish.unit is Unit.RECORD else 1)
    if wish.unit is Unit.DEVICE:
        exact = (mu_within(wish.epsilon, wish.delta) * z) ** 2
        return min(most, math.floor(exact * (1.0 + 1e-9)))
    low, high = 0, 1
    while high <= most and _epsilon(wish, z, high) <= wish.epsilon:
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > max(1, low // 500):  # a fifth of a percent: each look costs an FFT
        middle = (low + high) // 2
        low, high = (middle, high) if _epsilon(wish, z, middle) <= wish.epsilon else (low, middle)
    return low


def _signal_to_noise(wish: Wish, z: float, rounds: int) -> float | None:
    if wish.devices is None or wish.parameters is None:
        return None
    per_noise = 1.0 / (z * math.sqrt(wish.parameters))
    if wish.unit is Unit.DEVICE:
        return per_noise / 2.0 * math.sqrt(wish.devices * rounds)
    return per_noise * wish.lot * math.sqrt(wish.devices * rounds * wish.steps)


def _verdict(ratio: float | None, affordable: int) -> Verdict:
    if affordable == 0:
        return Verdict.USELESS
    if ratio is None:
        return Verdict.UNKNOWN
    if ratio < USELESS_BELOW:
        return Verdict.USELESS
    if ratio < DOUBTFUL_BELOW:
        return Verdict.DOUBTFUL
    return Verdict.PART if ratio < GOOD_FROM else Verdict.GOOD


def _sentence(
    wish: Wish, verdict: Verdict, ratio: float | None, affordable: int, needed: int | None
) -> str:
    if affordable == 0:
        return "This cannot work: the budget does not pay for a single round with so little noise."
    match verdict:
        case Verdict.UNKNOWN:
            text = "Whether it can work is open: say --devices and --parameters."
        case Verdict.USELESS:
            text = (
                f"This cannot work: the noise is {1.0 / (ratio or 1.0):.0f} times as long as all "
                f"that the fleet could learn. About {needed} devices would be needed, or a smaller "
                "model"
            ) + (", or unit=record." if wish.unit is Unit.DEVICE else ", or a larger lot.")
        case Verdict.DOUBTFUL:
            text = (
                "This will hardly work: noise and learning are about equal, expect a poor model. "
                f"About {needed} devices would be needed for a useful one."
            )
        case Verdict.PART:
            text = (
                "This can work, with a worse model than without noise: try it on public data, "
                "beside what a device learns alone, which needs no noise."
            )
        case Verdict.GOOD:
            text = "This can work, and noise should cost little: try it on public data."
    if affordable < wish.rounds:
        text += f" The budget pays for {affordable} of the {wish.rounds} rounds; then devices only"
        text += " listen."
    if wish.epsilon > EPSILON_HIGH:
        text += f" An epsilon of {wish.epsilon:g} is a weak promise."
    return text
