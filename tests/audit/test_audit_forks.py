"""Forks: what an honest log never signs twice, and what is no proof of anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gossipfl.audit.checkpoints import Checkpoint, sign_checkpoint
from gossipfl.audit.forks import ForkKind, contradiction, prove_fork
from gossipfl.audit.refused import AuditRefused
from gossipfl.identity import Signer
from tests.audit.logs import HUB, HUB_KEY, START, make_log

LOG = make_log(50, every=10).checkpoints
SECOND, THIRD, FOURTH = LOG[1:4]


def note(checkpoint: Checkpoint, signer: Signer = HUB) -> bytes:
    return sign_checkpoint(checkpoint, signer).encode()


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (THIRD, replace(THIRD, root=b"x" * 32), ForkKind.EQUAL_NUMBER),
        (THIRD, replace(THIRD, time=START + 99), ForkKind.EQUAL_NUMBER),
        (THIRD, replace(FOURTH, previous=b"x" * 32), ForkKind.FORKED_CHAIN),
        (SECOND, replace(FOURTH, size=SECOND.size - 1), ForkKind.SHRUNK),
        (SECOND, replace(FOURTH, time=SECOND.time - 1), ForkKind.BACKWARDS),
        (SECOND, replace(FOURTH, size=SECOND.size), ForkKind.EQUAL_SIZE),
    ],
)
def test_two_histories_are_proof(one: Checkpoint, other: Checkpoint, kind: ForkKind) -> None:
    assert prove_fork(note(one), note(other), HUB_KEY) is kind
    assert prove_fork(note(other), note(one), HUB_KEY) is kind


def test_no_two_checkpoints_of_an_honest_log_contradict_each_other() -> None:
    for one in LOG:
        for other in LOG:
            assert contradiction(one, other) is None
            with pytest.raises(AuditRefused, match="do not contradict"):
                prove_fork(note(one), note(other), HUB_KEY)


def test_nobody_but_the_log_itself_can_be_blamed_with_its_signature() -> None:
    liar = Signer(b"l" * 32)
    forged = replace(THIRD, origin=f"gossipfl/{liar.device.hex()}", root=b"x" * 32)
    with pytest.raises(AuditRefused, match="not signed by"):
        prove_fork(note(THIRD), note(forged, liar), HUB_KEY)
    real = note(THIRD)
    with pytest.raises(AuditRefused, match="wrong"):
        prove_fork(real, real.replace(b"number 3", b"number 4"), HUB_KEY)
