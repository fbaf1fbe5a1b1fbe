"""The API of one hub, put together: who may call, what there is to call, and star mode."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from aiohttp import web

from gossipfl.config import PACES, Limits
from gossipfl.errors import UserError
from gossipfl.fleet import files
from gossipfl.holdings import Holdings
from gossipfl.hub.alerts.alerter import Alerter
from gossipfl.hub.alerts.channels import Channel
from gossipfl.hub.alerts.conditions import of_disk, of_tasks, rules_of
from gossipfl.hub.alerts.forms import AlertForms
from gossipfl.hub.alerts.messages import Composer
from gossipfl.hub.alerts.routes import AlertApi
from gossipfl.hub.auth.routes import AuthApi
from gossipfl.hub.auth.service import Auth
from gossipfl.hub.erasing.routes import ErasingApi
from gossipfl.hub.fleet.release import ReleaseApi, ReleaseForms
from gossipfl.hub.health import HealthApi
from gossipfl.hub.hub import Hub
from gossipfl.hub.log.routes import AuditApi
from gossipfl.hub.measured.measuring import Measurer
from gossipfl.hub.members import FleetMembers
from gossipfl.hub.observing import ObservingApi
from gossipfl.hub.page.feed import Feed
from gossipfl.hub.page.finding import Finding
from gossipfl.hub.page.guests import Guests
from gossipfl.hub.page.routes import PageApi
from gossipfl.hub.policy.routes import PolicyApi
from gossipfl.hub.reports.costs import Tariffs
from gossipfl.hub.reports.office import Office
from gossipfl.hub.reports.routes import ReportsApi
from gossipfl.hub.rest.dispatch import Dispatcher
from gossipfl.hub.rest.origins import Origins
from gossipfl.hub.rest.routing import Route
from gossipfl.hub.star.client_routes import ClientApi
from gossipfl.hub.star.insight_routes import InsightApi
from gossipfl.hub.star.merging import Holdout
from gossipfl.hub.star.service import Star
from gossipfl.hub.star.settings import StarSettings
from gossipfl.hub.star.steering_routes import SteeringApi
from gossipfl.identity import short_name
from gossipfl.net.ports import Fetcher

TOKEN_KEY = "token.key"
SEEN_S = 30  # the least after which a device is away: sightings are written every ten seconds
REQUEST_BYTES_MAX = 64 * 1024 * 1024  # as Limits.bundle_bytes: an update of the largest model


class Api:
    """Made once per process. `holdout`: what judges global models, if there are public data.
    `channels`: where alerts go."""

    def __init__(
        self, hub: Hub, holdout: Holdout | None = None, channels: Sequence[Channel] = ()
    ) -> None:
        settings = hub.settings
        self._hub = hub
        self.origins = Origins(settings.api.trusted_proxies)
        self.auth = Auth(
            hub.database,
            token_seed(settings.hub.state),
            hub.fleet.hex(),
            time.time,
            time.monotonic,
            members=FleetMembers(hub),
        )
        self.star = Star(
            hub.database,
            self.auth,
            hub.identity.root_key,
            StarSettings(
                round_s=float(settings.star.round_s),
                live_s=float(settings.star.live_s),
                global_epsilon=settings.star.global_epsilon or None,
                hub=hub.identity.signer.device,
            ),
            time.time,
            secrets.randbits(64),
            holdout=holdout,
            said=lambda kind, words: hub.events.tell(kind, text=words),
        )
        self.feed = Feed(
            hub.database,
            hub.log,
            hub.fleet,
            hub.clock,
            max(SEEN_S, int(PACES[settings.pace.preset].live_s)),
            settings.holdout,
            rules_of(settings),
            self._local,
        )
        self.alerter = self._alerter(channels)
        usual = settings.reports.tariffs
        page = PageApi(self.feed, self.auth, usual)
        reports = ReportsApi(self._office(), self.feed, usual)
        self.measurer = None if holdout is None else self._measurer(holdout)
        known = self.auth.authenticator
        self.dispatcher = Dispatcher(
            hub,
            table(
                self.auth,
                self.star,
                lambda: self.dispatcher,
                page,
                reports,
                is_loopback=settings.api.is_loopback,
            ),
            Guests(known) if settings.api.guests else known,
            as_page=page.as_page,
            origins=self.origins,
        )

    def _office(self) -> Office:
        hub, name = self._hub, self._hub.settings.holdout
        return Office(hub.database, hub.log, hub.identity.signer, hub.fleet, hub.clock, name)

    def _local(self) -> list[Finding]:
        """What of this instance needs a person."""
        hub, state = self._hub, self._hub.settings.hub.state
        tasks = [*hub.supervisor.health.values(), *hub.leader.supervisor.health.values()]
        full = of_disk(hub.database, state, hub.settings.alerts.disk_free_mb)
        return [*full, *of_tasks(tasks)]

    def _alerter(self, channels: Sequence[Channel]) -> Alerter:
        hub, settings = self._hub, self._hub.settings.alerts
        name = short_name(hub.identity.signer.device)
        composer = Composer(
            hub.fleet.hex(), name, settings.page_url, name_devices=settings.name_devices
        )
        return Alerter(
            hub.database, settings, self.feed, self._local, channels, composer, hub.clock
        )

    def _measurer(self, holdout: Holdout) -> Measurer:
        """Judges what devices publish, while this process leads."""
        hub = self._hub

        def station() -> tuple[Holdings, Fetcher] | None:
            found = hub.leader.station
            return None if found is None else (found.node.holdings(), found.client)

        return Measurer(
            hub.database,
            holdout,
            station,
            self.feed.left_out,
            hub.clock,
            Limits(),
            random.SystemRandom(),
        )

    def application(self) -> web.Application:
        app = web.Application(client_max_size=REQUEST_BYTES_MAX)
        self.dispatcher.install(app)
        return app

    async def require_operator(self) -> str | None:
        """A word for the log if nobody can log in yet. Off loopback: UserError GF834."""
        if await self.auth.users.has_operator():
            return None
        config = self._hub.settings.hub.state / "hub.toml"
        hint = f"gossipfl user add NAME --role operator --config {config}"
        if not self._hub.settings.api.is_loopback:
            raise UserError("GF834", f"api.host is {self._hub.settings.api.host}", hint)
        return f"no operator can log in yet: {hint}"


def table(
    auth: Auth,
    star: Star,
    dispatcher: Callable[[], Dispatcher],
    page: PageApi,
    reports: ReportsApi,
    *,
    is_loopback: bool = False,
) -> list[Route]:
    """All routes. `dispatcher()` gives the one that is made of them."""
    return [
        *HealthApi().routes(),
        *ObservingApi(star, dispatcher, page.feed, is_loopback=is_loopback).routes(),
        *AuthApi(auth).routes(),
        *AuditApi().routes(),
        *ErasingApi().routes(),
        *AlertApi().routes(),
        *ClientApi(star).routes(),
        *InsightApi(star, lambda: dispatcher().refused).routes(),
        *SteeringApi(star).routes(),
        *PolicyApi(star).routes(),
        *reports.routes(),
        *page.routes(),
        *AlertForms(auth, page.feed).routes(),
        *ReleaseApi().routes(),
        *ReleaseForms(auth).routes(),
    ]


def described() -> list[Route]:
    """All routes, for documents only: nothing is behind them."""
    page = PageApi(cast(Feed, None), cast(Auth, None))
    reports = ReportsApi(cast(Office, None), cast(Feed, None), Tariffs())
    nothing = cast(Callable[[], Dispatcher], None)
    return table(cast(Auth, None), cast(Star, None), nothing, page, reports)


def token_seed(state: Path) -> bytes:
    """The key that signs tokens, made at the first start. All instances of a hub have the same."""
    path = state / TOKEN_KEY
    if not path.exists():
        files.write_seed(path, secrets.token_bytes(files.SEED_BYTES))
    return files.read_seed(path)
