"""The issuer's side of enrolment, without a network: challenges, proofs, admissions.

Challenges are not stored: each carries its expiry and a MAC by a key of this process. Only one that
came back from somebody who knows a token's secret is remembered, so strangers fill no memory.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import threading

from gossipfl.errors import PeerError, UserError
from gossipfl.events import Address
from gossipfl.fleet import pki
from gossipfl.fleet.enrolment import CHALLENGE_BYTES, REQUEST_BYTES_MAX, Answer, Request, Transcript
from gossipfl.fleet.invitation import SECRET_BYTES, TOKEN_BYTES, Invitation, token_name
from gossipfl.fleet.issuing import TLS_ROLES, Issuer
from gossipfl.fleet.tokens import (
    TTL_MAX_S,
    USES_MAX,
    Admission,
    Refusal,
    RefusedError,
    Token,
    Tokens,
)
from gossipfl.identity import device_of, short_name, verify
from gossipfl.messages import Role
from gossipfl.wire import decode, encode

CHALLENGE_S = 60  # guess: a joiner answers at once; a slow link gets a minute
USED_MAX = 4_096  # challenges remembered for their minute: guess, above what throttling lets in

log = logging.getLogger(__name__)


class Desk:
    """One issuer at work. Any thread may call. `now` is whole seconds since the epoch."""

    def __init__(self, issuer: Issuer, tokens: Tokens) -> None:
        self.issuer = issuer
        self.tokens = tokens
        self._key = secrets.token_bytes(32)
        self._used: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def invite(
        self,
        address: Address,
        now: int,
        role: Role = Role.DEVICE,
        uses: int = 1,
        ttl_s: int = 7_200,
        replaces: bytes | None = None,
    ) -> Invitation:
        """A new token; see `invite`. With `replaces` it is good for one joiner only."""
        token = new_token(now, role, uses, ttl_s, replaces)
        self.tokens.add(token)
        return Invitation(self.issuer.fleet, token.id, token.secret, address)

    def challenge(self, now: int) -> bytes:
        head = (now + CHALLENGE_S).to_bytes(8, "big") + secrets.token_bytes(16)
        return head + self._challenge_mac(head)

    def admit(self, data: bytes, server: bytes, now: int) -> bytes:
        """The Answer to a Request that came over TLS with the certificate of digest `server`.

        Raises RefusedError. Nothing is told to whoever does not know a token's secret.
        """
        try:
            request = decode(data, Request, REQUEST_BYTES_MAX)
        except PeerError as error:
            raise RefusedError(Refusal.MALFORMED) from error
        self._require_fresh(request.challenge, now)
        transcript = Transcript(
            self.issuer.fleet,
            server,
            request.challenge,
            request.nonce,
            request.token,
            request.key,
            request.old_key,
        )
        token = self._token(request, transcript)
        self._use_up(request.challenge, now)
        replaces = _replaced(request, transcript, token)
        if replaces is not None:
            # An old copy of a disk has an old key: what its successors spent and did counts too.
            replaces = self.tokens.heir(replaces, request.key)
        tls_key = _proven_keys(request, transcript)
        try:
            pki.check_dates(self.issuer.certificate, now)
        except pki.DateError as error:
            raise RefusedError(Refusal.ISSUER) from error
        device = device_of(request.key)
        admission = self.tokens.burn(
            Admission(request.key, tls_key, device, token.role, token.id, now, replaces), now
        )
        log.info("admitted %s by token %s", short_name(device), token_name(token.id))
        return self._answer(admission, token, transcript, request.csr, now)

    def _answer(
        self, admission: Admission, token: Token, transcript: Transcript, csr: bytes, now: int
    ) -> bytes:
        grant = self.issuer.grant(
            admission.key, admission.tls, admission.role, now, admission.replaces
        )
        answer = Answer(
            leaf=pki.der(grant.leaf),
            issuer=pki.der(self.issuer.certificate),
            member=grant.member,
            discovery_key=self.issuer.discovery_key,
            mac=bytes(32),
        )
        mac = transcript.issuer_mac(token.secret, csr, answer)
        return encode(Answer(answer.leaf, answer.issuer, answer.member, answer.discovery_key, mac))

    def _require_fresh(self, challenge: bytes, now: int) -> None:
        head, mac = challenge[: CHALLENGE_BYTES - 16], challenge[CHALLENGE_BYTES - 16 :]
        if not hmac.compare_digest(mac, self._challenge_mac(head)):
            raise RefusedError(Refusal.CHALLENGE)
        if not 0 <= int.from_bytes(head[:8], "big") - now <= CHALLENGE_S:
            raise RefusedError(Refusal.CHALLENGE)

    def _token(self, request: Request, transcript: Transcript) -> Token:
        """The token whose secret the joiner has. An unknown id costs the same work as a known."""
        token = self.tokens.find(request.token)
        secret = token.secret if token else bytes(SECRET_BYTES)
        expected = transcript.joiner_mac(secret, request.csr)
        if not hmac.compare_digest(expected, request.mac) or token is None:
            raise RefusedError(Refusal.UNKNOWN)
        return token

    def _use_up(self, challenge: bytes, now: int) -> None:
        with self._lock:
            self._used = {c: end for c, end in self._used.items() if end >= now}
            if challenge in self._used:
                raise RefusedError(Refusal.REPLAYED)
            if len(self._used) >= USED_MAX:
                raise RefusedError(Refusal.BUSY)
            self._used[challenge] = int.from_bytes(challenge[:8], "big")

    def _challenge_mac(self, head: bytes) -> bytes:
        return hmac.digest(self._key, head, hashlib.sha256)[:16]


def new_token(now: int, role: Role, uses: int, ttl_s: int, replaces: bytes | None) -> Token:
    """Raises UserError GF100 if it would be good for too much."""
    if role not in TLS_ROLES:
        raise UserError("GF100", f"only {' and '.join(TLS_ROLES)} can be invited")
    if not 1 <= uses <= USES_MAX or not 1 <= ttl_s <= TTL_MAX_S:
        raise UserError(
            "GF100", f"an invitation has 1 to {USES_MAX} uses and lives at most 30 days"
        )
    if replaces is not None and uses != 1:
        raise UserError("GF100", "an invitation that replaces a device is good for one use")
    token, secret = secrets.token_bytes(TOKEN_BYTES), secrets.token_bytes(SECRET_BYTES)
    return Token(token, secret, role, uses, uses, now + ttl_s, replaces)


def _replaced(request: Request, transcript: Transcript, token: Token) -> bytes | None:
    """The device that this one replaces: the token says so, or the old key itself does.

    Without either, anybody with a token could inherit another device's place.
    """
    if request.old_key is None:
        return token.replaces
    signature = request.old_signature or b""
    if not verify(request.old_key, transcript.message(request.csr), signature):
        raise RefusedError(Refusal.PROOF)
    device = device_of(request.old_key)
    if token.replaces not in (None, device) or request.old_key == request.key:
        raise RefusedError(Refusal.PROOF)
    return device


def _proven_keys(request: Request, transcript: Transcript) -> bytes:
    """The raw TLS key, once both keys have shown that the joiner holds them."""
    if not verify(request.key, transcript.message(request.csr), request.signature):
        raise RefusedError(Refusal.PROOF)
    try:
        return pki.open_request(request.csr, transcript.csr_challenge())
    except pki.CertificateError as error:
        raise RefusedError(Refusal.PROOF) from error
