"""Bugs of own state put back: what is durable, what is public, what peers and clocks say."""

from __future__ import annotations

from sim.mutants.base import Mutant, full_of
from sim.mutate import Edit
from sim.plan import Focus

_UNDOUBTED = Edit(
    "gossipfl.restorer:Restorer._is_doubtful", "few or old or not self._holders", "False"
)

STATE: tuple[Mutant, ...] = (
    Mutant(
        "public-before-durable",
        "a head is served while its commit is under way",
        (
            Edit(
                "gossipfl.publisher:Publisher._start",
                "core.emit(Commit(self._commits, batch))",
                "core.emit(Commit(self._commits, batch))\n"
                "    if link is not None and refs is not None:\n"
                "        served = Served(link.envelope, link.digest, refs.member)\n"
                "        core.shelf.set_own(core.device, served)",
            ),
        ),
    ),
    Mutant(
        "failed-commit-is-done",
        "a commit that failed is taken for done",
        (
            Edit(
                "gossipfl.publisher:Publisher.failed",
                "self._failures += 1",
                "return self.stored(commit)",
            ),
        ),
        full_of("disk"),
    ),
    Mutant(
        "doubtful-commit-is-lost",
        "a commit that was done but reported as failed is taken for not done",
        (
            Edit(
                "gossipfl.publisher:Publisher.reloaded",
                "if flight.link is not None and snapshot.head == flight.link.envelope:",
                "if False:",
            ),
        ),
        full_of("disk"),
    ),
    Mutant(
        "seq-not-persisted",
        "a head goes out that the store does not keep",
        (
            Edit(
                "gossipfl.publisher:Publisher._start",
                "head=link.envelope if link else None,",
                "head=None,",
            ),
        ),
    ),
    Mutant(
        "chain-broken",
        "a head names an older one than the one before it",
        (
            Edit(
                "gossipfl.ownchain:OwnChain.adopt",
                "self.seq, self.digest, self.refs, self.heads_log = "
                "link.number, link.digest, refs, log",
                "self.seq, self.refs, self.heads_log = link.number, refs, log\n"
                "    self.digest = self.digest or link.digest",
            ),
        ),
    ),
    Mutant(
        "restored-asks-nobody",
        "a device with an old disk signs on without asking its peers",
        (
            Edit(
                "gossipfl.restorer:Restorer.advance",
                "if enough and self._can_tell() and not core.publisher.is_busy:",
                "if True:",
            ),
            _UNDOUBTED,
        ),
        full_of("restore"),
    ),
    Mutant(
        "first-peer-decides",
        "after a restart the first peer found decides alone, whatever it knows",
        (
            Edit(
                "gossipfl.restorer:Restorer._needed",
                "return min(RECONCILE_PEERS, live) if self._is_late() else "
                "self._needed_at_first(live)",
                "return min(1, live)",
            ),
            Edit(
                "gossipfl.restorer:Restorer._can_tell",
                "if self._core.own.seq == 0 or self._holders:",
                "if True:",
            ),
            _UNDOUBTED,
        ),
        full_of("restore", "restore", "partition", "sleep", "stop"),
    ),
    Mutant(
        "waits-for-the-expelled",
        "a peer that was expelled is waited for, for ever, before anything is signed",
        (
            Edit(
                "gossipfl.restorer:Restorer.advance",
                "if said or d in core.book.peers}",
                "}",
            ),
            Edit(
                "gossipfl.restorer:Restorer.advance",
                "self._is_late() or ",
                "",
            ),
        ),
        Focus(
            kinds=("crash", "stop", "restore"),
            liars=("fork", "odd_even"),
            liars_min=1,
            faults_min=8,
            rules=("nna",),
        ),
        known=3,
    ),
    Mutant(
        "lonely-clock-believed",
        "a wall clock that nobody has confirmed raises the durable floor of fleet time",
        (
            Edit(
                "gossipfl.fleettime:FleetClock.hear_wall",
                "self._move(wall, now, confirmed=False)",
                "self._move(wall, now, confirmed=True)",
            ),
            Edit(
                "gossipfl.fleettime:FleetClock.time",
                "self.raise_floor(int(min(time, self._ceiling)))",
                "self.raise_floor(time)",
            ),
        ),
        full_of("clock_jump", "crash", "stop"),
        known=2,
    ),
)
