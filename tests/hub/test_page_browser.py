"""The page in a real browser: with and without JavaScript, wide and narrow, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from browserkit import CONTRAST, browser, tab
from logkit import SIGNER
from pagekit import sighted, story
from pageserver import served

from gossipfl.audit.entries import EntryKind
from gossipfl.hub.log.drafts import Draft
from gossipfl.hub.log.writer import LogWriter
from gossipfl.identity import device_name, short_name

pytestmark = pytest.mark.slow

BLOCKS = ("verdict", "tiles", "needs", "graph", "fleet", "learning", "privacy", "security")
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.mark.parametrize("scripts", [True, False], ids=["js", "no-js"])
async def test_every_block_is_there_and_nothing_leaves_the_origin(
    tmp_path: Path, scripts: bool
) -> None:
    told = story()
    liar = short_name(told.liar)
    async with (
        served(tmp_path, told) as hub,
        browser() as opened,
        tab(opened, hub.url, viewport=WIDE, java_script_enabled=scripts) as it,
    ):
        await it.sign_in()
        for block in (*BLOCKS, "evidence", "cost"):
            assert await it.page.locator(f"#{block}").is_visible(), block
        assert liar in await it.page.inner_text("#verdict")
        assert "live" in await it.page.inner_text("#mark")
        assert len(await it.texts("#fleet tbody tr")) == 7

        # Sorted and filtered: in place with JavaScript, by plain links and forms without.
        await it.page.click("#fleet th a:has-text('Weight')")
        await it.page.wait_for_selector("#fleet th[aria-sort=ascending]")
        assert (await it.texts("#fleet tbody th"))[0] == liar
        await it.page.fill("#fleet input[name=find]", liar)
        await it.page.press("#fleet input[name=find]", "Enter")
        await it.page.wait_for_selector("#fleet h2:has-text('1 of 7')")
        assert await it.texts("#fleet tbody th") == [liar]
        await it.page.select_option("#fleet select", "live")
        if not scripts:
            await it.page.click("#fleet button")
        await it.page.wait_for_selector("#fleet:has-text('No device fits')")

        await it.page.click("#evidence button")
        await it.page.wait_for_selector("#evidence .ok:has-text('agree with')")

        await it.page.fill("#cost input[name=raw]", "100")
        await it.page.fill("#cost input[name=price]", "0,5")
        await it.page.click("#cost button")
        await it.page.wait_for_selector("#cost:has-text('Kept local')")
        assert "0.5 EUR/GB" in await it.page.inner_text("#cost")

        await it.page.goto(f"{hub.url}/devices/{device_name(told.liar)}")
        assert "nobody has ever merged it" in await it.page.inner_text("#who")
        exchanges = await it.texts("#exchanges tbody tr")
        assert exchanges
        assert all(row.endswith("0 times") for row in exchanges)  # nobody merged the liar
        await it.page.click("text=Sign out")
        await it.page.wait_for_selector("text=First time here")
        await it.page.goto(hub.url)
        assert await it.page.locator("form[action='/login']").is_visible()
        assert it.foreign == []
        assert it.said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
async def test_it_can_be_read(tmp_path: Path, size: dict[str, int], scheme: str) -> None:
    """Contrast AA of every text, and no sideways scrolling of the page itself."""
    told = story()
    async with (
        served(tmp_path, told) as hub,
        browser() as opened,
        tab(opened, hub.url, viewport=size, color_scheme=scheme) as it,
    ):
        await it.page.goto(f"{hub.url}/login")
        assert (await it.page.evaluate(CONTRAST))["poor"] == []
        await it.sign_in()
        for path in ("/", f"/devices/{device_name(told.liar)}", "/devices/nobody"):
            await it.page.goto(hub.url + path)
            found = await it.page.evaluate(CONTRAST)
            assert found["poor"] == [], path
            assert found["count"] > (100 if path == "/" else 3)
            width = await it.page.evaluate("() => document.documentElement.scrollWidth")
            assert width <= size["width"], path


async def test_news_come_by_themselves_and_silence_shows(tmp_path: Path) -> None:
    told = story()
    device = told.honest[0]
    async with browser() as opened:
        async with served(tmp_path, told) as hub:
            context = tab(opened, hub.url, viewport=WIDE)
            it = await context.__aenter__()
            await it.sign_in()
            await it.page.evaluate("() => { window.sameDocument = true; }")
            writer = LogWriter(hub.database, hub.log, SIGNER, clock=lambda: told.now)
            alarm = b'{"alarm":"receipts withheld","device":"%s"}' % device.hex().encode()
            await hub.log.append([Draft(EntryKind.ALARM, device, alarm, told.now)])
            await writer.integrate()
            await it.page.wait_for_selector("#needs:has-text('1 alarm since yesterday')")
            assert "receipts withheld" in await it.page.inner_text("#security")

            away = {**told.sightings}
            del away[device]
            await sighted(hub.database, type(told)(told.drafts, away, told.now, told.liar))
            hub.clock.now += 300
            await it.page.wait_for_selector("#mark:has-text('stale')")
            assert await it.page.evaluate("() => window.sameDocument")
            assert not await it.page.locator("#offline").is_visible()
        await it.page.wait_for_selector("#offline:visible")
        assert it.foreign == []
        await context.__aexit__(None, None, None)


async def test_a_limited_viewer_sees_sums_and_a_guest_only_looks(tmp_path: Path) -> None:
    told = story()
    async with browser() as opened:
        async with served(tmp_path, told) as hub, tab(opened, hub.url, viewport=WIDE) as it:
            await it.sign_in("lea")
            assert await it.page.locator("#tiles").is_visible()
            assert await it.page.locator("#graph").count() == 0
            assert short_name(told.liar) not in await it.page.content()
            await it.page.goto(f"{hub.url}/devices/{device_name(told.liar)}")
            assert "not for viewers who are limited" in await it.page.inner_text("main")
        folder = tmp_path / "open"
        folder.mkdir()
        async with (
            served(folder, told, guests=True) as hub,
            tab(opened, hub.url, viewport=WIDE) as it,
        ):
            await it.page.goto(hub.url)
            assert await it.page.locator("#fleet").is_visible()
            assert await it.page.locator("text=Sign out").count() == 0
            assert it.said == []
