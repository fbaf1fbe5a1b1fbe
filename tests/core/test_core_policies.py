"""Which policy is in force: rank, terms, revoked operators, dates and canaries."""

from __future__ import annotations

import random
from typing import Any

import pytest
from harness import fault_of, flip
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.config import Limits
from gossipfl.errors import Fault
from gossipfl.membership import Roster
from gossipfl.messages import Policy, Privacy, Role
from gossipfl.objects import Vouched, digest, pack_vouched
from gossipfl.parameters import Layout, Tensor
from gossipfl.policies import HISTORY_MAX, Accepted, Policies
from gossipfl.wire import encode, seal
from sim.fleet import EPOCH, Fleet, Keys

NOW = int(EPOCH)
FLEET = Fleet(11)
JOB = FLEET.job("j", Layout((Tensor("w", (2,), 0),)))
SECOND = FLEET.admit(Role.OPERATOR)
ISSUER = Keys(FLEET._issuer, FLEET.issuer_member, b"")
ME = b"m" * 16


class Held(Policies):
    """Policies with a roster behind them, and an `accept` that does what steering does."""

    def __init__(self) -> None:
        self.roster = Roster(FLEET.root.key_id, Limits())
        super().__init__(
            FLEET.id,
            Limits(),
            self.roster.verify_chain,
            lambda device: self.roster.revocation(device) is not None,
        )

    def accept(self, data: bytes) -> bytes | None:
        """Adds the policy; returns what is missing before it may count."""
        accepted = self.verify(data)
        missing = self.missing(accepted)
        if missing is None:
            self.add(accepted)
        return missing

    def revoke(self, device: bytes) -> None:
        self.roster.revoke(FLEET.revoke(device, "stolen"))

    def force(self, time: int = NOW, device: bytes = ME) -> Policy | None:
        found = self.in_force(device, time)
        return found.policy if found else None


def policy(version: int = 1, term: int = 0, prev: bytes | None = None, **fields: Any) -> bytes:
    before = prev or (digest(b"the one before") if version > 1 else None)
    return FLEET.policy(JOB, n=4, version=version, term=term, prev=before, **fields)


# --- what is refused -----------------------------------------------------------------------------


def test_every_flipped_bit_of_a_policy_is_refused() -> None:
    data, held = policy(), Held()
    refused = sum(
        fault_of(held.verify, flip(data, bit)) is not None for bit in range(8 * len(data))
    )
    assert refused == 8 * len(data)
    assert fault_of(held.verify, data) is None


@pytest.mark.parametrize("role", [Role.DEVICE, Role.HUB, Role.AUDITOR])
def test_only_operators_and_issuers_sign_policies(role: Role) -> None:
    data = policy(signed_by=FLEET.admit(role))
    assert fault_of(Held().verify, data) is Fault.WRONG_ROLE


def test_an_operators_member_object_under_another_signature() -> None:
    envelope = seal("policy", b"", SECOND.signer)
    data = pack_vouched(Vouched(envelope, FLEET.operator.member))
    assert fault_of(Held().verify, data) is Fault.WRONG_ROLE


def test_a_policy_of_another_fleet_is_refused() -> None:
    other = Fleet(12)
    assert fault_of(Held().verify, other.policy(JOB, n=4)) is Fault.UNKNOWN_MEMBER
    body = Policy(other.id, 0, 1, 0, JOB.bundle, digest(b""), 1, 4, 0, NOW)
    envelope = seal("policy", encode(body), FLEET.operator.signer)
    data = pack_vouched(Vouched(envelope, FLEET.operator.member))
    assert fault_of(Held().verify, data) is Fault.WRONG_FLEET


def test_a_policy_after_the_first_names_the_one_before() -> None:
    data = FLEET.policy(JOB, n=4, version=2)
    assert fault_of(Held().verify, data) is Fault.MALFORMED


def test_a_policy_whose_privacy_cannot_be_is_refused() -> None:
    data = policy(privacy=Privacy(mode="local", clip=float("nan")))
    assert fault_of(Held().verify, data) is Fault.MALFORMED


def test_a_version_follows_the_one_before() -> None:
    held = Held()
    first = policy()
    held.accept(first)
    assert fault_of(held.accept, policy(3, prev=digest(first))) is Fault.MALFORMED
    assert fault_of(held.accept, policy(2, prev=digest(first))) is None


# --- rank ----------------------------------------------------------------------------------------


def test_the_higher_version_wins_whatever_comes_first() -> None:
    low, high = policy(1, rule="mean"), policy(2, rule="median")
    for order in ((low, high), (high, low)):
        held = Held()
        for data in order:
            held.accept(data)
        found = held.force()
        assert found is not None
        assert found.rule == "median"


def test_the_higher_term_wins_over_any_version() -> None:
    held = Held()
    held.accept(policy(900))
    held.accept(policy(1, term=1, signed_by=ISSUER))
    found = held.force()
    assert found is not None
    assert (found.term, found.version) == (1, 1)


def test_ties_go_to_the_lower_digest() -> None:
    rivals = [policy(7, rule=rule) for rule in ("mean", "median", "krum", "nna")]
    winner = min(rivals, key=digest)
    entropy = random.Random(1)
    for _ in range(10):
        entropy.shuffle(rivals)
        held = Held()
        for data in rivals:
            held.accept(data)
        newest = held.newest()
        assert newest is not None
        assert newest.data == winner, "every device of the fleet follows the same one"


@given(st.permutations(range(6)))
def test_the_order_of_arrival_never_matters(order: list[int]) -> None:
    chain = [policy(1)]
    for version in range(2, 5):
        chain.append(policy(version, prev=digest(chain[-1])))
    chain += [policy(3, rule="krum"), policy(9, term=1, signed_by=ISSUER)]
    held = Held()
    for index in order:
        held.accept(chain[index])
    newest = held.newest()
    assert newest is not None
    assert newest.data == chain[5]


# --- terms ---------------------------------------------------------------------------------------


def test_an_operator_opens_no_term() -> None:
    held = Held()
    held.accept(policy())
    assert fault_of(held.accept, policy(1, term=1)) is Fault.WRONG_ROLE


def test_an_operator_opens_no_term_at_a_newcomer_either() -> None:
    """A stolen key must not win over a device that happens to know no policy yet."""
    held = Held()
    assert fault_of(held.accept, policy(1, term=5)) is Fault.WRONG_ROLE
    assert held.newest() is None


def test_an_operator_goes_on_in_a_term_that_an_issuer_opened() -> None:
    held = Held()
    held.accept(policy())
    opened = policy(2, term=1, signed_by=ISSUER)
    after = policy(3, term=1, prev=digest(opened))
    assert held.accept(after) == digest(opened), "it asks for what is missing"
    held.accept(opened)
    assert held.accept(after) is None
    newest = held.newest()
    assert newest is not None
    assert newest.data == after


def test_an_operator_cannot_hang_a_new_term_on_an_old_policy() -> None:
    held = Held()
    first = policy()
    held.accept(first)
    assert fault_of(held.accept, policy(2, term=9, prev=digest(first))) is Fault.WRONG_ROLE


# --- revoked operators ---------------------------------------------------------------------------


def test_a_revoked_operators_policies_no_longer_count() -> None:
    held = Held()
    mine = policy(1, rule="mean")
    held.accept(mine)
    held.accept(policy(2, prev=digest(mine), rule="median", signed_by=SECOND))
    held.revoke(SECOND.device)
    found = held.force()
    assert found is not None
    assert found.rule == "mean", "the newest one that it did not sign"
    assert fault_of(held.accept, policy(3, signed_by=SECOND)) is Fault.REVOKED_MEMBER


def test_without_any_other_policy_there_is_none() -> None:
    held = Held()
    held.accept(policy(signed_by=SECOND))
    held.revoke(SECOND.device)
    assert held.newest() is None
    assert held.force() is None


def test_an_expired_operators_policy_stays_in_force() -> None:
    """Archived objects need a valid chain only: else a fleet would stop with its operator."""
    old = FLEET.admit(Role.OPERATOR, days=0.0, not_before=EPOCH - 1e7)
    held = Held()
    assert held.accept(policy(signed_by=old)) is None


# --- dates and canaries --------------------------------------------------------------------------


def test_a_policy_begins_when_it_says() -> None:
    held = Held()
    held.accept(policy(1, rule="mean"))
    held.accept(policy(2, rule="median", not_before=NOW + 100))
    before, then = held.force(NOW + 99), held.force(NOW + 100)
    assert before is not None
    assert then is not None
    assert (before.rule, then.rule) == ("mean", "median")
    newest = held.newest()
    assert newest is not None
    assert newest.policy.version == 2, "heads name it before it begins, so that it spreads"


def test_a_canary_policy_is_for_its_devices_only() -> None:
    held = Held()
    held.accept(policy(1, rule="mean"))
    held.accept(policy(2, rule="median", canary=[b"c" * 16]))
    mine, theirs = held.force(device=ME), held.force(device=b"c" * 16)
    assert mine is not None
    assert theirs is not None
    assert (mine.rule, theirs.rule) == ("mean", "median")


def test_a_policy_after_the_canary_ends_it() -> None:
    held = Held()
    held.accept(policy(2, rule="median", canary=[b"c" * 16]))
    held.accept(policy(3, rule="krum"))
    for device in (ME, b"c" * 16):
        found = held.force(device=device)
        assert found is not None
        assert found.rule == "krum"


# --- bounds and restart --------------------------------------------------------------------------


def test_history_is_bounded_and_keeps_the_newest() -> None:
    held = Held()
    for version in range(1, 3 * HISTORY_MAX):
        held.accept(policy(version))
    accepted = [a for a in held._history.values() if isinstance(a, Accepted)]
    assert len(accepted) == HISTORY_MAX
    assert min(a.policy.version for a in accepted) == 2 * HISTORY_MAX


def test_one_operator_cannot_push_out_what_revoking_it_falls_back_to() -> None:
    """Else a stolen key first floods the history, and its revocation leaves no policy at all."""
    held = Held()
    held.accept(policy(1, rule="mean"))
    for version in range(2, 3 * HISTORY_MAX):
        held.accept(policy(version, rule="median", signed_by=SECOND))
    held.revoke(SECOND.device)
    found = held.force()
    assert found is not None
    assert found.rule == "mean"


def test_policies_survive_a_restart() -> None:
    held, again = Held(), Held()
    opened = policy(2, term=1, signed_by=ISSUER)
    for data in (policy(), opened, policy(3, term=1, prev=digest(opened))):
        held.accept(data)
    again.load(held.dump())
    assert again.dump() == held.dump()
    assert again.newest() == held.newest()


def test_policies_of_a_revoked_operator_do_not_come_back_with_a_restart() -> None:
    held, again = Held(), Held()
    held.accept(policy(1))
    held.accept(policy(2, signed_by=SECOND))
    again.revoke(SECOND.device)
    again.load(held.dump())
    newest = again.newest()
    assert newest is not None
    assert newest.policy.version == 1
