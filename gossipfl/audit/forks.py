"""Proof that a log shows two histories, for anybody who knows its key.

An honest log signs one checkpoint per number, each naming the one before, and neither shrinks nor
goes back in time. Two of its signatures that cannot both be honest are the proof: they need no
witness, no tree and no word of whoever found them.
"""

from __future__ import annotations

from enum import StrEnum

from gossipfl.audit.checkpoints import Checkpoint, open_checkpoint
from gossipfl.audit.notes import Key
from gossipfl.audit.refused import AuditRefused


class ForkKind(StrEnum):
    """Why two checkpoints of one log contradict each other."""

    EQUAL_NUMBER = "equal number"  # two texts under one number
    FORKED_CHAIN = "forked chain"  # n + 1 does not name n
    SHRUNK = "shrunk"  # a higher number has fewer entries
    BACKWARDS = "backwards"  # a higher number is older
    EQUAL_SIZE = "equal size"  # two roots for one size


def contradiction(one: Checkpoint, other: Checkpoint) -> ForkKind | None:
    """Why no honest log signs both, or None. The order of the two does not matter."""
    first, second = sorted((one, other), key=lambda c: c.number)
    if first.number == second.number and first.text() != second.text():
        return ForkKind.EQUAL_NUMBER
    if second.number == first.number + 1 and second.previous != first.digest:
        return ForkKind.FORKED_CHAIN
    if second.size < first.size:
        return ForkKind.SHRUNK
    if second.time < first.time:
        return ForkKind.BACKWARDS
    if second.size == first.size and second.root != first.root:
        return ForkKind.EQUAL_SIZE
    return None


def prove_fork(first: bytes, second: bytes, key: Key) -> ForkKind:
    """The contradiction of two signed notes of this log. Raises AuditRefused if they show none."""
    opened = [open_checkpoint(note, key).checkpoint for note in (first, second)]
    kind = contradiction(*opened)
    if kind is None:
        raise AuditRefused("these two checkpoints do not contradict each other")
    return kind
