"""`join` against a running issuer over loopback, and against those who only pretend to be one."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from fleetkit import NOW, Clock, Running

from device_agent.store import DeviceStore
from gossipfl.durable import Batch
from gossipfl.errors import Exit, UserError
from gossipfl.events import Address
from gossipfl.fleet import client, files, invitation, pki, service
from gossipfl.fleet.device import DeviceFolder, load_identity
from gossipfl.fleet.folders import FleetFolder
from gossipfl.fleet.invitation import Invitation
from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.fleet.service import FAILURES_BURST, Service
from gossipfl.fleet.throttle import Throttle
from gossipfl.identity import Signer
from gossipfl.messages import Role
from gossipfl.privacy import DevicePrivacy, Unit
from gossipfl.privacy.ledger import Terms, open_ledger, replay

JOINERS = ThreadPoolExecutor(20)


async def join(
    invited: Invitation, state: Path, replacing: bool = False, now: int = NOW
) -> DeviceFolder:
    call = partial(client.join, invited.line(), state, replacing, None, now)
    # Threads of their own: the service under test, in this very loop, needs the default ones.
    return await asyncio.get_running_loop().run_in_executor(JOINERS, call)


async def refused(
    invited: Invitation, state: Path, replacing: bool = False, now: int = NOW
) -> UserError:
    with pytest.raises(UserError) as caught:
        await join(invited, state, replacing, now)
    assert not DeviceFolder(state).joined or replacing
    return caught.value


@asynccontextmanager
async def pretender(
    tmp_path: Path,
    root: bytes,
    chain: bytes,
    seed: bytes,
    answer: Callable[[web.Request], bytes] | None = None,
) -> AsyncIterator[tuple[Address, list[str]]]:
    """An HTTPS server with any chain, and the paths that it was asked for."""
    asked: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path == "/v1/root":
            return web.Response(body=root)
        return web.Response(body=answer(request) if answer else bytes(40))

    (tmp_path / "pretender.key").write_bytes(pki.key_pem(seed))
    (tmp_path / "pretender.crt").write_bytes(chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pretender.crt", tmp_path / "pretender.key")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield Address("127.0.0.1", port), asked
    finally:
        await runner.cleanup()


# --- it works -----------------------------------------------------------------------------------


async def test_a_device_joins_and_its_folder_is_whole(running: Running, tmp_path: Path) -> None:
    await join(running.invite(), tmp_path / "device")
    identity = load_identity(tmp_path / "device")
    assert identity.member.fleet == running.service.desk.issuer.fleet
    assert identity.member.key == identity.signer.key_id
    assert identity.root_key == running.service.desk.issuer.root_key
    assert identity.discovery_key == running.service.desk.issuer.discovery_key
    names = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "device").iterdir()}
    assert names == {
        **dict.fromkeys(
            ("signing.key", "tls.key", "fleet.json", "member", "store.lock", "first-start"), 0o600
        ),
        **dict.fromkeys(("tls.crt", "root.crt"), 0o644),
    }
    assert (tmp_path / "device").stat().st_mode & 0o777 == 0o700


async def test_twenty_joins_at_once_on_five_uses(running: Running, tmp_path: Path) -> None:
    invited = running.invite(uses=5)
    outcomes = await asyncio.gather(
        *(join(invited, tmp_path / f"device-{n}") for n in range(20)), return_exceptions=True
    )
    joined = [folder for folder in outcomes if isinstance(folder, DeviceFolder)]
    assert [e.code for e in outcomes if isinstance(e, UserError)] == ["GF208"] * 15
    assert len({folder.load().signer.device for folder in joined}) == 5
    assert sum(DeviceFolder(tmp_path / f"device-{n}").joined for n in range(20)) == 5


async def test_another_address_can_be_tried(running: Running, tmp_path: Path) -> None:
    astray = replace(running.invite(), address=Address("127.0.0.1", 1))
    call = partial(client.join, astray.line(), tmp_path / "d", False, running.address, NOW)
    folder = await asyncio.get_running_loop().run_in_executor(JOINERS, call)
    assert folder.joined


async def test_ipv6_literals_work(fleet: FleetFolder, tmp_path: Path) -> None:
    service = Service(fleet.issuer(), Clock())
    try:
        address = await service.start("::1", 0)
    except UserError as error:
        pytest.skip(f"no IPv6 here: {error}")
    try:
        await join(service.desk.invite(address, NOW), tmp_path / "d")
    finally:
        await service.close()
    assert DeviceFolder(tmp_path / "d").joined


# --- it refuses ---------------------------------------------------------------------------------


async def test_a_wrong_pin_is_refused_and_nothing_is_spent(
    running: Running, tmp_path: Path
) -> None:
    invited = running.invite()
    error = await refused(replace(invited, pin=secrets.token_bytes(32)), tmp_path / "d")
    assert error.code == "GF205"
    assert error.exit is Exit.IDENTITY
    await join(invited, tmp_path / "d")


async def test_an_expired_invitation_says_so(running: Running, tmp_path: Path) -> None:
    invited = running.invite(ttl_s=60)
    running.clock.now += 61
    error = await refused(invited, tmp_path / "d", now=NOW + 61)
    assert (error.code, error.title) == ("GF207", "invitation has expired")
    assert "clock" in error.hint


async def test_a_used_up_and_an_unknown_invitation_say_so(running: Running, tmp_path: Path) -> None:
    invited = running.invite()
    await join(invited, tmp_path / "a")
    assert (await refused(invited, tmp_path / "b")).code == "GF208"
    unknown = replace(invited, secret=secrets.token_bytes(16))
    assert (await refused(unknown, tmp_path / "b")).code == "GF206"


@pytest.mark.parametrize(("now", "said"), [(1_000, "1970-01-01"), (NOW + 10**9, "2058")])
async def test_a_wrong_clock_says_both_times(
    running: Running, tmp_path: Path, now: int, said: str
) -> None:
    invited = running.invite()
    error = await refused(invited, tmp_path / "d", now=now)
    assert error.code == "GF210"
    assert said in error.cause
    assert "2027" in error.cause
    assert "date -u" in error.hint
    assert running.service.desk.tokens.find(invited.token).left == 1  # it found out in time


async def test_nobody_listening_is_unreachable(running: Running, tmp_path: Path) -> None:
    invited = running.invite()
    await running.service.close()
    error = await refused(invited, tmp_path / "d")
    assert (error.code, error.exit) == ("GF209", Exit.UNREACHABLE)
    assert str(invited.address) in error.cause


async def test_a_fake_issuer_that_serves_the_real_root_gets_no_request(
    running: Running, fleet: FleetFolder, tmp_path: Path
) -> None:
    """It has everything that is public: the root certificate. Its own chain is its own."""
    fake = make_fleet(tmp_path / "fake", now=NOW).issuer().load()
    seed = secrets.token_bytes(32)
    leaf = fake.service_certificate(pki.public_bytes(seed), NOW)
    real_root = running.service.desk.issuer.root
    chain = pki.pem(leaf, fake.certificate, real_root)
    async with pretender(tmp_path, pki.der(real_root), chain, seed) as (address, asked):
        invited = replace(running.invite(), address=address)
        error = await refused(invited, tmp_path / "d")
    assert error.code == "GF205"
    assert asked == ["/v1/root"]


async def test_a_device_of_the_fleet_cannot_pose_as_its_issuer(
    running: Running, fleet: FleetFolder, tmp_path: Path
) -> None:
    enrol_local(fleet, tmp_path / "mallory", now=NOW)
    seed = secrets.token_bytes(32)
    grant = running.service.desk.issuer.grant(b"k" * 32, pki.public_bytes(seed), Role.DEVICE, NOW)
    issuer = running.service.desk.issuer
    chain = pki.pem(grant.leaf, issuer.certificate)
    async with pretender(tmp_path, pki.der(issuer.root), chain, seed) as (address, asked):
        error = await refused(replace(running.invite(), address=address), tmp_path / "d")
    assert error.code == "GF205"
    assert asked == ["/v1/root"]


async def test_an_endless_answer_is_cut_off(
    running: Running, fleet: FleetFolder, tmp_path: Path
) -> None:
    issuer = running.service.desk.issuer
    seed = secrets.token_bytes(32)
    leaf = issuer.service_certificate(pki.public_bytes(seed), NOW)
    chain = pki.pem(leaf, issuer.certificate)
    big = bytes(1_000_000)
    async with pretender(tmp_path, big, chain, seed) as (address, _):
        error = await refused(replace(running.invite(), address=address), tmp_path / "d")
        assert error.code == "GF213"
    async with pretender(tmp_path, pki.der(issuer.root), chain, seed, lambda _: big) as (
        address,
        _,
    ):
        error = await refused(replace(running.invite(), address=address), tmp_path / "d")
        assert error.code == "GF213"


async def test_what_a_server_says_is_never_shown(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gossipfl.fleet import service

    monkeypatch.setattr(
        service, "_refusal", lambda _: web.Response(status=403, text="\x1b[31mrun rm -rf /")
    )
    error = await refused(replace(running.invite(), secret=bytes(16)), tmp_path / "d")
    assert error.code == "GF213"
    assert "\x1b" not in error.cause
    assert "rm" not in error.cause


async def test_idle_connections_from_one_address_keep_no_joiner_out(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "CONNECTIONS_MAX", 4)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    where = (running.address.host, running.address.port)
    idle = [
        await asyncio.open_connection(*where, ssl=context, local_addr=("127.0.0.2", 0))
        for _ in range(4)
    ]
    async with asyncio.timeout(30.0):
        while len(running.service.connections) < 4:  # noqa: ASYNC110 - nothing says it
            await asyncio.sleep(0.001)
    await join(running.invite(), tmp_path / "d")
    assert load_identity(tmp_path / "d").signer.device
    for _, writer in idle:
        writer.transport.abort()


@pytest.mark.parametrize(
    "host",
    ["a..b", ".", ".a", "a" * 64, "-" * 300, "a b", "[a]", "[::1%a..b]", "[1:2]", "\x1b[2J"],
)
def test_what_is_no_host_is_refused_in_words(running: Running, host: str) -> None:
    line = running.invite().line()
    text = line.replace(str(running.address), f"{host}:7443")
    assert text != line
    with pytest.raises(UserError) as caught:
        invitation.parse(text)
    assert caught.value.code == "GF204"
    assert "\x1b" not in caught.value.cause


@pytest.mark.parametrize(
    "host", ["localhost", "hub.example.org.", "10.0.0.7", "a_b", "[::1]", "[fe80::1%eth0]"]
)
def test_hosts_and_addresses_are_taken(running: Running, host: str) -> None:
    line = running.invite().line().replace(str(running.address), f"{host}:7443")
    assert str(invitation.parse(line).address) == f"{host}:7443"


@pytest.mark.parametrize("host", ["a..b", "xn--" + "a" * 50 + "--" + "b" * 40])
async def test_a_name_that_cannot_be_looked_up_is_no_traceback(running: Running, host: str) -> None:
    invited = replace(running.invite(), address=Address(host, 7443))
    with pytest.raises(UserError) as caught:
        await client.enrol(invited, None, NOW)
    assert caught.value.code == "GF209"


async def test_a_lost_answer_costs_no_second_use(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, loop = running.service.desk, asyncio.get_running_loop()
    real, calls = desk.admit, []

    def hang_up() -> None:
        for connection in running.service.connections:
            connection.transport.abort()

    def admit(data: bytes, server: bytes, now: int) -> bytes:
        answer = real(data, server, now)
        calls.append(now)
        if len(calls) == 1:  # the use is burned, and the line goes dead
            loop.call_soon_threadsafe(hang_up)
        return answer

    monkeypatch.setattr(desk, "admit", admit)
    invited = running.invite(uses=1)
    await join(invited, tmp_path / "d")
    assert len(calls) == 2
    assert len(desk.tokens.admissions()) == 1


# --- joining again ------------------------------------------------------------------------------


async def test_an_identity_is_not_overwritten_by_accident(running: Running, tmp_path: Path) -> None:
    invited = running.invite(uses=3)
    first = (await join(invited, tmp_path / "d")).load()
    with pytest.raises(UserError) as caught:
        await join(invited, tmp_path / "d")
    assert caught.value.code == "GF202"
    assert "--replace" in caught.value.hint
    assert load_identity(tmp_path / "d").signer.device == first.signer.device
    assert running.service.desk.tokens.find(invited.token).left == 2


async def test_replacing_names_the_old_device_and_keeps_its_files(
    running: Running, tmp_path: Path
) -> None:
    invited = running.invite(uses=2)
    first = (await join(invited, tmp_path / "d")).load()
    old_key = (tmp_path / "d" / "signing.key").read_bytes()
    (tmp_path / "d" / "store.db").write_bytes(b"chain of the old device")
    second = (await join(invited, tmp_path / "d", replacing=True)).load()
    assert second.member.replaces == first.member.device
    assert second.signer.device != first.signer.device
    assert not (tmp_path / "d" / "store.db").exists()
    kept = list((tmp_path / "d" / "replaced").glob("*/signing.key"))
    assert [path.read_bytes() for path in kept] == [old_key]
    assert kept[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("same_fleet", [True, False], ids=["same fleet", "another fleet"])
async def test_what_a_device_spent_goes_with_it_through_every_new_enrolment(
    running: Running, tmp_path: Path, same_fleet: bool
) -> None:
    folder = tmp_path / "d"
    if same_fleet:
        first = (await join(running.invite(), folder)).load()
    else:
        enrol_local(make_fleet(tmp_path / "old-fleet", now=NOW), folder, now=NOW)
        first = load_identity(folder)
    terms = Terms(epsilon=8.0, delta=1e-5, z=4.0, unit=Unit.DEVICE)
    ledger, row = open_ledger(first.signer.device)
    rows = [row]
    for number in range(3):
        store = DeviceStore(folder)
        held = store.load().ledger
        ledger, row = ledger.release(DevicePrivacy(1.0, 4.0), bytes([number]) * 32, terms)
        rows.append(row)
        assert list(held) == ([] if number == 0 else rows[:-1])
        store.commit(Batch(ledger=tuple(rows[len(held) :])))
        store.close()
        await join(running.invite(), folder, replacing=True)
        load_identity(folder)
    store = DeviceStore(folder)
    assert replay(store.load().ledger).releases == 3
    store.close()


async def test_an_old_copy_of_a_disk_takes_the_place_of_its_newest_heir(
    running: Running, tmp_path: Path
) -> None:
    """Else two devices would go on from one ledger, and peers ask only what the older key spent."""
    folder = tmp_path / "d"
    await join(running.invite(), folder)
    backup = tmp_path / "backup"
    shutil.copytree(folder, backup)
    heirs = [(await join(running.invite(), folder, replacing=True)).load() for _ in range(2)]
    shutil.rmtree(folder)
    backup.rename(folder)
    restored = (await join(running.invite(), folder, replacing=True)).load()
    assert restored.member.replaces == heirs[-1].member.device
    assert heirs[-1].member.replaces == heirs[0].member.device


async def test_replacing_fails_without_changing_anything(running: Running, tmp_path: Path) -> None:
    first = (await join(running.invite(), tmp_path / "d")).load()
    spent = running.invite()
    await join(spent, tmp_path / "other")
    assert (await refused(spent, tmp_path / "d", replacing=True)).code == "GF208"
    assert load_identity(tmp_path / "d").signer.device == first.signer.device


async def test_a_move_to_another_fleet_replaces_nobody(running: Running, tmp_path: Path) -> None:
    enrol_local(make_fleet(tmp_path / "old-fleet", now=NOW), tmp_path / "d", now=NOW)
    identity = (await join(running.invite(), tmp_path / "d", replacing=True)).load()
    assert identity.member.replaces is None
    assert identity.member.fleet == running.service.desk.issuer.fleet


async def test_a_folder_in_use_is_left_alone(running: Running, tmp_path: Path) -> None:
    await join(running.invite(), tmp_path / "d")
    invited = running.invite()
    with files.locked(tmp_path / "d"):
        assert (await refused(invited, tmp_path / "d", replacing=True)).code == "GF503"
    assert running.service.desk.tokens.find(invited.token).left == 1


# --- the service stands strangers ---------------------------------------------------------------


@asynccontextmanager
async def stranger(running: Running) -> AsyncIterator[Callable[..., object]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with aiohttp.ClientSession() as session:

        def ask(method: str, path: str, **more: object) -> object:
            return session.request(method, f"https://{running.address}{path}", ssl=context, **more)

        yield ask


async def test_the_handshake_shows_whose_issuer_it_is(running: Running) -> None:
    """The chain on the wire ends in the root, and older TLS is refused."""
    _, chain_path = running.service.folder.tls
    issuer = running.service.desk.issuer
    assert pki.load_chain(chain_path.read_bytes())[1:] == [issuer.certificate, issuer.root]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection(*running.address, ssl=context)


async def test_nothing_else_is_served(running: Running) -> None:
    async with stranger(running) as ask:
        for method, path in (("GET", "/"), ("GET", "/v1/join"), ("PUT", "/v1/root")):
            async with ask(method, path) as response:
                assert response.status in (404, 405)
        async with ask("POST", "/v1/join", data=b"\xc1 not msgpack") as response:
            assert (response.status, await response.text()) == (400, "malformed")
        async with ask("POST", "/v1/join", data=bytes(100_000)) as response:
            assert response.status == 413


async def test_failures_are_throttled_by_address(fleet: FleetFolder, tmp_path: Path) -> None:
    service = Service(fleet.issuer(), Clock(), lambda: 0.0)  # a clock that stands still
    running = Running(service, await service.start("127.0.0.1", 0), Clock())
    async with stranger(running) as ask:
        statuses = []
        for _ in range(int(FAILURES_BURST) + 2):
            async with ask("POST", "/v1/join", data=b"guess") as response:
                statuses.append(response.status)
    error = await refused(running.invite(), tmp_path / "d")
    await service.close()
    assert statuses == [400] * int(FAILURES_BURST) + [429] * 2
    assert (error.code, error.exit) == ("GF214", Exit.UNREACHABLE)


async def test_a_connection_that_only_waits_is_closed(fleet: FleetFolder) -> None:
    service = Service(fleet.issuer(), Clock(), life_s=0.2)
    address = await service.start("127.0.0.1", 0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for sent in (
        b"",
        b"GET /v1/root HTTP/1.1\r\nHost: x\r\nX-",
        b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nslow",
    ):
        reader, writer = await asyncio.open_connection(*address, ssl=context)
        writer.write(sent)
        async with asyncio.timeout(30.0):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(10_000)
        writer.close()
    await service.close()


def test_a_throttle_refills_and_forgets() -> None:
    throttle = Throttle(rate_per_s=1.0, burst=2.0)
    assert [throttle.allow("192.0.2.1", 0.0) for _ in range(3)] == [True, True, False]
    assert throttle.allow("192.0.2.2", 0.0)
    assert throttle.allow("192.0.2.1", 1.0)
    assert not throttle.allow("192.0.2.1", 1.0)
    assert throttle.allow("2001:db8::1", 0.0)
    assert throttle.allow("2001:db8::2", 0.0)
    assert not throttle.allow("2001:db8::3", 0.0)  # one /64 is one customer
    for number in range(5_000):
        throttle.allow(f"10.0.{number // 250}.{number % 250}", 2.0)
    assert len(throttle._buckets) <= 1_024


async def test_no_secret_in_logs_errors_or_output(
    running: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    invited = running.invite()
    await join(invited, tmp_path / "d")
    error = await refused(invited, tmp_path / "e")
    await refused(replace(invited, secret=bytes(range(16))), tmp_path / "e")
    words = caplog.text + repr(error) + error.cause + error.hint
    assert "admitted" in words
    issuer = running.service.desk.issuer
    for secret in (
        *(invited.secret, bytes(range(16)), issuer.seed, issuer.discovery_key),
        files.read_seed(tmp_path / "d" / "signing.key"),
    ):
        for shown in (secret.hex(), base64.b32encode(secret).decode().rstrip("=").lower()):
            assert shown not in words.lower()
    assert Signer(issuer.seed).key_id == issuer.member.key
