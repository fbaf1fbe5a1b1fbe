"""Durable before public: composes our heads, commits them, and only then puts them on the shelf.

One commit at a time. What changes while one is under way goes into the next. After a failed or
doubtful commit the node re-reads what is durable before it signs anything again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gossipfl.chains import SeenHead
from gossipfl.codecs import parse
from gossipfl.core import Core
from gossipfl.documents import dump
from gossipfl.events import Batch, Commit, Reload, Snapshot, Topic
from gossipfl.keeper import Keeper
from gossipfl.messages import Head, UpdateRef
from gossipfl.naming import next_refs
from gossipfl.objects import digest
from gossipfl.ownchain import ChapterLog, Link, Refs
from gossipfl.shelf import Served

RETRY_S = 1.0  # first pause after a failed commit; doubles up to RETRY_MAX_S
RETRY_MAX_S = 60.0
SAVE_S = 10.0  # documents that no head waits for are saved this often: guess


@dataclass(slots=True)
class _Flight:
    """A commit under way: what becomes true when it comes back."""

    commit: int
    batch: Batch
    link: Link | None
    refs: Refs | None
    log: ChapterLog | None
    update: bytes | None
    documents: frozenset[str]
    objects: dict[bytes, bytes]


class Publisher:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._flight: _Flight | None = None
        self._commits = 0
        self._doubt = False
        self._failures = 0
        self._dirty: set[str] = set()
        self._later: set[str] = set()
        self.keeper = Keeper(core)
        self._update: tuple[UpdateRef, bytes] | None = None
        self._new_update = False
        self._head_at = math.inf
        self._save_at = math.inf
        self._last_head_at = -math.inf
        self._receipt: bytes | None = None
        self._adopting: Batch | None = None
        self._restored: Served | None = None
        self._retry_at = -math.inf
        self.stopping = False

    # --- wishes ----------------------------------------------------------------------------

    def touch(self, *documents: str, within_s: float = SAVE_S) -> None:
        """These documents changed and want to be durable."""
        self._dirty.update(documents)
        self._save_at = min(self._save_at, self._core.now + within_s)

    def touch_later(self, *documents: str) -> None:
        """These change at each pull, and in a large fleet they are most of what a round writes."""
        self._later.update(documents)
        self._save_at = min(self._save_at, self._core.now + SAVE_S)

    def store(self, data: bytes) -> bytes:
        """This object becomes durable with the next commit. Returns its digest."""
        return self.keeper.store(data)

    def retire(self, *names: bytes) -> None:
        """These objects leave the store with the next commit."""
        self.keeper.retire.extend(names)

    def want_head(self, now: bool = False) -> None:
        """Something that heads name has changed: issue one, but not more often than the pace; or
        `now`, where others wait for it."""
        earliest = self._last_head_at + self._core.pace.head_interval_s
        due = self._core.now if now else max(self._core.now, earliest)
        self._head_at = min(self._head_at, due)

    def receipt(self, link: Link, chapter: bytes) -> None:
        """A new own receipt, and the chapter that it completes, if any."""
        self._receipt = link.envelope
        self.keeper.link("receipt", link, chapter)
        # A head that only adds a receipt waits a little: the next update's head may carry it.
        due = self._core.now + self._core.pace.head_interval_s
        self._head_at = min(self._head_at, due)

    def publish(self, ref: UpdateRef, data: bytes, beside: Sequence[bytes] = ()) -> None:
        """A new own update: goes out with the next head, at once. `beside` are new parts of it."""
        self.keeper.parts = parse(ref.codec).parts
        for part in beside:
            self.keeper.published(self.keeper.store(part))
        if self.keeper.parts > 1:  # later updates name it, even if no head of its own comes out
            self.keeper.published(ref.digest)
        self._update = (ref, data)
        self._new_update = True
        self.keeper.objects[ref.digest] = data
        self._head_at = self._core.now

    def forget_update(self) -> None:
        """Another lineage: the next head names no update."""
        self._update, self._new_update = None, False
        self.want_head()

    @property
    def has_new_update(self) -> bool:
        """One that no durable head names yet."""
        return self._new_update

    # --- the commit ------------------------------------------------------------------------

    @property
    def due(self) -> float:
        if self._flight is not None or self._doubt:
            return math.inf
        if self._adopting is not None:
            return self._retry_at
        return min(self._head_at, self._save_at)

    @property
    def may_sign(self) -> bool:
        restraint = self._core.restraint
        return restraint.reconciled and not restraint.conflict

    def advance(self) -> None:
        """Start a commit if one is due and none is under way."""
        core = self._core
        if self._flight is not None or self._doubt:
            return
        if self._adopting is not None:
            if core.now >= self._retry_at:
                self._commit_adoption(self._adopting)
        elif core.now >= self._head_at and self.may_sign:
            self._commit_head()
        elif core.now >= self._save_at or (core.now >= self._head_at and self._dirty):
            self._head_at = math.inf if not self.may_sign else self._head_at
            self._commit_documents()
        elif core.now >= self._head_at:
            self._head_at = math.inf  # asked for again once we may sign

    def save_now(self) -> None:
        """Before stopping: what is left to save, without a new head."""
        self.stopping = True
        if not self.is_busy and (self._dirty or self._later):
            self._commit_documents()

    def _commit_head(self) -> None:
        core = self._core
        refs = next_refs(core, self.keeper, self._update[0] if self._update else None)
        if refs == core.own.refs and not self._new_update:
            self._head_at = math.inf
            return
        link, log, chapter = core.own.compose(refs, core.time())
        pruned = self.keeper.link("head", link, chapter)
        self._dirty |= {"logs", "kept"}
        self._start(link, refs, log, self._update[1] if self._update else None)
        if pruned:
            self.want_head()  # to name the marker

    def _commit_documents(self) -> None:
        self._start(None, None, None, None)

    def _start(
        self, link: Link | None, refs: Refs | None, log: ChapterLog | None, update: bytes | None
    ) -> None:
        core = self._core
        self._commits += 1
        keeper = self.keeper
        if link is None or core.now >= self._save_at:
            self._dirty |= self._later
            self._later.clear()
        retire = [name for name in keeper.retire if name not in keeper.objects]
        batch = Batch(
            seq=link.number if link else None,
            head=link.envelope if link else None,
            receipt=self._receipt,
            objects=tuple(keeper.objects.items()),
            documents={name: self._document(name, log) for name in sorted(self._dirty)},
            retire=tuple(retire),
            links=tuple(keeper.links),
            prune=tuple(keeper.prune),
            adopt=link is not None and core.own.skip > 0,
            ledger=core.budget.pending if link is not None else (),
        )
        dirty, objects = frozenset(self._dirty), dict(keeper.objects)
        self._flight = _Flight(self._commits, batch, link, refs, log, update, dirty, objects)
        self._dirty.clear()
        keeper.clear()
        self._save_at = self._save_at if self._later else math.inf
        if link is not None:
            self._head_at = math.inf
        core.emit(Commit(self._commits, batch))

    def _document(self, name: str, log: ChapterLog | None) -> bytes:
        """The kept digests are ours, the rest is what the other parts hold."""
        if name == "kept":
            return self.keeper.dump()
        return dump(self._core, name, log)

    # --- what became of it -----------------------------------------------------------------

    def stored(self, commit: int) -> None:
        flight = self._flight
        if flight is None or flight.commit != commit:
            return
        self._flight = None
        self._failures = 0
        if flight.batch is self._adopting:
            self._adopting = None
        if flight.batch.receipt is self._receipt:
            self._receipt = None
        if flight.link is not None and flight.refs is not None and flight.log is not None:
            self._went_public(flight, flight.link, flight.refs, flight.log)

    def _went_public(self, flight: _Flight, link: Link, refs: Refs, log: ChapterLog) -> None:
        core = self._core
        core.own.adopt(link, refs, log)
        core.budget.stored(flight.batch.ledger)
        self._last_head_at = core.now
        served = Served(
            link.envelope,
            link.digest,
            refs.member,
            flight.update,
            refs.update.digest if refs.update else None,
        )
        for name in flight.batch.retire:
            core.shelf.unpin(name)
        named = {refs.policy, *self.keeper.listed(), *core.sums.turns.names}
        if refs.update is not None:
            named.add(refs.update.digest)
        for name, data in flight.objects.items():
            if name in named:
                core.shelf.pin(name, data)
            else:
                core.shelf.put(name, data)
        core.shelf.set_own(core.device, served)
        if refs.update is not None:
            self.keeper.published(refs.update.digest)
        if self._new_update and self._update and refs.update == self._update[0]:
            self._new_update = False
            core.cycle.published()

    def failed(self, commit: int, reason: str) -> None:
        if self._flight is None or self._flight.commit != commit:
            return
        self._failures += 1
        self._doubt = True
        self._core.notice(
            Topic.STORE, f"saving failed, nothing was published: {reason}", warning=True
        )
        self._core.emit(Reload())

    def reloaded(self, snapshot: Snapshot) -> None:
        """What is durable decides whether the doubtful commit happened."""
        flight, self._flight, self._doubt = self._flight, None, False
        if flight is None:
            return
        if flight.link is not None and snapshot.head == flight.link.envelope:
            self._flight = flight
            self.stored(flight.commit)
            return
        pause = min(RETRY_MAX_S, RETRY_S * 2 ** min(self._failures - 1, 10))
        self._retry_at = self._core.now + pause
        if flight.batch is self._adopting:
            if snapshot.head == flight.batch.head:
                self._adopting = None
            return
        objects, links = flight.objects, flight.batch.links
        if flight.link is not None:
            # That head never was: its number is free, and another head will bear it.
            objects = {k: v for k, v in objects.items() if k != flight.link.digest}
            links = tuple(row for row in links if row[0] != "head")
        self.keeper.put_back(objects, flight.batch.retire, links, flight.batch.prune)
        self._dirty |= flight.documents
        self._last_head_at = max(
            self._last_head_at, self._core.now + pause - self._core.pace.head_interval_s
        )
        self._save_at = self._core.now + pause
        wished = self._core.now if flight.link is not None else self._head_at
        self._head_at = max(wished, self._core.now + pause)  # infinite if no head was wished for

    def restored(self, envelope: bytes, head: Head) -> None:
        """At start: the durable head, and what the store still holds stays under retention.

        It is served once peers were asked (`serve_restored`): a disk may be an old copy, and they
        would take an old head for a replay.
        """
        name = digest(envelope)
        update = head.update.digest if head.update else None
        self._restored = Served(envelope, name, head.member, None, update)
        self._update = None
        if update is not None:
            self.keeper.published(update)

    def serve_restored(self) -> None:
        """Nobody knows a newer head of ours."""
        if self._restored is not None:
            self._core.shelf.set_own(self._core.device, self._restored)

    def adopt(self, seen: SeenHead) -> None:
        """A newer head of ours, found at a peer after a restore: durable here before we go on."""
        core = self._core
        core.own.restore(seen.envelope)
        self.keeper.store(seen.envelope)
        self._adopting = Batch(
            seq=seen.head.seq,
            head=seen.envelope,
            objects=tuple(self.keeper.objects.items()),
            adopt=True,
        )
        self.keeper.objects.clear()
        self._retry_at = core.now  # in its turn: what follows a commit is dropped if it fails

    def _commit_adoption(self, batch: Batch) -> None:
        core = self._core
        self._commits += 1
        self._flight = _Flight(self._commits, batch, None, None, None, None, frozenset(), {})
        core.emit(Commit(self._commits, batch))

    @property
    def is_busy(self) -> bool:
        return self._flight is not None or self._doubt
