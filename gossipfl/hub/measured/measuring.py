"""Fetches what devices published and judges it on a public holdout, as any peer could.

No device is asked for a figure of its own. What a privacy policy protects stays protected: models
are judged as they were published, with their noise.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from gossipfl.aggregation import RuleError, merge_step
from gossipfl.bundle.archive import Bundle, read
from gossipfl.bundle.refused import BundleRefused
from gossipfl.codecs import CodecError, decode_update, update_bytes
from gossipfl.config import Limits
from gossipfl.errors import PeerError, UserError
from gossipfl.events import FetchFailed, FetchObject
from gossipfl.holdings import Holdings, Neighbour
from gossipfl.hub.database import Database
from gossipfl.hub.star.merging import Evaluate, Holdout
from gossipfl.messages import Lineage, Policy, UpdateRef
from gossipfl.net.ports import Fetcher
from gossipfl.parameters import Vector
from gossipfl.policies import read_policy

MODELS_MAX = 16  # judged at one look: guess, a median of so many is near the fleet's
MODELS_MIN = 2  # of fewer there is no spread
GLOBAL_RULE = "nnm+trimmed_mean"  # the design: of a hub that merges what it sees
LOOK_S = 5.0  # least time between two looks: guess

log = logging.getLogger(__name__)

_ROW = (
    "INSERT INTO measured (time, models, low, middle, high, merged, disagreement) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (time) DO NOTHING"
)
_OLD = "DELETE FROM measured WHERE time <= (SELECT MAX(time) FROM measured) - ?"
KEPT_S = 30 * 86_400  # as receipts on devices (protocol, Retention)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the models of one look. Shares of one; p10, median, p90."""

    models: int
    low: float
    middle: float
    high: float
    disagreement: float | None
    merged: float | None = None  # of the merge of them all


class Measurer:
    """Runs in the process that leads. `left_out` names devices that the fleet keeps out of its
    merges: their models would say nothing of the others'. `station()` gives the node's holdings
    and who fetches, or None while this process does not lead."""

    def __init__(
        self,
        database: Database,
        holdout: Holdout,
        station: Callable[[], tuple[Holdings, Fetcher] | None],
        left_out: Callable[[], frozenset[bytes]],
        clock: Callable[[], int],
        limits: Limits,
        chance: random.Random,
    ) -> None:
        self._database = database
        self._holdout = holdout
        self._station = station
        self._left_out = left_out
        self._clock = clock
        self._limits = limits
        self._chance = chance
        self._requests = itertools.count(1)
        self._job: tuple[bytes, Bundle, Evaluate] | None = None
        self._refused: set[bytes] = set()  # bundles that the holdout does not fit
        self._judged: dict[bytes, tuple[bytes, Vector, float]] = {}  # by device: digest, model

    async def run(self, pause_s: float = LOOK_S) -> None:
        """Until cancelled. Raises DatabaseError."""
        while True:
            await self.look()
            await asyncio.sleep(pause_s)

    async def look(self) -> Figures | None:
        """Judge what is new; None if there was nothing, or too little to say something of."""
        found = self._station()
        if found is None:
            return None
        holdings, fetcher = found
        policy = newest_policy(holdings, self._limits)
        if policy is None or policy.bundle in self._refused:
            return None
        out = self._left_out()
        sources = [n for n in holdings.neighbours if _fits(n, policy) and n.device not in out]
        if not await self._ready(policy, sources, fetcher):
            return None
        chosen = self._chance.sample(sources, min(MODELS_MAX, len(sources)))
        fresh = [await self._judge(source, fetcher) for source in chosen]
        here = {source.device for source in sources}
        self._judged = {d: kept for d, kept in self._judged.items() if d in here}
        if self._job is None or not any(fresh) or len(self._judged) < MODELS_MIN:
            return None
        accuracies = [accuracy for _, _, accuracy in self._judged.values()]
        models = [model for _, model, _ in self._judged.values()]
        merged = await asyncio.to_thread(_of_merge, models, policy.attackers, self._job[2])
        made = replace(figures(accuracies, models, self._job[1].initial), merged=merged)
        row = (made.models, made.low, made.middle, made.high, made.merged, made.disagreement)
        async with self._database.transaction() as transaction:
            await transaction.execute(_ROW, self._clock(), *row)
            await transaction.execute(_OLD, KEPT_S)
        return made

    async def _ready(self, policy: Policy, sources: Sequence[Neighbour], fetcher: Fetcher) -> bool:
        """Whether there is a judge for this policy's models."""
        if self._job is not None and self._job[0] == policy.bundle:
            return True
        self._job, self._judged = None, {}
        for source in sources[:3]:
            data = await self._fetch(source, fetcher, policy.bundle_object, policy.bundle_bytes)
            if data is None:
                continue
            try:
                bundle = await asyncio.to_thread(read, data)
                judge = await asyncio.to_thread(self._holdout, bundle)
            except (BundleRefused, UserError, ValueError) as error:
                self._refused.add(policy.bundle)
                log.warning("the public examples do not fit the bundle: %s", error)
                return False
            self._job = policy.bundle, bundle, judge
            return True
        return False

    async def _judge(self, source: Neighbour, fetcher: Fetcher) -> bool:
        """Whether this device's model is another than the last that was judged."""
        head, job = source.head, self._job
        if head is None or head.update is None or head.lineage is None or job is None:
            return False
        known = self._judged.get(source.device)
        if known is not None and known[0] == head.update.digest:
            return False
        count = job[1].layout.count
        try:
            if head.update.size > update_bytes(head.lineage, head.update.codec, count):
                return False
        except CodecError:
            return False
        data = await self._fetch(source, fetcher, head.update.digest, head.update.size)
        if data is None:
            return False
        try:
            model, accuracy = await asyncio.to_thread(
                _measure, data, head.lineage, head.update, count, job[2]
            )
        except (PeerError, KeyError, ValueError):
            return False  # not readable by itself (a part of a model), or not readable at all
        if accuracy is not None and math.isfinite(accuracy):
            self._judged[source.device] = head.update.digest, model, accuracy
        return accuracy is not None

    async def _fetch(
        self, source: Neighbour, fetcher: Fetcher, name: bytes, most: int
    ) -> bytes | None:
        if not source.addresses:
            return None
        effect = FetchObject(next(self._requests), source.addresses[0], name, most)
        answer = await fetcher.fetch_object(effect)
        return None if isinstance(answer, FetchFailed) else answer.data


def newest_policy(found: Holdings, limits: Limits) -> Policy | None:
    """The highest that is for all: a canary's models are not the fleet's."""
    policies = [read_policy(data, limits) for _, data in found.policies]
    whole = [p for p in policies if not p.canary]
    return max(whole, key=lambda p: (p.term, p.version), default=None)


def _fits(source: Neighbour, policy: Policy) -> bool:
    """Whether it is live and publishes models of this policy's run."""
    head = source.head
    if head is None or head.update is None or head.lineage is None or not source.is_live:
        return False
    return (head.lineage.bundle, head.lineage.run) == (policy.bundle, policy.run)


def _measure(
    data: bytes, lineage: Lineage, ref: UpdateRef, count: int, judge: Evaluate
) -> tuple[Vector, float | None]:
    model = decode_update(data, lineage, ref.codec, count)
    return model, judge(model).accuracy


def _of_merge(models: Sequence[Vector], attackers: int, judge: Evaluate) -> float | None:
    """The accuracy of the global model: the design's rule over all models, as many of them assumed
    to lie as the policy says and the rule bears."""
    f = max(0, min(attackers, (len(models) - 1) // 2))
    try:
        return judge(merge_step(GLOBAL_RULE, None, list(models), f).parameters).accuracy
    except RuleError as error:
        log.info("no global model of %d models: %s", len(models), error)
        return None


def figures(accuracies: Sequence[float], models: Sequence[Vector], initial: Vector) -> Figures:
    """Quantiles of the accuracies, and how far apart the models are: their mean distance to their
    coordinate-wise median, over the way that the median has come from `initial` (L2)."""
    low, middle, high = (float(q) for q in np.quantile(np.asarray(accuracies), (0.1, 0.5, 0.9)))
    rows = np.stack(models)
    centre = np.median(rows, axis=0)
    travelled = float(np.linalg.norm(centre - initial))
    apart = fmean(float(np.linalg.norm(row - centre)) for row in rows)
    disagreement = apart / travelled if travelled > 0.0 else None
    return Figures(len(rows), low, middle, high, disagreement)
