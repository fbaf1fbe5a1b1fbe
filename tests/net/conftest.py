"""A fleet per test, and a second one that shares nothing with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from netkit import Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "fleet")


@pytest.fixture
def foreign_fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "foreign")
