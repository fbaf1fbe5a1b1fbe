"""Rests a node when its policy's conditions hold, and gets it going again.

At rest a node serves, polls and starts no round. It goes on with another policy, with new local
data, when the loss of its model on local data has drifted, or when more peers than may lie train
again after a silence: one device's new data teach nobody while the others rest.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from gossipfl.convergence import Convergence
from gossipfl.core import Core
from gossipfl.events import Measure, Measured, MergeFinished, Topic
from gossipfl.messages import Stop
from gossipfl.rounds import Phase
from gossipfl.stopping import QUIET_ROUNDS, Cause, Stopping
from gossipfl.wire import encode, pack, unpack

DOCUMENT_BYTES_MAX = 4_096
SILENT_ROUNDS = 3
"""Who published nothing for so many round intervals, and could be asked, was at rest: guess."""


class Halt:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._state = Stopping()
        self._pulled = 0  # bytes that `_state` does not count yet
        self.cause: Cause | None = None
        self.seen: Convergence | None = None  # of the newest merge
        self._measuring = False
        self._published: deque[float] = deque(maxlen=QUIET_ROUNDS)  # when our updates went out
        self._resumed: dict[bytes, float] = {}  # peers that train again, and when that was seen
        self._saved: tuple[bytes, Stopping, Convergence | None] | None = None

    @property
    def state(self) -> Stopping:
        if self._pulled:
            self._state, self._pulled = self._state.pulled(self._pulled), 0
        return self._state

    @state.setter
    def state(self, state: Stopping) -> None:
        self._state, self._pulled = state, 0

    # --- at the start of a round -----------------------------------------------------------

    def holds(self) -> bool:
        """Is there nothing to do? Then no round starts until something ends the rest."""
        core, cause = self._core, self._found()
        entered = cause is not None and cause is not self.cause
        self.cause = cause
        if cause is None:
            return False
        checks = self._stop.drift is not None and self._may_look and not cause.is_hard
        if entered:
            self._settle()
            self.state = self.state.checked(core.job.loss, math.inf)
            core.publisher.touch("stopping")
            core.notice(Topic.ROUND, f"finished: {self.why}")
        elif checks and not self._measuring and core.job.base is not None:
            self._measuring = True
            core.rounds.job += 1
            core.emit(Measure(core.rounds.job, core.job.base))
        pause = core.pace.round_interval_s or core.pace.poll_interval_s
        core.rounds.next_at = core.now + pause if checks else math.inf
        return True

    def _settle(self) -> None:
        """The rest begins. Rounds below quorum have trained on alone: local steps specialise, so
        the newest merge is the model to keep."""
        core, job = self._core, self._core.job
        self._resumed.clear()
        if job.merged is not None and job.base is not job.merged:
            job.base = job.merged
            core.publisher.touch("base")

    @property
    def is_due(self) -> bool:
        """Will no next round start?"""
        return self._found() is not None

    def _found(self) -> Cause | None:
        return self.state.cause(self._stop, self._core.rounds.number, local=self._may_look)

    @property
    def _stop(self) -> Stop:
        policy = self._core.job.policy
        return policy.stop if policy is not None else Stop()

    @property
    def _may_look(self) -> bool:
        """With a privacy policy on, no silence and no restart may depend on local data."""
        policy = self._core.job.policy
        return policy is not None and policy.privacy.mode == "off"

    @property
    def why(self) -> str:
        """In words; "" while rounds go on."""
        state, stop = self.state, self._stop
        slope = state.slope
        match self.cause:
            case None:
                return ""
            case Cause.ROUNDS:
                return f"{self._core.rounds.number} rounds as the policy says"
            case Cause.EPOCHS:
                return f"{state.epochs} epochs of training, the policy's budget"
            case Cause.BYTES:
                return f"{state.traffic} bytes of updates, the policy's budget"
            case Cause.DISTANCE:
                return f"the models are within {stop.distance:.3g} of the way they have come"
            case Cause.SLOPE:
                return f"the distance of the models changes by {slope or 0.0:+.1%} a round"
            case Cause.PATIENCE:
                return f"no better model in {state.since_best} rounds"
            case Cause.QUIET:
                return "most peers brought nothing new"

    # --- what happens in rounds ------------------------------------------------------------

    def trained(self, epochs: int, size: int) -> None:
        self.state = self.state.trained(epochs, size)

    def pulled(self, size: int) -> None:
        self._pulled += size

    def merged(self, event: MergeFinished, f: int) -> None:
        """A merge in which the own model took part; f of the others may lie."""
        rounds, pace = self._core.rounds, self._core.pace
        self._published.append(rounds.published_at)
        since = self._published[0] - pace.round_interval_s / 2
        asked = [rounds.inbox[d] for d in rounds.sampled if d in rounds.inbox]
        new = sum(entry.seen_at >= since for entry in asked)
        self.seen = event.seen or self.seen
        self.state = self.state.merged(
            event.seen, event.accuracy, event.loss, is_quiet=new <= max(f, _minority(len(asked)))
        )
        self._core.publisher.touch("stopping")

    def unmerged(self) -> None:
        self.state = self.state.unmerged()

    # --- what ends a rest ------------------------------------------------------------------

    def policy_changed(self) -> None:
        """Another policy of the same run: all but its hard conditions start afresh."""
        self.state = self.state.renewed()
        if self.cause is not None:
            self.cause = None
            self._core.rounds.next_at = self._core.now

    def data_changed(self) -> None:
        if not self._may_look:
            return
        if self.cause is None:
            self.state = self.state.renewed()
        elif self._stop.new_data:
            self._go_on("there are new local data")
        elif self._stop.drift is not None:
            self._core.rounds.next_at = self._core.now  # a check at once

    def measured(self, event: Measured) -> None:
        core = self._core
        self._measuring = False
        margin = self._stop.drift
        if event.job != core.rounds.job or core.rounds.phase is not Phase.IDLE or margin is None:
            return
        if event.loss is not None and self.cause is not None:
            core.job.loss, core.job.accuracy = event.loss, event.accuracy
            self.state = self.state.checked(event.loss, margin)
            if self.state.has_drifted(self._stop):
                self._go_on(f"the loss on local data rose by more than {margin:g}")

    def peer_published(self, device: bytes, silent_s: float) -> None:
        """A new update of our lineage; its signer is known to have been silent for so long.

        Who rests for a reason of its own goes on once more peers than may lie have broken a
        silence. Who rests because the others did goes on once half of them train.
        """
        core, pace, policy = self._core, self._core.pace, self._core.job.policy
        silence_s = max(SILENT_ROUNDS * pace.round_interval_s, pace.round_deadline_s)
        if self.cause is None or policy is None:
            return
        if core.reputation.weight(device, core.now) <= 0.0:
            return
        followed = self.cause is Cause.QUIET
        if silent_s < silence_s and not followed:
            return
        self._resumed[device] = core.now
        lately = silence_s if followed else pace.stale_s
        recent = sum(core.now - at <= lately for at in self._resumed.values())
        few = _minority(len(core.rounds.inbox)) if followed else 0
        if recent > max(policy.attackers, few):
            self._go_on(f"{recent} peers train again")

    def _go_on(self, why: str) -> None:
        core, cause = self._core, self.cause
        self.state = self.state.renewed()
        core.publisher.touch("stopping")
        if cause is None or cause.is_hard:
            return
        self.cause = None
        core.rounds.next_at = core.now
        core.notice(Topic.ROUND, f"training goes on: {why}")

    # --- lineages and restarts -------------------------------------------------------------

    def reset(self) -> None:
        """Another lineage."""
        self.state, self.cause, self.seen, self._measuring = Stopping(), None, None, False
        self._published.clear()

    def dump(self) -> bytes:
        lineage, seen = self._core.job.lineage, self.seen
        norms = [seen.distance, seen.travelled, seen.step, seen.update] if seen else None
        return pack([encode(lineage) if lineage else b"", self.state.dump(), norms])

    def restore(self, data: bytes) -> None:
        """At start: used once the lineage that it is of is loaded again."""
        lineage, state, norms = unpack(data, DOCUMENT_BYTES_MAX)
        seen = Convergence(*norms) if norms else None
        self._saved = (lineage, Stopping.load(state), seen)

    def resume(self) -> None:
        """A bundle was loaded: is what we remember of its lineage?"""
        lineage = self._core.job.lineage
        if self._saved is not None and lineage is not None and self._saved[0] == encode(lineage):
            _, self.state, self.seen = self._saved
            self._saved = None

    # --- for people ------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """Of published models only. Norms are L2; None: not known yet."""
        seen, slope = self.seen, self.state.slope
        relative = seen.relative if seen else math.inf
        return {
            "distance": seen.distance if seen else None,
            "relative": relative if math.isfinite(relative) else None,
            "slope": slope,
            "step_norm": seen.step if seen else None,
            "update_norm": seen.update if seen else None,
        }

    def progress(self) -> dict[str, Any]:
        """Towards the policy's conditions; local, never sent."""
        state = self.state
        return {
            "cause": self.cause.value if self.cause else None,
            "epochs": state.epochs,
            "bytes": state.traffic,
            "rounds_without_better": state.since_best,
            "quiet_rounds": state.quiet,
        }


def _minority(count: int) -> int:
    """The most of `count` that are fewer than half."""
    return max(0, count - 1) // 2
