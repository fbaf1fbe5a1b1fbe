"""Merging: quorum, rule, guard, scores, and the receipt that lets anyone recompute it."""

from __future__ import annotations

from gossipfl.aggregation import RuleError, rule
from gossipfl.collector import COLLECTING
from gossipfl.core import Core
from gossipfl.errors import Fault
from gossipfl.events import MergeFailed, MergeFinished, StartMerge, Topic
from gossipfl.messages import Merged, Receipt, Refused
from gossipfl.objects import digest
from gossipfl.parameters import Vector, to_bytes
from gossipfl.rounds import Phase, Received, Step

JOIN_RULE = "median"  # protocol: median of a pull, own excluded
LONE_RULE = "mean"  # group sums in one group: the own group's mean is all there is


class Merger:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._merging: list[Received] = []
        self._own_name: bytes | None = None
        self._rule_used = (JOIN_RULE, 0)

    def collected(self) -> None:
        core = self._core
        core.emit(*core.pulls.cancel(COLLECTING))
        joining = core.rounds.phase is Phase.JOINING
        summing = core.sums.is_on and not joining
        gathered = core.sums.gathered() if summing else core.rounds.gathered(core.now)
        if not joining and not summing:
            core.watch.collected()
            for device in core.rounds.stale(core.now):  # said in the receipt; who rests is no liar
                core.refused.setdefault(device, Fault.STALE)
        quorum = core.rounds.quorum(core.sums.others if summing else len(core.rounds.sampled))
        if joining:
            # The median stands against f liars among 2f + 1 models; of two it is their mean.
            if len(gathered) < max(1, quorum, 2 * core.collector.f + 1):
                core.cycle.start_from_initial()
                core.rounds.end()
                core.rounds.next_at = core.now
                return
            self._merge(gathered, JOIN_RULE, 0, joining=True)
            return
        if core.job.policy is None:
            core.cycle.end("no policy")
            return
        if summing and core.sums.others == 0:
            self._merge([], LONE_RULE, 0, joining=False)
            return
        too_few = self._too_few(len(gathered), max(1, quorum), core.collector.rule)
        if too_few:
            core.rounds.below_quorum += 1
            if core.job.pub is not None and self._takes_part:
                core.job.base = core.job.pub
            core.cycle.end(f"below quorum, own model kept: {too_few}")
            core.trial.unmerged()
            return
        self._merge(gathered, core.collector.rule, core.collector.f, joining=False)

    def _too_few(self, received: int, quorum: int, rule_name: str) -> str:
        """Why these are not enough to merge, or ""."""
        if received < quorum:
            return f"{received} updates came, a quorum is {quorum}"
        try:
            rule(rule_name).check(received, self._core.collector.f)
        except RuleError as error:
            return str(error)
        return ""

    def _merge(self, gathered: list[Received], rule_name: str, f: int, joining: bool) -> None:
        core, job = self._core, self._core.job
        core.rounds.step(Step.COLLECTED)
        core.rounds.job += 1
        self._merging = gathered
        own = self._anchor(joining)
        core.emit(
            StartMerge(
                core.rounds.job,
                rule_name,
                own,
                tuple(entry.vector for entry in gathered),
                f,
                job.base if self._is_guarded and not joining else None,
                None if joining else job.initial,
                job.base,
            )
        )
        self._rule_used = (rule_name, f)

    @property
    def _is_guarded(self) -> bool:
        """With privacy on the base is a function of what was published, and of nothing else."""
        core = self._core
        return core.settings.guard and not core.restraint.private and not core.sums.is_on

    @property
    def _takes_part(self) -> bool:
        """Is the own pub of this round? Under group sums it is the own group's mean."""
        core = self._core
        return not core.restraint.why and (core.sums.has_mean or not core.sums.is_on)

    def _anchor(self, joining: bool) -> Vector | None:
        """The own model of this merge, and its name for the receipt.

        Who does not train is anchored on its last base: a public function of published models
        too, named in its receipt before.
        """
        job = self._core.job
        self._own_name = None
        if joining:
            return None
        if job.pub is not None and self._takes_part:
            self._own_name = job.pub_digest
            return job.pub
        if job.base is not None:
            self._own_name = digest(to_bytes(job.base))
        return job.base

    def merged(self, event: MergeFinished) -> None:
        core, job = self._core, self._core.job
        if event.job != core.rounds.job or core.rounds.phase is not Phase.MERGING:
            return
        if job.lineage is None:
            return
        joined = self._own_name is None and job.base is None
        if not event.kept_old:
            job.base = job.merged = event.merge.parameters
            job.base_round = core.rounds.number
        else:
            core.notice(
                Topic.MERGE, "the merge would harm the local model: training goes on from the old"
            )
        job.accuracy, job.loss = event.accuracy, event.loss
        if self._own_name is not None:
            core.halt.merged(event, self._rule_used[1])
        if core.rounds.label is None:  # of a group's mean nobody can say who spoilt it
            core.watch.merged(event, self._merging)
            core.rounds.align(self._merging)
        self._leave_receipt(event)
        core.rounds.merged(self._merging)
        core.publisher.touch("base", "clock")
        core.publisher.touch_later("reputation")
        accuracy = "" if event.accuracy is None else f", accuracy {event.accuracy:.3f}"
        core.notice(
            Topic.MERGE,
            f"round {core.rounds.number}: merged {len(self._merging)} of {self._asked}{accuracy}",
        )
        self._merging = []
        core.rounds.end()
        if joined or core.halt.is_due:
            core.rounds.next_at = core.now
        if not joined:
            core.trial.merged(event.accuracy, event.loss)

    @property
    def _asked(self) -> str:
        core = self._core
        if core.rounds.label is not None:
            return f"{core.sums.others} other groups' means"
        return f"{len(core.rounds.sampled)} updates"

    def merge_failed(self, event: MergeFailed) -> None:
        if event.job == self._core.rounds.job and self._core.rounds.phase is Phase.MERGING:
            self._core.cycle.end(f"the merge failed: {event.reason}")
            self._core.trial.failed(event.reason)

    def _leave_receipt(self, event: MergeFinished) -> None:
        core, job = self._core, self._core.job
        if job.lineage is None or core.restraint.conflict:
            return
        name, f = self._rule_used
        receipt = Receipt(
            fleet=core.fleet,
            device=core.device,
            number=1,
            round=core.rounds.number,
            lineage=job.lineage,
            base=digest(to_bytes(event.merge.parameters)),
            rule=name,
            f=f,
            issued=core.time(),
            own=self._own_name,
            merged=[
                Merged(e.device, e.seq, e.head, e.update, min(1.0, max(0.0, float(share))))
                for e, share in zip(self._merging, event.merge.influence, strict=True)
            ],
            refused=[Refused(d, fault.value) for d, fault in sorted(core.refused.items())][:256],
            statement=core.budget.named(),
        )
        link, chapter = core.own.receipt(receipt)
        core.publisher.keeper.promised(receipt.statement, link.number)
        core.publisher.receipt(link, chapter)
