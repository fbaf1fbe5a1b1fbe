"""One merge of star mode: what `gossipfl.work` does for every node, for the hub as a node that does
not train. Its own model is the version that the round was trained from.

Where a public holdout is given, it judges the merge, and weighs clients in `weighted_mean`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from gossipfl.anomaly import PEERS_MIN
from gossipfl.audit.entries import EntryKind
from gossipfl.bundle.archive import Bundle
from gossipfl.codecs import decode_update
from gossipfl.events import MergeFailed, MergeFinished, StartMerge
from gossipfl.hub.database import Row, Transaction
from gossipfl.hub.log.said import Said, say
from gossipfl.hub.star import books
from gossipfl.hub.star.job import Job
from gossipfl.hub.star.values import Details, Part, Round, Version
from gossipfl.interfaces import Evaluation
from gossipfl.messages import Training
from gossipfl.parameters import Layout, Vector
from gossipfl.privacy import Noised, RecordPrivacy
from gossipfl.reputation import Seen
from gossipfl.stopping import Cause, Stopping
from gossipfl.work import merge

WEIGHTED = "weighted_mean"
QUALITY_MIN, QUALITY_MAX = 0.5, 2.0
"""A client's quality, its accuracy on the holdout over the median one, counts within these: guess;
nobody gains or loses more by it than by twice as many examples."""

Evaluate = Callable[[Vector], Evaluation]
Holdout = Callable[[Bundle], Evaluate]
"""Makes of a bundle what evaluates its models on public data. UserError if they do not fit."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """One update of a round, decoded."""

    client: bytes
    digest: bytes
    seq: int
    examples: int
    vector: Vector


def decoded(job: Job, rows: Sequence[Row]) -> list[Contribution]:
    """What was accepted in a round: it was checked then, so that nothing is refused here."""
    return [
        Contribution(
            bytes.fromhex(row["client"]),
            bytes.fromhex(row["digest"]),
            row["seq"],
            row["examples"],
            decode_update(bytes(row["body"]), job.lineage, job.codec, job.layout.count),
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Judge:
    """The `Trainer` of a node that does not train: it evaluates, if there is something to do it
    with."""

    layout: Layout
    initial: Vector
    holdout: Evaluate | None

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        raise NotImplementedError("a hub does not train")

    def train_private(
        self, base: Vector, training: Training, mode: RecordPrivacy, key: bytes
    ) -> Noised:
        raise NotImplementedError("a hub does not train")

    def evaluate(self, parameters: Vector) -> Evaluation:
        if self.holdout is None:
            return Evaluation(math.nan, None, 0)
        return self.holdout(parameters)

    def loss(self, parameters: Vector) -> float:
        return self.evaluate(parameters).loss


def merged(
    job: Job,
    round_: Round,
    base: Vector,
    contributions: Sequence[Contribution],
    holdout: Evaluate | None,
) -> MergeFinished | MergeFailed:
    """The merge of a round, with what is to be seen in it. Takes a core: not for the event loop."""
    rule, vectors = job.accepted.policy.rule, tuple(entry.vector for entry in contributions)
    weights = None
    if rule == WEIGHTED:
        weights = (0.0, *weighed(contributions, holdout))
    effect = StartMerge(
        round_.number,
        rule,
        base,
        vectors,
        min(round_.faulty, len(vectors)),
        base if holdout is not None else None,
        job.initial,
        base,
        weights,
    )
    return merge(effect, Judge(job.layout, job.initial, holdout))


def weighed(contributions: Sequence[Contribution], holdout: Evaluate | None) -> list[float]:
    """Examples times quality, one for each. `aggregation.means` bounds them once more."""
    examples = [float(entry.examples) for entry in contributions]
    if holdout is None:
        return examples
    found = [holdout(entry.vector).accuracy or 0.0 for entry in contributions]
    typical = median(found)
    if typical <= 0.0:
        return examples
    return [
        count * min(QUALITY_MAX, max(QUALITY_MIN, accuracy / typical))
        for count, accuracy in zip(examples, found, strict=True)
    ]


def seen(event: MergeFinished, contributions: Sequence[Contribution]) -> Mapping[bytes, Seen]:
    """What reputation is told of each client, as `Watch` tells it of peers."""
    ordered = sorted(event.distances)
    typical = ordered[(len(ordered) - 1) // 2] if len(ordered) >= PEERS_MIN else 0.0
    return {
        entry.client: Seen(
            event.merge.influence[place],
            event.distances[place] / typical if typical > 0.0 else None,
            event.traits[place] if event.traits else None,
        )
        for place, entry in enumerate(contributions)
    }


def details(
    job: Job,
    round_: Round,
    contributions: Sequence[Contribution],
    event: MergeFinished,
    stopping: Stopping,
    cause: Cause | None,
    accuracy: float | None,
) -> Details:
    """What a version's history says of this merge."""
    found = event.seen
    relative = found.relative if found is not None else math.inf
    loss = event.loss
    return Details(
        rule=job.accepted.policy.rule,
        f=round_.faulty,
        merged=[
            Part(entry.client.hex(), entry.digest.hex(), entry.seq, float(share), entry.examples)
            for entry, share in zip(contributions, event.merge.influence, strict=True)
        ],
        distance=found.distance if found is not None else None,
        relative=relative if math.isfinite(relative) else None,
        step=found.step if found is not None else None,
        slope=stopping.slope,
        accuracy=accuracy,
        loss=loss if loss is not None and math.isfinite(loss) else None,
        kept_old=event.kept_old,
        stopped=cause.value if cause is not None else "",
    )


async def keep(tx: Transaction, made: Version, updates: int, hub: bytes) -> None:
    """A merged version, and the log's entry about it. Raises Conflict if there is one already."""
    await books.add_version(tx, made)
    told: Said = {
        "action": "merge",
        "round": made.round,
        "version": made.number,
        "updates": updates,
        "rule": made.details.rule,
        "digest": made.digest.hex(),
    }
    await say(tx, EntryKind.MODEL, told, int(made.created), about=hub)
