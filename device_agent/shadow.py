"""The reference that shows what the fleet is worth: the same training, on local data alone.

After each training of the real model, the reference takes one step too, from params0 and its own
last state, never from a merge. It stops when its held-out result has not improved for a while, so
its cost is bounded. It lies in a file of the state folder, never in the object store, and nothing
of it is published.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gossipfl.interfaces import Evaluation, Trainer
from gossipfl.messages import Training
from gossipfl.parameters import Layout, Vector, from_bytes, to_bytes

PATIENCE = 5  # rounds without a better result; issue of this part, "bounded cost"
LOSS_GAIN = 1e-3  # relative: for tasks without accuracy a smaller gain is no improvement, guess
HEADER_BYTES_MAX = 4_096
FILE_MODE = 0o600

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the reference is. `best` is the best held-out result that it ever had."""

    rounds: int = 0
    since_best: int = 0
    best: Evaluation | None = None

    @property
    def is_frozen(self) -> bool:
        return self.since_best >= PATIENCE

    def after(self, result: Evaluation) -> Progress:
        better = self.best is None or _is_better(result, self.best)
        return Progress(
            self.rounds + 1,
            0 if better else self.since_best + 1,
            result if better else self.best,
        )


class ShadowReference:
    """The reference for the job with this layout and these params0, kept in the file `path`.

    Called from one worker thread; `progress` may be read from any. A failure of the reference is
    logged and never fails the training.
    """

    def __init__(self, layout: Layout, initial: Vector, path: Path) -> None:
        self._path = path
        self._count = layout.count
        self._job = hashlib.sha256(layout.digest + to_bytes(initial)).hexdigest()
        self.progress = Progress()
        self._parameters: Vector = initial
        self._restore()

    def step(self, trainer: Trainer, training: Training, seed: int) -> None:
        """One training of the reference, unless it no longer gets better."""
        if self.progress.is_frozen:
            return
        try:
            self._parameters = trainer.train(self._parameters, training, seed)
            self.progress = self.progress.after(trainer.evaluate(self._parameters))
            self._save()
        except Exception as error:  # the reference must not cost a round
            log.warning("the alone reference stopped: %s", error)
            self.progress = replace(self.progress, since_best=PATIENCE)

    def thaw(self) -> None:
        """The local data changed: the reference may get better again."""
        self.progress = replace(self.progress, since_best=0)

    def _save(self) -> None:
        """Whole or not at all; losing the last step is harmless, so nothing is fsynced."""
        body = to_bytes(self._parameters)
        header = {
            "job": self._job,
            "sha256": hashlib.sha256(body).hexdigest(),
            "rounds": self.progress.rounds,
            "since_best": self.progress.since_best,
            "best": asdict(self.progress.best) if self.progress.best else None,
        }
        temporary = self._path.with_name(self._path.name + ".tmp")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(header).encode() + b"\n" + body)
        temporary.replace(self._path)

    def _restore(self) -> None:
        """Goes on where the last process ended, if the file is whole and of this very job."""
        try:
            with self._path.open("rb") as file:
                header: dict[str, Any] = json.loads(file.readline(HEADER_BYTES_MAX))
                body = file.read(4 * self._count + 1)
            if header["job"] == self._job:
                self._take(header, body)
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the alone reference starts again, %s: %s", self._path, error)

    def _take(self, header: dict[str, Any], body: bytes) -> None:
        if header["sha256"] != hashlib.sha256(body).hexdigest():
            raise ValueError("its digest does not match")
        if len(body) != 4 * self._count:
            raise ValueError("its length is another model's")
        best = Evaluation(**header["best"]) if header["best"] else None
        self.progress = Progress(int(header["rounds"]), int(header["since_best"]), best)
        self._parameters = from_bytes(body)


def _is_better(result: Evaluation, best: Evaluation) -> bool:
    if result.accuracy is not None and best.accuracy is not None:
        return result.accuracy > best.accuracy
    return result.loss < best.loss - LOSS_GAIN * abs(best.loss)
