"""A canary's trial of a policy: whether the new model is good enough here, and the way back.

The model from before is kept, and goes on serving, until the new one has proved itself on this
device. A bundle that cannot be loaded, training that fails, or held-out accuracy far below ends
the trial: the device goes back by itself to the policy before, to the model that it had, and its
head says so by naming the policy that it declined. Nothing else of it leaves the device. Under a
privacy policy nothing is measured for it: what a device does must not depend on its data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from gossipfl.core import Core
from gossipfl.events import Measure, Measured, Topic
from gossipfl.messages import Gate, Lineage, Policy
from gossipfl.objects import digest
from gossipfl.parameters import Vector, from_bytes, to_bytes
from gossipfl.policies import Accepted
from gossipfl.wire import decode, encode, pack, unpack
from gossipfl.work import CATASTROPHE_NATS

FAILURES_MAX = 3
"""Trainings in a row that may fail: guess. The first may be of data that were just being written;
who diverges from the same start on the same data will do so again."""
DECLINED_MAX = 16  # as many as policies are held
DOCUMENT_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Serving:
    """The model that this device answers with, and its bundle file where it is no longer the
    one in training."""

    lineage: Lineage
    base: Vector
    base_round: int
    bundle: bytes | None = None


@dataclass(frozen=True, slots=True)
class Spare:
    """A whole model that was in use: what is needed to serve it and to train on from it."""

    serving: Serving
    round: int
    stopping: bytes  # of `Halt`
    accuracy: float | None
    loss: float | None

    def dump(self) -> bytes:
        model, bundle = self.serving, self.serving.bundle or b""
        header = [encode(model.lineage), model.base_round, self.round, self.stopping]
        return pack([*header, self.accuracy, self.loss, to_bytes(model.base), bundle])

    @classmethod
    def load(cls, data: bytes) -> Spare:
        lineage, base_round, number, stopping, accuracy, loss, raw, bundle = unpack(data, len(data))
        model = Serving(decode(lineage, Lineage), from_bytes(raw).copy(), base_round, bundle)
        return cls(model, number, stopping, accuracy, loss)


def spare_serves(documents: Mapping[str, bytes]) -> bool:
    """Of what is durable: does the model from before serve, as by `Trial.serving`?"""
    if not documents.get("spare"):
        return False
    if not documents.get("base"):
        return True
    if not documents.get("trial"):
        return False
    aimed, proven, *_ = unpack(documents["trial"], DOCUMENT_BYTES_MAX)
    return aimed is not None and not proven


def aim(policy: Policy) -> bytes:
    """A name of what a policy tries out: equal for one that differs only in whom it is for, whom
    it blocks and when. Who declined it is not asked again."""
    plain = structs.replace(
        policy, term=0, version=1, prev=None, issued=0, not_before=0, n=1, attackers=0
    )
    return digest(encode(structs.replace(plain, canary=[], blocked=[], gate=Gate())))


class Trial:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._spare: Spare | None = None
        self._aim: bytes | None = None  # of the canary policy on trial
        self._is_proven = False
        self._worse = 0  # rounds in a row
        self._failures = 0  # trainings in a row
        self._declined: dict[bytes, str] = {}  # aims, and why
        self._measuring: int | None = None

    # --- what others ask -------------------------------------------------------------------

    def declines(self, policy: Policy) -> bool:
        """Has this device gone back from what this canary policy tries out?"""
        return bool(self._declined and policy.canary) and aim(policy) in self._declined

    @property
    def told(self) -> bytes | None:
        """What the head says: the newest policy, if this device is its canary and declined it."""
        latest = self._core.policies.latest(self._core.time())
        if latest is None or self._core.device not in latest.policy.canary:
            return None
        return latest.digest if self.declines(latest.policy) else None

    @property
    def serving(self) -> Serving | None:
        """The model to answer with: the one from before until the new one has proved itself."""
        job, spare = self._core.job, self._spare
        if spare is not None and not self._has_taken_over:
            return spare.serving
        if job.base is None or job.lineage is None:
            return None
        return Serving(job.lineage, job.base, job.base_round)

    @property
    def _has_taken_over(self) -> bool:
        return self._is_proven or (self._aim is None and self._core.job.base is not None)

    def figures(self) -> dict[str, Any] | None:
        """For people, on this device; None where no policy is or was on trial."""
        latest = self._core.policies.latest(self._core.time())
        why = self._declined.get(aim(latest.policy), "") if latest and self._declined else ""
        is_old = self._spare is not None and not self._has_taken_over
        if self._aim is None and not why and not is_old:
            return None
        state = "trying" if self._aim is not None else "declined" if why else "changing"
        return {"state": state, "serves": "old" if is_old else "new", "why": why}

    # --- policies come and go --------------------------------------------------------------

    def switched(self, found: Accepted | None) -> None:
        """Another policy is about to be followed; the job is still that of the one before."""
        canary = found is not None and bool(found.policy.canary)
        wanted = aim(found.policy) if found is not None and canary else None
        if wanted is not None and wanted == self._aim:
            return  # it goes on: for others too, or after a restart
        if self._spare is None or self._has_taken_over:
            self._keep()
        if (self._aim, wanted) != (None, None):
            self._core.publisher.touch("trial")
        self._aim, self._is_proven = wanted, False
        self._worse = self._failures = 0
        self._measuring = None

    def _keep(self) -> None:
        """The model in use becomes the one to go back to."""
        core, job = self._core, self._core.job
        before, self._spare = self._spare, None
        if job.base is not None and job.lineage is not None:
            best = core.halt.state
            accuracy = job.accuracy if job.accuracy is not None else best.best_accuracy
            self._spare = Spare(
                Serving(job.lineage, job.base, job.base_round, core.steering.bundle),
                core.rounds.number,
                core.halt.dump(),
                accuracy,
                job.loss if job.loss is not None else best.best_loss,
            )
        if self._spare is not before:
            core.publisher.touch("spare")

    def look(self) -> None:
        """Now and then: what has been followed by a model of its own is not needed any more."""
        if self._spare is not None and self._aim is None and self._core.job.base is not None:
            self._spare = None
            self._core.publisher.touch("spare")

    # --- how the new model does ------------------------------------------------------------

    def trained(self) -> None:
        self._failures = 0

    def failed(self, why: str, *, at_once: bool = False) -> None:
        """Loading, training or merging failed here."""
        if self._aim is None or not (at_once or self._may_look):
            return
        self._failures += 1
        if at_once:
            self._decline(f"its bundle does not work here: {why}")
        elif self._failures >= FAILURES_MAX:
            self._decline(f"training failed {self._failures} times in a row: {why}")

    def unmerged(self) -> None:
        """A round without a merge: few canaries have enough others. The own model is measured."""
        core, job = self._core, self._core.job
        if self._aim is None or job.base is None:
            return
        if not self._may_look:
            self._judge(None, None)
            return
        core.rounds.job += 1
        self._measuring = core.rounds.job
        core.emit(Measure(core.rounds.job, job.base))

    def measured(self, event: Measured) -> bool:
        """True if it was asked for here."""
        if self._measuring is None or event.job != self._measuring:
            return False
        self._measuring = None
        job = self._core.job
        job.accuracy, job.loss = event.accuracy, event.loss
        self._judge(event.accuracy, event.loss)
        return True

    def merged(self, accuracy: float | None, loss: float | None) -> None:
        if self._aim is not None:
            self._judge(accuracy, loss)

    @property
    def _may_look(self) -> bool:
        policy = self._core.job.policy
        return policy is not None and policy.privacy.mode == "off"

    def _judge(self, accuracy: float | None, loss: float | None) -> None:
        policy = self._core.job.policy
        if policy is None:
            return
        worse = self._is_worse(policy.gate, accuracy, loss) if self._may_look else ""
        if worse is None:
            return
        self._worse = self._worse + 1 if worse else 0
        if not worse and not self._is_proven:
            self._is_proven = True
            self._core.notice(Topic.POLICY, "the model on trial is good enough here: it serves")
            self._core.publisher.touch("trial")
        self._core.publisher.touch_later("trial")
        if self._worse >= policy.gate.rounds:
            self._decline(worse)

    def _is_worse(self, gate: Gate, accuracy: float | None, loss: float | None) -> str | None:
        """Why it is not good enough, or ""; None if nothing could be measured."""
        if loss is None or (math.isnan(loss) and accuracy is None):
            return None  # a device without held-out examples
        spare = self._spare
        if not math.isfinite(loss):
            return "its loss is not finite"
        if spare is None:
            return ""
        if accuracy is not None and spare.accuracy is not None:
            if accuracy < spare.accuracy - gate.drop:
                return f"its accuracy here is {accuracy:.3f}, before it was {spare.accuracy:.3f}"
        elif spare.loss is not None and loss > spare.loss + CATASTROPHE_NATS:
            return f"its loss here is {loss:.3f}, before it was {spare.loss:.3f}"
        return ""

    def _decline(self, why: str) -> None:
        """Back to the policy before, and to the model that it had left here."""
        core, spare, name = self._core, self._spare, self._aim
        if name is None:
            return
        self._declined[name] = why
        while len(self._declined) > DECLINED_MAX:
            del self._declined[next(iter(self._declined))]
        self._aim, self._is_proven, self._measuring = None, False, None
        core.notice(Topic.POLICY, f"back to the policy before: {why}", warning=True)
        core.publisher.touch("trial")
        core.publisher.want_head()
        if spare is not None:
            core.steering.go_back(spare.serving, spare.round, spare.stopping)
        core.steering.apply()

    # --- restarts --------------------------------------------------------------------------

    def dump(self) -> bytes:
        declined = [[name, why[:512]] for name, why in self._declined.items()]
        return pack([self._aim, self._is_proven, self._worse, self._failures, declined])

    def dump_spare(self) -> bytes:
        return self._spare.dump() if self._spare is not None else b""

    def restore(self, data: bytes) -> None:
        aimed, proven, worse, failures, declined = unpack(data, DOCUMENT_BYTES_MAX)
        self._aim, self._is_proven = aimed, bool(proven)
        self._worse, self._failures = int(worse), int(failures)
        self._declined = dict(declined)

    def restore_spare(self, data: bytes) -> None:
        self._spare = Spare.load(data)
