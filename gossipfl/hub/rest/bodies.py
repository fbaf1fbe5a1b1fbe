"""Bodies: bounded before they are read, and typed before anybody looks at them.

JSON is for what people and scripts write. What is large travels as msgpack or as plain bytes, so a
JSON body may have 64 KiB at most. Compressed bodies are refused: a kilobyte may be a gigabyte.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, TypeVar, get_type_hints

import msgspec
from aiohttp import web

from gossipfl.hub.rest.problems import Problem, malformed

JSON = "application/json"
MSGPACK = "application/msgpack"
OCTETS = "application/octet-stream"

KIB = 1024
JSON_BYTES_MAX = 64 * KIB  # issue: arrays above travel in a binary form
START_S = 6.0  # fault table: who drips is closed within ten seconds, two of them lingering
READ_BYTES_PER_S = 16 * KIB  # protocol: what came, after START_S, has to keep ahead of this
STALL_S = 6.0  # no byte for so long ends it; as START_S
STRANGER_S = 5.0  # protocol: as headers. Without a token a body has 64 KiB at most

T = TypeVar("T")


def media_type(request: web.Request) -> str:
    return request.content_type.lower()


async def read(
    request: web.Request, kinds: tuple[str, ...], bytes_max: int, within_s: float = math.inf
) -> bytes:
    """The body, if it is of one of `kinds` and within its bound. Raises Problem 413, 415 or 408.

    It is given up when no byte comes for STALL_S, when it falls behind READ_BYTES_PER_S after
    START_S, and after `within_s`.
    """
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise Problem(415, "GF826", f"Content-Encoding {encoding!r}: send the body as it is")
    kind = media_type(request)
    if kind not in kinds:
        raise Problem(415, "GF826", f"Content-Type {kind!r}, expected {' or '.join(kinds)}")
    most = min(bytes_max, JSON_BYTES_MAX) if kind == JSON else bytes_max
    length = request.content_length
    if length is not None and length > most:
        raise _too_large(length, most, kind)
    parts: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(None) as bound:
            while True:
                pace = min(within_s, START_S + size / READ_BYTES_PER_S)
                bound.reschedule(min(began + pace, loop.time() + STALL_S))
                part = await request.content.readany()
                if not part:
                    return b"".join(parts)
                size += len(part)
                if size > most:
                    raise _too_large(size, most, kind)
                parts.append(part)
    except TimeoutError:
        raise Problem(408, "GF824", f"the body stopped coming after {size} bytes") from None


def _too_large(size: int, most: int, kind: str) -> Problem:
    hint = None
    if kind == JSON:
        hint = f"send what is large as {MSGPACK} or {OCTETS}"
    return Problem(413, "GF825", f"{size} bytes of {kind}, at most {most}", hint=hint)


def decode(data: bytes, kind: str, shape: type[T]) -> T:
    """The body as its type. Raises Problem 422 that names the field."""
    try:
        if kind == MSGPACK:
            return msgspec.msgpack.decode(data, type=shape)
        return msgspec.json.decode(data, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise malformed(str(error)) from None


def query(request: web.Request, shape: type[T] | None) -> T | None:
    """The query string as its type: each name once, numbers from their digits. Raises Problem."""
    names = [name for name, _ in request.query.items()]
    if len(set(names)) != len(names):
        raise malformed("a parameter of the query is there twice")
    if shape is None:
        if names:
            raise malformed(f"this route has no parameter {names[0]!r}")
        return None
    unknown = set(names) - set(get_type_hints(shape))
    if unknown:
        raise malformed(f"this route has no parameter {sorted(unknown)[0]!r}")
    values: dict[str, Any] = dict(request.query)
    try:
        return msgspec.convert(values, shape, strict=False)
    except (msgspec.ValidationError, OverflowError) as error:
        raise malformed(str(error)) from None
