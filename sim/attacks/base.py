"""What an attack is: from what the liars see to the vector that one of them publishes.

Attacks are plain numpy: they know neither nodes nor networks, so the same object lies in a
lock-step engine, in a simulated world (`sim.attacks.liar`) and in a real agent (`sim.demo.liar`).
Notation as in the literature: h is the mean of the honest models, s their standard deviation per
coordinate, D the honest step, h minus the model from which honest training started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from gossipfl.parameters import Matrix, Vector
from sim.data import Examples


@dataclass(frozen=True)  # no slots: the mean and the deviation are computed once, when asked for
class Sight:
    """What the liars know in one round.

    honest: float32[h, d], the honest models of this round as far as they are known, at least one.
    before: float32[d], the mean of the models from which honest training started.
    own, base: float32[d], the speaker's own trained model, and what its training started from.
    attacker, attackers: which liar speaks, from 0 on, and how many there are.
    victim: row of `honest` of the device that asks; None: one vector for all.
    who: a name for each row of `honest` that stays the same over rounds, if there is one.
    copies: float32[c, d], models of others word for word, if `honest` is only an estimate.
    """

    honest: Matrix
    before: Vector
    own: Vector
    base: Vector
    round: int = 0
    attacker: int = 0
    attackers: int = 1
    victim: int | None = None
    who: Sequence[int] = ()
    copies: Matrix | None = None

    @cached_property
    def mean(self) -> Vector:
        """h, float32[d]."""
        found: Vector = self.honest.mean(axis=0, dtype=np.float32)
        return found

    @cached_property
    def spread(self) -> Vector:
        """s, float32[d]; zero if one honest model is known."""
        difference = self.honest - self.mean
        found: Vector = np.sqrt(np.einsum("ij,ij->j", difference, difference) / len(self.honest))
        return found

    @property
    def step(self) -> Vector:
        """D, float32[d]."""
        return self.mean - self.before

    @property
    def asker(self) -> int | None:
        """The victim's lasting name, if it has one; else its row."""
        if self.victim is None or not self.who:
            return self.victim
        return self.who[self.victim]

    def at(self, attacker: int, victim: int | None = None) -> Sight:
        """The same round by another speaker, or towards another asker."""
        return self._with(attacker=attacker, victim=victim)

    def of(self, own: Vector, base: Vector) -> Sight:
        """The same round by a speaker who trained from `base` to `own`."""
        return self._with(own=own, base=base)

    def _with(self, **changes: Any) -> Sight:
        """A copy that shares h and s, which are costly; they are computed now if they were not."""
        other = replace(self, **changes)
        other.__dict__.update(mean=self.mean, spread=self.spread)
        return other


class Attack:
    """One kind of lie. The first line of each class says what it does.

    noise: share of the honest standard deviation that is added as Gaussian noise, drawn anew for
    each liar and round, so that colluders do not send copies of each other.
    rule, f: what the fleet merges with, for attacks that adapt to it.
    """

    name: ClassVar[str] = ""
    needs_own: ClassVar[bool] = False
    """Whether `Sight.own` is looked at; else the caller may save the training."""
    per_victim: ClassVar[bool] = False
    """Whether askers hear different models. Where models are signed that forks the chain."""
    looks_honest: ClassVar[bool] = False
    """Whether one such model may as well be an honest outlier's: accuracy decides, not blame."""
    is_forged: ClassVar[bool] = False
    """Whether an honest node would refuse to publish it, so that it must be put in later."""

    def __init__(self, noise: float = 0.0, rule: str = "nna", f: int = 1, seed: int = 0) -> None:
        if not 0.0 <= noise <= 100.0 or f < 0:
            raise ValueError("need 0 <= noise <= 100 and f >= 0")
        self.noise = noise
        self.rule = rule
        self.f = f
        self.seed = seed

    def lie(self, sight: Sight) -> Vector:
        """float32[d] without noise."""
        raise NotImplementedError

    def vector(self, sight: Sight) -> Vector | None:
        """float32[d], what this liar publishes, or what it shows this victim; None: nothing."""
        if sight.asker is not None and not self.answers(sight.asker):
            return None
        lie = self.lie(sight)
        return lie if self.noise == 0.0 else self.noised(lie, sight)

    def answers(self, asker: int) -> bool:
        """Whether this asker hears anything at all."""
        return True

    def face(self, asker: int) -> int | None:
        """Where models are signed: which chain of heads this asker is shown; None: the true one."""
        if self.is_forged:
            return 0
        return asker if self.per_victim else None

    def noised(self, lie: Vector, sight: Sight) -> Vector:
        """With this liar's noise of this round. The same towards every victim."""
        draw = np.random.default_rng([self.seed & 0x7FFFFFFF, sight.round, sight.attacker, 1])
        noise = draw.standard_normal(lie.shape, np.float32)
        noise *= np.float32(self.noise)
        noise *= sight.spread
        noise += lie
        return noise

    def poison(self, examples: Examples) -> Examples:
        """The examples that the liar trains on instead of its own."""
        return examples
