"""A real browser for the page: Debian's chromium, driven by playwright, or a skip that says why."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from authkit import PASSWORD

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

CHROMIUM = next(
    (p for p in (Path("/usr/bin/chromium"), Path("/usr/bin/chromium-browser")) if p.exists()), None
)

# Every text that is shown, its contrast with what it stands on, and what WCAG 2.2 AA asks of it.
CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const light = ([r, g, b]) => {
    const part = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const under = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0.99) return colour;
    }
    return [255, 255, 255, 1];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const poor = [];
  let count = 0;
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const isDrawn = element instanceof SVGElement;
    if (!node.data.trim() || element.tagName.toLowerCase() === "title") continue;
    if (!element.getClientRects().length || element.closest("[hidden], option")) continue;
    const style = getComputedStyle(element);
    const ink = rgba(isDrawn ? style.fill : style.color);
    const [a, b] = [light(ink), light(under(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
    count += 1;
    if (ratio < (isLarge ? 3 : 4.5)) poor.push([node.data.trim().slice(0, 40), ratio.toFixed(2)]);
  }
  return { count, poor };
}
"""


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install 'gossipfl[test]'")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield opened
        finally:
            await opened.close()


@dataclass
class Tab:
    """One tab, and all that went wrong or astray in it."""

    page: Page
    url: str
    said: list[str] = field(default_factory=list)  # by the console
    foreign: list[str] = field(default_factory=list)  # requests that left the origin

    async def sign_in(self, name: str = "ann") -> None:
        await self.page.goto(f"{self.url}/login")
        await self.page.fill("form[action='/login'] input[name=name]", name)
        await self.page.fill("form[action='/login'] input[name=password]", PASSWORD)
        await self.page.click("form[action='/login'] button")
        await self.page.wait_for_selector("#verdict", timeout=10_000)

    async def texts(self, selector: str) -> list[str]:
        return [text.strip() for text in await self.page.locator(selector).all_inner_texts()]


@asynccontextmanager
async def tab(opened: Browser, url: str, **options: Any) -> AsyncIterator[Tab]:
    """`options` of a playwright context: viewport, color_scheme, java_script_enabled."""
    context = await opened.new_context(ignore_https_errors=True, **options)
    page = await context.new_page()
    made = Tab(page, url)
    page.on("console", lambda message: made.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: made.said.append(f"error: {error}"))
    page.on(
        "request",
        lambda request: None if request.url.startswith(url) else made.foreign.append(request.url),
    )
    try:
        yield made
    finally:
        await context.close()
