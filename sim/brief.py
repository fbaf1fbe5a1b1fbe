"""Events and effects in a line that a person can read: bytes by their digest's first digits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np

from gossipfl.objects import digest

DIGITS = 8
ITEMS_MAX = 4


def brief(value: Any) -> str:
    """What differs from nothing, without long bytes, arrays or lists."""
    if isinstance(value, bytes):
        name = value if len(value) <= 32 else digest(value)
        return f"{len(value)}B:{name.hex()[:DIGITS]}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype}[{'x'.join(map(str, value.shape))}]"
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(map(str, value))) + "}"
    if isinstance(value, list | tuple):
        more = f", {len(value) - ITEMS_MAX} more" if len(value) > ITEMS_MAX else ""
        return "(" + ", ".join(brief(item) for item in value[:ITEMS_MAX]) + more + ")"
    if is_dataclass(value) and not isinstance(value, type):
        parts = [(f.name, getattr(value, f.name)) for f in fields(value)]
        told = [f"{name}={brief(part)}" for name, part in parts if not _is_nothing(part)]
        return f"{type(value).__name__}({', '.join(told)})"
    return str(value)


def _is_nothing(part: Any) -> bool:
    return part is None or part is False or (isinstance(part, tuple | Mapping) and not part)
