"""Acknowledging on the page: a plain form, which works without JavaScript."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import Any

from aiohttp import web

from gossipfl.hub.alerts.routes import acknowledged
from gossipfl.hub.auth.authenticator import COOKIE, require_own_origin
from gossipfl.hub.auth.service import Auth
from gossipfl.hub.auth.tokens import TokenError
from gossipfl.hub.page.feed import Feed
from gossipfl.hub.page.routes import FORM, FORM_BYTES_MAX, HEADERS, HTML, form_fields
from gossipfl.hub.rest.access import PUBLIC, Role
from gossipfl.hub.rest.problems import forbidden, unauthorised
from gossipfl.hub.rest.routing import Call, Route


class AlertForms:
    """A form cannot send the header that proves a browser's intent, so the proof is a field of it,
    which only our own page knows."""

    def __init__(self, auth: Auth, feed: Feed) -> None:
        self._auth = auth
        self._feed = feed

    def routes(self) -> list[Route]:
        made = Route("POST", "/alerts/acknowledge", self.acknowledge_by_form, PUBLIC, bytes,
                     words="Say in a browser that you look after an alert.", kinds=(FORM,),
                     bytes_max=FORM_BYTES_MAX, refusals=(401, 403, 404, 409), status=303,
                     answer_kind=HTML)  # fmt: skip
        return [replace(made, tag="page")]

    async def acknowledge_by_form(self, hub: Any, call: Call) -> web.Response:
        told = "alerts are acknowledged by operators"
        who, given = await operator_of_form(self._auth, call, told)
        async with hub.database.transaction() as tx:
            await acknowledged(tx, given.get("alert", ""), who, hub.clock())
        await self._feed.look_at_alerts()
        return web.Response(status=303, headers={**HEADERS, "Location": "/#needs"})


async def operator_of_form(auth: Auth, call: Call, told: str) -> tuple[str, dict[str, str]]:
    """Who sends a form of our page, an operator, and its fields. `told`: what others are told.

    Raises Problem 401 or 403."""
    require_own_origin(call.request)
    cookie = call.request.cookies.get(COOKIE)
    if cookie is None:
        raise unauthorised("nobody is signed in")
    try:
        claims = await auth.sessions.check(cookie)
    except TokenError as error:
        raise unauthorised(str(error)) from None
    given = form_fields(call.body)
    shown = given.get("csrf", "")
    if not claims.csrf or not hmac.compare_digest(shown.encode(), claims.csrf.encode()):
        raise forbidden("the form is not of this page")
    if claims.role is not Role.OPERATOR:
        raise forbidden(told)
    return claims.subject, given
