"""The proof vectors of transparency-dev/merkle: 98 of inclusion, 98 of consistency."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tree import verify_consistency, verify_inclusion

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "merkle.json").read_text()
)


def hashes(texts: list[str] | None) -> list[bytes]:
    return [base64.b64decode(text) for text in texts or []]


def roots(*texts: str) -> list[bytes]:
    """Some vectors have words ("don't care 1") in the place of a root: any hash will do there."""
    found = hashes(list(texts))
    return [hashlib.sha256(r).digest() if r.startswith(b"don't care") else r for r in found]


@pytest.mark.parametrize("row", VECTORS["inclusion"], ids=lambda row: row[0])
def test_inclusion(row: list[Any]) -> None:
    _, index, size, leaf, root, proof, wrong = row
    if wrong:
        with pytest.raises(AuditRefused):
            verify_inclusion(index, size, *hashes([leaf]), hashes(proof), *hashes([root]))
    else:
        verify_inclusion(index, size, *hashes([leaf]), hashes(proof), *hashes([root]))


@pytest.mark.parametrize("row", VECTORS["consistency"], ids=lambda row: row[0])
def test_consistency(row: list[Any]) -> None:
    _, old, new, old_root, new_root, proof, wrong = row
    if wrong:
        with pytest.raises(AuditRefused):
            verify_consistency(old, new, *roots(old_root, new_root), hashes(proof))
    else:
        verify_consistency(old, new, *roots(old_root, new_root), hashes(proof))


def test_none_is_missing() -> None:
    assert [len(VECTORS[kind]) for kind in ("inclusion", "consistency")] == [98, 98]
    right = [sum(not row[-1] for row in VECTORS[kind]) for kind in ("inclusion", "consistency")]
    assert all(right)
    assert sum(right) < 20  # most of them are there to be refused
