"""What a member pulls while its group sums: the others' heads, and the objects that these name.

A head request to each member is held by its server until there is something new. What a member
signed is asked of itself first, then of the others: whoever read it serves it too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gossipfl.core import Core
from gossipfl.groups.messages import SIGNED_BYTES_MAX
from gossipfl.groups.plan import Plan
from gossipfl.messages import SumRef
from gossipfl.pulls import Pending, Purpose

ASKING = frozenset({Purpose.SUMS, Purpose.SUM_OBJECT, Purpose.SUM_VECTOR})
REASK_S = 0.02  # as the collector's: a server that does not hold requests is not asked in a loop
PAUSES = 8  # in a step: how often what failed is tried again. Guess
LOST_PAUSES = 3  # after so many an answer is taken for lost, and asked for anew. Guess
FETCHED_MAX = 12 * 16  # objects named by heads in one attempt: two of each step and member


@dataclass(slots=True)
class _Wish:
    """An object that is not here yet. `holders` are asked in turn."""

    purpose: Purpose
    holders: list[bytes]
    tries: int = 0
    at: float = 0.0  # not before
    asked: bytes | None = None  # who is being asked
    since: float = 0.0


class Exchange:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._plan: Plan | None = None
        self._pause_s = 1.0
        self.vectors: dict[bytes, bytes] = {}  # masked vectors that are here, by digest
        self._wishes: dict[bytes, _Wish] = {}
        self._named: set[bytes] = set()  # by heads, in this attempt
        self._again: dict[bytes, float] = {}  # member -> when to ask for its head again
        self._late: dict[bytes, float] = {}  # member -> when its answer has got lost
        self.due = math.inf

    @property
    def _others(self) -> list[bytes]:
        plan, core = self._plan, self._core
        if plan is None:
            return []
        return [d for d in plan.members if d != core.device and not core.is_barred(d)]

    def open(self, plan: Plan, step_s: float) -> None:
        """An attempt begins."""
        self.close()
        self._plan, self._pause_s = plan, step_s / PAUSES
        for device in self._others:
            peer = self._core.book.peers.get(device)
            if peer is not None and peer.head is not None and peer.head.group is not None:
                self.new_head(device, peer.head.group)

    def close(self) -> None:
        """It is over. Others may still need the vectors that we hold."""
        core = self._core
        if self._plan is None:
            return
        self._plan = None
        for name, data in self.vectors.items():
            core.shelf.put(name, data)
        self.vectors, self._wishes, self._named = {}, {}, set()
        self._again, self._late = {}, {}
        self.due = math.inf
        core.emit(*core.pulls.cancel(ASKING))

    # --- wishes ----------------------------------------------------------------------------

    def new_head(self, device: bytes, ref: SumRef) -> None:
        """A member's head names its objects of an attempt; if it is ours, fetch what is new."""
        plan = self._plan
        if plan is None or ref.attempt != plan.id or device not in plan.members:
            return
        for name in ref.objects:
            if name not in self._named and len(self._named) < FETCHED_MAX:
                self._named.add(name)
                self.want(device, name, Purpose.SUM_OBJECT)

    def want(self, device: bytes, name: bytes, purpose: Purpose) -> None:
        """An object that this member signed, or its masked vector."""
        if name in self._wishes or name in self.vectors or device == self._core.device:
            return
        if len(self._wishes) >= FETCHED_MAX or self._is_full(purpose):
            return
        others = self._others
        first = [device] if device in others else []
        self._wishes[name] = _Wish(purpose, first + [d for d in others if d != device])

    def _is_full(self, purpose: Purpose) -> bool:
        """Are two vectors of each member here, or asked for? Who names a third lies."""
        wished = sum(wish.purpose is Purpose.SUM_VECTOR for wish in self._wishes.values())
        members = len(self._plan.members) if self._plan is not None else 0
        return purpose is Purpose.SUM_VECTOR and len(self.vectors) + wished >= 2 * members

    @property
    def fetching(self) -> int:
        """Objects that are asked for, or will be."""
        return len(self._wishes)

    def arrived(self, name: bytes) -> None:
        self._wishes.pop(name, None)

    def failed(self, pending: Pending) -> None:
        """A request of ours brought nothing."""
        now = self._core.now
        if pending.purpose is Purpose.SUMS and pending.device is not None:
            self._again[pending.device] = now + self._pause_s
        wish = self._wishes.get(pending.digest or b"")
        if wish is not None and wish.asked == pending.device:
            self._missed(wish)

    def _missed(self, wish: _Wish) -> None:
        wish.tries, wish.asked = wish.tries + 1, None
        if not wish.holders or wish.tries % len(wish.holders) == 0:  # nobody has it yet
            wish.at = self._core.now + self._pause_s

    # --- requests --------------------------------------------------------------------------

    def advance(self, until: float) -> None:
        """Ask for whatever is not being asked for. `until`: when the attempt moves on anyhow."""
        if self._plan is None:
            return
        self.due = math.inf
        for device in self._others:
            self._ask(device, until)
        for name, wish in self._wishes.items():
            self._fetch(name, wish)

    def _ask(self, device: bytes, until: float) -> None:
        core, now = self._core, self._core.now
        if core.pulls.is_asked(device, Purpose.SUMS):
            late = self._late.get(device, 0.0)
            if now < late:
                self.due = min(self.due, late)
                return
            core.emit(*core.pulls.give_up(device, Purpose.SUMS))
        peer, again = core.book.peers.get(device), self._again.get(device, 0.0)
        if now < again or peer is None or peer.address is None:
            self.due = min(self.due, max(again, now + self._pause_s))
            return
        self._again[device] = now + REASK_S
        pending = Pending(Purpose.SUMS, peer.address, device, seq=peer.seq)
        wait_s = max(0.0, min(core.limits.head_wait_s, until - now, LOST_PAUSES * self._pause_s))
        self._late[device] = now + wait_s + LOST_PAUSES * self._pause_s
        effects = core.pulls.head(pending, etag=peer.head_digest, wait_s=wait_s)
        core.emit(*effects)
        if not effects:  # too many are out
            self.due = min(self.due, now + self._pause_s)

    def _fetch(self, name: bytes, wish: _Wish) -> None:
        core, now = self._core, self._core.now
        if not wish.holders:
            return
        if wish.asked is not None:
            pauses = PAUSES if wish.purpose is Purpose.SUM_VECTOR else LOST_PAUSES
            late = wish.since + pauses * self._pause_s
            if now < late:
                self.due = min(self.due, late)
                return
            core.emit(*core.pulls.give_up(wish.asked, wish.purpose, name))
            self._missed(wish)
        if now < wish.at:
            self.due = min(self.due, wish.at)
            return
        for _ in wish.holders:
            device = wish.holders[wish.tries % len(wish.holders)]
            peer = core.book.peers.get(device)
            if peer is not None and peer.address is not None:
                pending = Pending(wish.purpose, peer.address, device, digest=name)
                core.emit(*core.pulls.object(pending, self._bytes_max(wish)))
                if core.pulls.is_wanted(pending):
                    wish.asked, wish.since = device, now
                    self.due = min(self.due, now + LOST_PAUSES * self._pause_s)
                break
            self._missed(wish)
            if now < wish.at:
                break
        if wish.asked is None:
            wish.at = max(wish.at, now + self._pause_s)
            self.due = min(self.due, wish.at)

    def _bytes_max(self, wish: _Wish) -> int:
        is_vector = wish.purpose is Purpose.SUM_VECTOR and self._plan is not None
        return self._plan.vector_bytes if is_vector and self._plan else SIGNED_BYTES_MAX
