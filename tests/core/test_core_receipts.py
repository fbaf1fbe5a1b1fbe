"""Receipts are public functions of published inputs; what is published stays long enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from harness import Device, Puppet, Table

from gossipfl.aggregation import Merge, merge_step
from gossipfl.codecs import decode_update, named_parts
from gossipfl.config import Limits
from gossipfl.errors import Fault
from gossipfl.events import (
    FetchHead,
    FetchObject,
    HeadReceived,
    ObjectReceived,
    ResourcesChanged,
    RevocationReceived,
)
from gossipfl.messages import Head, Marker, Receipt
from gossipfl.objects import digest, unpack_chapter, unpack_list
from gossipfl.parameters import Vector, to_bytes
from gossipfl.retention import Retention
from gossipfl.wire import check_signature, decode, open_envelope

Fetch = Callable[[bytes], bytes | None]


# --- an auditor: it knows what peers serve, and nothing else -------------------------------------


class Auditor:
    """Fetches heads and objects as any peer can, and recomputes merges from them alone."""

    def __init__(self, table: Table, codec: str = "f32") -> None:
        self._table = table
        self.codec = codec
        self.bases: dict[bytes, Vector] = {}  # models recomputed or known from the bundle
        initial = np.zeros(table.count, np.float32)
        self.bases[digest(to_bytes(initial))] = initial

    def head(self, of: Device) -> Head:
        answer = of.serve(FetchHead(0, of.address, None, None, 0.0, 0))
        assert isinstance(answer, HeadReceived)
        assert answer.head is not None
        opened = open_envelope(answer.head, "head", 4096)
        check_signature(opened)
        return decode(opened.payload, Head)

    def object(self, name: bytes) -> bytes | None:
        for device in self._table.devices:
            answer = device.serve(FetchObject(0, device.address, name, 1 << 20))
            if isinstance(answer, ObjectReceived):
                assert digest(answer.data) == name
                return answer.data
        for puppet in self._table.puppets:
            if name in puppet.objects:
                return puppet.objects[name]
        return None

    def receipt(self, name: bytes) -> Receipt:
        data = self.object(name)
        assert data is not None
        opened = open_envelope(data, "receipt", 65_536)
        check_signature(opened)
        return decode(opened.payload, Receipt)

    def newest(self, of: Device) -> Receipt:
        head = self.head(of)
        assert head.receipts is not None
        receipt = self.receipt(head.receipts.digest)
        assert receipt.number == head.receipts.number
        assert receipt.device == of.id
        return receipt

    def recompute(self, receipt: Receipt) -> Merge:
        """The merge that a receipt speaks of, from what it names."""
        rows = [self._update(receipt, entry.update) for entry in receipt.merged]
        own = None
        if receipt.own is not None:
            own = self.bases.get(receipt.own)
            if own is None:
                own = self._update(receipt, receipt.own)
        merged = merge_step(receipt.rule, own, rows, receipt.f)
        self.bases[digest(to_bytes(merged.parameters))] = merged.parameters
        return merged

    def _update(self, receipt: Receipt, name: bytes) -> Vector:
        data = self.object(name)
        assert data is not None, "an update that a fresh receipt names is still served"
        parts = {}
        for part in named_parts(data, receipt.lineage, self.codec, self._table.count):
            found = self.object(part)
            assert found is not None, "so is what the update names"
            parts[part] = found
        return decode_update(data, receipt.lineage, self.codec, self._table.count, parts)

    def check(self, receipt: Receipt) -> None:
        merged = self.recompute(receipt)
        assert digest(to_bytes(merged.parameters)) == receipt.base
        claimed = [entry.influence for entry in receipt.merged]
        assert claimed == pytest.approx(list(merged.influence))
        for entry in receipt.merged:
            data = self.object(entry.head)
            assert data is not None
            head = decode(open_envelope(data, "head", 4096).payload, Head)
            assert (head.device, head.seq) == (entry.device, entry.seq)
            assert head.update is not None
            assert head.update.digest == entry.update


def fleet(devices: int = 4, **policy: Any) -> Table:
    table = Table(n=devices, **{"count": 6, **policy})
    for _ in range(devices):
        table.device()
    table.introduce()
    table.employ()
    return table


def each_merge(table: Table, device: Device, rounds: int, codec: str = "f32") -> None:
    """Audit the newest receipt after each of so many merges."""
    auditor = Auditor(table, codec)
    for _ in range(rounds):
        before = device.node.view().merges
        table.until(lambda: device.node.view().merges > before, 120.0)  # noqa: B023
        number = device.node._core.own.receipts
        assert number is not None
        table.until(lambda: auditor.head(device).receipts == number, 30.0)  # noqa: B023
        auditor.check(auditor.newest(device))


@pytest.mark.parametrize(
    ("rule", "attackers"),
    [("mean", 0), ("median", 0), ("nna", 1), ("trimmed_mean", 1), ("multi_krum", 0)],
)
def test_anyone_can_recompute_a_merge_from_its_receipt(rule: str, attackers: int) -> None:
    table = fleet(rule=rule, attackers=attackers)
    each_merge(table, table.devices[0], 4)
    base = table.devices[0].node.base
    assert base is not None
    assert digest(to_bytes(base)) == Auditor(table).newest(table.devices[0]).base


@pytest.mark.parametrize(
    "codec",
    ["bf16", "int8", "f32+zlib", "int8+zlib", "partial:0.5+f32", "partial:0.1+int8+zlib"],
)
def test_with_every_codec_anyone_can_recompute_a_merge(codec: str) -> None:
    """Over more rounds than updates are kept, and over a restart of a publisher."""
    table = fleet(codec=codec, count=1_100)
    each_merge(table, table.devices[0], 6, codec)
    table.restart(table.devices[1])
    table.introduce()
    each_merge(table, table.devices[0], 6, codec)
    for device in table.devices:
        for other in table.devices:
            assert device.faults(other) == {}


def test_a_joiners_first_merge_has_no_own_model() -> None:
    table = fleet()
    table.until(lambda: all(d.node.base_round >= 2 for d in table.devices), 200.0)
    late = table.device()
    table.introduce()
    table.employ(late)
    table.until(lambda: late.node.view().merges >= 1, 60.0)
    auditor = Auditor(table)
    number = late.node._core.own.receipts
    table.until(lambda: auditor.head(late).receipts == number, 30.0)
    receipt = auditor.newest(late)
    while receipt.prev is not None:
        receipt = auditor.receipt(receipt.prev)
    assert (receipt.number, receipt.own, receipt.rule) == (1, None, "median")
    assert late.id not in {entry.device for entry in receipt.merged}
    auditor.check(receipt)


def test_who_only_listens_is_anchored_on_a_base_that_a_receipt_names() -> None:
    table = fleet()
    listener = table.devices[0]
    auditor = Auditor(table)
    table.until(lambda: listener.node.base_round >= 1, 120.0)
    table.advance(10.0)
    auditor.check(auditor.newest(listener))
    table.send(listener, ResourcesChanged(False, "on battery"))
    for _ in range(3):
        before = listener.node.view().merges
        table.until(lambda: listener.node.view().merges > before, 120.0)  # noqa: B023
        number = listener.node._core.own.receipts
        table.until(lambda: auditor.head(listener).receipts == number, 30.0)  # noqa: B023
        receipt = auditor.newest(listener)
        assert receipt.own in auditor.bases
        auditor.check(receipt)


def test_a_changed_receipt_is_found_out() -> None:
    """The auditor is worth something: another base, share or rule does not add up."""
    table = fleet(rule="median")
    table.until(lambda: table.devices[0].node.base_round >= 1, 120.0)
    table.advance(10.0)
    auditor = Auditor(table)
    receipt = auditor.newest(table.devices[0])
    values = {name: getattr(receipt, name) for name in receipt.__struct_fields__}
    for name, value in (
        ("base", b"x" * 32),
        ("rule", "krum"),
        ("merged", receipt.merged[:-1]),
        ("own", receipt.merged[0].update),
    ):
        with pytest.raises(AssertionError):
            auditor.check(Receipt(**{**values, name: value}))


def test_receipts_form_one_chain() -> None:
    table = fleet()
    device = table.devices[0]
    table.until(lambda: device.node.view().merges >= 5, 300.0)
    table.advance(10.0)
    auditor = Auditor(table)
    receipt = auditor.newest(device)
    numbers = [receipt.number]
    while receipt.prev is not None:
        receipt = auditor.receipt(receipt.prev)
        numbers.append(receipt.number)
    assert numbers == list(range(numbers[0], 0, -1))
    assert numbers[0] >= 5


def test_a_receipt_says_who_was_refused_and_why() -> None:
    table = fleet(3)
    bad: Puppet = table.puppet()
    bad.publish_update(table.lineage, np.full(table.count, np.nan, np.float32))
    table.introduce(bad)
    device = table.devices[0]
    table.until(lambda: "not finite" in device.faults(bad), 200.0)
    merges = device.node.view().merges
    table.until(lambda: device.node.view().merges > merges, 120.0)
    auditor = Auditor(table)
    number = device.node._core.own.receipts
    table.until(lambda: auditor.head(device).receipts == number, 30.0)
    receipt = auditor.newest(device)
    assert [(r.device, r.fault) for r in receipt.refused] == [(bad.id, "not finite")]
    assert bad.id not in {entry.device for entry in receipt.merged}


def newest_update(table: Table, device: Device) -> bytes | None:
    update = Auditor(table).head(device).update
    return update.digest if update is not None else None


# --- retention -----------------------------------------------------------------------------------


def updates(device: Device) -> list[bytes]:
    return [name for name, data in device.store._objects.items() if data[:4] == b"GFU1"]


def test_a_receipt_says_whose_update_was_too_old() -> None:
    """It goes on being asked, and is charged nothing: it may be at rest."""
    table = fleet(3)
    quiet = table.puppet()
    quiet.publish_update(table.lineage, np.full(6, 1.0, np.float32))
    table.introduce(quiet)
    me, auditor = table.devices[0], Auditor(table)

    def refused() -> dict[bytes, str]:
        return {row.device: row.fault for row in auditor.newest(me).refused}

    def merged() -> set[bytes]:
        return {row.device for row in auditor.newest(me).merged}

    table.until(lambda: auditor.head(me).receipts is not None and quiet.id in merged(), 120.0)
    table.until(lambda: refused() == {quiet.id: Fault.STALE.value}, 400.0)
    assert quiet.id not in merged()
    assert me.faults(quiet) == {}


def test_the_newest_three_updates_stay_in_the_store() -> None:
    table = fleet(3)
    device = table.devices[0]
    published: list[bytes] = []
    for _ in range(8):
        before = device.node.base_round
        table.until(lambda: device.node.base_round > before, 120.0)  # noqa: B023
        ref = Auditor(table).head(device).update
        assert ref is not None
        if ref.digest not in published:
            published.append(ref.digest)
        kept = set(updates(device))
        assert set(published[-3:]) <= kept
        assert len(kept) <= 4, "an older one leaves with the next commit"
    table.send(device, RevocationReceived(table.fleet.revoke(b"r" * 16, "x")))
    table.advance(5.0)
    assert set(updates(device)) == set(published[-3:])
    assert device.node.shelf.object(published[0]) is None


def test_retention_goes_on_over_restarts() -> None:
    """The list of what is kept is durable: nothing is let go early, nothing stays for ever."""
    table = fleet(3)
    device = table.devices[0]
    published: list[bytes] = []
    for n in range(9):
        table.until(lambda: newest_update(table, device) not in (None, *published), 200.0)
        published.append(newest_update(table, device) or b"")
        table.advance(12.0)
        assert set(published[-3:]) <= set(updates(device)), n
        assert len(updates(device)) <= 4
        if n % 2:
            table.restart(device)
            table.introduce()
            table.advance(1.0)


def test_list_objects_do_not_pile_up() -> None:
    table = fleet(3)
    device = table.devices[0]
    table.advance(20.0)
    for n in range(10):
        table.send(device, RevocationReceived(table.fleet.revoke(bytes([n]) * 16, "x" * n)))
        table.advance(5.0)
    lists = [name for name, data in device.store._objects.items() if b"\x94\xaarevocation" in data]
    assert len(lists) == 1
    newest = Auditor(table).head(device).revocations
    assert newest is not None
    data = Auditor(table).object(newest)
    assert data is not None
    assert len(unpack_list(data, 1 << 20)) == 10


def test_old_history_leaves_with_a_signed_marker() -> None:
    """Chapters of 4 links, 8 links of history: older ones go, and the head says up to where."""
    table = fleet(3, limits=Limits(chapter=4))
    device = table.devices[0]
    device.node._core.publisher.keeper.retention = Retention(history_links=8)
    table.until(lambda: device.node.view().seq >= 30, 600.0)
    table.advance(10.0)
    auditor = Auditor(table)
    head = auditor.head(device)
    assert head.head_chapter is not None
    chapter = auditor.object(head.head_chapter)
    assert chapter is not None
    assert head.pruned is not None
    markers_object = auditor.object(head.pruned)
    assert markers_object is not None
    below = {}
    for item in unpack_list(markers_object, 65_536):
        opened = open_envelope(item, "marker", 4096)
        check_signature(opened)
        marker = decode(opened.payload, Marker)
        assert marker.device == device.id
        below[marker.chain] = marker.number
    assert 8 < below["head"] <= head.seq - 8
    first = unpack_chapter(chapter, Limits())
    for name in first.digests:
        assert auditor.object(name) is not None, "what the newest chapter names is there"
    held = []
    for data in device.store._objects.values():
        if data[:6] == b"\x94\xa4head":
            theirs = decode(open_envelope(data, "head", 4096).payload, Head)
            if theirs.device == device.id:
                held.append(theirs.seq)
    assert min(held) >= below["head"]
    assert sorted(held) == list(range(min(held), head.seq + 1))
