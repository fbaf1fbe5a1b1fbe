"""What an issuer signs: TLS leaves and the member objects that bind keys to roles."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509

from gossipfl.config import Limits
from gossipfl.errors import UserError
from gossipfl.fleet import pki
from gossipfl.identity import Signer, device_of
from gossipfl.messages import Member, Role
from gossipfl.objects import MemberObject, pack_member, spki_digest, unpack_member
from gossipfl.wire import encode, seal

OPERATOR_S = pki.ISSUER_S  # guess: as long as the issuer that vouches for it
TLS_ROLES = (Role.DEVICE, Role.HUB)  # who gets a certificate, hence may be invited


@dataclass(frozen=True, slots=True)
class Grant:
    """What a new member gets."""

    leaf: x509.Certificate
    member: bytes


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer's keys in memory. `member` and `member_object` are its own, signed by the root."""

    seed: bytes = field(repr=False)
    certificate: x509.Certificate
    root: x509.Certificate
    member: Member
    member_object: bytes
    discovery_key: bytes = field(repr=False)

    @property
    def fleet(self) -> bytes:
        return self.member.fleet

    @property
    def root_key(self) -> bytes:
        return pki.raw_key(self.root)

    def require_valid(self, now: int) -> None:
        """Raises UserError GF210 if its certificate is not valid at `now` (or the clock lies)."""
        try:
            pki.check_dates(self.certificate, now)
        except pki.DateError as error:
            hint = "set the clock, or make a new issuer with `gossipfl fleet issue-issuer`"
            raise UserError("GF210", f"the issuer: {error}", hint) from error

    def grant(
        self, key: bytes, tls_key: bytes, role: Role, now: int, replaces: bytes | None = None
    ) -> Grant:
        """A leaf for the raw TLS key and a member object for the signing `key`, equally long."""
        if role not in TLS_ROLES:
            raise ValueError(f"no certificate for the role {role.value}")
        leaf = pki.leaf_certificate(
            self.seed, self.certificate, tls_key, now, now + pki.LEAF_S, pki.device_purpose()
        )
        member = Member(
            fleet=self.fleet,
            device=device_of(key),
            key=key,
            role=role,
            not_before=pki.not_before(leaf),
            not_after=pki.not_after(leaf),
            issued=now,
            tls=spki_digest(tls_key),
            replaces=replaces,
        )
        return Grant(leaf, self._signed(member))

    def operator(self, key: bytes, now: int) -> bytes:
        """The member object of an operator: a person's key, without TLS."""
        member = Member(
            fleet=self.fleet,
            device=device_of(key),
            key=key,
            role=Role.OPERATOR,
            not_before=max(now - pki.BACKDATE_S, self.member.not_before),
            not_after=min(now + OPERATOR_S, self.member.not_after),
            issued=now,
        )
        return self._signed(member)

    def service_certificate(self, tls_key: bytes, now: int) -> x509.Certificate:
        """The enrolment service's own leaf: server only, with a name that no device gets."""
        end = pki.not_after(self.certificate)
        return pki.leaf_certificate(
            self.seed, self.certificate, tls_key, now, end, pki.ENROL_PURPOSE
        )

    def _signed(self, member: Member) -> bytes:
        envelope = seal("member", encode(member), Signer(self.seed))
        own = unpack_member(self.member_object, Limits()).envelope
        return pack_member(MemberObject(envelope, own))
