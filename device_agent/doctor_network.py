"""The doctor's checks of the network: multicast on each link, and the port."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Sequence

from device_agent.checks import Check, State
from gossipfl.net.links import Link, plain

ECHO_S = 1.0  # a datagram to oneself
MDNS = {socket.AF_INET: "224.0.0.251", socket.AF_INET6: "ff02::fb"}  # RFC 6762


def multicast(
    enabled: bool, links: Sequence[Link], echo: Callable[[Link, str], str] | None = None
) -> Iterator[Check]:
    """Whether what is sent to mDNS's group comes back, on each link. "" if it does."""
    if not enabled:
        yield Check("multicast", State.NOTE, "discovery is off: peers come from network.peers")
        return
    if not links:
        fix = "connect it, or name an interface in discovery.interfaces"
        yield Check(
            "multicast", State.PROBLEM, "there is no network interface with an address", fix
        )
    for link in links:
        address = link.addresses[0]
        why = (echo or echoed)(link, address)
        if why:
            fix = f"ip link set {link.name} multicast on; let UDP port 5353 through the firewall; "
            fix += "else name peers in network.peers"
            yield Check("multicast", State.PROBLEM, f"{link.name} ({address}): {why}", fix)
        else:
            yield Check("multicast", State.OK, f"{link.name} ({address})")


def echoed(link: Link, address: str) -> str:
    """Why a datagram to the group of mDNS does not come back on this link, or ""."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with (
            socket.socket(family, socket.SOCK_DGRAM) as hears,
            socket.socket(family, socket.SOCK_DGRAM) as says,
        ):
            hears.bind(("", 0))
            hears.settimeout(ECHO_S)
            number = hears.getsockname()[1]
            _join(hears, says, link, address)
            target = (MDNS[family], number)
            says.sendto(b"?", target if family == socket.AF_INET else (*target, 0, link.index))
            hears.recv(1)
    except TimeoutError:
        return "what is sent to 224.0.0.251 does not come back"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _join(hears: socket.socket, says: socket.socket, link: Link, address: str) -> None:
    if ":" in address:
        index = struct.pack("@I", link.index)
        group = socket.inet_pton(socket.AF_INET6, MDNS[socket.AF_INET6]) + index
        hears.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        says.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        return
    own = socket.inet_aton(plain(address))
    group = socket.inet_aton(MDNS[socket.AF_INET]) + own
    hears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    says.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)


def port(hosts: Sequence[str], number: int) -> Check:
    """Whether the agent could listen. It is not running."""
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, number))
                probe.listen(1)
        except OSError as error:
            fix = f"ss -ltnp 'sport = :{number}' says who has it; or set network.port"
            what = f"{host} port {number}: {error.strerror or error}"
            return Check("port", State.PROBLEM, what, fix)
    return Check("port", State.OK, "any free one" if number == 0 else f"{number} is free")
