"""When what was found becomes an alert, and when it ends: pure.

What holds for `hold_s` fires, and what is gone for `clear_s` is resolved, so that what comes and
goes is one alert, not many. What is not known now (the log is being read) neither fires nor ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gossipfl.hub.page.model import Finding, Kind, Level

OF_DEVICES = frozenset({Kind.QUARANTINE, Kind.BUDGET, Kind.SILENCE})
"""Kinds whose subject is a device's name, but for MORE."""
SAME_KIND_MAX = 20  # guess: more incidents of one kind are one cause, and are told as one
MORE = "more"  # the subject of that one
_ORDER = list(Level)


def device_of(finding: Finding) -> str | None:
    """The full name of the device that it is about; None for what is about none."""
    return finding.subject if finding.kind in OF_DEVICES and finding.subject != MORE else None


@dataclass(frozen=True, slots=True)
class Incident:
    """One thing that needs a person, from when it was found until it was gone for long enough.

    Times are seconds since 1970. `fired` is None while it has not held for long enough.
    """

    id: str
    finding: Finding
    began: int
    fired: int | None = None
    gone: int | None = None
    resolved: int | None = None
    acknowledged: int | None = None
    acknowledged_by: str = ""


@dataclass(slots=True)
class Changes:
    """What is to be written. `begun` may have fired already; `told` is (incident, event)."""

    begun: list[Incident] = field(default_factory=list)
    changed: list[Incident] = field(default_factory=list)
    dropped: list[Incident] = field(default_factory=list)
    told: list[tuple[Incident, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.begun or self.changed or self.dropped)


def step(
    before: Sequence[Incident],
    found: Sequence[Finding],
    now: int,
    hold_s: int,
    clear_s: int,
    new_id: Callable[[], str],
    unknown: frozenset[Kind] = frozenset(),
) -> Changes:
    """`before`: all incidents that are not resolved. `unknown`: kinds that nobody can tell now."""
    changes = Changes()
    by_key = {finding.key: finding for finding in _gathered(before, found)}
    for incident in before:
        finding = by_key.pop(incident.finding.key, None)
        if finding is not None:
            _goes_on(incident, finding, now, hold_s, changes)
        elif incident.finding.kind not in unknown:
            _is_gone(incident, now, clear_s, changes)
    for finding in by_key.values():
        made = Incident(new_id(), finding, now)
        if finding.at_once or hold_s == 0:
            made = replace(made, fired=now)
            changes.told.append((made, "firing"))
        changes.begun.append(made)
    return changes


def _goes_on(before: Incident, finding: Finding, now: int, hold_s: int, changes: Changes) -> None:
    # A clock that was set back must not keep it from firing.
    after = replace(before, began=min(before.began, now), gone=None)
    if before.finding.headline != finding.headline:
        after = replace(after, finding=finding)
    if before.fired is None and (finding.at_once or now - after.began >= hold_s):
        after = replace(after, finding=finding, fired=now)
        changes.told.append((after, "firing"))
    elif before.fired is not None and _is_worse(finding.level, before.finding.level):
        changes.told.append((after, "escalated"))
    if after != before:
        changes.changed.append(after)


def _is_gone(before: Incident, now: int, clear_s: int, changes: Changes) -> None:
    if before.fired is None:
        changes.dropped.append(before)
        return
    gone = now if before.gone is None else min(before.gone, now)
    after = replace(before, gone=gone)
    if now - gone >= clear_s:
        after = replace(after, resolved=now)
        changes.told.append((after, "resolved"))
    if after != before:
        changes.changed.append(after)


def _is_worse(new: Level, old: Level) -> bool:
    return _ORDER.index(new) > _ORDER.index(old)


def _gathered(before: Sequence[Incident], found: Sequence[Finding]) -> list[Finding]:
    """At most SAME_KIND_MAX of a kind by themselves, those that are known first; one stands for
    the rest."""
    known = {incident.finding.key for incident in before}
    kept: list[Finding] = []
    rest: dict[Kind, list[Finding]] = {}
    counts: dict[Kind, int] = {}
    for finding in sorted(found, key=lambda f: f.key not in known):
        count = counts[finding.kind] = counts.get(finding.kind, 0) + 1
        if count <= SAME_KIND_MAX:
            kept.append(finding)
        else:
            rest.setdefault(finding.kind, []).append(finding)
    for kind, more in rest.items():
        worst = max(more, key=lambda f: _ORDER.index(f.level)).level
        title = f"{len(more)} more of kind {kind.value}"
        kept.append(Finding(kind, MORE, worst, title, "The page lists all of them."))
    return kept
