"""The trainer of one device: a bundle's trainer over whatever data the device has right now."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from device_agent.data import DataSet, DataSource
from device_agent.figures import FigureFile
from device_agent.shadow import ShadowReference
from gossipfl.errors import LocalError
from gossipfl.interfaces import Evaluation, Trainer
from gossipfl.messages import Training
from gossipfl.parameters import Layout, Vector
from gossipfl.privacy import Noised, RecordPrivacy

log = logging.getLogger(__name__)


class LocalTrainer:
    """A Trainer that looks for new examples before each training.

    `source` None: this device has no data, it merges and serves and never trains. `make` builds the
    bundle's trainer for a data set, when it is first needed; the raw data are not kept then. With
    `alone` the reference of `shadow` is kept in that file. Called from one worker thread; the
    figures may be read from any.
    """

    def __init__(
        self,
        layout: Layout,
        initial: Vector,
        source: DataSource | None,
        make: Callable[[DataSet], Trainer],
        figures: FigureFile,
        alone: Path | None = None,
    ) -> None:
        self.layout = layout
        self.initial = initial
        self._source = source
        self._make = make
        self._figures = figures
        self._trainer: Trainer | None = None
        self._new: DataSet | None = None  # read, checked, and no trainer made of it yet
        self._shadow = ShadowReference(layout, initial, alone) if alone else None
        self.examples = (0, 0)  # trained on, held out
        self.version = 0  # counts the data sets that were taken up, also while this was not running
        self.problem = "" if source else "no data: set data.source"
        self.refresh()
        if self.is_ready and figures.data not in ("", self._fingerprint):
            self.version += 1

    @property
    def _fingerprint(self) -> str:
        return self._source.fingerprint if self._source else ""

    @property
    def is_ready(self) -> bool:
        """Whether there are examples; if not, `problem` says why."""
        return self.examples != (0, 0)

    @property
    def alone(self) -> Evaluation | None:
        return self._shadow.progress.best if self._shadow else None

    @property
    def alone_is_done(self) -> bool:
        return self._shadow is not None and self._shadow.progress.is_frozen

    def measured(self, model: str | None) -> Evaluation | None:
        """What was last measured, if it was of the model with this digest (hex)."""
        return self._figures.of(model)

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        self.refresh()
        trainer = self._made()
        if trainer is None:
            raise LocalError(self.problem)
        trained = trainer.train(base, training, seed)
        if self._shadow is not None:
            self._shadow.step(trainer, training, seed)
        return trained

    def train_private(
        self, base: Vector, training: Training, mode: RecordPrivacy, key: bytes
    ) -> Noised:
        """As `train`. The alone reference stays as it is: it costs as much again, and says what
        training without noise would give."""
        self.refresh()
        trainer = self._made()
        if trainer is None:
            raise LocalError(self.problem)
        return trainer.train_private(base, training, mode, key)

    def evaluate(self, parameters: Vector) -> Evaluation:
        """The node asks this of each new base; the answer is remembered for `status`."""
        trainer = self._made()
        if trainer is None:
            return Evaluation(math.nan, None, 0)
        found = trainer.evaluate(parameters)
        self._figures.put(parameters, found, self._fingerprint)
        return found

    def loss(self, parameters: Vector) -> float:
        trainer = self._made()
        # No guard without data: no comparison with NaN holds.
        return math.nan if trainer is None else trainer.loss(parameters)

    def refresh(self) -> None:
        """Reads new or changed files. A failure is told once, and tried again next time."""
        if self._source is None:
            return
        data = self._source.newer()
        if self._source.problem and self._source.problem != self.problem:
            log.warning("data are not used: %s", self._source.problem)
        self.problem = self._source.problem
        if data is None:
            return
        if self.is_ready and self._shadow is not None:
            self._shadow.thaw()
        self.examples = (len(data.train_x), len(data.test_x))
        self._new = data
        self.version += 1
        log.info("data: %d examples to train on, %d held out", *self.examples)

    def _made(self) -> Trainer | None:
        if self._new is not None:
            self._trainer, self._new = self._make(self._new), None
        return self._trainer
