"""Reports as JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gossipfl.hub.page import words
from gossipfl.hub.reports.compliance import ComplianceReport
from gossipfl.hub.reports.contribution import Contribution
from gossipfl.hub.reports.performance import Performance
from gossipfl.hub.reports.summary import Summary
from gossipfl.hub.reports.value import CostReport

Report = ComplianceReport | Contribution | CostReport | Performance | Summary


def as_json(report: Report) -> bytes:
    """Indented, for people and programs alike."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def as_csv(report: Report) -> bytes:
    """The report's main table, one row of headings first (RFC 4180, UTF-8)."""
    match report:
        case ComplianceReport():
            rows = _claims(report)
        case Contribution():
            rows = _structs(report.rows, ("mode", "device", "state", "rounds", "published",
                            "merged_by_others", "refused_by_others", "influence", "bytes",
                            "incentive"))  # fmt: skip
        case CostReport():
            rows = _structs(report.figures, ("key", "name", "value", "unit", "formula"))
        case Performance():
            rows = _structs(report.points, ("time", "rounds", "devices", "merged", "refused",
                            "alarms", "round_s", "bytes"))  # fmt: skip
        case Summary():
            rows = _boxes(report)
    out = io.StringIO()
    csv.writer(out).writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue().encode()


def _structs(rows: Iterable[msgspec.Struct], names: Sequence[str]) -> Iterable[Sequence[Any]]:
    yield names
    for row in rows:
        yield [getattr(row, name) for name in names]


def _claims(report: ComplianceReport) -> Iterable[Sequence[Any]]:
    names = ("framework", "article", "asks", "status", "count", "first", "last", "supports")
    yield (*names, "limits", "proven")
    for claim in report.claims:
        plain = [getattr(claim, name) for name in (*names, "limits")]
        yield [*plain, " ".join(str(index) for index in claim.proven)]


def _boxes(report: Summary) -> Iterable[Sequence[Any]]:
    yield ("name", "value", "words")
    yield ("Headline", report.headline, "")
    for box in (*report.boxes, *report.costs):
        yield (box.name, box.value, box.words)
    for told in report.attention:
        yield ("Attention", told, "")
    yield ("Privacy", report.privacy.words, "")
    yield ("Compliance", report.compliance, "")


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is quoted as text."""
    is_formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if is_formula else "" if value is None else value


def as_text(report: Report) -> str:
    """For a terminal: what matters, line by line."""
    match report:
        case ComplianceReport():
            lines = [report.says, ""]
            for c in report.claims:
                entries = words.count(c.count, "entry", "entries")
                told = entries if c.status == "evidence" else c.status
                lines.append(f"{c.framework:<15} {c.article:<35} {told}")
            lines += ["", f"privacy: {report.privacy.words}", f"root {report.log.root}, "
                      f"{report.log.size:,} entries, checkpoint {report.log.number}"]  # fmt: skip
        case Contribution():
            lines = [report.formula, *filter(None, [report.words])]
            lines += [
                f"{r.mode:<5} {r.device:<20} {100 * r.incentive:5.1f} %  "
                f"influence {r.influence:8.2f}  merged {r.merged_by_others:>7,}  {r.state}"
                for r in report.rows
            ]
        case CostReport():
            lines = [f"{f.name:<28} {f.shown:>14}  {f.formula}" for f in report.figures]
            lines += [f"{m.name}: not set {', '.join(m.not_set)}" for m in report.missing]
            lines = [*filter(None, [report.words]), *lines]
        case Performance():
            merged = f"{report.models_merged:,} models merged, {report.models_refused:,} refused"
            lines = [f"{report.rounds:,} merges by {report.devices} devices, {merged}"]
            lines += [
                f"{name:<8} median {spread.median}, 9 of 10 within {spread.p90} ({spread.count:,})"
                for name, spread in (("round s", report.round), ("age s", report.age),
                                     ("log s", report.logging), ("behind", report.behind))
            ]  # fmt: skip
        case Summary():
            lines = [report.headline, ""]
            rows = [*report.boxes, *report.costs]
            lines += [f"{b.name:<28} {b.value:>14}  {b.words}" for b in rows]
            lines += ["", *(f"! {told}" for told in report.attention), report.privacy.words]
            lines.append(report.compliance)
    return "\n".join(lines)
