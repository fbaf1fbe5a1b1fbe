"""What the operator wants: adopts policies, fetches and loads the bundle, opens new lineages."""

from __future__ import annotations

from gossipfl.codecs import problem
from gossipfl.core import Core, Job
from gossipfl.errors import Fault, PeerError, SignerError
from gossipfl.events import JobFailed, JobReady, LoadJob, Topic
from gossipfl.identity import short_name
from gossipfl.messages import Lineage, Role
from gossipfl.objects import digest
from gossipfl.parameters import from_bytes, to_bytes
from gossipfl.policies import Accepted
from gossipfl.pulls import Pending, Purpose
from gossipfl.trial import Serving
from gossipfl.wire import encode

WAITING_MAX = 16  # as many as a peer keeps


class Steering:
    def __init__(self, core: Core) -> None:
        self._core = core
        self.bundle: bytes | None = None
        self._given: dict[bytes, bytes] = {}  # bundle files by digest
        self._waiting: dict[bytes, bytes] = {}  # missing policy digest -> policy that needs it
        self._saved_base: tuple[bytes, int, int, bytes] | None = None
        self._asked_at = -1e9

    # --- policies --------------------------------------------------------------------------

    def receive(self, data: bytes) -> bytes | None:
        """A policy object. Returns a digest that must be fetched first, if any. PeerError."""
        core = self._core
        name = digest(data)
        if core.policies.knows(name):
            return None
        accepted = core.policies.verify(data)
        if accepted.policy.bundle_bytes > core.limits.bundle_bytes:
            raise SignerError(Fault.OVERSIZED, "the policy's bundle is above this device's limit")
        missing = core.policies.missing(accepted)
        if missing is not None:
            if len(self._waiting) < WAITING_MAX:
                self._waiting[missing] = data
            return missing
        self._add(accepted)
        later = self._waiting.pop(name, None)
        if later is not None:
            return self._receive_waiting(later)
        prev = accepted.policy.prev
        # Who joins while canaries try something needs what everybody else follows.
        if prev is None or core.policies.knows(prev) or core.policies.for_all(core.time()):
            return None
        return prev

    def _receive_waiting(self, data: bytes) -> bytes | None:
        """A policy that came before this one. Its fault is not that of who brought this one."""
        core = self._core
        try:
            return self.receive(data)
        except PeerError as error:
            core.parcels.refuse(Purpose.POLICY, digest(data))
            core.notice(Topic.REFUSED, f"a policy that waited is refused: {error}", warning=True)
            return None

    def _add(self, accepted: Accepted) -> None:
        core = self._core
        core.policies.add(accepted)
        self._offer()
        core.publisher.store(accepted.data)
        core.publisher.touch("policies")
        core.publisher.want_head()
        policy = accepted.policy
        core.notice(
            Topic.POLICY,
            f"policy {policy.term}.{policy.version} by {short_name(accepted.signer)}: "
            f"rule {policy.rule}, {policy.n} devices, {policy.attackers} assumed attackers",
        )
        self.apply()

    def apply(self) -> None:
        """Make the policy in force the one we follow; a new run or bundle opens a lineage."""
        core = self._core
        self.block()
        core.trial.look()
        found = core.policies.in_force(core.device, core.time(), core.trial.declines)
        if (found and found.digest) == (core.in_force and core.in_force.digest):
            return
        core.trial.switched(found)
        core.in_force = found
        if found is None:  # its operator was revoked, and there is no other
            self._open(Job())
            return
        policy, job = found.policy, core.job
        old, unusable = job.policy, problem(policy.codec)
        same = old is not None and (old.bundle, old.run) == (policy.bundle, policy.run)
        if same and not unusable and not job.failed:
            job.policy = policy
            core.budget.look()
            core.sums.policy_changed()
            core.halt.policy_changed()
            return
        self._open(Job(policy=policy))
        core.budget.look()
        if unusable:
            core.job.failed = unusable
            core.notice(Topic.POLICY, f"waiting for another policy: {core.job.failed}", None, True)
        self.load()

    def _open(self, job: Job) -> None:
        """Nothing of what was in progress is valid under this job."""
        core = self._core
        old, core.job = core.job.policy, job
        core.rounds.reset()
        core.sums.reset()
        core.halt.reset()
        core.emit(*core.pulls.cancel(frozenset({Purpose.COLLECT, Purpose.JOIN, Purpose.UPDATE})))
        core.rounds.next_at = float("inf")
        if old is not None:
            core.publisher.forget_update()
            core.rounds.number = 0

    def block(self) -> None:
        """Whom the newest policy blocks is shut out by everybody, whoever that policy is for.

        Devices only, and not if that were half of them or more: a stolen operator's key could cut
        a fleet to pieces, or from its hubs and issuers, and no revocation of it would ever get in.
        """
        core = self._core
        latest = core.policies.latest(core.time())
        wanted = frozenset(latest.policy.blocked) if latest is not None else frozenset()
        if wanted:
            members = [k.member for k in core.roster.members()]
            wanted -= {m.device for m in members if m.role is not Role.DEVICE}
            here = {
                m.device
                for m in members
                if m.role is Role.DEVICE and not core.roster.is_over(m.device)
            }
            if 2 * len(wanted & here) >= len(here):
                wanted = frozenset()
        number = f"{latest.policy.term}.{latest.policy.version}" if latest is not None else ""
        core.restraint.blocked = f"policy {number} blocks it" if core.device in wanted else ""
        before, core.blocked = core.blocked, wanted
        for device in sorted(wanted - before):
            text = f"{short_name(device)} is blocked by policy {number}"
            core.notice(Topic.MEMBERSHIP, text, device, True)
            if device != core.device:
                core.shun(device)
        for device in sorted(before - wanted):
            text = f"{short_name(device)} is no longer blocked"
            core.notice(Topic.MEMBERSHIP, text, device)

    # --- the bundle ------------------------------------------------------------------------

    def give(self, data: bytes) -> None:
        """A bundle file handed over locally."""
        self._given[digest(data)] = data
        while len(self._given) > 2:
            self._given.pop(next(iter(self._given)))
        self._offer()
        self.load()

    def _offer(self) -> None:
        """Bundles of policies that are for others are handed on: canaries have to get theirs."""
        core = self._core
        for name in core.policies.bundles() & self._given.keys():
            if core.shelf.object(name) is None:
                core.shelf.put(name, self._given[name])
                core.publisher.store(self._given[name])
                core.publisher.touch("policies")

    def arrived(self, data: bytes) -> None:
        """The policy's bundle came from a peer; its digest was checked."""
        self.give(data)

    def load(self) -> None:
        """Load the trainer if the bundle is here; otherwise it will be fetched."""
        core = self._core
        policy = core.job.policy
        if policy is None or core.job.lineage or core.job.loading or core.job.failed:
            return
        data = self._given.get(policy.bundle_object)
        if data is None:
            return
        core.job.loading = policy.bundle
        self.bundle = data
        core.shelf.put(policy.bundle_object, data)
        core.publisher.store(data)
        core.publisher.touch("bundle")
        if not core.settings.trains:  # it is kept for who asks, and not looked into
            core.job.loading, core.job.failed = None, "this node trains nothing"
            return
        core.emit(LoadJob(policy.bundle, data))

    def seek(self) -> None:
        """Ask a live peer for the bundle while we lack it, one at a time."""
        core = self._core
        policy = core.job.policy
        if policy is None or core.job.lineage or core.job.loading or core.job.failed:
            return
        if core.pulls.out(Purpose.BUNDLE) or core.now - self._asked_at < core.pace.poll_interval_s:
            return
        holders = [
            p
            for p in core.book.live(core.now)
            if p.head is not None and p.head.lineage and p.head.lineage.bundle == policy.bundle
        ]
        if not holders:
            everybody = list(core.book.live(core.now))
            hubs = [p for p in everybody if core.roster.is_hub(p.device)]
            # An operator's hub has what a policy names, unless it came another way.
            holders = hubs if hubs and core.entropy.random() < 0.5 else everybody
        if not holders:
            return
        self._asked_at = core.now
        peer = core.entropy.choice(holders)
        pending = Pending(
            Purpose.BUNDLE, peer.addresses[0], peer.device, digest=policy.bundle_object
        )
        core.emit(*core.pulls.object(pending, policy.bundle_bytes))

    def ready(self, event: JobReady) -> None:
        core = self._core
        policy = core.job.policy
        if policy is None or event.bundle != policy.bundle or core.job.lineage is not None:
            return
        job = core.job
        job.loading = None
        job.layout, job.initial = event.layout, event.initial
        job.lineage = Lineage(event.bundle, policy.run, event.layout.digest)
        self._resume(job)
        core.halt.resume()
        core.rounds.next_at = core.now
        core.publisher.want_head()
        core.notice(
            Topic.POLICY, f"bundle ready: {event.layout.count} parameters, run {policy.run}"
        )

    def failed(self, event: JobFailed) -> None:
        job = self._core.job
        if job.policy is None or event.bundle != job.policy.bundle:
            return
        job.loading, job.failed = None, event.reason
        self._core.notice(Topic.POLICY, f"the bundle is refused: {event.reason}", warning=True)
        self._core.trial.failed(event.reason, at_once=True)

    def go_back(self, model: Serving, number: int, stopping: bytes) -> None:
        """A model that was in use is the base again, as soon as its job is."""
        core, job = self._core, self._core.job
        if model.lineage == job.lineage:  # only settings were on trial
            job.base = job.merged = model.base.copy()
            job.base_round = model.base_round
            core.publisher.touch("base")
            return
        self._saved_base = (encode(model.lineage), model.base_round, number, to_bytes(model.base))
        core.halt.restore(stopping)
        if model.bundle:
            self._given[digest(model.bundle)] = model.bundle

    # --- restart ---------------------------------------------------------------------------

    def restore_base(self, header: tuple[bytes, int, int], raw: bytes) -> None:
        """The durable base; used once its lineage is loaded again."""
        self._saved_base = (*header, raw)

    def restore_bundle(self, data: bytes) -> None:
        if data:
            self._given[digest(data)] = data

    def _resume(self, job: Job) -> None:
        if self._saved_base is None or job.lineage is None or job.layout is None:
            return
        lineage, base_round, number, raw = self._saved_base
        if lineage != encode(job.lineage) or len(raw) != 4 * job.layout.count:
            return
        job.base, job.base_round = from_bytes(raw).copy(), base_round
        self._core.rounds.number = max(self._core.rounds.number, number)
        self._saved_base = None
