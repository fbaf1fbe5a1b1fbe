"""Incidents, and the messages that tell of them, in the database.

What changes and what is to be said of it are written in one transaction: a message is sent at least
once, whatever dies in between. Receivers tell repetitions by the message's key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gossipfl.hub.alerts.tracking import Changes, Incident
from gossipfl.hub.database import Row, Transaction
from gossipfl.hub.page.finding import AlertLine, Finding, Kind, Level
from gossipfl.identity import device_name, short_name

OPEN_MAX = 1_000  # at most 21 of each kind
WAITING_MAX = 1_000  # messages of one channel: guess, a week of a fleet that has a bad one
KEPT_S = 90 * 86_400  # guess: what was resolved is shown for a quarter
GIVE_UP_S = 86_400  # guess: who was not to be reached for a day reads the page
PAUSE_S = 5.0
PAUSE_MAX_S = 900.0  # guess: an endpoint that is mended hears of it within a quarter of an hour
PROBLEM_CHARS_MAX = 200

_FIELDS = (
    "id, kind, subject, level, title, words, link, began, fired, gone, resolved, acknowledged, "
    "acknowledged_by"
)
# An alert's newest message that has not reached somebody: of the alerts that are read alone.
_PROBLEM = (
    "COALESCE((SELECT channel || ': ' || problem FROM alert_messages WHERE alert = alerts.id "
    "AND state <> 'sent' AND problem <> '' ORDER BY alert_messages.id DESC LIMIT 1), '') "
    "AS problem_of_messages"
)
_INSERT = f"INSERT INTO alerts ({_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE = (
    "UPDATE alerts SET level = ?, title = ?, words = ?, link = ?, began = ?, fired = ?, gone = ?, "
    "resolved = ? WHERE id = ? AND resolved IS NULL"
)
_QUEUE = (
    "INSERT INTO alert_messages (alert, event, channel, body, made, due, tries, problem, state) "
    "VALUES (?, ?, ?, ?, ?, ?, 0, '', ?) ON CONFLICT (alert, event, channel) DO NOTHING"
)
_TRIM = (
    "UPDATE alert_messages SET state = 'given up', problem = 'too many messages wait' "
    "WHERE channel = ? AND state = 'waiting' AND id <= (SELECT id FROM alert_messages "
    "WHERE channel = ? AND state = 'waiting' ORDER BY id DESC LIMIT 1 OFFSET ?)"
)


@dataclass(frozen=True, slots=True)
class Queued:
    """A message that waits for its channel. `alert` and `event` are its key."""

    id: int
    alert: str
    event: str
    body: str
    made: int
    due: int
    tries: int

    @property
    def key(self) -> str:
        return f"{self.alert}-{self.event}"


async def unresolved(tx: Transaction) -> list[Incident]:
    """All that have not ended, those that have not fired yet included."""
    rows = await tx.rows(
        f"SELECT {_FIELDS} FROM alerts WHERE resolved IS NULL ORDER BY began, id LIMIT ?", OPEN_MAX
    )
    return [incident(row) for row in rows]


async def listed(tx: Transaction, most: int, *, is_open: bool) -> list[tuple[Incident, str]]:
    """What has fired, the newest first, and why a message of it was not sent yet, or never was."""
    which = "AND resolved IS NULL " if is_open else ""
    rows = await tx.rows(
        f"SELECT {_FIELDS}, {_PROBLEM} FROM alerts WHERE fired IS NOT NULL {which}"
        "ORDER BY fired DESC, id LIMIT ?",
        most,
    )
    return [(incident(row), row["problem_of_messages"]) for row in rows]


async def one(tx: Transaction, alert: str) -> tuple[Incident, str] | None:
    """As `listed` has it; None also while it has not fired."""
    row = await tx.row(
        f"SELECT {_FIELDS}, {_PROBLEM} FROM alerts WHERE id = ? AND fired IS NOT NULL", alert
    )
    return None if row is None else (incident(row), row["problem_of_messages"])


def incident(row: Row) -> Incident:
    finding = Finding(
        Kind(row["kind"]),
        row["subject"],
        Level(row["level"]),
        row["title"],
        row["words"],
        row["link"],
    )
    return Incident(
        id=row["id"],
        finding=finding,
        began=row["began"],
        fired=row["fired"],
        gone=row["gone"],
        resolved=row["resolved"],
        acknowledged=row["acknowledged"],
        acknowledged_by=row["acknowledged_by"],
    )


async def write(tx: Transaction, changes: Changes) -> None:
    """The changes; Conflict if another process has begun the same incident."""
    for made in changes.begun:
        f = made.finding
        said = (f.kind.value, f.subject, f.level.value, f.title, f.words, f.link)
        times = (made.began, made.fired, made.gone, made.resolved, made.acknowledged)
        await tx.execute(_INSERT, made.id, *said, *times, made.acknowledged_by)
    for after in changes.changed:
        f = after.finding
        await tx.execute(
            _UPDATE,
            *(f.level.value, f.title, f.words, f.link),
            *(after.began, after.fired, after.gone, after.resolved),
            after.id,
        )
    for dropped in changes.dropped:
        await tx.execute("DELETE FROM alerts WHERE id = ? AND fired IS NULL", dropped.id)


async def queue(
    tx: Transaction,
    incident: Incident,
    event: str,
    channel: str,
    body: str,
    now: int,
    *,
    sent: bool,
) -> None:
    """One message; `sent`: it is only written down that it was."""
    state = "sent" if sent else "waiting"
    await tx.execute(_QUEUE, incident.id, event, channel, body, now, now, state)
    await tx.execute(_TRIM, channel, channel, WAITING_MAX)


async def waiting(tx: Transaction, channel: str, most: int) -> list[Queued]:
    """The oldest first: what an alert says last must not come first."""
    rows = await tx.rows(
        "SELECT id, alert, event, body, made, due, tries FROM alert_messages "
        "WHERE channel = ? AND state = 'waiting' ORDER BY id LIMIT ?",
        channel,
        most,
    )
    return [Queued(**dict(row)) for row in rows]


async def delivered(tx: Transaction, message: Queued) -> None:
    await tx.execute(
        "UPDATE alert_messages SET state = 'sent', problem = '', tries = ? WHERE id = ?",
        message.tries + 1,
        message.id,
    )


def pause_s(tries: int) -> float:
    """Until the next try of what has failed so often before."""
    return min(PAUSE_MAX_S, PAUSE_S * 2.0 ** min(tries, 20))


async def failed(tx: Transaction, message: Queued, problem: str, now: int, wait_s: float) -> None:
    """Try again later, or give it up after a day."""
    state = "given up" if now - message.made >= GIVE_UP_S else "waiting"
    await tx.execute(
        "UPDATE alert_messages SET tries = ?, due = ?, problem = ?, state = ? WHERE id = ?",
        message.tries + 1,
        now + int(min(PAUSE_MAX_S, max(wait_s, pause_s(message.tries)))),
        problem[:PROBLEM_CHARS_MAX],
        state,
        message.id,
    )


async def acknowledge(tx: Transaction, alert: str, who: str, now: int) -> bool:
    """Whether it was the first to; who comes later changes nothing."""
    touched = await tx.execute(
        "UPDATE alerts SET acknowledged = ?, acknowledged_by = ? "
        "WHERE id = ? AND fired IS NOT NULL AND resolved IS NULL AND acknowledged IS NULL",
        now,
        who,
        alert,
    )
    return touched == 1


async def lines(tx: Transaction) -> tuple[AlertLine, ...]:
    """What the page shows: fired and not resolved, with what keeps messages of it from going."""
    found = await listed(tx, OPEN_MAX, is_open=True)
    return tuple(
        AlertLine(
            i.id,
            i.finding.level,
            i.finding.title,
            i.finding.link,
            i.fired or i.began,
            i.acknowledged,
            i.acknowledged_by,
            problem,
        )
        for i, problem in found
    )


async def counts(tx: Transaction) -> tuple[dict[str, int], int]:
    """How many are firing by kind, and how many messages wait."""
    rows = await tx.rows(
        "SELECT kind, COUNT(*) AS n FROM alerts WHERE fired IS NOT NULL AND resolved IS NULL "
        "GROUP BY kind"
    )
    row = await tx.row("SELECT COUNT(*) AS n FROM alert_messages WHERE state = 'waiting'")
    return {r["kind"]: int(r["n"]) for r in rows}, int(row["n"]) if row is not None else 0


async def prune(tx: Transaction, now: int) -> None:
    """Forget what ended long ago."""
    old = "SELECT id FROM alerts WHERE resolved < ?"
    await tx.execute(f"DELETE FROM alert_messages WHERE alert IN ({old})", now - KEPT_S)
    await tx.execute("DELETE FROM alerts WHERE resolved < ?", now - KEPT_S)
    await tx.execute("DELETE FROM alert_reports WHERE time < ?", now - KEPT_S)


async def forget(tx: Transaction, device: bytes) -> None:
    """All that names a device: whoever was erased is in no alert either."""
    words = f"%{short_name(device)}%"
    which = "subject = ? OR title LIKE ? OR words LIKE ?"
    named = (device_name(device), words, words)
    await tx.execute(
        f"DELETE FROM alert_messages WHERE alert IN (SELECT id FROM alerts WHERE {which})", *named
    )
    await tx.execute(f"DELETE FROM alerts WHERE {which}", *named)
    await tx.execute(f"DELETE FROM alert_reports WHERE {which}", *named)


# --- what other instances see of themselves -------------------------------------------------------


async def report(tx: Transaction, instance: str, found: Sequence[Finding], now: int) -> None:
    """What this instance, which does not evaluate, sees of itself now."""
    await tx.execute("DELETE FROM alert_reports WHERE instance = ?", instance)
    rows = [
        (instance, f.kind.value, f.subject, f.level.value, f.title, f.words, now) for f in found
    ]
    if rows:
        await tx.many(
            "INSERT INTO alert_reports (instance, kind, subject, level, title, words, time) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )


async def reported(tx: Transaction, instance: str, since: int) -> list[Finding]:
    """What others have reported since."""
    rows = await tx.rows(
        "SELECT kind, subject, level, title, words FROM alert_reports "
        "WHERE instance <> ? AND time >= ? ORDER BY time, instance LIMIT ?",
        instance,
        since,
        OPEN_MAX,
    )
    return [
        Finding(Kind(r["kind"]), r["subject"], Level(r["level"]), r["title"], r["words"],
                at_once=True)
        for r in rows
    ]  # fmt: skip
