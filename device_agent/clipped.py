"""Sums of clipped gradients by the bundle's dp_grad.onnx: the trainer's side of unit=record.

Memory is the graph's: it clips each example inside, so no device holds a batch of gradients.
"""

from __future__ import annotations

import numpy as np

from device_agent.batches import Cut, Examples
from device_agent.runtime import Session, session
from gossipfl.bundle.archive import Bundle
from gossipfl.bundle.manifest import DP_GRADIENT
from gossipfl.parameters import Vector
from gossipfl.privacy.record_unit import Chosen, Sum

TOLERANCE = 1e-3  # of a clip, for an example clipped in float32: measured at 1e-6


class ClippedSums:
    """A `privacy.record_unit.ClippedSum` over one split of a device's examples.

    What an example adds is a function of that example: if it makes a sum infinite or NaN, all of
    its batch are computed alone, and those that are not finite add nothing.
    """

    def __init__(self, bundle: Bundle, examples: Examples) -> None:
        self._examples = examples
        self._count = bundle.layout.count
        self._graph: Session = session(bundle.files[DP_GRADIENT])

    def __call__(self, parameters: Vector, chosen: Chosen, clip: float) -> Sum:
        """float64[P]. Nobody chosen: zeros."""
        total = np.zeros(self._count)
        for start, cut in self._examples.taken(chosen):
            part = self._sum(parameters, cut, clip)
            if self._is_sound(part, cut.count, clip):
                total += part
            else:
                total += self._one_by_one(parameters, chosen[start : start + cut.count], clip)
        return total

    def _sum(self, parameters: Vector, cut: Cut, clip: float) -> Vector:
        feed = {
            **{"params": parameters, "x": cut.x, "y": cut.y, "w": cut.w},
            "clip": np.array(clip, np.float32),
        }
        part: Vector = self._graph.run(None, feed)[0]
        return part

    @staticmethod
    def _is_sound(part: Vector, count: int, clip: float) -> bool:
        """Finite, and no longer than so many clipped gradients can be together.

        Not by np.dot: the linear algebra library would wake its threads for each batch, and on a
        busy machine their waiting costs twice as much as the gradients."""
        with np.errstate(over="ignore", invalid="ignore"):
            wide = part.astype(np.float64)
            length = float(np.sqrt(np.square(wide, out=wide).sum()))
        return length <= count * clip * (1.0 + TOLERANCE)

    def _one_by_one(self, parameters: Vector, chosen: Chosen, clip: float) -> Sum:
        total = np.zeros(self._count)
        for index in chosen:
            for _, cut in self._examples.taken(np.array([index])):
                part = self._sum(parameters, cut, clip)
                if self._is_sound(part, 1, clip):
                    total += part
        return total
