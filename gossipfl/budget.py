"""What this device may still publish: the policy's privacy, its owner's floors, and the ledger.

A release is entered here before the head that names it is composed; rows leave for the store in
the commit of that head, and stay pending until it is durable. What was entered and never went out
is wasted: the ledger has at least what was released.

The accountant is slow, so it is asked outside (`Reckon`) as soon as the ledger or the policy has
changed. Nothing is entered that its answer does not allow.
"""

from __future__ import annotations

from gossipfl.core import Core
from gossipfl.durable import BEHIND_OLD, BEHIND_OWN, LEDGER_BEHIND
from gossipfl.errors import LocalError
from gossipfl.events import Reckon, Reckoned, Topic
from gossipfl.inheritance import WAITING
from gossipfl.messages import ChainRef
from gossipfl.privacy import OFF, Noised, Protection, Publishable, Unprotected
from gossipfl.privacy.agreed import NO_FLOORS, Agreed, agreed
from gossipfl.privacy.entries import LedgerError, Row, line_of
from gossipfl.privacy.ledger import (
    Account,
    Floors,
    Ledger,
    Refusal,
    Spec,
    Terms,
    open_ledger,
    replay,
)
from gossipfl.privacy.statement import Statement, said, statement
from gossipfl.rounds import Phase

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
        self.behind = b""  # what of it is not in the ledger here: as the document says
        self._account: Account | None = None  # the newest
        self._asked: tuple[ChainRef, Spec, Terms] | None = None  # the accountant, who looks at it
        self._is_awaited = False  # by a round that cannot begin
        self._said: tuple[Account, Statement] | None = None
        self._named: bytes | None = None  # the statement that receipts name, kept as an object

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
        """Whether the next release fits. If not, this node only listens, and says so.

        While the accountant is at it, it is as it was before."""
        core = self._core
        found = self.agreed
        core.restraint.private = found is not None
        why = self._refusal(found)
        if found is not None and self._account_of(found) is None:
            self._ask(found)
        if why is None:
            return
        if why != core.restraint.budget:
            core.restraint.budget = why
            text = f"only listening: {why}" if why else "publishes again: the next release fits"
            core.notice(Topic.PRIVACY, text, warning=bool(why))

    def _refusal(self, found: Agreed | None) -> str | None:
        """Why nothing may be published under this policy, "" if it may. None: not known yet."""
        if self._core.job.policy is None:
            return ""
        if found is not None:
            barred = self._opened[0].barred(found.spec, found.terms)
            if self.behind == BEHIND_OLD:
                barred = Refusal.UNKNOWN
            if barred is not None:
                return barred.value
            if not self._core.inheritance.is_settled:
                return WAITING
            account = self._account_of(found)
            if account is None:
                return None
            return account.refusal.value if account.refusal is not None else ""
        if self._floors != NO_FLOORS:
            return OWNER_DEMANDS
        return ONCE_PRIVATE if self._ledger is not None and self._ledger.releases else ""

    # --- the accountant --------------------------------------------------------------------

    def _account_of(self, found: Agreed) -> Account | None:
        account = self._account
        ledger = self._opened[0]
        if account is not None and account.is_of(ledger, found.spec, found.terms):
            return account
        return None

    def must_wait(self) -> bool:
        """Has the accountant not said yet what the next release would cost? Then the round begins
        when he has."""
        self._is_awaited = self._refusal(self.agreed) is None
        return self._is_awaited

    def _ask(self, found: Agreed) -> None:
        """Once for each state of ledger and policy."""
        ledger = self._opened[0]
        key = (ledger.ref, found.spec, found.terms)
        if self._asked != key:
            self._asked = key
            self._core.emit(Reckon(ledger, found.spec, found.terms, self._account))

    def reckoned(self, event: Reckoned) -> None:
        """The accountant's answer, which may be about what was before."""
        core, account = self._core, event.account
        if self._asked == (account.ledger.ref, account.spec, account.terms):
            self._asked = None
        self._account = account
        self.look()
        if self._is_awaited and core.rounds.phase is Phase.IDLE:
            self._is_awaited = False
            core.rounds.next_at = core.now

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
                return OTHER_POLICY if found is not None else self._refusal(None) or ""
            case Noised():
                if found is None or model.spec != found.spec:
                    return OTHER_POLICY
                refusal = self._refusal(found)
                return OTHER_POLICY if refusal is None else refusal

    def enter(self, model: Publishable, name: bytes) -> None:
        """One release of the update object `name`. `refused` was asked before: raises BudgetError
        or LocalError if it was not."""
        if isinstance(model, Unprotected):
            if self.protection != OFF:
                raise LocalError("a model without noise under a policy with privacy")
            return
        found = self.agreed
        account = self._account_of(found) if found is not None else None
        if found is None or account is None or model.spec != found.spec:
            raise LocalError("a release that nobody has reckoned")
        ledger, rows = self._opened
        self._ledger, row = ledger.release(model.spec, name, found.terms, account)
        self._pending += [*rows, row]
        self._ask(found)  # so that it is known when the next round begins

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
        before = core.me.member.replaces
        if not rows and committed is None:
            if before is not None and carried:
                # Entered with the first head, so that the next key asks about `before` too.
                self._ledger, row = open_ledger(core.device, before)
                self._pending.append(row)
                core.inheritance.begin((before,), frozenset())
            elif before is not None:  # kept at once: the next key must not think that it has all
                self.behind = BEHIND_OLD
                core.publisher.touch(LEDGER_BEHIND, within_s=0.0)
            return
        try:
            self._ledger = replay(rows, committed)
            self._take_over(rows, before)
        except LedgerError as error:
            self.fall_behind(f"the privacy ledger: {error}")

    def _take_over(self, rows: tuple[Row, ...], before: bytes | None) -> None:
        """What was entered under an old key waits for peers, until this key has released."""
        core, ledger = self._core, self._ledger
        if ledger is None:
            return
        line, has_released = line_of(rows, core.device)
        if ledger.device != core.device:
            self._ledger, row = ledger.enrol(core.device)
            self._pending.append(row)
        olds = dict.fromkeys([*line, *([before] if before is not None else [])])
        if olds and not has_released:
            entries = frozenset(ChainRef(row.number, row.link) for row in rows)
            core.inheritance.begin(tuple(olds), entries)

    def disown(self, why: str) -> None:
        """More was spent under the old key than the ledger that was taken over says. This key may
        sign: what it has signed is known."""
        core = self._core
        self.behind = BEHIND_OLD
        core.publisher.touch(LEDGER_BEHIND)
        core.notice(Topic.PRIVACY, f"nothing is released any more: {why}", core.device, True)
        self.look()

    def recall(self, document: bytes) -> None:
        """At start: what was found out before."""
        if document == BEHIND_OLD:
            self.behind = BEHIND_OLD
        else:
            self.fall_behind("it has spent more than its ledger says")

    def fall_behind(self, why: str) -> None:
        """More was spent than the ledger here says: that is kept, for a new identity takes this
        ledger over."""
        core = self._core
        self.behind = BEHIND_OWN
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

        Takes up to a second for unit=record where the accountant has not answered yet."""
        found = self.agreed
        if found is None:
            return None
        known = self.promised(found)
        return known if known is not None else statement(self._opened[0], found.spec, found.terms)

    def promised(self, found: Agreed) -> Statement | None:
        """The same, if the accountant has said what it takes."""
        account = self._account_of(found)
        if account is None:
            return None
        if self._said is None or self._said[0] is not account:
            self._said = (account, said(account))
        return self._said[1]

    def named(self) -> bytes | None:
        """Digest of the newest statement, for a receipt, and what it names becomes durable too.

        None without a policy that asks for privacy, and before the accountant's first answer."""
        found = self.agreed
        if found is None:
            return None
        newest = self.promised(found) or (self._said[1] if self._said is not None else None)
        if newest is not None and newest.digest != self._named:
            self._named = self._core.publisher.store(newest.dump())
        return self._named

    @property
    def releases(self) -> int:
        return self._ledger.releases if self._ledger is not None else 0
