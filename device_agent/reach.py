"""Where this device can be reached: what the config says, or what the system would use."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from gossipfl.events import Address

# RFC 5737 and RFC 3849: documentation addresses. Nothing is sent; the kernel only says which of
# our addresses it would send from.
_PROBES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_LOOPBACK = "127.0.0.1"
ANY = ("0.0.0.0", "::")


def parse(text: str) -> Address:
    """`host:port` or `[IPv6]:port`, checked by the settings already."""
    host, _, port = text.rpartition(":")
    return Address(host.strip("[]"), int(port))


def listening_hosts(hosts: Sequence[str]) -> list[str]:
    """The hosts to listen on; "::" is left out on a machine without IPv6."""
    return [host for host in hosts if host != "::" or _has_ipv6()]


def own_addresses(hosts: Sequence[str], port: int, advertise: Sequence[str]) -> list[Address]:
    """As advertised; else the hosts listened on; else those of the default routes."""
    if advertise:
        return [parse(text) for text in advertise]
    named = [host for host in hosts if host not in ANY]
    if named:
        return [Address(host, port) for host in named]
    found = [_source_address(family, probe) for family, probe in _PROBES if _is_on(family, hosts)]
    return [Address(host, port) for host in found if host] or [Address(_LOOPBACK, port)]


def _is_on(family: socket.AddressFamily, hosts: Sequence[str]) -> bool:
    return ANY[family == socket.AF_INET6] in hosts


def _source_address(family: socket.AddressFamily, probe: str) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.connect((probe, 9))
            found: str = sender.getsockname()[0]
            return found
    except OSError:  # no route
        return None


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
