"""Local training with plain onnxruntime: gradients from the bundle, the optimiser in numpy.

The optimiser works on the one flat vector: SGD with momentum as in torch.optim.SGD, and FedProx's
proximal term (Li et al. 2020, https://arxiv.org/abs/1812.06127, eq. 2). A graph that also made the
step would save five microseconds and fix the optimiser for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from device_agent.batches import Array, Examples
from device_agent.runtime import Session, session
from gossipfl.bundle.archive import Bundle
from gossipfl.bundle.manifest import EVALUATE, GRADIENT
from gossipfl.errors import UserError
from gossipfl.interfaces import Evaluation
from gossipfl.messages import Training
from gossipfl.parameters import Layout, Vector

if TYPE_CHECKING:
    from device_agent.clipped import ClippedSums
    from gossipfl.privacy import Noised, RecordPrivacy


class OnnxTrainer:
    """The Trainer seam on an accepted bundle and a device's raw arrays.

    Inputs and targets are raw: the manifest's preprocessing is applied here, once. Everything is
    a pure function of the arguments and of these arrays.
    """

    def __init__(
        self, bundle: Bundle, train_x: Array, train_y: Array, test_x: Array, test_y: Array
    ) -> None:
        manifest = bundle.manifest
        self._train = Examples(manifest, train_x, train_y, "training")
        self._test = Examples(manifest, test_x, test_y, "held-out")
        if not len(self._train):
            raise UserError("GF405", "no training examples")
        self._batch = manifest.batch
        self._counts_answers = manifest.classes > 0
        self._layout = bundle.layout
        self._initial = bundle.initial
        self._gradient: Session = session(bundle.files[GRADIENT])
        self._evaluate: Session = session(bundle.files[EVALUATE])
        self._bundle = bundle
        self._clipped: ClippedSums | None = None  # loaded when first needed

    @property
    def layout(self) -> Layout:
        return self._layout

    @property
    def initial(self) -> Vector:
        """params0, float32[P], read-only."""
        return self._initial

    @property
    def examples(self) -> int:
        """How many training examples this device has."""
        return len(self._train)

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        """float32[P] after `training.epochs` passes from `base`; `seed` orders the examples.

        v = momentum v + grad + prox (p - base); p = p - learning rate v. Momentum starts at zero.
        `training.batch` examples a step, by default as many as the bundle's graphs take.
        The result may not be finite (a learning rate too high): the caller looks.
        """
        size = training.batch or self._batch
        if size > self._batch:
            raise UserError("GF406", f"{size} examples a step, the bundle takes {self._batch}")
        rng = np.random.default_rng(seed)
        parameters = np.array(base, dtype=np.float32)
        velocity = np.zeros_like(parameters)
        rate = np.float32(training.learning_rate)
        momentum = np.float32(training.momentum)
        prox = np.float32(training.prox)
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(training.epochs):
                for cut in self._train.shuffled(rng, training.batch):
                    feed = {"params": parameters, "x": cut.x, "y": cut.y, "w": cut.w}
                    step: Vector = self._gradient.run(None, feed)[0]
                    if prox:
                        step += prox * (parameters - base)
                    if momentum:
                        velocity *= momentum
                        velocity += step
                        step = velocity
                    parameters -= rate * step
        return parameters

    def train_private(
        self, base: Vector, training: Training, mode: RecordPrivacy, key: bytes
    ) -> Noised:
        """`mode.steps` steps of DP-SGD from `base`; of `training` the optimiser counts.

        `key`: 32 fresh bytes of the operating system, for the noise and for who is taken.
        """
        # Who trains without privacy does not load what it needs.
        from device_agent.clipped import ClippedSums
        from gossipfl.privacy.record_unit import Descent, train

        if self._clipped is None:
            self._clipped = ClippedSums(self._bundle, self._train)
        descent = Descent(training.learning_rate, training.momentum, training.prox)
        return train(mode, base, len(self._train), self._clipped, descent, key)

    def evaluate(self, parameters: Vector) -> Evaluation:
        """Loss, and share of right answers, on the held-out split.

        With no held-out examples the loss is that of the training data and `examples` is 0.
        """
        if not len(self._test):
            return Evaluation(self.loss(parameters), None, 0)
        loss, correct = self._mean(parameters, self._test)
        return Evaluation(loss, correct if self._counts_answers else None, len(self._test))

    def loss(self, parameters: Vector) -> float:
        """Mean loss on the local training data."""
        return self._mean(parameters, self._train)[0]

    def _mean(self, parameters: Vector, examples: Examples) -> tuple[float, float]:
        parameters = np.ascontiguousarray(parameters, dtype=np.float32)
        loss_sum = correct_sum = 0.0
        for cut in examples.in_order():
            feed = {"params": parameters, "x": cut.x, "y": cut.y, "w": cut.w}
            loss, correct = self._evaluate.run(None, feed)
            loss_sum += float(loss)
            correct_sum += float(correct)
        return loss_sum / len(examples), correct_sum / len(examples)
