"""docs/track-record.md: every command there still names something that can fail."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from sim.mutants import MUTANTS

PAGE = "docs/track-record.md"


def commands(root: Path) -> list[list[str]]:
    rows = [line for line in (root / PAGE).read_text().splitlines() if line.startswith("| ")]
    return [shlex.split(re.findall(r"`([^`]+)`", row)[-1]) for row in rows[1:]]


def test_every_bug_has_a_command(root: Path) -> None:
    found = commands(root)
    assert len(found) >= 20
    assert {tuple(words[:1]) for words in found} <= {("script/test",), ("gossipfl",)}


def test_every_mutant_that_is_named_is_there(root: Path) -> None:
    names = {mutant.name for mutant in MUTANTS}
    rows = [words[1:] for words in commands(root) if words[0] == "gossipfl"]
    assert rows
    for words in rows:
        assert words[:3] == ["sim", "mutants", "--only"]
        assert words[3] in names


def test_every_test_that_is_named_is_collected(root: Path) -> None:
    """One collection for all of them: each row's file and words must be in it."""
    rows = [words[1:] for words in commands(root) if words[0] == "script/test"]
    files = sorted({row[0] for row in rows})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", "--collect-only", "-q", *files],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    collected = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    for file, flag, word in rows:
        assert flag == "-k"
        assert any(line.startswith(f"{file}::") and word in line for line in collected), (
            file,
            word,
        )
