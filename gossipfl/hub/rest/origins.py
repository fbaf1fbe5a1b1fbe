"""Where a request comes from: its connection's address, or what a trusted proxy says."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from aiohttp import web

FORWARDED_FOR = "X-Forwarded-For"
FORWARDED = ("Forwarded", "Via", FORWARDED_FOR, "X-Real-IP")
"""A proxy on this machine speaks for somebody who may be anywhere."""


class Origins:
    """`trusted`: addresses and networks of proxies, whose word about the address counts."""

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._trusted = [ipaddress.ip_network(name, strict=False) for name in trusted]

    def of(self, request: web.Request) -> str:
        """The address of who asks: the last one that no trusted proxy has. Anybody may write a
        longer list, and only its end is written by those who are trusted."""
        address = request.remote or ""
        told = ",".join(request.headers.getall(FORWARDED_FOR, [])).split(",")
        for name in reversed(told):
            if not self.trusts(address) or not _is_address(name.strip()):
                break
            address = name.strip()
        return address

    def trusts(self, address: str) -> bool:
        """Whether it is a proxy's. An address, or a network as `listener.origin_of` says it."""
        try:
            found = ipaddress.ip_network(address.partition("%")[0])
        except ValueError:
            return False
        return any(found.overlaps(network) for network in self._trusted)


def came_by_proxy(request: web.Request) -> bool:
    return any(name in request.headers for name in FORWARDED)


def is_loopback(origin: str) -> bool:
    """This machine: an address does not tell its users apart. An origin as `listener` names it."""
    return origin == "::/64" or (_is_address(origin) and ipaddress.ip_address(origin).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
