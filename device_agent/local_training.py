"""The trainer of one device: a bundle's trainer over whatever data the device has right now."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from device_agent.data import DataSet, DataSource
from device_agent.shadow import ShadowTrainer
from gossipfl.errors import LocalError, UserError
from gossipfl.interfaces import Evaluation, Trainer
from gossipfl.messages import Training
from gossipfl.parameters import Layout, Vector

log = logging.getLogger(__name__)


class LocalTrainer:
    """A Trainer that looks for new examples before each training.

    `source` None: this device has no data, it merges and serves and never trains. `make` builds the
    bundle's trainer for a data set; the raw data are not kept. With `alone` the reference of
    `shadow` is kept in that file. Called from one worker thread; the figures may be read from any.
    """

    def __init__(
        self,
        layout: Layout,
        initial: Vector,
        source: DataSource | None,
        make: Callable[[DataSet], Trainer],
        alone: Path | None = None,
    ) -> None:
        self.layout = layout
        self.initial = initial
        self._source = source
        self._make = make
        self._alone = alone
        self._trainer: Trainer | None = None
        self._shadow: ShadowTrainer | None = None
        self._refused = ""
        self.examples = (0, 0)  # trained on, held out
        self.problem = "" if source else "no data: set data.source"
        self.refresh()

    @property
    def is_ready(self) -> bool:
        """Whether there are examples; if not, `problem` says why."""
        return self._trainer is not None

    @property
    def alone(self) -> Evaluation | None:
        return self._shadow.alone if self._shadow else None

    @property
    def alone_is_done(self) -> bool:
        return self._shadow is not None and self._shadow.progress.is_frozen

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        self.refresh()
        trainer = self._shadow or self._trainer
        if trainer is None:
            raise LocalError(self.problem)
        return trainer.train(base, training, seed)

    def evaluate(self, parameters: Vector) -> Evaluation:
        if self._trainer is None:
            return Evaluation(math.nan, None, 0)
        return self._trainer.evaluate(parameters)

    def loss(self, parameters: Vector) -> float:
        if self._trainer is None:
            return math.nan  # no guard without data: no comparison with NaN holds
        return self._trainer.loss(parameters)

    def refresh(self) -> None:
        """Takes up new or changed files. A failure is told once, and tried again next time."""
        if self._source is None:
            return
        data = self._source.newer()
        if data is not None:
            try:
                self._use(data)
                self._refused = ""
            except UserError as error:  # readable, but not what the bundle takes
                self._refused = error.cause
        problem = self._source.problem or self._refused
        if problem and problem != self.problem:
            log.warning("data are not used: %s", problem)
        self.problem = problem

    def _use(self, data: DataSet) -> None:
        trainer = self._make(data)
        self.examples = (len(data.train_x), len(data.test_x))
        log.info("data: %d examples to train on, %d held out", *self.examples)
        is_first = self._trainer is None
        self._trainer = trainer
        if self._alone is not None:
            self._shadow = ShadowTrainer(trainer, self._alone)
            if not is_first:
                self._shadow.thaw()
