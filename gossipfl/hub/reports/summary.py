"""The executive summary: what fits on one A4 page, from the other reports. Pure."""

from __future__ import annotations

import msgspec

from gossipfl.audit.entries import EntryKind
from gossipfl.hub.page import words
from gossipfl.hub.page.influence import weights
from gossipfl.hub.reports.claims import DUTIES
from gossipfl.hub.reports.compliance import status_of
from gossipfl.hub.reports.facts import Facts, LogPart
from gossipfl.hub.reports.performance import Performance, performance
from gossipfl.hub.reports.stated import PrivacyStatement
from gossipfl.hub.reports.tally import has_noise
from gossipfl.hub.reports.value import CostReport, cost_report

COSTS_SHOWN = 6
ATTENTION_MAX = 6


class Box(msgspec.Struct, frozen=True):
    """One figure, and what it is made of."""

    name: str
    value: str
    words: str


class Trend(msgspec.Struct, frozen=True):
    """A line from the first point to the last. `values`: null where there is none."""

    name: str
    values: list[float | None]
    last: str
    words: str


class Summary(msgspec.Struct, frozen=True):
    report: str
    log: LogPart
    headline: str
    boxes: list[Box]
    trends: list[Trend]
    attention: list[str]
    costs: list[Box]
    not_set: list[str]
    privacy: PrivacyStatement
    compliance: str


def summary(facts: Facts) -> Summary:
    found, money = performance(facts), cost_report(facts)
    return Summary(
        report="summary",
        log=facts.log,
        headline=_headline(facts, found),
        boxes=_boxes(facts, found),
        trends=_trends(found),
        attention=_attention(facts)[:ATTENTION_MAX],
        costs=_costs(money),
        not_set=sorted({name for lack in money.missing for name in lack.not_set}),
        privacy=found.privacy,
        compliance=_compliance(facts),
    )


def _headline(facts: Facts, found: Performance) -> str:
    star = found.star
    if not found.rounds and star is not None and star.merges:
        text = f"{words.count(star.clients, 'client')} learned with the hub: "
        text += f"{words.count(star.merges, 'merge')} of {words.count(star.updates, 'update')}"
        return text + "; no raw data moved."
    if not found.rounds:
        return "Nothing was merged yet."
    span = words.age((facts.log.last or 0) - (facts.log.first or 0))
    text = f"{words.count(found.devices, 'device')} learned together over {span}"
    text += f": {words.count(found.rounds, 'merge')} of {words.count(found.models_merged, 'model')}"
    return text + "; no raw data moved."


def _boxes(facts: Facts, found: Performance) -> list[Box]:
    privacy = found.privacy
    boxes = [Box("Devices", str(found.devices), "that merged at least once")]
    star = found.star
    if star is not None and not found.rounds:
        boxes = [Box("Clients", str(star.clients), "of star mode")]
    known = [p.accuracy for p in star.points if p.accuracy is not None] if star is not None else []
    if known and not found.benchmarks:
        boxes.append(Box("Accuracy", words.percent(known[-1], 1), "of the global model"))
    if found.benchmarks:
        last = found.benchmarks[-1]
        value = last.merged if last.merged is not None else last.median
        boxes.append(Box("Accuracy", words.percent(value, 1), f"on {found.holdout or 'holdout'}"))
    if found.round.median is not None:
        what = f"9 of 10 within {words.age(found.round.p90 or 0)}"
        boxes.append(Box("A round takes", words.age(found.round.median), what))
    flow = facts.flow
    if flow is not None:
        moved = words.size(flow.moved_bytes)
        boxes.append(Box("Models moved", moved, "instead of the raw data"))
    if privacy.epsilon is not None:
        what = f"spent at most, of {privacy.epsilon_max:g}, delta {privacy.delta:g}"
        boxes.append(Box("Worst epsilon", f"{privacy.epsilon:.2f}", what))
    elif privacy.mode != "none":
        boxes.append(Box("Privacy", privacy.mode, "no epsilon is claimed"))
    where = f"entries under checkpoint {facts.log.checkpoint}"
    boxes.append(Box("Audit log", f"{facts.log.entries:,}", where))
    return boxes


def _trends(found: Performance) -> list[Trend]:
    every = f"each {words.age(found.width_s)}" if found.points else ""
    points = found.points
    trends = [
        Trend("Merges", [float(p.rounds) for p in points], f"{found.rounds:,} in all", every),
        Trend("Active devices", [float(p.devices) for p in points], "", every),
        Trend("Length of a round, s", [p.round_s for p in points], "", every),
        Trend("Refused models", [float(p.refused) for p in points],
              f"{found.models_refused:,} in all", every),
    ]  # fmt: skip
    if found.star is not None and not found.rounds:
        line = [p.accuracy for p in found.star.points]
        many: list[float | None] = [float(p.merged) for p in found.star.points]
        told = f"{found.star.merges:,} merges"
        trends = [Trend("Accuracy", line, "", told), Trend("Updates in a merge", many, "", told)]
    rows = found.benchmarks
    if len(rows) > 1:
        line = [b.merged if b.merged is not None else b.median for b in rows]
        told = f"{words.percent(line[0], 1)} to {words.percent(line[-1], 1)}"
        trends.insert(0, Trend("Accuracy", list(line), told, f"on {found.holdout or 'holdout'}"))
        apart = [b.disagreement for b in rows]
        if any(value is not None for value in apart):
            trends.insert(1, Trend("Disagreement", apart, "", "distance of the models"))
    return [t for t in trends if any(v is not None for v in t.values)]


def _attention(facts: Facts) -> list[str]:
    tally = facts.tally
    devices = tally.devices()
    found = []
    proven = sum(bool(d.evidence) for d in devices)
    if proven:
        found.append(f"{words.count(proven, 'device')} proven to have signed two histories.")
    weight = weights(devices)
    left_out = sum(weight[d.device].is_left_out for d in devices if d.revoked is None)
    if left_out:
        found.append(f"{words.count(left_out, 'device')} kept out: none of the others merges it.")
    revoked = sum(d.revoked is not None for d in devices)
    if revoked:
        found.append(f"{words.count(revoked, 'device')} revoked.")
    alarms = tally.count(EntryKind.ALARM)
    if alarms:
        found.append(f"{words.count(alarms, 'alarm')} in the log.")
    refused = sum(tally.faults.values())
    if refused:
        most = tally.faults.most_common(1)[0]
        what = words.count(refused, "model")
        found.append(f"{what} refused, most often as {most[0]} ({most[1]:,}).")
    if tally.erased:
        found.append(f"{words.count(tally.erased, 'payload')} erased on request.")
    bare = sum(p.bare for p in tally.parts.values())
    policy = tally.chronicle.policy
    if bare and policy is not None and has_noise(policy.privacy):
        found.append(f"{words.count(bare, 'update')} published without noise.")
    return found


def _costs(money: CostReport) -> list[Box]:
    """What matters most first."""
    order = ["roi", "saved", "together", "central", "kept_local", "against_raw", "traffic_saved"]
    order += ["traffic", "power", "network", "training"]
    rows = {row.key: row for row in money.figures}
    shown = [rows[key] for key in order if key in rows][:COSTS_SHOWN]
    return [Box(row.name, row.shown, row.formula) for row in shown]


def _compliance(facts: Facts) -> str:
    with_entries = sum(status_of(facts.tally, duty) == "evidence" for duty in DUTIES)
    return (
        f"The log has entries that support {with_entries} of {len(DUTIES)} articles and points of "
        "GDPR, HIPAA, EU AI Act and NIST SP 800-226. The compliance report proves them."
    )
