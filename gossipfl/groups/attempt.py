"""One attempt of one group as one member lives it: events in, effects out, one deadline.

Steps: keys, shares, roster, masked vectors, survivor set, reveals. A deterministic proposer names
the roster and the survivor set; what it names is checked, and it takes t signatures to act on a
set. Liveness: t members who are honest and reach each other within a step's time, the proposer
among them. Safety: fewer than g / 3 liars, whatever the network does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gossipfl.groups.dealing import deal, take
from gossipfl.groups.messages import (
    Message,
    Signed,
    SumKeys,
    SumRoster,
    SumSet,
    SumShares,
    SumVector,
    sign,
)
from gossipfl.groups.plan import Plan
from gossipfl.groups.recovery import BadDealing, Recovery, own_masks, reveal
from gossipfl.groups.sealing import Secrets, Shares, commitment, public
from gossipfl.groups.shamir import Entropy
from gossipfl.groups.steps import (
    PROPOSING_STEPS,
    Accuse,
    DeadlineReached,
    Effect,
    End,
    Ended,
    Event,
    Fetch,
    Journal,
    Lie,
    Masked,
    MaskVector,
    Persist,
    Phase,
    Publish,
    Received,
    Uncover,
    VectorHeld,
)
from gossipfl.groups.views import Roster, View
from gossipfl.identity import Signer


class Attempt:
    """Made anew for each attempt; after a restart it is not resumed (see Journal).

    entropy(count): secret uniform bytes. step_s: seconds a step, from the policy. vector: the
    digest of what will be summed. used: public keys of earlier attempts, and the envelopes that
    bore them. refused: places with which this member shares nothing, because they cheated before.
    Raises ValueError if the journal forbids the attempt.
    """

    def __init__(
        self,
        plan: Plan,
        signer: Signer,
        entropy: Entropy,
        step_s: float,
        journal: Journal,
        vector: bytes,
        used: Mapping[bytes, bytes] | None = None,
        refused: Collection[int] = (),
    ) -> None:
        if not journal.may_enter(plan, vector):
            raise ValueError("this attempt was entered before, or its vector has left before")
        self.plan, self.place = plan, plan.members.index(signer.device)
        self.view = View(plan)
        self.phase = Phase.KEYS
        self.end: End | None = None
        self.journal = journal.entered(plan)
        self._signer, self._entropy, self._step_s = signer, entropy, step_s
        self._vector, self._used = vector, dict(used or {})
        self._refused = set(refused) - {self.place}
        self._began = 0.0
        self._secrets: Secrets | None = None
        self._own: Shares | None = None  # of the own secrets
        self._held: dict[int, Shares] = {}  # by dealer: the own share of its secrets
        self._roster: Roster | None = None
        self._proposed: set[type[Message]] = set()
        self._accused: set[tuple[int, Lie]] = set()
        self._recovery: Recovery | None = None

    @property
    def liars(self) -> frozenset[int]:
        """Places to refuse in later attempts. A stall is no lie: messages get lost."""
        return frozenset(place for place, lie in self._accused if lie is not Lie.STALLED)

    @property
    def deadline(self) -> float:
        """When it wants DeadlineReached; infinity once it has ended."""
        if self.phase is Phase.ENDED:
            return float("inf")
        early = PROPOSING_STEPS if self._has_to_propose else 0
        return self._began + (self.phase - early) * self._step_s

    @property
    def _has_to_propose(self) -> bool:
        awaited = {Phase.ROSTER: SumRoster, Phase.SET: SumSet}.get(self.phase)
        mine = self.place == self.plan.proposer
        return mine and awaited is not None and awaited not in self._proposed

    def start(self, now: float) -> list[Effect]:
        """The attempt begins: fresh keys."""
        self._began = now
        secrets = self._secrets = Secrets.draw(self._entropy)
        keys = SumKeys(
            attempt=self.plan.id,
            device=self._signer.device,
            mask_key=public(secrets.mask_key),
            seal_key=public(secrets.seal_key),
            commitment=commitment(self.plan.id, self._signer.device, secrets.seed),
        )
        return [Persist(self.journal), *self._publish(keys), *self._advance(now)]

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Effects in the order in which they are to be carried out."""
        if self.phase is Phase.ENDED:
            return []
        effects: list[Effect] = []
        match event:
            case Received(signed):
                effects += self._on_signed(signed)
            case VectorHeld(digest):
                self.view.vectors.add(digest)
            case Masked(digest):
                effects += self._on_masked(digest)
            case DeadlineReached():
                pass
        return effects + self._advance(now)

    def _on_signed(self, signed: Signed) -> list[Effect]:
        message = signed.message
        if signed.place == self.place:
            return []  # our own, come back
        if isinstance(message, SumKeys):
            for key in (message.mask_key, message.seal_key):
                if key in self._used:
                    return self._accuse(
                        signed.place, Lie.REUSED_KEY, (self._used[key], signed.data)
                    )
        if isinstance(message, SumRoster) and signed.place != self.plan.proposer:
            return []
        is_known = self.view.holds(signed)
        other = self.view.add(signed)
        effects: list[Effect] = []
        if other is not None:
            effects += self._accuse(signed.place, Lie.EQUIVOCATION, (other.data, signed.data))
        if is_known:  # what it names was asked for, or it comes round and round
            return effects
        return effects + [Fetch(*wanted) for wanted in self.view.wanted(signed)]

    def _on_masked(self, digest: bytes) -> list[Effect]:
        if self._roster is None or self.phase is not Phase.SET:
            return []
        self.view.vectors.add(digest)
        self.journal = self.journal.spending(self._vector)
        message = SumVector(
            attempt=self.plan.id,
            device=self._signer.device,
            roster=self._roster.digest,
            vector=digest,
        )
        return [Persist(self.journal), *self._publish(message)]

    def _advance(self, now: float) -> list[Effect]:
        """Every step that what is known, or the time, now allows."""
        effects: list[Effect] = []
        before = None
        while before != (self.phase, len(effects)):
            before = (self.phase, len(effects))
            late = now >= self.deadline
            match self.phase:
                case Phase.KEYS:
                    effects += self._share(late)
                case Phase.ROSTER:
                    effects += self._agree_on_roster(late)
                case Phase.SET:
                    effects += self._agree_on_set(late)
                case Phase.REVEALS:
                    effects += self._recover(late)
                case Phase.ENDED:
                    pass
        return effects

    def _share(self, late: bool) -> list[Effect]:
        """Shares for all whose keys are here."""
        keys = {p: k for p, k in self.view.said(SumKeys).items() if p not in self._distrusted}
        if len(keys) + len(self._distrusted) < self.plan.size and not late:
            return []
        if len(keys) < self.plan.threshold or self._secrets is None:
            return self._ended(End.FEW_KEYS)
        message, dealt = deal(self.view, self.place, self._secrets, keys, self._entropy)
        self._own = dealt[self.place]
        self.phase = Phase.ROSTER
        return self._publish(message)

    def _agree_on_roster(self, late: bool) -> list[Effect]:
        effects: list[Effect] = []
        if self._has_to_propose:
            expected = set(self.view.said(SumKeys)) - self._distrusted
            if not (late or expected <= set(self.view.said(SumShares))):
                return []
            shares = self.view.propose_roster(self._distrusted)
            if shares is None:
                return self._ended(End.NO_ROSTER) if late else []
            self._proposed.add(SumRoster)
            device = self._signer.device
            effects += self._publish(SumRoster(attempt=self.plan.id, device=device, shares=shares))
            late = False
        for signed in self.view.held.get((SumRoster, self.plan.proposer), []):
            if isinstance(signed.message, SumRoster) and self._roster is None:
                self._roster = self.view.roster(signed.digest, signed.message)
        if self._roster is None:
            return effects + (self._stalled(End.NO_ROSTER) if late else [])
        self.phase = Phase.SET
        return effects + self._open_shares(self._roster)

    def _open_shares(self, roster: Roster) -> list[Effect]:
        """The own shares of all in the roster, and with them the masks. A bad one shows its dealer;
        the vector goes out all the same, or any liar could push out any member."""
        if self.place not in roster.shares or self._secrets is None or self._own is None:
            return []
        self._held, bad = take(self.plan, self.place, roster, self._secrets, self._own)
        accused = [effect for dealer in bad for effect in self._accuse(dealer, Lie.BAD_SHARE)]
        return [*accused, MaskVector(own_masks(self.plan, roster, self.place, self._secrets))]

    def _agree_on_set(self, late: bool) -> list[Effect]:
        roster = self._roster
        if roster is None:
            return []
        effects: list[Effect] = []
        if self._has_to_propose:
            here = self.view.propose_set(roster)
            if not late and (here is None or sum(map(bool, here)) < len(roster.shares)):
                return []
            if here is None:
                return self._ended(End.FEW_VECTORS)
            effects += self._sign_set(roster, here, proposing=True)
            late = False
        proposal = self.view.only(SumSet, self.plan.proposer)
        if proposal is not None and not self.journal.set and self.place in roster.shares:
            if self.view.summed(proposal, roster) is not None:
                effects += self._sign_set(roster, proposal.vectors)
            elif self.view.can_never_be(proposal, roster):
                effects += self._accuse(self.plan.proposer, Lie.FALSE_SET)
        agreed = self.view.certified(roster)
        if agreed is None:
            return effects + (self._stalled(End.NO_SET) if late else [])
        self._recovery = Recovery(self.plan, roster, agreed)
        self.phase = Phase.REVEALS
        return effects

    def _sign_set(
        self, roster: Roster, vectors: list[bytes], proposing: bool = False
    ) -> list[Effect]:
        """The one set of this attempt that this member signs; in the journal first."""
        message = SumSet(
            attempt=self.plan.id,
            device=self._signer.device,
            roster=roster.digest,
            vectors=vectors,
        )
        if proposing:
            self._proposed.add(SumSet)
        if self.place not in roster.shares and not proposing:
            return []
        self.journal = self.journal.signing(message.name)
        return [Persist(self.journal), *self._publish(message)]

    def _recover(self, late: bool) -> list[Effect]:
        recovery, effects = self._recovery, list[Effect]()
        if recovery is None:
            return effects
        summed = self.view.summed(recovery.agreed, recovery.roster)
        if summed is not None:
            effects += self._reveal(recovery)
        for lie in recovery.read(self.view):
            effects += self._accuse(lie.place, Lie.WRONG_REVEAL, (lie.data,))
        if recovery.missing or summed is None:
            return effects + (self._ended(End.FEW_REVEALS) if late else [])
        try:
            masks = recovery.masks()
        except BadDealing as error:
            proof = self.view.signed(SumShares, error.place)
            return [
                *effects,
                *self._accuse(error.place, Lie.BAD_DEALING, proof),
                *self._ended(End.BAD_DEALING),
            ]
        vectors = tuple(vector.vector for vector in summed.values())
        return [*effects, Uncover(tuple(summed), vectors, masks), *self._ended(End.SUMMED)]

    def _reveal(self, recovery: Recovery) -> list[Effect]:
        """Once, and only for the set that this member signed. Who was slow may still sign it."""
        if self._secrets is None or self.place not in recovery.roster.shares:
            return []
        agreed, effects = recovery.agreed, list[Effect]()
        if not self.journal.set:
            effects += self._sign_set(recovery.roster, agreed.vectors)
        if self.journal.set == agreed.name:
            own = (self.place, self._secrets.seed)
            held = self._held
            effects += self._publish(reveal(self.plan, recovery.roster, agreed, held, own))
        self._forget()
        return effects

    @property
    def _distrusted(self) -> set[int]:
        return self._refused | (self.liars - {self.place})

    def _publish(self, message: Message) -> list[Effect]:
        signed = sign(message, self.plan, self._signer)
        self.view.add(signed)
        return [Publish(signed)]

    def _accuse(self, place: int, lie: Lie, proof: tuple[bytes, ...] = ()) -> list[Effect]:
        """Once for each lie of a kind."""
        if (place, lie) in self._accused:
            return []
        self._accused.add((place, lie))
        return [Accuse(place, lie, proof)]

    def _stalled(self, end: End) -> list[Effect]:
        return [*self._accuse(self.plan.proposer, Lie.STALLED), *self._ended(end)]

    def _ended(self, end: End) -> list[Effect]:
        self.phase, self.end = Phase.ENDED, end
        self._forget()
        return [Ended(end)]

    def _forget(self) -> None:
        """Secrets are needed no more: what is not there cannot be asked for."""
        self._secrets = None
        self._own, self._held = None, {}
