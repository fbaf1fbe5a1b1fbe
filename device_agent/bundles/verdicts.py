"""Verdicts that are remembered: one small JSON file in the state folder, by bundle id.

A verdict is only as good as what made it, so it also names the checks' version and onnxruntime's;
another of either means another trial. The hashes of the files are checked every time all the same.
"""

from __future__ import annotations

import os
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

CHECKS = 2  # grows when a check is added or changed
ENTRIES_MAX = 32  # a fleet has one bundle, and a few behind it
FILE_BYTES_MAX = 64 * 1024


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Accepted, or why not; and what the trial measured on this device."""

    accepted: bool
    reason: str = ""
    detail: str = ""
    step_ms: float = 0.0
    rss_mb: float = 0.0
    nodes: dict[str, int] = {}
    operators: list[str] = []
    checker: str = ""


def checker() -> str:
    """What made a verdict, without importing onnxruntime."""
    try:
        return f"checks {CHECKS}, onnxruntime {version('onnxruntime')}"
    except PackageNotFoundError:
        return f"checks {CHECKS}"


class VerdictFile:
    """The file. A broken one counts as empty: the worst it costs is another trial."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, bundle_id: bytes) -> Verdict | None:
        found = self._read().get(bundle_id.hex())
        return found if found is not None and found.checker == checker() else None

    def put(self, bundle_id: bytes, verdict: Verdict) -> None:
        """Replaces the file as a whole, readable by its owner alone."""
        entries = self._read()
        entries.pop(bundle_id.hex(), None)
        entries[bundle_id.hex()] = verdict
        newest = dict(list(entries.items())[-ENTRIES_MAX:])
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".verdicts")  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(newest))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _read(self) -> dict[str, Verdict]:
        try:
            with self._path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
            if len(data) > FILE_BYTES_MAX:
                return {}
            return msgspec.json.decode(data, type=dict[str, Verdict])
        except (OSError, msgspec.MsgspecError):
            return {}
