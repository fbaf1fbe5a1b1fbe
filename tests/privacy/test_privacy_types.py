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


WIRE = """
from __future__ import annotations
from gossipfl.codecs import Publication, publish
from gossipfl.messages import Lineage
from gossipfl.parameters import Vector
from gossipfl.privacy import Publishable


def encode(lineage: Lineage, trained: Vector, model: Publishable) -> Publication:
    return publish(lineage, "f32", {RELEASE}, 1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("snippet", "release", "passes"),
    [
        (SNIPPET, "noised(mode, base, trained, key)", True),
        (SNIPPET, "unprotected(mode, trained)", False),
        (SNIPPET, "trained", False),
        (SNIPPET, "base", False),
        (WIRE, "model.vector", True),
        (WIRE, "trained", False),
    ],
    ids=["noised", "without a policy", "trained", "base", "cleared to the wire", "to the wire"],
)
def test_mypy_lets_nothing_but_noised_models_out(
    tmp_path: Path, root: Path, snippet: str, release: str, passes: bool
) -> None:
    pytest.importorskip("mypy")
    file = tmp_path / "snippet.py"
    file.write_text(snippet.replace("{RELEASE}", release))
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = true\nmypy_path = {root}\nfollow_imports = silent\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, file],
        capture_output=True,
        text=True,
        cwd=tmp_path.parent,  # one cache for all
        check=False,
    )
    assert (done.returncode == 0) is passes, done.stdout + done.stderr
    if not passes:
        assert "incompatible type" in done.stdout
