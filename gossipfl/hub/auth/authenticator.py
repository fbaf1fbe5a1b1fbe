"""From a request to its caller: a Bearer token, or a browser's cookie with proof of intent.

A browser sends cookies with whatever another site makes it ask for. So what changes something by
cookie needs the header that only our own page can set (its value is in the token), and comes from
our own origin where the browser says so.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from aiohttp import web

from gossipfl.hub.auth.sessions import Sessions
from gossipfl.hub.auth.tokens import Claims, TokenError
from gossipfl.hub.rest.access import Caller
from gossipfl.hub.rest.problems import forbidden, unauthorised

COOKIE = "__Host-gossipfl"
"""RFC 6265bis: Secure, of this host alone, for all paths."""
CSRF_HEADER = "X-CSRF-Token"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class TokenAuthenticator:
    """The `Authenticator` of a hub."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def caller(self, request: web.Request) -> Caller:
        claims = await self.claims(request)
        return Caller(claims.subject, claims.role, claims.labels, claims.token, claims.csrf)

    async def claims(self, request: web.Request) -> Claims:
        """The token that a request brings. Raises Problem 401 or 403."""
        header = request.headers.get("Authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            if scheme.lower() != "bearer":
                raise unauthorised("only Bearer tokens are taken here")
            return await self._open(token.strip())
        cookie = request.cookies.get(COOKIE)
        if cookie is None:
            raise unauthorised("no token came with the request")
        claims = await self._open(cookie)
        if request.method not in SAFE:
            _require_intent(request, claims)
        return claims

    async def _open(self, token: str) -> Claims:
        try:
            return await self._sessions.check(token)
        except TokenError as error:
            raise unauthorised(str(error)) from None


def _require_intent(request: web.Request, claims: Claims) -> None:
    """Raises Problem 403 if another site may have made the browser send this."""
    shown = request.headers.get(CSRF_HEADER, "")
    if not claims.csrf or not hmac.compare_digest(shown.encode(), claims.csrf.encode()):
        raise forbidden(f"a request by cookie needs the header {CSRF_HEADER}")
    require_own_origin(request)


def require_own_origin(request: web.Request) -> None:
    """Raises Problem 403 if the browser says that another site asks."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise forbidden("the request comes from another origin")
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise forbidden("the request comes from another site")
