"""Who is in the fleet, and what each device is to it: from the log and from what the hub sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from gossipfl.hub.page import influence, words
from gossipfl.hub.page.chronicle import Known
from gossipfl.hub.page.facts import Facts
from gossipfl.hub.page.influence import Weight
from gossipfl.hub.page.model import DeviceRow, State
from gossipfl.hub.page.rollout import canary_note, is_trying
from gossipfl.identity import device_name, short_name

OTHER_ROLES = frozenset({"hub", "operator", "auditor", "issuer"})


@dataclass(frozen=True, slots=True)
class Roster:
    devices: tuple[bytes, ...]
    states: dict[bytes, State]
    weights: dict[bytes, Weight]
    series: dict[bytes, tuple[float | None, ...]]
    rounds: dict[bytes, int]
    round: int | None  # the median over live devices
    in_log: dict[bytes, Known]

    def known(self, device: bytes) -> Known:
        return self.in_log.get(device) or Known(device)

    def all_known(self) -> list[Known]:
        return [self.in_log[d] for d in self.devices if d in self.in_log]


def roster(facts: Facts) -> Roster:
    """All devices, hubs left out, by their ids."""
    in_log, sightings = facts.chronicle.devices, facts.sightings
    devices = tuple(
        device
        for device in sorted(in_log.keys() | sightings.keys())
        if _role(facts, device) not in OTHER_ROLES
    )
    known = [in_log[d] for d in devices if d in in_log]
    # In sums a mean stands for a whole group: receipts do not tell what a device's part was worth.
    judged = [] if _is_summing(facts) else known
    weights = influence.weights(judged)
    states = {d: _state(facts, d, weights.get(d)) for d in devices}
    rounds = {d: r for d in devices if (r := _round(facts, d)) is not None}
    live = [rounds[d] for d in rounds if states[d] in (State.LIVE, State.LEFT_OUT)]
    return Roster(
        devices=devices,
        states=states,
        weights=weights,
        series=influence.series(judged),
        rounds=rounds,
        round=int(median(live)) if live else None,
        in_log=in_log,
    )


def row_of(facts: Facts, fleet: Roster, device: bytes) -> DeviceRow:
    known, sighting = fleet.known(device), facts.sightings.get(device)
    weight = fleet.weights.get(device)
    number = fleet.rounds.get(device)
    seen = _seen(facts, device)
    update = sighting.update_bytes if sighting is not None else None
    behind = None
    if number is not None and fleet.round is not None:
        behind = max(0, fleet.round - number)
    return DeviceRow(
        name=device_name(device),
        short=short_name(device),
        state=fleet.states[device],
        note=note(facts, fleet, device),
        round=number,
        behind=behind,
        receipts=known.receipts,
        merged_of=weight.merged_of if weight else 0,
        judged_by=weight.judged_by if weight else 0,
        weight=weight.ratio if weight else None,
        reputation=sighting.reputation if sighting is not None else None,
        seen_s=max(0, facts.now - seen) if seen else None,
        sent_bytes=known.was_merged * update if update is not None else None,
        spark=fleet.series.get(device, ()),
    )


def online(rows: Sequence[DeviceRow]) -> tuple[int, int]:
    """Devices that answer, and all that may."""
    here = sum(r.state in (State.LIVE, State.LEFT_OUT) for r in rows)
    return here, sum(r.state is not State.REVOKED for r in rows)


def note(facts: Facts, fleet: Roster, device: bytes) -> str:
    """Why a device is what it is, in a few words."""
    known, sighting = fleet.known(device), facts.sightings.get(device)
    match fleet.states[device]:
        case State.REVOKED:
            why = known.revoked[1] if known.revoked else sighting.why if sighting else ""
            return f"revoked: {why}" if why else "revoked"
        case State.SHUT_OUT:
            if known.evidence:
                return f"proven: {known.evidence[-1][1]}"
            return sighting.why if sighting is not None else ""
        case State.LEFT_OUT:
            if known.last_merged is None:
                return "nobody has ever merged it"
            ago = words.age(max(0, facts.now - known.last_merged))
            return f"nobody merges it; last merged {ago} ago"
        case State.AWAY:
            seen = _seen(facts, device)
            ago = words.age(max(0, facts.now - seen))
            return f"not heard of for {ago}" if seen else "never seen"
    told = canary_note(facts, device)
    return told or (sighting.why if sighting is not None else "")


def _is_summing(facts: Facts) -> bool:
    policy = facts.chronicle.policy
    return policy is not None and policy.privacy.mode == "group-sum"


def _role(facts: Facts, device: bytes) -> str:
    known, sighting = facts.chronicle.devices.get(device), facts.sightings.get(device)
    return (known.role if known else "") or (sighting.role if sighting else "")


def _round(facts: Facts, device: bytes) -> int | None:
    known, sighting = facts.chronicle.devices.get(device), facts.sightings.get(device)
    found = [known.merges[-1].round] if known is not None and known.merges else []
    if sighting is not None and sighting.round is not None:
        found.append(sighting.round)
    return max(found, default=None)


def _seen(facts: Facts, device: bytes) -> int:
    known, sighting = facts.chronicle.devices.get(device), facts.sightings.get(device)
    newest = known.merges[-1].time if known is not None and known.merges else 0
    return max(newest, sighting.seen if sighting is not None else 0)


def _state(facts: Facts, device: bytes, weight: Weight | None) -> State:
    known, sighting = facts.chronicle.devices.get(device), facts.sightings.get(device)
    seen_as = sighting.state if sighting is not None else ""
    if (known is not None and known.revoked is not None) or seen_as == "revoked":
        return State.REVOKED
    is_out = seen_as in ("quarantined", "condemned", "blocked")
    if (known is not None and known.evidence) or is_out:
        return State.SHUT_OUT
    is_here = facts.now - _seen(facts, device) <= facts.live_s
    if not (seen_as == "live" or (not seen_as and is_here)):
        return State.AWAY
    if weight is not None and weight.is_left_out and not is_trying(facts, device):
        return State.LEFT_OUT
    return State.LIVE
