"""From facts to the page: pure. What nobody knows is left out, not guessed."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from gossipfl.hub.alerts.settings import AlertsSection
from gossipfl.hub.page import influence, words
from gossipfl.hub.page.blocks import cost, evidence, learning, privacy, security
from gossipfl.hub.page.chronicle import PEOPLE
from gossipfl.hub.page.facts import Facts
from gossipfl.hub.page.fleet import Roster, online, roster, row_of
from gossipfl.hub.page.model import (
    Cost,
    DevicePage,
    DeviceRow,
    Edge,
    Exchange,
    Graph,
    Level,
    Mark,
    Page,
    Privacy,
    ReceiptLine,
    State,
    Tile,
    Verdict,
)
from gossipfl.hub.page.needs import findings, needs
from gossipfl.identity import device_name, short_name

RECEIPTS_SHOWN = 20
STRANGER = "not known"
STALE_LOOKS = 3  # guess: one missed look is no silence


def page(facts: Facts, rules: AlertsSection | None = None) -> Page:
    """The whole page for somebody who may see all of it."""
    fleet = roster(facts)
    rows = tuple(sorted((row_of(facts, fleet, d) for d in fleet.devices), key=_order))
    mark = _mark(facts)
    rules = rules or AlertsSection()
    spend = privacy(facts, fleet, rules.budget_share)
    money = cost(facts, fleet)
    found = findings(facts, fleet, rows, spend, rules)
    made = Page(
        fleet=facts.fleet,
        now=facts.now,
        version="",
        mark=mark,
        insecure=facts.insecure,
        verdict=_verdict(facts, mark, rows),
        tiles=_tiles(facts, rows, spend, money),
        needs=needs(found, rules),
        findings=found,
        alerts=facts.alerts,
        devices=rows,
        names_shown=True,
        graph=_graph(fleet, rows),
        learning=learning(facts, fleet, rows),
        privacy=spend,
        security=security(facts, fleet, rows),
        evidence=evidence(facts),
        cost=money,
    )
    return replace(made, version=_version(made))


def limited(made: Page) -> Page:
    """For a viewer who may not see devices: sums only."""
    text = made.verdict.text
    if said := _kept_out(made.devices):
        text = text.replace(said, _kept_out(made.devices, named=False))
    learns, spend, risk, proof = made.learning, made.privacy, made.security, made.evidence
    return replace(
        made,
        verdict=replace(made.verdict, text=text),
        names_shown=False,
        devices=(),
        graph=None,
        needs=tuple(n for n in made.needs if not n.names_devices),
        findings=(),
        alerts=(),
        learning=replace(learns, staleness=()) if learns else None,
        privacy=replace(spend, bars=()) if spend else None,
        security=replace(risk, lines=(), out=(), alarms=()) if risk else None,
        evidence=replace(proof, lines=()) if proof else None,
    )


def without_people(made: Page) -> Page:
    """For viewers and guests: who logged in when is for operators and auditors."""
    proof = made.evidence
    if proof is None:
        return made
    kinds = {kind.word for kind in PEOPLE}
    lines = tuple(line for line in proof.lines if line.kind not in kinds)
    return replace(made, evidence=replace(proof, lines=lines))


def device_page(facts: Facts, device: bytes) -> DevicePage | None:
    """One device's; None if nobody has heard of it."""
    fleet = roster(facts)
    if device not in fleet.devices:
        return None
    known, sighting = fleet.known(device), facts.sightings.get(device)
    pairs = influence.edges(fleet.all_known())
    others = sorted({a if b == device else b for a, b in pairs if device in (a, b)})
    risk = security(facts, fleet, tuple(row_of(facts, fleet, d) for d in fleet.devices))
    name = device_name(device)
    reasons = next((line.reasons for line in risk.lines if line.name == name), ())
    return DevicePage(
        row=row_of(facts, fleet, device),
        role=known.role or (sighting.role if sighting else "device"),
        joined=known.joined,
        address=sighting.address if sighting else "",
        head=sighting.head.seq if sighting and sighting.head else None,
        replaces=device_name(known.replaces) if known.replaces in fleet.states else "",
        reasons=reasons,
        exchanges=tuple(
            Exchange(
                name=device_name(other),
                short=short_name(other),
                state=fleet.states[other],
                merged=pairs.get((other, device), (0, 0.0))[0],
                was_merged=pairs.get((device, other), (0, 0.0))[0],
                share=pairs[other, device][1] if (other, device) in pairs else None,
            )
            for other in others
            if other in fleet.states
        ),
        receipts=tuple(
            ReceiptLine(
                m.number,
                m.round,
                m.time,
                m.rule,
                tuple((_named(facts, d), share) for d, share in m.merged),
                tuple((_named(facts, d), fault) for d, fault in m.refused),
            )
            for m in reversed(list(known.merges)[-RECEIPTS_SHOWN:])
        ),
    )


def _named(facts: Facts, device: bytes) -> str:
    """As a receipt shows it: not whom the hub does not know, or knows no more."""
    is_known = device in facts.chronicle.devices or device in facts.sightings
    return short_name(device) if is_known else STRANGER


def _order(row: DeviceRow) -> tuple[int, str]:
    order = [State.SHUT_OUT, State.LEFT_OUT, State.REVOKED, State.AWAY, State.LIVE]
    return order.index(row.state), row.name


def _mark(facts: Facts) -> Mark:
    """Of the newest thing heard: a sighting, or an entry of the log."""
    newest = max(
        [facts.chronicle.newest, *(s.seen for s in facts.sightings.values())],
        default=0,
    )
    age = max(0, facts.now - newest) if newest else None
    is_live = age is not None and age <= STALE_LOOKS * facts.live_s
    return Mark(is_live, age, facts.reading)


def _verdict(facts: Facts, mark: Mark, rows: tuple[DeviceRow, ...]) -> Verdict:
    check = facts.log.check if facts.log is not None else None
    if check is not None and not check.is_good:
        return Verdict(Level.ALARM, f"The log does not verify: {check.words}.")
    if not rows:
        return Verdict(Level.NOTE, "No device has joined this fleet yet.")
    here, total = online(rows)
    if not mark.is_live:
        old = f"for {words.age(mark.age_s)}" if mark.age_s is not None else "so far"
        return Verdict(Level.WARNING, f"Nothing was heard of the fleet {old}: what follows is old.")
    text = f"{here} of {words.count(total, 'device')} {'is' if here == 1 else 'are'} online"
    is_learning = any(r.receipts for r in rows)
    text += " and learning together" if is_learning and here > 1 else ""
    if _kept_out(rows):
        return Verdict(Level.WARNING, f"{text}; {_kept_out(rows)} kept out of the merges.")
    if here < total:
        return Verdict(Level.NOTE, f"{text}; {total - here} away.")
    return Verdict(Level.GOOD, f"{text}.")


def _kept_out(rows: tuple[DeviceRow, ...], *, named: bool = True) -> str:
    """ "abcd-efgh is", "2 are"; nothing if nobody is."""
    out = [r.short for r in rows if r.state in (State.LEFT_OUT, State.SHUT_OUT)]
    if not out:
        return ""
    if len(out) > 1:
        return f"{len(out)} are"
    return f"{out[0]} is" if named else "1 is"


def _tiles(
    facts: Facts, rows: tuple[DeviceRow, ...], spend: Privacy | None, money: Cost | None
) -> tuple[Tile, ...]:
    here, total = online(rows)
    tiles = [
        Tile(
            "Peers online",
            f"{here} of {total}",
            "heard of within the last " + words.age(facts.live_s),
            Level.GOOD if here == total else Level.NOTE,
        )
    ]
    if facts.measured:
        last = facts.measured[-1]
        shown = facts.measured[-influence.SERIES :]
        spread = f"{words.percent(last.low, 1)} to {words.percent(last.high, 1)} (p10 to p90)"
        if last.merged is not None:
            what = f"of the merged model; what each device publishes: {spread}"
            line = tuple(m.merged for m in shown)
            tiles.append(Tile("Accuracy", words.percent(last.merged, 1), what, spark=line))
        else:
            line = tuple(m.middle for m in shown)
            tiles.append(Tile("Accuracy", words.percent(last.middle, 1), spread, spark=line))
        if last.disagreement is not None:
            apart = tuple(m.disagreement for m in facts.measured[-influence.SERIES :])
            what = "distance of the models to their mean, over the way they have come"
            tiles.append(
                Tile("Disagreement", words.figure(last.disagreement, 3), what, spark=apart)
            )
    if spend is not None:
        tiles.append(_budget_tile(spend))
    kept = next((f for f in money.lines if f.name == "Kept local"), None) if money else None
    if kept is not None:
        tiles.append(Tile("Bytes kept local", kept.value, kept.formula, link="#cost"))
    elif money is not None:
        tiles.append(
            Tile("Bytes moved", money.lines[0].value, "instead of the raw data", link="#cost")
        )
    return tuple(tiles)


def _budget_tile(spend: Privacy) -> Tile:
    most = spend.epsilon_max
    if spend.mode == "group-sum":
        what = "only means of groups are seen"
        return Tile("Privacy", "group sums", what, Level.GOOD, (), "#privacy")
    if most is None:
        return Tile(
            "Privacy", "off", "models are published without noise", Level.NOTE, (), "#privacy"
        )
    spent = [bar.spent for bar in spend.bars]
    if not spent or any(s is None for s in spent):
        return Tile("Worst epsilon left", "–", f"of {most:g}", Level.NOTE, (), "#privacy")
    left = max(0.0, most - max(s for s in spent if s is not None))
    level = Level.WARNING if any(bar.is_near for bar in spend.bars) else Level.GOOD
    return Tile("Worst epsilon left", words.figure(left), f"of {most:g}", level, (), "#privacy")


def _graph(fleet: Roster, rows: tuple[DeviceRow, ...]) -> Graph | None:
    if len(rows) < 2:
        return None
    ordered = sorted(rows, key=lambda r: r.name)
    place = {r.name: i for i, r in enumerate(ordered)}
    found = []
    for (of, by), (count, share) in sorted(influence.edges(fleet.all_known()).items()):
        a, b = place.get(device_name(of)), place.get(device_name(by))
        if a is not None and b is not None:
            found.append(Edge(a, b, count, share))
    return Graph(
        tuple(r.name for r in ordered),
        tuple(r.short for r in ordered),
        tuple(r.state for r in ordered),
        tuple(r.weight for r in ordered),
        tuple(found),
        influence.RECENT,
    )


def _version(made: Page) -> str:
    """Of all that is shown but the clock: ages would make each second a news."""
    mark = replace(made.mark, age_s=None)
    rows = tuple(replace(r, seen_s=None) for r in made.devices)
    plain = repr(replace(made, now=0, mark=mark, devices=rows))
    return hashlib.sha256(plain.encode()).hexdigest()[:16]
