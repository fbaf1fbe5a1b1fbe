"""Who checks the checkers: known bugs, put back into the node, must break a history.

Each mutant is a guard taken out, or a bug that the project once had. It is found if some seed's
history breaks an invariant with it and holds all of them without it. One that survives means that
an invariant is asleep.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.mutate import Edit, mutated
from sim.plan import Focus, Plan, draw_plan
from sim.soak import Failure, play

SEEDS_MAX = 500  # design: each is found within so many


@dataclass(frozen=True, slots=True)
class Mutant:
    """`bug` in words, the edits that make it, what histories to look in. `known` is a seed that
    found it once: a quick hunt begins there."""

    name: str
    bug: str
    edits: tuple[Edit, ...]
    focus: Focus = field(default_factory=Focus)
    known: int = 1


def _liar(*names: str) -> Focus:
    """Histories with these liars and few other faults."""
    return Focus(
        kinds=("crash", "partition", "sleep"),
        liars=names,
        liars_min=1,
        rules=("nna", "median", "trimmed_mean"),
    )


def _faults(*kinds: str) -> Focus:
    """Histories full of these faults."""
    return Focus(kinds=kinds, faults_min=8, rules=("nna",))


_UNDOUBTED = Edit(
    "gossipfl.restorer:Restorer._is_doubtful", "few or old or not self._holders", "False"
)

MUTANTS: tuple[Mutant, ...] = (
    # --- signatures and bytes ---
    Mutant(
        "unsigned-head",
        "the signature of a head is not checked",
        (Edit("gossipfl.intake:Intake._verified", "core.pure(check_signature, envelope)", "pass"),),
        _liar("forger"),
    ),
    Mutant(
        "unsigned-evidence",
        "heads in evidence need no signature",
        (Edit("gossipfl.chains:_signed_head", "check_signature(envelope)", "pass"),),
        _liar("framer"),
    ),
    Mutant(
        "unsigned-revocation",
        "a revocation needs no signature",
        (Edit("gossipfl.membership:Roster._verified", "check_signature(envelope)", "pass"),),
        _liar("slanderer"),
        known=2,
    ),
    Mutant(
        "wrong-bytes",
        "an object's digest is not compared with its name",
        (
            Edit(
                "gossipfl.parcels:Parcels.object",
                "if core.pure(digest, event.data) != pending.digest:",
                "if False:",
            ),
            Edit(
                "gossipfl.collector:Collector.head",
                "if core.pure(digest, update) != head.update.digest:",
                "if False:",
            ),
        ),
        _liar("tamperer"),
    ),
    Mutant(
        "not-finite",
        "an update that is not a number is merged",
        (
            Edit(
                "gossipfl.collector:read_update",
                "require_mergeable(vector, count, norm_max)",
                "pass",
            ),
            Edit("gossipfl.codecs.update:Opened.values", "require_finite(vector)", "pass"),
        ),
        _liar("not_a_number"),
    ),
    # --- own state ---
    Mutant(
        "public-before-durable",
        "a head is served while its commit is under way",
        (
            Edit(
                "gossipfl.publisher:Publisher._start",
                "core.emit(Commit(self._commits, batch))",
                "core.emit(Commit(self._commits, batch))\n"
                "    if link is not None and refs is not None:\n"
                "        served = Served(link.envelope, link.digest, refs.member)\n"
                "        core.shelf.set_own(core.device, served)",
            ),
        ),
    ),
    Mutant(
        "failed-commit-is-done",
        "a commit that failed is taken for done",
        (
            Edit(
                "gossipfl.publisher:Publisher.failed",
                "self._failures += 1",
                "return self.stored(commit)",
            ),
        ),
        _faults("disk"),
    ),
    Mutant(
        "doubtful-commit-is-lost",
        "a commit that was done but reported as failed is taken for not done",
        (
            Edit(
                "gossipfl.publisher:Publisher.reloaded",
                "if flight.link is not None and snapshot.head == flight.link.envelope:",
                "if False:",
            ),
        ),
        _faults("disk"),
    ),
    Mutant(
        "seq-not-persisted",
        "a head goes out that the store does not keep",
        (
            Edit(
                "gossipfl.publisher:Publisher._start",
                "head=link.envelope if link else None,",
                "head=None,",
            ),
        ),
    ),
    Mutant(
        "chain-broken",
        "a head names an older one than the one before it",
        (
            Edit(
                "gossipfl.ownchain:OwnChain.adopt",
                "self.seq, self.digest, self.refs, self.heads_log = "
                "link.number, link.digest, refs, log",
                "self.seq, self.refs, self.heads_log = link.number, refs, log\n"
                "    self.digest = self.digest or link.digest",
            ),
        ),
    ),
    Mutant(
        "restored-asks-nobody",
        "a device with an old disk signs on without asking its peers",
        (
            Edit(
                "gossipfl.restorer:Restorer.advance",
                "if enough and self._can_tell() and not core.publisher.is_busy:",
                "if True:",
            ),
            _UNDOUBTED,
        ),
        _faults("restore"),
    ),
    Mutant(
        "first-peer-decides",
        "after a restart the first peer found decides alone, whatever it knows",
        (
            Edit(
                "gossipfl.restorer:Restorer._needed",
                "return min(RECONCILE_PEERS, live) if late else self._needed_at_first(live)",
                "return min(1, live)",
            ),
            Edit(
                "gossipfl.restorer:Restorer._can_tell",
                "if self._core.own.seq == 0 or self._holders:",
                "if True:",
            ),
            _UNDOUBTED,
        ),
        _faults("restore", "restore", "partition", "sleep", "stop"),
    ),
    Mutant(
        "waits-for-the-expelled",
        "a peer that was expelled is waited for before anything is signed",
        (
            Edit(
                "gossipfl.restorer:Restorer.advance",
                "if said or d in core.book.peers}",
                "}",
            ),
        ),
        Focus(
            kinds=("crash", "stop", "restore"),
            liars=("fork", "odd_even"),
            liars_min=1,
            faults_min=8,
            rules=("nna",),
        ),
        known=3,
    ),
    # --- rounds and merges ---
    Mutant(
        "no-deadline",
        "a round waits for its last peer",
        (
            Edit(
                "gossipfl.rounds:Rounds.is_collected",
                "not self.open or now >= min(self.deadline, self.grace_at)",
                "not self.open",
            ),
        ),
        _liar("silent"),
    ),
    Mutant(
        "f-off-by-one",
        "one attacker fewer is assumed than the policy says",
        (
            Edit(
                "gossipfl.collector:Collector._plan",
                "policy.attackers - condemned",
                "policy.attackers - 1 - condemned",
            ),
        ),
        _liar("foe"),
    ),
    Mutant(
        "merged-twice",
        "a peer's update is merged twice in a round",
        (
            Edit(
                "gossipfl.rounds:Rounds.gathered",
                "for d in self.sampled",
                "for d in [*self.sampled, *self.sampled[:1]]",
            ),
        ),
    ),
    Mutant(
        "stale-is-fresh",
        "an update counts as new for ever",
        (
            Edit(
                "gossipfl.rounds:Rounds.gathered",
                "if d in self.inbox and now - self.inbox[d].seen_at <= self._pace.stale_s",
                "if d in self.inbox",
            ),
        ),
        _liar("frozen"),
    ),
    Mutant(
        "lineage-ignored",
        "models of an earlier run are merged",
        (
            Edit(
                "gossipfl.collector:Collector.head",
                "if head.update is None or head.lineage != job.lineage:",
                "if head.update is None:",
            ),
            Edit(
                "gossipfl.codecs.update:open_object",
                "if data[: len(expected)] != expected:",
                "if False:",
            ),
        ),
        _faults("new_run", "partition", "sleep"),
    ),
    Mutant(
        "old-head-accepted",
        "a head with a lower number replaces the newest one",
        (
            Edit(
                "gossipfl.intake:Intake._older",
                "if newest is None or seq >= newest.head.seq or pending.about is not None:",
                "if True:",
            ),
        ),
        _liar("stale_replay"),
    ),
    Mutant(
        "quarantine-ignored",
        "peers in quarantine are sampled and merged like any other",
        (
            Edit(
                "gossipfl.reputation:Reputation.weight",
                "if self.is_quarantined(device, now):",
                "if False:",
            ),
        ),
        Focus(kinds=("crash",), liars=("foe",), liars_min=1, rules=("nna",)),
        known=2,
    ),
    Mutant(
        "revoked-still-merged",
        "a revoked device is met again and merged",
        (
            Edit(
                "gossipfl.membership:Roster.require_live",
                "if revoked is not None:",
                "if False:",
            ),
        ),
        _faults("revoke", "sleep", "crash"),
        known=3,
    ),
    Mutant(
        "rule-forgotten",
        "whatever the policy's rule, models are averaged, and nothing guards the outcome",
        (
            Edit("sim.interpreter:merge", "merge_step(effect.rule,", 'merge_step("mean",'),
            Edit(
                "sim.interpreter:merge",
                "kept_old = effect.previous is not None and",
                "kept_old = False and",
            ),
        ),
        _liar("foe"),
        known=2,
    ),
    Mutant(
        "receipt-lies",
        "a receipt names other updates than those that were merged",
        (
            Edit(
                "gossipfl.merger:Merger._leave_receipt",
                "Merged(e.device, e.seq, e.head, e.update,",
                "Merged(e.device, e.seq, e.head, e.head,",
            ),
        ),
    ),
    # --- bounds and clocks ---
    Mutant(
        "queue-unbounded",
        "one liar's receipts queue fetches without end",
        (
            Edit(
                "gossipfl.upkeep:Upkeep.receipt",
                "if entry.seq > core.own.seq and self._doubts_left > 0:",
                "if entry.seq > core.own.seq:",
            ),
            Edit(
                "gossipfl.pulls:Pulls.object",
                "if self.queued < self._limits.pulls_queued and queued < QUEUED_PER_DEVICE:",
                "if queued >= 0:",
            ),
        ),
        _liar("flooder"),
    ),
    Mutant(
        "lonely-clock-believed",
        "a wall clock that nobody has confirmed raises the durable floor of fleet time",
        (
            Edit(
                "gossipfl.membership:FleetClock.hear_wall",
                "self._move(wall, now, confirmed=False)",
                "self._move(wall, now, confirmed=True)",
            ),
            Edit(
                "gossipfl.membership:FleetClock.time",
                "self.raise_floor(int(min(time, self._ceiling)))",
                "self.raise_floor(time)",
            ),
        ),
        _faults("clock_jump", "crash", "stop"),
        known=2,
    ),
)


@dataclass(frozen=True, slots=True)
class Hunt:
    """What to look for and where: one task of a worker."""

    name: str
    seeds: int = SEEDS_MAX
    first_seed: int = 1
    quick: bool = False  # look at the known seed first


@dataclass(frozen=True, slots=True)
class Caught:
    """`failure` None: it survived. `tried` histories were played with it."""

    name: str
    bug: str
    tried: int
    failure: Failure | None


def by_name(name: str) -> Mutant:
    """Raises KeyError."""
    return {mutant.name: mutant for mutant in MUTANTS}[name]


def hunt(task: Hunt) -> Caught:
    """Plays seeds until a history breaks that holds without the mutant."""
    mutant = by_name(task.name)
    seeds = [*range(task.first_seed, task.first_seed + task.seeds)]
    if task.quick:
        seeds = [mutant.known, *(seed for seed in seeds if seed != mutant.known)][: task.seeds]
    for tried, seed in enumerate(seeds, start=1):
        plan = draw_plan(seed, mutant.focus)
        failure = _with(mutant, plan)
        if failure is not None and play(plan).failure is None:
            return Caught(mutant.name, mutant.bug, tried, failure)
    return Caught(mutant.name, mutant.bug, len(seeds), None)


def _with(mutant: Mutant, plan: Plan) -> Failure | None:
    with mutated(mutant.edits):
        return play(plan).failure
