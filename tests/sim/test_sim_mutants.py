"""Who checks the checkers: known bugs put back into the node must break a history.

`gossipfl sim mutants` hunts them all; here is that each still fits the code, that hunting works,
and that a survivor is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gossipfl.rounds import Rounds
from sim import mutants as table
from sim.mutants import MUTANTS, Hunt, Mutant, hunt
from sim.mutate import Edit, EditError, mutated
from sim.plan import Focus
from sim.scene import Scene, Setup
from sim.soak import play
from sim.world import WorldError

Call = Callable[..., tuple[int, str, str]]
GATHERED = "gossipfl.rounds:Rounds.gathered"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mutant_fits_the_code_as_it_is(mutant: Mutant) -> None:
    """A failure says which words of which function have changed: change the mutant with them."""
    with mutated(mutant.edits):
        pass


def test_there_are_enough_and_no_two_have_one_name() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names)) >= 16


def test_an_edit_is_taken_back() -> None:
    before = Rounds.__dict__["gathered"]
    with mutated([Edit(GATHERED, "if d in self.inbox", "if False")]):
        assert Rounds.__dict__["gathered"] is not before
    assert Rounds.__dict__["gathered"] is before


def test_an_edit_is_taken_back_when_what_is_inside_fails() -> None:
    before = Rounds.__dict__["gathered"]
    with pytest.raises(ZeroDivisionError), mutated([Edit(GATHERED, "d in self.inbox", "d")]):
        raise ZeroDivisionError
    assert Rounds.__dict__["gathered"] is before


@pytest.mark.parametrize(
    ("target", "old", "why"),
    [
        (GATHERED, "words that are not there", "0 times"),
        (GATHERED, "self", "times"),
        ("gossipfl.rounds:Rounds.missing", "x", "no such function"),
        ("gossipfl.rounds:INBOX_MAX", "x", "no function"),
    ],
)
def test_an_edit_that_does_not_fit_says_so(target: str, old: str, why: str) -> None:
    with pytest.raises(EditError, match=why), mutated([Edit(target, old, "")]):
        pass


def test_two_edits_of_one_function_are_both_made() -> None:
    edits = [
        Edit(GATHERED, "for d in self.sampled", "for d in ()"),
        Edit(GATHERED, '"""What', '"""W'),
    ]
    with mutated(edits):
        gathered: Any = Rounds.__dict__["gathered"]
        assert gathered.__doc__.startswith("W this")


@pytest.mark.parametrize("name", ["unsigned-head", "merged-twice", "chain-broken"])
def test_a_mutant_is_found_and_the_plan_holds_without_it(name: str) -> None:
    found = hunt(Hunt(name, seeds=20))
    assert found.failure is not None
    assert play(found.failure.plan).failure is None


HARMLESS = Mutant(
    "harmless", "nothing", (Edit(GATHERED, '"""What', '"""Oh'),), Focus(kinds=("move",))
)


def test_a_survivor_is_an_error(monkeypatch: pytest.MonkeyPatch, gossipfl: Call) -> None:
    monkeypatch.setattr(table, "MUTANTS", (*MUTANTS, HARMLESS))
    code, out, _ = gossipfl("sim", "mutants", "--only", "harmless", "--seeds", "1", "--json")
    data = json.loads(out.splitlines()[-1])["data"]
    assert code == 1
    assert data["survivors"] == ["harmless"]


def test_the_command_says_how_to_show_it_again(gossipfl: Call) -> None:
    arguments = ("sim", "mutants", "--only", "merged-twice", "--quick", "--json")
    code, out, _ = gossipfl(*arguments)
    row = json.loads(out.splitlines()[-1])["data"]["mutants"][0]
    assert code == 0
    assert row["checker"] == "MergesVerified"
    code, out, _ = gossipfl(*row["again"].split()[1:])
    assert code == 0
    assert row["cause"] in out


def test_a_wrong_name_is_refused(gossipfl: Call) -> None:
    code, out, err = gossipfl("sim", "mutants", "--only", "nonsense")
    assert code == 2
    assert "merged-twice" in out + err


def test_a_hunt_that_is_quick_begins_with_the_known_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[int] = []
    monkeypatch.setattr(table, "_with", lambda mutant, plan: played.append(plan.seed))
    assert hunt(Hunt("quarantine-ignored", seeds=3, quick=True)).tried == 3
    assert played == [2, 1, 3]


def test_revoking_an_honest_device_unasked_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A roster that believes any revocation list: the accused was revoked by nobody."""
    scene = Scene(2, Setup(devices=4)).start()
    scene.run_rounds(2, limit_s=30.0)
    victim, accuser = scene.devices[1], scene.devices[0]
    assert accuser.node is not None
    core: Any = accuser.node._core  # type: ignore[attr-defined]
    inner = accuser.node.handle

    def handle(event: Any, now: float) -> Any:
        effects = inner(event, now)
        core.out = []
        core.expel(victim.device)
        return [*effects, *core.out]

    monkeypatch.setattr(accuser.node, "handle", handle)
    with pytest.raises(WorldError, match="accuses honest device 1"):
        scene.world.run_for(10.0)
