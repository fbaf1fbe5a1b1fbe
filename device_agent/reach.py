"""Where this device listens and can be reached, as far as its settings say so."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from gossipfl.events import Address

ANY = ("0.0.0.0", "::")


def parse(text: str) -> Address:
    """`host:port` or `[IPv6]:port`, checked by the settings already."""
    host, _, port = text.rpartition(":")
    return Address(host.strip("[]"), int(port))


def listening_hosts(hosts: Sequence[str]) -> list[str]:
    """The hosts to listen on; "::" is left out on a machine without IPv6."""
    return [host for host in hosts if host != "::" or _has_ipv6()]


def fixed_addresses(hosts: Sequence[str], port: int, advertise: Sequence[str]) -> list[Address]:
    """As advertised, else the named hosts listened on. None of both: the interfaces' say."""
    if advertise:
        return [parse(text) for text in advertise]
    return [Address(host, port) for host in hosts if host not in ANY]


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
