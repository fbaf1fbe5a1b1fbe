"""Reports as HTML: within the hub's page, or as one file that needs no hub. Both print."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from gossipfl.hub.page.model import Page
from gossipfl.hub.page.rendering import environment, static
from gossipfl.hub.reports.asked import TariffQuery
from gossipfl.hub.reports.compliance import ComplianceReport
from gossipfl.hub.reports.contribution import Contribution
from gossipfl.hub.reports.facts import LogPart
from gossipfl.hub.reports.formats import Report
from gossipfl.hub.reports.performance import Performance, StarPerformance
from gossipfl.hub.reports.stated import PrivacyStatement
from gossipfl.hub.reports.summary import Summary
from gossipfl.hub.reports.value import CostReport

FOLDER = Path(__file__).parent / "templates"
BENCHMARKS_SHOWN = 12
TITLES = {
    "summary": "Summary",
    "compliance": "Compliance",
    "performance": "Performance",
    "cost": "Cost and value",
    "contribution": "Contribution",
}
"""Name of a report -> its title."""
FIELDS = (
    ("raw", "Raw data, MB a day and device"),
    ("price", "Price per GB"),
    ("energy", "kWh per GB"),
    ("power", "Price per kWh"),
    ("watts", "Training, W"),
    ("training", "Training, s a round"),
    ("device", "A device, per month"),
    ("central", "A central server, per month"),
)
_NAMES = {
    "unit": "unit", "neighbours": "neighbouring", "adversary": "adversary",
    "mechanism": "mechanism", "epsilon": "epsilon spent, at most",
    "epsilon_max": "epsilon, cap", "delta": "delta", "clip": "clip C", "z": "noise multiplier z",
    "sigma": "noise sigma", "sample_rate": "sample rate", "steps": "steps of a release",
    "releases": "releases of the device that spent most", "releases_max": "releases, cap",
    "accountant": "accountant", "accountant_version": "its version", "rng": "random numbers",
    "releases_all": "releases of all devices", "releases_without_noise": "of those without noise",
    "devices": "devices that released",
}  # fmt: skip


class ReportRenderer:
    """Made once."""

    def __init__(self) -> None:
        self._environment = environment(FOLDER)

    def within(
        self,
        report: Report,
        page: Page,
        caller: tuple[str, bool],
        query: TariffQuery,
        problem: str = "",
        *,
        sees_compliance: bool,
    ) -> str:
        """In the hub's page. `caller`: the name on the bar, and whether there is a session."""
        others = [p for p in TITLES.items() if sees_compliance or p[0] != "compliance"]
        fields = msgspec.to_builtins(query)
        given = {name: value for name, value in fields.items() if value and name != "format"}
        shown: dict[str, Any] = {
            "page": page, "caller_name": caller[0], "signed_in": caller[1], "others": others,
            "query": fields, "problem": problem, "inline": "",
            "asked": "&" + urlencode(given) if given else "",
        }  # fmt: skip
        return self._rendered(report, shown)

    def alone(self, report: Report) -> str:
        """A file of its own, with its style in it."""
        shown: dict[str, Any] = {
            "page": None,
            "inline": static("style.css").decode(),
            "others": [],
            "asked": "",
        }
        return self._rendered(report, shown)

    def _rendered(self, report: Report, shown: dict[str, Any]) -> str:
        name = report.report
        api = "/api/v1/compliance/report" if name == "compliance" else f"/api/v1/reports/{name}"
        return self._environment.get_template(f"{name}.html").render(
            it=report,
            name=name,
            title=TITLES[name],
            api=api,
            log=_log_of(report),
            fields=FIELDS,
            **_extras(report),
            **shown,
        )


def _log_of(report: Report) -> LogPart:
    if not isinstance(report, ComplianceReport):
        return report.log
    log = report.log
    return LogPart(log.origin, log.size, log.number, log.time, report.first, report.last)


def _extras(report: Report) -> dict[str, Any]:
    statement = _statement(report.privacy)
    match report:
        case Summary():
            return {"statement": []}  # in words: it is one page
        case Performance():
            return {
                "statement": statement,
                "spreads": _spreads(report),
                "trends": _trends(report),
                "star_trends": _star_trends(report.star) if report.star is not None else [],
                "benchmarks": report.benchmarks[-BENCHMARKS_SHOWN:],
            }
        case ComplianceReport() | Contribution() | CostReport():
            return {"statement": statement}


def _statement(privacy: PrivacyStatement) -> list[tuple[str, str]]:
    found = []
    for name, words in _NAMES.items():
        value = getattr(privacy, name)
        if value is not None:
            found.append((words, f"{value:g}" if isinstance(value, float) else str(value)))
    return found


def _spreads(it: Performance) -> list[tuple[str, Any, str]]:
    return [
        ("Latency: a round, from merge to merge", it.round, "s"),
        ("Latency: from a merge to the log", it.logging, "s"),
        ("Staleness: age of a model when it is merged", it.age, "s"),
        ("Staleness: rounds behind the median device", it.behind, "rounds"),
    ]


def _star_trends(it: StarPerformance) -> list[tuple[str, list[float | None], str]]:
    known = [p.accuracy for p in it.points if p.accuracy is not None]
    last = f"{100 * known[-1]:.1f} % now" if known else ""
    found: list[tuple[str, list[float | None], str]] = [
        ("Accuracy", [p.accuracy for p in it.points], last),
        ("Updates in a merge", [float(p.merged) for p in it.points], ""),
        ("Distance of the updates", [p.distance for p in it.points], "over the way come"),
    ]
    return [t for t in found if any(v is not None for v in t[1])]


def _trends(it: Performance) -> list[tuple[str, list[float | None], str]]:
    points = it.points
    found: list[tuple[str, list[float | None], str]] = [
        ("Merges", [float(p.rounds) for p in points], f"{it.rounds:,} in all"),
        ("Active devices", [float(p.devices) for p in points], ""),
        ("Length of a round, s", [p.round_s for p in points], "mean"),
        ("Models merged", [float(p.merged) for p in points], f"{it.models_merged:,} in all"),
        ("Models refused", [float(p.refused) for p in points], f"{it.models_refused:,} in all"),
        ("Alarms", [float(p.alarms) for p in points], ""),
    ]
    return [t for t in found if any(v is not None for v in t[1])]
