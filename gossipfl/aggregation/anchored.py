"""Rules anchored on the own model that clip or refuse by distance: centered_clip, cs_plus, balance.

The own model is the first one. All three are own + sum of w_j (x_j - own), so the shares are the
w_j, and the rest is the own model's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gossipfl.aggregation.base import Blend, RuleError
from gossipfl.aggregation.distances import Squares, exact_squared_length
from gossipfl.aggregation.models import Models
from gossipfl.aggregation.selecting import TIE


@dataclass(frozen=True, slots=True)
class CenteredClip:
    """One step from own to the mean of all, no model pulling farther than a radius.

    Karimireddy 2021; around the own model as ClippedGossip does it, He 2022. radius: in the units
    of the parameters; None for He's adaptive one, sqrt(sum of the squared distances of the m'-f
    nearest / f), without bound where f = 0.
    """

    radius: float | None = None

    def __post_init__(self) -> None:
        if self.radius is not None and not self.radius >= 0:
            raise RuleError(f"centered_clip: radius must not be negative, got {self.radius}")

    def __call__(self, models: Models, f: int) -> Blend:
        squared = models.from_first()
        if self.radius is not None:
            radius = self.radius
        else:
            near = np.sort(squared)[: len(models) - f]
            radius = math.sqrt(near.sum() / f) if f else math.inf
        return _clipped(models, np.sqrt(squared), radius)


def cs_plus(models: Models, f: int) -> Blend:
    """As centered_clip, the radius being the distance that only 2f models lie beyond.

    CS+-RG (Gaucher, ICML 2025): the quantile m'-2f of the distances, own at 0 counted in.
    """
    distances = np.sqrt(models.from_first())
    radius = float(np.sort(distances)[len(models) - 2 * f - 1]) if f else math.inf
    return _clipped(models, distances, radius)


@dataclass(frozen=True, slots=True)
class Balance:
    """alpha x own + (1 - alpha) x mean of the received models that lie near enough to own.

    Near enough is a distance up to gamma exp(-kappa progress) |own| (BALANCE, Fang, CCS 2024, with
    its defaults). progress: t/T, the share of the run that is done; 0 keeps the widest limit. Where
    no model is accepted own is kept. A baseline: it has no bound on f, and its limit knows nothing
    of how far honest models lie apart.
    """

    gamma: float = 0.3
    kappa: float = 1.0
    alpha: float = 0.5
    progress: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gamma) and self.gamma >= 0 and self.kappa >= 0):
            raise RuleError("balance: gamma and kappa must be finite and not negative")
        if not (0 <= self.alpha <= 1 and 0 <= self.progress <= 1):
            raise RuleError("balance: alpha and progress must be in 0..1")

    def __call__(self, models: Models, f: int) -> Blend:
        squared = models.from_first()
        reach = self.gamma * math.exp(-self.kappa * self.progress)
        limit = reach**2 * exact_squared_length(models.model(0))
        doubtful = [int(place) for place in np.flatnonzero(np.abs(squared - limit) <= TIE * limit)]
        squared[doubtful] = models.exact(0, doubtful)
        accepted = squared <= limit
        accepted[0] = False
        count = int(np.count_nonzero(accepted))
        shares = np.where(accepted, (1 - self.alpha) / max(count, 1), 0.0)
        shares[0] = self.alpha if count else 1.0
        return _weighed(models, shares)


def _clipped(models: Models, distances: Squares, radius: float) -> Blend:
    """own + the mean over N of (x_j - own) clipped to the radius."""
    factors = np.ones(len(models))
    beyond = distances > radius
    factors[beyond] = radius / distances[beyond]
    shares = factors / len(models)
    shares[0] = 1.0 - shares[1:].sum()
    return _weighed(models, shares)


def _weighed(models: Models, shares: Squares) -> Blend:
    given = tuple(float(share) for share in shares)
    return Blend(models.combine(given), given)
