"""Who may look without an account: anybody on this very machine, where the settings say so.

For a demo, whose hub listens on loopback alone. A guest sees what a viewer sees and changes
nothing. The name in the address is checked, or a foreign page could make a browser here read it by
letting its own name point to this machine (DNS rebinding).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import web

from gossipfl.hub.auth.authenticator import COOKIE
from gossipfl.hub.rest.access import Authenticator, Caller, Role
from gossipfl.hub.rest.origins import came_by_proxy
from gossipfl.hub.rest.problems import unauthorised

GUEST = Caller("guest", Role.VIEWER)
HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


class Guests:
    """Asks `inner` first if anything in the request says who it is."""

    def __init__(self, inner: Authenticator) -> None:
        self._inner = inner

    async def caller(self, request: web.Request) -> Caller:
        if "Authorization" in request.headers or COOKIE in request.cookies:
            return await self._inner.caller(request)
        host = urlsplit(f"//{request.host}").hostname
        is_here = request.remote in ("127.0.0.1", "::1") and host in HOSTS
        is_here = is_here and not came_by_proxy(request)
        if request.method not in ("GET", "HEAD") or not is_here:
            raise unauthorised("guests may only look, and only from this machine")
        return GUEST
