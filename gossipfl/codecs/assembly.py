"""The receiver's side: keeps, per peer, the parts that its newest updates named."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from gossipfl.codecs.update import decode_update, named_parts
from gossipfl.messages import Lineage
from gossipfl.objects import digest
from gossipfl.parameters import Vector

PEERS_MAX = 256
"""Peers whose parts are kept, the least used go first: as many as an inbox holds."""


@dataclass(slots=True)
class _Peer:
    name: bytes = b""
    update: bytes = b""  # the newest update object that was offered, and its digest
    needs: tuple[bytes, ...] = ()  # digests of the parts that it names
    held: dict[bytes, bytes] = field(default_factory=dict)


class Assembly:
    """Bounded: per peer the parts of one vector, a quarter of what the decoded vector takes (int8).

    Callers have compared every object with its digest, and an update with the length that its head
    declares.
    """

    def __init__(self, peers_max: int = PEERS_MAX) -> None:
        self._peers_max = peers_max
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()

    def offer(
        self, device: bytes, data: bytes, lineage: Lineage, codec: str, count: int
    ) -> list[bytes]:
        """A peer's new update. Returns the digests that are missing; raises PeerError."""
        needs = named_parts(data, lineage, codec, count)
        if not needs:
            self._peers.pop(device, None)
            return []
        peer = self._peers.setdefault(device, _Peer())
        self._peers.move_to_end(device)
        while len(self._peers) > self._peers_max:
            self._peers.popitem(last=False)
        name = digest(data)
        peer.name, peer.update, peer.needs = name, data, needs
        peer.held[name] = data
        peer.held = {n: part for n, part in peer.held.items() if n == name or n in needs}
        return [n for n in needs if n not in peer.held]

    def forget(self, device: bytes) -> None:
        """Its newest update is whole: no parts are needed."""
        self._peers.pop(device, None)

    def part(self, device: bytes, name: bytes, data: bytes) -> bytes | None:
        """A part came in. Returns the update that it completes, if it does."""
        peer = self._peers.get(device)
        if peer is None or name not in peer.needs:
            return None
        peer.held[name] = data
        return peer.update if all(n in peer.held for n in peer.needs) else None

    def awaits(self, device: bytes, update: bytes) -> bool:
        """Is this the peer's newest update here, and one that is made of parts?"""
        peer = self._peers.get(device)
        return peer is not None and peer.name == update

    def decode(
        self, device: bytes, data: bytes, lineage: Lineage, codec: str, count: int
    ) -> Vector:
        """The full vector of an update of which `offer` misses nothing. Raises PeerError."""
        peer = self._peers.get(device)
        return decode_update(data, lineage, codec, count, peer.held if peer else None)
