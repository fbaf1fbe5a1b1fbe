"""What goes wrong, as clients read it: RFC 9457 `application/problem+json` with our codes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from aiohttp import web

from gossipfl.codes import ERRORS

PROBLEM_TYPE = "application/problem+json"
DETAIL_CHARS_MAX = 400  # guess: a sentence or two; a hostile body must not come back whole


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457, section 3.1. `code` is one of `gossipfl explain`, `hint` is what to do next."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str


class Problem(Exception):
    """A request that is refused: status, code of ERRORS, and what was wrong with this one.

    retry_after_s: when it may be tried again (429 and 503).
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        hint: str | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = plain(detail)
        self.hint = hint or ERRORS[code].hint
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, retry_after_s))

    @property
    def body(self) -> ProblemBody:
        entry = ERRORS[self.code]
        return ProblemBody(
            f"urn:gossipfl:{self.code}", entry.title, self.status, self.code, self.detail, self.hint
        )

    def response(self) -> web.Response:
        return web.Response(
            status=self.status,
            body=msgspec.json.encode(self.body),
            content_type=PROBLEM_TYPE,
            headers={**self.headers, "Cache-Control": "no-store"},
        )


def plain(text: str) -> str:
    """Printable and short: what others sent may be quoted in it."""
    return "".join(c if c.isprintable() else "?" for c in text)[:DETAIL_CHARS_MAX]


def unauthorised(detail: str) -> Problem:
    return Problem(401, "GF821", detail, headers={"WWW-Authenticate": "Bearer"})


def forbidden(detail: str) -> Problem:
    return Problem(403, "GF822", detail)


def absent(detail: str) -> Problem:
    return Problem(404, "GF823", detail)


def malformed(detail: str) -> Problem:
    return Problem(422, "GF824", detail)


def conflict(detail: str) -> Problem:
    return Problem(409, "GF829", detail)


def too_many(detail: str, retry_after_s: int = 1) -> Problem:
    return Problem(429, "GF827", detail, retry_after_s=retry_after_s)


def busy(detail: str, retry_after_s: int = 1) -> Problem:
    return Problem(503, "GF828", detail, retry_after_s=retry_after_s)
