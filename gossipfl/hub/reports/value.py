"""The report on cost and value: figures, what is missing, the tariffs, what accuracy cost. Pure."""

from __future__ import annotations

from dataclasses import asdict

import msgspec

from gossipfl.hub.page import words
from gossipfl.hub.reports.costs import NAMES, Figure, costs, missing
from gossipfl.hub.reports.facts import Facts, LogPart
from gossipfl.hub.reports.stated import PrivacyStatement, stated

ESTIMATES = (
    "Energy is an estimate: kWh per GB of networks differ by a factor of ten between studies, and "
    "the watts and seconds of training are whoever's who set them. Traffic counts the models that "
    "were merged; heads, receipts and what was pulled and refused come on top."
)
SOURCE = "0.06 kWh/GB: Aslan et al. 2018 (J. Industrial Ecology), fixed-line networks in 2015"


class FigureRow(msgspec.Struct, frozen=True):
    key: str
    name: str
    value: float
    unit: str
    shown: str
    formula: str


class Lack(msgspec.Struct, frozen=True):
    """A figure that is not shown, and the tariffs that nobody has set."""

    name: str
    not_set: list[str]


class CostReport(msgspec.Struct, frozen=True):
    """`words`: why there are no figures at all, if so. `tariffs`: null means not set."""

    report: str
    log: LogPart
    words: str
    figures: list[FigureRow]
    missing: list[Lack]
    tariffs: dict[str, float | str | None]
    estimates: str
    source: str
    privacy: PrivacyStatement


def cost_report(facts: Facts) -> CostReport:
    flow = facts.flow
    found = [*costs(flow, facts.tariffs), *_of_accuracy(facts)] if flow is not None else []
    told = "" if flow is not None else "No figures: nothing was merged, or no update's size known."
    return CostReport(
        report="cost",
        log=facts.log,
        words=told,
        figures=[
            FigureRow(f.key, f.name, round(f.value, 9), f.unit, f.shown, f.formula) for f in found
        ],
        missing=[Lack(m.name, list(m.tariffs)) for m in missing(facts.tariffs)],
        tariffs={NAMES[name]: value for name, value in asdict(facts.tariffs).items()},
        estimates=ESTIMATES,
        source=SOURCE,
        privacy=stated(facts.tally),
    )


def _of_accuracy(facts: Facts) -> list[Figure]:
    """What was gained since the first look at the public examples."""
    known = [m.merged if m.merged is not None else m.middle for m in facts.measured]
    if len(known) < 2:
        return []
    told = f"{words.percent(known[-1], 1)} − {words.percent(known[0], 1)} on {facts.holdout}"
    return [Figure("accuracy", "Accuracy gained", known[-1] - known[0], "share", told)]
