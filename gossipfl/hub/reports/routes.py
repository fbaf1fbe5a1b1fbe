"""The routes of reports: as data for programs, as pages for people. Who is limited to labels sees
sums; what names money or duties is not for devices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tree import SIZE_MAX
from gossipfl.hub.page.auditing import Forged
from gossipfl.hub.page.feed import Feed
from gossipfl.hub.page.guests import GUEST
from gossipfl.hub.page.routes import HEADERS, HTML, insecure, is_limited
from gossipfl.hub.reports.asked import TariffQuery, tariffs
from gossipfl.hub.reports.contribution import contribution, limited
from gossipfl.hub.reports.costs import Tariffs
from gossipfl.hub.reports.facts import Facts
from gossipfl.hub.reports.formats import Report, as_csv, as_json
from gossipfl.hub.reports.office import Office, TooMany
from gossipfl.hub.reports.performance import performance
from gossipfl.hub.reports.rendering import ReportRenderer
from gossipfl.hub.reports.schema import compliance_schema
from gossipfl.hub.reports.signing import check
from gossipfl.hub.reports.summary import summary
from gossipfl.hub.reports.value import cost_report
from gossipfl.hub.rest.access import EVERYBODY, PEOPLE, Role, only
from gossipfl.hub.rest.bodies import JSON
from gossipfl.hub.rest.problems import Problem, absent, busy, malformed
from gossipfl.hub.rest.routing import Call, Raw, Route

API = "/api/v1/reports"
CSV = "text/csv"
KINDS = {"html": HTML, "json": JSON, "csv": CSV}
AUDITORS = only(Role.OPERATOR, Role.AUDITOR)

Format = Literal["", "html", "json", "csv"]


class ReportQuery(TariffQuery, frozen=True):
    """Tariffs for this report alone; `format`: else what Accept asks for, else json."""

    format: Format = ""


class ComplianceQuery(msgspec.Struct, frozen=True):
    """`size`: of the log, which a checkpoint must have had; else all under the newest."""

    size: Annotated[int, Meta(ge=1, le=SIZE_MAX)] | None = None
    format: Format = ""


class ReportsApi:
    """`usual`: the hub's own tariffs."""

    def __init__(self, office: Office, feed: Feed, usual: Tariffs) -> None:
        self._office = office
        self._feed = feed
        self._usual = usual
        self._renderer = ReportRenderer()

    def routes(self) -> list[Route]:
        kinds = (HTML, CSV)
        table = [
            Route("GET", "/api/v1/compliance/report", self.compliance_report, AUDITORS,
                  words="What the log holds that supports GDPR, HIPAA, the EU AI Act and NIST SP "
                  "800-226: signed, with inclusion proofs, the same bytes for one size of the log.",
                  query=ComplianceQuery, answer_kinds=kinds, refusals=(404,)),
            Route("GET", "/api/v1/compliance/schema", self.compliance_schema, EVERYBODY,
                  words="The JSON Schema of that report."),
            Route("GET", f"{API}/performance", self.performance_report, PEOPLE,
                  words="Rounds, latency, staleness, bytes, benchmark history.",
                  query=ReportQuery, answer_kinds=kinds, refusals=(404,)),
            Route("GET", f"{API}/cost", self.cost_report, PEOPLE,
                  words="Traffic against raw upload, energy, what is saved, with formulas.",
                  query=ReportQuery, answer_kinds=kinds, refusals=(404,)),
            Route("GET", f"{API}/contribution", self.contribution_report, PEOPLE,
                  words="What each device gave the others, under its pseudonym.",
                  query=ReportQuery, answer_kinds=kinds, refusals=(404,)),
            Route("GET", f"{API}/summary", self.summary_report, PEOPLE,
                  words="One A4 page, with trends.",
                  query=ReportQuery, answer_kinds=kinds, refusals=(404,)),
        ]  # fmt: skip
        pages = [
            Route("GET", "/reports/compliance", self.compliance_page, AUDITORS,
                  words="The compliance report, to read and to print.", query=ComplianceQuery),
            Route("GET", "/reports/performance", self.performance_page, PEOPLE,
                  words="The performance report.", query=ReportQuery),
            Route("GET", "/reports/cost", self.cost_page, PEOPLE,
                  words="The report on cost and value.", query=ReportQuery),
            Route("GET", "/reports/contribution", self.contribution_page, PEOPLE,
                  words="The contribution report.", query=ReportQuery),
            Route("GET", "/reports/summary", self.summary_page, PEOPLE,
                  words="The summary, on one page.", query=ReportQuery),
        ]  # fmt: skip
        return [replace(route, tag="reports") for route in table] + [
            replace(route, tag="page", answer_kind=HTML, refusals=(404,)) for route in pages
        ]

    # --- compliance ----------------------------------------------------------------------------

    async def compliance_report(self, hub: Any, call: Call) -> Raw:
        kind = _wanted(call)
        document = await self._compliance(call)
        if kind == JSON:
            return Raw(document, JSON)
        return self._as(kind, check(document, self._office.key).report, call)

    async def compliance_page(self, hub: Any, call: Call) -> Raw:
        document = await self._compliance(call)
        return self._as(HTML, check(document, self._office.key).report, call)

    async def _compliance(self, call: Call) -> bytes:
        try:
            return await self._office.compliance(call.query.size, call.caller.subject)
        except (AuditRefused, Forged, TooMany) as error:
            raise _problem(error) from error

    async def compliance_schema(self, hub: Any, call: Call) -> Raw:
        return Raw(json.dumps(compliance_schema(), indent=1).encode() + b"\n", JSON)

    # --- the others ----------------------------------------------------------------------------

    async def performance_report(self, hub: Any, call: Call) -> Raw:
        return await self._made(call, performance, _wanted(call))

    async def performance_page(self, hub: Any, call: Call) -> Raw:
        return await self._made(call, performance, HTML)

    async def cost_report(self, hub: Any, call: Call) -> Raw:
        return await self._made(call, cost_report, _wanted(call))

    async def cost_page(self, hub: Any, call: Call) -> Raw:
        return await self._made(call, cost_report, HTML)

    async def contribution_report(self, hub: Any, call: Call) -> Raw:
        return await self._made(call, _contribution_for(call), _wanted(call))

    async def contribution_page(self, hub: Any, call: Call) -> Raw:
        return await self._made(call, _contribution_for(call), HTML)

    async def summary_report(self, hub: Any, call: Call) -> Raw:
        return await self._made(call, summary, _wanted(call))

    async def summary_page(self, hub: Any, call: Call) -> Raw:
        return await self._made(call, summary, HTML)

    async def _made(self, call: Call, make: Callable[[Facts], Report], kind: str) -> Raw:
        rates, problem = tariffs(call.query, self._usual)
        if problem and kind != HTML:
            raise malformed(problem)
        try:
            async with self._office.facts(rates) as facts:
                report = await asyncio.to_thread(make, facts)  # accountants take their time
        except (AuditRefused, Forged, TooMany) as error:
            raise _problem(error) from error
        return self._as(kind, report, call, problem)

    def _as(self, kind: str, report: Report, call: Call, problem: str = "") -> Raw:
        if kind == JSON:
            return Raw(as_json(report), JSON)
        if kind == CSV:
            named = f'attachment; filename="{report.report}.csv"'
            return Raw(as_csv(report), CSV, {"Content-Disposition": named})
        caller = call.caller
        query = call.query if isinstance(call.query, TariffQuery) else TariffQuery()
        text = self._renderer.within(
            report,
            self._feed.page(self._usual, insecure(call.request)),
            (caller.subject, caller.subject != GUEST.subject),
            query,
            problem,
            sees_compliance=AUDITORS.allows(caller.role),
        )
        return Raw(text.encode(), HTML, HEADERS)


def _contribution_for(call: Call) -> Callable[[Facts], Report]:
    if is_limited(call.caller):
        return lambda facts: limited(contribution(facts))
    return contribution


def _wanted(call: Call) -> str:
    """The kind that `format` names, else the first that Accept asks for, else JSON."""
    if call.query.format:
        return KINDS[call.query.format]
    asked = []
    for place, part in enumerate(call.request.headers.get("Accept", "").split(",")[:16]):
        kind, _, rest = part.strip().lower().partition(";")
        weight = 1.0
        if rest.strip().startswith("q="):
            try:
                weight = float(rest.strip()[2:].split(";")[0])
            except ValueError:
                weight = 0.0
        if kind.strip() in KINDS.values() and weight > 0:
            asked.append((-weight, place, kind.strip()))
    return min(asked)[2] if asked else JSON


def _problem(error: Exception) -> Problem:
    match error:
        case TooMany():
            return busy(str(error), 5)
        case Forged():
            return Problem(503, "GF803", f"the log does not verify: {error}")
    return absent(str(error))
