"""The joiner's side of enrolment, without a network. Nothing is believed that is not checked here.

Trust begins with the pin of the invitation: the root certificate must have that key, the issuer's
must be signed by it, the leaf and the member object by the issuer, for exactly our keys.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field

from cryptography import x509

from gossipfl.config import Limits
from gossipfl.errors import PeerError, UserError
from gossipfl.fleet import pki
from gossipfl.fleet.enrolment import ANSWER_BYTES_MAX, NONCE_BYTES, Answer, Request, Transcript
from gossipfl.fleet.files import SEED_BYTES
from gossipfl.fleet.invitation import Invitation
from gossipfl.fleet.issuing import TLS_ROLES
from gossipfl.fleet.tokens import Refusal
from gossipfl.identity import Signer
from gossipfl.membership import Roster
from gossipfl.messages import Member
from gossipfl.objects import spki_digest, unpack_member
from gossipfl.wire import decode, encode, open_envelope

# code, what the person reads. The hints are in the registry.
REFUSED_IN_WORDS: dict[Refusal, tuple[str, str]] = {
    Refusal.MALFORMED: ("GF213", "the issuer did not understand this version's request"),
    Refusal.CHALLENGE: ("GF214", "the issuer's challenge had run out when it was answered"),
    Refusal.UNKNOWN: ("GF206", "the issuer knows no invitation with this token and secret"),
    Refusal.REPLAYED: ("GF213", "the issuer has seen this very request before"),
    Refusal.PROOF: ("GF213", "the issuer did not accept the proof of this device's keys"),
    Refusal.EXPIRED: ("GF207", "by the issuer's clock this invitation has expired"),
    Refusal.USED_UP: ("GF208", "as many devices have joined with this invitation as it allows"),
    Refusal.KNOWN_KEY: ("GF213", "one of this device's keys has been enrolled before"),
    Refusal.ISSUER: ("GF210", "by the issuer's clock its own certificate is not valid now"),
    Refusal.BUSY: ("GF214", "the issuer asks to wait"),
}


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A verified identity, ready to be written."""

    seed: bytes = field(repr=False)
    tls_seed: bytes = field(repr=False)
    discovery_key: bytes = field(repr=False)
    root: x509.Certificate
    issuer: x509.Certificate
    leaf: x509.Certificate
    member: Member
    member_object: bytes


class Joiner:
    """One enrolment attempt with keys of its own. `old` is the key of the device it replaces."""

    def __init__(self, invitation: Invitation, root: x509.Certificate, old: Signer | None) -> None:
        """Raises UserError GF205 unless `root` has the pinned key."""
        try:
            pki.check_root(root, invitation.pin)
        except pki.CertificateError as error:
            raise UserError("GF205", str(error)) from error
        self._invitation = invitation
        self.root = root
        self._old = old
        self._seed = secrets.token_bytes(SEED_BYTES)
        self._tls_seed = secrets.token_bytes(SEED_BYTES)
        self._signer = Signer(self._seed)
        self._transcript: Transcript | None = None
        self._csr = b""

    def request(self, challenge: bytes, server: bytes) -> bytes:
        """The Request; `server` is SHA-256 of the certificate that the server showed (DER)."""
        transcript = Transcript(
            fleet=self._invitation.pin,
            server=server,
            challenge=challenge,
            nonce=secrets.token_bytes(NONCE_BYTES),
            token=self._invitation.token,
            key=self._signer.key_id,
            old_key=self._old.key_id if self._old else None,
        )
        csr = pki.signing_request(self._tls_seed, transcript.csr_challenge())
        message = transcript.message(csr)
        self._transcript, self._csr = transcript, csr
        return encode(
            Request(
                token=transcript.token,
                challenge=challenge,
                nonce=transcript.nonce,
                key=transcript.key,
                csr=csr,
                signature=self._signer.sign(message),
                mac=transcript.joiner_mac(self._invitation.secret, csr),
                old_key=transcript.old_key,
                old_signature=self._old.sign(message) if self._old else None,
            )
        )

    def accept(self, data: bytes, now: int) -> Enrolment:
        """The Answer as an identity. Raises UserError if anything about it does not hold."""
        if self._transcript is None:
            raise ValueError("an answer without a request")
        try:
            answer = decode(data, Answer, ANSWER_BYTES_MAX)
            expected = self._transcript.issuer_mac(self._invitation.secret, self._csr, answer)
            if not hmac.compare_digest(expected, answer.mac):
                raise UserError("GF205", "the answer's sender does not know the invitation")
            issuer, leaf = self._certificates(answer, now)
            member = self._member(answer, issuer, now)
        except (PeerError, pki.CertificateError) as error:
            raise UserError("GF213", f"the issuer's answer: {error}") from error
        return Enrolment(
            seed=self._seed,
            tls_seed=self._tls_seed,
            discovery_key=answer.discovery_key,
            root=self.root,
            issuer=issuer,
            leaf=leaf,
            member=member,
            member_object=answer.member,
        )

    def _certificates(self, answer: Answer, now: int) -> tuple[x509.Certificate, x509.Certificate]:
        issuer, leaf = pki.load(answer.issuer), pki.load(answer.leaf)
        pki.check_issuer(issuer, self.root)
        pki.check_leaf(leaf, issuer, pki.device_purpose())
        if pki.raw_key(leaf) != pki.public_bytes(self._tls_seed):
            raise pki.CertificateError("the certificate is for another TLS key")
        for certificate in (issuer, leaf):
            require_date(certificate, now)
        return issuer, leaf

    def _member(self, answer: Answer, issuer: x509.Certificate, now: int) -> Member:
        member = Roster(pki.raw_key(self.root), Limits()).verify_chain(answer.member)
        tls = spki_digest(pki.public_bytes(self._tls_seed))
        if (member.key, member.tls) != (self._signer.key_id, tls):
            raise pki.CertificateError("the member object is for other keys")
        if member.role not in TLS_ROLES:
            raise pki.CertificateError(f"nobody joins as {member.role.value}")
        signer = open_envelope(
            unpack_member(answer.member, Limits()).envelope, "member", Limits().member_bytes
        )
        if signer.key_id != pki.raw_key(issuer):
            raise pki.CertificateError("certificate and member object are of two issuers")
        if not member.not_before <= now <= member.not_after:
            raise pki.CertificateError("the member object is not valid now")
        if self._old is not None and member.replaces is None:  # it may name the old one's heir
            raise pki.CertificateError("the member object does not replace the old device")
        return member


def require_date(certificate: x509.Certificate, now: int) -> None:
    """Raises UserError GF210 if the certificate is not valid by this machine's clock."""
    try:
        pki.check_dates(certificate, now)
    except pki.DateError as error:
        raise UserError("GF210", str(error)) from error


def refused(word: str) -> UserError:
    """The error for a refusal as it came over the wire. Nothing of the sender's is quoted."""
    try:
        code, cause = REFUSED_IN_WORDS[Refusal(word)]
    except ValueError:
        return UserError("GF213", "the issuer refused, in a word that this version does not know")
    return UserError(code, cause)
