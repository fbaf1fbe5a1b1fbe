"""The rounds of a device under group sums: train, take part in an attempt, publish the mean.

A window is a round. Who is in no group, has not trained, or whose group's attempts fail publishes
nothing and merges the other groups' means. A trained model never leaves but masked.
"""

from __future__ import annotations

import math

from gossipfl.aggregation.guard import require_mergeable
from gossipfl.codecs import publish
from gossipfl.core import Core
from gossipfl.errors import PeerError
from gossipfl.events import StartTraining, SumMasked, SumUncovered, Topic
from gossipfl.groups import shamir
from gossipfl.groups.schedule import Schedule
from gossipfl.messages import SumRef, UpdateRef
from gossipfl.objects import digest
from gossipfl.privacy import OFF, GroupSum, Hidden, Summed
from gossipfl.pulls import Pending, Purpose
from gossipfl.rounds import Phase, Received, Step
from gossipfl.sums.exchange import Exchange
from gossipfl.sums.means import means
from gossipfl.sums.turn import Turn, Turns

SLACK_S = 1e-3  # clocks are floats: wake a little after a window begins, not before


class GroupSums:
    """`secret(count)`: so many secret bytes, of the operating system. None: no part in any sum."""

    def __init__(self, core: Core, secret: shamir.Entropy | None = None) -> None:
        self._core = core
        self.exchange = Exchange(core)
        self.turns = Turns(core, self.exchange, secret)
        self._schedule: Schedule | None = None
        self._of: bytes | None = None  # the policy that the schedule is of
        self._since: float | None = None  # fleet time from which on windows may be entered
        self._window = 0  # the newest that was begun
        self._hidden: Hidden | None = None  # what was trained in this window
        self._mean_of = 0  # the window whose mean of the own group is published
        self._groups: tuple[int, tuple[tuple[bytes, ...], ...]] = (0, ())
        self._wake_at = math.inf
        self.why_not = ""  # why this device takes part in no sum now

    # --- what the policy wants ---------------------------------------------------------------

    @property
    def schedule(self) -> Schedule | None:
        """None while no policy asks for group sums."""
        accepted = self._core.in_force
        name = accepted.digest if accepted is not None else None
        if name != self._of:
            self._of, self._schedule = name, None
            if accepted is not None and accepted.policy.privacy.sums is not None:
                policy = accepted.policy
                sums = accepted.policy.privacy.sums
                self._schedule = Schedule(policy.fleet, accepted.digest, policy.issued, sums)
        return self._schedule

    @property
    def is_on(self) -> bool:
        return self.schedule is not None

    def _time(self) -> float:
        return self._core.clock.exact(self._core.now)

    def _at(self, time: float) -> float:
        """The monotonic instant of a fleet time, a window from now at most: clocks get set."""
        longest = self.schedule.window_s if self.schedule is not None else 0
        return self._core.now + min(max(0.0, time - self._time()), longest) + SLACK_S

    def _window_groups(self, schedule: Schedule) -> tuple[tuple[bytes, ...], ...]:
        if self._groups[0] != self._window:
            self._groups = (self._window, schedule.groups(self._window))
        return self._groups[1]

    # --- a round -----------------------------------------------------------------------------

    def begin(self, schedule: Schedule) -> None:
        """A round is due: that of the window that begins now, or none yet."""
        core, time = self._core, self._time()
        core.budget.look()
        if core.budget.must_wait():
            core.rounds.next_at = math.inf  # the accountant's answer wakes us
            return
        self._set_right(schedule, time)
        window = schedule.window(time)
        if window is None or window <= self._window or window < (self._since or 0.0):
            self.why_not = "waits for the next window" if self._window == 0 else self.why_not
            core.rounds.next_at = self._at(schedule.next_window(time))
            return
        self._window, self._hidden = window, None
        core.refused.clear()
        core.job.unsent = core.job.sent = None
        self.why_not = self._reason(schedule, window, time)
        core.rounds.begin(Step.WAIT if self.why_not else Step.BEGIN_TRAIN, core.now, 0.0)
        core.rounds.label = window
        core.rounds.next_at = self._at(window + schedule.window_s)
        self.turns.window(schedule, window)
        if not self.why_not:
            self._train()

    def _set_right(self, schedule: Schedule, time: float) -> None:
        """The first window that may be entered; and if the clock was ahead and came back, that what
        it had begun is no more. What was entered then stays in the journal: until that time comes,
        this device only listens."""
        later = time + schedule.window_s
        if self._since is None or self._since > later:
            self._since = time
        if self._window > later:
            self._window = 0

    def _reason(self, schedule: Schedule, window: int, time: float) -> str:
        """Why there is no part to take in this window's sums, or ""."""
        core = self._core
        if core.restraint.why:
            return core.restraint.why
        if self.turns.problem:
            return self.turns.problem
        if core.device not in schedule.sums.devices:
            return "the policy lists it in no group"
        if core.publisher.has_new_update:
            return "the mean before is not stored yet"
        if time > schedule.attempt_at(window, schedule.sums.attempts - 1):
            return "it is too late for this window's attempts"
        return ""

    def _train(self) -> None:
        core, job = self._core, self._core.job
        if job.base is None or job.policy is None:
            return
        core.rounds.job += 1
        seed = core.entropy.getrandbits(63)
        mode = GroupSum(core.budget.protection)
        core.emit(StartTraining(core.rounds.job, job.base, job.policy.training, seed, mode))

    def trained(self, model: Hidden, problem: str) -> None:
        core, job = self._core, self._core.job
        if problem:
            core.notice(Topic.PRIVACY, f"training failed, noise goes in: {problem}", warning=True)
        refused = self._refused(model)
        if refused or job.layout is None or model.vector.shape != (job.layout.count,):
            core.cycle.end(f"takes no part in the sum: {refused or 'a model of another shape'}")
            return
        core.rounds.step(Step.HIDDEN)
        if job.policy is not None:
            core.halt.trained(job.policy.training.epochs, 4 * job.layout.count)
        self._hidden = model

    def advance(self) -> None:
        """After every event: attempts begin, wait, and end."""
        core, schedule = self._core, self.schedule
        self._wake_at = math.inf
        if core.rounds.phase is not Phase.SUMMING:
            return
        if schedule is None:
            core.cycle.end("the policy has no group sums any more")
            return
        if self._window > self._time() + schedule.window_s:
            self.turns.drop()
            core.cycle.end("the clock went back: this window is still to come")
            return
        count = core.job.layout.count if core.job.layout is not None else 0
        match self.turns.advance(self._hidden, count, self._time()):
            case Turn.OVER:
                self._listen(schedule)
            case Turn.RUNS:
                self._wake_at = self.turns.due
            case Turn.SPENT:
                self._hidden = None
                core.rounds.step(Step.AGAIN)
                self._train()
            case at:
                self._wake_at = self._at(at)

    @property
    def due(self) -> float:
        return self._wake_at if self._core.rounds.phase is Phase.SUMMING else math.inf

    def _listen(self, schedule: Schedule) -> None:
        """No sum of the own group: the others' means are merged."""
        self._core.rounds.step(Step.NO_SUM)
        self.collect()

    # --- masks on, masks off -----------------------------------------------------------------

    def _refused(self, model: Hidden) -> str:
        """Why this model may not be masked under the policy in force; "": it may."""
        budget = self._core.budget
        if model.noised is not None:
            return budget.refused(model.noised)
        if budget.protection != OFF:
            return "it was trained before the policy asked for noise"
        return ""

    def masked(self, event: SumMasked) -> None:
        core, model = self._core, self._hidden
        if model is None or not self.turns.awaits_vector(event.job):
            return  # an attempt that went on without us takes nothing, and costs nothing
        if self._refused(model):
            return  # the policy changed: this attempt goes on without us
        if model.noised is not None:
            core.budget.enter(model.noised, event.name)
        self.turns.masked(event)

    def uncovered(self, event: SumUncovered) -> None:
        """The own group's mean: published by all of its members alike."""
        core, job = self._core, self._core.job
        if not self.turns.expects(event.job) or core.rounds.phase is not Phase.SUMMING:
            return
        plan = self.turns.finished()
        if plan is None or job.lineage is None or job.policy is None or event.mean is None:
            return
        try:
            require_mergeable(event.mean.vector, plan.count, core.limits.norm_max)
        except PeerError as error:
            core.notice(Topic.REFUSED, f"the group's mean is of no use: {error}", warning=True)
            return
        core.rounds.step(Step.SUMMED)
        core.rounds.deadline = core.now + core.pace.round_deadline_s
        self._mean_of = plan.window
        self._publish(event.mean, plan.id, plan.window)
        text = f"summed with {event.members} of {plan.size} members"
        core.notice(Topic.ROUND, f"round {core.rounds.number}: {text}")

    def _publish(self, mean: Summed, attempt: bytes, window: int) -> None:
        core, job = self._core, self._core.job
        if job.lineage is None or job.policy is None:
            return
        # One seed for all of the group, so that all publish the same bytes.
        seed = int.from_bytes(attempt[:8], "big")
        sent = publish(job.lineage, job.policy.codec, mean.vector, seed=seed)
        job.pub, job.pub_digest = sent.vector, digest(sent.data)
        ref = UpdateRef(job.pub_digest, len(sent.data), job.policy.codec, window)
        core.publisher.publish(ref, sent.data)

    # --- collecting and merging --------------------------------------------------------------

    def collect(self) -> None:
        """Ask all listed devices whose group's mean is not known here."""
        core, schedule = self._core, self.schedule
        if schedule is None:
            core.cycle.end("the policy has no group sums any more")
            return
        own = schedule.group(self._window, core.device) if self.has_mean else ()
        listed = set(schedule.sums.devices) - set(own)
        peers = {d: weight for d, weight in core.collector.eligible().items() if d in listed}
        core.rounds.deadline = self._at(schedule.over_at(self._window))
        core.collector.collect(peers, Purpose.COLLECT)

    @property
    def has_mean(self) -> bool:
        """Is the own group's mean of this window published?"""
        return self._mean_of == self._window

    def gathered(self) -> list[Received]:
        """The other groups' means of this window, as far as they are here."""
        schedule = self.schedule
        return means(self._other_groups(schedule), self._core.rounds.inbox, self._window)

    def _other_groups(self, schedule: Schedule | None) -> list[tuple[bytes, ...]]:
        if schedule is None:
            return []
        made, device = self._window_groups(schedule), self._core.device
        return [group for group in made if not (self.has_mean and device in group)]

    @property
    def others(self) -> int:
        """Groups whose means a merge takes beside the own one."""
        return len(self._other_groups(self.schedule))

    @property
    def is_complete(self) -> bool:
        """Is nothing more to be waited for in this window?"""
        return self.is_on and len(self.gathered()) >= self.others

    def pull(self, attackers: int, live: int) -> tuple[int, int]:
        """(sample, f): all are asked, and each attacker may have spoilt one group's mean."""
        return live, min(attackers, self.others)

    def figures(self) -> dict[str, object] | None:
        """For people: how this device fares. None where no policy asks for sums."""
        schedule = self.schedule
        if schedule is None:
            return None
        group = schedule.group(self._window, self._core.device) if self._window else ()
        return {
            "group": len(group),
            "listening": self.why_not,
            "sums": self.turns.sums,
            "attempts": list(self.turns.ends),
        }

    # --- beside the rounds -------------------------------------------------------------------

    @property
    def ref(self) -> SumRef | None:
        """What the next head names."""
        return self.turns.ref if self.is_on else None

    def object(self, pending: Pending, data: bytes) -> None:
        """A member's object, or its masked vector. Raises PeerError."""
        if pending.digest is not None:
            self.turns.object(pending.purpose, pending.digest, data)

    def new_head(self, device: bytes, ref: SumRef | None) -> None:
        if ref is not None:
            self.exchange.new_head(device, ref)

    def policy_changed(self) -> None:
        """What goes on under another policy is another attempt."""
        self.turns.drop()
        self._hidden = None
        core = self._core
        trains = core.rounds.phase is Phase.TRAINING and core.rounds.label is not None
        if trains or core.rounds.phase is Phase.SUMMING:
            core.rounds.job += 1  # what is being trained was for another group
            core.cycle.end("the policy changed")
        if core.rounds.phase is Phase.IDLE and self.is_on:
            core.rounds.next_at = core.now

    def reset(self) -> None:
        """Another lineage."""
        self.turns.drop()
        self._hidden, self._mean_of = None, 0
