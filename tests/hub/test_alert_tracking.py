"""When something becomes an alert and when it ends."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from alertkit import NOON, finding

from gossipfl.hub.alerts.tracking import MORE, SAME_KIND_MAX, Incident, step
from gossipfl.hub.page.finding import Finding, Kind, Level

HOLD, CLEAR = 60, 120


class Life:
    """Applies changes as the database does, and keeps what was told."""

    def __init__(self) -> None:
        self.open: dict[str, Incident] = {}
        self.told: list[tuple[str, str]] = []
        self._ids = (str(n) for n in itertools.count(1))

    def at(
        self, after_s: int, found: Iterable[Finding], unknown: frozenset[Kind] = frozenset()
    ) -> list[tuple[str, str]]:
        """(subject, event) of what is told now."""
        changes = step(
            list(self.open.values()),
            list(found),
            NOON + after_s,
            HOLD,
            CLEAR,
            lambda: next(self._ids),
            unknown,
        )
        for incident in (*changes.begun, *changes.changed):
            self.open[incident.id] = incident
            if incident.resolved is not None:
                del self.open[incident.id]
        for incident in changes.dropped:
            del self.open[incident.id]
        return [(incident.finding.subject, event) for incident, event in changes.told]


def test_it_is_told_when_it_has_held_and_when_it_has_ended() -> None:
    life, away = Life(), [finding(subject="a")]
    assert life.at(0, away) == []
    assert life.at(59, away) == []
    assert life.at(60, away) == [("a", "firing")]
    assert life.at(61, away) == []
    assert life.at(100, []) == []
    assert life.at(219, []) == []
    assert life.at(220, []) == [("a", "resolved")]
    assert life.open == {}


def test_what_comes_and_goes_is_no_alert_or_one() -> None:
    life, away = Life(), [finding(subject="a")]
    for second in range(0, 600, 10):  # never 60 s in a row
        assert life.at(second, away if second % 50 else []) == []
    told = []
    for second in range(600, 3_000, 10):  # 70 s there, 40 s gone, over and over
        told += life.at(second, away if second % 110 < 70 else [])
    assert told == [("a", "firing")]
    assert life.at(3_000, []) == []
    assert life.at(3_120, []) == [("a", "resolved")]


def test_what_cannot_pass_is_told_at_once() -> None:
    life = Life()
    assert life.at(0, [finding(Kind.LOG, "check", at_once=True)]) == [("check", "firing")]


def test_it_is_told_when_it_gets_worse_and_not_when_it_gets_better() -> None:
    life = Life()
    mild, grave = finding(subject="a"), finding(subject="a", level=Level.ALARM)
    life.at(0, [mild])
    assert life.at(60, [mild]) == [("a", "firing")]
    assert life.at(70, [grave]) == [("a", "escalated")]
    assert life.at(80, [mild]) == []
    assert next(iter(life.open.values())).finding.level is Level.WARNING


def test_while_nobody_can_tell_nothing_ends() -> None:
    life, away = Life(), [finding(subject="a")]
    life.at(0, away)
    life.at(60, away)
    unknown = frozenset({Kind.SILENCE})
    assert life.at(100, [], unknown) == []
    assert life.at(9_000, [], unknown) == []
    assert life.at(9_001, []) == []
    assert life.at(9_121, []) == [("a", "resolved")]


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    life, away = Life(), [finding(subject="a")]
    life.at(0, away)
    life.at(-86_400, away)
    assert life.at(-86_400 + 60, away) == [("a", "firing")]
    life.at(-86_000, [])
    life.at(-2 * 86_400, [])
    assert life.at(-2 * 86_400 + 120, []) == [("a", "resolved")]


def test_a_fleet_that_falls_silent_is_not_a_thousand_messages() -> None:
    life = Life()
    away = [finding(subject=f"device {n:04}") for n in range(1_000)]
    life.at(0, away)
    told = life.at(60, away)
    assert len(told) == SAME_KIND_MAX + 1
    assert told[-1] == (MORE, "firing")
    titles = {i.finding.subject: i.finding.title for i in life.open.values()}
    assert titles[MORE] == "980 more of kind silence"
    # One of those that were named comes back: one that was not takes its place.
    again = life.at(70, away[1:]) + life.at(130, away[1:])
    assert again == [("device 0020", "firing")]
    later = life.at(200, []) + life.at(320, [])
    assert len(later) == SAME_KIND_MAX + 2
    assert {event for _, event in later} == {"resolved"}
