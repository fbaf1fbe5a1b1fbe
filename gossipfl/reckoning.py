"""A question to the privacy accountant and its answer: too slow for the event loop."""

from __future__ import annotations

from dataclasses import dataclass

from gossipfl.privacy.ledger import Account, Ledger, Spec, Terms


@dataclass(frozen=True, slots=True)
class Reckon:
    """Ask the accountant, for up to a second, what of the privacy budget is left: Reckoned."""

    ledger: Ledger
    spec: Spec
    terms: Terms
    before: Account | None  # of the release before, which makes it quick


@dataclass(frozen=True, slots=True)
class Reckoned:
    """Answer to Reckon."""

    account: Account
