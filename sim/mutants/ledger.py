"""Bugs of the privacy ledger put back: a budget that is passed, forgotten or won back."""

from __future__ import annotations

from sim.mutants.base import Mutant
from sim.mutate import Edit
from sim.plan import Focus


def spending(*kinds: str) -> Focus:
    """Histories under a budget, full of these faults."""
    return Focus(kinds=kinds, faults_min=6, rules=("nna",), private=1.0)


LEDGER: tuple[Mutant, ...] = (
    Mutant(
        "ledger-after-publish",
        "the newest entry becomes durable with the head after the one that it is for",
        (
            Edit(
                "gossipfl.publisher:Publisher._start",
                "ledger=core.budget.pending if link is not None else (),",
                "ledger=core.budget.pending[:-1] if link is not None else (),",
            ),
        ),
        spending("crash", "disk"),
    ),
    Mutant(
        "noise-drawn-again",
        "after a failed commit the release is tried again with other noise, under the old entry",
        (
            Edit(
                "gossipfl.publisher:Publisher.reloaded",
                "objects, links = flight.objects, flight.batch.links",
                "objects, links = flight.objects, flight.batch.links\n"
                "    if self._new_update and self._update is not None:\n"
                "        ref, data = self._update\n"
                "        data = data[:-4] + bytes([data[-4] ^ 1]) + data[-3:]\n"
                "        ref = UpdateRef(digest(data), ref.size, ref.codec, ref.round)\n"
                "        self._update = (ref, data)\n"
                "        objects = {**objects, ref.digest: data}",
            ),
        ),
        spending("disk", "disk", "stop"),
        known=2,
    ),
    Mutant(
        "budget-passed",
        "the accountant's refusal is not heard",
        (
            Edit(
                "gossipfl.budget:Budget._refusal",
                'return account.refusal.value if account.refusal is not None else ""',
                'return ""',
            ),
            Edit("gossipfl.privacy.ledger:Ledger.release", "if refusal is not None:", "if False:"),
        ),
        spending("crash"),
    ),
    Mutant(
        "lost-ledger-is-empty",
        "who was enrolled again without its old disk starts with a whole budget",
        (
            Edit(
                "gossipfl.budget:Budget._opened",
                "replaces is not None and not self._carried",
                "False",
            ),
            Edit("gossipfl.budget:Budget.restore", "elif before is not None:", "elif False:"),
        ),
        spending("reinstall", "reinstall", "stop"),
    ),
    Mutant(
        "old-disk-believed",
        "a new key takes over the ledger of an old copy, and asks nobody",
        (
            Edit(
                "gossipfl.inheritance:Inheritance.is_settled",
                "return not self._line",
                "return True",
            ),
        ),
        spending("reinstall", "reinstall", "stop"),
        known=2,
    ),
    Mutant(
        "old-keys-forgotten",
        "a ledger that is behind what a peer knows of the old key is taken for the whole",
        (
            Edit(
                "gossipfl.inheritance:Inheritance.head",
                "if head.ledger is not None and head.ledger not in self._entries:",
                "if False:",
            ),
        ),
        spending("reinstall", "reinstall", "stop"),
        known=2,
    ),
    Mutant(
        "one-peer-is-enough",
        "a restored disk goes on releasing on the word of one peer, if it waits for long",
        (
            Edit(
                "gossipfl.restorer:Restorer._needed",
                "return self._needed_of_honest(live)",
                "return min(1, live)",
            ),
        ),
        spending("restore", "restore", "partition", "sleep"),
        known=27,
    ),
    Mutant(
        "restored-ledger-believed",
        "a restored disk takes over its newer head without the ledger that this commits to",
        (
            Edit(
                "gossipfl.restorer:Restorer._reconciled",
                "if not core.budget.holds(newest.head.ledger):",
                "if False:",
            ),
        ),
        spending("restore", "restore", "crash"),
    ),
)
