"""The page over HTTPS on loopback, as a hub serves it: store, log, accounts, one feed."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from aiohttp import web
from authkit import Clock, make_auth, user
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from logkit import SIGNER
from pagekit import FLEET, Story, kept

from gossipfl.events import Event
from gossipfl.hub.alerts.forms import AlertForms
from gossipfl.hub.alerts.routes import AlertApi
from gossipfl.hub.auth.routes import AuthApi
from gossipfl.hub.auth.service import Auth
from gossipfl.hub.database import Database, open_database
from gossipfl.hub.fleet.release import ReleaseApi, ReleaseForms
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.page.feed import Feed
from gossipfl.hub.page.guests import Guests
from gossipfl.hub.page.routes import PageApi
from gossipfl.hub.reports.costs import Tariffs
from gossipfl.hub.reports.office import Office
from gossipfl.hub.reports.routes import ReportsApi
from gossipfl.hub.rest.access import Authenticator, Role
from gossipfl.hub.rest.dispatch import Dispatcher
from gossipfl.hub.rest.doors import SERVER_OPTIONS


@dataclass
class Served:
    url: str
    auth: Auth
    database: Database
    log: HubLog
    feed: Feed
    clock: Clock
    given: list[Event]  # to the hub's node


@asynccontextmanager
async def served(
    folder: Path,
    told: Story,
    *,
    guests: bool = False,
    live_s: int = 60,
    usual: Tariffs = Tariffs(),  # noqa: B008 - it is frozen
) -> AsyncIterator[Served]:
    """An operator `ann`, an auditor `otto`, a viewer `vera`, and `lea`, who may see the site
    Graz; all with authkit's password."""
    clock = Clock(float(told.now))
    database = await open_database(folder / "hub.db")
    log = await kept(database, told)
    auth = make_auth(database, clock)
    for name, role in (("ann", Role.OPERATOR), ("otto", Role.AUDITOR), ("vera", Role.VIEWER)):
        await user(auth, name, role)
    await user(auth, "lea", Role.VIEWER, {"site": "graz"})
    feed = Feed(database, log, FLEET, lambda: int(clock.now), live_s)
    await feed.look()
    app = web.Application()
    who: Authenticator = Guests(auth.authenticator) if guests else auth.authenticator
    page = PageApi(feed, auth, usual)
    office = Office(database, log, SIGNER, FLEET, lambda: int(clock.now), "digits")
    reports = ReportsApi(office, feed, usual)
    table = [*AuthApi(auth).routes(), *page.routes(), *reports.routes(), *AlertApi().routes()]
    table += [*AlertForms(auth, feed).routes(), *ReleaseApi().routes()]
    table += ReleaseForms(auth).routes()
    given: list[Event] = []
    station = SimpleNamespace(give=lambda event: given.append(event) is None)
    leader = SimpleNamespace(station=station)
    hub = SimpleNamespace(database=database, clock=lambda: int(clock.now), leader=leader)
    Dispatcher(hub, table, who, as_page=page.as_page).install(app)
    runner = web.AppRunner(app, shutdown_timeout=1.0, **SERVER_OPTIONS)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls_of_tests(folder)[0])
    await site.start()
    following = asyncio.create_task(feed.run())
    try:
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        yield Served(url, auth, database, log, feed, clock, given)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await runner.cleanup()
        await database.close()


def tls_of_tests(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A certificate of its own for 127.0.0.1, which the tests' browser is told to take, and its
    file."""
    key = ec.generate_private_key(ec.SECP256R1())  # browsers know no Ed25519
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "tls.pem"
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(plain + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, path
