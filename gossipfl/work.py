"""The heavy steps, as pure functions from an effect to the event that answers it.

The asyncio driver runs them in a worker thread, the simulator runs them inline and charges
virtual seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

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
    Reckon,
    Reckoned,
    StartMerge,
    StartTraining,
    TrainingFailed,
    TrainingFinished,
)
from gossipfl.interfaces import Trainer
from gossipfl.parameters import Vector, require_finite
from gossipfl.privacy import (
    DevicePrivacy,
    GroupSum,
    Hidden,
    Noised,
    Off,
    RecordPrivacy,
    hidden,
    unprotected,
)

if TYPE_CHECKING:
    from gossipfl.privacy.record_unit import Sum

CATASTROPHE_NATS = 1.0
"""The guard keeps the old base if the merge's local loss is worse by more than this. A strict
"not worse than mine" ruins learning (87 to 60 % in a probe), one nat does not."""
KEY_BYTES = 32
Entropy = Callable[[int], bytes]
"""So many secret random bytes: the operating system's on a device, the world's in simulation."""


def local_step(
    effect: StartTraining, trainer: Trainer, entropy: Entropy
) -> TrainingFinished | TrainingFailed:
    """Local training from the base, and what makes its result fit to be published.

    Without privacy any error of the trainer becomes TrainingFailed. With privacy on, the absence
    of an update would tell something about the data: noise goes out then, around no change. Under
    group sums the result is hidden: it leaves in a sum, or not at all.
    """
    mode = effect.protection
    if isinstance(mode, GroupSum):
        answer = local_step(replace(effect, protection=mode.noise), trainer, entropy)
        if isinstance(answer, TrainingFailed) or isinstance(answer.model, Hidden):
            return answer
        return replace(answer, model=hidden(mode, answer.model))
    try:
        match mode:
            case Off():
                parameters = trainer.train(effect.base, effect.training, effect.seed)
                require_finite(parameters, "trained model")
                return TrainingFinished(effect.job, unprotected(mode, parameters))
            case DevicePrivacy():
                return _device_step(effect, mode, trainer, entropy(KEY_BYTES))
            case RecordPrivacy():
                return _record_step(effect, mode, trainer, entropy(KEY_BYTES))
    except PeerError:
        return TrainingFailed(effect.job, f"{Fault.NOT_FINITE.value}: training diverged")
    except Exception as error:  # a trainer is foreign code: its failure must not end the node
        return TrainingFailed(effect.job, _words(error))


def _device_step(
    effect: StartTraining, mode: DevicePrivacy, trainer: Trainer, key: bytes
) -> TrainingFinished:
    from gossipfl.privacy.device_unit import noised  # brings the cipher

    problem = ""
    trained: Vector = effect.base
    try:
        trained = trainer.train(effect.base, effect.training, effect.seed)
    except Exception as error:  # as above
        problem = _words(error)
    if trained.shape != effect.base.shape:
        trained, problem = effect.base, f"a model of shape {trained.shape}"
    return TrainingFinished(effect.job, noised(mode, effect.base, trained, key), problem)


def _record_step(
    effect: StartTraining, mode: RecordPrivacy, trainer: Trainer, key: bytes
) -> TrainingFinished:
    try:
        model = trainer.train_private(effect.base, effect.training, mode, key)
    except Exception as error:  # as above
        return TrainingFinished(effect.job, _nobody(effect, mode, key), _words(error))
    return TrainingFinished(effect.job, model)


def _nobody(effect: StartTraining, mode: RecordPrivacy, key: bytes) -> Noised:
    """What a device without examples would publish."""
    from gossipfl.privacy.record_unit import Descent, train

    training = effect.training
    descent = Descent(training.learning_rate, training.momentum, training.prox)

    def nothing(parameters: Vector, chosen: object, clip: float) -> Sum:
        return np.zeros(len(parameters))

    return train(mode, effect.base, 0, nothing, descent, key)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def merge(effect: StartMerge, trainer: Trainer) -> MergeFinished | MergeFailed:
    """The rule over published models, then the guard on local data, then local evaluation.

    A merge does not fail because it cannot be evaluated: that would show in what is published.
    """
    try:
        squared = _squared(effect)
        own, weights = effect.own, effect.weights
        merged = merge_step(effect.rule, own, effect.received, effect.f, weights, squared=squared)
    except RuleError as error:
        return MergeFailed(effect.job, str(error))
    try:
        kept_old = effect.previous is not None and catastrophic(
            trainer.loss(merged.parameters), trainer.loss(effect.previous), CATASTROPHE_NATS
        )
    except Exception as error:  # as above
        return MergeFailed(effect.job, _words(error))
    kept = effect.previous if kept_old and effect.previous is not None else merged.parameters
    found = measure(Measure(effect.job, kept), trainer)
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
        accuracy=found.accuracy,
        loss=found.loss,
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
    """Local evaluation of a model: after a merge, or at rest."""
    try:
        found = trainer.evaluate(effect.model)
    except Exception:  # as above: it is asked again later
        return Measured(effect.job, None, None)
    return Measured(effect.job, found.loss, found.accuracy)


def reckon(effect: Reckon) -> Reckoned:
    """What is left of the privacy budget."""
    return Reckoned(effect.ledger.account(effect.spec, effect.terms, effect.before))
