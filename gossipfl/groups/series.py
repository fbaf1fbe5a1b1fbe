"""From attempt to attempt: what a member remembers, and which attempt it may enter next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from gossipfl.groups.attempt import Attempt
from gossipfl.groups.plan import Plan
from gossipfl.groups.shamir import Entropy
from gossipfl.groups.steps import KEYS_SEEN_MAX, Journal
from gossipfl.identity import Signer

WINDOWS_REFUSED = 64  # guess: then a device may try again; proof has other consequences than this
REFUSED_MAX = 256  # guess: devices remembered


class Series:
    """One member's attempts. The journal is what was read from disk; the rest may be lost.

    entropy(count): secret uniform bytes of the operating system. step_s: seconds a step; window_s:
    how far apart the numbers of two windows are. Both are the policy's, and change with it.
    """

    def __init__(
        self,
        signer: Signer,
        entropy: Entropy,
        step_s: float,
        journal: Journal | None = None,
    ) -> None:
        self.journal = journal or Journal(window=0, attempt=0)
        self.step_s, self.window_s = step_s, 1
        self._signer, self._entropy = signer, entropy
        self._used: OrderedDict[bytes, bytes] = OrderedDict()  # public key -> who published it
        self._refused: OrderedDict[bytes, int] = OrderedDict()  # device -> window of its lie

    def enter(self, plan: Plan, vector: bytes, barred: Collection[bytes] = ()) -> Attempt | None:
        """The attempt, to be started; None if it was entered before, or if the vector (by digest)
        went out masked before: train anew, or wait for the next window. barred: devices that are
        shut out for other reasons."""
        if not self.journal.may_enter(plan, vector):
            return None
        since = plan.window - WINDOWS_REFUSED * self.window_s
        refused = [
            place
            for place, device in enumerate(plan.members)
            if device in barred or self._refused.get(device, since) > since
        ]
        return Attempt(
            plan,
            self._signer,
            self._entropy,
            self.step_s,
            self.journal,
            vector,
            self._used,
            refused,
        )

    def leave(self, attempt: Attempt) -> None:
        """After it ended, or was given up: its keys are burnt, its liars are remembered."""
        self.journal = attempt.journal
        self._used |= dict(sorted(attempt.view.keys_seen.items()))
        while len(self._used) > KEYS_SEEN_MAX:
            self._used.popitem(last=False)
        for place in sorted(attempt.liars):
            self._refused[attempt.plan.members[place]] = attempt.plan.window
        while len(self._refused) > REFUSED_MAX:
            self._refused.popitem(last=False)
