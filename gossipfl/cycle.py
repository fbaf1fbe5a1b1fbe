"""The flow of one round: join or train, publish, collect, merge, leave a receipt."""

from __future__ import annotations

import math

from gossipfl.aggregation.guard import require_mergeable
from gossipfl.codecs import publish
from gossipfl.core import Core
from gossipfl.errors import PeerError
from gossipfl.events import (
    StartTraining,
    Topic,
    TrainingFailed,
    TrainingFinished,
)
from gossipfl.messages import UpdateRef
from gossipfl.objects import digest
from gossipfl.parameters import Layout
from gossipfl.privacy import Hidden, Publishable, Unprotected, withheld
from gossipfl.pulls import Purpose
from gossipfl.rounds import Phase, Step


class Cycle:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._join_until = math.inf

    # --- what to do next -------------------------------------------------------------------

    def advance(self) -> None:
        """Look at the machine after every event; moves at most one step."""
        core = self._core
        rounds, now = core.rounds, core.now
        match rounds.phase:
            case Phase.IDLE if now >= rounds.next_at:
                self._begin()
            case Phase.JOINING | Phase.COLLECTING if rounds.is_collected(now):
                core.merger.collected()
            case Phase.COLLECTING if core.sums.is_complete:
                core.merger.collected()
            case Phase.JOINING | Phase.COLLECTING:
                core.collector.ask_waiting()
            case Phase.PUBLISHING if now >= rounds.deadline:
                self.end("could not be published in time")
            case _:
                pass

    def _begin(self) -> None:
        core, job = self._core, self._core.job
        policy = job.policy
        if policy is None or job.lineage is None or job.initial is None:
            core.rounds.next_at = math.inf
            return
        if core.halt.holds():
            return
        if not core.restraint.reconciled:
            core.rounds.next_at = math.inf  # upkeep wakes us once a peer has answered
            return
        if job.base is None and not self._join():
            return
        schedule = core.sums.schedule
        if schedule is not None:
            core.sums.begin(schedule)
        else:
            self._train_or_listen()

    def _join(self) -> bool:
        """True if training can start from `initial`; otherwise a join is under way or waits."""
        core = self._core
        if self._join_until == math.inf:
            self._join_until = core.now + core.pace.join_wait_s
        peers = core.collector.eligible()
        if core.now < self._join_until and not core.collector.would_suffice(len(peers)):
            core.rounds.next_at = core.now + core.pace.join_wait_s / 20
            return False
        if peers and core.now < self._join_until:
            core.rounds.begin(Step.BEGIN_JOIN, core.now, 0.0)
            core.rounds.number -= 1  # looking for a start is not a round
            core.collector.collect(peers, Purpose.JOIN)
            return False
        self.start_from_initial()
        return True

    def start_from_initial(self) -> None:
        job = self._core.job
        if job.initial is not None:
            job.base = job.initial.copy()
            job.base_round = 0

    def _train_or_listen(self) -> None:
        core, job = self._core, self._core.job
        core.budget.look()
        if core.budget.must_wait():
            core.rounds.next_at = math.inf  # the accountant's answer wakes us
            return
        jitter = core.entropy.uniform(-1.0, 1.0)
        core.refused.clear()
        # A release that waits for the disk is not followed by another one: each of them costs.
        if core.restraint.why or (core.restraint.private and core.publisher.has_new_update):
            job.unsent = None  # the base moves on without it
            core.rounds.begin(Step.LISTEN, core.now, jitter)
            core.collector.collect(core.collector.eligible(), Purpose.COLLECT)
            return
        core.rounds.begin(Step.BEGIN_TRAIN, core.now, jitter)
        core.rounds.job += 1
        if job.base is None or job.policy is None:
            return
        seed = core.entropy.getrandbits(63)
        start = job.base if job.unsent is None else job.base + job.unsent
        protection = core.budget.protection
        core.emit(StartTraining(core.rounds.job, start, job.policy.training, seed, protection))

    # --- train and publish -----------------------------------------------------------------

    def trained(self, event: TrainingFinished) -> None:
        core, job = self._core, self._core.job
        if event.job != core.rounds.job or core.rounds.phase is not Phase.TRAINING:
            return
        policy, lineage, layout, model = job.policy, job.lineage, job.layout, event.model
        if policy is None or lineage is None or layout is None:
            return
        if isinstance(model, Hidden) != core.sums.is_on:
            self.end("not published: it was trained before the policy changed its privacy")
            return
        if isinstance(model, Hidden):
            core.sums.trained(model, event.problem)
            return
        core.rounds.step(Step.TRAINED)
        core.trial.trained()
        core.rounds.deadline = max(core.rounds.deadline, core.now + core.pace.round_deadline_s / 2)
        fit = self._fit(model, event.problem, layout)
        if fit is None:
            return
        job.sent = publish(
            lineage,
            policy.codec,
            fit.vector,
            seed=self._noise_seed(),
            before=job.sent,
            first=core.device[0],
        )
        if job.base is not None:
            job.unsent = job.sent.unsent(fit.vector - job.base)
        # What everyone decodes is what we use: the codec's error is part of the model.
        job.pub, job.pub_digest = job.sent.vector, digest(job.sent.data)
        ref = UpdateRef(job.pub_digest, len(job.sent.data), policy.codec, core.rounds.number)
        core.budget.enter(fit, job.pub_digest)
        core.publisher.publish(ref, job.sent.data, job.sent.beside)
        core.halt.trained(policy.training.epochs, len(job.sent.data))

    def _fit(self, model: Publishable, problem: str, layout: Layout) -> Publishable | None:
        """What goes out of this training, or None: then the round has ended.

        With privacy on nothing that local data decide may end it here.
        """
        core, base = self._core, self._core.job.base
        if problem:
            text = f"training failed, noise goes out: {problem}"
            core.notice(Topic.PRIVACY, text, warning=True)
        refused = core.budget.refused(model)
        if refused:
            self.end(f"not published: {refused}")
            return None
        try:
            require_mergeable(model.vector, layout.count, core.limits.norm_max)
        except PeerError as error:
            if isinstance(model, Unprotected) or base is None:
                self.end(f"own training is not fit to publish: {error.detail}")
                core.trial.failed(error.detail)
                return None
            return withheld(model, base)
        return model

    def _noise_seed(self) -> int:
        """For the codec's rounding: another one for each update of each device."""
        core = self._core
        return int.from_bytes(digest(core.device + core.rounds.number.to_bytes(8, "big"))[:8])

    def training_failed(self, event: TrainingFailed) -> None:
        if event.job != self._core.rounds.job or self._core.rounds.phase is not Phase.TRAINING:
            return
        self.end(f"training failed: {event.reason}")
        self._core.trial.failed(event.reason)

    def published(self) -> None:
        """The head with our update is durable and served."""
        core = self._core
        if core.rounds.phase is not Phase.PUBLISHING:
            return
        core.rounds.step(Step.PUBLISHED)
        core.rounds.published_at = core.now
        if core.sums.is_on:
            core.sums.collect()
            return
        core.collector.collect(core.collector.eligible(), Purpose.COLLECT)

    def end(self, why: str) -> None:
        core = self._core
        core.notice(Topic.ROUND, f"round {core.rounds.number}: {why}", warning=True)
        core.halt.unmerged()
        core.rounds.end()
        if core.halt.is_due:
            core.rounds.next_at = core.now
