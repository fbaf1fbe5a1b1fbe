"""The compliance report as a value: a function of the log's first entries and of nothing else.

No clock, no name of a device or a person, no text that a device wrote. Made again for the same size
of the same log it has the same bytes, as long as nothing in it was erased since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gossipfl.audit.checkpoints import Checkpoint
from gossipfl.hub.reports.claims import DUTIES, Duty
from gossipfl.hub.reports.stated import PrivacyStatement, stated
from gossipfl.hub.reports.tally import Seen, Tally, has_noise

PROVEN_MAX = 64  # entries whose inclusion one report proves: 4 of each of 17 kinds at most
SAMPLES_OF_CLAIM = 8
SAYS = (
    "This report lists what the audit log holds that supports each article. It is evidence for "
    "whoever judges, and no judgement."
)
NOT_SHOWN = (
    "what was never logged",
    "whether the times are true beyond their order",
    "whether others are shown the same log: witnesses' signatures on checkpoints show that",
    "what the entries say, beyond the counts here: entries are proven closed, without payloads",
)

Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Words = Annotated[str, Meta(max_length=600)]
Status = Literal["evidence", "no entry yet", "not claimed"]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class LogState(_Part, frozen=True):
    """The checkpoint that covers exactly the entries reported on, signed by the hub alone."""

    origin: Annotated[str, Meta(max_length=128)]
    size: Count
    root: Hex32
    number: Count
    time: Count
    note: Annotated[str, Meta(max_length=2_048)]


class ProvenEntry(_Part, frozen=True):
    """An entry's 42 bytes and its RFC 6962 audit path in the tree of `log.size`, in hex."""

    entry: Count
    kind: Annotated[str, Meta(max_length=32)]
    time: Count
    leaf: Annotated[str, Meta(pattern="^[0-9a-f]{84}$")]
    proof: Annotated[list[Hex32], Meta(max_length=64)]


class Claim(_Part, frozen=True):
    """`count` entries support it, from `first` to `last` (seconds since 1970); `proven` are some of
    them, whose inclusion is in `entries`."""

    framework: Words
    article: Words
    asks: Words
    supports: Words
    status: Status
    count: Count
    first: Count | None
    last: Count | None
    proven: Annotated[list[Count], Meta(max_length=SAMPLES_OF_CLAIM)]
    limits: Words


class Activity(_Part, frozen=True):
    """Counts over the log. `refused` by cause; a cause that is none of the protocol's is "other".
    `erased`: payloads that erasure entries name. `unreadable`: by this version."""

    entries: dict[str, Count]
    devices: Count
    revoked: Count
    proven: Count
    merges: Count
    models_merged: Count
    refused: dict[str, Count]
    rules: dict[str, Count]
    erased: Count
    unreadable: Count


class ComplianceReport(_Part, frozen=True):
    format: Literal[1]
    report: Literal["compliance"]
    says: Words
    fleet: Hex32
    log: LogState
    first: Count | None
    last: Count | None
    activity: Activity
    privacy: PrivacyStatement
    claims: Annotated[list[Claim], Meta(min_length=1, max_length=64)]
    entries: Annotated[list[ProvenEntry], Meta(max_length=PROVEN_MAX + 8)]
    not_shown: list[Words]


Proof = tuple[bytes, list[bytes]]  # an entry's bytes, its audit path


def wanted(tally: Tally) -> list[int]:
    """The places of all entries that the report proves."""
    return sorted({s.index for duty in DUTIES for s in _samples(tally, duty)})


def compose(
    tally: Tally,
    checkpoint: Checkpoint,
    note: bytes,
    fleet: bytes,
    proofs: Mapping[int, Proof],
) -> ComplianceReport:
    """`note`: the checkpoint with the hub's signature alone. `proofs`: of `wanted(tally)`."""
    times = {s.index: (s.time, kind.word) for kind, f in tally.kinds.items() for s in f.samples()}
    return ComplianceReport(
        format=1,
        report="compliance",
        says=SAYS,
        fleet=fleet.hex(),
        log=LogState(
            origin=checkpoint.origin,
            size=checkpoint.size,
            root=checkpoint.root.hex(),
            number=checkpoint.number,
            time=checkpoint.time,
            note=note.decode(),
        ),
        first=tally.chronicle.first,
        last=tally.chronicle.newest if tally.size else None,
        activity=_activity(tally),
        privacy=stated(tally),
        claims=[_claim(tally, duty) for duty in DUTIES],
        entries=[
            ProvenEntry(
                entry=index,
                kind=times[index][1],
                time=times[index][0],
                leaf=proofs[index][0].hex(),
                proof=[value.hex() for value in proofs[index][1]],
            )
            for index in wanted(tally)
        ],
        not_shown=list(NOT_SHOWN),
    )


def _activity(tally: Tally) -> Activity:
    devices = tally.devices()
    return Activity(
        entries={k.word: tally.kinds[k].count for k in sorted(tally.kinds)},
        devices=len(devices),
        revoked=sum(d.revoked is not None for d in devices),
        proven=sum(bool(d.evidence) for d in devices),
        merges=tally.receipts,
        models_merged=tally.pulls,
        refused=dict(sorted(tally.faults.items())),
        rules=dict(sorted(tally.rules.items())),
        erased=tally.erased,
        unreadable=tally.chronicle.unreadable,
    )


def _claim(tally: Tally, duty: Duty) -> Claim:
    facts = [tally.kinds[kind] for kind in duty.kinds if kind in tally.kinds]
    times = [s.time for f in facts for s in f.samples()]
    return Claim(
        framework=duty.framework,
        article=duty.article,
        asks=duty.asks,
        supports=duty.supports,
        status=status_of(tally, duty),
        count=tally.count(*duty.kinds),
        first=min(times, default=None),
        last=max(times, default=None),
        proven=[s.index for s in _samples(tally, duty)],
        limits=duty.limits,
    )


def status_of(tally: Tally, duty: Duty) -> Status:
    policy = tally.chronicle.policy
    if duty.of_privacy and (policy is None or not has_noise(policy.privacy)):
        return "not claimed"
    return "evidence" if tally.count(*duty.kinds) else "no entry yet"


def _samples(tally: Tally, duty: Duty) -> list[Seen]:
    """The first and the last of each kind; of many kinds, the first and last of all."""
    found: dict[int, Seen] = {}
    for kind in duty.kinds:
        if kind in tally.kinds:
            found |= {s.index: s for s in tally.kinds[kind].samples()}
    rows = [found[index] for index in sorted(found)]
    if len(rows) <= SAMPLES_OF_CLAIM:
        return rows
    half = SAMPLES_OF_CLAIM // 2
    return rows[:half] + rows[-half:]


def body_of(report: ComplianceReport) -> bytes:
    """Its bytes: JSON with sorted keys, no spaces, ASCII."""
    plain = msgspec.to_builtins(report)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
