"""The rounds of star mode: opened, filled by clients, merged, remembered.

Every instance of a hub accepts updates; one of them, the holder of a lease, opens and merges
rounds. All that it knows is in the database: whoever takes the lease over goes on where it was. A
round that was closed and not merged is merged then, so that no acknowledged update is lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from gossipfl.aggregation import fits, least
from gossipfl.errors import Fault, UserError
from gossipfl.events import MergeFailed, MergeFinished
from gossipfl.hub.database import Conflict, Database, Lease, Row
from gossipfl.hub.star import books, clients, merging, metrics
from gossipfl.hub.star.erased import Erased
from gossipfl.hub.star.job import Job, Shelf
from gossipfl.hub.star.merging import Contribution, Evaluate, Holdout
from gossipfl.hub.star.selection import select
from gossipfl.hub.star.settings import StarSettings
from gossipfl.hub.star.values import Phase, Round, RoundState, Version
from gossipfl.objects import digest
from gossipfl.parameters import Vector, from_bytes, to_bytes
from gossipfl.reputation import Reputation
from gossipfl.stopping import Cause, Stopping

log = logging.getLogger(__name__)

LEASE = "star"
POLL_S = 0.5  # guess: what another instance accepted is seen after so long at the latest
PAUSE_S = 0.05  # guess: what a crowd sends at one instant is looked at once
FAULTS_MAX = 10  # of one kind between two merges: more says no more


class Engine:
    """`clock`: seconds since the epoch. `holdout` judges models by public data, if there are
    any. `said` is told what happened: a kind, and words."""

    def __init__(
        self,
        database: Database,
        shelf: Shelf,
        settings: StarSettings,
        clock: Callable[[], float],
        *,
        entropy: random.Random,
        holdout: Holdout | None = None,
        said: Callable[[str, str], None] = lambda kind, words: None,
    ) -> None:
        self._database = database
        self._shelf = shelf
        self._settings = settings
        self._clock = clock
        self._entropy = entropy
        self._holdout = holdout
        self._said = said
        self._wake = asyncio.Event()
        self._reputation = Reputation(settings.round_s)
        self._stopping = Stopping()
        self._erased = Erased()
        self._phase: Phase | None = None
        self._judge: tuple[bytes, Evaluate | None] = (b"", None)  # of a bundle

    def wake(self) -> None:
        """Something was accepted, registered or switched at this instance."""
        self._wake.set()

    async def run(self) -> None:
        """Lead whenever nobody else does, until cancelled. Raises DatabaseError: start it again."""
        while True:
            lease = await self._database.lease(LEASE)
            if lease is not None:
                try:
                    await self._lead(lease)
                finally:
                    await lease.release()
            await self._rest()

    async def _lead(self, lease: Lease) -> None:
        try:
            await self.load()
            while await lease.check():
                while await self.step():
                    pass
                await self._rest()
        except Conflict:
            log.info("another process led in between: its word counts")

    async def _rest(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), POLL_S)
        await asyncio.sleep(PAUSE_S)
        self._wake.clear()

    async def load(self) -> None:
        """What the leader before knew."""
        self._reputation = Reputation(self._settings.round_s)
        self._stopping, self._phase, self._erased = Stopping(), None, Erased()
        async with self._database.transaction(write=False) as tx:
            reputation = await books.state(tx, "reputation")
            stopping = await books.state(tx, "stopping")
        if reputation is not None:
            self._reputation.load(reputation, self._clock())
        if stopping is not None:
            self._stopping = Stopping.load(stopping)

    # --- one step --------------------------------------------------------------------------

    async def step(self) -> bool:
        """Whatever is due now. True if something was done, so that more may be."""
        now = self._clock()
        async with self._database.transaction(write=False) as tx:
            await self._shelf.load(tx)
            accepted = self._shelf.in_force(int(now))
            job = None if accepted is None else await self._shelf.job(tx, accepted)
            version = await books.version(tx)
            round_ = await books.newest_round(tx)
            received = 0 if round_ is None else await books.count_updates(tx, round_.number)
            await self._erased.look(tx, self._reputation)
        if job is None:
            what = "policy" if accepted is None else "bundle"
            await self._tell("waiting", f"no {what} has been given to this hub")
            return False
        policy = job.accepted.policy
        if version is None or (version.run, version.bundle) != (policy.run, policy.bundle):
            return await self._begin(job, version, round_)
        if round_ is None or round_.state is RoundState.DONE:
            return await self._open(job, version, round_)
        if round_.state is RoundState.CLOSED:
            return await self._merge(round_, version)
        if round_.version != version.number:  # somebody restored another version
            return await self._move(round_, RoundState.DONE)
        if received >= len(round_.selected):
            return await self._move(round_, RoundState.CLOSED)
        if now < round_.deadline:
            return False
        if received >= round_.needed and fits(policy.rule, received, round_.faulty):
            return await self._move(round_, RoundState.CLOSED)
        return await self._open(job, version, round_)

    async def _begin(self, job: Job, before: Version | None, round_: Round | None) -> bool:
        """The first version of a run: the bundle's own parameters."""
        policy, body = job.accepted.policy, to_bytes(job.initial)
        self._stopping = Stopping()
        new = Version(
            number=before.number + 1 if before is not None else 0,
            parent=before.number if before is not None else -1,
            round=round_.number if round_ is not None else 0,
            run=policy.run,
            bundle=policy.bundle,
            policy=job.accepted.digest,
            origin="start",
            digest=digest(body),
            size=len(body),
            created=self._clock(),
            body=body,
        )
        async with self._database.transaction() as tx:
            await tx.lock(books.LOCK)
            await books.add_version(tx, new)
            await books.set_state(tx, "stopping", self._stopping.dump())
            if round_ is not None:
                await books.move_round(tx, round_.number, round_.state, RoundState.DONE)
        self._said("star", f"run {policy.run} starts at version {new.number}")
        return True

    async def _open(self, job: Job, version: Version, before: Round | None) -> bool:
        """The next round, unless the policy says to stop or too few are here. An open round that
        was not filled hands over what it has accepted."""
        policy, now = job.accepted.policy, self._clock()
        cause = await self._cause(job, version)
        if cause is not None:
            await self._tell("finished", cause.value, job.accepted.digest)
            return False
        async with self._database.transaction(write=False) as tx:
            live = await clients.all_of(tx, seen_since=int(now - self._settings.live_s))
            train_s = await metrics.train_seconds(tx, version.number)
        free = [client for client in live if not client.blocked]
        chosen, f = select(policy, free, self._reputation, train_s, now, self._entropy)
        if not chosen or not fits(policy.rule, len(chosen), f):
            await self._tell(
                "waiting", f"{len(chosen)} clients are too few for {policy.rule} with f = {f}"
            )
            return False
        number = before.number + 1 if before is not None else 1
        selected = set(chosen)
        async with self._database.transaction() as tx:
            await tx.lock(books.LOCK)
            if before is not None and before.state is RoundState.OPEN:
                if not await books.move_round(tx, before.number, RoundState.OPEN, RoundState.DONE):
                    return True
                selected |= set(await books.carry_over(tx, before.number, number))
            new = Round(
                number=number,
                version=version.number,
                policy=job.accepted.digest,
                opened=now,
                deadline=now + self._settings.round_s,
                needed=max(1, (len(selected) + 1) // 2),
                faulty=f,
                selected=frozenset(selected),
            )
            await books.add_round(tx, new)
        await self._tell("running", "")
        return True

    async def _cause(self, job: Job, version: Version) -> Cause | None:
        """Which condition of the policy holds. What a person changed since sets it going again."""
        policy = job.accepted.policy
        stopped_before = version.details.stopped and version.policy != job.accepted.digest
        if version.origin != "merge" or stopped_before:
            self._stopping = self._stopping.renewed()
        async with self._database.transaction(write=False) as tx:
            rounds = await books.count_merges(tx, policy.run, policy.bundle)
        return self._stopping.cause(policy.stop, rounds, local=_is_measured(self._stopping))

    async def _move(self, round_: Round, state: RoundState) -> bool:
        async with self._database.transaction() as tx:
            await tx.lock(books.LOCK)
            await books.move_round(tx, round_.number, round_.state, state)
        return True

    async def _tell(self, name: str, why: str, policy: bytes = b"") -> None:
        """All instances, if it is another phase than before."""
        now = self._clock()
        shut_out = {
            client.hex(): self._reputation.of(client).why
            for client in self._reputation.devices()
            if self._reputation.is_quarantined(client, now)
        }
        phase = Phase(name, why, shut_out, policy.hex())
        if phase == self._phase:
            return
        async with self._database.transaction() as tx:
            await books.set_state(tx, "phase", msgspec.json.encode(phase))
        if self._phase is None or name != self._phase.name:
            self._said("star", f"{name}: {why}" if why else name)
        self._phase = phase

    # --- merging ---------------------------------------------------------------------------

    async def _merge(self, round_: Round, version: Version) -> bool:
        """A closed round becomes the next version, or comes to nothing."""
        async with self._database.transaction(write=False) as tx:
            job = await self._shelf.job_of(tx, round_.policy)
            whole = await books.version(tx, round_.version, has_body=True)
            rows = await books.updates(tx, round_.number)
            blocked = {c.id.hex() for c in await clients.all_of(tx) if c.blocked}
            reported = await metrics.median_accuracy(tx, round_.version)
        if job is None or whole is None or whole.body is None or round_.version != version.number:
            return await self._move(round_, RoundState.DONE)
        kept = [row for row in rows if row["client"] not in blocked]
        entries = await asyncio.to_thread(merging.decoded, job, kept)
        del rows, kept  # a thousand bodies are not needed twice
        if not entries:
            return await self._move(round_, RoundState.DONE)
        base = from_bytes(whole.body)
        event = await asyncio.to_thread(
            merging.merged, job, round_, base, entries, await self._evaluate(job)
        )
        if isinstance(event, MergeFailed):
            self._said("star", f"round {round_.number} came to nothing: {event.reason}")
            return await self._move(round_, RoundState.DONE)
        await self._keep(job, round_, base, entries, event, reported)
        return True

    async def _evaluate(self, job: Job) -> Evaluate | None:
        """What judges models of this job; nothing does if the public data do not fit it."""
        if self._holdout is not None and self._judge[0] != job.bundle.id:
            found: Evaluate | None = None
            try:
                found = await asyncio.to_thread(self._holdout, job.bundle)
            except UserError as error:
                self._said("star", f"the holdout is not used: {error.cause}")
            self._judge = job.bundle.id, found
        return self._judge[1]

    async def _keep(
        self,
        job: Job,
        round_: Round,
        base: Vector,
        entries: Sequence[Contribution],
        event: MergeFinished,
        reported: float | None,
    ) -> None:
        """Judge, look whether to stop, and make all of it durable at once."""
        policy, now = job.accepted.policy, self._clock()
        needed = least(policy.rule, policy.attackers)
        pull = merging.seen(event, entries)
        way = event.seen.travelled if event.seen is not None else 0.0
        for client, why in self._reputation.merged(pull, policy.attackers, now, needed, way):
            self._quarantined(client, why, now)
        accuracy = event.accuracy if event.accuracy is not None else reported
        self._stopping = self._stopping.merged(event.seen, accuracy, event.loss)
        async with self._database.transaction(write=False) as tx:
            rounds = 1 + await books.count_merges(tx, policy.run, policy.bundle)
        cause = self._stopping.cause(policy.stop, rounds, local=_is_measured(self._stopping))
        body = to_bytes(base if event.kept_old else event.merge.parameters)
        new = Version(
            number=round_.version + 1,
            parent=round_.version,
            round=round_.number,
            run=policy.run,
            bundle=policy.bundle,
            policy=job.accepted.digest,
            origin="merge",
            digest=digest(body),
            size=len(body),
            created=now,
            details=merging.details(job, round_, entries, event, self._stopping, cause, accuracy),
            body=body,
        )
        settings = self._settings
        async with self._database.transaction() as tx:
            await tx.lock(books.LOCK)
            for row in await books.take_faults(tx):
                self._charge(row, now)
            new = new.without(await self._erased.look(tx, self._reputation))
            await merging.keep(tx, new, len(entries), settings.hub)
            await books.move_round(tx, round_.number, RoundState.CLOSED, RoundState.DONE)
            await books.set_state(tx, "reputation", self._reputation.dump(now))
            await books.set_state(tx, "stopping", self._stopping.dump())
            await books.prune(
                tx, round_.number, settings.rounds_kept, new.number, settings.versions_kept
            )
        self._said("merge", f"round {round_.number} merged {len(entries)} updates")

    def _charge(self, row: Row, now: float) -> None:
        client = bytes.fromhex(row["client"])
        for _ in range(min(row["times"], FAULTS_MAX)):
            why = self._reputation.fault(client, Fault(row["fault"]), now)
            if why is not None:
                self._quarantined(client, why, now)

    def _quarantined(self, client: bytes, why: str, now: float) -> None:
        self._reputation.record(client, int(now))
        self._said("quarantine", f"{client.hex()} is quarantined: {why}")


def _is_measured(stopping: Stopping) -> bool:
    """Do figures of held-out data come in, so that they may decide?"""
    return stopping.best_accuracy is not None or stopping.best_loss is not None
