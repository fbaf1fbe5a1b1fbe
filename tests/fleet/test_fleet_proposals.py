"""Proposals: made where no key is, signed where one is, and accepted by nodes only then."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fleetkit import NOW
from test_fleet_documents import node_policies

from gossipfl.bundle.archive import read, write
from gossipfl.bundle.signing import sign
from gossipfl.cli.main import run
from gossipfl.cli.policy_signing import CHANGES_BYTES_MAX
from gossipfl.errors import PeerError, UserError
from gossipfl.fleet import documents
from gossipfl.fleet.documents import Choices, Job
from gossipfl.fleet.folders import FleetFolder
from gossipfl.fleet.proposals import (
    BundleRef,
    Change,
    Held,
    differences,
    is_signed_form,
    open_proposal,
    pack_proposal,
    propose,
)
from gossipfl.identity import device_name
from gossipfl.messages import Gate, Policy, Privacy, Stop, Sums
from gossipfl.objects import digest

CANARIES = [device_name(b"c" * 16), device_name(b"d" * 16)]
BLOCKED = device_name(b"x" * 16)


@pytest.fixture
def first(fleet: FleetFolder, root: Path) -> Held:
    data = (root / "gossipfl/bundles/digits-mlp.gfl").read_bytes()
    choices = Choices(n=9, attackers=2, rounds=40)
    operator = fleet.operator().load()
    policy = documents.next_policy(Job.of(read(data), data), choices, None, operator.member, NOW)
    return Held(policy, digest(documents.policy_object(policy, operator)))


@pytest.fixture
def bundle(root: Path) -> BundleRef:
    data = (root / "gossipfl/bundles/digits-logistic.gfl").read_bytes()
    return BundleRef(read(data).id, digest(data), len(data))


def held(policy: Policy) -> Held:
    return Held(policy, digest(pack_proposal(policy)))


def test_only_what_is_named_changes(first: Held) -> None:
    made = propose(Change(rule="median", learning_rate=0.5), first, first.policy)
    assert (made.version, made.prev, made.issued) == (2, first.digest, 0)
    assert (made.rule, made.training.learning_rate) == ("median", 0.5)
    same = ("bundle", "run", "n", "attackers", "stop", "codec", "privacy")
    assert all(getattr(made, name) == getattr(first.policy, name) for name in same)
    assert made.stop == Stop(rounds=40), "what is not named stays, stops too"


def test_canaries_of_another_bundle_are_a_fleet_of_their_own(
    first: Held, bundle: BundleRef
) -> None:
    gate = Gate(rounds=4, drop=0.1)
    made = propose(Change(canary=CANARIES, gate=gate), first, first.policy, bundle)
    assert (made.n, made.attackers, made.run) == (2, 0, first.policy.run + 1)
    assert made.canary == [b"c" * 16, b"d" * 16]
    assert made.gate == gate
    more = propose(Change(block=[BLOCKED]), held(made), first.policy)
    assert (more.canary, more.n, more.bundle) == (made.canary, 2, made.bundle), "it goes on"


def test_a_trial_is_rolled_either_way(first: Held, bundle: BundleRef) -> None:
    on_trial = propose(
        Change(canary=CANARIES, block=[BLOCKED], rule="median"), first, first.policy, bundle
    )
    forward = propose(Change(roll="forward"), held(on_trial), first.policy)
    assert (forward.canary, forward.n, forward.attackers) == ([], 9, 2)
    assert (forward.bundle, forward.run, forward.rule) == (
        bundle.bundle,
        on_trial.run,
        "median",
    )
    back = propose(Change(roll="back"), held(on_trial), first.policy)
    assert (back.bundle, back.run, back.rule) == (
        first.policy.bundle,
        first.policy.run,
        first.policy.rule,
    ), "the very lineage that the others learn"
    assert (back.version, back.canary, back.n) == (3, [], 9)
    assert back.blocked == forward.blocked == [b"x" * 16], "a block is lifted by name only"


def test_settings_alone_on_trial_keep_the_fleets_numbers(first: Held) -> None:
    made = propose(Change(canary=CANARIES, rule="median"), first, first.policy)
    assert (made.n, made.attackers, made.run) == (9, 2, first.policy.run)


def test_another_bundle_never_gets_a_run_that_was_used(first: Held, bundle: BundleRef) -> None:
    trial = propose(Change(canary=CANARIES), first, first.policy, bundle)
    again = BundleRef(b"n" * 32, b"o" * 32, 9)
    assert propose(Change(), held(trial), first.policy, again).run == trial.run + 1


def test_blocks_add_up_and_go_by_name(first: Held) -> None:
    one = propose(Change(block=[BLOCKED]), first, first.policy)
    two = propose(Change(block=[CANARIES[0]]), held(one), one)
    assert two.blocked == sorted([b"x" * 16, b"c" * 16])
    assert propose(Change(unblock=[BLOCKED]), held(two), two).blocked == [b"c" * 16]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Change(roll="back"), "no policy is on trial"),
        (Change(unblock=[BLOCKED]), "is not blocked"),
        (Change(rule="best"), "best"),
        (Change(attackers=5), "majority"),
        (Change(canary=[BLOCKED], block=[BLOCKED]), "is a canary and blocked"),
        (Change(block=["abcd-efgh"]), "not a device id"),
        (Change(block=["zz" * 16]), "hexadecimal"),
    ],
)
def test_what_makes_no_sense_is_no_proposal(first: Held, change: Change, words: str) -> None:
    with pytest.raises(UserError) as refused:
        propose(change, first, first.policy)
    assert words in refused.value.cause


def test_a_trial_of_an_unknown_fleet_needs_its_numbers(first: Held, bundle: BundleRef) -> None:
    trial = propose(Change(canary=CANARIES), first, first.policy, bundle)
    with pytest.raises(UserError) as refused:
        propose(Change(roll="forward"), held(trial), None)
    assert "n and attackers" in refused.value.cause
    made = propose(Change(roll="forward", n=9, attackers=2), held(trial), None)
    assert (made.n, made.attackers) == (9, 2)


def test_no_node_takes_an_unsigned_one(first: Held, fleet: FleetFolder) -> None:
    made = propose(Change(rule="median"), first, first.policy)
    policies = node_policies(fleet)
    with pytest.raises(PeerError):
        policies.verify(pack_proposal(made))
    signed = msgspec.structs.replace(made, issued=NOW + 5)
    accepted = policies.verify(documents.policy_object(signed, fleet.operator().load()))
    assert is_signed_form(accepted.policy, made)
    assert not is_signed_form(msgspec.structs.replace(signed, rule="mean"), made)


def test_a_proposal_file_is_read_back_or_refused(first: Held) -> None:
    made = propose(Change(rule="median"), first, first.policy)
    assert open_proposal(pack_proposal(made)) == made
    for data in (b"", b"\x00" * 40, pack_proposal(made)[:-1], b"\x91" * 5000):
        with pytest.raises(UserError):
            open_proposal(data)


def test_differences_name_what_a_signer_must_see(first: Held, bundle: BundleRef) -> None:
    made = propose(Change(canary=CANARIES, block=[BLOCKED]), first, first.policy, bundle)
    names = {line.split(":")[0] for line in differences(first.policy, made)}
    assert {"bundle", "run", "canary", "blocked", "n", "attackers"} <= names
    assert "version" not in names


# --- the command ---------------------------------------------------------------------------------


class Desk:
    """An operator's machine: a folder with a fleet, a bundle and a first policy."""

    def __init__(self, folder: Path, fleet: FleetFolder, shipped: Path) -> None:
        self.folder, self.fleet = folder, fleet
        operator = fleet.operator().load()
        for name in ("digits-mlp", "digits-logistic"):
            bundle = read((shipped / f"{name}.gfl").read_bytes())
            signed = sign(bundle, operator.signer, operator.member_object)
            (folder / f"{name}.gfl").write_bytes(write(signed))

    def run(self, *words: str) -> tuple[int, str]:
        plain = [w.replace("@", f"{self.folder}/") for w in words]
        return run(plain), ""

    def issue(self, *more: str) -> None:
        words = ("policy", "issue", "--operator", str(self.fleet.path), "--bundle")
        assert self.run(*words, "@digits-mlp.gfl", "--n", "9", "--attackers", "2", *more)[0] == 0


@pytest.fixture
def desk_of(tmp_path: Path, fleet: FleetFolder, root: Path) -> Desk:
    return Desk(tmp_path, fleet, root / "gossipfl/bundles")


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])["data"]
    return data


def test_a_proposal_is_signed_once_it_was_read(
    desk_of: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk_of.issue("-o", "@1.gfp")
    (desk_of.folder / "c.json").write_text(json.dumps({"canary": CANARIES, "block": [BLOCKED]}))
    more = ("--prev", "@1.gfp", "--bundle", "@digits-logistic.gfl", "-o", "@2.gfu")
    assert desk_of.run("policy", "propose", "@c.json", *more)[0] == 0
    capsys.readouterr()
    signing = ("policy", "sign", "@2.gfu", "--operator", str(desk_of.fleet.path))
    assert desk_of.run(*signing, "--yes")[0] != 0, "nobody could see what changes"
    assert "--prev" in capsys.readouterr().err
    assert desk_of.run(*signing, "--prev", "@1.gfp")[0] != 0, "nobody is there to confirm it"
    assert "--yes" in capsys.readouterr().err
    assert not (desk_of.folder / "2.gfp").exists()
    assert desk_of.run(*signing, "--prev", "@1.gfp", "--yes", "--json")[0] == 0
    shown = answer(capsys)
    assert (shown["version"], shown["canary"], shown["blocked"]) == (2, CANARIES, [BLOCKED])
    opened = documents.open_policy((desk_of.folder / "2.gfp").read_bytes())
    assert opened.policy.issued > 0


def test_changes_come_from_stdin_and_never_in_part(
    desk_of: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk_of.issue("-o", "@1.gfp")
    words = ("policy", "propose", "-", "--prev", "@1.gfp", "-o", "@2.gfu")
    changes = json.dumps({"rule": "median"}).encode()

    def propose_from(stdin: bytes) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return desk_of.run(*words)[0]

    assert propose_from(changes + b" " * CHANGES_BYTES_MAX) != 0
    assert f"stdin has more than {CHANGES_BYTES_MAX} bytes" in capsys.readouterr().err
    assert not (desk_of.folder / "2.gfu").exists()
    assert propose_from(changes) == 0
    assert open_proposal((desk_of.folder / "2.gfu").read_bytes()).rule == "median"


def test_who_signs_sees_all_of_it(desk_of: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A hub that was broken into writes the proposal."""
    desk_of.issue("-o", "@1.gfp")
    opened = documents.open_policy((desk_of.folder / "1.gfp").read_bytes())
    signing = ("policy", "sign", "@2.gfu", "--operator", str(desk_of.fleet.path), "--yes")
    signing += ("--prev", "@1.gfp")

    def propose_odd(**fields: Any) -> int:
        odd = msgspec.structs.replace(
            opened.policy, **{"prev": opened.digest, "version": 2} | fields
        )
        (desk_of.folder / "2.gfu").write_bytes(pack_proposal(odd))
        return desk_of.run(*signing)[0]

    assert propose_odd(f=0, not_before=2**40, bundle_object=b"o" * 32) == 0
    said = capsys.readouterr().out
    for part in ("assumes   0 liars", "after the year 9999", "f: None -> 0", "bundle_object: "):
        assert part in said
    for wrong in ({"version": 2**53}, {"prev": None}, {"prev": b"p" * 32}):
        assert propose_odd(**wrong) != 0
        assert "follow" in capsys.readouterr().err


def test_what_changes_within_a_field_is_shown(first: Held) -> None:
    group = [bytes([n]) * 16 for n in range(9)]
    summing = [
        msgspec.structs.replace(
            first.policy, privacy=Privacy(mode="group-sum", sums=Sums(devices=devices))
        )
        for devices in (group, [*group[:-1], b"z" * 16])
    ]
    [line] = differences(*summing)
    old, new = line.removeprefix("privacy: ").split(" -> ")
    assert old != new


def test_nobody_signs_for_another_fleet_or_out_of_order(
    desk_of: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gossipfl.fleet.local import make_fleet

    desk_of.issue("-o", "@1.gfp")
    desk_of.issue("-o", "@other.gfp", "--rule", "median")
    (desk_of.folder / "c.json").write_text('{"rule": "median"}')
    assert desk_of.run("policy", "propose", "@c.json", "--prev", "@1.gfp", "-o", "@2.gfu")[0] == 0
    stranger = make_fleet(tmp_path / "stranger", "another")
    signing = ("policy", "sign", "@2.gfu", "--yes", "--operator")
    assert desk_of.run(*signing, str(stranger.path))[0] != 0
    assert "another fleet" in capsys.readouterr().err
    assert desk_of.run(*signing, str(desk_of.fleet.path), "--prev", "@other.gfp")[0] != 0
    assert "does not follow" in capsys.readouterr().err


def test_blocks_and_canaries_by_flags(desk_of: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk_of.issue("-o", "@1.gfp")
    desk_of.issue(
        *("-o", "@2.gfp", "--prev", "@1.gfp", "--block", BLOCKED, "--json"),
    )
    assert answer(capsys)["blocked"] == [BLOCKED]
    desk_of.issue("-o", "@3.gfp", "--prev", "@2.gfp", "--run", "7", "--canary", *CANARIES, "--json")
    shown = answer(capsys)
    assert (shown["n"], shown["attackers"], shown["blocked"]) == (2, 0, [BLOCKED])
    desk_of.issue("-o", "@4.gfp", "--prev", "@3.gfp", "--unblock", BLOCKED, "--json")
    shown = answer(capsys)
    assert (shown["n"], shown["canary"], shown["blocked"], shown["run"]) == (9, [], [], 7)
