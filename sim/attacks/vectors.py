"""Attacks on the model itself: a vector that is no honest training's result.

Sources: sign flip, Gaussian: Blanchard 2017 (arXiv 1703.02757); ALIE: Baruch 2019 (1902.06156);
inner product, "FOE": Xie 2019 (1903.03936); dissensus: He, Karimireddy and Jaggi 2022 (2202.01545);
mimic: Karimireddy 2022 (2006.09365). Strengths are those of the design's probes unless said.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gossipfl.parameters import Vector
from sim.attacks.base import Attack, Sight

FOE_STRENGTH = 11.0
"""One such liar among six honest turns a plain mean around."""
FLIP_STRENGTH = 4.0
ALIE_DEVIATIONS = 1.5  # the paper's experiments
DISSENSUS_STRENGTH = 1.5  # 1 cancels what the honest neighbours would pull
GAUSSIAN_SCALE = 1.0  # guess: several times the weights of a small network
DRIP_DEVIATIONS = 0.3  # guess: well inside what honest models differ by
POWER_STEPS = 8  # guess: the direction need not be exact


def _add(vector: Vector, times: float, direction: Vector) -> Vector:
    found: Vector = vector + np.float32(times) * direction
    return found


class SignFlip(Attack):
    """publishes the negative of the honest mean: -h"""

    name = "sign_flip"

    def lie(self, sight: Sight) -> Vector:
        return -sight.mean


class SignFlipStep(Attack):
    """walks four honest steps the other way: before - 4 D"""

    name = "sign_flip_step"

    def lie(self, sight: Sight) -> Vector:
        return _add(sight.before, -FLIP_STRENGTH, sight.step)


class Foe(Attack):
    """inner product manipulation: before - e D with e = 11, or the `strength` that is given"""

    name = "foe"

    def __init__(self, *, strength: float = FOE_STRENGTH, **common: Any) -> None:
        super().__init__(**common)
        self.strength = strength

    def lie(self, sight: Sight) -> Vector:
        return _add(sight.before, -self.strength, sight.step)


class Alie(Attack):
    """a little is enough: h - 1.5 s in every coordinate, inside the honest cloud"""

    name = "alie"
    looks_honest = True

    def lie(self, sight: Sight) -> Vector:
        return _add(sight.mean, -ALIE_DEVIATIONS, sight.spread)


class Dissensus(Attack):
    """pushes each victim away from the others, by 1.5 times what they would pull it together"""

    name = "dissensus"
    per_victim = True

    def lie(self, sight: Sight) -> Vector:
        """Towards nobody in particular: towards the victim whose turn it is."""
        row = sight.victim
        if row is None:
            row = (sight.attacker + sight.round) % len(sight.honest)
        model = sight.honest[row]
        share = DISSENSUS_STRENGTH * len(sight.honest) / max(1, sight.attackers)
        return _add(model, -share, sight.mean - model)


class Mimic(Attack):
    """all liars copy one honest device for ever, the one that sticks out most"""

    name = "mimic"
    looks_honest = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self._target: int | None = None  # its name in `who`
        self._last: Vector | None = None
        self._round = -1

    def lie(self, sight: Sight) -> Vector:
        if sight.round != self._round or self._last is None:
            self._round = sight.round
            self._last = self._follow(sight)
        return self._last

    def _follow(self, sight: Sight) -> Vector:
        models = sight.honest if sight.copies is None else sight.copies
        if self._target is not None and self._target in sight.who:
            row = list(sight.who).index(self._target)
        elif self._last is not None and not sight.who:
            distances = models - self._last
            row = int(np.einsum("ij,ij->i", distances, distances).argmin())
        else:
            row = self._most_extreme(models)
        if sight.who:
            self._target = sight.who[row]
        found: Vector = models[row].copy()
        return found

    def _most_extreme(self, models: Any) -> int:
        """The row that lies farthest along the direction in which the rows differ most."""
        centred = models - models.mean(axis=0, dtype=np.float32)
        weights = np.random.default_rng(self.seed & 0x7FFFFFFF).standard_normal(len(models))
        for _ in range(POWER_STEPS):
            weights = centred @ (centred.T @ weights.astype(np.float32))
            weights /= max(float(np.linalg.norm(weights)), 1e-30)
        return int(np.abs(weights).argmax())


class Gaussian(Attack):
    """the honest mean plus Gaussian noise of deviation 1 in every coordinate"""

    name = "gaussian"

    def lie(self, sight: Sight) -> Vector:
        draw = np.random.default_rng([self.seed & 0x7FFFFFFF, sight.round, sight.attacker, 2])
        return _add(sight.mean, GAUSSIAN_SCALE, draw.standard_normal(sight.mean.shape, np.float32))


class Zero(Attack):
    """publishes a model of nothing but zeros"""

    name = "zero"

    def lie(self, sight: Sight) -> Vector:
        return np.zeros_like(sight.before)


class NotANumber(Attack):
    """publishes NaN in every coordinate, past its own checks"""

    name = "nan"
    is_forged = True

    def lie(self, sight: Sight) -> Vector:
        return np.full_like(sight.before, np.nan)

    def noised(self, lie: Vector, sight: Sight) -> Vector:
        return lie


class Infinite(NotANumber):
    """publishes infinity in every coordinate, past its own checks"""

    name = "inf"

    def lie(self, sight: Sight) -> Vector:
        return np.full_like(sight.before, np.inf)


class StaleReplay(Attack):
    """publishes the model of its first round again and again under new numbers"""

    name = "stale_replay"
    looks_honest = True
    needs_own = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self._first: dict[int, Vector] = {}

    def lie(self, sight: Sight) -> Vector:
        return self._first.setdefault(sight.attacker, sight.own)


class Equivocation(Attack):
    """shows half of the askers an inner product lie and the others an honest model"""

    name = "equivocation"
    needs_own = True
    per_victim = True

    def lie(self, sight: Sight) -> Vector:
        if sight.asker is not None and self.face(sight.asker) is None:
            return sight.own
        return _add(sight.before, -FOE_STRENGTH, sight.step)

    def face(self, asker: int) -> int | None:
        return asker % 2 or None


class FreeRider(Attack):
    """never trains: publishes some other device's model of this round as its own"""

    name = "free_rider"
    looks_honest = True

    def lie(self, sight: Sight) -> Vector:
        models = sight.honest if sight.copies is None else sight.copies
        found: Vector = models[(7 * sight.attacker + sight.round) % len(models)].copy()
        return found


class SelectiveSilence(Attack):
    """answers half of the askers and leaves the others waiting; what it says is honest"""

    name = "selective_silence"
    looks_honest = True
    needs_own = True

    def lie(self, sight: Sight) -> Vector:
        return sight.own

    def answers(self, asker: int) -> bool:
        return asker % 2 == 0


class SlowDrip(Attack):
    """h plus 0.3 s, always in the direction that undoes the fleet's first step"""

    name = "slow_drip"
    looks_honest = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self._direction: Vector | None = None

    def lie(self, sight: Sight) -> Vector:
        if self._direction is None:
            self._direction = -np.sign(sight.step)
        return _add(sight.mean, DRIP_DEVIATIONS, sight.spread * self._direction)
