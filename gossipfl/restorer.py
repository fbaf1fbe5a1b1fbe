"""Own state after a restart: nothing is signed before peers were asked what they hold of us.

A disk may be an old copy. If a peer holds a newer head of ours, it is adopted (together with the
ledger that it commits to) and the chain goes on from there, so that no number is used twice. A disk
that has lost all but its keys is worse: head 1 cannot skip numbers, so a majority of the fleet has
to say that it holds nothing of ours (decision 0005).
"""

from __future__ import annotations

import math

from gossipfl.chains import SeenHead
from gossipfl.core import Core
from gossipfl.events import FetchFailed, Topic
from gossipfl.pulls import Pending, Purpose

RECONCILE_PEERS = 3  # protocol k
RESTORE_SKIP = 2**20
"""Numbers left out after a restore, and up to as many again by chance: two restores of one copy
must not meet. The peers that answered may not have seen our newest head, so the next one takes a
number that we cannot have signed: a year of heads at one in 30 s."""


class Restorer:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._asked: dict[bytes, bool] = {}  # peers asked for our own head: answered?
        self._holders: set[bytes] = set()  # of them, who holds a head of ours
        self._since = math.inf
        self._newest_own: SeenHead | None = None
        self._told = False

    @property
    def has_lost_store(self) -> bool:
        """Keys that may have signed heads, a disk without any, and nobody has shown us one yet."""
        core = self._core
        if core.restraint.reconciled or core.settings.first_start or core.own.seq > 0:
            return False
        return self._newest_own is None

    @property
    def waiting_for(self) -> str:
        """What keeps us from signing, in words."""
        if not self.has_lost_store:
            return self._waits_for_word()
        said = f"{sum(self._asked.values())} of {self._majority()} peers"
        return f"{said} to say what they hold of this device: it has keys and an empty store"

    def _waits_for_word(self) -> str:
        answered = sum(self._asked.values())
        if not self._core.budget.releases or not answered:
            return "a first peer to answer"
        if not self._can_tell():
            return "a peer that knows this device, or most of them to know nothing of it"
        return f"{answered} of {self._needed(answered)} peers to say what this device has released"

    def advance(self) -> None:
        """Ask k peers for our own newest head before we sign anything."""
        core = self._core
        live = list(core.book.live(core.now))
        self._since = min(self._since, core.now)
        # Who was expelled meanwhile answers no more: its request was cancelled.
        self._asked = {d: said for d, said in self._asked.items() if said or d in core.book.peers}
        needed = self._needed(len(live))
        answered = sum(self._asked.values())
        # Stallers are asked again and again: after a while nobody waits for them.
        all_said = self._is_late() or answered == len(self._asked)
        enough = 0 < needed <= answered and all_said
        if enough and self._can_tell() and not core.publisher.is_busy:
            self._reconciled()
            return
        self._tell()
        for peer in live:
            if len(self._asked) >= RECONCILE_PEERS + answered:
                return
            if peer.device not in self._asked:
                if peer.address is None:
                    continue
                pending = Pending(Purpose.RECONCILE, peer.address, peer.device, about=core.device)
                effects = core.pulls.head(pending, etag=core.own.digest)
                if not effects:
                    return  # too many requests are out: at the next deadline
                self._asked[peer.device] = False
                core.emit(*effects)

    def _needed(self, live: int) -> int:
        """Answers wanted: k, or all others of a small fleet; after a while those that are live.

        Right after a start only one peer may be found yet, and that one may know the least. With
        releases in the ledger k it stays, for that one may have been off as well; only those that
        the policy assumes to be liars need not answer.
        """
        if self.has_lost_store:
            return self._majority()
        if self._core.budget.releases:
            if self._is_late():
                return self._needed_of_honest(live)
            return max(live, self._needed_at_first(live))  # one of them may know of one more
        return min(RECONCILE_PEERS, live) if self._is_late() else self._needed_at_first(live)

    def _is_late(self) -> bool:
        core = self._core
        patience = core.pace.round_deadline_s if core.own.seq else core.pace.join_wait_s
        if core.budget.releases:  # what was released twice cannot be taken back
            patience = core.pace.stale_s
        return core.now - self._since > patience

    def _majority(self) -> int:
        """More than half of the others, as the policy counts them; k while there is none.

        Every peer that was live for a few polls holds our newest head, over its restarts too.
        """
        policy = self._core.job.policy
        return (policy.n - 1) // 2 + 1 if policy is not None else RECONCILE_PEERS

    def _tell(self) -> None:
        """A person may know better: say once how to go on."""
        core = self._core
        late = core.now - self._since > core.pace.join_wait_s
        if self._told or not late or not self.has_lost_store:
            return
        self._told = True
        text = (
            f"nothing is published: waits for {self.waiting_for}. Join again with `gossipfl join "
            "LINE --replace`; or, if these keys have never signed anything, `gossipfl first-start`"
        )
        core.notice(Topic.RESTORE, text, core.device, True)

    def _needed_of_honest(self, live: int) -> int:
        policy = self._core.job.policy
        if policy is None:
            return self._needed_at_first(live)
        return max(1, min(RECONCILE_PEERS, policy.n - 1 - policy.attackers))

    def _needed_at_first(self, live: int) -> int:
        policy = self._core.job.policy
        if policy is None:
            return min(RECONCILE_PEERS, live) if self._core.own.seq == 0 else RECONCILE_PEERS
        return min(RECONCILE_PEERS, policy.n - 1)

    def _is_doubtful(self) -> bool:
        """May we have signed more than disk and peers say? Numbers are plenty: then leave some out.

        Not everybody has answered, nobody held a head of ours, or the disk is older than a restart
        takes: an old copy, or a device that was off for long. A copy may be a second old, and the
        heads of that second with one peer only: k answers are enough to go on, not to be sure.
        """
        core = self._core
        policy = core.job.policy
        others = policy.n - 1 if policy is not None else RECONCILE_PEERS
        few = sum(self._asked.values()) < others
        old = core.time() - core.own.issued > max(
            2 * core.pace.round_interval_s, core.pace.round_deadline_s
        )
        return few or old or not self._holders

    def _can_tell(self) -> bool:
        """Do the answers say what our newest head was?

        Who once published is known to somebody. If nobody alive remembers (a whole fleet restored),
        we go on after a while, at a number that nobody can have seen.
        """
        if self._core.own.seq == 0 or self._holders:
            return True
        if self._core.budget.releases and sum(self._asked.values()) < self._majority():
            return False  # it may have spent more than this disk says, and would spend it twice
        return self._core.now - self._since > self._core.pace.stale_s

    def own_head_seen(self, pending: Pending, seen: SeenHead) -> None:
        """A head signed with our key came from somewhere."""
        core = self._core
        if pending.purpose is Purpose.CONTACT and pending.about is None:
            core.book.is_self(pending.address)
            return
        self.own_head_elsewhere(seen)
        if pending.device is not None and pending.purpose is Purpose.RECONCILE:
            self._asked[pending.device] = True
            self._holders.add(pending.device)

    def own_head_elsewhere(self, seen: SeenHead) -> None:
        """Compare with what our own disk says, and adopt what is newer."""
        core = self._core
        if seen.head.seq == core.own.seq and seen.digest != core.own.digest:
            self._conflict("somebody else signs heads with this device's key")
        elif seen.head.seq > core.own.seq:
            if core.restraint.reconciled:
                self._conflict("heads newer than ours are signed with this device's key")
            elif self._newest_own is None or seen.head.seq > self._newest_own.head.seq:
                self._newest_own = seen

    def _conflict(self, what: str) -> None:
        core = self._core
        if not core.restraint.conflict:
            core.restraint.conflict = f"{what}: join with a new state folder"
            core.notice(Topic.RESTORE, core.restraint.conflict, core.device, True)

    def _reconciled(self) -> None:
        core = self._core
        newest = self._newest_own
        if newest is not None and newest.head.seq > core.own.seq:
            if not core.budget.holds(newest.head.ledger):
                core.budget.fall_behind(
                    "a newer head commits to a privacy ledger that is not on this disk"
                )
            else:
                had = core.own.seq
                core.publisher.adopt(newest)
                core.own.skip = self._skip()
                core.notice(
                    Topic.RESTORE,
                    f"peers hold our head {newest.head.seq}, the disk had {had}: adopted",
                    core.device,
                    True,
                )
        else:
            core.publisher.serve_restored()
            if core.own.seq and self._is_doubtful():
                core.own.skip = self._skip()
        core.restraint.reconciled = True
        core.rounds.next_at = core.now
        core.publisher.want_head()

    def _skip(self) -> int:
        return RESTORE_SKIP + self._core.entropy.randrange(RESTORE_SKIP)

    def fetch_failed(self, pending: Pending, event: FetchFailed) -> None:
        if pending.purpose is Purpose.RECONCILE and pending.device is not None:
            if event.absent:
                self._asked[pending.device] = True
            else:
                self._asked.pop(pending.device, None)

    def refused(self, pending: Pending) -> None:
        """A carrier's answer about our own head is no head of ours: it has said nothing.

        Not asked again: a liar that could have said "nothing here" must not hold us up with more.
        """
        if pending.purpose is Purpose.RECONCILE and pending.device is not None:
            self._asked[pending.device] = True

    def not_modified(self, pending: Pending) -> None:
        if pending.purpose is Purpose.RECONCILE and pending.device is not None:
            self._asked[pending.device] = True
            self._holders.add(pending.device)
