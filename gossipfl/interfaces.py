"""The seams: where the protocol meets a machine. Each has a fake that ships, in `memory`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gossipfl.events import Batch, Snapshot
from gossipfl.messages import Training
from gossipfl.parameters import Layout, Vector
from gossipfl.privacy import Noised, RecordPrivacy


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Of one model on one device's held-out data. Never leaves the device."""

    loss: float
    accuracy: float | None  # share of right answers; None for regression
    examples: int


class Trainer(Protocol):
    """Local learning. A pure function of its arguments and of the local data."""

    @property
    def layout(self) -> Layout: ...

    @property
    def initial(self) -> Vector:
        """params0, float32[P]"""
        ...

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        """float32[P] after `training.epochs` passes over the local data, starting at `base`."""
        ...

    def train_private(
        self, base: Vector, training: Training, mode: RecordPrivacy, key: bytes
    ) -> Noised:
        """DP-SGD over the local data (unit=record). `key`: 32 fresh secret bytes."""
        ...

    def evaluate(self, parameters: Vector) -> Evaluation:
        """On the held-out split."""
        ...

    def loss(self, parameters: Vector) -> float:
        """Mean loss on the local training data (for the catastrophe guard)."""
        ...


class Store(Protocol):
    """What must outlive a crash. One writer; called from one thread at a time."""

    def load(self) -> Snapshot:
        """What is durable. Raises StoreError if it cannot be read."""
        ...

    def commit(self, batch: Batch) -> None:
        """All of it or nothing, durable on return.

        Raises StoreError on failure and on doubt, and if `batch.seq` does not follow the durable
        head's (unless `batch.adopt`, where it must be higher).
        """
        ...

    def get(self, digest: bytes) -> bytes | None:
        """An object that was committed, or None."""
        ...
