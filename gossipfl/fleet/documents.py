"""Policies and revocations as objects: made by officials, opened by whoever wants to read them."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from gossipfl.aggregation import RuleError, fits, plan, rule
from gossipfl.bundle.archive import Bundle
from gossipfl.bundle.manifest import Optimizer
from gossipfl.codecs import CodecError
from gossipfl.codecs import parse as parse_codec
from gossipfl.config import Limits
from gossipfl.errors import PeerError, UserError
from gossipfl.fleet.folders import Official
from gossipfl.fleet.grouping import require_groups
from gossipfl.identity import device_name
from gossipfl.membership import Roster
from gossipfl.messages import Gate, Member, Policy, Privacy, Revocation, Role, Stop, Training
from gossipfl.objects import (
    Vouched,
    digest,
    fleet_of,
    pack_vouched,
    unpack_member,
    unpack_vouched,
)
from gossipfl.policies import Policies
from gossipfl.privacy.agreed import affordable, agreed
from gossipfl.wire import encode, open_envelope, seal

FIRST_RUN = 1
TRAINING = ("epochs", "learning_rate", "momentum", "batch")  # what can be asked for by name
REASON_MAX = 512  # messages.Text
TLS_KEYS_MAX = 16  # messages.Revocation
DEFAULT_RULE = "collapse+nna"
"""What the fleet merges with if nothing is said: as good as nna alone within what seeds differ by,
and far better where liars send copies (docs/decisions/0004-collapse.md)."""
ADVISED = ("nna", "trimmed_mean")  # robust, and content with 2f + 1 models


@dataclass(frozen=True, slots=True)
class Job:
    """The bundle that a policy names."""

    bundle: Bundle
    file_digest: bytes
    file_bytes: int

    @classmethod
    def of(cls, bundle: Bundle, data: bytes) -> Job:
        """`data` are the bytes of the .gfl file, from which `bundle` was read."""
        return cls(bundle, digest(data), len(data))


@dataclass(frozen=True, slots=True)
class Choices:
    """What the operator said. None: as the policy before, else as the bundle or the default."""

    n: int
    attackers: int
    rule: str | None = None
    codec: str | None = None
    sample: int | None = None
    run: int | None = None
    term: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    batch: int | None = None
    rounds: int | None = None
    stop: Stop | None = None  # beside `rounds`; not as the policy before: so stops are lifted
    privacy: Privacy | None = None
    canary: tuple[bytes, ...] = ()  # not as the policy before: without, a policy is for all
    gate: Gate | None = None
    block: frozenset[bytes] = frozenset()  # beside those that the policy before blocks
    unblock: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class OpenPolicy:
    """A policy object whose signature and signer hold within the fleet that it names."""

    policy: Policy
    signer: Member
    digest: bytes


def next_policy(
    job: Job, choices: Choices, prev: OpenPolicy | None, signer: Member, now: int
) -> Policy:
    """The policy that follows `prev` (or the first). Raises UserError GF701."""
    before = prev.policy if prev else None
    if before is not None and before.fleet != signer.fleet:
        raise UserError("GF701", "the policy before belongs to another fleet")
    same_job = before is not None and before.bundle == job.bundle.id
    run = _run(choices.run, before, same_job)
    is_apart = bool(choices.canary) and _is_apart(before, same_job, run)
    policy = Policy(
        fleet=signer.fleet,
        term=_term(choices.term, before, signer),
        version=before.version + 1 if before else 1,
        run=run,
        bundle=job.bundle.id,
        bundle_object=job.file_digest,
        bundle_bytes=job.file_bytes,
        n=len(choices.canary) if is_apart else choices.n,
        attackers=0 if is_apart else choices.attackers,
        issued=now,
        prev=prev.digest if prev else None,
        rule=choices.rule or (before.rule if before else DEFAULT_RULE),
        codec=choices.codec or (before.codec if before else "f32"),
        sample=choices.sample,
        training=_training(choices, before if same_job else None, job.bundle.manifest.optimizer),
        stop=msgspec.structs.replace(choices.stop or Stop(), rounds=choices.rounds),
        privacy=choices.privacy or (before.privacy if before else Privacy()),
        canary=sorted(choices.canary),
        gate=choices.gate or (before.gate if before else Gate()),
        blocked=blocked(before, choices.block, choices.unblock),
    )
    require_sense(policy)
    return policy


def _is_apart(before: Policy | None, same_job: bool, run: int) -> bool:
    """Is this another job than the fleet's? Its canaries merge with each other alone: they are as
    many as are named, and none of them is assumed to lie."""
    if before is None or not same_job or before.run != run:
        return True
    return bool(before.canary) and before.n == len(before.canary)


def blocked(before: Policy | None, block: Set[bytes], unblock: Set[bytes]) -> list[bytes]:
    """A block stays until it is lifted by name. Raises UserError GF701."""
    held = frozenset(before.blocked if before else ())
    strangers = unblock - held
    if strangers:
        names = ", ".join(map(device_name, sorted(strangers)))
        raise UserError("GF701", f"{names} is not blocked by the policy before")
    return sorted((held | block) - unblock)


def policy_object(policy: Policy, official: Official) -> bytes:
    """The object that devices accept: the signed policy and its signer's member object."""
    return pack_vouched(
        Vouched(seal("policy", encode(policy), official.signer), official.member_object)
    )


def revocation_object(
    device: bytes, reason: str, issuer: Official, now: int, tls: Sequence[bytes] = ()
) -> bytes:
    """Signed by an issuer; once a peer has it, it spreads by itself. Raises UserError GF100.

    `tls` are the device's TLS keys (SHA-256 of the SPKI), as the issuer that admitted it knows
    them: by these they refuse it who never met it.
    """
    if issuer.member.role is not Role.ISSUER:
        raise UserError("GF100", "only an issuer revokes; name its folder with --fleet")
    if not 1 <= len(reason) <= REASON_MAX or not reason.isprintable():
        raise UserError("GF100", f"a reason has 1 to {REASON_MAX} printable characters")
    revocation = Revocation(issuer.member.fleet, device, reason, now, sorted(tls)[:TLS_KEYS_MAX])
    envelope = seal("revocation", encode(revocation), issuer.signer)
    return pack_vouched(Vouched(envelope, issuer.member_object))


def open_policy(data: bytes) -> OpenPolicy:
    """A policy object, verified with nothing but itself: its fleet id is the hash of the root key
    that its signer's member object leads to. Raises UserError GF702.
    """
    try:
        root = _root_of(data)
        roster = Roster(root, Limits())
        policies = Policies(fleet_of(root), Limits(), roster.verify_chain, lambda device: False)
        accepted = policies.verify(data)
        signer = roster.verify_chain(unpack_vouched(data, Limits()).member)
    except PeerError as error:
        raise UserError("GF702", str(error)) from error
    return OpenPolicy(accepted.policy, signer, accepted.digest)


def open_revocation(data: bytes) -> Revocation:
    """As `open_policy`."""
    try:
        found = Roster(_root_of(data), Limits()).revoke(data)
    except PeerError as error:
        raise UserError("GF702", str(error)) from error
    if found is None:
        raise ValueError("a new roster knew a revocation already")
    return found


def _root_of(data: bytes) -> bytes:
    """The key that signed the top of the chain: the root, if the rest holds."""
    limits = Limits()
    member = unpack_member(unpack_vouched(data, limits).member, limits)
    top = open_envelope(member.issuer or member.envelope, "member", limits.member_bytes)
    return top.key_id


def _term(wanted: int | None, before: Policy | None, signer: Member) -> int:
    """Only an issuer opens a new term: then its policy outranks all of a stolen operator key."""
    current = before.term if before else 0
    term = current if wanted is None else wanted
    if term < current:
        raise UserError("GF701", f"term {term} is behind the policy before, which has {current}")
    if term > current and signer.role is not Role.ISSUER:
        raise UserError(
            "GF701", "only an issuer opens a new term", "sign with --operator ISSUER-FOLDER"
        )
    return term


def _run(wanted: int | None, before: Policy | None, same_job: bool) -> int:
    """A new job is a new run, so that a rollback never revives old updates."""
    if wanted is not None:
        return wanted
    if before is None:
        return FIRST_RUN
    return before.run if same_job else before.run + 1


def _training(choices: Choices, before: Policy | None, optimizer: Optimizer) -> Training:
    base = (
        before.training
        if before
        else Training(optimizer.epochs, optimizer.learning_rate, optimizer.momentum)
    )
    return msgspec.structs.replace(base, **given(choices, TRAINING))


def given(asked: object, names: Sequence[str]) -> dict[str, Any]:
    """The fields of these names that `asked` says something of."""
    values = {name: getattr(asked, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def require_sense(policy: Policy) -> None:
    """What devices would refuse, or what no rule can stand. Raises UserError GF701."""
    try:
        msgspec.convert(msgspec.to_builtins(policy, builtin_types=(bytes,)), Policy, strict=True)
        rule(policy.rule)
        parse_codec(policy.codec)
    except (msgspec.ValidationError, RuleError, CodecError) as error:
        raise UserError("GF701", str(error)) from error
    _require_budget(policy.privacy)
    both = set(policy.canary) & set(policy.blocked)
    if both:
        raise UserError("GF701", f"{device_name(min(both))} is a canary and blocked")
    if policy.sample is not None and not 1 <= policy.sample < policy.n:
        raise UserError("GF701", f"a sample is 1 to {policy.n - 1} of {policy.n} devices")
    if 2 * policy.attackers >= policy.n:
        raise UserError(
            "GF701",
            f"{policy.attackers} attackers among {policy.n} devices: no rule stands a majority",
        )
    require_groups(policy)
    if policy.privacy.sums is None:
        _require_precondition(policy)


def _require_budget(privacy: Privacy) -> None:
    """That at least one publication fits. Raises UserError GF701."""
    try:
        if agreed(privacy) is None or affordable(privacy) > 0:
            return
    except ValueError as error:
        raise UserError("GF701", f"privacy: {error}") from error
    raise UserError(
        "GF701",
        f"privacy: one publication costs more than epsilon {privacy.epsilon:g}",
        "`gossipfl privacy plan` says which z the budget needs",
    )


def _require_precondition(policy: Policy) -> None:
    """That the rule could merge if all devices were there. Raises UserError GF701."""

    def pull(name: str, attackers: int, sample: int | None) -> tuple[int, int]:
        return plan(policy.n, attackers, partial(fits, name), sample, policy.f)

    def works(name: str, attackers: int, sample: int | None) -> bool:
        return fits(name, *pull(name, attackers, sample))

    try:
        rule(policy.rule).check(*pull(policy.rule, policy.attackers, policy.sample))
    except RuleError as error:
        if works(policy.rule, policy.attackers, None):
            least, _ = pull(policy.rule, policy.attackers, None)
            hint = f"leave --sample out: {policy.rule} works with {least} peers of {policy.n - 1}"
        else:
            fewer = range(policy.attackers)
            stood = [f"{n}" for n in fewer if works(policy.rule, n, None)][-1:]
            others = [name for name in ADVISED if works(name, policy.attackers, policy.sample)]
            ways = [f"--attackers {n} or fewer" for n in stood]
            ways += [f"--rule {' or '.join(others)}"] if others else []
            hint = f"what works: {', or '.join([*ways, 'a larger --n'])}"
        raise UserError("GF701", f"the rule could never merge: {error}", hint) from error
