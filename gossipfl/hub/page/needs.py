""" "Needs you": what a person has to decide or look at, the gravest first."""

from __future__ import annotations

from collections.abc import Sequence

from gossipfl.hub.page import words
from gossipfl.hub.page.blocks import reasons
from gossipfl.hub.page.facts import Facts
from gossipfl.hub.page.fleet import Roster
from gossipfl.hub.page.model import DeviceRow, Level, Need, Privacy, State
from gossipfl.identity import parse_device_name

AWAY_S = 600  # guess: a reboot is shorter
BUDGET_SHARE = 0.8  # guess: time to decide before it ends
NEEDS_MAX = 8
ALARM_DAYS = 1
_ORDER = list(reversed(Level))


def needs(
    facts: Facts, fleet: Roster, rows: Sequence[DeviceRow], spend: Privacy | None
) -> tuple[Need, ...]:
    """At most NEEDS_MAX cards; what is the same of several devices is one card."""
    found = [*_of_log(facts), *_of_policy(facts, rows), *_of_budget(spend)]
    for row in rows:
        found += _of_device(facts, fleet, row)
    away = [r for r in rows if r.state is State.AWAY and (r.seen_s is None or r.seen_s > AWAY_S)]
    if away:
        who = ", ".join(r.short for r in away[:3]) + (", …" if len(away) > 3 else "")
        title = f"{words.count(len(away), 'device')} not heard of for {words.age(AWAY_S)} or more"
        found.append(Need(Level.NOTE, title, f"{who}. The others go on without.", "#fleet"))
    found.sort(key=lambda need: _ORDER.index(need.level))
    return tuple(found[:NEEDS_MAX])


def _of_log(facts: Facts) -> list[Need]:
    found = []
    check = facts.log.check if facts.log is not None else None
    if check is not None and not check.is_good:
        what = f"{check.words}. Keep a copy of the database, and check an export elsewhere."
        found.append(Need(Level.ALARM, "The log does not verify", what, "#evidence"))
    recent = [w for t, w in facts.chronicle.alarms if facts.now - t < ALARM_DAYS * 86_400]
    if recent:
        title = words.count(len(recent), "alarm") + " since yesterday"
        found.append(Need(Level.WARNING, title, f"The newest: {recent[-1]}.", "#security"))
    return found


def _of_policy(facts: Facts, rows: Sequence[DeviceRow]) -> list[Need]:
    if facts.chronicle.policy is not None or not rows:
        return []
    what = "Devices wait for an operator's signed policy: which model to learn, and by which rule."
    return [Need(Level.NOTE, "No policy yet", what, "", "gossipfl policy issue --help")]


def _of_budget(spend: Privacy | None) -> list[Need]:
    if spend is None or spend.epsilon_max is None:
        return []
    most = spend.epsilon_max
    near = [b for b in spend.bars if b.spent is not None and b.spent >= BUDGET_SHARE * most]
    if not near:
        return []
    title = f"{words.count(len(near), 'device')} near the end of the privacy budget"
    what = "What is spent never comes back. Without budget a device merges, and publishes no more."
    return [Need(Level.WARNING, title, what, "#privacy")]


def _of_device(facts: Facts, fleet: Roster, row: DeviceRow) -> list[Need]:
    link = f"/devices/{row.name}"
    match row.state:
        case State.SHUT_OUT:
            why = reasons(facts, fleet, parse_device_name(row.name))
            known = fleet.known(parse_device_name(row.name))
            proven = bool(known.evidence)
            title = f"{row.short} is shut out" + (
                " for good: it signed two histories" if proven else ""
            )
            what = "; ".join(why) or "by the hub's own node"
            command = f"gossipfl revoke {row.name}" if proven else ""
            return [Need(Level.ALARM if proven else Level.WARNING, title, what, link, command)]
        case State.LEFT_OUT:
            title = f"{row.short} has no weight in any merge"
            what = f"It publishes, and the others' rules drop it: {row.note}."
            return [Need(Level.WARNING, title, what, link)]
    return []
