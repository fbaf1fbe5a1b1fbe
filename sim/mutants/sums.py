"""Bugs of group sums put back: what leaves bare, twice, or shows both of a member's secrets."""

from __future__ import annotations

from sim.mutants.base import Mutant
from sim.mutate import Edit
from sim.plan import FOCUSES, Focus

CUT_OFF = Focus(
    kinds=("one_way", "partition", "sleep", "crash"), faults_min=10, rules=("nna",), sums=4
)
"""Histories in which attempts fail when vectors are out already."""

SUMS: tuple[Mutant, ...] = (
    Mutant(
        "sum-bare",
        "the vector goes out without its masks",
        (Edit("gossipfl.groups.heavy:_mask", "effect.masks)", "())"),),
        FOCUSES["sums"],
    ),
    Mutant(
        "sum-both-secrets",
        "of a member whose vector is summed a share of its mask key is revealed too",
        (
            Edit(
                "gossipfl.groups.attempt:reveal",
                "held[place].seed if place in summed else held[place].key",
                "held[place].key",
            ),
        ),
        FOCUSES["sums"],
    ),
    Mutant(
        "sum-again",
        "a vector that went out masked in vain goes out in the next attempt again",
        (
            Edit(
                "gossipfl.groups.steps:Journal.may_enter",
                "vector not in self.spent",
                "vector is not None",
            ),
            Edit(
                "gossipfl.sums.turn:Turns.advance",
                "if self._name_of(model) in self._journal.spent and",
                "if False and",
            ),
        ),
        CUT_OFF,
    ),
    Mutant(
        "sum-retrained",
        "without noise a second model goes out in the window in which one went out in vain",
        (Edit("gossipfl.sums.turn:Turns.advance", "if not schedule.sums.noise:", "if False:"),),
        CUT_OFF,
    ),
    Mutant(
        "sum-forgets",
        "a restart lets a member into the attempt that it was in before",
        (
            Edit("gossipfl.sums.part:GroupSums.begin", " or window < (self._since or 0.0)", ""),
            Edit(
                "gossipfl.sums.turn:Turns.restore",
                "self._journal = decode(journal, Journal, DOCUMENT_BYTES_MAX)",
                "del journal",
            ),
        ),
        FOCUSES["sums"],
    ),
)
