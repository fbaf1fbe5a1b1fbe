"""The routes by which people, pages and monitors watch a hub: status, events, metrics, OpenAPI."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gossipfl import __version__
from gossipfl.hub.alerts import book
from gossipfl.hub.alerts.figures import FleetFigures
from gossipfl.hub.auth.tokens import ACCESS_S
from gossipfl.hub.broadcast import Happened
from gossipfl.hub.hub import Hub
from gossipfl.hub.page.feed import Feed
from gossipfl.hub.rest.access import EVERYBODY, PUBLIC, Access, Role, only
from gossipfl.hub.rest.dispatch import Dispatcher
from gossipfl.hub.rest.openapi import document
from gossipfl.hub.rest.origins import came_by_proxy
from gossipfl.hub.rest.problems import busy, forbidden
from gossipfl.hub.rest.routing import Call, Raw, Route
from gossipfl.hub.star.overview import StarStatus, overview
from gossipfl.hub.star.service import Star

METRICS_TYPE = "text/plain"
EVENTS_TYPE = "text/event-stream"
HEARTBEAT_S = 15.0  # guess: below the idle limits of proxies
WATCHERS = only(Role.OPERATOR, Role.AUDITOR, Role.VIEWER, Role.HUB)


class StatusAnswer(msgspec.Struct, frozen=True):
    """How the hub and its star mode are now. Times are seconds since the epoch."""

    version: str
    fleet: str
    now: int
    uptime_s: float
    leads: bool
    log_entries: int
    problems: list[str]
    star: StarStatus


class ObservingApi:
    """`dispatcher` is asked for when a request comes: it is made of these routes too."""

    def __init__(
        self, star: Star, dispatcher: Callable[[], Dispatcher], feed: Feed, *, is_loopback: bool
    ) -> None:
        self._star = star
        self._feed = feed
        self._dispatcher = dispatcher
        self._metrics_access: Access = PUBLIC if is_loopback else WATCHERS
        self._document: bytes | None = None

    def routes(self) -> list[Route]:
        table = [
            Route("GET", "/openapi.json", self.openapi, PUBLIC, None, None,
                  "This document.", is_exempt=True),
            Route("GET", "/metrics", self.metrics, self._metrics_access, None, None,
                  "Figures for Prometheus. On loopback without a token.",
                  answer_kind=METRICS_TYPE, is_exempt=True, refusals=(403,)),
            Route("GET", "/api/v1/status", self.status, EVERYBODY, None, StatusAnswer,
                  "How the hub and star mode are now."),
            Route("GET", "/api/v1/events", self.events, WATCHERS, None, None,
                  "What happens, as server-sent events; ends after a quarter of an hour.",
                  answer_kind=EVENTS_TYPE, is_exempt=True),
        ]  # fmt: skip
        return [replace(route, tag="watching") for route in table]

    async def openapi(self, hub: Hub, call: Call) -> Raw:
        if self._document is None:
            self._document = msgspec.json.encode(document(self._dispatcher().routes))
        return Raw(self._document)

    async def status(self, hub: Hub, call: Call) -> StatusAnswer:
        async with hub.database.transaction(write=False) as tx:
            star = await overview(self._star, tx)
        return StatusAnswer(
            version=__version__,
            fleet=hub.fleet.hex(),
            now=hub.clock(),
            uptime_s=time.monotonic() - hub.started,
            leads=hub.leader.leads,
            log_entries=await hub.log.reader.size(),
            problems=[*hub.supervisor.problems(), *hub.leader.supervisor.problems()],
            star=star,
        )

    async def metrics(self, hub: Hub, call: Call) -> web.Response:
        if self._metrics_access.is_public and came_by_proxy(call.request):
            raise forbidden("behind a proxy not everybody is on this machine")
        async with hub.database.transaction(write=False) as tx:
            star = await overview(self._star, tx)
            alerts = await book.counts(tx)
        figures = _Figures(hub, self._dispatcher(), star, await hub.log.reader.size())
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(figures)
        registry.register(FleetFigures(hub.database, self._feed, alerts))
        body = generate_latest(registry)
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=body, headers=headers)

    async def events(self, hub: Hub, call: Call) -> web.StreamResponse:
        if call.caller.labels:
            raise forbidden("a viewer who is limited to labels sees no events of all devices")
        response = web.StreamResponse(
            headers={"Content-Type": EVENTS_TYPE, "Cache-Control": "no-store"}
        )
        try:
            with hub.events.listen() as happened:
                await response.prepare(call.request)
                await response.write(b": gossipfl\n\n")
                await _stream(response, happened, lambda: self._star.auth.still(call.request))
        except ValueError as error:
            raise busy(str(error), 5) from None
        except ConnectionError:
            pass  # the reader went away
        return response


async def _stream(
    response: web.StreamResponse,
    happened: AsyncIterator[Happened],
    still: Callable[[], Awaitable[bool]],
) -> None:
    """Events as they come, and a sign of life in between, for as long as a token lasts and its
    session goes on: `still` is asked with each sign."""
    loop = asyncio.get_running_loop()
    looked = loop.time()
    waiting: asyncio.Task[Happened] | None = None
    try:
        async with asyncio.timeout(ACCESS_S):
            while True:
                waiting = waiting or asyncio.create_task(_next(happened))
                done, _ = await asyncio.wait({waiting}, timeout=HEARTBEAT_S)
                if loop.time() - looked >= HEARTBEAT_S / 2:
                    looked = loop.time()
                    if not await still():
                        return
                if not done:
                    await response.write(b": still here\n\n")
                    continue
                event, waiting = waiting.result(), None
                data = msgspec.json.encode(dict(event.data)).decode()
                await response.write(f"event: {event.kind}\ndata: {data}\n\n".encode())
    except (TimeoutError, StopAsyncIteration):
        return
    finally:
        if waiting is not None:
            waiting.cancel()


async def _next(happened: AsyncIterator[Happened]) -> Happened:
    return await anext(happened)


class _Figures(Collector):
    """What Prometheus is told, read when it asks."""

    def __init__(self, hub: Hub, dispatcher: Dispatcher, star: StarStatus, entries: int) -> None:
        self._hub = hub
        self._dispatcher = dispatcher
        self._star = star
        self._entries = entries

    def collect(self) -> Iterator[Metric]:
        star, dispatcher = self._star, self._dispatcher
        for name, text, value in (
            ("leads", "whether this instance leads", float(self._hub.leader.leads)),
            ("log_entries", "entries in the log by its newest checkpoint", float(self._entries)),
            ("requests_in_flight", "requests under way", float(dispatcher.in_flight)),
            ("event_readers", "who listens to events", float(self._hub.events.readers)),
            ("star_round", "the newest round", float(star.round)),
            ("star_version", "the newest global model", float(star.version)),
            ("star_received", "updates of the round so far", float(star.received)),
            ("star_clients", "registered clients", float(star.clients)),
            ("star_clients_live", "clients seen of late", float(star.clients_live)),
            ("star_clients_blocked", "clients blocked by an operator", float(star.blocked)),
            ("star_clients_quarantined", "clients in quarantine", float(star.quarantined)),
        ):
            yield GaugeMetricFamily(f"gossipfl_hub_{name}", text, value)
        yield CounterMetricFamily(
            "gossipfl_hub_requests", "requests answered", float(dispatcher.served)
        )
        refused = CounterMetricFamily(
            "gossipfl_hub_refused", "requests refused, by error code", labels=["code"]
        )
        for code, count in sorted(dispatcher.refused.items()):
            refused.add_metric([code], float(count))
        yield refused
        yield from _restarts(self._hub)


def _restarts(hub: Hub) -> Sequence[Metric]:
    family = CounterMetricFamily(
        "gossipfl_hub_restarts", "restarts of background tasks", labels=["task"]
    )
    tasks = {**hub.supervisor.health, **hub.leader.supervisor.health}
    for name, task in sorted(tasks.items()):
        family.add_metric([name], float(task.restarts))
    return [family]
