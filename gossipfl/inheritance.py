"""What an old key of this device spent, as peers know it: a new key takes no ledger on trust.

The ledger comes from the old key's disk, which may have been an old copy. Peers keep the newest
head that they saw of the old key, and heads commit to ledgers: if one of them names entries that
are not here, more was spent than is known. Until a peer that knows the old key has answered,
nothing is released; if nobody alive knows it, nothing ever is. Where an old key's question was
never answered, the next key has it too.
"""

from __future__ import annotations

import math
from collections import Counter

from gossipfl.core import Core
from gossipfl.events import FetchFailed, Topic
from gossipfl.identity import short_name
from gossipfl.membership import Known
from gossipfl.messages import ChainRef, Head
from gossipfl.pulls import Pending, Purpose
from gossipfl.wire import Envelope, check_signature, decode

PEERS = 3  # protocol k, as for our own head after a restart
ASKED_AT_ONCE = 6
AGAIN_S = 10.0  # who has not answered is asked again: guess, a few polls
WAITING = "what this device spent under its old key is not confirmed by a peer that knew it"


class Inheritance:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._line: tuple[bytes, ...] = ()  # old keys' devices whose heads must be seen, in order
        self._entries: frozenset[ChainRef] = frozenset()
        self._answers: dict[tuple[bytes, bytes], bool] = {}  # (peer, device): holds it a head?
        self._asked_at: dict[tuple[bytes, bytes], float] = {}
        self._since = math.inf

    def begin(self, line: tuple[bytes, ...], entries: frozenset[ChainRef]) -> None:
        """The ledger with these entries, or none, was taken over from the devices of `line`."""
        self._line, self._entries = line, entries

    @property
    def is_settled(self) -> bool:
        """May the ledger be trusted?"""
        return not self._line

    def is_about(self, device: bytes | None) -> bool:
        """Is this one of the old keys that peers are asked about?"""
        return device in self._line

    # --- asking ----------------------------------------------------------------------------

    def advance(self) -> None:
        """At each poll: ask who has not answered."""
        core = self._core
        if self.is_settled or core.budget.agreed is None:
            return
        self._since = min(self._since, core.now)
        for peer in list(core.book.live(core.now)):
            for device in self._line:
                key = (peer.device, device)
                asked_at = self._asked_at.get(key)
                early = asked_at is not None and core.now - asked_at < AGAIN_S
                if key in self._answers or early or peer.address is None:
                    continue
                if core.pulls.out(Purpose.INHERIT) >= ASKED_AT_ONCE:
                    return
                pending = Pending(Purpose.INHERIT, peer.address, peer.device, about=device)
                effects = core.pulls.head(pending, etag=None)
                if effects:
                    self._asked_at[key] = core.now
                    core.emit(*effects)
        self._judge()

    # --- answers ---------------------------------------------------------------------------

    def head(self, pending: Pending, envelope: Envelope, known: Known) -> None:
        """A peer's newest head of an old key. Raises PeerError if it is none."""
        core = self._core
        core.pure(check_signature, envelope)
        head = core.pure(decode, envelope.payload, Head, core.limits.head_bytes)
        if head.device != known.member.device or head.device != pending.about:
            return  # of somebody else: that peer has said nothing
        if head.ledger is not None and head.ledger not in self._entries:
            self._line = ()
            core.budget.disown(
                f"{short_name(head.device)} has spent more than the ledger that came from its disk"
            )
            return
        self._answered(pending, True)

    def failed(self, pending: Pending, event: FetchFailed) -> None:
        if pending.purpose is Purpose.INHERIT and event.absent:
            self._answered(pending, False)

    def _answered(self, pending: Pending, holds: bool) -> None:
        if pending.device is not None and pending.about is not None and not self.is_settled:
            self._answers[pending.device, pending.about] = holds
            self._judge()

    def _judge(self) -> None:
        """Are there answers enough? Of all who can be asked now, for a while: the newest release
        may have been seen by one of them only."""
        core = self._core
        policy = core.job.policy
        if policy is None or self.is_settled:
            return
        live = [peer.device for peer in core.book.live(core.now)]
        all_said = all((peer, old) in self._answers for peer in live for old in self._line)
        if not all_said and core.now - self._since < AGAIN_S:
            return
        said = Counter(peer for peer, _ in self._answers)
        complete = sum(count == len(self._line) for count in said.values())
        shown = {old for (_, old), holds in self._answers.items() if holds}
        denied = Counter(old for (_, old), holds in self._answers.items() if not holds)
        # A key that never came up is nobody's: of all but the first, most of the fleet may say so.
        first, *later = self._line
        known = first in shown and all(
            old in shown or denied[old] > (policy.n - 1) // 2 for old in later
        )
        if known and complete >= min(PEERS, policy.n - 1):
            self._line = ()
            core.notice(Topic.PRIVACY, "peers confirm what this device spent under its old key")
            core.budget.look()
