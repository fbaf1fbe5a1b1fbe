"""What the routes of policies take and give. Devices are named as people see them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from gossipfl.fleet.proposals import Change
from gossipfl.identity import device_name
from gossipfl.messages import Gate, Policy, Stop, Training


class State(StrEnum):
    """What became of a proposal."""

    OPEN = "open"
    ISSUED = "issued"
    WITHDRAWN = "withdrawn"


class Canary(StrEnum):
    """How a canary does, as its head says."""

    UNHEARD = "unheard"  # it has not named this policy yet
    WAITING = "waiting"  # it has it, and not its job
    TRYING = "trying"
    DECLINED = "declined"  # it went back by itself


class PolicyView(msgspec.Struct, frozen=True):
    """A policy, signed or proposed: digest and signer are empty, issued is 0 until then."""

    digest: str
    term: int
    version: int
    prev: str
    run: int
    bundle: str
    bundle_bytes: int
    n: int
    attackers: int
    rule: str
    f: int | None
    sample: int | None
    codec: str
    training: Training
    stop: Stop
    privacy: str
    gate: Gate
    canary: list[str]
    blocked: list[str]
    issued: int
    not_before: int
    signer: str


class SpreadView(msgspec.Struct, frozen=True):
    """Devices whose heads name it or a later one, devices that answer, and how many are enough."""

    named: int
    live: int
    wanted: int


class CanaryView(msgspec.Struct, frozen=True):
    device: str
    state: Canary


class PolicyState(msgspec.Struct, frozen=True):
    """The newest policy, the newest that is for all, and how the canaries do. None: none yet."""

    newest: PolicyView | None
    for_all: PolicyView | None
    spread: SpreadView | None
    canaries: list[CanaryView]
    proposals_open: int


class PolicyHistory(msgspec.Struct, frozen=True):
    """The newest first."""

    policies: list[PolicyView]


class ProposalRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    change: Change
    note: Annotated[str, Meta(max_length=512)] = ""


class ProposalView(msgspec.Struct, frozen=True):
    """`changes`: a line for each field that is not as in the policy it follows."""

    id: str
    state: State
    note: str
    made_by: str
    created: int
    policy: PolicyView
    changes: list[str]
    issued_as: str = ""  # digest of the policy, once it was signed and issued


class ProposalList(msgspec.Struct, frozen=True):
    """The newest first, at most 100."""

    proposals: list[ProposalView]


class IssueQuery(msgspec.Struct, frozen=True):
    """k: so many devices' heads must name it; wait_s: at most so long."""

    k: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    wait_s: Annotated[float, Meta(ge=0.0, le=60.0)] = 20.0


class IssueAnswer(msgspec.Struct, frozen=True):
    """It was taken in, and is durable here. `has_spread`: enough devices have it by now; if not,
    it goes on spreading all the same, as long as this hub or one device that has it lives."""

    policy: PolicyView
    spread: SpreadView
    has_spread: bool
    words: str


def view(policy: Policy, digest: bytes | None = None, signer: bytes | None = None) -> PolicyView:
    return PolicyView(
        digest=digest.hex() if digest else "",
        term=policy.term,
        version=policy.version,
        prev=policy.prev.hex() if policy.prev else "",
        run=policy.run,
        bundle=policy.bundle.hex(),
        bundle_bytes=policy.bundle_bytes,
        n=policy.n,
        attackers=policy.attackers,
        rule=policy.rule,
        f=policy.f,
        sample=policy.sample,
        codec=policy.codec,
        training=policy.training,
        stop=policy.stop,
        privacy=policy.privacy.mode,
        gate=policy.gate,
        canary=[device_name(device) for device in policy.canary],
        blocked=[device_name(device) for device in policy.blocked],
        issued=policy.issued,
        not_before=policy.not_before,
        signer=device_name(signer) if signer else "",
    )
