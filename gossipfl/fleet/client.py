"""`gossipfl join LINE`: the joiner's side over the network.

Two TLS connections. The first verifies nothing and fetches one public thing, the root certificate,
which is then held against the pin. The second trusts that root alone (strict chain, the issuer's
name) and carries the rest. Dates are checked in our own code: the error can then speak of clocks.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
from cryptography import x509

from gossipfl.errors import UserError
from gossipfl.events import Address
from gossipfl.fleet import files, invitation, pki
from gossipfl.fleet.device import DeviceFolder
from gossipfl.fleet.enrolment import ANSWER_BYTES_MAX, CHALLENGE_BYTES
from gossipfl.fleet.invitation import Invitation
from gossipfl.fleet.joining import Enrolment, Joiner, refused, require_date
from gossipfl.fleet.stored import FLEET_FILE, read_fleet_file
from gossipfl.fleet.tokens import Refusal
from gossipfl.identity import Signer
from gossipfl.net.tls import NO_CHECK_TIME
from gossipfl.objects import fleet_of

TOTAL_S = 15.0  # one request with its handshake: as Limits.transfer_base_s
ATTEMPTS = 2  # the second after a lost answer, or a challenge that ran out
_WORD_BYTES_MAX = 64  # of a refusal


class _Again(Exception):
    """This attempt came to nothing, the next one may not. `error` is for the person if none is."""

    def __init__(self, error: UserError) -> None:
        super().__init__(error.cause)
        self.error = error


@dataclass(slots=True)
class _Link:
    """A session with one TLS context, and the server certificate (DER) of its handshake."""

    session: aiohttp.ClientSession
    context: ssl.SSLContext
    address: Address
    certificate: bytes = b""


def join(
    line: str,
    state: Path,
    replacing: bool = False,
    address: Address | None = None,
    now: int | None = None,
) -> DeviceFolder:
    """Enrol this device with an invitation; its identity is then in `state`.

    `address` overrides the invitation's host hint; `now` the clock (seconds since the epoch).
    Raises UserError (GF2xx). The identity in `state` changes only when all was verified.
    """
    invited = invitation.parse(line)
    if address is not None:
        invited = replace(invited, address=address)
    at = int(time.time()) if now is None else now
    folder = DeviceFolder(files.make_folder(state))
    with files.locked(state):
        if folder.joined and not replacing:
            raise UserError("GF202", f"{state} has an identity")
        old = _old_signer(folder, invited.pin) if folder.joined else None
        folder.write(asyncio.run(enrol(invited, old, at)))
    return folder


async def enrol(invited: Invitation, old: Signer | None, now: int) -> Enrolment:
    """A verified identity from the issuer that `invited` names. Writes nothing."""
    joiner: Joiner | None = None
    for attempt in range(ATTEMPTS):
        try:
            if joiner is None:
                joiner = Joiner(invited, await _fetch_root(invited), old)
            return await _attempt(joiner, invited.address, now)
        except _Again as again:
            if attempt == ATTEMPTS - 1:
                raise again.error from again
    raise ValueError("at least one attempt")


def _old_signer(folder: DeviceFolder, pin: bytes) -> Signer | None:
    """The old key proves what is replaced, within one fleet."""
    folder.finish()
    if not (folder.path / FLEET_FILE).exists():
        return None
    same_fleet = fleet_of(bytes.fromhex(read_fleet_file(folder.path).root_key)) == pin
    return folder.old_signer() if same_fleet else None


async def _fetch_root(invited: Invitation) -> x509.Certificate:
    """The root certificate, whoever serves it; `Joiner` holds it against the pin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with _linked(context, invited.address) as link:
        data = await _ask(link, "GET", "/v1/root", pki.CERTIFICATE_BYTES_MAX)
    try:
        root = pki.load(data)
        pki.check_root(root, invited.pin)
    except pki.CertificateError as error:
        raise UserError("GF205", f"{invited.address}: {error}") from error
    return root


async def _attempt(joiner: Joiner, address: Address, now: int) -> Enrolment:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VerifyFlags(NO_CHECK_TIME)
    context.load_verify_locations(cadata=pki.der(joiner.root))
    async with _linked(context, address) as link:
        challenge = await _ask(link, "GET", "/v1/challenge", CHALLENGE_BYTES)
        certificate = link.certificate
        require_date(pki.load(certificate), now)
        if len(challenge) != CHALLENGE_BYTES:
            raise UserError("GF213", f"{address}: its challenge has {len(challenge)} bytes")
        request = joiner.request(challenge, hashlib.sha256(certificate).digest())
        answer = await _ask(link, "POST", "/v1/join", ANSWER_BYTES_MAX, request)
        return joiner.accept(answer, now)


@asynccontextmanager
async def _linked(context: ssl.SSLContext, address: Address) -> AsyncIterator[_Link]:
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=TOTAL_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as session:
        link = _Link(session, context, address)

        class Recording(ssl.SSLObject):
            # aiohttp may have let go of the connection before we can ask it for the certificate.
            def do_handshake(self) -> None:
                super().do_handshake()
                link.certificate = self.getpeercert(binary_form=True) or b""

        context.sslobject_class = Recording
        yield link


async def _ask(
    link: _Link, method: str, path: str, bytes_max: int, body: bytes | None = None
) -> bytes:
    """The body of a 200, at most `bytes_max`. Raises UserError, or _Again where that may help."""
    where = f"{link.address}"
    try:
        async with link.session.request(
            method,
            f"https://{where}{path}",
            data=body,
            ssl=link.context,
            server_hostname=pki.ENROL_NAME,
            allow_redirects=False,
        ) as response:
            limit = bytes_max if response.status == 200 else _WORD_BYTES_MAX
            data = await _read(response, limit)
            status = response.status
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
        cause = f"{where}: what answers there is not an issuer of the invitation's fleet"
        raise UserError("GF205", cause) from error
    except TimeoutError as error:
        raise _Again(UserError("GF209", f"{where}: no answer in {TOTAL_S:.0f} s")) from error
    except (aiohttp.InvalidURL, UnicodeError) as error:  # idna knows more that is no host name
        raise UserError("GF209", f"{where} is no host name") from error
    except (aiohttp.ClientError, OSError) as error:
        detail = getattr(error, "strerror", None) or type(error).__name__
        raise _Again(UserError("GF209", f"{where}: {detail}")) from error
    if status == 200:
        return data
    word = data.decode("ascii", "replace")
    if word == Refusal.CHALLENGE:
        raise _Again(refused(word))
    raise refused(word)


async def _read(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_chunked(4_096):
        data += chunk
        if len(data) > bytes_max:
            raise UserError("GF213", f"an answer of more than {bytes_max} bytes")
    return bytes(data)
