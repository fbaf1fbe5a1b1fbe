"""From the page's values to HTML: jinja2 with autoescape, charts from `charts` and `peer_graph`."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gossipfl.hub.page import charts, peer_graph, words
from gossipfl.hub.page.model import DevicePage, Learning, Level, Page, State
from gossipfl.hub.page.query import COLUMNS, Query, rows

FOLDER = Path(__file__).parent
STATIC = {
    "style.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
STATE_WORDS = {
    State.LIVE: "it answers, and others merge it",
    State.AWAY: "it has not been heard of of late",
    State.LEFT_OUT: "it publishes, and nobody merges it",
    State.SHUT_OUT: "this hub's node has quarantined it, or holds proof against it",
    State.REVOKED: "an issuer has revoked it",
}


def static(name: str) -> bytes:
    return (FOLDER / "static" / name).read_bytes()


def environment(*folders: Path) -> Environment:
    """Templates of the page, and of `folders`, with what they may call."""
    made = Environment(
        loader=FileSystemLoader([*folders, FOLDER / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals.update(
        assets=assets(),
        age=words.age,
        band=charts.band,
        clock=words.clock,
        columns=COLUMNS,
        count=words.count,
        figure=words.figure,
        good=Level.GOOD,
        graph=peer_graph.drawn,
        meter=_meter,
        percent=words.percent,
        references=_references,
        size=words.size,
        small=lambda value: f"{value:.2g}",
        spark=charts.spark,
        stale_most=_stale_most,
        state_words=STATE_WORDS,
        states=list(State),
        symbol=peer_graph.symbol,
        when=words.when,
        whole=lambda value: f"{value:g}",
    )
    return made


def assets() -> str:
    """A hash of all static files: part of their addresses."""
    return hashlib.sha256(b"".join(static(name) for name in STATIC)).hexdigest()[:12]


class Renderer:
    """Made once; templates are read once."""

    def __init__(self) -> None:
        self._environment = environment()

    def page(
        self,
        page: Page,
        query: Query,
        problem: str,
        caller: str,
        signed_in: bool,
        *,
        sees_compliance: bool = False,
        csrf: str = "",
    ) -> str:
        """`csrf`: what forms that change something must bring; "" for who may change nothing."""
        shown = rows(query, page.devices)
        return self._render(
            "page.html",
            page=page,
            query=_Shown(query, problem),
            shown=shown,
            kept=query.kept(),
            sort_link=query.link,
            sees_compliance=sees_compliance,
            caller_name=caller,
            signed_in=signed_in,
            csrf=csrf,
        )

    def device(self, it: DevicePage, page: Page, caller: str, signed_in: bool) -> str:
        return self._render(
            "device.html", it=it, page=page, caller_name=caller, signed_in=signed_in
        )

    def login(self, *, following: str, problem: str = "", name: str = "", code: str = "") -> str:
        return self._render("login.html", next=following, problem=problem, name=name, code=code)

    def problem(self, title: str, told: str, hint: str, code: str) -> str:
        return self._render("problem.html", title=title, words=told, hint=hint, code=code)

    def _render(self, template: str, **values: Any) -> str:
        return self._environment.get_template(template).render(**values)


class _Shown:
    """A query for the template, with what is wrong in it."""

    def __init__(self, query: Query, problem: str) -> None:
        self._query = query
        self.problem = problem

    def __getattr__(self, name: str) -> Any:
        return getattr(self._query, name)


def fleet_csv(page: Page) -> str:
    """The fleet table. A cell that a spreadsheet would take for a formula is quoted as text."""
    out = io.StringIO()
    writer = csv.writer(out)
    names = ("device", "state", "note", "round", "behind", "receipts", "merged_by", "judged_by")
    writer.writerow([*names, "weight", "reputation", "sent_bytes", "seen_seconds_ago"])
    for row in page.devices:
        figures = (row.weight, row.reputation)
        writer.writerow(
            [
                row.name,
                row.state.value,
                _plain(row.note),
                *(row.round, row.behind, row.receipts, row.merged_of, row.judged_by),
                *("" if value is None else f"{value:.4f}" for value in figures),
                *(row.sent_bytes, row.seen_s),
            ]
        )
    return out.getvalue()


def _plain(text: str) -> str:
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _meter(share: float, title: str, is_loud: bool = False) -> object:
    return charts.bar(share, title, is_loud=is_loud)


def _references(it: Learning) -> list[tuple[str, float]]:
    found = [("alone", it.alone), ("all data in one place", it.central)]
    return [(name, value) for name, value in found if value is not None]


def _stale_most(it: Learning) -> int:
    return max([1, *(behind for _, _, behind in it.staleness)])
