"""Alerts over HTTP: what fires, what did, and that somebody looks after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gossipfl.hub.alerts import book
from gossipfl.hub.alerts.tracking import Incident, device_of
from gossipfl.hub.database import Transaction
from gossipfl.hub.hub import Hub
from gossipfl.hub.rest.access import INSIGHT, OPERATORS
from gossipfl.hub.rest.problems import absent, conflict
from gossipfl.hub.rest.routing import Call, Route

API = "/api/v1/alerts"


class AlertAnswer(msgspec.Struct, frozen=True):
    """One alert. Times are seconds since 1970; `resolved` and `acknowledged` null: not yet.

    `device` is its full name where the alert is about one. `problem`: why a message of it has not
    reached somebody.
    """

    id: str
    kind: str
    level: str
    title: str
    words: str
    device: str | None
    began: int
    fired: int
    resolved: int | None
    acknowledged: int | None
    acknowledged_by: str
    problem: str


class AlertsAnswer(msgspec.Struct, frozen=True):
    """The newest first."""

    alerts: list[AlertAnswer]
    messages_waiting: int


class AlertsQuery(msgspec.Struct, frozen=True):
    state: Literal["open", "all"] = "open"
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


class AlertApi:
    """Any instance answers: what it says is in the database."""

    def routes(self) -> list[Route]:
        table = [
            Route("GET", API, self.alerts, INSIGHT, None, AlertsAnswer,
                  "What fires now; with state=all also what has ended, for a quarter of a year.",
                  query=AlertsQuery),
            Route("POST", f"{API}/{{alert}}/acknowledge", self.acknowledge, OPERATORS, None,
                  AlertAnswer, "Say that you look after it. Others see who does; its end is told "
                  "all the same.", refusals=(404, 409)),
        ]  # fmt: skip
        return [replace(route, tag="alerts") for route in table]

    async def alerts(self, hub: Hub, call: Call) -> AlertsAnswer:
        query: AlertsQuery = call.query
        async with hub.database.transaction(write=False) as tx:
            found = await book.listed(tx, query.limit, is_open=query.state == "open")
            _, waiting = await book.counts(tx)
        return AlertsAnswer([_answer(i, problem) for i, problem in found], waiting)

    async def acknowledge(self, hub: Hub, call: Call) -> AlertAnswer:
        async with hub.database.transaction() as tx:
            found = await acknowledged(tx, call.path["alert"], call.caller.subject, hub.clock())
        return _answer(*found)


async def acknowledged(tx: Transaction, alert: str, who: str, now: int) -> tuple[Incident, str]:
    """The alert, which somebody looks after now: the first who said so; and why a message of it
    was not sent. Raises Problem."""
    await book.acknowledge(tx, alert, who, now)
    found = await book.one(tx, alert)
    if found is None:
        raise absent("there is no such alert")
    incident, _ = found
    if incident.resolved is not None and incident.acknowledged is None:
        raise conflict("it has ended already")
    return found


def _answer(incident: Incident, problem: str) -> AlertAnswer:
    f = incident.finding
    return AlertAnswer(
        id=incident.id,
        kind=f.kind.value,
        level=f.level.value,
        title=f.title,
        words=f.words,
        device=device_of(f),
        began=incident.began,
        fired=incident.fired or incident.began,
        resolved=incident.resolved,
        acknowledged=incident.acknowledged,
        acknowledged_by=incident.acknowledged_by,
        problem=problem,
    )
