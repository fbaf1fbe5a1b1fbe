"""Bundles that ship, as trainers of simulated devices: onnxruntime under virtual time.

The very trainer of a real agent over arrays in memory. A room of its own, since the rest of the
simulated world does not know onnxruntime.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from device_agent.trainer import OnnxTrainer
from gossipfl import bundles
from gossipfl.bundle.archive import Bundle, read
from gossipfl.interfaces import Evaluation, Trainer
from gossipfl.messages import Training
from gossipfl.parameters import Layout, Vector
from gossipfl.privacy import Noised, RecordPrivacy
from sim.data import Inputs, Split


class BundledLearner:
    """The Trainer seam over one device's examples, scaled as `sim.data` has them."""

    def __init__(self, bundle: Bundle, data: Split) -> None:
        self._bundle = bundle
        self.data = data
        train, test = data.train, data.test
        self._trainer = OnnxTrainer(bundle, self._raw(train.x), train.y, self._raw(test.x), test.y)

    def _raw(self, x: Inputs) -> Inputs:
        """What the bundle's own preprocessing makes into x, in the shape that it takes."""
        manifest = self._bundle.manifest
        shape = (len(x), *manifest.input.shape)
        raw: Inputs = (x.reshape(shape) / np.float32(manifest.preprocessing.scale)).astype(
            np.float32
        )
        return raw

    def with_data(self, data: Split) -> BundledLearner:
        """The same bundle over other examples."""
        return BundledLearner(self._bundle, data)

    @property
    def layout(self) -> Layout:
        return self._trainer.layout

    @property
    def initial(self) -> Vector:
        return self._trainer.initial

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        return self._trainer.train(base, training, seed)

    def train_private(
        self, base: Vector, training: Training, mode: RecordPrivacy, key: bytes
    ) -> Noised:
        return self._trainer.train_private(base, training, mode, key)

    def evaluate(self, parameters: Vector) -> Evaluation:
        return self._trainer.evaluate(parameters)

    def loss(self, parameters: Vector) -> float:
        return self._trainer.loss(parameters)


def bundled(name: str, splits: Sequence[Split]) -> list[Trainer]:
    """One trainer per split on the shipped bundle of that name."""
    bundle = read(bundles.read_bytes(name))
    return [BundledLearner(bundle, split) for split in splits]
