"""What a member pulls while its group sums: the others' heads, and the objects that these name.

A head request to each member is held by its server until there is something new. What a member
signed is asked of itself first, then of who named it, then of the others: whoever read it serves it
too.

Who names an object has read it, if it is honest. So it answers for what the bytes are, whoever
serves them; and what nobody has takes the room of who named it, and of nobody else.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass

from gossipfl.core import Core
from gossipfl.groups.messages import SIGNED_BYTES_MAX
from gossipfl.groups.plan import GROUP_MAX, Plan
from gossipfl.messages import SumRef
from gossipfl.pulls import Pending, Purpose

ASKING = frozenset({Purpose.SUMS, Purpose.SUM_OBJECT, Purpose.SUM_VECTOR})
REASK_S = 0.02  # as the collector's: a server that does not hold requests is not asked in a loop
PAUSES = 8  # in a step: how often what failed is tried again. Guess
LOST_PAUSES = 3  # after so many an answer is taken for lost, and asked for anew. Guess
NAMED_MAX = 12  # objects that one member's heads name in one attempt: two of each step
WISHED_MAX = NAMED_MAX + 6 * GROUP_MAX  # of one member: its heads', and two lists of three kinds
ASKED_MAX = 6  # of one member, at one time: what an honest one names in an attempt
HURRIED = 2  # tries without a pause: its signer, and one more


@dataclass(slots=True)
class _Wish:
    """An object that is not here yet. `holders` are asked in turn; `namers` say that it is one."""

    namers: list[bytes]
    holders: deque[bytes]
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
        self._wishes: dict[tuple[Purpose, bytes], _Wish] = {}
        self._named: dict[bytes, set[bytes]] = {}  # member -> what its heads named
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
        self.vectors, self._wishes, self._named = {}, {}, {}
        self._again, self._late = {}, {}
        self.due = math.inf
        core.emit(*core.pulls.cancel(ASKING))

    # --- wishes ----------------------------------------------------------------------------

    def new_head(self, device: bytes, ref: SumRef) -> None:
        """A member's head names its objects of an attempt; if it is ours, fetch what is new."""
        plan = self._plan
        if plan is None or ref.attempt != plan.id or device not in plan.members:
            return
        named = self._named.setdefault(device, set())
        for name in ref.objects:
            if name not in named and len(named) < NAMED_MAX:
                named.add(name)
                self.want(name, Purpose.SUM_OBJECT, device, device)

    def want(self, name: bytes, purpose: Purpose, signer: bytes, namer: bytes) -> None:
        """An object that `signer` signed, or its masked vector, as `namer` says."""
        if name in self.vectors or signer == self._core.device:
            return
        wish = self._wishes.get((purpose, name))
        if wish is not None:
            if namer not in wish.namers:
                wish.namers.append(namer)
                self._has_it(wish, namer)
            return
        if sum(namer in wish.namers for wish in self._wishes.values()) >= WISHED_MAX:
            return
        wish = self._wishes[purpose, name] = _Wish([namer], deque(self._others))
        self._has_it(wish, namer)
        self._has_it(wish, signer)

    def _has_it(self, wish: _Wish, device: bytes) -> None:
        """It is the next to be asked, and soon."""
        if device in wish.holders and device != wish.asked:
            wish.holders.remove(device)
            wish.holders.insert(0 if wish.asked is None else 1, device)
            wish.at = 0.0

    @property
    def fetching(self) -> int:
        """Objects that are asked for, or will be."""
        return len(self._wishes)

    def arrived(self, purpose: Purpose, name: bytes) -> None:
        self._wishes.pop((purpose, name), None)

    def failed(self, pending: Pending) -> None:
        """A request of ours brought nothing."""
        now = self._core.now
        if pending.purpose is Purpose.SUMS and pending.device is not None:
            self._again[pending.device] = now + self._pause_s
        wish = self._wishes.get((pending.purpose, pending.digest or b""))
        if wish is not None and wish.asked == pending.device:
            self._missed(wish)

    def _missed(self, wish: _Wish) -> None:
        """Pauses double up to a step: what was invented must not keep all members busy."""
        wish.tries, wish.asked = wish.tries + 1, None
        wish.holders.rotate(-1)
        if wish.tries >= HURRIED:
            wish.at = self._core.now + self._pause_s * min(PAUSES, 2 ** (wish.tries - HURRIED))

    # --- requests --------------------------------------------------------------------------

    def advance(self, until: float) -> None:
        """Ask for whatever is not being asked for. `until`: when the attempt moves on anyhow."""
        if self._plan is None:
            return
        self.due = math.inf
        for device in self._others:
            self._ask(device, until)
        busy: Counter[bytes] = Counter()
        for (purpose, name), wish in self._wishes.items():
            namer = next((d for d in wish.namers if busy[d] < ASKED_MAX), None)
            if namer is not None:
                busy[namer] += 1
                self._fetch(purpose, name, wish)

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

    def _fetch(self, purpose: Purpose, name: bytes, wish: _Wish) -> None:
        core, now = self._core, self._core.now
        if wish.asked is not None:
            pauses = PAUSES if purpose is Purpose.SUM_VECTOR else LOST_PAUSES
            late = wish.since + pauses * self._pause_s
            if now < late:
                self.due = min(self.due, late)
                return
            core.emit(*core.pulls.give_up(wish.asked, purpose, name))
            self._missed(wish)
        for _ in range(len(wish.holders)):
            if now < wish.at:
                break
            device = wish.holders[0]
            peer = core.book.peers.get(device)
            if peer is None or peer.address is None:
                self._missed(wish)
                continue
            pending = Pending(purpose, peer.address, device, digest=name, about=wish.namers[0])
            core.emit(*core.pulls.object(pending, self._bytes_max(purpose)))
            if core.pulls.is_wanted(pending):
                wish.asked, wish.since = device, now
                self.due = min(self.due, now + LOST_PAUSES * self._pause_s)
                return
            break  # too many are out
        if now >= wish.at:
            wish.at = now + self._pause_s
        self.due = min(self.due, wish.at)

    def _bytes_max(self, purpose: Purpose) -> int:
        is_vector = purpose is Purpose.SUM_VECTOR and self._plan is not None
        return self._plan.vector_bytes if is_vector and self._plan else SIGNED_BYTES_MAX
