"""What the peer server answers, and how it is written: in bounded time, whatever readers do."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from gossipfl.config import Limits
from gossipfl.net.headers import HEAD_BYTES, MEMBER, etag, from_range

CHUNK_BYTES = 128 * 1024  # measured: 260 MB/s over TLS, where aiohttp's FileResponse makes 28


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | memoryview = b""
    close: bool = False  # the connection too
    held: bytes | None = None  # digest of the loaded object that `body` is a view of
    carries_update: bool = False


ABSENT = Reply(404)
BODY_REFUSED = Reply(413, close=True)
BUG = Reply(500, close=True)


def not_modified(digest: bytes) -> Reply:
    return Reply(304, {"ETag": etag(digest)})


def no_head_yet(member: bytes) -> Reply:
    """We have published nothing: all there is to say is who we are."""
    return Reply(204, {MEMBER: member.hex()})


def busy(status: int, wait_s: float) -> Reply:
    """429: this device has used up its budget. 503: all of us together have."""
    return Reply(status, {"Retry-After": str(max(1, math.ceil(wait_s)))})


def head(envelope: bytes, digest: bytes, member: bytes, update: bytes | None) -> Reply:
    """A head, and the update it names where that rides along."""
    headers = {
        "ETag": etag(digest),
        MEMBER: member.hex(),
        HEAD_BYTES: str(len(envelope)),
        "Cache-Control": "no-cache",
    }
    return Reply(200, headers, envelope + (update or b""), carries_update=update is not None)


def stored(digest: bytes, data: bytes, wanted: str | None, held: bool, update: bool) -> Reply:
    """An object, or the part that `Range: bytes=a-[b]` names. Other ranges get all of it."""
    headers = {
        "ETag": etag(digest),
        "Cache-Control": "immutable, max-age=31536000",
        "Accept-Ranges": "bytes",
    }
    holder = digest if held else None
    part = from_range(wanted, len(data))
    if part is None:
        return Reply(200, headers, data, held=holder, carries_update=update)
    first, last = part
    if first > last:
        return Reply(416, {"Content-Range": f"bytes */{len(data)}"}, held=holder)
    headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
    body = memoryview(data)[first : last + 1]
    return Reply(206, headers, body, held=holder, carries_update=update and first == 0)


async def send(request: web.BaseRequest, reply: Reply, limits: Limits) -> web.StreamResponse:
    """Write it out. TimeoutError if the reader takes nothing for `stall_s`, or is too slow."""
    size = len(reply.body)
    response: web.StreamResponse
    if size <= CHUNK_BYTES:
        response = web.Response(status=reply.status, body=bytes(reply.body) if size else None)
    else:
        response = web.StreamResponse(status=reply.status)
        response.content_length = size
    response.headers.update(reply.headers)
    response.headers["Server"] = "gossipfl"  # aiohttp would tell its version and Python's
    if reply.close:
        response.force_close()
    if size <= CHUNK_BYTES:
        async with asyncio.timeout(limits.stall_s):
            await response.prepare(request)
            await response.write_eof()
        return response
    async with asyncio.timeout(limits.transfer_base_s + size / limits.transfer_bytes_per_s):
        await response.prepare(request)
        for at in range(0, size, CHUNK_BYTES):
            async with asyncio.timeout(limits.stall_s):
                await response.write(reply.body[at : at + CHUNK_BYTES])
        async with asyncio.timeout(limits.stall_s):
            await response.write_eof()
    return response
