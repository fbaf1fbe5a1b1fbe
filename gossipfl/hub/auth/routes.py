"""The routes of this area: tokens, sessions of browsers, and users."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from aiohttp import web

from gossipfl.errors import UserError
from gossipfl.hub.auth import messages
from gossipfl.hub.auth.authenticator import COOKIE, require_own_origin
from gossipfl.hub.auth.messages import LinkAnswer, Me, SessionAnswer, TokenAnswer, UserList
from gossipfl.hub.auth.service import Auth
from gossipfl.hub.auth.sessions import REFRESH_S, Pair
from gossipfl.hub.auth.users import LINK_S, User
from gossipfl.hub.rest.access import EVERYBODY, OPERATORS, PUBLIC, Role
from gossipfl.hub.rest.problems import Problem, malformed, unauthorised
from gossipfl.hub.rest.routing import Call, Route
from gossipfl.net.tls import leaf_of

REFRESH_COOKIE = "__Host-gossipfl-refresh"
API = "/api/v1/auth"
CODE = "a login code"  # stands where a name would: no user can have it


class AuthApi:
    """Handlers. Whoever fails to prove who it is always waits as long and reads the same."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    def routes(self) -> list[Route]:
        m, user, users = messages, "/api/v1/users/{name}", "/api/v1/users"
        table = [
            Route("POST", f"{API}/token", self.token, PUBLIC, m.Login, TokenAnswer,
                  "A token for name and password.", refusals=(401,)),
            Route("POST", f"{API}/refresh", self.refresh, PUBLIC, m.RefreshRequest, TokenAnswer,
                  "The next pair of tokens; the refresh token shown works no more.",
                  refusals=(401,)),
            Route("POST", f"{API}/revoke", self.revoke, EVERYBODY, m.Revocation, None,
                  "End the caller's session, or that of a refresh token.", status=204),
            Route("POST", f"{API}/credentials", self.credentials, EVERYBODY, m.Credentials,
                  TokenAnswer, "Change the password; all other sessions end."),
            Route("POST", f"{API}/link", self.link, PUBLIC, m.LinkUse, TokenAnswer,
                  "Use a login link, once: choose a password and get a token.", refusals=(401,)),
            Route("POST", f"{API}/device", self.device, PUBLIC, m.DeviceProof, TokenAnswer,
                  "A token for a device, known by the certificate of its TLS connection.",
                  refusals=(401,)),
            Route("POST", f"{API}/session", self.login, PUBLIC, m.Login, SessionAnswer,
                  "Log a browser in: tokens in cookies.", refusals=(401, 403)),
            Route("POST", f"{API}/session/refresh", self.extend, PUBLIC, None, SessionAnswer,
                  "Extend a browser's session.", refusals=(401, 403)),
            Route("POST", f"{API}/session/end", self.logout, EVERYBODY, None, None,
                  "Log a browser out.", status=204),
            Route("GET", f"{API}/me", self.me, EVERYBODY, None, Me, "Who the token is for."),
            Route("GET", users, self.users, OPERATORS, None, UserList, "All users."),
            Route("POST", users, self.add, OPERATORS, m.NewUser, LinkAnswer,
                  "A new user; the answer has its login link.", status=201, refusals=(409,)),
            Route("POST", f"{user}/disable", self.disable, OPERATORS, None, User,
                  "Shut a user out and end its sessions.", refusals=(409,)),
            Route("POST", f"{user}/link", self.new_link, OPERATORS, None, LinkAnswer,
                  "A login link for a user who has no password, or has lost it."),
        ]  # fmt: skip
        return [replace(route, tag="auth") for route in table]

    # --- tokens ----------------------------------------------------------------------------

    async def token(self, hub: Any, call: Call) -> TokenAnswer:
        user = await self._checked(call)
        pair = await self._auth.sessions.begin(user.name, user.role, user.labels, how="password")
        return _answer(pair, user.role)

    async def refresh(self, hub: Any, call: Call) -> TokenAnswer:
        pair = await self._auth.sessions.refresh(call.body.refresh_token)
        claims = await self._auth.sessions.check(pair.access)
        return _answer(pair, claims.role)

    async def revoke(self, hub: Any, call: Call) -> None:
        if call.body.refresh_token is not None:
            await self._auth.sessions.end_of_token(call.body.refresh_token)
            return
        claims = await self._auth.authenticator.claims(call.request)
        await self._auth.sessions.end(claims.family, "revoked")

    async def credentials(self, hub: Any, call: Call) -> TokenAnswer:
        name, address = call.caller.subject, call.origin
        self._auth.require_patience(name, address)
        user = await self._auth.users.check(name, call.body.password)
        if user is None:
            await self._auth.failed(name, address)
            raise Problem(403, "GF830", "the old password is another one")
        try:
            await self._auth.users.change(name, call.body.new_password)
        except UserError as error:
            raise malformed(f"{error.title}: {error.cause}") from None
        await self._auth.sessions.end_all(name, "the password was changed")
        pair = await self._auth.sessions.begin(user.name, user.role, user.labels)
        return _answer(pair, user.role)

    async def link(self, hub: Any, call: Call) -> TokenAnswer:
        address = call.origin
        self._auth.require_patience(CODE, address)
        try:
            user = await self._auth.users.redeem(call.body.code, call.body.password)
        except UserError as error:
            raise malformed(f"{error.title}: {error.cause}") from None
        if user is None:
            await self._auth.failed(CODE, address)
            raise unauthorised("this link has been used, has expired, or never was")
        await self._auth.sessions.end_all(user.name, "a login link was used")
        pair = await self._auth.sessions.begin(user.name, user.role, user.labels, how="login code")
        return _answer(pair, user.role)

    async def device(self, hub: Any, call: Call) -> TokenAnswer:
        transport, members = call.request.transport, self._auth.members
        leaf = leaf_of(transport.get_extra_info("ssl_object")) if transport is not None else None
        device = None
        if members is not None and leaf is not None:
            device = await members.device(call.body.member, leaf)
        if device is None:
            raise unauthorised("the connection and the member object do not prove a device")
        pair = await self._auth.sessions.begin(device.hex(), Role.DEVICE)
        return _answer(pair, Role.DEVICE)

    # --- browsers --------------------------------------------------------------------------

    async def login(self, hub: Any, call: Call) -> web.Response:
        require_own_origin(call.request)
        user = await self._checked(call)
        pair = await self._auth.sessions.begin(
            user.name, user.role, user.labels, has_csrf=True, how="browser"
        )
        return _in_cookies(pair, SessionAnswer(user.name, user.role, pair.csrf, pair.expires_in_s))

    async def extend(self, hub: Any, call: Call) -> web.Response:
        require_own_origin(call.request)
        cookie = call.request.cookies.get(REFRESH_COOKIE)
        if cookie is None:
            raise unauthorised("no session came with the request")
        pair = await self._auth.sessions.refresh(cookie, has_csrf=True)
        claims = await self._auth.sessions.check(pair.access)
        answer = SessionAnswer(claims.subject, claims.role, pair.csrf, pair.expires_in_s)
        return _in_cookies(pair, answer)

    async def logout(self, hub: Any, call: Call) -> web.Response:
        claims = await self._auth.authenticator.claims(call.request)
        await self._auth.sessions.end(claims.family)
        response = web.Response(status=204)
        for name in (COOKIE, REFRESH_COOKIE):
            response.del_cookie(name, path="/", secure=True, httponly=True, samesite="Strict")
        return response

    async def me(self, hub: Any, call: Call) -> Me:
        return Me(call.caller.subject, call.caller.role, dict(call.caller.labels))

    # --- users -----------------------------------------------------------------------------

    async def users(self, hub: Any, call: Call) -> UserList:
        return UserList(await self._auth.users.all())

    async def add(self, hub: Any, call: Call) -> LinkAnswer:
        body = call.body
        try:
            code = await self._auth.users.add(
                body.name, body.role, body.labels, call.caller.subject
            )
        except UserError as error:
            raise Problem(409, error.code, error.cause) from None
        return LinkAnswer(body.name, code, LINK_S)

    async def disable(self, hub: Any, call: Call) -> User:
        try:
            user = await self._auth.users.disable(call.path["name"], call.caller.subject)
        except UserError as error:
            raise Problem(409, error.code, error.cause) from None
        await self._auth.sessions.end_all(
            user.name, f"disabled by {call.caller.subject}", is_out=True
        )
        return user

    async def new_link(self, hub: Any, call: Call) -> LinkAnswer:
        try:
            code = await self._auth.users.link(call.path["name"], call.caller.subject)
        except UserError as error:
            raise Problem(404, error.code, error.cause) from None
        return LinkAnswer(call.path["name"], code, LINK_S)

    async def _checked(self, call: Call) -> User:
        name, address = call.body.name, call.origin
        self._auth.require_patience(name, address)
        user = await self._auth.users.check(name, call.body.password)
        if user is None:
            await self._auth.failed(name, address)
            raise Problem(401, "GF830", "no user has this name and this password")
        return user


def _answer(pair: Pair, role: Role) -> TokenAnswer:
    return TokenAnswer(pair.access, pair.refresh, pair.expires_in_s, role)


def _in_cookies(pair: Pair, answer: SessionAnswer) -> web.Response:
    response = web.Response(
        body=msgspec.json.encode(answer),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
    for name, value, lasts_s in (
        (COOKIE, pair.access, pair.expires_in_s),
        (REFRESH_COOKIE, pair.refresh, REFRESH_S),
    ):
        response.set_cookie(
            name, value, max_age=lasts_s, path="/", secure=True, httponly=True, samesite="Strict"
        )
    return response
