"""The heavy steps, as pure functions from an effect to the event that answers it.

The asyncio driver runs them in a worker thread, the simulator runs them inline and charges
virtual seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gossipfl.aggregation import (
    Merge,
    RuleError,
    Squares,
    between,
    catastrophic,
    merge_step,
    squared_distances,
)
from gossipfl.aggregation.collapse import RECEIVED_MIN
from gossipfl.anomaly import Traits
from gossipfl.anomaly import measure as traits_of
from gossipfl.convergence import Convergence, convergence
from gossipfl.errors import Fault, PeerError
from gossipfl.events import (
    Measure,
    Measured,
    MergeFailed,
    MergeFinished,
    StartMerge,
    StartTraining,
    TrainingFailed,
    TrainingFinished,
)
from gossipfl.interfaces import Trainer
from gossipfl.parameters import require_finite

CATASTROPHE_NATS = 1.0
"""The guard keeps the old base if the merge's local loss is worse by more than this. A strict
"not worse than mine" ruins learning (87 to 60 % in a probe), one nat does not."""


def local_step(effect: StartTraining, trainer: Trainer) -> TrainingFinished | TrainingFailed:
    """Local training from the base. Any error of the trainer becomes TrainingFailed."""
    try:
        parameters = trainer.train(effect.base, effect.training, effect.seed)
        require_finite(parameters, "trained model")
    except PeerError:
        return TrainingFailed(effect.job, f"{Fault.NOT_FINITE.value}: training diverged")
    except Exception as error:  # a trainer is foreign code: its failure must not end the node
        return TrainingFailed(effect.job, f"{type(error).__name__}: {error}")
    return TrainingFinished(effect.job, parameters)


def merge(effect: StartMerge, trainer: Trainer) -> MergeFinished | MergeFailed:
    """The rule over published models, then the guard on local data, then local evaluation."""
    try:
        squared = _squared(effect)
        merged = merge_step(effect.rule, effect.own, effect.received, effect.f, squared=squared)
    except RuleError as error:
        return MergeFailed(effect.job, str(error))
    try:
        kept_old = effect.previous is not None and catastrophic(
            trainer.loss(merged.parameters), trainer.loss(effect.previous), CATASTROPHE_NATS
        )
        evaluation = trainer.evaluate(
            effect.previous if kept_old and effect.previous is not None else merged.parameters
        )
    except Exception as error:  # as above
        return MergeFailed(effect.job, f"{type(error).__name__}: {error}")
    owned = [] if effect.own is None else [effect.own]
    to_merge = squared_distances(merged.parameters, [*owned, *effect.received])
    if effect.own is None:
        from_own = to_merge
    elif squared is not None:
        from_own = list(squared[0, 1:])
    else:
        from_own = squared_distances(effect.own, effect.received)
    return MergeFinished(
        effect.job,
        merged,
        tuple(map(math.sqrt, from_own)),
        kept_old=kept_old,
        accuracy=evaluation.accuracy,
        loss=evaluation.loss,
        seen=_seen(effect, merged, to_merge),
        traits=_traits(effect, merged, squared, to_merge[len(owned) :]),
    )


def _squared(effect: StartMerge) -> Squares | None:
    """Distances between all models, where the rule and the traits both need them: once for both."""
    if effect.own is None or effect.before is None or len(effect.received) < RECEIVED_MIN:
        return None
    return between(effect.own, effect.received)


def _seen(effect: StartMerge, merged: Merge, to_merge: Sequence[float]) -> Convergence | None:
    if effect.initial is None:
        return None
    return convergence(
        merged, effect.received, effect.own, effect.before, effect.initial, effect.f, to_merge
    )


def _traits(
    effect: StartMerge, merged: Merge, squared: Squares | None, to_merge: Sequence[float]
) -> tuple[Traits, ...]:
    if effect.own is None or effect.before is None:
        return ()
    return traits_of(
        effect.own,
        effect.before,
        merged.parameters,
        effect.received,
        merged.influence,
        squared,
        to_merge,
    )


def measure(effect: Measure, trainer: Trainer) -> Measured:
    """Local evaluation of a model that is at rest."""
    try:
        found = trainer.evaluate(effect.model)
    except Exception:  # as above: it is asked again later
        return Measured(effect.job, None, None)
    return Measured(effect.job, found.loss, found.accuracy)
