"""The trainer of one device: a bundle's trainer over whatever data the device has right now."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from device_agent.data import DataSet, DataSource
from device_agent.shadow import ShadowTrainer
from gossipfl.errors import LocalError
from gossipfl.interfaces import Evaluation, Trainer
from gossipfl.messages import Training
from gossipfl.parameters import Layout, Vector

log = logging.getLogger(__name__)


class LocalTrainer:
    """A Trainer that looks for new examples before each training.

    `make` builds the bundle's trainer for a data set, and the raw data are not kept. With `alone`
    the reference of `shadow` is kept in that file. Called from one worker thread; the figures may
    be read from any.
    """

    def __init__(
        self, source: DataSource, make: Callable[[DataSet], Trainer], alone: Path | None
    ) -> None:
        self._source = source
        self._make = make
        self._alone = alone
        self._told = ""
        data = source.load()
        self.examples = (len(data.train_x), len(data.test_x))  # trained on, held out
        self._trainer = make(data)
        self._shadow = ShadowTrainer(self._trainer, alone) if alone else None

    @property
    def layout(self) -> Layout:
        return self._trainer.layout

    @property
    def initial(self) -> Vector:
        return self._trainer.initial

    @property
    def alone(self) -> Evaluation | None:
        return self._shadow.alone if self._shadow else None

    @property
    def alone_is_done(self) -> bool:
        return self._shadow is not None and self._shadow.progress.is_frozen

    @property
    def problem(self) -> str:
        """Why newer files were not taken up; empty if all is well."""
        return self._source.problem

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        self._refresh()
        trainer = self._shadow or self._trainer
        return trainer.train(base, training, seed)

    def evaluate(self, parameters: Vector) -> Evaluation:
        return self._trainer.evaluate(parameters)

    def loss(self, parameters: Vector) -> float:
        return self._trainer.loss(parameters)

    def _refresh(self) -> None:
        data = self._source.newer()
        if self.problem != self._told:
            self._told = self.problem
            if self._told:
                log.warning("newer data are not used: %s", self._told)
        if data is None:
            return
        examples = (len(data.train_x), len(data.test_x))
        log.info("data changed: %d + %d examples, %d + %d before", *examples, *self.examples)
        self.examples = examples
        self._trainer = self._make(data)
        if self._alone:
            self._shadow = ShadowTrainer(self._trainer, self._alone)
            self._shadow.thaw()


class NoData:
    """The trainer of a device without data: it merges and serves, and never trains."""

    def __init__(self, layout: Layout, initial: Vector) -> None:
        self.layout = layout
        self.initial = initial

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        raise LocalError("this device has no data: set data.source")

    def evaluate(self, parameters: Vector) -> Evaluation:
        return Evaluation(math.nan, None, 0)

    def loss(self, parameters: Vector) -> float:
        return math.nan  # no guard without data: no comparison with NaN holds
