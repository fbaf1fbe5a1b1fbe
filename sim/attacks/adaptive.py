"""The attack that knows the rule: the largest lie that the fleet's own rule still lets in.

A line goes from the honest mean against the honest step. A binary search finds how far a liar may
go along it while the rule, asked as the victims ask it, still gives the liars the larger part of an
even share. After Fang 2020 (arXiv 1911.11815) and Shejwalkar 2021 (NDSS), who search the same way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gossipfl.aggregation import RuleError, merge_step
from gossipfl.parameters import Vector
from sim.attacks.base import Attack, Sight

REACH = 64.0  # in lengths of the typical honest distance from h: beyond it every rule refuses
SEARCH_STEPS = 12  # halvings: the answer is within a sixteenth of that length
ACCEPTED_SHARE = 0.5  # of an even share of influence
VICTIMS = 3  # asked as witnesses: guess
PULL_MAX = 30  # models in a witness's pull: guess, as in a fleet of 100


class Adaptive(Attack):
    """searches the largest lie against the honest step that the rule in force still accepts"""

    name = "adaptive"
    looks_honest = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self._round = -1
        self._found: Vector | None = None
        self.reach = 0.0
        """How far it went in the newest round, in typical honest distances."""

    def lie(self, sight: Sight) -> Vector:
        if self._found is None or sight.round != self._round:
            self._round = sight.round
            self._found = self._search(sight)
        return self._found

    def _search(self, sight: Sight) -> Vector:
        step = sight.step
        length = float(np.linalg.norm(step))
        typical = float(np.linalg.norm(sight.spread))
        if length == 0.0 or typical == 0.0:
            self.reach = 0.0
            return sight.mean
        direction = -(step / np.float32(length)) * np.float32(typical)
        low, high = 0.0, REACH
        for _ in range(SEARCH_STEPS):
            middle = (low + high) / 2
            if self._is_accepted(sight, sight.mean + np.float32(middle) * direction):
                low = middle
            else:
                high = middle
        self.reach = low
        found: Vector = sight.mean + np.float32(low) * direction
        return found

    def _is_accepted(self, sight: Sight, lie: Vector) -> bool:
        """By most of the witnesses: honest devices whose pull holds f lies."""
        draw = np.random.default_rng([self.seed & 0x7FFFFFFF, sight.round, 3])
        count = min(VICTIMS, len(sight.honest))
        witnesses = draw.choice(len(sight.honest), count, replace=False)
        votes = sum(self._accepts(sight, lie, int(row), draw) for row in witnesses)
        return 2 * votes > count

    def _accepts(self, sight: Sight, lie: Vector, witness: int, draw: np.random.Generator) -> bool:
        lies = max(1, min(self.f, sight.attackers))
        others = np.delete(np.arange(len(sight.honest)), witness)
        room = min(len(others), max(2 * lies + 2, PULL_MAX - lies))
        pulled = [sight.honest[int(row)] for row in draw.choice(others, room, replace=False)]
        told = [lie if self.noise == 0.0 else self.noised(lie, sight.at(k)) for k in range(lies)]
        received = [*pulled, *told]
        try:
            merge = merge_step(self.rule, sight.honest[witness], received, max(self.f, lies))
        except RuleError:
            return False
        share = sum(merge.influence[len(pulled) :])
        return share >= ACCEPTED_SHARE * lies / (len(received) + 1)
