"""The audit: play against the shipped code, and see whether more leaks than is claimed.

Each canary is one protected thing, a device's data or an example, whose fair coin decides what the
code gets to see. Whoever reads the releases guesses coins, and `onerun` says what epsilon the right
guesses prove. No game can show that a claim holds; each finds another kind of fault:

- present: data or no data. Sees missing noise and a missing clip.
- opposite: two opposite changes at the bound (unit=device). Sees noise made for C instead of 2 C.
- difference: a release less another one of the same device. Sees noise that is used twice.
- retry: the mean of all that goes out when one release is sent again. Sees new noise on a retry.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from gossipfl.parameters import Vector
from gossipfl.privacy import device_unit, record_unit
from gossipfl.privacy.gaussian import epsilon_of
from gossipfl.privacy.onerun import correct_guesses, epsilon_bound
from gossipfl.privacy.pld import Spend, epsilon_of_steps
from gossipfl.privacy.protection import DevicePrivacy, RecordPrivacy, Unit
from gossipfl.privacy.record_unit import ClippedSum, Descent
from gossipfl.privacy.release import Noised
from gossipfl.privacy.stream import KEY_BYTES, Stream

CANARIES = 20_000
GUESSES_SHARE = 0.02
"""Of the canaries, the most extreme. By trial at 20,000: here half the noise shows best."""
RUNS = 5
COPIES = 5  # of a release in the retry game: noise drawn anew is then at less than half
LOUD = 1e3  # clips: how long a canary's change is before it is clipped
COUNT = 4  # parameters of the models of unit=device: the canary's own coordinate, and others

Entropy = Callable[[int], bytes]
Make = Callable[[], Noised]


class Game(StrEnum):
    PRESENT = "present"
    OPPOSITE = "opposite"
    DIFFERENCE = "difference"
    RETRY = "retry"


GAMES = {
    Unit.DEVICE: (Game.PRESENT, Game.OPPOSITE, Game.DIFFERENCE, Game.RETRY),
    Unit.RECORD: (Game.PRESENT, Game.DIFFERENCE, Game.RETRY),
}


def _kept(make: Make, made: Noised) -> Noised:
    """A retry sends what was made."""
    del make
    return made


@dataclass(frozen=True, slots=True)
class Subject:
    """The code under audit. The defaults are what ships; tests put faulty code in their place."""

    device: Callable[[DevicePrivacy, Vector, Vector, bytes], Noised] = device_unit.noised
    record: Callable[[RecordPrivacy, Vector, int, ClippedSum, Descent, bytes], Noised] = (
        record_unit.train
    )
    again: Callable[[Make, Noised], Noised] = _kept


@dataclass(frozen=True, slots=True)
class Canary:
    """unit=record: one example, by whatever computes its clipped gradient at `start`."""

    start: Vector
    clipped_sum: ClippedSum


@dataclass(frozen=True, slots=True)
class Finding:
    """One game: `bounds` of all runs. The claim is disproved if their median is above it."""

    unit: Unit
    game: Game
    claim: float
    bounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.bounds)

    @property
    def holds(self) -> bool:
        return self.median <= self.claim


@dataclass(frozen=True, slots=True)
class Audit:
    """How hard to look."""

    z: float = 2.0
    delta: float = 1e-5
    clip: float = 1.0
    canaries: int = CANARIES
    runs: int = RUNS

    def claim(self, unit: Unit) -> float:
        """epsilon of the one release that each canary is part of."""
        if unit is Unit.DEVICE:
            return epsilon_of(self.delta, 1.0 / self.z)
        return epsilon_of_steps(self.delta, [Spend(self.z, 1.0, 1)])

    def play(
        self, unit: Unit, game: Game, subject: Subject, entropy: Entropy, canary: Canary | None
    ) -> Finding:
        """All runs of one game. `canary` is needed for unit=record."""
        guesses = 2 * max(1, int(self.canaries * GUESSES_SHARE) // 2)
        bounds = []
        for _ in range(self.runs):
            coins = Stream(entropy(KEY_BYTES)).uniform(self.canaries) < 0.5
            if unit is Unit.DEVICE:
                scores = self._device(game, subject, coins, entropy)
            elif canary is not None:
                scores = self._record(game, subject, coins, entropy, canary)
            else:
                raise ValueError("an audit of unit=record needs a canary")
            correct = correct_guesses(scores, coins, guesses)
            bounds.append(epsilon_bound(self.canaries, guesses, correct, self.delta))
        return Finding(unit, game, self.claim(unit), tuple(bounds))

    def _device(
        self, game: Game, subject: Subject, coins: npt.NDArray[np.bool_], entropy: Entropy
    ) -> npt.NDArray[np.float64]:
        """One device a canary; its first coordinate tells."""
        mode = DevicePrivacy(clip=self.clip, z=self.z)
        base = np.zeros(COUNT, np.float32)
        loud = base.copy()
        loud[0] = LOUD * self.clip
        out = base if game is Game.PRESENT else -loud

        def score(made: Noised) -> float:
            return float(made.vector[0])

        def maker(coin: bool) -> Make:
            change = loud if coin else out
            return lambda: subject.device(mode, base, change, entropy(KEY_BYTES))

        def reference() -> Noised:
            return subject.device(mode, base, base, entropy(KEY_BYTES))

        return np.array([_score(game, subject, maker(bool(c)), reference, score) for c in coins])

    def _record(
        self,
        game: Game,
        subject: Subject,
        coins: npt.NDArray[np.bool_],
        entropy: Entropy,
        canary: Canary,
    ) -> npt.NDArray[np.float64]:
        """One device a canary, with no other example; the gradient's direction tells."""
        mode = RecordPrivacy(clip=self.clip, z=self.z, sample_rate=1.0, steps=1, lot=1)
        descent = Descent(learning_rate=1.0)
        gradient = canary.clipped_sum(canary.start, np.array([0], np.intp), self.clip)
        direction = gradient / math.sqrt(float(np.dot(gradient, gradient)))

        def score(made: Noised) -> float:
            return -float(np.dot(direction, made.vector.astype(np.float64) - canary.start))

        def maker(examples: int) -> Make:
            return lambda: subject.record(
                mode, canary.start, examples, canary.clipped_sum, descent, entropy(KEY_BYTES)
            )

        return np.array(
            [_score(game, subject, maker(int(coin)), maker(0), score) for coin in coins]
        )


def _score(
    game: Game, subject: Subject, make: Make, reference: Make, score: Callable[[Noised], float]
) -> float:
    made = make()
    match game:
        case Game.PRESENT | Game.OPPOSITE:
            return score(made)
        case Game.DIFFERENCE:
            return score(made) - score(reference())
        case Game.RETRY:
            copies = [made, *(subject.again(make, made) for _ in range(COPIES - 1))]
            return statistics.fmean(score(copy) for copy in copies)
