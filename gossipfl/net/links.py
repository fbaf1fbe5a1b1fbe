"""This machine's interfaces: which to use, which addresses to name, and which to believe."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ifaddr

from gossipfl.events import Address

ADDRESSES_PER_LINK = 4  # guess: IPv4, unique local, global, link-local
WILDCARDS = {4: "0.0.0.0", 6: "::"}
_V4_ROUTES = Path("/proc/net/route")
_V6_ROUTES = Path("/proc/net/ipv6_route")
# What an mDNS record may name: RFC 1918, RFC 3927, RFC 4193, RFC 4291 2.5.6.
_LOCAL = [
    ipaddress.ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10"),
    )
]


@dataclass(frozen=True, slots=True)
class Link:
    """One interface with the addresses of it that are in use, IPv4 first."""

    name: str
    index: int
    addresses: tuple[str, ...]

    @property
    def is_loopback(self) -> bool:
        return all(ipaddress.ip_address(plain(a)).is_loopback for a in self.addresses)


def choose(wanted: Sequence[str]) -> list[Link]:
    """The links named by interface or by address in `wanted`.

    By default those with a default route; where there is none (a lone switch, no router), every
    one that is not loopback.
    """
    found = _links()
    if wanted:
        return [link for link in (_narrowed(link, wanted) for link in found) if link.addresses]
    outside = [link for link in found if not link.is_loopback]
    routed = _routed()
    return [link for link in outside if link.name in routed] or outside


def own_addresses(links: Sequence[Link], hosts: Sequence[str], port: int) -> tuple[Address, ...]:
    """Where others may reach a server that listens on `hosts`: no scoped addresses among them."""
    return tuple(
        Address(host, port)
        for link in links
        for host in link.addresses
        if listens(hosts, host) and not is_scoped(host)
    )


def listens(hosts: Sequence[str], address: str) -> bool:
    """Whether a server bound to `hosts` is reached by this address."""
    return address in hosts or WILDCARDS[ipaddress.ip_address(plain(address)).version] in hosts


def is_believable(address: str, loopback: bool) -> bool:
    """Whether a stranger's record may send us to this address.

    Private and link-local ones only. Loopback only where we look for peers on loopback: otherwise
    anybody could make us talk to our own local services.
    """
    try:
        parsed = ipaddress.ip_address(plain(address))
    except ValueError:
        return False
    if parsed.is_loopback:
        return loopback
    return not parsed.is_multicast and any(parsed in network for network in _LOCAL)


def plain(address: str) -> str:
    """Without an IPv6 scope."""
    return address.partition("%")[0]


def is_scoped(address: str) -> bool:
    """Whether it is a link-local IPv6 address, which means something on one link only."""
    return ":" in address and ipaddress.ip_address(plain(address)).is_link_local


def _links() -> list[Link]:
    links = []
    for adapter in ifaddr.get_adapters():
        v4 = [ip.ip for ip in adapter.ips if isinstance(ip.ip, str)]
        v6 = [
            f"{ip.ip[0]}%{adapter.name}" if ip.ip[2] else ip.ip[0]
            for ip in adapter.ips
            if isinstance(ip.ip, tuple)
        ]
        if v4 or v6:
            addresses = tuple([*v4, *v6][:ADDRESSES_PER_LINK])
            links.append(Link(adapter.name, adapter.index or 0, addresses))
    return links


def _narrowed(link: Link, wanted: Sequence[str]) -> Link:
    if link.name in wanted:
        return link
    kept = tuple(a for a in link.addresses if plain(a) in wanted or a in wanted)
    return Link(link.name, link.index, kept)


def _routed() -> set[str]:
    """Names of interfaces with a default route (Linux; empty elsewhere)."""
    names = set()
    for fields in _rows(_V4_ROUTES):
        # Iface Destination Gateway Flags RefCnt Use Metric Mask ...
        if len(fields) > 7 and fields[1] == fields[7] == "00000000":
            names.add(fields[0])
    for fields in _rows(_V6_ROUTES):
        # destination prefix_length source prefix_length next_hop metric refs use flags device
        if len(fields) > 9 and fields[0] == "0" * 32 and fields[1] == "00":
            names.add(fields[9])
    return names


def _rows(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return []
