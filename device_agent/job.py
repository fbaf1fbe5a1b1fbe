"""From a bundle that a policy names to the trainer of this device: validation, data, reference."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from device_agent.bundles.signers import operator_of
from device_agent.bundles.validate import admit
from device_agent.data import DataSet, DataSource, DataSpec
from device_agent.figures import FigureFile
from device_agent.local_training import LocalTrainer
from device_agent.progress import Progress
from device_agent.settings import Settings
from gossipfl.bundle.archive import Bundle
from gossipfl.config import Limits
from gossipfl.errors import PeerError, UserError
from gossipfl.interfaces import Evaluation, Trainer
from gossipfl.membership import Roster
from gossipfl.messages import Training
from gossipfl.objects import digest
from gossipfl.parameters import Layout, Vector
from gossipfl.privacy import Noised, RecordPrivacy

ALONE_FILE = "alone.bin"
FIGURES_FILE = "figures.json"
log = logging.getLogger(__name__)


class JobLoader:
    """Makes trainers. `load` blocks for seconds on a new bundle: it is for a worker thread.

    `wrap` goes around the finished trainer, for whoever runs an agent of another kind of learner.
    """

    def __init__(
        self,
        settings: Settings,
        root_key: bytes,
        progress: Progress,
        wrap: Callable[[Trainer], Trainer] | None = None,
    ) -> None:
        self._settings = settings
        self._roster = Roster(root_key, Limits())
        self._progress = progress
        self._wrap = wrap
        self.local: LocalTrainer | None = None
        self.bundle_object: bytes | None = None  # digest of the bundle file in use

    def load(self, bundle_id: bytes, data: bytes) -> Trainer:
        """The trainer for the bundle in `data`. Raises UserError GF401, OSError."""
        began = time.monotonic()
        bundle = self._admitted(bundle_id, data)
        self.local = self._local(bundle)
        self.bundle_object = digest(data)
        name, took_s = bundle.manifest.name, time.monotonic() - began
        log.info("bundle %s %s is ready after %.1f s", name, bundle.id.hex()[:12], took_s)
        timed = _Timed(self.local, self._progress)
        return self._wrap(timed) if self._wrap else timed

    def _admitted(self, bundle_id: bytes, data: bytes) -> Bundle:
        """After every check of `device_agent.bundles`, and that it is the one that was named."""
        try:
            bundle, _ = admit(data, self._settings.device.state, operator_of(self._roster))
        except PeerError as error:
            raise UserError("GF401", f"its signature: {error}") from error
        if bundle.id != bundle_id:
            raise UserError("GF401", f"not the {bundle_id.hex()[:12]} that the policy names")
        return bundle

    def _local(self, bundle: Bundle) -> LocalTrainer:
        def make(data: DataSet) -> Trainer:
            # onnxruntime is a third of this process: a device at rest does not load it.
            from device_agent.trainer import OnnxTrainer

            return OnnxTrainer(bundle, data.train_x, data.train_y, data.test_x, data.test_y)

        source = None
        if self._settings.data.source:
            spec = DataSpec.from_manifest(msgspec.to_builtins(bundle.manifest))
            source = DataSource(self._settings.data, spec)
        state = self._settings.device.state
        alone = state / ALONE_FILE if self._settings.training.alone_reference else None
        figures = FigureFile(state / FIGURES_FILE)
        return LocalTrainer(bundle.layout, bundle.initial, source, make, figures, alone)


class _Timed:
    """The same trainer; tells when training began."""

    def __init__(self, trainer: Trainer, progress: Progress) -> None:
        self._trainer = trainer
        self._progress = progress

    @property
    def layout(self) -> Layout:
        return self._trainer.layout

    @property
    def initial(self) -> Vector:
        return self._trainer.initial

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        self._progress.training()
        return self._trainer.train(base, training, seed)

    def train_private(
        self, base: Vector, training: Training, mode: RecordPrivacy, key: bytes
    ) -> Noised:
        self._progress.training()
        return self._trainer.train_private(base, training, mode, key)

    def evaluate(self, parameters: Vector) -> Evaluation:
        return self._trainer.evaluate(parameters)

    def loss(self, parameters: Vector) -> float:
        return self._trainer.loss(parameters)
