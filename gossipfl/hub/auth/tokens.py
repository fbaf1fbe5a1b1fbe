"""Access tokens: JWT (RFC 7519, RFC 8725) signed with Ed25519, one algorithm and no other.

A token is short-lived, for one audience (this fleet's hub), and carries what a request is judged
by: who, role, labels, and the session (family) that it belongs to. Whether it was revoked is not
in it; see `sessions`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gossipfl.hub.rest.access import Role

ACCESS_S = 900  # issue: at most 15 minutes
ALGORITHM = "EdDSA"
ISSUER = "gossipfl-hub"
TYPE = "at+jwt"  # RFC 9068: an access token and nothing else
CHARS_MAX = 4_096  # guess: ours have about 500
OPENED_MAX = 4_096  # guess: four times the clients that a hub is measured with; 4 MB
LEEWAY_S = 5  # guess: instances on several machines, clocks kept by NTP
REQUIRED = ("exp", "iat", "nbf", "aud", "iss", "sub", "jti", "role", "family")


class TokenError(Exception):
    """Not a token that counts here; the text says why, for the log and the client."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says. `csrf`: what a browser has to send beside its cookie."""

    subject: str
    role: Role
    family: str
    token: str
    issued: int
    expires: int
    labels: Mapping[str, str] = field(default_factory=dict)
    csrf: str = ""


class Tokens:
    """Mints and checks. `seed`: 32 secret bytes, the same at all instances of one hub; `audience`
    names the fleet, so that a token of another hub counts for nothing here."""

    def __init__(self, seed: bytes, audience: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._key.public_key()
        self._audience = audience
        self._seed = seed
        self._opened: OrderedDict[str, Claims] = OrderedDict()  # signatures that were verified

    def seal(self, text: str) -> str:
        """128 bits in hex that only who has the seed can make (keyed BLAKE2b, RFC 7693)."""
        found = hashlib.blake2b(
            f"{self._audience}.{text}".encode(),
            digest_size=16,
            key=self._seed,
            person=b"gossipfl refresh",
        )
        return found.hexdigest()

    def mint(
        self,
        subject: str,
        role: Role,
        family: str,
        now: int,
        labels: Mapping[str, str] | None = None,
        csrf: str = "",
    ) -> str:
        """A token from `now` on, for ACCESS_S seconds."""
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": self._audience,
            "sub": subject,
            "role": role.value,
            "family": family,
            "iat": now,
            "nbf": now,
            "exp": now + ACCESS_S,
            "jti": secrets.token_urlsafe(16),
        }
        if labels:
            claims["labels"] = dict(labels)
        if csrf:
            claims["csrf"] = csrf
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"typ": TYPE})

    def open(self, token: str, now: int) -> Claims:
        """The claims of a token that holds at `now`. Raises TokenError."""
        found = self._opened.get(token)
        if found is None:
            found = self._verified(token)
            while len(self._opened) >= OPENED_MAX:
                self._opened.popitem(last=False)
            self._opened[token] = found
        if not found.issued - LEEWAY_S <= now < found.expires:
            raise TokenError("it has expired" if now >= found.expires else "it is not valid yet")
        return found

    def _verified(self, token: str) -> Claims:
        """All but the dates, which are another matter the next time. Raises TokenError."""
        if len(token) > CHARS_MAX:
            raise TokenError("it is too long")
        try:
            header = jwt.get_unverified_header(token)
            # Dates are checked below: by our clock, not by the library's.
            claims = jwt.decode(
                token,
                self._public,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=ISSUER,
                options={
                    "require": list(REQUIRED),
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            found = _claims(claims)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise TokenError(f"it is not valid: {error}") from None
        if header.get("typ") != TYPE:
            raise TokenError("it is not an access token")
        if found.expires - found.issued > ACCESS_S:
            raise TokenError("it lasts too long")
        return found


def _claims(claims: Mapping[str, Any]) -> Claims:
    labels = claims.get("labels", {})
    texts = (claims["sub"], claims["family"], claims["jti"], claims.get("csrf", ""))
    if not all(isinstance(text, str) for text in texts) or not isinstance(labels, dict):
        raise ValueError("a claim is of another type")
    issued, expires = claims["iat"], claims["exp"]
    if not (type(issued) is int and type(expires) is int):
        raise ValueError("a date is no whole number")
    return Claims(
        subject=texts[0],
        role=Role(claims["role"]),
        family=texts[1],
        token=texts[2],
        issued=issued,
        expires=expires,
        labels={str(name): str(value) for name, value in labels.items()},
        csrf=texts[3],
    )
