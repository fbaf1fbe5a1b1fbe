"""The local listener: `/healthz` and `/metrics` for monitors on this machine. Loopback only.

It is plain HTTP and apart from the peer server, off unless a port is configured. Nothing that a
peer could use is here, and no secret.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gossipfl.errors import UserError
from gossipfl.net.connection import HTTP_OPTIONS
from gossipfl.net.traffic import Traffic

HOST = "127.0.0.1"
KEEPALIVE_S = 15.0  # Prometheus asks every 15 s by default, and may keep the connection
NAMES = frozenset({HOST, "localhost"})
GAUGES = frozenset({"connections"})  # the rest of Traffic only grows
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus text exposition format


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the service can do its work, and if not, why, in words."""

    problems: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)  # plain data for monitors


class LocalListener:
    """Answers monitors. `health` and `figures` are asked anew for each request.

    `figures()` gives (name, value) of what the node counts: shown as gossipfl_<name>.
    """

    def __init__(
        self,
        health: Callable[[], Health],
        traffic: Traffic,
        figures: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._health = health
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Figures(traffic, figures))
        self._http: web.Server | None = None
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> int:
        """Listen on loopback; 0 means any free port. The port. Raises UserError(GF303)."""
        self._http = web.Server(self._handle, keepalive_timeout=KEEPALIVE_S, **HTTP_OPTIONS)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._http, HOST, port)
        except OSError as error:
            raise UserError("GF303", f"{HOST} port {port}: {error}") from error
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._http is not None:
            await self._http.shutdown(timeout=1.0)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        # A page in a browser may resolve its own name to us: only our names are answered.
        host = request.headers.get("Host", "").rpartition(":")[0] or request.headers.get("Host")
        if request.body_exists or request.method != "GET" or host not in NAMES:
            return self._response(404, b"not here\n", "text/plain")
        match request.path_qs:
            case "/healthz":
                health = self._health()
                status = "degraded" if health.problems else "ok"
                told = {"status": status, "problems": health.problems, **health.facts}
                body = json.dumps(told).encode() + b"\n"
                return self._response(503 if health.problems else 200, body, "application/json")
            case "/metrics":
                return self._response(200, generate_latest(self._registry), METRICS_TYPE)
        return self._response(404, b"not here\n", "text/plain")

    @staticmethod
    def _response(status: int, body: bytes, kind: str) -> web.StreamResponse:
        headers = {"Content-Type": kind, "Cache-Control": "no-store", "Server": "gossipfl"}
        return web.Response(status=status, body=body, headers=headers)


class _Figures(Collector):
    """Reads the counters when Prometheus asks, so that counting itself costs nothing."""

    def __init__(self, traffic: Traffic, figures: Callable[[], Mapping[str, float]]) -> None:
        self._traffic = traffic
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for name, value in self._traffic.items():
            text = f"{name.replace('_', ' ')} at the HTTP layer"
            if name in GAUGES:
                yield GaugeMetricFamily(f"gossipfl_net_{name}", text, value)
            else:
                yield CounterMetricFamily(f"gossipfl_net_{name}", text, value)
        for name, figure in self._figures().items():
            yield GaugeMetricFamily(f"gossipfl_{name}", name.replace("_", " "), figure)
