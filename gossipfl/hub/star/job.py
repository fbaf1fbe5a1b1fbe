"""What star mode trains: the policy in force, the bundle that it names, and their lineage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gossipfl.aggregation import RuleError, rule
from gossipfl.bundle.archive import Bundle, read
from gossipfl.bundle.refused import BundleRefused
from gossipfl.codecs import CodecError, parse, update_bytes
from gossipfl.codecs.update import header
from gossipfl.config import Limits
from gossipfl.errors import Fault, PeerError
from gossipfl.hub.database import Transaction
from gossipfl.membership import Roster
from gossipfl.messages import Lineage, Policy
from gossipfl.objects import digest
from gossipfl.parameters import Layout, Vector
from gossipfl.policies import Accepted, Policies

NOBODY = bytes(16)
"""The hub is no canary of any policy."""
JOBS_MAX = 2  # of bundles kept open: the one in force, and the one of a round that still runs


@dataclass(frozen=True)
class Job:
    """A policy and its bundle. `layout` and `initial` are the bundle's."""

    accepted: Accepted
    bundle: Bundle

    @cached_property
    def layout(self) -> Layout:
        return self.bundle.layout

    @cached_property
    def initial(self) -> Vector:
        return self.bundle.initial

    @cached_property
    def lineage(self) -> Lineage:
        policy = self.accepted.policy
        return Lineage(policy.bundle, policy.run, self.layout.digest)

    @property
    def codec(self) -> str:
        return self.accepted.policy.codec

    @cached_property
    def header(self) -> bytes:
        """What an update object of this lineage and codec begins with."""
        return header(self.lineage, self.codec, self.layout.count)

    @cached_property
    def update_bytes(self) -> int:
        """The one length that an update can have; with zlib the greatest."""
        return update_bytes(self.lineage, self.codec, self.layout.count)


class Shelf:
    """Policies and bundles of one hub: verified as a node verifies them, kept in the database."""

    def __init__(self, root_key: bytes, limits: Limits) -> None:
        self._limits = limits
        self.roster = Roster(root_key, limits)
        self.fleet = self.roster.fleet
        self._policies = self._fresh()
        self._known: frozenset[str] = frozenset()
        self._jobs: dict[bytes, Job] = {}

    def _fresh(self) -> Policies:
        return Policies(
            self.fleet,
            self._limits,
            self.roster.verify_chain,
            lambda device: self.roster.revocation(device) is not None,
        )

    # --- policies --------------------------------------------------------------------------

    async def load(self, tx: Transaction) -> None:
        """What other instances have taken in since."""
        rows = await tx.rows("SELECT digest FROM star_policies ORDER BY received LIMIT 1000")
        names = frozenset(row["digest"] for row in rows)
        if names == self._known:
            return
        fresh = self._fresh()
        rows = await tx.rows("SELECT data FROM star_policies ORDER BY received LIMIT 1000")
        for row in rows:
            try:
                fresh.add(fresh.verify(bytes(row["data"])))
            except PeerError:
                continue  # its operator was revoked since
        self._policies, self._known = fresh, names

    def in_force(self, now: int) -> Accepted | None:
        """The newest policy that has begun and is meant for all."""
        return self._policies.in_force(NOBODY, now)

    def history(self) -> list[Accepted]:
        """All policies held, the strongest first."""
        names = [bytes.fromhex(name) for name in self._known]
        found = [self._policies.object(name) for name in names]
        opened = [self._policies.verify(data) for data in found if data is not None]
        return sorted(opened, key=lambda accepted: accepted.rank, reverse=True)

    def verify(self, data: bytes) -> Accepted:
        """A policy that could be taken in. Raises PeerError."""
        accepted = self._policies.verify(data)
        if self._policies.missing(accepted) is not None:
            raise PeerError(Fault.WITHHELD_CHAIN, "the policy before it is not known here")
        _require_possible(accepted.policy)
        return accepted

    async def add(self, tx: Transaction, accepted: Accepted, by: str, now: int) -> bool:
        """Take a policy in; False if it is there already. Raises PeerError."""
        self._policies.add(accepted)
        added = await tx.execute(
            "INSERT INTO star_policies (digest, data, received, given_by) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (digest) DO NOTHING",
            accepted.digest.hex(),
            accepted.data,
            now,
            by,
        )
        return bool(added)

    # --- bundles ---------------------------------------------------------------------------

    @staticmethod
    def read(data: bytes) -> Bundle:
        """The bundle of a .gfl file. Raises BundleRefused."""
        return read(data)

    async def add_bundle(
        self, tx: Transaction, bundle: Bundle, data: bytes, by: str, now: int
    ) -> None:
        """`data`: the file that `bundle` was read from."""
        await tx.execute(
            "INSERT INTO star_bundles (bundle, digest, data, received, given_by)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (bundle) DO NOTHING",
            bundle.id.hex(),
            digest(data).hex(),
            data,
            now,
            by,
        )

    async def job(self, tx: Transaction, accepted: Accepted) -> Job | None:
        """The policy with its bundle, or None if that is not here."""
        found = self._jobs.get(accepted.digest)
        if found is not None:
            return found
        row = await tx.row(
            "SELECT data FROM star_bundles WHERE bundle = ?", accepted.policy.bundle.hex()
        )
        if row is None:
            return None
        try:
            bundle = read(bytes(row["data"]))
        except BundleRefused:
            return None
        while len(self._jobs) >= JOBS_MAX:
            del self._jobs[next(iter(self._jobs))]
        self._jobs[accepted.digest] = Job(accepted, bundle)
        return self._jobs[accepted.digest]

    async def job_of(self, tx: Transaction, policy: bytes) -> Job | None:
        """The job of a round, by its policy's digest."""
        found = self._jobs.get(policy)
        if found is not None:
            return found
        data = self._policies.object(policy)
        if data is None:
            await self.load(tx)
            data = self._policies.object(policy)
        return None if data is None else await self.job(tx, self._policies.verify(data))


def _require_possible(policy: Policy) -> None:
    """Raises PeerError for what star mode cannot do, so that no round ever finds out."""
    try:
        rule(policy.rule)
        codec = parse(policy.codec)
    except (RuleError, CodecError) as error:
        raise PeerError(Fault.MALFORMED, str(error)) from None
    if codec.parts > 1:
        raise PeerError(Fault.MALFORMED, "star mode takes whole updates, no codec in parts")
    if policy.privacy.mode not in ("off", "local"):
        raise PeerError(Fault.MALFORMED, f"star mode knows no privacy {policy.privacy.mode!r}")
