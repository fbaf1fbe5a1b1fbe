"""Learners on plain numpy behind the Trainer seam: softmax regression and a one-hidden-layer MLP.

The arithmetic is that of the shipped digits bundles (mini-batch SGD with momentum on the mean
cross-entropy), so a simulated run says something about a real one. A pure function of its
arguments: the batch order comes from the seed that the node gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gossipfl.interfaces import Evaluation
from gossipfl.messages import Training
from gossipfl.parameters import Layout, Tensor, Vector
from gossipfl.privacy import Noised, RecordPrivacy
from gossipfl.privacy.record_unit import Chosen, Descent, Sum, train
from sim.data import Examples, Inputs, Labels, Split

BATCH = 32  # the fleet benchmark's
Logits = npt.NDArray[np.float32]


def _softmax_loss(logits: Logits, y: Labels) -> tuple[float, Logits]:
    """Mean cross-entropy in nats, and its gradient by the logits, float32[n, classes]."""
    rows = np.arange(len(y))
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponent = np.exp(shifted)
    total = exponent.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(total[:, 0]) - shifted[rows, y]))
    gradient = (exponent / total).astype(np.float32, copy=False)
    gradient[rows, y] -= 1.0
    gradient /= len(y)
    return loss, gradient


@dataclass(frozen=True, slots=True)
class Softmax:
    """Multinomial logistic regression: `features` inputs, `classes` outputs."""

    features: int
    classes: int

    @property
    def layout(self) -> Layout:
        weights = Tensor("weight", (self.features, self.classes), 0)
        return Layout((weights, Tensor("bias", (self.classes,), weights.size)))

    def initial(self, seed: int) -> Vector:
        """Zeros: the problem is convex."""
        del seed
        return np.zeros(self.layout.count, np.float32)

    def logits(self, p: Vector, x: Inputs) -> Logits:
        cut = self.features * self.classes
        return x @ p[:cut].reshape(self.features, self.classes) + p[cut:]

    def gradient(self, p: Vector, x: Inputs, y: Labels, out: Vector) -> None:
        """The gradient of the mean loss, written to `out`."""
        cut = self.features * self.classes
        _, delta = _softmax_loss(self.logits(p, x), y)
        np.matmul(x.T, delta, out=out[:cut].reshape(self.features, self.classes))
        delta.sum(axis=0, out=out[cut:])


@dataclass(frozen=True, slots=True)
class Mlp:
    """features -> hidden (ReLU) -> classes."""

    features: int
    hidden: int
    classes: int

    @property
    def layout(self) -> Layout:
        shapes = [
            ("hidden.weight", (self.features, self.hidden)),
            ("hidden.bias", (self.hidden,)),
            ("out.weight", (self.hidden, self.classes)),
            ("out.bias", (self.classes,)),
        ]
        tensors, at = [], 0
        for name, shape in shapes:
            tensors.append(Tensor(name, shape, at))
            at += tensors[-1].size
        return Layout(tuple(tensors))

    def initial(self, seed: int) -> Vector:
        """Weights uniform in +-1/sqrt(fan in), torch's default for Linear."""
        generator = np.random.default_rng(seed)
        parts = []
        for tensor in self.layout.tensors:
            fan_in = self.features if tensor.name.startswith("hidden") else self.hidden
            parts.append(generator.uniform(-1.0, 1.0, tensor.size) / np.sqrt(fan_in))
        return np.concatenate(parts).astype(np.float32)

    def _split(self, p: Vector) -> tuple[Vector, Vector, Vector, Vector]:
        a = self.features * self.hidden
        b = a + self.hidden
        c = b + self.hidden * self.classes
        return (
            p[:a].reshape(self.features, self.hidden),
            p[a:b],
            p[b:c].reshape(self.hidden, self.classes),
            p[c:],
        )

    def logits(self, p: Vector, x: Inputs) -> Logits:
        w1, b1, w2, b2 = self._split(p)
        hidden: Logits = np.maximum(x @ w1 + b1, 0.0)
        return hidden @ w2 + b2

    def gradient(self, p: Vector, x: Inputs, y: Labels, out: Vector) -> None:
        w1, b1, w2, b2 = self._split(p)
        g1, gb1, g2, gb2 = self._split(out)
        hidden = np.maximum(x @ w1 + b1, 0.0)
        _, delta = _softmax_loss(hidden @ w2 + b2, y)
        back = (delta @ w2.T) * (hidden > 0.0)
        np.matmul(x.T, back, out=g1)
        back.sum(axis=0, out=gb1)
        np.matmul(hidden.T, delta, out=g2)
        delta.sum(axis=0, out=gb2)


Model = Softmax | Mlp


class Learner:
    """The Trainer seam over one device's examples."""

    def __init__(self, model: Model, data: Split, initial_seed: int = 0) -> None:
        """`initial_seed` is the fleet's, not the device's: params0 is part of the job."""
        self.model = model
        self.data = data
        self._initial_seed = initial_seed
        self._layout = model.layout
        self._initial = model.initial(initial_seed)
        self._initial.flags.writeable = False

    @property
    def layout(self) -> Layout:
        return self._layout

    @property
    def initial(self) -> Vector:
        return self._initial

    def with_data(self, data: Split) -> Learner:
        """The same learner over other examples."""
        return Learner(self.model, data, self._initial_seed)

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        """SGD with momentum from zero velocity; `prox` pulls towards `base` (FedProx)."""
        parameters = np.array(base, dtype=np.float32)
        gradient = np.empty_like(parameters)
        velocity = np.zeros_like(parameters)
        generator = np.random.default_rng(seed)
        x, y = self.data.train.x, self.data.train.y
        rate = np.float32(training.learning_rate)
        momentum = np.float32(training.momentum)
        batch = training.batch or BATCH
        for _ in range(training.epochs):
            order = generator.permutation(len(y))
            shuffled_x, shuffled_y = x[order], y[order]
            for start in range(0, len(y), batch):
                rows = slice(start, start + batch)
                self.model.gradient(parameters, shuffled_x[rows], shuffled_y[rows], gradient)
                if training.prox:
                    gradient += np.float32(training.prox) * (parameters - base)
                velocity *= momentum
                velocity += gradient
                parameters -= rate * velocity
        return parameters

    def train_private(
        self, base: Vector, training: Training, mode: RecordPrivacy, key: bytes
    ) -> Noised:
        """Example by example: there is no graph that clips."""
        x, y = self.data.train.x, self.data.train.y
        gradient = np.empty_like(self._initial)

        def clipped_sum(parameters: Vector, chosen: Chosen, clip: float) -> Sum:
            total = np.zeros(len(parameters))
            for index in chosen:
                row = slice(index, index + 1)
                self.model.gradient(parameters, x[row], y[row], gradient)
                length = float(np.linalg.norm(gradient.astype(np.float64)))
                if np.isfinite(length):
                    total += gradient * min(1.0, clip / max(length, 1e-30))
            return total

        descent = Descent(training.learning_rate, training.momentum, training.prox)
        return train(mode, base, len(y), clipped_sum, descent, key)

    def evaluate(self, parameters: Vector) -> Evaluation:
        test = self.data.test
        logits = self.model.logits(parameters, test.x)
        loss, _ = _softmax_loss(logits, test.y)
        right = float(np.mean(logits.argmax(axis=1) == test.y))
        return Evaluation(loss, right, len(test))

    def loss(self, parameters: Vector) -> float:
        train: Examples = self.data.train
        return _softmax_loss(self.model.logits(parameters, train.x), train.y)[0]
