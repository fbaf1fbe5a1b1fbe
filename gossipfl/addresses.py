"""Address records: where devices say they listen, each signed by the device it speaks of.

Routers drop multicast, so addresses are gossiped in heads beside mDNS. A record is a candidate
only: the device has to prove itself at the address.
"""

from __future__ import annotations

import ipaddress
import re

from gossipfl.core import Core
from gossipfl.errors import Fault, PeerError
from gossipfl.events import Address, Source
from gossipfl.identity import device_of
from gossipfl.messages import Record
from gossipfl.objects import Listing, pack_list, unpack_list
from gossipfl.pulls import Pending, Purpose
from gossipfl.wire import check_signature, decode, encode, open_envelope, seal

RECORDS_MAX = 256  # protocol
MEMBERS_PER_LIST = 4
"""Unknown members fetched from one address list: guess, so that a list cannot keep us busy."""
# ASCII alone: str.isdigit takes digits that int does not.
ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[0-9A-Za-z_.-]+)?)\]|(?P<host>[0-9A-Za-z_.-]+))"
    r":(?P<port>[0-9]{1,5})"
)


class Addresses:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._record: tuple[Record, bytes] | None = None
        self._listed: tuple[list[bytes], Listing | None] = ([], None)

    def own(self, addresses: tuple[Address, ...]) -> None:
        core = self._core
        for address in addresses:
            core.book.is_self(address)
        texts = [str(address) for address in addresses][: core.limits.addresses_per_device]
        if not texts:
            return
        seq = max(core.time(), self._record[0].seq + 1 if self._record else 1, 1)
        record = Record(core.fleet, core.device, seq, core.me.digest, texts)
        self._record = (record, seal("record", encode(record), core.signer))
        core.publisher.want_head()

    def listing(self) -> Listing | None:
        """Our own record and the newest one of each peer, within the bound."""
        core = self._core
        rows = [envelope for _, envelope in core.records.values()][: RECORDS_MAX - 1]
        if self._record is not None:
            rows.insert(0, self._record[1])
        if rows != self._listed[0]:  # it is asked for with each head
            self._listed = (rows, self._compose(rows))
        return self._listed[1]

    def _compose(self, rows: list[bytes]) -> Listing:
        """The first of these records, as many as there is room for."""
        room = self._core.limits.peers_bytes - 5
        while sum(len(row) + 5 for row in rows) > room:
            rows = rows[:-1]
        return Listing(pack_list(sorted(rows)))

    def peers(self, pending: Pending, data: bytes) -> None:
        """A peer's address list. Each record is signed by the device it speaks of."""
        core = self._core
        fetches = MEMBERS_PER_LIST
        changed, unknown = False, False
        here = {envelope for _, envelope in core.records.values()}
        for item in core.pure(unpack_list, data, core.limits.peers_bytes)[:RECORDS_MAX]:
            if item in here:
                continue  # as most are, and they were verified
            envelope = core.pure(open_envelope, item, "record", core.limits.head_bytes)
            device = core.pure(device_of, envelope.key_id)
            if device == core.device or core.is_barred(device):
                continue
            held = core.records.get(device)
            core.pure(check_signature, envelope)
            record = core.pure(decode, envelope.payload, Record, core.limits.head_bytes)
            if record.device != device or record.fleet != core.fleet:
                raise PeerError(Fault.WRONG_DEVICE, "an address record names another device")
            if held is not None and held[0].seq >= record.seq:
                continue
            if core.roster.by_key(envelope.key_id) is None:
                unknown = True
                if fetches > 0 and pending.device is not None:
                    fetches -= 1
                    wanted = Pending(
                        Purpose.MEMBER, pending.address, pending.device, digest=record.member
                    )
                    core.emit(*core.pulls.object(wanted, core.limits.member_bytes))
                continue
            self.take_record(record, item)
            changed = True
        peer = core.book.peers.get(pending.device or b"")
        if peer is not None and not unknown:
            peer.list_read = pending.digest  # its next heads may name it again and again
        if changed:
            core.publisher.touch("records")
            core.publisher.want_head()

    def take_record(self, record: Record, envelope: bytes) -> None:
        core = self._core
        core.records[record.device] = (record, envelope)
        for text in record.addresses:
            address = parse_address(text)
            if address is not None and self._is_believable(address.host):
                core.book.see(address, Source.RECORD, core.now)

    def _is_believable(self, host: str) -> bool:
        """A private or link-local address; loopback only for a fleet on one machine.

        A name, or an address out there, would make the whole fleet call whom a liar names.
        """
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_unspecified or address.is_multicast or address.is_reserved:
            return False  # this very machine by another name, or everybody
        if address.is_loopback:
            own = self._record[0].addresses if self._record else []
            return any(text.startswith(("127.", "[::1]")) for text in own)
        return address.is_private or address.is_link_local

    def restore(self, data: bytes) -> None:
        core = self._core
        for item in unpack_list(data, core.limits.devices * core.limits.head_bytes):
            envelope = open_envelope(item, "record", core.limits.head_bytes)
            if core.is_barred(device_of(envelope.key_id)):
                continue
            check_signature(envelope)
            self.take_record(decode(envelope.payload, Record, core.limits.head_bytes), item)


def parse_address(text: str) -> Address | None:
    """`host:port` or `[v6]:port`; None if it is neither. The text comes from others."""
    found = ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65_536:
        return None
    return Address(found["v6"] or found["host"], int(found["port"]))
