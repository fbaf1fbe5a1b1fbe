"""`/healthz` and `/metrics` on 127.0.0.1, apart from the port that peers use; off by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gossipfl.errors import UserError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

HOST = "127.0.0.1"
_GAUGES = {
    "round": "The current round",
    "base_round": "The round whose merge is the current model",
    "merges": "Merges since the start",
    "below_quorum": "Rounds that ended without enough updates",
    "accuracy": "Held-out accuracy of the current model",
    "alone_accuracy": "Held-out accuracy of the alone reference",
    "rss_mb": "Resident memory in MB",
    "evidence": "Proofs of misbehaviour held",
}


class HealthServer:
    """Answers 200 while the device is well and 503 while it is not, with the reason."""

    def __init__(self, port: int, status: Callable[[], Mapping[str, Any]]) -> None:
        self._port = port
        self._status = status
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Nothing, if the port is 0. Raises UserError GF302."""
        if not self._port:
            return
        app = web.Application()
        app.add_routes([web.get("/healthz", self._health), web.get("/metrics", self._metrics)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, self._port).start()
        except OSError as error:
            raise UserError("GF302", f"{HOST} port {self._port}: {error}") from error

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        status = self._status()
        problems = [status[key] for key in ("store_problem", "data_problem") if status[key]]
        body = {
            "status": "degraded" if problems else "ok",
            "problems": problems,
            "waiting_for": status["waiting_for"],
            "listen_only": status["listen_only"],
            "round": status["round"],
        }
        return web.json_response(body, status=503 if problems else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Collector(self._status()))
        return web.Response(
            body=generate_latest(registry),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )


class _Collector:
    """One status as Prometheus metrics: read when asked, so nothing is counted twice."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        status = self._status
        for name, text in _GAUGES.items():
            if status[name] is not None:
                yield GaugeMetricFamily(f"gossipfl_{name}", text, value=float(status[name]))
        for name, value in status["traffic"].items():
            words = name.replace("_", " ")
            yield CounterMetricFamily(f"gossipfl_{name}", f"Wire: {words}", value=float(value))
        peers = GaugeMetricFamily("gossipfl_peers", "Peers by state", labels=["state"])
        states = [peer["state"] for peer in status["peers"]]
        for state in sorted(set(states)):
            peers.add_metric([state], float(states.count(state)))
        yield peers
