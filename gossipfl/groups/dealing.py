"""Shares given and shares got: step 2 of an attempt."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gossipfl.groups.messages import SumKeys, SumShares
from gossipfl.groups.plan import Plan
from gossipfl.groups.sealing import Secrets, Shares, marks, seal, unseal
from gossipfl.groups.shamir import Entropy, split
from gossipfl.groups.views import Roster, View

Dealt = Mapping[int, Shares]
"""By place: its shares of one member's secrets."""


def deal(
    view: View, place: int, secrets: Secrets, partners: Collection[int], entropy: Entropy
) -> tuple[SumShares, Dealt]:
    """Both secrets split among all places, and sealed for the partners, of which `place` is one.

    Each partner has said one thing about its keys. The own shares are in the second value.
    """
    plan = view.plan
    sizes = (plan.threshold, plan.size, entropy)
    pairs = zip(split(secrets.mask_key, *sizes), split(secrets.seed, *sizes), strict=True)
    dealt = {to: Shares(*pair) for to, pair in enumerate(pairs)}
    names, sealed, marked = ([b""] * plan.size for _ in range(3))
    for to, keys in view.said(SumKeys).items():
        if to not in partners:
            continue
        names[to] = view.digest_of(SumKeys, to)
        marked[to] = marks(plan.id, place, to, dealt[to])
        if to != place:
            sealed[to] = seal(secrets.seal_key, keys.seal_key, plan.id, place, to, dealt[to])
    device = plan.members[place]
    message = SumShares(attempt=plan.id, device=device, keys=names, sealed=sealed, marks=marked)
    return message, dealt


def take(
    plan: Plan, place: int, roster: Roster, secrets: Secrets, own: Shares
) -> tuple[dict[int, Shares], list[int]]:
    """By dealer the shares that `place` got, and the dealers whose shares bear no mark of theirs.

    own: its shares of its own secrets, which were sealed for nobody.
    """
    held: dict[int, Shares] = {place: own}
    bad = []
    for dealer, dealt in roster.shares.items():
        if dealer == place:
            continue
        key = roster.keys[dealer].seal_key
        sealed = dealt.sealed[place]
        shares = unseal(secrets.seal_key, key, plan.id, dealer, place, sealed)
        if shares is not None and marks(plan.id, dealer, place, shares) == dealt.marks[place]:
            held[dealer] = shares
        else:
            bad.append(dealer)
    return held, bad
