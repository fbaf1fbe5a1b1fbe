"""Who checks the checkers: known bugs put back into the node must break a history.

Each mutant removes one guard. If a history with it still passes, the invariant that should have
seen it is asleep.
"""

from __future__ import annotations

from typing import Any

import pytest

from gossipfl.identity import KeyId, Signer
from gossipfl.membership import Roster
from gossipfl.memory import StoreFault
from gossipfl.publisher import Publisher
from gossipfl.restorer import Restorer
from gossipfl.rounds import Rounds
from sim.adversaries import Silent
from sim.forks import Rewritten
from sim.histories import restored
from sim.scene import Scene, Setup
from sim.world import WorldError


class Unsigned(Signer):
    """Claims a key that it does not have."""

    def __init__(self, key_id: bytes) -> None:
        super().__init__(b"x" * 32)
        self.key_id = KeyId(key_id)

    def sign(self, message: bytes) -> bytes:
        return bytes(64)


def forged() -> None:
    scene = Scene(31, Setup(devices=6, attackers=1))
    liar = scene.devices[5]
    signer = Unsigned(liar.keys.signer.key_id)
    scene.world.corrupt(liar, Rewritten(lambda head, update: (head, update), signer))
    scene.start()
    scene.run_rounds(4, limit_s=60.0)
    scene.world.finish()


def test_without_signature_checks_a_forged_head_is_seen_in_a_merge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forged()
    monkeypatch.setattr("gossipfl.intake.check_signature", lambda envelope: None)
    with pytest.raises(WorldError, match="what no signed head named"):
        forged()


def test_without_asking_peers_a_restored_device_signs_old_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def at_once(restorer: Restorer) -> None:
        core = restorer._core
        core.restraint.reconciled = True
        core.rounds.next_at = core.now
        core.publisher.want_head()

    monkeypatch.setattr(Restorer, "advance", at_once)
    with pytest.raises(WorldError, match="two heads with seq"):
        restored(1)


def test_a_failed_commit_that_is_taken_for_done_is_seen_on_the_shelf(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        Publisher, "failed", lambda publisher, commit, reason: publisher.stored(commit)
    )
    scene = Scene(1, Setup(devices=4)).start()
    scene.run_rounds(2, limit_s=30.0)
    scene.devices[0].store.faults = [StoreFault.NOT_DONE] * 3
    with pytest.raises(WorldError, match="before it is durable"):
        scene.run_rounds(3, limit_s=60.0)


def falls_silent() -> None:
    scene = Scene(32, Setup(devices=6, attackers=1)).start()
    scene.run_rounds(2, limit_s=30.0)
    scene.world.corrupt(scene.devices[5], Silent())
    scene.run_rounds(6, limit_s=90.0)


def test_a_round_without_a_deadline_is_seen_to_last(monkeypatch: pytest.MonkeyPatch) -> None:
    falls_silent()
    monkeypatch.setattr(Rounds, "is_collected", lambda rounds, now: len(rounds.open) == 0)
    with pytest.raises(WorldError, match=r"has lasted|does not move on"):
        falls_silent()


def test_revoking_an_honest_device_unasked_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A roster that believes any revocation list: the accused was revoked by nobody."""
    scene = Scene(2, Setup(devices=4)).start()
    scene.run_rounds(2, limit_s=30.0)
    victim, accuser = scene.devices[1], scene.devices[0]
    assert accuser.node is not None
    core: Any = accuser.node._core  # type: ignore[attr-defined]
    assert isinstance(core.roster, Roster)
    inner = accuser.node.handle

    def handle(event: Any, now: float) -> Any:
        effects = inner(event, now)
        core.out = []
        core.expel(victim.device)
        return [*effects, *core.out]

    monkeypatch.setattr(accuser.node, "handle", handle)
    with pytest.raises(WorldError, match="accuses honest device 1"):
        scene.world.run_for(10.0)
