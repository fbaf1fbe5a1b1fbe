"""The blocks below the fleet table: Learning, Privacy, Security, Evidence, Cost and value."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from statistics import median

import msgspec

from gossipfl.hub.page.facts import Facts
from gossipfl.hub.page.fleet import Roster, note
from gossipfl.hub.page.influence import RECENT
from gossipfl.hub.page.model import (
    BudgetBar,
    Cost,
    DeviceRow,
    Evidence,
    Formula,
    Learning,
    LogLine,
    Out,
    Point,
    Privacy,
    Security,
    State,
    WeightLine,
)
from gossipfl.hub.reports.costs import Flow, costs
from gossipfl.identity import device_name, short_name
from gossipfl.messages import Privacy as Terms
from gossipfl.privacy.gaussian import epsilon_of

BINS = 48  # points of a line over time: what 600 pixels can show
REASONS_MAX = 4
KEPT_OUT = (State.SHUT_OUT, State.LEFT_OUT, State.REVOKED)


# --- learning -----------------------------------------------------------------------------------


def learning(facts: Facts, fleet: Roster, rows: Sequence[DeviceRow]) -> Learning | None:
    """None before the first receipt."""
    known = [k for k in fleet.all_known() if k.merges]
    if not known:
        return None
    gaps, sizes, pulled, refused = [], [], 0, 0
    for k in known:
        times = [m.time for m in k.merges]
        gaps += [b - a for a, b in pairwise(times)]
        for merge in list(k.merges)[-RECENT:]:
            sizes.append(1 + len(merge.merged))
            pulled += len(merge.merged) + len(merge.refused)
            refused += len(merge.refused)
    newest = max((k.merges[-1] for k in known), key=lambda m: m.time)
    return Learning(
        rule=newest.rule,
        rounds=_rounds(fleet),
        round_s=median(gaps) if gaps else None,
        merge_size=sum(sizes) / len(sizes) if sizes else None,
        agreement=1.0 - refused / pulled if pulled else None,
        staleness=tuple((r.name, r.short, r.behind) for r in rows if r.behind is not None),
        accuracy=tuple(
            Point(m.time, m.low, m.middle if m.merged is None else m.merged, m.high)
            for m in facts.measured
        ),
        is_merged=any(m.merged is not None for m in facts.measured),
        disagreement=tuple(
            Point(m.time, m.disagreement, m.disagreement, m.disagreement)
            for m in facts.measured
            if m.disagreement is not None
        ),
        alone=facts.alone,
        central=facts.central,
        holdout=facts.holdout,
    )


def _rounds(fleet: Roster) -> tuple[Point, ...]:
    """The devices' rounds over time: each counts with its newest until the next."""
    told = sorted(
        (m.time, k.device, m.round) for k in fleet.all_known() for m in k.merges if k.merges
    )
    if not told:
        return ()
    first, last = told[0][0], told[-1][0]
    width = max(1.0, (last - first) / (BINS - 1))
    newest: dict[bytes, int] = {}
    points: list[Point] = []
    at = 0
    for i in range(BINS):
        end = first + i * width
        while at < len(told) and told[at][0] <= end + 1e-6:
            newest[told[at][1]] = told[at][2]
            at += 1
        points.append(Point(int(end), *quantiles(list(newest.values()))))
        if end >= last:
            break
    return tuple(points)


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """p10, median and p90, by linear interpolation; of nothing, zeros."""
    if not values:
        return 0.0, 0.0, 0.0
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    return at(0.1), at(0.5), at(0.9)


# --- privacy ------------------------------------------------------------------------------------


def privacy(facts: Facts, fleet: Roster, near_share: float) -> Privacy | None:
    """None without a policy: then nobody publishes. `near_share`: of a budget, from which on it is
    near its end.

    Spent is what the devices' ledgers can have cost at most: each publication counts with the
    least noise that the policies in force for that device allow: a canary has two of them. The
    accounts themselves stay on the devices.
    """
    policy = facts.chronicle.policy
    if policy is None:
        return None
    terms = policy.privacy
    if terms.mode == "off":
        what = "Privacy is off: devices publish their models as they are, signed but without noise."
        return Privacy("off", what)
    if terms.mode == "group-sum":
        what = (
            "Devices sum in groups: nobody sees the model of a single device, only a group's mean."
        )
        sums = terms.sums
        told = [("devices of a group, about", str(sums.size))] if sums is not None else []
        noise = sums is not None and sums.noise
        told.append(("noise beside it", f"multiplier of at least {terms.z:g}" if noise else "none"))
        return Privacy(terms.mode, what, promise=tuple(told))
    releases = {d: facts.sightings[d].releases for d in fleet.devices if d in facts.sightings}
    near = near_share * terms.epsilon

    def bar(device: bytes, count: int) -> BudgetBar:
        spent = _spent(facts, device, terms, count)
        is_near = spent is not None and spent >= near
        return BudgetBar(device_name(device), short_name(device), spent, count, is_near)

    bars = tuple(bar(d, n) for d, n in releases.items())
    of_device = terms.unit == "device"
    what = "Each device adds noise before it publishes, and stops when its budget is spent."
    return Privacy(
        mode=terms.mode,
        words=what,
        epsilon_max=terms.epsilon,
        delta=terms.delta,
        bars=bars if of_device else (),
        promise=(
            ("unit", "all data of a device" if of_device else "one example"),
            ("epsilon, all publications", f"{terms.epsilon:g}"),
            ("delta", f"{terms.delta:g}"),
            ("clip", f"{terms.clip:g}"),
            ("noise multiplier, at least", f"{terms.z:g}"),
        ),
    )


def _spent(facts: Facts, device: bytes, usual: Terms, releases: int) -> float | None:
    """With the least noise that this device's may have had; None: no bound for unit=device."""
    now = facts.chronicle.newest
    held = [p.privacy for p in facts.chronicle.may_follow(device, now, now)] or [usual]
    held = [terms for terms in held if terms.mode != "off"]  # that is in no ledger
    if any(terms.unit != usual.unit for terms in held):
        return None
    z = min((terms.z for terms in held), default=usual.z)
    return spent_at_most(msgspec.structs.replace(usual, z=z), releases)


def spent_at_most(terms: Terms, releases: int) -> float:
    """Epsilon of so many releases with the least noise of the terms, for unit=device."""
    return _epsilon(terms.delta, terms.z, max(0, releases))


@lru_cache(maxsize=4_096)
def _epsilon(delta: float, z: float, releases: int) -> float:
    return epsilon_of(delta, (releases / (z * z)) ** 0.5)


# --- security -----------------------------------------------------------------------------------


def security(facts: Facts, fleet: Roster, rows: Sequence[DeviceRow]) -> Security:
    lines, out = [], []
    for device in fleet.devices:
        name, short, state = device_name(device), short_name(device), fleet.states[device]
        why = reasons(facts, fleet, device)
        lines.append(WeightLine(name, short, state, fleet.series.get(device, ()), why))
        if state in KEPT_OUT:
            seen = facts.sightings.get(device)
            may_end = seen is not None and seen.state == "quarantined" and state is State.SHUT_OUT
            told = note(facts, fleet, device)
            out.append(Out(name, short, state, told, _since(fleet, device), may_end))
    lines.sort(key=lambda line: (line.state not in KEPT_OUT, -len(line.reasons), line.name))
    faults = tuple(facts.chronicle.faults.most_common(8))
    alarms = tuple(reversed(facts.chronicle.alarms))[:8]
    return Security(tuple(lines), faults, tuple(out), alarms)


def reasons(facts: Facts, fleet: Roster, device: bytes) -> tuple[str, ...]:
    """What speaks against a device, the gravest first."""
    known, sighting = fleet.known(device), facts.sightings.get(device)
    found = [f"signed proof: {kind}" for _, kind in known.evidence]
    if known.revoked is not None:
        found.append(f"revoked: {known.revoked[1]}")
    if fleet.states[device] is State.LEFT_OUT:
        found.append(note(facts, fleet, device))
    if sighting is not None and sighting.why and fleet.states[device] is State.SHUT_OUT:
        found.append(f"the hub's own node: {sighting.why}")
    found += [f"refused {times} times: {fault}" for fault, times in known.faults.most_common(3)]
    return tuple(found[:REASONS_MAX])


def _since(fleet: Roster, device: bytes) -> int | None:
    known = fleet.known(device)
    match fleet.states[device]:
        case State.REVOKED:
            return known.revoked[0] if known.revoked else None
        case State.SHUT_OUT:
            return known.evidence[0][0] if known.evidence else None
        case State.LEFT_OUT:
            return known.last_merged
    return None


# --- evidence -----------------------------------------------------------------------------------


def evidence(facts: Facts) -> Evidence | None:
    """None for an instance that has no log to show."""
    log = facts.log
    if log is None:
        return None
    return Evidence(
        origin=log.origin,
        size=log.checkpoints[-1].size if log.checkpoints else 0,
        waiting=log.waiting,
        root=log.root,
        checkpoints=log.checkpoints,
        lines=tuple(
            LogLine(
                line.index,
                line.time,
                line.kind.word,
                line.words,
                device_name(line.device) if line.device is not None else "",
            )
            for line in reversed(facts.chronicle.lines)
        ),
        check=log.check,
    )


# --- cost ---------------------------------------------------------------------------------------


def cost(facts: Facts, fleet: Roster) -> Cost | None:
    """None until it is known how large an update is. Everything is counted over the log."""
    sizes = [s.update_bytes for s in facts.sightings.values() if s.update_bytes is not None]
    known = fleet.all_known()
    models = sum(k.pulled for k in known)
    if not sizes or not models:
        return None
    flow = Flow(
        models=models,
        update_bytes=median(sizes),
        devices=sum(fleet.states[d] is not State.REVOKED for d in fleet.devices),
        rounds=sum(k.receipts for k in known),
        first=facts.chronicle.first or 0,
        last=facts.chronicle.newest,
    )
    found = costs(flow, facts.tariffs)
    return Cost(facts.tariffs, tuple(Formula(f.name, f.shown, f.formula) for f in found))
