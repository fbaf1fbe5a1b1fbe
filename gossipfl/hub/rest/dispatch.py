"""From a request to its handler: path, caller, role, pace, body, and what goes wrong.

The order is from cheap to dear: a path, a token, a pace, then a body that has to come quickly.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web

from gossipfl.fleet.throttle import Throttle, origin_of
from gossipfl.hub.database import DatabaseError, DatabaseFull
from gossipfl.hub.rest import bodies
from gossipfl.hub.rest.access import ANYBODY, Authenticator, Caller, Role
from gossipfl.hub.rest.origins import Origins
from gossipfl.hub.rest.problems import Problem, absent, busy, forbidden, too_many
from gossipfl.hub.rest.routing import Call, Route, answered, require_distinct
from gossipfl.hub.rest.uploads import Uploads
from gossipfl.net.connection import TimedHandler

log = logging.getLogger(__name__)

IN_FLIGHT_MAX = 256  # guess, being handled: 200 clients at one instant and who watches them
UPLOADS_MAX, UPLOADS_EACH = 256, 8  # guess: bodies on their way with a token; of one caller
STRANGERS_MAX, STRANGERS_EACH = 64, 16  # guess: without a token; from one address
BODIES_BYTES_MAX = 128 << 20  # guess: being read at one instant; a third of what a hub may take
REQUESTS_PER_S = 20.0  # guess, per caller: twice what the protocol grants a device
REQUESTS_BURST = 100.0  # guess: a page that loads
STRANGERS_PER_S = 20.0  # guess, per address, without a token; failed logins are slowed down more
STRANGERS_BURST = 200.0  # guess: so many star clients behind one address register at one instant
FORBIDDEN_IN_PATHS = ("//", "/.", "\\", "%2f", "%5c", "%2e", "%00", "%25")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Server": "gossipfl",
}

AsPage = Callable[[web.Request, Problem], web.StreamResponse | None]
"""How a problem is shown to a person with a browser; None: as to everybody else."""
_HANDLER = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Dispatcher:
    """Serves `routes` for one hub."""

    def __init__(
        self,
        hub: Any,
        routes: Iterable[Route],
        authenticator: Authenticator,
        *,
        in_flight_max: int = IN_FLIGHT_MAX,
        monotonic: Callable[[], float] = time.monotonic,
        as_page: AsPage = lambda request, problem: None,
        origins: Origins | None = None,
    ) -> None:
        self.routes = require_distinct(routes)
        self.in_flight = 0
        self.refused: dict[str, int] = {}  # by code, for the metrics
        self.served = 0
        self._bodies_bytes = 0  # being read now
        self._hub = hub
        self._authenticator = authenticator
        self._in_flight_max = in_flight_max
        self._monotonic = monotonic
        self._as_page = as_page
        self._origins = origins or Origins()
        self._uploads = Uploads(UPLOADS_MAX, UPLOADS_EACH)
        self._strangers_uploads = Uploads(STRANGERS_MAX, STRANGERS_EACH)
        self._callers = Throttle(REQUESTS_PER_S, REQUESTS_BURST)
        self._strangers = Throttle(STRANGERS_PER_S, STRANGERS_BURST)

    def install(self, app: web.Application) -> None:
        """Adds all routes to `app`, and what turns errors into problems around all of it."""
        app.middlewares.append(self._middleware)
        for route in self.routes:
            app.router.add_route(route.method, route.path, self._serve(route))

    # --- around every request --------------------------------------------------------------

    @property
    def _middleware(self) -> Any:
        @web.middleware
        async def problems(request: web.Request, handler: _HANDLER) -> web.StreamResponse:
            connection = request.protocol
            if isinstance(connection, TimedHandler):
                connection.begin()
            try:
                response = await self._guarded(request, handler)
            finally:
                if isinstance(connection, TimedHandler):
                    connection.end(request.content)
            if not response.prepared:
                for name, value in HEADERS.items():
                    response.headers.setdefault(name, value)
            return response

        return problems

    async def _guarded(self, request: web.Request, handler: _HANDLER) -> web.StreamResponse:
        try:
            _require_plain_path(request)
            response = await handler(request)
            self.served += 1
        except Problem as problem:
            return self._refuse(request, problem)
        except web.HTTPException as error:
            return self._refuse(request, _of_http(error))
        except DatabaseFull:
            return self._refuse(request, busy("the disk is full: nothing can be written", 60))
        except DatabaseError:
            log.exception("the database failed")
            return self._refuse(request, busy("the database does not answer", 5))
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return self._refuse(
                request, Problem(500, "GF001", "a bug of the hub; its log says more")
            )
        return response

    def _refuse(self, request: web.Request, problem: Problem) -> web.StreamResponse:
        self.refused[problem.code] = self.refused.get(problem.code, 0) + 1
        response = self._as_page(request, problem) or problem.response()
        if problem.status in (408, 413, 415):
            response.force_close()  # the rest of the body is not wanted
        return response

    # --- one request -----------------------------------------------------------------------

    def _serve(self, route: Route) -> _HANDLER:
        async def serve(request: web.Request) -> web.StreamResponse:
            self._require_room(route)  # before a body is read that nobody could look at
            origin = self._origins.of(request)
            caller = await self._admit(route, request, origin)
            query = bodies.query(request, route.query)
            body = await self._body(route, request, caller, origin)
            call = Call(request, caller, body, query, origin)
            self._require_room(route)
            self.in_flight += not route.is_exempt
            try:
                return answered(route, await route.handler(self._hub, call))
            finally:
                self.in_flight -= not route.is_exempt

        return serve

    def _require_room(self, route: Route) -> None:
        """Raises Problem 503. Bodies on their way are counted apart: who sends slowly, or never
        to an end, takes nobody's place here."""
        if not route.is_exempt and self.in_flight >= self._in_flight_max:
            raise busy(f"{self.in_flight} requests are under way")

    async def _body(self, route: Route, request: web.Request, caller: Caller, origin: str) -> Any:
        """The body as the route's type; None where it takes none. Raises Problem."""
        if route.request is None:
            if request.body_exists and request.content_length != 0:
                raise Problem(413, "GF825", "this route takes no body")
            return None
        data = await self._read(route, request, caller, origin)
        kind = bodies.media_type(request)
        if kind == bodies.OCTETS or route.request is bytes:
            return data
        return bodies.decode(data, kind, route.request)

    async def _read(self, route: Route, request: web.Request, caller: Caller, origin: str) -> bytes:
        most = route.body_bytes
        if request.content.is_eof():  # it came with its headers: nobody waits
            return await bodies.read(request, route.kinds, most)
        if route.access.is_public:
            async with self._strangers_uploads.place(origin_of(origin)):
                return await bodies.read(request, route.kinds, most, bodies.STRANGER_S)
        room = min(request.content_length or most, most)
        if self._bodies_bytes and self._bodies_bytes + room > BODIES_BYTES_MAX:
            raise busy("large bodies are under way")
        self._bodies_bytes += room
        try:
            async with self._uploads.place(caller.subject):
                return await bodies.read(request, route.kinds, most)
        finally:
            self._bodies_bytes -= room

    async def _admit(self, route: Route, request: web.Request, address: str) -> Caller:
        """The caller, if it may call this route now. Raises Problem."""
        now = self._monotonic()
        if route.access.is_public:
            if not route.is_exempt and not self._strangers.allow(address, now):
                raise too_many("too many requests from this address")
            return ANYBODY
        try:
            caller = await self._authenticator.caller(request)
        except Problem as problem:
            if problem.status == 401 and not self._strangers.allow(address, now):
                raise too_many("too many requests without a valid token") from None
            raise
        if not route.access.allows(caller.role):
            raise forbidden(f"{request.method} {route.path} is not for the role {caller.role}")
        own = route.access.own
        if own and caller.role is Role.DEVICE and request.match_info[own] != caller.subject:
            raise forbidden("a client may only speak for itself")
        if not route.is_exempt and not self._callers.allow(caller.subject, now):
            raise too_many(f"at most {REQUESTS_PER_S:g} requests a second")
        return caller


def _require_plain_path(request: web.Request) -> None:
    """A path has one spelling: no dots, doubled or escaped slashes. Raises Problem 400."""
    path = request.raw_path.partition("?")[0].lower()
    if not path.startswith("/") or any(part in path for part in FORBIDDEN_IN_PATHS):
        raise Problem(400, "GF824", "the path is not in its plain form")
    if not path.isascii() or not path.isprintable():
        raise Problem(400, "GF824", "the path is not in its plain form")


def _of_http(error: web.HTTPException) -> Problem:
    """aiohttp's own refusals: no such route, no such method, a body it cut off."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Problem(405, "GF823", f"this path takes {allowed}", headers={"Allow": allowed})
    match error.status:
        case 404:
            return absent("there is no such path; /openapi.json lists them")
        case 413:
            return Problem(413, "GF825", "the body is too large")
    if error.status >= 500:
        return busy(error.reason)
    return Problem(error.status, "GF824", error.reason)
