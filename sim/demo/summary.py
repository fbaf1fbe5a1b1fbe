"""What the demo ends with: the figures, the verdict, and the same in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sim.demo.hub import Audit
from sim.demo.references import HOW, Accuracies, summarise
from sim.demo.table import Paint, share, size
from sim.demo.watch import Watched

SPREAD_MAX = 0.05
"""Honest devices whose accuracies lie further apart than this have not converged: guess, three
times what 20 rounds leave."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that the summary is made from."""

    honest: Sequence[Watched]
    liars: Sequence[Watched]
    undefended: Accuracies
    rounds: int
    seconds_run: float
    attack: str
    must_be_caught: bool = True  # False: the lie looks like an honest model, accuracy decides
    audit: Audit | None = None  # None: there was no hub

    @property
    def together(self) -> Accuracies:
        return summarise([float(w.value("accuracy", 0.0)) for w in self.honest])

    @property
    def alone(self) -> Accuracies:
        """As each device measured it: its own model, trained as often, merged with nobody's."""
        return summarise([float(w.value("alone_accuracy", 0.0)) for w in self.honest])

    @property
    def is_finished(self) -> bool:
        return all(w.finished_s is not None for w in self.honest)

    @property
    def has_converged(self) -> bool:
        """All honest devices did their rounds, agree, and are better than alone."""
        together = self.together
        agree = together.mean - together.worst <= SPREAD_MAX
        return self.is_finished and agree and together.worst > self.alone.mean

    @property
    def is_liar_quarantined(self) -> bool:
        """Most honest devices shut out each liar; no honest device was shut out by most."""
        majority = len(self.honest) // 2 + 1
        caught = all(len(w.quarantined_by) >= majority for w in self.liars)
        return caught and not self.is_honest_quarantined

    @property
    def is_honest_quarantined(self) -> bool:
        """Most honest devices shut out one of them."""
        majority = len(self.honest) // 2 + 1
        return any(len(w.quarantined_by) >= majority for w in self.honest)

    @property
    def is_good(self) -> bool:
        caught = self.is_liar_quarantined or not self.must_be_caught
        logged = self.audit is None or self.audit.verified
        return self.has_converged and caught and logged and not self.is_honest_quarantined


def data(outcome: Outcome) -> dict[str, Any]:
    """The JSON of `gossipfl demo --json`. Accuracies are of the base: the model that is used."""
    firsts = [w.first_round_s for w in outcome.honest if w.first_round_s is not None]
    return {
        "devices": [_device(w) for w in (*outcome.honest, *outcome.liars)],
        "alone_accuracy": asdict(outcome.alone),
        "together_accuracy": asdict(outcome.together),
        "undefended_accuracy": {**asdict(outcome.undefended), "how": HOW},
        "liar_quarantined": outcome.is_liar_quarantined,
        "converged": outcome.has_converged,
        "audit": None if outcome.audit is None else outcome.audit.data(),
        "attack": outcome.attack,
        "rounds": outcome.rounds,
        "seconds_to_first_round": round(max(firsts), 2) if firsts else None,
        "seconds_run": round(outcome.seconds_run, 2),
    }


def _device(watched: Watched) -> dict[str, Any]:
    first = min(watched.quarantined_by.values(), default=None)
    return {
        "id": watched.place.device,
        "liar": watched.place.is_liar,
        "accuracy": watched.value("accuracy"),
        "alone_accuracy": watched.value("alone_accuracy"),
        "rounds": int(watched.value("base_round", 0)),
        "bytes_sent": int(watched.value("bytes_sent", 0)),
        "rss_mb": None if watched.rss_mb is None else round(watched.rss_mb, 1),
        "quarantined": first is not None,
        "quarantined_by": len(watched.quarantined_by),
        "quarantined_after_s": None if first is None else round(first[0], 2),
        "reason": "" if first is None else first[1],
    }


def words(outcome: Outcome, paint: Paint) -> str:
    """The summary for people."""
    bold = "bold"
    together, alone, undefended = outcome.together, outcome.alone, outcome.undefended
    sent = [int(w.value("bytes_sent", 0)) for w in outcome.honest]
    rows = [
        ("each device alone", alone, ""),
        ("together, the liar among them", together, "what the devices use now"),
        ("together, plain mean, no defence", undefended, "same job, computed here in lock-step"),
    ]
    if not outcome.liars:
        rows[1:] = [("together", together, "what the devices use now")]
    lines = [paint("accuracy on digits that no device has trained on", bold)]
    lines += [
        f"  {name:<34} mean {share(a.mean)}   worst {share(a.worst)}"
        + (f"   {remark}" if remark else "")
        for name, a, remark in rows
    ]
    mean_sent = size(sum(sent) / max(len(sent), 1))
    lines.append(
        f"sent per honest device: {mean_sent} in {outcome.rounds} rounds; "
        "no example left its device"
    )
    lines += [_verdict(w, outcome) for w in outcome.liars]
    if outcome.audit is not None:
        lines.append(paint(outcome.audit.words(), "green" if outcome.audit.verified else "red"))
    ok = "the fleet converged" if outcome.has_converged else "the fleet did NOT converge"
    lines.append(paint(ok, "green" if outcome.has_converged else "red", bold))
    return "\n".join(lines)


def _verdict(liar: Watched, outcome: Outcome) -> str:
    name, count = liar.place.name, len(outcome.honest)
    if not liar.quarantined_by:
        if not outcome.must_be_caught:
            return f"the liar {name} was not quarantined: what it sends looks honest"
        return f"the liar {name} was NOT quarantined"
    at, why = min(liar.quarantined_by.values())
    return (
        f"the liar {name} was quarantined by {len(liar.quarantined_by)} of {count} devices, "
        f"first after {at:.0f} s: {why}"
    )
