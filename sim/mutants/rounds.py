"""Bugs of rounds, merges and bounds put back."""

from __future__ import annotations

from sim.mutants.base import Mutant, full_of, with_liars
from sim.mutate import Edit
from sim.plan import Focus

ROUNDS: tuple[Mutant, ...] = (
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
        with_liars("silent"),
    ),
    Mutant(
        "f-off-by-one",
        "one attacker fewer is assumed than the policy says",
        (
            Edit(
                "gossipfl.collector:Collector._plan",
                "max(0, policy.attackers",
                "max(0, policy.attackers - 1",
            ),
        ),
        with_liars("foe"),
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
        with_liars("frozen"),
    ),
    Mutant(
        "lineage-ignored",
        "models of an earlier run are merged",
        (
            Edit(
                "gossipfl.collector:Collector.head",
                "if head.update is None or head.lineage != job.lineage or",
                "if head.update is None or",
            ),
            Edit(
                "gossipfl.codecs.update:open_object",
                "if data[: len(expected)] != expected:",
                "if False:",
            ),
        ),
        full_of("new_run", "partition", "sleep"),
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
        with_liars("stale_replay"),
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
        full_of("revoke", "sleep", "crash"),
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
        with_liars("foe"),
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
        with_liars("flooder"),
    ),
)
