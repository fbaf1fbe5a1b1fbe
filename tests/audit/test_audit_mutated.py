"""A share of `python -m tests.audit.mutated_proofs`, which plays a million."""

from __future__ import annotations

from tests.audit.mutated_proofs import play


def test_no_mutated_proof_is_believed() -> None:
    cases, wrong = play(20_000, seed=7)
    assert cases == 20_000
    assert not wrong
