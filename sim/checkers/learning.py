"""After the faults: honest devices come together again, and what they learnt is worth having."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.checkers.base import Checker
from sim.device import SimDevice
from sim.scene import Scene


class ComesTogether(Checker):
    """When faults have stopped, the spread of honest bases shrinks, or is small, and every honest
    base is better than `floor`.

    Training pulls devices apart and merging pulls them together, so a fleet at peace keeps some
    spread: up to `spread_max` it need not shrink. Spread is the mean distance of bases to their
    mean, over that mean's distance from the initial model.
    """

    def __init__(self, floor: float, spread_max: float) -> None:
        self._floor = floor
        self._spread_max = spread_max
        self._scene: Scene | None = None
        self._who: list[SimDevice] = []
        self.before = 0.0
        self.after = 0.0
        self.worst = 1.0

    def settled(self, scene: Scene, who: Sequence[SimDevice]) -> None:
        """The faults have stopped: from here on these devices' bases come together."""
        self._scene = scene
        self._who = list(who)
        self.before = spread(scene, who)

    def at_end(self) -> None:
        scene = self._scene
        if scene is None or not self._who:
            return
        self.after = spread(scene, self._who)
        self.worst = min(scene.accuracy(d) for d in self._who)
        if self.after > max(self.before, self._spread_max):
            raise self.broken(
                f"the spread of honest bases grew from {self.before:.3f} to {self.after:.3f}"
            )
        if self.worst < self._floor:
            raise self.broken(
                f"the worst honest base has accuracy {self.worst:.3f}, below {self._floor}"
            )


def spread(scene: Scene, who: Sequence[SimDevice]) -> float:
    """Of the bases of `who`; 0 while fewer than two have one."""
    bases = [base for device in who if (base := scene.base(device)) is not None]
    if len(bases) < 2:
        return 0.0
    centre = np.mean(bases, axis=0)
    away = float(np.linalg.norm(centre - scene.devices[0].trainer.initial))
    apart = float(np.mean([np.linalg.norm(base - centre) for base in bases]))
    return apart / max(away, 1e-9)
