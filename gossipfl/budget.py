"""What this device may still publish: the policy's privacy, its owner's floors, and the ledger.

A release is entered here before the head that names it is composed; rows leave for the store in
the commit of that head, and stay pending until it is durable. What was entered and never went out
is wasted: the ledger has at least what was released.
"""

from __future__ import annotations

from gossipfl.core import Core
from gossipfl.durable import LEDGER_BEHIND
from gossipfl.errors import LocalError
from gossipfl.events import Topic
from gossipfl.messages import ChainRef
from gossipfl.privacy import OFF, Noised, Protection, Publishable, Unprotected
from gossipfl.privacy.agreed import NO_FLOORS, Agreed, agreed
from gossipfl.privacy.entries import LedgerError, Row
from gossipfl.privacy.ledger import Floors, Ledger, Refusal, Spec, Terms, open_ledger, replay
from gossipfl.privacy.statement import Statement, statement

OWNER_DEMANDS = "this device's owner demands privacy, and the policy has none"
ONCE_PRIVATE = "this device has published under a privacy budget, and the policy has no privacy"
OTHER_POLICY = "it was trained before the policy changed its privacy"


class Budget:
    def __init__(self, core: Core, floors: Floors = NO_FLOORS) -> None:
        self._core = core
        self._floors = floors
        self._ledger: Ledger | None = None  # None: nothing was ever entered
        self._pending: list[Row] = []
        self._carried = False
        self._fits: tuple[tuple[ChainRef, Spec, Terms], Refusal | None] | None = None
        self._said: tuple[tuple[ChainRef, Agreed], Statement] | None = None

    # --- what is asked for -----------------------------------------------------------------

    @property
    def agreed(self) -> Agreed | None:
        """None while no policy asks for privacy."""
        policy = self._core.job.policy
        return agreed(policy.privacy, self._floors) if policy is not None else None

    @property
    def protection(self) -> Protection:
        found = self.agreed
        return found.spec if found is not None else OFF

    def look(self) -> None:
        """Whether the next release fits. If not, this node only listens, and says so."""
        core = self._core
        found = self.agreed
        core.restraint.private = found is not None
        why = self._refusal(found)
        if why != core.restraint.budget:
            core.restraint.budget = why
            text = f"only listening: {why}" if why else "publishes again: the next release fits"
            core.notice(Topic.PRIVACY, text, warning=bool(why))

    def _refusal(self, found: Agreed | None) -> str:
        if self._core.job.policy is None:
            return ""
        if found is not None:
            return self._unfit(found.spec, found.terms)
        if self._floors != NO_FLOORS:
            return OWNER_DEMANDS
        return ONCE_PRIVATE if self._ledger is not None and self._ledger.releases else ""

    def _unfit(self, spec: Spec, terms: Terms) -> str:
        """Up to 50 ms for many steps of unit=record: looked at once for each state."""
        ledger = self._opened[0]
        key = (ledger.ref, spec, terms)
        if self._fits is None or self._fits[0] != key:
            self._fits = (key, ledger.refusal(spec, terms))
        refusal = self._fits[1]
        return refusal.value if refusal is not None else ""

    # --- releases --------------------------------------------------------------------------

    @property
    def _opened(self) -> tuple[Ledger, list[Row]]:
        """The ledger, and the row that opens it if that is still to be entered."""
        if self._ledger is not None:
            return self._ledger, []
        core = self._core
        replaces = core.me.member.replaces
        ledger, row = open_ledger(core.device, replaces, replaces is not None and not self._carried)
        return ledger, [row]

    def refused(self, model: Publishable) -> str:
        """Why this model may not go out now, or "". A policy may have changed while it was made."""
        found = self.agreed
        match model:
            case Unprotected():
                return OTHER_POLICY if found is not None else self._refusal(None)
            case Noised():
                if found is None:
                    return OTHER_POLICY
                return self._unfit(model.spec, found.terms)

    def enter(self, model: Publishable, name: bytes) -> None:
        """One release of the update object `name`. `refused` was asked before: raises BudgetError
        or LocalError if it was not."""
        if isinstance(model, Unprotected):
            if self.protection != OFF:
                raise LocalError("a model without noise under a policy with privacy")
            return
        found = self.agreed
        if found is None:
            raise LocalError("a release without a policy that says what may be spent")
        ledger, rows = self._opened
        self._ledger, row = ledger.release(model.spec, name, found.terms)
        self._pending += [*rows, row]

    @property
    def ref(self) -> ChainRef | None:
        """What the next head commits to."""
        return self._ledger.ref if self._ledger is not None else None

    @property
    def pending(self) -> tuple[Row, ...]:
        """Rows that the next head's commit makes durable."""
        return tuple(self._pending)

    def stored(self, rows: tuple[Row, ...]) -> None:
        del self._pending[: len(rows)]

    # --- own state -------------------------------------------------------------------------

    def restore(self, rows: tuple[Row, ...], committed: ChainRef | None, carried: bool) -> None:
        """Take over what is durable. `committed` is what the newest own head says of it.

        Without the ledger that it commits to, this device must be enrolled again.
        """
        core = self._core
        self._carried = carried
        if not rows and committed is None:
            return
        try:
            self._ledger = replay(rows, committed)
            if self._ledger.device != core.device:
                self._ledger, row = self._ledger.enrol(core.device)
                self._pending.append(row)
        except LedgerError as error:
            self.fall_behind(f"the privacy ledger: {error}")

    def fall_behind(self, why: str) -> None:
        """More was spent than the ledger here says: that is kept, for a new identity takes this
        ledger over."""
        core = self._core
        core.publisher.touch(LEDGER_BEHIND)
        if not core.restraint.conflict:
            core.restraint.conflict = f"{why}: enrol it again"
            core.notice(Topic.RESTORE, core.restraint.conflict, core.device, True)

    def holds(self, committed: ChainRef | None) -> bool:
        """Whether the ledger here is the one that a newer own head commits to."""
        return committed == self.ref

    # --- for people ------------------------------------------------------------------------

    def statement(self) -> Statement | None:
        """What can be promised now. None without a policy that asks for privacy.

        Takes up to a second for unit=record, once for each release.
        """
        found = self.agreed
        if found is None:
            return None
        ledger = self._opened[0]
        key = (ledger.ref, found)
        if self._said is None or self._said[0] != key:
            self._said = (key, statement(ledger, found.spec, found.terms))
        return self._said[1]

    @property
    def releases(self) -> int:
        return self._ledger.releases if self._ledger is not None else 0
