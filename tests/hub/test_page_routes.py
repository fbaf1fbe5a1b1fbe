"""The page's routes: who gets in, what a browser is told, what the log's reader refuses."""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path

import aiohttp
import pytest
from authkit import PASSWORD, bearer
from logkit import SIGNER
from pagekit import kept, sighted, story
from pageserver import Served, served

from gossipfl.audit.notes import log_key
from gossipfl.hub.auth.authenticator import COOKIE
from gossipfl.hub.database import open_database
from gossipfl.hub.page.auditing import Forged, Place, follow
from gossipfl.hub.page.guests import Guests
from gossipfl.hub.rest.access import Role
from gossipfl.identity import device_name

HTML = {"Accept": "text/html"}


def session() -> aiohttp.ClientSession:
    """A client that keeps cookies of addresses and takes the tests' certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context),
        cookie_jar=aiohttp.CookieJar(unsafe=True),
    )


async def sign_in(
    http: aiohttp.ClientSession, hub: Served, **fields: str
) -> aiohttp.ClientResponse:
    form = {"name": "ann", "password": PASSWORD, **fields}
    return await http.post(f"{hub.url}/login", data=form, allow_redirects=False)


async def test_strangers_are_asked_to_sign_in_and_programs_get_a_problem(tmp_path: Path) -> None:
    async with served(tmp_path, story()) as hub, session() as http:
        answer = await http.get(f"{hub.url}/?sort=weight", headers=HTML, allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (
            303,
            "/login?next=%2F%3Fsort%3Dweight",
        )
        for path in ("/", "/fleet.csv", "/page/events", "/verify", "/devices/x"):
            refused = await http.get(hub.url + path, headers={"Accept": "*/*"})
            assert refused.status == 401, path
            assert refused.content_type == "application/problem+json"
        missing = await http.get(f"{hub.url}/nothing", headers=HTML)
        assert (missing.status, missing.content_type) == (404, "text/html")


async def test_a_form_signs_in_and_out(tmp_path: Path) -> None:
    async with served(tmp_path, story()) as hub, session() as http:
        wrong = await sign_in(http, hub, password="not this one at all")
        assert wrong.status == 401
        assert "no user has this name and this password" in await wrong.text()
        answer = await sign_in(http, hub, next="/devices/x")
        assert (answer.status, answer.headers["Location"]) == (303, "/devices/x")
        page = await http.get(hub.url, headers=HTML)
        assert page.status == 200
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        text = await page.text()
        assert not re.search(r"<[^>]+\s(style|on\w+)=|<script(?![^>]*\ssrc=)|<style", text)
        out = await http.post(f"{hub.url}/logout", data={}, allow_redirects=False)
        assert out.status == 303
        again = await http.get(hub.url, headers=HTML, allow_redirects=False)
        assert again.status == 303


async def test_signing_out_needs_no_token_that_holds_and_ends_the_session_behind_it(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, story()) as hub, session() as http:
        rubbish = {"Cookie": f"{COOKIE}=abc"}
        out = await http.post(f"{hub.url}/logout", data={}, headers=rubbish, allow_redirects=False)
        assert out.status == 303
        await sign_in(http, hub)
        hub.clock.now += 3_600  # the access token has ended, the session has not
        kept = {c.key: c.value for c in http.cookie_jar}
        await http.post(f"{hub.url}/logout", data={}, allow_redirects=False)
        http.cookie_jar.update_cookies(kept)
        answer = await http.get(hub.url, headers=HTML)
        assert answer.url.path == "/login"


async def test_a_session_whose_token_has_ended_goes_on(tmp_path: Path) -> None:
    async with served(tmp_path, story()) as hub, session() as http:
        await sign_in(http, hub)
        hub.clock.now += 3_600
        answer = await http.get(hub.url, headers=HTML)
        assert answer.status == 200
        assert [r.headers["Location"] for r in answer.history] == ["/login?next=%2F", "/"]


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil", "evil", "/\n"]
)
async def test_signing_in_leads_nowhere_else(tmp_path: Path, target: str) -> None:
    async with served(tmp_path, story()) as hub, session() as http:
        answer = await sign_in(http, hub, next=target)
        assert answer.headers["Location"] == "/"


async def test_another_site_signs_nobody_in_or_out(tmp_path: Path) -> None:
    async with served(tmp_path, story()) as hub, session() as http:
        foreign = {"Origin": "https://evil.example"}
        form = {"name": "ann", "password": PASSWORD}
        answer = await http.post(f"{hub.url}/login", data=form, headers=foreign)
        assert answer.status == 403
        await sign_in(http, hub)
        answer = await http.post(f"{hub.url}/logout", data={}, headers=foreign)
        assert answer.status == 403
        assert (await http.get(hub.url, headers=HTML)).status == 200


async def test_a_login_link_sets_the_password_and_works_once(tmp_path: Path) -> None:
    async with served(tmp_path, story()) as hub, session() as http:
        code = await hub.auth.users.add("new", Role.AUDITOR)
        shown = await http.get(f"{hub.url}/login", params={"code": code})
        assert code in await shown.text()
        form = {"code": code, "password": "another sentence of many words"}
        answer = await http.post(f"{hub.url}/login/link", data=form, allow_redirects=False)
        assert answer.status == 303
        assert "new" in await (await http.get(hub.url, headers=HTML)).text()
        answer = await http.post(f"{hub.url}/login/link", data=form, allow_redirects=False)
        assert answer.status == 401


async def test_devices_and_strangers_do_not_see_the_page(tmp_path: Path) -> None:
    async with served(tmp_path, story()) as hub, session() as http:
        pair = await hub.auth.sessions.begin("ab" * 16, Role.DEVICE)
        answer = await http.get(hub.url, headers={**bearer(pair.access), "Accept": "*/*"})
        assert answer.status == 403


async def test_the_table_as_csv(tmp_path: Path) -> None:
    told = story()
    async with served(tmp_path, told) as hub, session() as http:
        await sign_in(http, hub)
        answer = await http.get(f"{hub.url}/fleet.csv")
        lines = (await answer.text()).splitlines()
        assert len(lines) == 8
        assert lines[0].startswith("device,state,note,round")
        assert lines[1].startswith(f"{device_name(told.liar)},left out,")


async def test_events_tell_of_news_once(tmp_path: Path) -> None:
    told = story()
    async with served(tmp_path, told) as hub, session() as http:
        await sign_in(http, hub)
        await hub.feed.news("")
        async with http.get(f"{hub.url}/page/events?since={hub.feed.version}") as stream:
            assert stream.content_type == "text/event-stream"
            assert await stream.content.readline() == b"retry: 3000\n"
            gone = {d: s for d, s in told.sightings.items() if d != told.honest[0]}
            before = hub.feed.version
            await sighted(hub.database, type(told)(told.drafts, gone, told.now, told.liar))
            async with asyncio.timeout(10):
                await stream.content.readline()
                assert await stream.content.readline() == b"event: page\n"
                assert before.encode() not in await stream.content.readline()


async def test_guests_look_from_this_machine_only() -> None:
    class Nobody:
        async def caller(self, request: object) -> object:
            raise AssertionError("there is no token")

    class Request:
        method, headers, cookies, remote, host = "GET", {}, {}, "127.0.0.1", "127.0.0.1:8700"

    async def comes(**changes: object) -> bool:
        request = type("Changed", (Request,), changes)()
        try:
            return (await Guests(Nobody()).caller(request)).role is Role.VIEWER  # type: ignore[arg-type]
        except Exception:
            return False

    assert await comes()
    assert await comes(host="localhost:8700")
    assert await comes(host="[::1]:8700", remote="::1")
    assert not await comes(host="evil.example:8700")  # DNS rebinding
    assert not await comes(remote="10.0.0.9")
    assert not await comes(method="POST")
    assert not await comes(headers={"X-Forwarded-For": "10.0.0.9"})


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("UPDATE log_entries SET entry = (SELECT entry FROM log_entries WHERE position = 1) "
         "WHERE position = 50", "entry 50"),
        ("UPDATE log_entries SET data = x'00' WHERE position = 7", "entry 7"),
        ("DELETE FROM log_checkpoints WHERE number = 2", "checkpoint 2"),
        ("UPDATE log_checkpoints SET note = (SELECT note FROM log_checkpoints WHERE number = 1) "
         "WHERE number = 3", "checkpoint 3"),
    ],
)  # fmt: skip
async def test_a_changed_log_is_found_and_named(tmp_path: Path, change: str, where: str) -> None:
    database = await open_database(tmp_path / "hub.db")
    try:
        log = await kept(database, story())
        key = log_key(SIGNER.key_id)
        steps = [s async for s in follow(log.reader, key, Place(), with_salts=True)]
        assert steps[-1].after.tree.size == len(story().drafts)
        async with database.transaction() as transaction:
            await transaction.execute(change)
        with pytest.raises(Forged, match=where):
            _ = [s async for s in follow(log.reader, key, Place(), with_salts=True)]
    finally:
        await database.close()
