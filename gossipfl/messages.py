"""The typed payloads of protocol v1. Unknown fields are refused; lengths are part of the types.

Every payload travels in a `wire` envelope, except the containers (lists, chapters), whose parts
are signed or content-addressed themselves. All times are whole seconds of fleet time (Unix epoch).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
Device = Annotated[bytes, Meta(min_length=16, max_length=16)]
Seq = Annotated[int, Meta(ge=1, le=2**53)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[int, Meta(ge=0, le=2**40)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Label = Annotated[str, Meta(max_length=64)]
Text = Annotated[str, Meta(max_length=512)]


class Role(StrEnum):
    DEVICE = "device"
    HUB = "hub"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ISSUER = "issuer"


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Member(_Message, frozen=True):
    """Binds a signing key, a TLS key and a role to a fleet. Signed by an issuer or by the root."""

    fleet: Digest
    device: Device
    key: Key
    role: Role
    not_before: Seconds
    not_after: Seconds
    issued: Seconds
    tls: Digest | None = None  # SHA-256 of the TLS SPKI; None for people's keys (operators)
    replaces: Device | None = None


class Lineage(_Message, frozen=True):
    """What may be merged with what: equal lineages only."""

    bundle: Digest  # bundle id
    run: Count
    layout: Digest


class UpdateRef(_Message, frozen=True):
    digest: Digest
    size: Annotated[int, Meta(ge=1, le=2**32)]
    codec: Label
    round: Count  # the publisher's own count: a label, trusted for nothing


class ChainRef(_Message, frozen=True):
    """The newest link of a chain: its number and digest."""

    number: Seq
    digest: Digest


class SumRef(_Message, frozen=True):
    """A device's part in an attempt at a group sum, from its keys to its reveal."""

    attempt: Digest  # groups.plan.Plan.id
    window: Count
    number: Count
    objects: Annotated[list[Digest], Meta(max_length=6)]  # one a step, in the steps' order


class Head(_Message, frozen=True):
    """A device's only mutable ref. seq strictly grows; prev chains."""

    fleet: Digest
    device: Device
    seq: Seq
    member: Digest
    issued: Seconds
    prev: Digest | None = None  # None only for seq 1
    lineage: Lineage | None = None
    update: UpdateRef | None = None
    receipts: ChainRef | None = None
    ledger: ChainRef | None = None
    policy: Digest | None = None
    revocations: Digest | None = None
    evidence: Digest | None = None
    peers: Digest | None = None
    head_chapter: Digest | None = None
    receipt_chapter: Digest | None = None
    checkpoint: Digest | None = None
    cosignature: Digest | None = None
    pruned: Digest | None = None  # list object of markers: what retention has let go
    capability: Label = ""
    group: SumRef | None = None
    declined: Digest | None = None  # the policy that this canary went back from


class Merged(_Message, frozen=True, array_like=True):
    device: Device
    seq: Seq
    head: Digest
    update: Digest
    influence: Share


class Refused(_Message, frozen=True, array_like=True):
    device: Device
    fault: Label


class Receipt(_Message, frozen=True):
    """What one device merged, computed from published inputs only; chained per device."""

    fleet: Digest
    device: Device
    number: Seq
    round: Count
    lineage: Lineage
    base: Digest  # SHA-256 of the merged parameters (little-endian float32)
    rule: Label
    f: Count
    issued: Seconds
    own: Digest | None = None  # the own update that took part, None for a joiner
    merged: Annotated[list[Merged], Meta(max_length=256)] = []
    refused: Annotated[list[Refused], Meta(max_length=256)] = []
    prev: Digest | None = None
    statement: Digest | None = None  # what this device promises of its privacy, as an object


class Chapter(_Message, frozen=True):
    """Digests of consecutive links of one chain: backfill in one request."""

    device: Device
    chain: Annotated[str, Meta(pattern="^(head|receipt)$")]
    first: Seq
    digests: Annotated[list[Digest], Meta(min_length=1, max_length=256)]
    prev: Digest | None = None  # the chapter before


class Training(_Message, frozen=True):
    """How a device trains between two merges."""

    epochs: Annotated[int, Meta(ge=1, le=1_000)] = 1
    learning_rate: Annotated[float, Meta(gt=0.0, le=100.0)] = 0.05
    momentum: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.9
    prox: Annotated[float, Meta(ge=0.0, le=1e6)] = 0.0
    batch: Annotated[int, Meta(ge=1, le=65_536)] | None = None  # None: the bundle's; never above it


class Stop(_Message, frozen=True):
    """When a device rests: as soon as one of these holds. None: not looked at.

    `rounds`, `epochs` and `bytes` end a run; the others rest until there is something new, and are
    looked at after five merges at the earliest (`stopping.WINDOW`).
    """

    rounds: Count | None = None
    epochs: Count | None = None  # budget: passes over the local data
    bytes: Count | None = None  # budget: of updates published and pulled
    distance: Annotated[float, Meta(gt=0.0, le=1e6)] | None = None  # target, over the way come
    slope: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None  # the distance changes less a round
    patience: Annotated[int, Meta(ge=1, le=10_000)] | None = None  # rounds without a better model
    new_data: bool = True  # new local data end a rest
    drift: Annotated[float, Meta(gt=0.0, le=1e3)] | None = None  # nats of local loss that end one
    drift_checks: Annotated[int, Meta(ge=1, le=100)] = 3  # in a row, one a round interval


class Sums(_Message, frozen=True):
    """Who sums with whom, and when: `groups.schedule`. Everybody follows the same list and clock.

    A window has time for training, then for each attempt its six steps, then for collecting.
    """

    devices: Annotated[list[Device], Meta(min_length=4, max_length=1_024)]
    size: Annotated[int, Meta(ge=4, le=16)] = 8  # of a group, about
    train_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    step_s: Annotated[int, Meta(ge=1, le=3_600)] = 10
    attempts: Annotated[int, Meta(ge=1, le=8)] = 2
    reach: Annotated[float, Meta(gt=0.0, le=1e6)] = 8.0  # larger parameters count as this
    noise: bool = False  # each device adds noise to its vector as in mode local


class Privacy(_Message, frozen=True):
    """What devices add before they publish, and how much they may spend in all.

    The bounds are those of `privacy.protection`. All but `mode` is without effect in mode off:
    whoever turns privacy on says each of them.
    """

    mode: Annotated[str, Meta(pattern="^(off|local|group-sum)$")] = "off"
    unit: Annotated[str, Meta(pattern="^(device|record)$")] = "device"
    epsilon: Annotated[float, Meta(gt=0.0, le=1e3)] = 1.0  # at most, over all publications
    delta: Annotated[float, Meta(gt=0.0, lt=1.0)] = 1e-5
    clip: Annotated[float, Meta(ge=1e-6, le=1e6)] = 1.0
    z: Annotated[float, Meta(ge=0.25, le=1e5)] = 1.0  # at least: an owner may ask for more noise
    sample_rate: Annotated[float, Meta(ge=1e-6, le=1.0)] = 1.0  # this and the rest: unit=record
    steps: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    lot: Annotated[int, Meta(ge=1, le=65_536)] = 1
    sums: Sums | None = None  # in mode group-sum, and then it must be there


class Gate(_Message, frozen=True):
    """When a canary goes back to the policy before, by itself: after `rounds` in a row in which
    its model was worse on its own held-out data than the one before by more than `drop` of
    accuracy. A bundle that cannot be loaded or trained is not given so long (`trial`)."""

    rounds: Annotated[int, Meta(ge=1, le=10_000)] = 10  # guess: the demo has learnt most by then
    drop: Share = 0.2  # guess: what one device alone reaches less than its fleet


class Policy(_Message, frozen=True):
    """Operator-signed settings of a fleet. Higher (term, version) wins, ties by lower digest.

    `canary`: it is for these devices only, and for no others. `blocked` is for everybody, whoever
    is a canary: nobody merges these devices, nor answers them.
    """

    fleet: Digest
    term: Count
    version: Seq
    run: Count
    bundle: Digest  # bundle id
    bundle_object: Digest  # SHA-256 of the .gfl file
    bundle_bytes: Annotated[int, Meta(ge=1, le=2**32)]
    n: Annotated[int, Meta(ge=1, le=100_000)]
    attackers: Count
    issued: Seconds
    not_before: Seconds = 0
    prev: Digest | None = None
    rule: Label = "nna"
    f: Count | None = None  # None: from the exact sampling bound
    sample: Count | None = None  # None: from the exact sampling bound
    codec: Label = "f32"
    canary: Annotated[list[Device], Meta(max_length=256)] = []
    training: Training = Training()
    stop: Stop = Stop()
    privacy: Privacy = Privacy()
    gate: Gate = Gate()
    blocked: Annotated[list[Device], Meta(max_length=256)] = []


class Revocation(_Message, frozen=True):
    """This device is shut out for good. `tls` names its TLS keys (SHA-256 of the SPKI), so that
    those refuse it too who never held its member object."""

    fleet: Digest
    device: Device
    reason: Text
    since: Seconds
    tls: Annotated[list[Digest], Meta(max_length=16)] = []


class Record(_Message, frozen=True):
    """Where a device says it listens. A candidate only."""

    fleet: Digest
    device: Device
    seq: Seq
    member: Digest
    addresses: Annotated[
        list[Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=8)
    ]


class Marker(_Message, frozen=True):
    """Signed statement that links below `number` were pruned by retention."""

    fleet: Digest
    device: Device
    chain: Annotated[str, Meta(pattern="^(head|receipt)$")]
    number: Seq
    issued: Seconds


class EvidenceKind(StrEnum):
    EQUAL_SEQ = "equal seq"
    FORKED_CHAIN = "forked chain"
    SUM_EQUIVOCATION = "two in a sum"  # two objects for one step of a group sum
    SUM_KEY = "reused key"  # in two attempts at a group sum
    FORKED_LOG = "forked log"  # two checkpoints of a hub's log, lower number first
    FALSE_CHECKPOINT = "false checkpoint"  # a hub's head, and what it names as its checkpoint


class Evidence(_Message, frozen=True):
    """Two signed objects that one honest device cannot both have signed. Proves itself."""

    kind: EvidenceKind
    first: bytes  # envelopes; of heads, the lower seq first
    second: bytes
    member: bytes  # member object of the accused
