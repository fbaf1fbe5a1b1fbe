"""The last measured figures of the current model, kept so that a restart need not measure again.

A device at rest then shows its accuracy without loading the trainer. The figures go with the digest
of the model that they are of, so they are never shown for another one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gossipfl.interfaces import Evaluation
from gossipfl.parameters import Vector, to_bytes

FILE_MODE = 0o600
FILE_BYTES_MAX = 4_096

log = logging.getLogger(__name__)


class FigureFile:
    """One small JSON file. Losing it is harmless, so it is whole but not fsynced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[str, Evaluation] | None = None
        self._data = ""

    @property
    def data(self) -> str:
        """The fingerprint of the data that the figures are of; empty if there are none."""
        if self._known is None:
            self._known = self._read()
        return self._data

    def put(self, parameters: Vector, found: Evaluation, data: str = "") -> None:
        """Remembers `found` as the figures of this model on these data. Never raises."""
        model = hashlib.sha256(to_bytes(parameters)).hexdigest()
        if self._known == (model, found) and self._data == data:
            return  # measured again at rest: flash is not written for it
        self._known, self._data = (model, found), data
        temporary = self._path.with_name(self._path.name + ".tmp")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
            with os.fdopen(handle, "w") as file:
                json.dump({"model": model, "data": data, **asdict(found)}, file)
            temporary.replace(self._path)
        except OSError as error:
            log.warning("%s was not written: %s", self._path, error)

    def of(self, model: str | None) -> Evaluation | None:
        """The figures of the model with this digest (hex), if they are the last ones measured."""
        if self._known is None:
            self._known = self._read()
        return self._known[1] if self._known[0] == model else None

    def _read(self) -> tuple[str, Evaluation]:
        try:
            with self._path.open("rb") as file:
                content: dict[str, Any] = json.loads(file.read(FILE_BYTES_MAX))
            model = str(content.pop("model"))
            self._data = str(content.pop("data", ""))
            return model, Evaluation(**content)
        except (OSError, ValueError, KeyError, TypeError):
            return "", Evaluation(0.0, None, 0)
