"""What a person has to decide or look at: the one source of "Needs you", alerts and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gossipfl.hub.alerts.settings import AlertsSection
from gossipfl.hub.page import words
from gossipfl.hub.page.blocks import reasons
from gossipfl.hub.page.facts import Facts, Measured
from gossipfl.hub.page.fleet import Roster, online
from gossipfl.hub.page.model import DeviceRow, Finding, Kind, Level, Need, Privacy, State
from gossipfl.hub.page.rollout import of_rollout
from gossipfl.identity import device_name, parse_device_name, short_name
from gossipfl.messages import Policy, Stop

NEEDS_MAX = 8
ALARM_DAYS = 1
ALARMS = "alarms"  # the subject of what tells of them: they say which device
BLOCKED = "blocked"  # as `report` begins what it says of a device that the policy blocks
_ORDER = list(reversed(Level))
_ENDS = ("rounds", "epochs", "bytes", "distance", "slope", "patience")


def findings(
    facts: Facts,
    fleet: Roster,
    rows: Sequence[DeviceRow],
    spend: Privacy | None,
    rules: AlertsSection,
) -> tuple[Finding, ...]:
    """All of them, one for each thing that it is about. `rules`: from when on it needs a person."""
    found = [*facts.local, *_of_log(facts, rules), *_of_policy(facts, rows), *of_rollout(facts)]
    found += _of_budget(spend)
    found += _of_learning(facts, rows, fleet, rules)
    for row in rows:
        found += _of_device(facts, fleet, row, rules)
    for client, why in sorted(facts.star_shut_out.items()):
        device = bytes.fromhex(client)
        title = f"{short_name(device)}, a client of star mode, is shut out"
        found.append(Finding(Kind.QUARANTINE, device_name(device), Level.WARNING, title, why))
    return tuple(found)


def needs(found: Iterable[Finding], rules: AlertsSection) -> tuple[Need, ...]:
    """At most NEEDS_MAX cards, the gravest first; what is the same of several devices is one."""
    found = list(found)
    single = [f for f in found if f.kind not in (Kind.BUDGET, Kind.SILENCE)]
    cards = [Need(f.level, f.title, f.words, f.link, f.command, _names_devices(f)) for f in single]
    near = [f for f in found if f.kind is Kind.BUDGET]
    if near:
        title = f"{words.count(len(near), 'device')} near the end of the privacy budget"
        cards.append(Need(near[0].level, title, near[0].words, "#privacy"))
    away = [f for f in found if f.kind is Kind.SILENCE]
    if away:
        who = ", ".join(f.subject[:9] for f in away[:3]) + (", …" if len(away) > 3 else "")
        ago = words.age(rules.silence_s)
        title = f"{words.count(len(away), 'device')} not heard of for {ago} or more"
        what = f"{who}. The others go on without."
        cards.append(Need(Level.NOTE, title, what, "#fleet", names_devices=True))
    cards.sort(key=lambda card: _ORDER.index(card.level))
    return tuple(cards[:NEEDS_MAX])


def _names_devices(finding: Finding) -> bool:
    return finding.kind is Kind.QUARANTINE or finding.key == (Kind.LOG, ALARMS)


def _of_log(facts: Facts, rules: AlertsSection) -> list[Finding]:
    found = []
    log = facts.log
    check = log.check if log is not None else None
    if check is not None and not check.is_good:
        what = f"{check.words}. Keep a copy of the database, and check an export elsewhere."
        title = "The log does not verify"
        found.append(
            Finding(Kind.LOG, "check", Level.ALARM, title, what, "#evidence", at_once=True)
        )
    recent = [w for t, w in facts.chronicle.alarms if facts.now - t < ALARM_DAYS * 86_400]
    if recent:
        title = words.count(len(recent), "alarm") + " since yesterday"
        what = f"The newest: {recent[-1]}."
        found.append(
            Finding(Kind.LOG, ALARMS, Level.WARNING, title, what, "#security", at_once=True)
        )
    if log is not None and log.waiting and log.waiting_since is not None:
        late = facts.now - log.waiting_since
        if late > rules.log_s:
            title = "The log writes no checkpoint"
            waits = words.count(log.waiting, "entry waits", "entries wait")
            what = f"{waits}, the oldest for {words.age(late)}. They are durable all the same."
            found.append(Finding(Kind.LOG, "late", Level.WARNING, title, what, "#evidence"))
    return found


def _of_policy(facts: Facts, rows: Sequence[DeviceRow]) -> list[Finding]:
    if facts.chronicle.policy is not None or not rows:
        return []
    what = "Devices wait for an operator's signed policy: which model to learn, and by which rule."
    command = "gossipfl policy issue --help"
    return [Finding(Kind.POLICY, "", Level.NOTE, "No policy yet", what, "", command)]


def _of_budget(spend: Privacy | None) -> list[Finding]:
    if spend is None:
        return []
    what = "What is spent never comes back. Without budget a device merges, and publishes no more."
    return [
        Finding(
            Kind.BUDGET,
            bar.name,
            Level.WARNING,
            f"{bar.short} is near the end of its privacy budget",
            what,
            f"/devices/{bar.name}",
        )
        for bar in spend.bars
        if bar.is_near
    ]


def _of_learning(
    facts: Facts, rows: Sequence[DeviceRow], fleet: Roster, rules: AlertsSection
) -> list[Finding]:
    policy = facts.chronicle.policy
    if policy is None:
        return []
    found = []
    since = started(facts.chronicle.policies, policy.run)
    accuracy = [_accuracy(m) for m in facts.measured if m.time >= since]
    if accuracy and max(accuracy) - accuracy[-1] > rules.accuracy_drop:
        what = (
            f"{words.percent(accuracy[-1], 1)} now, {words.percent(max(accuracy), 1)} at best "
            "of late. An attack, a bad policy or other data can do that."
        )
        title = "The fleet's model got worse"
        found.append(Finding(Kind.CONVERGENCE, "accuracy", Level.WARNING, title, what, "#learning"))
    merges = [k.merges[-1].time for k in fleet.all_known() if k.merges]
    can_merge = online(rows)[0] > 1 and not _has_end(policy.stop)
    if rules.stall_s and merges and can_merge and facts.now - max(merges) > rules.stall_s:
        title = "No device merges"
        what = (
            f"The last merge was {words.age(facts.now - max(merges))} ago, though devices are "
            "online and the policy has no end: `gossipfl status` on a device says what it awaits."
        )
        found.append(Finding(Kind.CONVERGENCE, "stall", Level.WARNING, title, what, "#learning"))
    return found


def _accuracy(measured: Measured) -> float:
    return measured.middle if measured.merged is None else measured.merged


def _has_end(stop: Stop) -> bool:
    return any(getattr(stop, name) is not None for name in _ENDS)


def started(policies: Sequence[Policy], run: int) -> int:
    """When a run's first policy was issued."""
    return min(policy.issued for policy in policies if policy.run == run)


def _of_device(facts: Facts, fleet: Roster, row: DeviceRow, rules: AlertsSection) -> list[Finding]:
    link = f"/devices/{row.name}"
    match row.state:
        case State.SHUT_OUT:
            device = parse_device_name(row.name)
            why = reasons(facts, fleet, device)
            proven = bool(fleet.known(device).evidence)
            title = f"{row.short} is shut out" + (
                " for good: it signed two histories" if proven else ""
            )
            what = "; ".join(why) or "by the hub's own node"
            command = f"gossipfl revoke {row.name}" if proven else ""
            level = Level.ALARM if proven else Level.WARNING
            kind = Kind.QUARANTINE
            if row.note.startswith(BLOCKED) and not proven:
                title = f"{row.short} is blocked, until a policy says otherwise"
                return [Finding(kind, row.name, Level.NOTE, title, what, link)]
            return [Finding(kind, row.name, level, title, what, link, command, at_once=proven)]
        case State.LEFT_OUT:
            title = f"{row.short} has no weight in any merge"
            what = f"It publishes, and the others' rules drop it: {row.note}."
            return [Finding(Kind.QUARANTINE, row.name, Level.WARNING, title, what, link)]
        case State.AWAY if row.seen_s is None or row.seen_s > rules.silence_s:
            ago = words.age(rules.silence_s)
            title = f"{row.short} was not heard of for {ago} or more"
            what = "The others go on without."
            return [Finding(Kind.SILENCE, row.name, Level.WARNING, title, what, link)]
    return []
