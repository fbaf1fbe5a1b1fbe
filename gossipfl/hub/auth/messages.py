"""What the routes of this area take and give."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from gossipfl.hub.auth.users import LABELS_MAX, User
from gossipfl.hub.rest.access import Role

Name = Annotated[str, Meta(min_length=2, max_length=32)]
Password = Annotated[str, Meta(min_length=1, max_length=256)]
Code = Annotated[str, Meta(min_length=16, max_length=128)]
Refresh = Annotated[str, Meta(min_length=16, max_length=256)]
Label = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
"""No control characters; PostgreSQL takes no NUL at all."""


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Login(_Request, frozen=True):
    name: Name
    password: Password


class RefreshRequest(_Request, frozen=True):
    refresh_token: Refresh


class Revocation(_Request, frozen=True):
    """Which tokens end: those of the caller's session, or of the session of a refresh token."""

    refresh_token: Refresh | None = None


class Credentials(_Request, frozen=True):
    """A user's new password. All its other sessions end."""

    password: Password
    new_password: Password


class LinkUse(_Request, frozen=True):
    """The code of a login link, and the password that the user chooses."""

    code: Code
    password: Password


class DeviceProof(_Request, frozen=True):
    """The device's member object, which names the TLS key of this very connection."""

    member: Annotated[bytes, Meta(max_length=4_096)]


class NewUser(_Request, frozen=True):
    name: Name
    role: Role
    labels: Annotated[dict[Label, Label], Meta(max_length=LABELS_MAX)] = {}


class TokenAnswer(msgspec.Struct, frozen=True):
    """RFC 6749, section 5.1."""

    access_token: str
    refresh_token: str
    expires_in: int  # seconds
    role: Role
    token_type: str = "Bearer"


class SessionAnswer(msgspec.Struct, frozen=True):
    """The tokens are in cookies; `csrf` goes into the header of what changes something."""

    name: str
    role: Role
    csrf: str
    expires_in: int  # seconds


class Me(msgspec.Struct, frozen=True):
    subject: str
    role: Role
    labels: dict[str, str]


class LinkAnswer(msgspec.Struct, frozen=True):
    """A code that works once."""

    name: str
    code: str
    expires_in: int  # seconds


class UserList(msgspec.Struct, frozen=True):
    users: list[User]
