"""Figures as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table(rows: Mapping[str, Any]) -> str:
    """Name and value, one a line."""
    return "\n".join(f"  {name:<30} {value}" for name, value in rows.items())
