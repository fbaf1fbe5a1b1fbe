"""byzfl's aggregators, if they are installed, without the rest of byzfl."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest


def _aggregators() -> Any:
    """byzfl.aggregators alone: byzfl's own __init__ loads its benchmark, torchvision and data."""
    if "byzfl" in sys.modules:
        return importlib.import_module("byzfl.aggregators")
    spec = importlib.util.find_spec("byzfl")
    if spec is None or spec.submodule_search_locations is None:
        return None  # it needs torch, so it is not in the plain [test] extra: script/test --author
    bare = ModuleType("byzfl")
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules["byzfl"] = bare
    try:
        return importlib.import_module("byzfl.aggregators")
    finally:
        del sys.modules["byzfl"]


byzfl = _aggregators()
needs_byzfl = pytest.mark.skipif(byzfl is None, reason="byzfl is not installed: extra [oracles]")
