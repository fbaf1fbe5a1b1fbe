"""Ending a quarantine at the hub, over the API and by a form of the page: reason asked, logged.

Reputation is each device's own view and is never gossiped, so this reaches the hub's own node and
nobody else: what a device makes of its peer is ended at that device, by `gossipfl quarantine
release`. What is proven, revoked or blocked is no matter of opinion and is not ended here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from gossipfl.audit.entries import EntryKind, account_subject
from gossipfl.events import Release
from gossipfl.hub.alerts.forms import operator_of_form
from gossipfl.hub.auth.service import Auth
from gossipfl.hub.log.said import say
from gossipfl.hub.page.routes import FORM, FORM_BYTES_MAX, HEADERS, HTML
from gossipfl.hub.rest.access import OPERATORS, PUBLIC
from gossipfl.hub.rest.problems import absent, busy, conflict, malformed
from gossipfl.hub.rest.routing import Call, Route
from gossipfl.identity import device_name, parse_device_name

REASON_MIN, REASON_MAX = 3, 256  # as for blocking a client
NO_WAY_OUT = {
    "condemned": "it signed two histories, which is proven for everybody",
    "revoked": "the fleet's issuer revoked it, for good",
    "blocked": "the policy blocks it: `gossipfl policy propose` with unblock",
}


class ReleaseRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`device`: its id, as people see it."""

    device: Annotated[str, Meta(min_length=4, max_length=64)]
    reason: Annotated[str, Meta(min_length=REASON_MIN, max_length=REASON_MAX)]


class ReleaseAnswer(msgspec.Struct, frozen=True):
    device: str
    words: str


class ReleaseApi:
    def routes(self) -> list[Route]:
        made = Route("POST", "/api/v1/security/release-device", self.release_device, OPERATORS,
                     ReleaseRequest, ReleaseAnswer, "End a quarantine at the hub's own node; each "
                     "device ends its own. The reason is logged.", refusals=(404, 409))  # fmt: skip
        return [replace(made, tag="policy")]

    async def release_device(self, hub: Any, call: Call) -> ReleaseAnswer:
        body: ReleaseRequest = call.body
        return await released(hub, body.device, body.reason, call.caller.subject)


class ReleaseForms:
    """The same on the page."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    def routes(self) -> list[Route]:
        made = Route("POST", "/quarantine/release", self.release_by_form, PUBLIC, bytes,
                     words="End a quarantine at the hub's own node, in a browser.", kinds=(FORM,),
                     bytes_max=FORM_BYTES_MAX, refusals=(401, 403, 404, 409), status=303,
                     answer_kind=HTML)  # fmt: skip
        return [replace(made, tag="page")]

    async def release_by_form(self, hub: Any, call: Call) -> web.Response:
        who, given = await operator_of_form(self._auth, call, "quarantines are ended by operators")
        reason = given.get("reason", "").strip()
        if not REASON_MIN <= len(reason) <= REASON_MAX:
            raise malformed(f"a reason has {REASON_MIN} to {REASON_MAX} characters")
        await released(hub, given.get("device", ""), reason, who)
        return web.Response(status=303, headers={**HEADERS, "Location": "/#security"})


async def released(hub: Any, name: str, reason: str, by: str) -> ReleaseAnswer:
    """Raises Problem: 404, 409 if there is nothing to end here, 503 if another instance leads."""
    try:
        device = parse_device_name(name)
    except ValueError as error:
        raise malformed(str(error)) from None
    station = getattr(hub.leader, "station", None)
    if station is None:
        raise busy("another instance of this hub follows the fleet: ask that one", 5)
    async with hub.database.transaction() as tx:
        row = await tx.row("SELECT state FROM fleet_devices WHERE device = ?", device)
        if row is None:
            raise absent("no device of this name has been heard of")
        if row["state"] != "quarantined":
            why = NO_WAY_OUT.get(row["state"], "it is not in quarantine here")
            raise conflict(f"{device_name(device)[:9]}: {why}")
        told = {"action": "release from quarantine", "reason": reason}
        kind, who = EntryKind.DECISION, account_subject(by)
        await say(tx, kind, told, hub.clock(), about=device, by=who)
    if not station.give(Release(device)):
        raise busy("the hub's node is busy", 5)
    words = "ended at the hub; each device ends its own: gossipfl quarantine release"
    return ReleaseAnswer(device_name(device), words)
