"""Reports over HTTP and in a browser: who gets what, in which form, and what fits on a page."""

from __future__ import annotations

import csv
import io
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from authkit import PASSWORD, bearer
from browserkit import CONTRAST, browser, tab
from pagekit import story
from pageserver import Served, served
from starkit import example, side_by_side, stand
from test_page_routes import session, sign_in
from test_reports import LOG, tally_of, with_privacy

from gossipfl.audit.entries import EntryKind
from gossipfl.audit.notes import log_key
from gossipfl.hub.log.drafts import Draft
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.log.writer import LogWriter
from gossipfl.hub.page.facts import Measured
from gossipfl.hub.reports.costs import NAMES, Tariffs
from gossipfl.hub.reports.facts import Facts
from gossipfl.hub.reports.rendering import TITLES, ReportRenderer
from gossipfl.hub.reports.signing import check
from gossipfl.hub.reports.summary import ATTENTION_MAX, COSTS_SHOWN, summary
from gossipfl.hub.rest.access import Role
from gossipfl.identity import short_name
from gossipfl.messages import Privacy

RATES = Tariffs(
    raw_mb=200.0, price=2.0, kwh_price=0.3, training_w=3.0, training_s=2.0, device_month=1.5,
    central_month=90.0,
)  # fmt: skip
MEASURED = (
    "INSERT INTO measured (time, models, low, middle, high, merged, disagreement) "
    "VALUES (?, 7, 0.8, 0.85, 0.9, ?, ?)"
)


async def token(hub: Served, name: str) -> dict[str, str]:
    user = await hub.auth.users.check(name, PASSWORD)
    pair = await hub.auth.sessions.begin(name, user.role, user.labels)
    return bearer(pair.access)


def address(name: str) -> str:
    return "/api/v1/compliance/report" if name == "compliance" else f"/api/v1/reports/{name}"


async def test_each_report_in_each_form(tmp_path: Path) -> None:
    async with served(tmp_path, story(), usual=RATES) as hub, session() as http:
        who = await token(hub, "otto")
        for name in TITLES:
            url = hub.url + address(name)
            plain = await http.get(url, headers=who)
            assert (plain.status, plain.content_type) == (200, "application/json"), name
            told = json.loads(await plain.read())["report"]
            assert name == (told if isinstance(told, str) else told["report"])
            assert plain.headers["Cache-Control"] == "no-store"
            table = await http.get(f"{url}?format=csv", headers=who)
            assert table.content_type == "text/csv"
            rows = list(csv.reader(io.StringIO(await table.text())))
            assert len(rows) > 1
            assert len({len(row) for row in rows}) == 1
            page = await http.get(url, headers={**who, "Accept": "text/html,*/*;q=0.8"})
            assert page.content_type == "text/html"
            assert "script-src 'self'" in page.headers["Content-Security-Policy"]
            text = await page.text()
            assert not re.search(r"<[^>]+\s(style|on\w+)=|<script|<style", text)
            assert (await http.get(f"{hub.url}/reports/{name}", headers=who)).status == 200
            again = await http.get(url, headers={**who, "Accept": "text/csv;q=0.9,text/html;q=0"})
            assert again.content_type == "text/csv"
            assert (await http.get(f"{url}?format=pdf", headers=who)).status == 422


async def test_the_signed_report_and_its_schema(tmp_path: Path) -> None:
    async with served(tmp_path, story()) as hub, session() as http:
        who = await token(hub, "ann")
        schema = await (await http.get(f"{hub.url}/api/v1/compliance/schema", headers=who)).json()
        answer = await http.get(hub.url + address("compliance"), headers=who)
        document = await answer.read()
        jsonschema.Draft202012Validator(schema).validate(json.loads(document))
        size = check(document, hub.log.key).report.log.size
        again = await http.get(f"{hub.url}{address('compliance')}?size={size}", headers=who)
        assert await again.read() == document
        missing = await http.get(f"{hub.url}{address('compliance')}?size=99", headers=who)
        assert missing.status == 404
        assert "no checkpoint covers exactly 99" in (await missing.json())["detail"]
        wrong = await http.get(f"{hub.url}{address('compliance')}?size=0", headers=who)
        assert wrong.status == 422


async def test_who_gets_which(tmp_path: Path) -> None:
    async with served(tmp_path, story()) as hub, session() as http:
        heads = {name: await token(hub, name) for name in ("ann", "otto", "vera", "lea")}
        pair = await hub.auth.sessions.begin("ab" * 16, Role.DEVICE)
        heads["device"] = bearer(pair.access)
        for name in TITLES:
            for path in (address(name), f"/reports/{name}"):
                got = {
                    who: (await http.get(hub.url + path, headers=head)).status
                    for who, head in heads.items()
                }
                viewers = 403 if name == "compliance" else 200
                assert got == {
                    "ann": 200, "otto": 200, "vera": viewers, "lea": viewers, "device": 403,
                }, path  # fmt: skip
                assert (await http.get(hub.url + path)).status == 401
        rows = {}
        for who in ("vera", "lea"):
            answer = await http.get(hub.url + address("contribution"), headers=heads[who])
            rows[who] = (await answer.json())["rows"]
        assert (len(rows["vera"]), rows["lea"]) == (7, [])
        page = await (await http.get(hub.url, headers={**heads["vera"], "Accept": "*/*"})).text()
        assert "/reports/summary" in page
        assert "/reports/compliance" not in page


async def test_a_tariff_of_the_query_counts_for_this_answer(tmp_path: Path) -> None:
    async with served(tmp_path, story(), usual=RATES) as hub, session() as http:
        who = await token(hub, "ann")

        async def figures(query: str) -> dict[str, Any]:
            answer = await http.get(f"{hub.url}{address('cost')}{query}", headers=who)
            return {f["key"]: f["value"] for f in (await answer.json())["figures"]}

        usual, dearer = await figures(""), await figures("?price=4")
        assert dearer["traffic"] == pytest.approx(2 * usual["traffic"], rel=1e-3)
        assert dearer["roi"] != usual["roi"]
        assert await figures("") == usual
        wrong = await http.get(f"{hub.url}{address('cost')}?price=dear", headers=who)
        assert wrong.status == 422
        assert "the price per GB" in (await wrong.json())["detail"]
        page = await http.get(f"{hub.url}/reports/cost?price=dear", headers=who)
        assert "the price per GB is a number" in await page.text()


@pytest.mark.slow
async def test_they_can_be_read_and_the_summary_prints_on_one_page(tmp_path: Path) -> None:
    told = story()
    async with (
        served(tmp_path, told, usual=RATES) as hub,
        browser() as opened,
    ):
        async with hub.database.transaction() as transaction:
            for n in range(40):
                values = (told.now - 40 + n, 0.7 + n / 200, 0.5 - n / 100)
                await transaction.execute(MEASURED, *values)
        for width, scheme in ((1280, "light"), (390, "dark")):
            size = {"width": width, "height": 900}
            async with tab(opened, hub.url, viewport=size, color_scheme=scheme) as it:
                await it.sign_in()
                await it.page.click("#reports a:has-text('Summary')")
                for name, title in TITLES.items():
                    await it.page.click(f"nav.reports a:text-is('{title}')")
                    await it.page.wait_for_selector(f"main.{name} h1:text-is('{title}')")
                    found = await it.page.evaluate(CONTRAST)
                    assert found["poor"] == [], name
                    text = await it.page.inner_text("main")
                    assert short_name(told.liar) not in text
                    assert (
                        await it.page.evaluate("() => document.documentElement.scrollWidth")
                        <= width
                    ), name
                await it.page.goto(f"{hub.url}/reports/summary")
                printed = await it.page.pdf(prefer_css_page_size=True)
                assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1
                box = re.search(rb"/MediaBox\s*\[([\d.\s]+)\]", printed)
                assert box is not None
                points = [float(value) for value in box[1].split()]
                assert points[2:] == pytest.approx([595, 842], abs=2)  # A4
                assert it.said == []
                assert it.foreign == []


async def test_star_mode_is_reported_too(tmp_path: Path, dsn: str) -> None:
    """Five clients, one of which is blocked in the end."""
    async with stand(tmp_path, dsn) as hub:
        signer = hub.operator.official.signer
        log = HubLog(hub.database, log_key(signer.key_id))
        await log.append([Draft(EntryKind.ALARM, bytes(16), b'{"alarm":"a test"}', 1_800_000_000)])
        await LogWriter(hub.database, log, signer).integrate()
        await hub.start(n=6, attackers=0, epochs=1, rounds=3)
        members = example().fleet(hub.url, None, 5, 0)
        code = await hub.code()
        await side_by_side([partial(member.run, code) for member in members])
        listed = (await hub.ask("GET", "/api/v1/clients"))["clients"]
        history = (await hub.ask("GET", "/api/v1/convergence/history"))["rounds"]
        blocked = listed[0]["client_id"]
        body = {"client_id": blocked, "reason": "a test"}
        await hub.ask("POST", "/api/v1/security/block-client", body)

        found = (await hub.ask("GET", "/api/v1/reports/performance"))["star"]
        updates = sum(client["updates"] for client in listed)
        assert (found["clients"], found["merges"]) == (5, 3)
        assert found["updates"] == updates
        assert found["bytes"] == round(updates * found["update_bytes"])
        assert [p["merged"] for p in found["points"]] == [h["merged"] for h in history[::-1]]

        cost = (await hub.ask("GET", "/api/v1/reports/cost?price=2"))["figures"]
        assert {f["key"]: f["value"] for f in cost}["moved"] == found["bytes"]

        made = await hub.ask("GET", "/api/v1/reports/contribution")
        rows = {row["device"]: row for row in made["rows"]}
        assert len(rows) == 5
        assert sum(row["incentive"] for row in rows.values()) == pytest.approx(1.0)
        states = [row["state"] for row in rows.values()]
        assert states.count("blocked") == 1
        assert blocked not in json.dumps(made)
        text = (await hub.ask("GET", "/api/v1/reports/summary"))["headline"]
        assert text.startswith("5 clients learned with the hub: 3 merges")


@pytest.mark.slow
async def test_the_fullest_summary_prints_on_one_page_too() -> None:
    """Every block at its longest."""
    terms = Privacy(mode="local", epsilon=8.0, delta=1e-5, z=6.0)
    told = story()
    looks = tuple(Measured(told.now + n, 0.7, 0.8, 0.9, 0.8 + n / 1e3, 0.5) for n in range(200))
    tally = tally_of(with_privacy(told, terms))
    facts = Facts(tally, LOG, {}, (123_456_789,), looks, RATES, "a-holdout-of-many-letters")
    known = tally.chronicle.devices
    known[told.liar].evidence.append((told.now, "equal seq"))
    known[told.honest[0]].revoked = (told.now, "stolen")
    tally.kinds[EntryKind.ALARM] = tally.kinds[EntryKind.RECEIPT]
    tally.faults["TLS key of another device"] = 1_234_567
    tally.parts[told.liar].bare, tally.erased = 5_000_000, 1_000_000
    made = summary(facts)
    assert len(made.attention) == ATTENTION_MAX
    assert len(made.costs) == COSTS_SHOWN
    assert len(made.trends) == 6
    made = msgspec.structs.replace(made, not_set=list(NAMES.values()))
    async with browser() as opened:
        page = await opened.new_page()
        await page.set_content(ReportRenderer().alone(made))
        printed = await page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1


async def test_a_stranger_with_a_browser_is_asked_to_sign_in(tmp_path: Path) -> None:
    async with served(tmp_path, story()) as hub, session() as http:
        html = {"Accept": "text/html"}
        page = f"{hub.url}/reports/summary"
        answer = await http.get(page, headers=html, allow_redirects=False)
        assert answer.headers["Location"] == "/login?next=%2Freports%2Fsummary"
        await sign_in(http, hub)
        assert (await http.get(page, headers=html)).status == 200
