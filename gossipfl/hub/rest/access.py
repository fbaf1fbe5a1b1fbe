"""Who may call what: roles, the access that a route asks for, and the caller of one request.

Deny by default: a route names the roles that it is for, and nobody else gets in. Who has the role
`device` may only speak for itself where the path names a client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from aiohttp import web


class Role(StrEnum):
    """What somebody is to a hub."""

    DEVICE = "device"  # a device, or a client of star mode
    HUB = "hub"  # another hub, which follows this one
    OPERATOR = "operator"  # steers: policies, blocks, users
    AUDITOR = "auditor"  # sees all, changes nothing
    VIEWER = "viewer"  # sees the page, perhaps of some labels only


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a route.

    own: the name of the path parameter that a device may only fill with its own id.
    is_public: no token is asked for, and one that is sent is not looked at.
    """

    roles: frozenset[Role] = frozenset()
    own: str | None = None
    is_public: bool = False

    def allows(self, role: Role) -> bool:
        return self.is_public or role in self.roles


def only(*roles: Role, own: str | None = None) -> Access:
    return Access(frozenset(roles), own)


PUBLIC = Access(is_public=True)
EVERYBODY = only(*Role)
PEOPLE = only(Role.OPERATOR, Role.AUDITOR, Role.VIEWER)
INSIGHT = only(Role.OPERATOR, Role.AUDITOR, Role.HUB)
"""What names devices or money: not for viewers, who may be limited to labels."""
OPERATORS = only(Role.OPERATOR)
DEVICES = only(Role.DEVICE)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, as its token or certificate says.

    subject: a user's name, or the hex id of a device or client.
    labels: what a viewer is limited to: every one of them must be a client's; none: no limit.
    """

    subject: str
    role: Role
    labels: Mapping[str, str] = field(default_factory=dict)
    token: str = ""  # the token's id (jti); "" for a certificate
    csrf: str = ""  # of a browser's session: what its forms must bring

    def may_see(self, labels: Mapping[str, str]) -> bool:
        """Whether something with these labels is within what this caller is limited to."""
        return all(labels.get(name) == value for name, value in self.labels.items())


ANYBODY = Caller("", Role.VIEWER)
"""The caller of a public route: nobody has looked who it is."""


class Authenticator(Protocol):
    """Says who sends a request. `gossipfl.hub.auth` has the real one."""

    async def caller(self, request: web.Request) -> Caller:
        """Raises Problem 401 if that cannot be told, 403 if a browser was tricked into it."""
        ...
