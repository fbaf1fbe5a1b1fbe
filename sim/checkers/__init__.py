"""What must hold in every history, whatever the faults: each invariant is a class.

Checkers see every event, effect, commit and answer. They recompute from the bytes with nothing but
the wire and the fleet's own registry, so a hole in the node's checks is not hidden by the same
hole here. A broken invariant raises Violation, which the world turns into a WorldError with the
seed and the options.
"""

from __future__ import annotations

from sim.checkers.accused import NobodyFramed
from sim.checkers.base import Checker, Heads, Violation
from sim.checkers.bounds import EFFECTS_MAX, Bounded, RoundsEnd
from sim.checkers.budget import BudgetKept
from sim.checkers.heads import DurableBeforePublic, LedgerGoesOn, OneHeadPerSeq
from sim.checkers.hooks import Hooks
from sim.checkers.merges import (
    AssumesEnough,
    MergesFresh,
    MergesVerified,
    NoOutcasts,
    Pulled,
    ReceiptsTrue,
)
from sim.checkers.sums import NothingBare, OneWordInSums, SumsExact
from sim.checkers.tally import Tally

__all__ = [
    "EFFECTS_MAX",
    "AssumesEnough",
    "Bounded",
    "BudgetKept",
    "Checker",
    "DurableBeforePublic",
    "Heads",
    "Hooks",
    "LedgerGoesOn",
    "MergesFresh",
    "MergesVerified",
    "NoOutcasts",
    "NobodyFramed",
    "NothingBare",
    "OneHeadPerSeq",
    "OneWordInSums",
    "Pulled",
    "ReceiptsTrue",
    "RoundsEnd",
    "SumsExact",
    "Tally",
    "Violation",
    "all_checkers",
]


def all_checkers() -> list[Checker]:
    heads = Heads()
    pulled = Pulled(heads)
    return [
        pulled,
        MergesVerified(pulled),
        MergesFresh(pulled),
        NoOutcasts(pulled),
        ReceiptsTrue(pulled),
        OneHeadPerSeq(heads),
        DurableBeforePublic(heads),
        LedgerGoesOn(heads),
        Bounded(),
        NobodyFramed(),
        RoundsEnd(),
        NothingBare(),
        SumsExact(),
        OneWordInSums(),
    ]
