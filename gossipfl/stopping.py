"""When a device has learnt enough: what it has seen so far as a value, and a policy's conditions.

Nobody coordinates: each device looks at the published models that it merged anyway, and, where no
privacy policy is on, at its own held-out data. That it rests shows only by the absence of updates.
Hard conditions (rounds, budgets) end a run; soft ones rest until there is something new.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from statistics import median
from typing import Any, TypeGuard

from gossipfl.convergence import Convergence
from gossipfl.messages import Stop
from gossipfl.wire import pack, unpack

WINDOW = 5
"""Merges that the slope is fitted to, and the least between a (re)start and a rest: guess. Before
that nobody can tell convergence from a first step."""
HOLD = 3
"""The median of so many merges must reach the target: one lucky pull does not stop a device, and
one unlucky one does not keep it going."""
QUIET_ROUNDS = 2
"""Rounds in which fewer than half of the peers brought anything new, after which a device rests
too: guess, the least that a late publication does not look like. Who is last to see a condition
hold must not train on alone; no minority can pretend a rest, or keep a fleet from it."""
ALONE_ROUNDS = 3
"""Rounds in a row without a merge, after which it rests as well: guess."""
LOSS_GAIN = 0.01
"""Relative: a loss that is lower by less is no improvement. Guess; with a thousandth, softmax
regression on 45 held-out digits still improved after 200 rounds."""
BYTES_MAX = 1_024


class Cause(StrEnum):
    """Why a device rests."""

    ROUNDS = "rounds"
    EPOCHS = "epochs"
    BYTES = "bytes"
    DISTANCE = "distance"
    SLOPE = "slope"
    PATIENCE = "patience"
    QUIET = "quiet"

    @property
    def is_hard(self) -> bool:
        """Only another policy (or run) ends this rest."""
        return self in HARD


HARD = frozenset({Cause.ROUNDS, Cause.EPOCHS, Cause.BYTES})


@dataclass(frozen=True, slots=True)
class Stopping:
    """What a device has seen since its run began (`epochs`, `traffic`, `has_merged`) or since it
    last went on (the rest). Every method returns what comes next."""

    epochs: int = 0
    traffic: int = 0  # bytes of updates published and pulled
    has_merged: bool = False
    distances: tuple[float, ...] = ()  # of the newest merges, over the way come from params0
    merges: int = 0
    best_accuracy: float | None = None  # on held-out data; None: not measured
    best_loss: float | None = None
    since_best: int = 0  # rounds in which neither got better
    quiet: int = 0  # rounds in a row without a merge, ALONE_ROUNDS where peers are quiet
    rest_loss: float | None = None  # the lowest local loss of the base at rest
    drifts: int = 0  # checks in a row that found it above by the margin

    # --- what happens ----------------------------------------------------------------------

    def trained(self, epochs: int, size: int) -> Stopping:
        """Local training and the `size` bytes of the update that came of it."""
        return replace(self, epochs=self.epochs + epochs, traffic=self.traffic + size)

    def pulled(self, size: int) -> Stopping:
        """An update of `size` bytes came in."""
        return replace(self, traffic=self.traffic + size)

    def merged(
        self,
        seen: Convergence | None,
        accuracy: float | None,
        loss: float | None,
        *,
        is_quiet: bool = False,
    ) -> Stopping:
        """A merge. `is_quiet`: see QUIET_ROUNDS."""
        distances = self.distances
        if seen is not None:
            distances = (*distances, seen.relative)[-WINDOW:]
        accurate = _is_measured(accuracy) and (
            self.best_accuracy is None or accuracy > self.best_accuracy
        )
        sure = _is_measured(loss) and (
            self.best_loss is None or loss < self.best_loss - LOSS_GAIN * abs(self.best_loss)
        )
        measured = _is_measured(accuracy) or _is_measured(loss) or self.since_best > 0
        return replace(
            self,
            has_merged=True,
            distances=distances,
            merges=self.merges + 1,
            best_accuracy=accuracy if accurate else self.best_accuracy,
            best_loss=loss if sure else self.best_loss,
            since_best=0 if accurate or sure or not measured else self.since_best + 1,
            quiet=ALONE_ROUNDS if is_quiet else 0,
            rest_loss=None,
            drifts=0,
        )

    def unmerged(self) -> Stopping:
        """A round that ended without a merge. Who waits for a fleet to form waits on."""
        if not self.has_merged:
            return self
        return replace(self, quiet=self.quiet + 1)

    def renewed(self) -> Stopping:
        """There is something new: the soft conditions start afresh, the budgets go on."""
        return Stopping(epochs=self.epochs, traffic=self.traffic, has_merged=self.has_merged)

    def checked(self, loss: float | None, margin: float) -> Stopping:
        """The local loss of the base at rest was measured again. The margin is in nats."""
        if loss is None or not math.isfinite(loss):
            return self
        lowest = loss if self.rest_loss is None else min(loss, self.rest_loss)
        return replace(
            self, rest_loss=lowest, drifts=self.drifts + 1 if loss > lowest + margin else 0
        )

    # --- what follows ----------------------------------------------------------------------

    def cause(self, stop: Stop, rounds: int, *, local: bool) -> Cause | None:
        """Why to rest now, hard conditions first. `local`: the device's own data may decide."""
        for cause, used, limit in (
            (Cause.ROUNDS, rounds, stop.rounds),
            (Cause.EPOCHS, self.epochs, stop.epochs),
            (Cause.BYTES, self.traffic, stop.bytes),
        ):
            if limit is not None and used >= limit:
                return cause
        if is_soft(stop, local=local) and self.quiet >= ALONE_ROUNDS:
            return Cause.QUIET
        if self.merges < WINDOW:
            return None
        if stop.distance is not None and self._is_within(stop.distance):
            return Cause.DISTANCE
        slope = self.slope
        if stop.slope is not None and slope is not None and abs(slope) <= stop.slope:
            return Cause.SLOPE
        if local and stop.patience is not None and self.since_best >= stop.patience:
            return Cause.PATIENCE
        return None

    def has_drifted(self, stop: Stop) -> bool:
        return stop.drift is not None and self.drifts >= stop.drift_checks

    @property
    def slope(self) -> float | None:
        """Relative change of the consensus distance per merge: least squares on its logarithm over
        the newest WINDOW merges. None before, or while it cannot be told."""
        return slope(self.distances) if len(self.distances) == WINDOW else None

    def dump(self) -> bytes:
        return pack(asdict(self))

    @classmethod
    def load(cls, data: bytes) -> Stopping:
        """Raises PeerError, TypeError or ValueError if these bytes are nothing of ours."""
        values: dict[str, Any] = unpack(data, BYTES_MAX)
        if not isinstance(values, dict) or set(values) != {f.name for f in fields(cls)}:
            raise ValueError("it has other fields")
        return cls(**{**values, "distances": tuple(map(float, values["distances"]))})

    def _is_within(self, target: float) -> bool:
        newest = self.distances[-HOLD:]
        return len(newest) == HOLD and median(newest) <= target


def is_soft(stop: Stop, *, local: bool) -> bool:
    """Does the policy name a condition that others, too, are expected to reach?"""
    shared = stop.distance is not None or stop.slope is not None
    return shared or (local and stop.patience is not None)


def _is_measured(figure: float | None) -> TypeGuard[float]:
    return figure is not None and math.isfinite(figure)


def slope(distances: Sequence[float]) -> float | None:
    """See `Stopping.slope`. exp(least squares of the logarithm) - 1; None without finite values."""
    if not all(map(math.isfinite, distances)) or min(distances) <= 0.0:
        return None
    logs = [math.log(distance) for distance in distances]
    centre = (len(logs) - 1) / 2
    weight = sum((i - centre) ** 2 for i in range(len(logs)))
    fitted = sum((i - centre) * value for i, value in enumerate(logs)) / weight
    return math.expm1(min(fitted, 700.0))
