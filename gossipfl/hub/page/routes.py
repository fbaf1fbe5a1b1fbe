"""The routes of the page. Who may look is the table's business; viewers with labels see sums."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from aiohttp import web

from gossipfl.hub.auth.authenticator import COOKIE, require_own_origin
from gossipfl.hub.auth.messages import LinkUse, Login
from gossipfl.hub.auth.routes import REFRESH_COOKIE, AuthApi
from gossipfl.hub.auth.service import Auth
from gossipfl.hub.auth.tokens import TokenError
from gossipfl.hub.page import compose
from gossipfl.hub.page.feed import Feed
from gossipfl.hub.page.guests import GUEST
from gossipfl.hub.page.model import Page
from gossipfl.hub.page.query import Query
from gossipfl.hub.page.rendering import STATIC, Renderer, fleet_csv, static
from gossipfl.hub.reports.asked import tariffs
from gossipfl.hub.reports.costs import Tariffs
from gossipfl.hub.rest.access import PEOPLE, PUBLIC, Caller, Role
from gossipfl.hub.rest.problems import Problem, absent, busy, forbidden, malformed
from gossipfl.hub.rest.routing import Call, Raw, Route
from gossipfl.identity import parse_device_name

HTML = "text/html"
ASSETS = "/page/assets/{version}"  # a hash of what they are: they may be kept for ever
FORM = "application/x-www-form-urlencoded"
FORM_BYTES_MAX = 4_096
STREAMS_MAX = 64  # guess: browsers that look at one instance
STREAM_S = 600.0  # then the browser asks again, with the token that it has by then
PING_S = 15.0  # so that proxies, and a browser whose hub is gone, notice
CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # without one a form's Origin is "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}  # the address has the hash


class LoginQuery(msgspec.Struct, frozen=True):
    next: str = "/"
    code: str = ""


class EventsQuery(msgspec.Struct, frozen=True):
    since: str = ""


class PageApi:
    """Handlers. `usual`: the tariffs that count where nobody asks for others."""

    def __init__(self, feed: Feed, auth: Auth, usual: Tariffs | None = None) -> None:
        self.feed = self._feed = feed
        self._usual = usual or Tariffs()
        self._auth = auth
        self._api = AuthApi(auth)
        self._renderer = Renderer()
        self._assets = {name: static(name) for name in STATIC}
        self._streams = 0

    def routes(self) -> list[Route]:
        table = [
            Route("GET", "/", self.show_page, PEOPLE, words="The fleet at a glance.", query=Query),
            Route("GET", "/devices/{device}", self.show_device, PEOPLE, words="One device."),
            Route("GET", "/verify", self.verify_now, PEOPLE, status=303, words="Read the whole log "
                  "again, compare it with every checkpoint, and go back to the page."),
            Route("GET", "/fleet.csv", self.fleet_table, PEOPLE, words="The fleet table.",
                  answer_kind="text/csv"),
            Route("GET", "/page/events", self.page_events, PEOPLE, words="News of the page.",
                  query=EventsQuery, answer_kind="text/event-stream", is_exempt=True),
            Route("GET", f"{ASSETS}/style.css", self.page_style, PUBLIC, words="The style sheet.",
                  answer_kind="text/css", is_exempt=True),
            Route("GET", f"{ASSETS}/page.js", self.page_script, PUBLIC, words="The script.",
                  answer_kind="text/javascript", is_exempt=True),
            Route("GET", "/page/icon.svg", self.page_icon, PUBLIC, words="The icon.",
                  answer_kind="image/svg+xml", is_exempt=True),
            Route("GET", "/login", self.sign_in_form, PUBLIC, words="The form to sign in.",
                  query=LoginQuery),
            *(
                Route("POST", path, handler, PUBLIC, bytes, words=words, refusals=refusals,
                      kinds=(FORM,), bytes_max=FORM_BYTES_MAX)
                for path, handler, words, refusals in (
                    ("/login", self.sign_in, "Sign a browser in.", (401, 403)),
                    ("/login/link", self.sign_in_by_link, "Use a login link in a browser.",
                     (401, 403)),
                    ("/logout", self.sign_out, "Sign a browser out.", (403,)),
                )
            ),
        ]  # fmt: skip
        html = [
            r if r.answer_kind != "application/json" else replace(r, answer_kind=HTML)
            for r in table
        ]
        return [replace(route, tag="page") for route in html]

    # --- looking -----------------------------------------------------------------------------

    async def show_page(self, hub: Any, call: Call) -> Raw:
        query: Query = call.query
        rates, problem = tariffs(query, self._usual)
        page = self._seen_by(call, self._feed.page(rates, insecure(call.request)))
        who, signed_in = _who(call.caller)
        may = call.caller.role is not Role.VIEWER
        csrf = call.caller.csrf if call.caller.role is Role.OPERATOR else ""
        text = self._renderer.page(
            page, query, problem, who, signed_in, sees_compliance=may, csrf=csrf
        )
        return _html(text)

    async def show_device(self, hub: Any, call: Call) -> Raw:
        if is_limited(call.caller):
            raise forbidden("devices are not for viewers who are limited to labels")
        try:
            device = parse_device_name(call.path["device"])
        except ValueError as error:
            raise absent(str(error)) from None
        it = self._feed.device(device)
        if it is None:
            raise absent("no device of this name has been heard of")
        page = self._feed.page(self._usual, insecure(call.request))
        return _html(self._renderer.device(it, page, *_who(call.caller)))

    async def verify_now(self, hub: Any, call: Call) -> web.Response:
        await self._feed.verify()
        return web.Response(status=303, headers={**HEADERS, "Location": "/#evidence"})

    async def fleet_table(self, hub: Any, call: Call) -> Raw:
        page = self._seen_by(call, self._feed.page(self._usual))
        named = {"Content-Disposition": 'attachment; filename="fleet.csv"'}
        return Raw(fleet_csv(page).encode(), "text/csv", {**HEADERS, **named})

    async def page_events(self, hub: Any, call: Call) -> web.StreamResponse:
        if self._streams >= STREAMS_MAX:
            raise busy(f"{STREAMS_MAX} browsers listen already", 30)
        response = web.StreamResponse(
            headers={**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        )
        self._streams += 1
        try:
            await response.prepare(call.request)
            await response.write(b"retry: 3000\n\n")
            await self._tell(response, call)
        except ConnectionError:
            pass  # the browser has gone
        finally:
            self._streams -= 1
        return response

    async def _tell(self, response: web.StreamResponse, call: Call) -> None:
        """News until the stream is old, or whoever reads it is signed out."""
        loop, since = asyncio.get_running_loop(), call.query.since
        ends, looked = loop.time() + STREAM_S, loop.time()
        while loop.time() < ends:
            if call.caller is not GUEST and loop.time() - looked >= PING_S / 2:
                looked = loop.time()
                if not await self._auth.still(call.request):
                    return
            try:
                async with asyncio.timeout(PING_S):
                    since = await self._feed.news(since)
            except TimeoutError:
                await response.write(b": still here\n\n")
            else:
                told = json.dumps({"version": since})
                await response.write(f"event: page\ndata: {told}\n\n".encode())

    async def page_style(self, hub: Any, call: Call) -> Raw:
        return Raw(self._assets["style.css"], "text/css", IMMUTABLE)

    async def page_script(self, hub: Any, call: Call) -> Raw:
        return Raw(self._assets["page.js"], "text/javascript", IMMUTABLE)

    async def page_icon(self, hub: Any, call: Call) -> Raw:
        return Raw(self._assets["icon.svg"], "image/svg+xml", {"Cache-Control": "max-age=86400"})

    def as_page(self, request: web.Request, problem: Problem) -> web.StreamResponse | None:
        """`dispatch.AsPage`: who is not signed in is asked to; everything else is told in words."""
        is_api = request.path.startswith("/api/")
        if request.method != "GET" or is_api or HTML not in request.headers.get("Accept", ""):
            return None
        if problem.status == 401:
            following = urlencode({"next": _own_path(request.raw_path)})
            return web.Response(status=303, headers={**HEADERS, "Location": f"/login?{following}"})
        told = problem.body
        text = self._renderer.problem(told.title, problem.detail, problem.hint, problem.code)
        return web.Response(
            status=problem.status,
            text=text,
            content_type=HTML,
            headers={**HEADERS, **problem.headers},
        )

    def _seen_by(self, call: Call, page: Page) -> Page:
        if call.caller.role is Role.VIEWER:
            page = compose.without_people(page)
        return compose.limited(page) if is_limited(call.caller) else page

    # --- coming and going --------------------------------------------------------------------

    async def sign_in_form(self, hub: Any, call: Call) -> Any:
        """A browser whose access token has ended gets the next, if its session goes on."""
        query: LoginQuery = call.query
        following = _own_path(query.next)
        if REFRESH_COOKIE in call.request.cookies and not query.code:
            try:
                return _go(following, await self._api.extend(hub, call))
            except Problem:
                pass  # it has ended: the form says how to go on
        return _html(self._renderer.login(following=following, code=query.code))

    async def sign_in(self, hub: Any, call: Call) -> Any:
        fields = form_fields(call.body)
        following = _own_path(fields.get("next", "/"))
        name = fields.get("name", "")
        try:
            body = msgspec.convert({"name": name, "password": fields.get("password", "")}, Login)
            return _go(following, await self._signed_in(hub, call, body))
        except (Problem, msgspec.ValidationError) as error:
            return self._again(error, following=following, name=name)

    async def sign_in_by_link(self, hub: Any, call: Call) -> Any:
        fields = form_fields(call.body)
        code = fields.get("code", "").strip()
        try:
            body = msgspec.convert({"code": code, "password": fields.get("password", "")}, LinkUse)
            require_own_origin(call.request)
            pair = await self._api.link(hub, replace(call, body=body))
            claims = await self._auth.sessions.check(pair.access_token)
            await self._auth.sessions.end(claims.family, "it became a browser's session")
            login = Login(claims.subject, body.password)
            return _go("/", await self._signed_in(hub, call, login))
        except (Problem, msgspec.ValidationError) as error:
            return self._again(error, following="/", code=code)

    async def sign_out(self, hub: Any, call: Call) -> web.Response:
        require_own_origin(call.request)
        cookie = call.request.cookies.get(COOKIE)
        if cookie is not None:
            # What is no token, or has ended already, is nothing to end.
            with suppress(Problem, TokenError):
                claims = await self._auth.sessions.check(cookie)
                await self._auth.sessions.end(claims.family)
        refresh = call.request.cookies.get(REFRESH_COOKIE)
        if refresh is not None:  # it outlives the other cookie
            await self._auth.sessions.end_of_token(refresh)
        response = web.Response(status=303, headers={**HEADERS, "Location": "/login"})
        for name in (COOKIE, REFRESH_COOKIE):
            response.del_cookie(name, path="/", secure=True, httponly=True, samesite="Strict")
        return response

    async def _signed_in(self, hub: Any, call: Call, body: Login) -> web.Response:
        return await self._api.login(hub, replace(call, body=body))

    def _again(self, error: Exception, **shown: str) -> Raw:
        told = error.detail if isinstance(error, Problem) else "something is missing or too short"
        status = error.status if isinstance(error, Problem) else 422
        return _html(self._renderer.login(problem=told, **shown), status)


def _go(path: str, made: web.Response) -> web.Response:
    """To `path`, with the cookies of `made`."""
    response = web.Response(status=303, headers={**HEADERS, "Location": path})
    response.cookies.update(made.cookies)
    return response


def _html(text: str, status: int = 200) -> Raw:
    return Raw(text.encode(), HTML, HEADERS, status)


def _who(caller: Caller) -> tuple[str, bool]:
    """The name on the bar, and whether there is a session to end."""
    return (caller.subject, caller.subject != GUEST.subject)


def is_limited(caller: Caller) -> bool:
    return caller.role is Role.VIEWER and bool(caller.labels)


def _own_path(text: str) -> str:
    """A path of this page; the start page for anything else."""
    plain = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if plain and len(text) <= 512 and "\\" not in text else "/"


def form_fields(body: bytes) -> dict[str, str]:
    """A form's fields, each once. Raises Problem."""
    try:
        pairs = parse_qsl(body.decode(), max_num_fields=8, keep_blank_values=True)
    except ValueError as error:
        raise malformed(f"not a form: {error}") from None
    if len(dict(pairs)) != len(pairs):
        raise malformed("a field is there twice")
    return dict(pairs)


def insecure(request: web.Request) -> str:
    """Why what is shown could be read or changed on its way; "" if it cannot."""
    if request.secure or request.remote in ("127.0.0.1", "::1"):
        return ""
    return "this page came over plain HTTP. Anybody on the way can read it and change it."
