"""A fleet in memory: root, issuer, operator, members, policies, revocations, all from one seed.

Only signing keys are real. A TLS key is 32 random bytes per device that stand for the digest of
its SPKI: the simulator's transport shows it as a mutual TLS handshake would.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from gossipfl.core import Identity
from gossipfl.identity import Signer
from gossipfl.messages import Lineage, Member, Policy, Revocation, Role
from gossipfl.objects import MemberObject, Vouched, digest, fleet_of, pack_member, pack_vouched
from gossipfl.parameters import Layout
from gossipfl.wire import encode, seal

EPOCH = 1_800_000_000.0
"""Fleet time at virtual second 0: any date works, a fixed one keeps traces equal."""
DAY_S = 86_400
MEMBER_DAYS = 30  # protocol: a device's certificate


@dataclass(frozen=True, slots=True)
class Keys:
    """What one member holds: its signer, its member object and its (pretended) TLS key digest."""

    signer: Signer
    member: bytes
    tls_key: bytes

    @property
    def device(self) -> bytes:
        return self.signer.device


@dataclass(frozen=True, slots=True)
class Job:
    """A bundle in name only: `data` stands for the .gfl file, `bundle` for its id."""

    bundle: bytes
    data: bytes
    layout: Layout

    def lineage(self, run: int = 0) -> Lineage:
        return Lineage(self.bundle, run, self.layout.digest)


class Fleet:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"fleet {seed}")
        self.root = Signer(self.random.randbytes(32))
        self.id = fleet_of(self.root.key_id)
        self._issuer = Signer(self.random.randbytes(32))
        self._issuer_envelope = self._member_envelope(
            self._issuer, Role.ISSUER, None, signer=self.root, days=365
        )
        self.issuer_key = self._issuer.key_id
        self.issuer_member = pack_member(MemberObject(self._issuer_envelope, None))
        self.members: set[bytes] = set()  # devices admitted, for checkers
        self.revoked: set[bytes] = set()
        self.blocked: set[bytes] = set()  # by any policy so far
        self.runs = 1  # run numbers that policies have used are below this
        self.operator = self.admit(Role.OPERATOR)

    def _member_envelope(
        self,
        subject: Signer,
        role: Role,
        tls: bytes | None,
        *,
        signer: Signer,
        days: float,
        not_before: float = EPOCH - DAY_S,
        replaces: bytes | None = None,
    ) -> bytes:
        member = Member(
            fleet=self.id,
            device=subject.device,
            key=subject.key_id,
            role=role,
            not_before=int(not_before),
            not_after=int(not_before + (days + 1) * DAY_S),
            issued=int(not_before),
            tls=tls,
            replaces=replaces,
        )
        return seal("member", encode(member), signer)

    def admit(
        self,
        role: Role = Role.DEVICE,
        *,
        days: float = MEMBER_DAYS,
        not_before: float = EPOCH - DAY_S,
        replaces: bytes | None = None,
    ) -> Keys:
        """A new member, admitted by the issuer, valid from `not_before` for `days` + 1."""
        signer = Signer(self.random.randbytes(32))
        tls_key = self.random.randbytes(32)
        envelope = self._member_envelope(
            signer,
            role,
            tls_key if role in (Role.DEVICE, Role.HUB) else None,
            signer=self._issuer,
            days=days,
            not_before=not_before,
            replaces=replaces,
        )
        self.members.add(signer.device)
        return Keys(signer, pack_member(MemberObject(envelope, self._issuer_envelope)), tls_key)

    def renew(self, keys: Keys, not_before: float) -> bytes:
        """A further member object for a device, issued at `not_before`."""
        envelope = self._member_envelope(
            keys.signer,
            Role.DEVICE,
            keys.tls_key,
            signer=self._issuer,
            days=MEMBER_DAYS,
            not_before=not_before,
        )
        return pack_member(MemberObject(envelope, self._issuer_envelope))

    def identity(self, keys: Keys) -> Identity:
        return Identity(signer=keys.signer, member=keys.member, root_key=self.root.key_id)

    def job(self, name: str, layout: Layout) -> Job:
        data = b"a simulated bundle: " + name.encode()
        return Job(digest(b"id of " + data), data, layout)

    def policy(
        self,
        job: Job,
        *,
        n: int,
        attackers: int = 0,
        version: int = 1,
        term: int = 0,
        run: int = 0,
        prev: bytes | None = None,
        signed_by: Keys | None = None,
        issued: float = EPOCH,
        **settings: Any,
    ) -> bytes:
        """A vouched policy object. `settings` are further fields of `messages.Policy`."""
        by = signed_by or self.operator
        self.runs = max(self.runs, run + 1)
        self.blocked.update(settings.get("blocked", ()))
        policy = Policy(
            fleet=self.id,
            term=term,
            version=version,
            run=run,
            bundle=job.bundle,
            bundle_object=digest(job.data),
            bundle_bytes=len(job.data),
            n=n,
            attackers=attackers,
            issued=int(issued),
            prev=prev,
            **settings,
        )
        return pack_vouched(Vouched(seal("policy", encode(policy), by.signer), by.member))

    def revoke(
        self, device: bytes, reason: str, since: float = EPOCH, tls: tuple[bytes, ...] = ()
    ) -> bytes:
        """A vouched revocation, signed by the issuer."""
        self.revoked.add(device)
        revocation = Revocation(self.id, device, reason, int(since), list(tls))
        envelope = seal("revocation", encode(revocation), self._issuer)
        return pack_vouched(Vouched(envelope, self.issuer_member))
