"""Devices on one link find those of their fleet, and only those; hints stay within bounds."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from netkit import until
from zeroconf import DNSQuestionType, IPVersion, ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from gossipfl.config import DISCOVERY_TYPE
from gossipfl.events import Address, Event, OwnAddresses, PeerGone, PeerSeen, Source
from gossipfl.identity import Signer, device_name
from gossipfl.net import links, station
from gossipfl.net.discovery import Discovery
from gossipfl.net.links import Link, choose, is_believable, listens, own_addresses
from gossipfl.net.station import tag

# Drawn, so that whoever else speaks on this link, another run of these tests too, is a stranger.
KEY, OTHER_KEY = os.urandom(32), os.urandom(32)
LOOPBACK = "127.0.0.1"


def can_multicast() -> bool:
    """Whether a datagram to the mDNS group comes back on loopback."""
    group = socket.inet_aton("224.0.0.251") + socket.inet_aton(LOOPBACK)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hears,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as says,
    ):
        try:
            hears.bind(("", 0))
            hears.settimeout(1.0)
            hears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            says.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
            says.sendto(b"?", ("224.0.0.251", hears.getsockname()[1]))
            return hears.recv(1) == b"?"
        except OSError:
            return False


needs_multicast = pytest.mark.skipif(
    not can_multicast(), reason="no multicast on the loopback interface here"
)


class Seen:
    """One discovery and what it reported."""

    def __init__(self, port: int, key: bytes = KEY, **options: object) -> None:
        self.events: list[Event] = []
        self.discovery = Discovery(
            key,
            port,
            self.events.append,
            interfaces=[LOOPBACK],
            hosts=[LOOPBACK],
            slow_start_s=0.05,
            **options,  # type: ignore[arg-type]
        )

    def ports(self) -> set[int]:
        """Ports of those who are here now."""
        here = set()
        for event in self.events:
            match event:
                case PeerSeen(address):
                    here.add(address.port)
                case PeerGone(address):
                    here.discard(address.port)
        return here


@asynccontextmanager
async def looking(*all_seen: Seen) -> AsyncIterator[None]:
    for seen in all_seen:
        seen.discovery.start()
    try:
        yield
    finally:
        await asyncio.gather(*(seen.discovery.close() for seen in all_seen))


@needs_multicast
async def test_three_on_one_host_find_each_other_and_not_another_fleet() -> None:
    a, b, c = Seen(7001), Seen(7002), Seen(7003)
    stranger = Seen(7004, OTHER_KEY)
    async with looking(a, b, c, stranger):
        await until(lambda: a.ports() == {7002, 7003}, 60.0)
        await until(lambda: b.ports() == {7001, 7003}, 60.0)
        await until(lambda: c.ports() == {7001, 7002}, 60.0)
        assert stranger.ports() == set()
        assert all(
            event.source is Source.MDNS and event.address.host == LOOPBACK
            for event in a.events
            if isinstance(event, PeerSeen)
        )
        assert a.events[0] == OwnAddresses((Address(LOOPBACK, 7001),))


@needs_multicast
async def test_one_that_leaves_is_gone_and_one_that_comes_is_seen() -> None:
    a, b = Seen(7011), Seen(7012)
    async with looking(a):
        async with looking(b):
            await until(lambda: a.ports() == {7012}, 60.0)
        await until(lambda: a.ports() == set(), 60.0)
        assert a.events[-1] == PeerGone(Address(LOOPBACK, 7012))


@needs_multicast
async def test_new_labels_are_no_departure() -> None:
    a, b = Seen(7021), Seen(7022)
    async with looking(a, b):
        await until(lambda: a.ports() == {7022} and b.ports() == {7021}, 60.0)
        speaking = next(iter(b.discovery._stations.values()))
        before = set(speaking._mine)
        await speaking.rotate()
        await until(lambda: speaking._mine.isdisjoint(before), 60.0)
        hearing = next(iter(a.discovery._stations.values()))
        await until(lambda: set(hearing._names) == speaking._mine, 60.0)
        assert sum(isinstance(event, PeerSeen) for event in a.events) == 1
        assert not any(isinstance(event, PeerGone) for event in a.events)


class Unanswered:
    """A record of this fleet whose answers are lost `lost` times."""

    port = 7061
    properties: ClassVar[dict[bytes, bytes]] = {
        b"v": b"1",
        b"f": tag(KEY, "somebody", 7061).encode(),
    }

    def __init__(self, lost: int) -> None:
        self.lost = lost
        self.asked = 0

    def load_from_cache(self, _: object) -> bool:
        return False

    async def async_request(self, *_: object) -> bool:
        self.asked += 1
        await asyncio.sleep(0)
        return self.asked > self.lost

    def parsed_addresses(self) -> list[str]:
        return [LOOPBACK]


@pytest.mark.parametrize(("lost", "found"), [(0, True), (4, True), (5, False)])
async def test_a_peer_whose_answers_are_lost_is_asked_again_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, lost: int, found: bool
) -> None:
    """The browser tells of a record once."""
    record, seen = Unanswered(lost), []
    monkeypatch.setattr(station, "_info", lambda name: record)
    [link] = choose([LOOPBACK])
    listening = station.Station(link, (LOOPBACK,), 7062, KEY, lambda *said: seen.append(said))
    monkeypatch.setattr(listening, "_zeroconf", SimpleNamespace(zeroconf=None))
    listening._on_change(
        cast(Any, None), DISCOVERY_TYPE, f"somebody.{DISCOVERY_TYPE}", ServiceStateChange.Added
    )
    resolving = asyncio.create_task(listening._resolve())
    await until(lambda: seen or record.asked == 5)
    await until(lambda: listening._queue.empty())
    resolving.cancel()
    assert seen == ([("somebody", (Address(LOOPBACK, 7061),))] if found else [])


@needs_multicast
async def test_labels_change_by_themselves() -> None:
    a = Seen(7031, rotate_s=0.2)
    labels: set[str] = set()
    async with looking(a), _browsing() as found:
        await until(lambda: len(labels | {n for n, _ in found}) >= 3, 60.0)


@asynccontextmanager
async def _browsing() -> AsyncIterator[list[tuple[str, AsyncServiceInfo]]]:
    """A foreign browser on loopback: (name, resolved record) of everything that appears."""
    found: list[tuple[str, AsyncServiceInfo]] = []
    zeroconf = AsyncZeroconf(interfaces=[LOOPBACK], ip_version=IPVersion.V4Only)

    def on_change(
        zeroconf: object, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        info = AsyncServiceInfo(service_type, name)
        if state_change is ServiceStateChange.Added:
            info.load_from_cache(zeroconf)  # type: ignore[arg-type]
            found.append((name, info))

    browser = AsyncServiceBrowser(
        zeroconf.zeroconf,
        DISCOVERY_TYPE,
        handlers=[on_change],
        question_type=DNSQuestionType.QM,
    )
    try:
        yield found
    finally:
        await browser.async_cancel()
        await zeroconf.async_close()


@needs_multicast
async def test_a_record_names_no_device_no_host_and_no_model() -> None:
    device = device_name(Signer(b"s" * 32).device)
    a = Seen(7041)
    async with looking(a), _browsing() as found:
        await until(lambda: [i for _, i in found if i.port == 7041], 60.0)
    name, info = next((n, i) for n, i in found if i.port == 7041)
    instance = name.removesuffix(f".{DISCOVERY_TYPE}")
    assert len(instance) == 32
    assert set(instance) <= set("0123456789abcdef")
    assert info.server is not None
    host = info.server.removesuffix(".local.")
    assert len(host) == 32
    assert instance not in host
    message = instance.encode() + (7041).to_bytes(2, "big")
    wanted = hmac.new(KEY, message, hashlib.sha256).digest()[:8].hex().encode()
    assert info.properties == {b"v": b"1", b"f": wanted}
    text = repr((name, info.server, info.properties)).lower()
    for secret in (socket.gethostname().lower(), device.replace("-", ""), "digits", "device"):
        assert secret not in text


@needs_multicast
async def test_forged_and_odd_records_are_ignored() -> None:
    """Somebody without the key copies, invents and breaks records; nothing of it is believed."""
    a = Seen(7051)
    zeroconf = AsyncZeroconf(interfaces=[LOOPBACK], ip_version=IPVersion.V4Only)
    forged = {
        "aa": {"v": "1", "f": "0" * 16},
        "bb": {"v": "2", "f": tag(KEY, "bb", 7_100)},
        "cc": {"v": "1", "f": tag(KEY, "other", 7_100)},
        "dd": {"v": "1", "f": tag(KEY, "dd", 7_101)},
        "ee": {"v": "1"},
        "ff": {},
    }
    async with looking(a):
        for name, properties in forged.items():
            await zeroconf.async_register_service(
                _info(name, 7_100, properties), cooperating_responders=True
            )
        good = _info("gg", 7_109, {"v": "1", "f": tag(KEY, "gg", 7_109)})
        await zeroconf.async_register_service(good, cooperating_responders=True)
        await until(lambda: 7_109 in a.ports(), 60.0)
        assert a.ports() == {7_109}
        await zeroconf.async_close()


@pytest.mark.parametrize("name", ["a\x01b", "a" * 64, "", "_sub", "a.b\x7f", "good"])
def test_no_name_that_a_stranger_announces_raises(name: str) -> None:
    """An error in the browser's callback came again with every later packet."""
    found = station._info(f"{name}.{DISCOVERY_TYPE}")
    assert (found is not None) == (name == "good"), name


def _info(name: str, port: int, properties: dict[str, str]) -> AsyncServiceInfo:
    return AsyncServiceInfo(
        DISCOVERY_TYPE,
        f"{name}.{DISCOVERY_TYPE}",
        port=port,
        properties=properties,
        server=f"{name}.local.",
        parsed_addresses=[LOOPBACK],
    )


@needs_multicast
async def test_a_flood_of_records_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(station, "NAMES_MAX", 10)
    a = Seen(7061)
    zeroconf = AsyncZeroconf(interfaces=[LOOPBACK], ip_version=IPVersion.V4Only)
    async with looking(a):
        await until(lambda: a.discovery._stations, 60.0)
        for at in range(40):
            name = f"flood{at}"
            info = _info(name, 7_200 + at, {"v": "1", "f": tag(KEY, name, 7_200 + at)})
            await zeroconf.async_register_service(info, cooperating_responders=True)
        await until(lambda: len(a.ports()) >= 10, 60.0)
        assert len(a.ports()) == 10
        await zeroconf.async_close()


async def test_a_link_that_fails_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    class Fragile(station.Station):
        async def start(self) -> None:
            if self.link.name == "bad0":
                raise OSError("no such device")
            started.append(self.link.name)

        async def close(self) -> None:
            pass

    bad, good = Link("bad0", 8, ("10.0.0.1",)), Link("good0", 9, ("10.0.0.2",))
    monkeypatch.setattr("gossipfl.net.discovery.choose", lambda _: [bad, good])
    monkeypatch.setattr("gossipfl.net.discovery.Station", Fragile)
    a = Seen(7071)
    async with looking(a):
        await until(lambda: started)
    assert started == ["good0"]
    assert a.discovery.failures == {"bad0": "no such device"}


async def test_a_machine_that_moves_says_so_and_starts_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = [Link("wlan0", 3, ("10.0.0.1",))]
    life: list[str] = []

    class Noted(station.Station):
        async def start(self) -> None:
            life.append(f"start {self.link.addresses[0]}")

        async def close(self) -> None:
            life.append(f"close {self.link.addresses[0]}")

    monkeypatch.setattr("gossipfl.net.discovery.RESCAN_S", 0.01)
    monkeypatch.setattr("gossipfl.net.discovery.choose", lambda _: here)
    monkeypatch.setattr("gossipfl.net.discovery.Station", Noted)
    events: list[Event] = []
    moving = Discovery(KEY, 7081, events.append, slow_start_s=0.0)
    moving.start()
    await until(lambda: life)
    here[:] = [Link("wlan0", 3, ("10.9.9.9",))]
    await until(lambda: len(life) >= 3)
    await moving.close()
    assert life[:3] == ["start 10.0.0.1", "close 10.0.0.1", "start 10.9.9.9"]
    assert events == [
        OwnAddresses((Address("10.0.0.1", 7081),)),
        OwnAddresses((Address("10.9.9.9", 7081),)),
    ]


async def test_without_mdns_own_addresses_are_still_known() -> None:
    quiet = Seen(7091, mdns=False)
    async with looking(quiet):
        await until(lambda: quiet.events)
    assert quiet.events == [OwnAddresses((Address(LOOPBACK, 7091),))]


async def test_what_is_advertised_by_hand_is_what_is_said() -> None:
    outside = Address("gateway.example", 443)
    mapped = Seen(7095, mdns=False, advertise=[outside])
    async with looking(mapped):
        await until(lambda: mapped.events)
    assert mapped.events == [OwnAddresses((outside,))]


@pytest.mark.parametrize(
    ("address", "believed"),
    [
        ("192.168.1.7", True),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("172.32.0.1", False),
        ("169.254.7.7", True),
        ("fd12::1", True),
        ("fe80::1%eth0", True),
        ("8.8.8.8", False),
        ("2001:4860:4860::8888", False),
        ("0.0.0.0", False),
        ("::", False),
        ("224.0.0.251", False),
        ("ff02::fb", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("::ffff:8.8.8.8", False),
        ("nonsense", False),
    ],
)
def test_which_addresses_a_record_may_name(address: str, believed: bool) -> None:
    assert is_believable(address, loopback=False) is believed


def test_loopback_is_believed_on_loopback_only() -> None:
    assert is_believable("127.0.0.1", loopback=True)
    assert not is_believable("8.8.8.8", loopback=True)


def test_links_are_chosen_by_name_and_by_address() -> None:
    [by_address] = choose([LOOPBACK])
    [by_name] = choose([by_address.name])
    assert by_address.addresses == (LOOPBACK,)
    assert LOOPBACK in by_name.addresses
    assert by_name.is_loopback
    assert choose(["no-such-interface"]) == []
    assert not any(link.is_loopback for link in choose([]))


def test_the_default_is_what_has_a_default_route_and_else_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lo = Link("lo", 1, ("127.0.0.1",))
    lan, vpn = Link("eth0", 2, ("192.168.1.2",)), Link("tun0", 3, ("10.8.0.2",))
    monkeypatch.setattr(links, "_links", lambda: [lo, lan, vpn])
    routes = tmp_path / "route"
    monkeypatch.setattr(links, "_V4_ROUTES", routes)
    monkeypatch.setattr(links, "_V6_ROUTES", tmp_path / "missing")
    header = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
    routes.write_text(
        f"{header}eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\n"
        "tun0\t0000080A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
    )
    assert choose([]) == [lan]
    routes.write_text(header)
    assert choose([]) == [lan, vpn]


def test_own_addresses_are_those_that_are_listened_on_and_make_sense_elsewhere() -> None:
    link = Link("eth0", 2, ("192.168.1.2", "fd00::2", "fe80::1%eth0"))
    assert own_addresses([link], ("0.0.0.0", "::"), 7) == (
        Address("192.168.1.2", 7),
        Address("fd00::2", 7),
    )
    assert own_addresses([link], ("0.0.0.0",), 7) == (Address("192.168.1.2", 7),)
    assert own_addresses([link], ("fd00::2",), 7) == (Address("fd00::2", 7),)
    assert not listens(("127.0.0.1",), "192.168.1.2")
