"""What a settings table says of each value, and what is allowed: shared by device and hub."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Doc:
    """What a person needs to know of one setting, and what is allowed."""

    help: str
    origin: str  # where the default comes from
    problem: Callable[[Any], str | None] = lambda _: None  # what is wrong with a value, in words
    template: object = None  # what `init` shows where the default is empty


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine, without asking a name server."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def one_of(*allowed: str) -> Callable[[str], str | None]:
    return lambda value: None if value in allowed else f"allowed: {', '.join(allowed)}"


def between(low: float, high: float) -> Callable[[float], str | None]:
    return lambda value: None if low <= value <= high else f"allowed: {low:g} to {high:g}"


def addresses(values: tuple[str, ...]) -> str | None:
    """Each `host:port` or `[IPv6]:port`."""
    for value in values:
        host, _, port = value.rpartition(":")
        bare = host.startswith("[") == host.endswith("]") and (":" not in host or host[:1] == "[")
        if not (host.strip("[]") and bare and port.isdigit() and 1 <= int(port) <= PORT_MAX):
            return f"{value!r} is not host:port (IPv6: [host]:port)"
    return None


def networks(values: tuple[str, ...]) -> str | None:
    """Each an IP address or a network as 10.0.0.0/8."""
    for value in values:
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            return f"{value!r} is neither an address nor a network"
    return None
