"""Policies and revocations: what officials sign is what nodes accept, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from fleetkit import NOW

from gossipfl.bundle.archive import read
from gossipfl.config import Limits
from gossipfl.errors import UserError
from gossipfl.fleet import documents
from gossipfl.fleet.documents import Choices, Job, OpenPolicy
from gossipfl.fleet.folders import FleetFolder, Official
from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.membership import Roster
from gossipfl.messages import Policy, Role, Stop
from gossipfl.objects import Vouched, pack_vouched, unpack_vouched
from gossipfl.policies import Policies

CHOICES = Choices(n=7, attackers=1)


@pytest.fixture
def job(root: Path) -> Job:
    data = (root / "gossipfl/bundles/digits-logistic.gfl").read_bytes()
    return Job.of(read(data), data)


@pytest.fixture
def other_job(root: Path) -> Job:
    data = (root / "gossipfl/bundles/digits-mlp.gfl").read_bytes()
    return Job.of(read(data), data)


@pytest.fixture
def operator(fleet: FleetFolder) -> Official:
    return fleet.operator().load()


def issue(
    job: Job, signer: Official, choices: Choices = CHOICES, prev: OpenPolicy | None = None
) -> OpenPolicy:
    policy = documents.next_policy(job, choices, prev, signer.member, NOW)
    return documents.open_policy(documents.policy_object(policy, signer))


def node_policies(fleet: FleetFolder) -> Policies:
    """As a node of this fleet keeps them."""
    issuer = fleet.issuer().load()
    roster = Roster(issuer.root_key, Limits())
    return Policies(issuer.fleet, Limits(), roster.verify_chain, lambda device: False)


def test_a_node_accepts_what_an_operator_issues(
    fleet: FleetFolder, job: Job, operator: Official
) -> None:
    policy = documents.next_policy(job, CHOICES, None, operator.member, NOW)
    data = documents.policy_object(policy, operator)
    policies = node_policies(fleet)
    accepted = policies.verify(data)
    assert policies.missing(accepted) is None
    policies.add(accepted)
    following = documents.next_policy(
        job, replace(CHOICES, n=8), documents.open_policy(data), operator.member, NOW
    )
    policies.add(policies.verify(documents.policy_object(following, operator)))
    newest = policies.newest()
    assert newest is not None
    assert (newest.policy.version, newest.policy.n) == (2, 8)
    assert newest.policy.prev == accepted.digest


def test_a_node_of_another_fleet_does_not(job: Job, operator: Official, tmp_path: Path) -> None:
    from gossipfl.errors import PeerError

    policy = documents.next_policy(job, CHOICES, None, operator.member, NOW)
    with pytest.raises(PeerError):
        node_policies(make_fleet(tmp_path / "other", now=NOW)).verify(
            documents.policy_object(policy, operator)
        )


def test_the_first_policy_takes_the_bundles_settings(job: Job, operator: Official) -> None:
    policy = issue(job, operator).policy
    optimizer = job.bundle.manifest.optimizer
    assert policy.bundle == job.bundle.id
    assert (policy.term, policy.version, policy.run, policy.rule) == (0, 1, 1, "collapse+nna")
    assert policy.training.learning_rate == optimizer.learning_rate
    assert policy.training.epochs == optimizer.epochs
    assert policy.training.momentum == optimizer.momentum
    assert policy.stop.rounds is None


def test_what_is_not_said_stays_as_it_was(job: Job, operator: Official) -> None:
    first = issue(
        job, operator, replace(CHOICES, rule="median", codec="int8", epochs=3, momentum=0.5, run=4)
    )
    second = issue(job, operator, Choices(n=9, attackers=2, learning_rate=0.2), first).policy
    assert (second.rule, second.codec, second.run, second.n) == ("median", "int8", 4, 9)
    assert (second.training.epochs, second.training.momentum) == (3, 0.5)
    assert second.training.learning_rate == 0.2


def test_another_job_is_another_run(job: Job, other_job: Job, operator: Official) -> None:
    first = issue(job, operator, replace(CHOICES, epochs=9))
    second = issue(other_job, operator, CHOICES, first)
    back = issue(job, operator, CHOICES, second).policy
    assert [first.policy.run, second.policy.run, back.run] == [1, 2, 3]
    assert second.policy.training.epochs == other_job.bundle.manifest.optimizer.epochs


def test_only_an_issuer_opens_a_term(fleet: FleetFolder, job: Job, operator: Official) -> None:
    first = issue(job, operator)
    with pytest.raises(UserError, match="only an issuer") as caught:
        issue(job, operator, replace(CHOICES, term=1), first)
    assert caught.value.code == "GF701"
    opened = issue(job, fleet.issuer().official(), replace(CHOICES, term=1), first)
    assert (opened.policy.term, opened.signer.role) == (1, Role.ISSUER)
    follows = issue(job, operator, CHOICES, opened).policy
    assert (follows.term, follows.version) == (1, 3)
    with pytest.raises(UserError, match="behind"):
        issue(job, operator, replace(CHOICES, term=0), opened)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (replace(CHOICES, rule="krumm"), "krum"),
        (replace(CHOICES, codec="int9"), "codec 'int9' is not known here"),
        (replace(CHOICES, codec="bf16+zstd"), r"end the name in \+zlib"),
        (replace(CHOICES, attackers=4), "majority"),
        (replace(CHOICES, n=0, attackers=0), "n"),
        (replace(CHOICES, attackers=-1), "attackers"),
        (replace(CHOICES, epochs=0), "epochs"),
        (replace(CHOICES, learning_rate=-0.1), "learning_rate"),
        (replace(CHOICES, learning_rate=float("nan")), "learning_rate"),
        (replace(CHOICES, momentum=1.0), "momentum"),
        (replace(CHOICES, sample=7), "sample"),
        (replace(CHOICES, run=-1), "run"),
        (replace(CHOICES, stop=Stop(patience=0)), "patience"),
        (replace(CHOICES, stop=Stop(distance=0.0)), "distance"),
        (replace(CHOICES, stop=Stop(slope=1.5)), "slope"),
        (replace(CHOICES, stop=Stop(drift=float("nan"))), "drift"),
        (replace(CHOICES, stop=Stop(epochs=-1)), "epochs"),
        (replace(CHOICES, stop=Stop(drift_checks=0)), "drift_checks"),
    ],
)
def test_nonsense_is_refused_before_it_is_signed(
    job: Job, operator: Official, choices: Choices, said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        issue(job, operator, choices)
    assert caught.value.code == "GF701"


@pytest.mark.parametrize(
    ("choices", "said", "hint"),
    [
        (
            Choices(n=5, attackers=2, rule="krum"),
            r"m = 4 received models and the own one are 5, but f = 2 needs 2f \+ 3 = 7 or more",
            "--attackers 1 or fewer, or --rule nna or trimmed_mean, or a larger --n",
        ),
        (
            Choices(n=2, attackers=0, rule="multi_krum"),
            r"2f \+ 3 = 3",
            "--rule nna or trimmed_mean",
        ),
        (Choices(n=6, attackers=2, rule="nnm+krum"), r"2f \+ 3 = 7", "--attackers 1 or fewer"),
        (
            Choices(n=20, attackers=4, rule="krum", sample=4),
            "m = 4 received models",
            "leave --sample out: krum works with 11 peers of 19",
        ),
        (Choices(n=7, attackers=1, sample=1), "nna: m = 1 .* f = 1", "leave --sample out"),
        (Choices(n=100, attackers=33, sample=20), "f = 16", "nna works with 75 peers of 99"),
    ],
)
def test_a_rule_that_could_never_merge_is_not_signed(
    job: Job, operator: Official, choices: Choices, said: str, hint: str
) -> None:
    with pytest.raises(UserError, match=f"could never merge: .*{said}") as caught:
        issue(job, operator, choices)
    assert caught.value.code == "GF701"
    assert hint in str(caught.value.hint)


def test_a_rule_with_just_enough_devices_is_signed(job: Job, operator: Official) -> None:
    for choices in (
        Choices(n=7, attackers=2, rule="krum"),
        Choices(n=3, attackers=1),
        Choices(n=1, attackers=0),
        Choices(n=20, attackers=4, rule="collapse+nnm+krum", sample=19),
    ):
        assert issue(job, operator, choices).policy.n == choices.n


def test_every_flipped_bit_of_a_policy_is_noticed(job: Job, operator: Official) -> None:
    policy = documents.next_policy(job, CHOICES, None, operator.member, NOW)
    data = documents.policy_object(policy, operator)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        with pytest.raises(UserError) as caught:
            documents.open_policy(bytes(changed))
        assert caught.value.code == "GF702"


def test_a_device_cannot_sign_a_policy(
    fleet: FleetFolder, job: Job, operator: Official, tmp_path: Path
) -> None:
    device = enrol_local(fleet, tmp_path / "d", now=NOW).load()
    policy = documents.next_policy(job, CHOICES, None, operator.member, NOW)
    mallory = Official(device.signer, device.member, device.member_object, device.root_key)
    with pytest.raises(UserError, match="operator"):
        documents.open_policy(documents.policy_object(policy, mallory))
    borrowed = replace(mallory, member_object=operator.member_object)
    with pytest.raises(UserError):
        documents.open_policy(documents.policy_object(policy, borrowed))


def test_a_policy_cannot_be_moved_to_another_fleet(
    job: Job, operator: Official, tmp_path: Path
) -> None:
    other = make_fleet(tmp_path / "other", now=NOW).operator().load()
    policy = documents.next_policy(job, CHOICES, None, operator.member, NOW)
    moved = msgspec.structs.replace(policy, fleet=other.member.fleet)
    assert isinstance(moved, Policy)
    with pytest.raises(UserError, match="another fleet"):
        documents.open_policy(documents.policy_object(moved, operator))
    with pytest.raises(UserError, match="another fleet"):
        documents.next_policy(job, CHOICES, issue(job, operator), other.member, NOW)


def test_a_roster_takes_a_revocation_by_an_issuer_only(
    fleet: FleetFolder, operator: Official, tmp_path: Path
) -> None:
    device = enrol_local(fleet, tmp_path / "d", now=NOW).load().signer.device
    issuer = fleet.issuer().official()
    data = documents.revocation_object(device, "stolen", issuer, NOW)
    roster = Roster(issuer.root_key, Limits())
    roster.revoke(data)
    revocation = roster.revocation(device)
    assert revocation is not None
    assert (revocation.reason, revocation.since) == ("stolen", NOW)
    with pytest.raises(UserError, match="only an issuer"):
        documents.revocation_object(device, "stolen", operator, NOW)
    envelope = unpack_vouched(data, Limits()).envelope
    with pytest.raises(UserError) as caught:
        documents.open_revocation(pack_vouched(Vouched(envelope, operator.member_object)))
    assert caught.value.code == "GF702"
    assert documents.open_revocation(data).device == device


@pytest.mark.parametrize("reason", ["", "x" * 513, "line\nbreak", "\x1b[31m"])
def test_a_reason_is_words(fleet: FleetFolder, reason: str) -> None:
    with pytest.raises(UserError):
        documents.revocation_object(bytes(16), reason, fleet.issuer().official(), NOW)
