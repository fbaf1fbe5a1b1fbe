"""Figures: as text, and as the one JSON object that `--json` ends with."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

Figures = dict[str, Any]
"""Name -> number, text or list: what one benchmark measured."""


def table(figures: Mapping[str, Any]) -> str:
    """Name and value, one a line."""
    return "\n".join(f"  {name:<30} {value}" for name, value in figures.items())


def envelope(figures: Mapping[str, Any]) -> str:
    """The same envelope as every verb of the command has."""
    return json.dumps({"schema": 1, "status": "ok", "data": figures}, separators=(",", ":"))


def progress(text: str) -> None:
    """A word to the person who waits: on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
