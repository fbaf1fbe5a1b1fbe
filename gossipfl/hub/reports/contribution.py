"""What each device gave the others, and the part of an incentive that this stands for. Pure.

As devices reckon it among themselves (`gossipfl reputation`): half by influence in the merges of
others, which is what they would lack without it, half by the bytes that it served. It is reported,
and nothing is paid by it: devices that collude can praise each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from gossipfl.hub.pseudonyms import ERASED
from gossipfl.hub.reports.facts import Facts, LogPart
from gossipfl.hub.reports.starred import Star
from gossipfl.hub.reports.stated import PrivacyStatement, stated
from gossipfl.hub.reports.tally import Part

FORMULA = (
    "incentive = (influence / all influence + bytes / all bytes) / 2. Influence: its share in each "
    "merge of another device, summed. Bytes: how often others merged it × size of an update. A "
    "device that was revoked, erased, or proven to have lied, gets 0."
)
SUMS = "In group sums a merge names a group's mean: what one device gave cannot be told."


class Row(msgspec.Struct, frozen=True):
    """One device under its pseudonym, or a client of star mode. `incentive`: its part, 0 to 1; over
    all of one mode 1. Of a client `rounds` and `published` are its updates."""

    mode: str
    device: str
    state: str
    rounds: int
    published: int
    merged_by_others: int
    refused_by_others: int
    influence: float
    bytes: int | None
    incentive: float


class Contribution(msgspec.Struct, frozen=True):
    """`rows`: the largest incentive first; empty where only sums may be seen, or can be told."""

    report: str
    log: LogPart
    formula: str
    words: str
    devices: int
    influence: float
    bytes: int | None
    rows: list[Row]
    privacy: PrivacyStatement


def contribution(facts: Facts) -> Contribution:
    tally = facts.tally
    policy = tally.chronicle.policy
    is_summing = policy is not None and policy.privacy.mode == "group-sum"
    known = {d.device: d for d in tally.devices()}
    parts = {d: tally.part(d) for d in known}
    out = {d: "revoked" for d, k in known.items() if k.revoked is not None}
    out |= {d: "proven" for d, k in known.items() if k.evidence}
    size = median(facts.update_bytes) if facts.update_bytes else None
    paid = {d: p for d, p in parts.items() if d not in out}
    influence = sum(p.influence for p in paid.values())
    merged = sum(p.merged for p in paid.values())
    rows = [
        Row(
            mode="peers",
            device=facts.names.get(device, "p-unknown"),
            state=out.get(device, "counts"),
            rounds=known[device].receipts,
            published=part.releases,
            merged_by_others=part.merged,
            refused_by_others=part.refused,
            influence=part.influence,
            bytes=None if size is None else round(part.merged * size),
            incentive=0.0
            if device in out
            else (_share(part.influence, influence) + _share(part.merged, merged)) / 2,
        )
        for device, part in parts.items()
    ]
    gone = [tally.part(device) for device in facts.erased]
    if gone:
        rows.append(_erased(gone, size))
    clients: list[Row] = []
    rows.sort(key=lambda row: (-row.incentive, row.device))
    if facts.star is not None:
        clients = _clients(facts.star, facts)
    return Contribution(
        report="contribution",
        log=facts.log,
        formula=FORMULA,
        words=SUMS if is_summing else "",
        devices=len(parts),
        influence=sum(p.influence for p in [*parts.values(), *gone]),
        bytes=None
        if size is None
        else round(sum(p.merged for p in [*parts.values(), *gone]) * size),
        rows=[*([] if is_summing else rows), *clients],
        privacy=stated(tally),
    )


def _erased(gone: Sequence[Part], size: float | None) -> Row:
    """All who were erased, as one: what others signed of them stays."""
    merged = sum(p.merged for p in gone)
    return Row(
        mode="peers",
        device=ERASED,
        state="erased",
        rounds=0,
        published=0,
        merged_by_others=merged,
        refused_by_others=sum(p.refused for p in gone),
        influence=sum(p.influence for p in gone),
        bytes=None if size is None else round(merged * size),
        incentive=0.0,
    )


def _clients(star: Star, facts: Facts) -> list[Row]:
    """Of star mode, by the hub's merges; updates of one job are equally large."""
    counted = [c for c in star.clients.values() if not c.is_blocked]
    influence, merged = sum(c.influence for c in counted), sum(c.merged for c in counted)
    rows = [
        Row(
            mode="star",
            device=facts.names.get(client, "p-unknown"),
            state="blocked" if c.is_blocked else "counts",
            rounds=c.updates,
            published=c.updates,
            merged_by_others=c.merged,
            refused_by_others=0,
            influence=c.influence,
            bytes=None if star.update_bytes is None else round(c.merged * star.update_bytes),
            incentive=0.0
            if c.is_blocked
            else (_share(c.influence, influence) + _share(c.merged, merged)) / 2,
        )
        for client, c in star.clients.items()
    ]
    return sorted(rows, key=lambda row: (-row.incentive, row.device))


def limited(made: Contribution) -> Contribution:
    """For who may see sums only."""
    return msgspec.structs.replace(made, rows=[])


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
