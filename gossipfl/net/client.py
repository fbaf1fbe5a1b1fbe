"""The asking side: one pool of mutual-TLS connections, and every failure as a typed fault.

An answer is believed for what it says (a signature, a digest), never for who carried it; so what
matters here is that no carrier can make us wait, hold or read more than the limits allow.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

import aiohttp
from yarl import URL

from gossipfl.config import TLS_SERVER_NAME, Limits
from gossipfl.errors import Fault
from gossipfl.events import (
    Address,
    FetchFailed,
    FetchHead,
    FetchObject,
    HeadReceived,
    ObjectReceived,
)
from gossipfl.net import headers
from gossipfl.net.faults import Refusal, refusal_of, refusal_of_status
from gossipfl.net.partials import Partial, Partials
from gossipfl.net.tls import tls_key_of
from gossipfl.net.traffic import Traffic

KEEPALIVE_S = 60.0  # below the server's 75, see there
ATTEMPTS = 4  # of one object transfer; each after the first needs the one before to have got on
READ_BYTES = 256 * 1024  # buffered per connection while a large object comes in
# They cost bytes in every request and tell versions.
SKIPPED = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")

_tls_keys: WeakKeyDictionary[asyncio.BaseTransport, bytes] = WeakKeyDictionary()


log = logging.getLogger(__name__)


class Response(aiohttp.ClientResponse):
    """Knows the TLS key of who answers; aiohttp may let the connection go before we could ask."""

    tls_key: bytes | None = None

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        transport = connection.transport
        if transport is not None:
            key = _tls_keys.get(transport)
            if key is None:
                key = tls_key_of(transport.get_extra_info("ssl_object"))
                if key is not None:
                    _tls_keys[transport] = key
            self.tls_key = key
        return await super().start(connection)


class Client:
    """Answers FetchHead and FetchObject effects. `start` and `close` in one running loop."""

    def __init__(self, context: ssl.SSLContext, limits: Limits, traffic: Traffic) -> None:
        self._context = context
        self._limits = limits
        self._traffic = traffic
        self._partials = Partials(limits.transfer_bytes)
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        connector = aiohttp.TCPConnector(
            ssl=self._context,
            limit=self._limits.heads_out + self._limits.pulls_out,
            keepalive_timeout=KEEPALIVE_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=Response,
            skip_auto_headers=SKIPPED,
            auto_decompress=False,
            read_bufsize=READ_BYTES,
            max_line_size=512,
            max_field_size=512,
            max_headers=32,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def fetch_head(self, effect: FetchHead) -> HeadReceived | FetchFailed:
        """The head, "not modified", or what went wrong: no peer can make this raise."""
        body_max = self._limits.head_bytes + effect.update_bytes
        self._traffic.fetches += 1
        try:
            async with asyncio.timeout(effect.wait_s + self._bound_s(body_max)):
                return await self._head(effect, body_max)
        except Exception as error:
            return self._failed(effect.request, error)

    async def fetch_object(self, effect: FetchObject) -> ObjectReceived | FetchFailed:
        """The object's bytes, checked for their number only, or what went wrong.

        A transfer that breaks is continued by Range: here, or by a later call for the same digest.
        The time that it may take counts from the call on, whatever breaks.
        """
        self._traffic.fetches += 1
        began = asyncio.get_running_loop().time()
        partial = self._partials.take(effect.digest, began)
        try:
            async with asyncio.timeout_at(began + self._bound_s(partial.size or 0)) as bound:
                await self._transfer(effect, partial, began, bound)
            return ObjectReceived(effect.request, bytes(partial.data), partial.carrier)
        except Exception as error:
            return self._failed(effect.request, error)
        finally:
            self._partials.keep(effect.digest, partial, began)

    async def _head(self, effect: FetchHead, body_max: int) -> HeadReceived:
        path = f"/v1/heads/{'self' if effect.device is None else effect.device.hex()}"
        async with self._get(effect.address, path, _head_fields(effect), effect.wait_s) as response:
            if response.status == 304 and effect.etag is not None:
                return HeadReceived(effect.request, None, tls_key=response.tls_key)
            if response.status == 204 and effect.device is None:
                member = headers.from_hex(response.headers.get(headers.MEMBER), 32)
                return HeadReceived(effect.request, None, member, tls_key=response.tls_key)
            if response.status != 200:
                raise _refusal(response)
            _declared(response, body_max)
            body = await response.read()
            self._traffic.bytes_received += len(body)
            size = headers.count(response.headers.get(headers.HEAD_BYTES))
            if size is None or size > len(body):
                raise Refusal(Fault.MALFORMED, "the answer does not say where its head ends")
            if size > self._limits.head_bytes:
                raise Refusal(Fault.OVERSIZED, f"a head of {size} bytes")
            return HeadReceived(
                effect.request,
                body[:size],
                member=headers.from_hex(response.headers.get(headers.MEMBER), 32),
                update=body[size:] or None,
                tls_key=response.tls_key,
            )

    async def _transfer(
        self, effect: FetchObject, partial: Partial, began: float, bound: asyncio.Timeout
    ) -> None:
        """Until `partial` is whole. Raises Refusal and aiohttp's errors."""
        for attempt in range(1, ATTEMPTS + 1):
            before = len(partial.data)
            try:
                async with self._rest(effect, partial) as response:
                    if partial.size is None:
                        partial.size = _declared(response, effect.bytes_max)
                        bound.reschedule(began + self._bound_s(partial.size))
                    while chunk := await response.content.readany():
                        partial.data += chunk
                        self._traffic.bytes_received += len(chunk)
                if len(partial.data) == partial.size:
                    return
            except _NotTheRest:
                partial.restart()
            except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
                if attempt == ATTEMPTS or len(partial.data) == before:
                    raise
                self._traffic.resumes += 1
        raise Refusal(Fault.TRUNCATED, f"not whole after {ATTEMPTS} attempts")

    @asynccontextmanager
    async def _rest(self, effect: FetchObject, partial: Partial) -> AsyncIterator[Response]:
        """An answer whose body continues `partial`. Raises _NotTheRest if it cannot."""
        begun = len(partial.data)
        fields = {"Range": f"bytes={begun}-"} if begun else {}
        path = f"/v1/objects/{effect.digest.hex()}"
        async with self._get(effect.address, path, fields, 0.0) as response:
            if begun and response.status == 200:
                partial.restart()  # it does not know ranges
            elif begun and response.status in (206, 416):
                part = headers.from_content_range(response.headers.get("Content-Range"))
                size = partial.size or 0
                if (
                    part != (begun, size - 1, size)
                    or response.content_length != size - begun
                    or response.tls_key != partial.carrier
                ):
                    raise _NotTheRest
            elif response.status != 200:
                raise _refusal(response)
            partial.carrier = response.tls_key
            yield response

    @asynccontextmanager
    async def _get(
        self, address: Address, path: str, fields: Mapping[str, str], wait_s: float
    ) -> AsyncIterator[Response]:
        if self._session is None:
            raise RuntimeError("the client is not started")
        limits = self._limits
        async with self._session.get(
            _url(address, path),
            headers=fields,
            server_hostname=TLS_SERVER_NAME,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                sock_connect=limits.handshake_deadline_s, sock_read=limits.stall_s + wait_s
            ),
        ) as response:
            if not isinstance(response, Response):
                raise TypeError("the session makes its own responses")
            self._traffic.bytes_sent += 17 + len(path) + _size(response.request_info.headers)
            self._traffic.bytes_received += 17 + _size(response.headers)
            try:
                yield response
            except Exception as error:
                error.tls_key = response.tls_key  # type: ignore[attr-defined]  # whom to charge
                raise

    def _bound_s(self, size: int) -> float:
        """How long a whole transfer of this size may take."""
        return self._limits.transfer_base_s + size / self._limits.transfer_bytes_per_s

    def _failed(self, request: int, error: Exception) -> FetchFailed:
        try:
            refusal = refusal_of(error)
        except Exception:
            # Nothing that a peer sends may end the agent; what we did not foresee is said loudly.
            log.exception("a request failed in a way that has no name yet")
            refusal = Refusal(Fault.UNREACHABLE, f"unforeseen: {type(error).__name__}")
        self._traffic.fetches_failed += not refusal.absent
        return FetchFailed(
            request,
            refusal.fault,
            refusal.detail,
            refusal.absent,
            tls_key=getattr(error, "tls_key", None),
        )


class _NotTheRest(Exception):
    """Another peer lives there now, or it sent another part: begin again."""


def _url(address: Address, path: str) -> URL:
    """Raises Refusal: addresses come from others."""
    try:
        url = URL(f"https://{address}{path}", encoded=True)
        usable = url.host is not None and bool(url.port)  # they parse when they are asked for
    except ValueError as error:
        raise Refusal(Fault.UNREACHABLE, f"not an address: {error}") from error
    if not usable:
        raise Refusal(Fault.UNREACHABLE, "not an address: no host or no port")
    return url


def _head_fields(effect: FetchHead) -> dict[str, str]:
    fields: dict[str, str] = {}
    if effect.etag is not None:
        fields["If-None-Match"] = headers.etag(effect.etag)
    if effect.wait_s > 0.0:
        fields["Prefer"] = headers.prefer(effect.wait_s)
    if effect.update_bytes > 0:
        fields[headers.RIDE] = str(effect.update_bytes)
    return fields


def _declared(response: Response, size_max: int) -> int:
    """The body's declared length. Raises Refusal before a byte of it is read."""
    size = response.content_length
    if size is None:
        raise Refusal(Fault.MALFORMED, "the answer does not declare its length")
    if size > size_max:
        raise Refusal(Fault.OVERSIZED, f"{size} bytes, at most {size_max}")
    return size


def _refusal(response: Response) -> Refusal:
    return refusal_of_status(response.status, response.headers.get("Retry-After"))


def _size(fields: Mapping[str, str]) -> int:
    """Bytes of header fields on the wire; start line and empty line are about 17 more."""
    return sum(len(name) + len(value) + 4 for name, value in fields.items())
