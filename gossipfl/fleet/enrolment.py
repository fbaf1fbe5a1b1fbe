"""The messages of enrolment and what their proofs cover; shared by issuer and joiner.

    joiner                                            issuer's service (HTTPS, TLS 1.3)
    GET /v1/root             (server not verified)    the root certificate; SHA-256 of its SPKI
                                                      must be the pin of the invitation
    GET /v1/challenge        (verified by that root)  a nonce, good once and for a minute
    POST /v1/join Request    (the same)               Answer, or 4xx with one word

Both MACs are HMAC-SHA256 with the invitation's secret, which is never sent. They cover the
transcript: fleet, SHA-256 of the server certificate that this TLS connection showed, both nonces,
token, signing key, signing request. RFC 9266 would bind to the TLS exporter; Python's ssl has none,
so the certificate's digest stands in for it, which keeps a man in the middle with another
certificate out all the same. The issuer's MAC covers its answer too, because the discovery key in
it is signed by nobody.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from gossipfl.config import Limits
from gossipfl.fleet.invitation import TOKEN_BYTES
from gossipfl.fleet.pki import CERTIFICATE_BYTES_MAX, CSR_BYTES_MAX
from gossipfl.messages import Digest, Key
from gossipfl.wire import pack

NONCE_BYTES = 32
CHALLENGE_BYTES = 40  # 8 of expiry, 16 of chance, 16 of MAC
REQUEST_BYTES_MAX = 4_096  # a signing request and 400 bytes
ANSWER_BYTES_MAX = 16_384  # two certificates and a member object

Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Certificate = Annotated[bytes, Meta(max_length=CERTIFICATE_BYTES_MAX)]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a joiner sends. Its role is the token's; it does not ask for one."""

    token: Annotated[bytes, Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]
    challenge: Annotated[bytes, Meta(min_length=CHALLENGE_BYTES, max_length=CHALLENGE_BYTES)]
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    key: Key
    csr: Annotated[bytes, Meta(max_length=CSR_BYTES_MAX)]
    signature: Signature  # by `key`, over the transcript
    mac: Digest
    old_key: Key | None = None  # the signing key that this one replaces, and its signature
    old_signature: Signature | None = None


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    leaf: Certificate
    issuer: Certificate
    member: Annotated[bytes, Meta(max_length=Limits().member_bytes)]
    discovery_key: Key
    mac: Digest


@dataclass(frozen=True, slots=True)
class Transcript:
    """All that both sides saw before the joiner proves anything."""

    fleet: bytes
    server: bytes  # SHA-256 of the server certificate (DER)
    challenge: bytes
    nonce: bytes
    token: bytes
    key: bytes
    old_key: bytes | None

    def csr_challenge(self) -> bytes:
        """What the signing request is made for (it cannot cover itself)."""
        return self._hash("gossipfl csr 1", b"")

    def message(self, csr: bytes) -> bytes:
        """What the signing keys sign and the joiner's MAC covers."""
        return b"gossipfl join 1 " + self._hash("gossipfl join 1", csr)

    def joiner_mac(self, secret: bytes, csr: bytes) -> bytes:
        return hmac.digest(secret, b"joiner" + self.message(csr), hashlib.sha256)

    def issuer_mac(self, secret: bytes, csr: bytes, answer: Answer) -> bytes:
        """Over the transcript and the answer but for its MAC."""
        parts = [answer.leaf, answer.issuer, answer.member, answer.discovery_key]
        return hmac.digest(secret, b"issuer" + self.message(csr) + pack(parts), hashlib.sha256)

    def _hash(self, label: str, csr: bytes) -> bytes:
        fields = (self.fleet, self.server, self.challenge, self.nonce, self.token, self.key)
        return hashlib.sha256(pack([label, *fields, self.old_key, csr])).digest()
