"""What went wrong with a request, as a typed fault and in words."""

from __future__ import annotations

import ssl

import aiohttp

from gossipfl.errors import Fault


class Refusal(Exception):
    """A transfer ends with a fault; `absent` if the peer says that it does not have it."""

    def __init__(self, fault: Fault, detail: str, absent: bool = False) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail
        self.absent = absent


def refusal_of_status(status: int, retry_after: str | None) -> Refusal:
    """For an answer that is neither the thing asked for nor "not modified"."""
    again = f", it says to retry after {retry_after[:20]} s" if retry_after else ""
    match status:
        case 404:
            return Refusal(Fault.REFUSED, "the peer does not have it", absent=True)
        case 429:
            return Refusal(Fault.REFUSED, f"we asked too often{again}")
        case 503:
            return Refusal(Fault.REFUSED, f"the peer is busy{again}")
        case 200 | 206 | 304 | 416:
            return Refusal(Fault.MALFORMED, f"status {status} answers nothing that was asked")
        case _:
            return Refusal(Fault.REFUSED, f"the peer answered with status {status}")


def refusal_of(error: Exception) -> Refusal:
    """A transport's error as what it means here. An error that no peer can cause is raised on."""
    match error:
        case Refusal():
            return error
        case aiohttp.ConnectionTimeoutError():
            return Refusal(Fault.UNREACHABLE, "no connection in time")
        case aiohttp.ServerTimeoutError():
            return Refusal(Fault.STALLED, "the peer fell silent")
        case TimeoutError():
            return Refusal(Fault.STALLED, "the transfer took longer than its size allows")
        case aiohttp.ClientConnectorCertificateError():
            return Refusal(
                Fault.REFUSED, f"its certificate is not of this fleet: {error.certificate_error}"
            )
        case aiohttp.ClientConnectorSSLError():
            return Refusal(Fault.REFUSED, f"no TLS connection: {error.os_error}")
        case aiohttp.ClientConnectorError():
            text = error.os_error.strerror or str(error.os_error)
            return Refusal(Fault.UNREACHABLE, text)
        case aiohttp.ServerDisconnectedError():
            # TLS 1.3: our handshake ends before the server has looked at our certificate.
            return Refusal(
                Fault.REFUSED,
                "the peer closed the connection without an answer: it refuses our certificate, "
                "has cut us off, or is shutting down",
            )
        case aiohttp.ClientPayloadError():
            return Refusal(Fault.TRUNCATED, "the answer ended too early")
        case aiohttp.ClientOSError() if isinstance(error.__cause__, ssl.SSLError):
            return Refusal(Fault.REFUSED, f"the peer ended TLS: {error.__cause__.reason}")
        case aiohttp.ClientOSError():
            return Refusal(Fault.UNREACHABLE, f"connection lost: {error.strerror or error}")
        case aiohttp.InvalidURL() | UnicodeError():  # idna refuses labels that are empty or long
            return Refusal(Fault.UNREACHABLE, "not an address")
        case aiohttp.ClientResponseError():
            return Refusal(Fault.MALFORMED, f"not HTTP: {error.message.partition(chr(10))[0][:80]}")
        case aiohttp.ClientConnectionError():
            return Refusal(Fault.UNREACHABLE, str(error)[:100])
    raise error
