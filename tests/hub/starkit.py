"""A hub in star mode on a real store, an operator's hand, and the plain client of examples/."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from aiohttp import web
from authkit import FLEET, LOG_N, SEED, user
from logkit import SIGNER

from gossipfl.audit.notes import log_key
from gossipfl.bundle.archive import read
from gossipfl.bundles import DIGITS_LOGISTIC, read_bytes
from gossipfl.fleet import documents
from gossipfl.fleet.documents import Choices, Job
from gossipfl.fleet.folders import Official
from gossipfl.fleet.local import make_fleet
from gossipfl.hub.api import table
from gossipfl.hub.auth.service import Auth
from gossipfl.hub.broadcast import Broadcast
from gossipfl.hub.database import Database, open_database
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.page.feed import Feed
from gossipfl.hub.page.routes import PageApi
from gossipfl.hub.reports.costs import Tariffs
from gossipfl.hub.reports.office import Office
from gossipfl.hub.reports.routes import ReportsApi
from gossipfl.hub.rest.access import Role
from gossipfl.hub.rest.dispatch import Dispatcher
from gossipfl.hub.rest.doors import SERVER_OPTIONS
from gossipfl.hub.star.merging import Holdout
from gossipfl.hub.star.service import Star
from gossipfl.hub.star.settings import StarSettings
from gossipfl.hub.supervisor import Supervisor

ROOT = Path(__file__).resolve().parent.parent.parent


def example() -> ModuleType:
    """examples/star_client.py as a module."""
    found = sys.modules.get("star_client")
    if found is not None:
        return found
    spec = importlib.util.spec_from_file_location(
        "star_client", ROOT / "examples" / "star_client.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["star_client"] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class Operator:
    """Signs policies, each following the one before."""

    official: Official
    bundle: bytes = field(default_factory=lambda: read_bytes(DIGITS_LOGISTIC))
    last: bytes | None = None

    def policy(self, **choices: Any) -> bytes:
        prev = documents.open_policy(self.last) if self.last is not None else None
        job = Job.of(read(self.bundle), self.bundle)
        chosen = Choices(**{"n": 11, "attackers": 1, "rule": "nna", **choices})
        made = documents.next_policy(job, chosen, prev, self.official.member, int(time.time()))
        self.last = documents.policy_object(made, self.official)
        return self.last


@dataclass
class Stand:
    """One running hub with its people. `said` is what the engine told."""

    url: str
    database: Database
    auth: Auth
    star: Star
    dispatcher: Dispatcher
    operator: Operator
    token: str
    said: list[tuple[str, str]]

    @property
    def hand(self) -> Any:
        """The operator's HTTP client."""
        return example().Hub(self.url, token=self.token)

    async def start(self, **choices: Any) -> None:
        """Give the hub the bundle and a first policy."""
        octets = "application/octet-stream"
        hand = self.hand
        await asyncio.to_thread(
            hand.call, "POST", "/api/v1/training/bundle", self.operator.bundle, octets
        )
        await self.switch(**choices)

    async def switch(self, **choices: Any) -> Any:
        data = await asyncio.to_thread(
            self.hand.call,
            "POST",
            "/api/v1/aggregation/strategy",
            self.operator.policy(**choices),
            "application/octet-stream",
        )
        return json.loads(data)

    async def code(self, uses: int = 100) -> str:
        found = await self.ask("POST", "/api/v1/clients/invitations", {"uses": uses})
        return str(found["code"])

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """As the operator."""
        return await asyncio.to_thread(self.hand.json, method, path, body)

    async def until(self, what: Any, within_s: float = 30.0) -> None:
        """Until an async question answers yes."""
        async with asyncio.timeout(within_s):
            while not await what():  # noqa: ASYNC110 - the answer is in a database
                await asyncio.sleep(0.02)


async def side_by_side(works: Sequence[Callable[[], object]], within_s: float = 90.0) -> None:
    """Blocking clients, each in a thread of its own."""
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(len(works))
    try:
        async with asyncio.timeout(within_s):
            await asyncio.gather(*(loop.run_in_executor(pool, work) for work in works))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _hub(database: Database, star: Star, official: Official) -> Any:
    """What the handlers of a hub look at beside star mode."""

    return SimpleNamespace(
        database=database,
        identity=SimpleNamespace(root_key=official.root_key),
        fleet=star.fleet,
        clock=lambda: int(time.time()),
        started=time.monotonic(),
        events=Broadcast(),
        supervisor=Supervisor(),
        leader=SimpleNamespace(leads=True, supervisor=Supervisor()),
        log=HubLog(database, log_key(SIGNER.key_id)),
    )


@asynccontextmanager
async def stand(
    tmp_path: Path,
    dsn: str | None = None,
    settings: StarSettings | None = None,
    holdout: Holdout | None = None,
    *,
    leads: bool = True,
) -> AsyncIterator[Stand]:
    """A hub on loopback. Rounds are back to back; `leads` False: nobody opens them."""
    database = await open_database(dsn or tmp_path / "hub.db")
    fleet = make_fleet(tmp_path / "fleet")
    official = fleet.operator().load()
    said: list[tuple[str, str]] = []
    auth = Auth(database, SEED, FLEET, time.time, time.monotonic, log_n=LOG_N)
    star = Star(
        database,
        auth,
        official.root_key,
        settings or StarSettings(round_s=5.0),
        time.time,
        7,
        holdout=holdout,
        said=lambda kind, words: said.append((kind, words)),
    )
    hub = _hub(database, star, official)
    hub_log = HubLog(database, log_key(official.signer.key_id))
    feed = Feed(database, hub_log, star.fleet, hub.clock, 60)
    page = PageApi(feed, auth)
    office = Office(database, hub_log, official.signer, star.fleet, hub.clock)
    reports = ReportsApi(office, feed, Tariffs())
    routes = table(auth, star, lambda: dispatcher, page, reports)
    dispatcher = Dispatcher(hub, routes, auth.authenticator)
    app = web.Application()
    dispatcher.install(app)
    runner = web.AppRunner(app, **SERVER_OPTIONS)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    token = await user(auth, "ann", Role.OPERATOR)
    task = asyncio.create_task(star.run()) if leads else None
    try:
        yield Stand(
            f"http://127.0.0.1:{port}", database, auth, star, dispatcher, Operator(official),
            token, said,
        )  # fmt: skip
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()
        await database.close()
