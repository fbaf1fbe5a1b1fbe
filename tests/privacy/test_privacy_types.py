"""The type system keeps vectors without noise from the wire: mypy itself is asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SNIPPET = """
from __future__ import annotations
from gossipfl.parameters import Cleared, Vector
from gossipfl.privacy import DevicePrivacy, Off, Protection, Publishable, unprotected
from gossipfl.privacy.device_unit import noised


def publish(model: Publishable) -> Cleared:
    return model.vector


def local(mode: Protection, base: Vector, trained: Vector, key: bytes) -> Cleared:
    match mode:
        case Off():
            return publish(unprotected(mode, trained))
        case DevicePrivacy():
            return publish({RELEASE})
    raise ValueError
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("release", "passes"),
    [
        ("noised(mode, base, trained, key)", True),
        ("unprotected(mode, trained)", False),
        ("trained", False),
        ("base", False),
    ],
)
def test_mypy_lets_nothing_but_noised_models_out(
    tmp_path: Path, root: Path, release: str, passes: bool
) -> None:
    pytest.importorskip("mypy")
    file = tmp_path / "snippet.py"
    file.write_text(SNIPPET.replace("{RELEASE}", release))
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = true\nmypy_path = {root}\nfollow_imports = silent\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, file],
        capture_output=True,
        text=True,
        cwd=tmp_path.parent,  # one cache for all four
        check=False,
    )
    assert (done.returncode == 0) is passes, done.stdout + done.stderr
    if not passes:
        assert "incompatible type" in done.stdout
