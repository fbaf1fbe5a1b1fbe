"""Lists that only grow: pages of long ones, what one peer makes us fetch, and that they agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from harness import Device, Puppet, Table
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.config import Limits
from gossipfl.errors import Fault
from gossipfl.events import FetchObject, RevocationReceived
from gossipfl.messages import Evidence, EvidenceKind
from gossipfl.objects import PAGE_BITS_MAX, Listing, digest, is_index, pack_list, unpack_list
from gossipfl.wire import encode

SHORT = replace(Limits(), list_bytes=4_096)
ENTRIES = st.dictionaries(st.binary(min_size=16, max_size=16), st.integers(40, 300), max_size=60)


def entries_of(sizes: dict[bytes, int]) -> dict[bytes, bytes]:
    return {key: key + bytes(size) for key, size in sizes.items()}


def opened(listing: Listing, size_max: int) -> list[bytes]:
    """What a puller gets out of it."""
    items = unpack_list(listing.root, size_max)
    if not is_index(items):
        return items
    pages = {digest(page): page for page in listing.pages}
    return [entry for name in items for entry in unpack_list(pages[name], size_max)]


@given(ENTRIES, st.sampled_from([2_000, 4_000, 100_000]))
def test_a_long_list_is_the_sum_of_its_pages(sizes: dict[bytes, int], size_max: int) -> None:
    entries = entries_of(sizes)
    listing = Listing.of(entries, size_max)
    assert sorted(opened(listing, size_max)) == sorted(entries.values())
    assert bool(listing.pages) == (len(pack_list(list(entries.values()))) > size_max)
    backwards = dict(reversed(entries.items()))
    assert Listing.of(backwards, size_max) == listing, "equal sets have one name"


def test_one_more_entry_changes_one_page() -> None:
    entries = {n.to_bytes(16, "big"): n.to_bytes(40, "big") for n in range(100)}
    before = Listing.of(entries, 1_000)
    after = Listing.of({**entries, b"n" * 16: b"n" * 40}, 1_000)
    assert len(before.pages) > 4
    assert len(set(after.pages) - set(before.pages)) == 1


def test_what_does_not_fit_is_left_out_and_the_rest_is_passed_on() -> None:
    entries = {n.to_bytes(16, "big"): n.to_bytes(100, "big") for n in range(6_000)}
    listing = Listing.of(entries, 1_000)
    assert len(listing.pages) == 2**PAGE_BITS_MAX
    assert all(len(page) <= 1_000 for page in listing.pages)
    assert 2**PAGE_BITS_MAX * 5 < len(opened(listing, 10_000)) < 6_000


def fleet(devices: int, puppets: int = 0) -> tuple[Table, list[Device], list[Puppet]]:
    table = Table(n=devices + puppets, limits=SHORT)
    nodes = [table.device() for _ in range(devices)]
    others = [table.puppet() for _ in range(puppets)]
    for puppet in others:
        puppet.publish()
    table.introduce()
    table.employ()
    return table, nodes, others


def listed(device: Device, what: str) -> bytes | None:
    """Digest of the list that its newest head names."""
    refs = device.node._core.own.refs
    name: bytes | None = getattr(refs, what) if refs is not None else None
    return name


def test_revocations_spread_however_many_there_are() -> None:
    """Above the size of one object nobody could fetch them, and who passed them on was blamed."""
    table, (a, b), _ = fleet(2)
    for n in range(40):
        gone = n.to_bytes(16, "big")
        table.send(a, RevocationReceived(table.fleet.revoke(gone, "lost", tls=(gone * 2,))))
    table.until(lambda: len(b.node.view().revoked) == 40, 300.0)
    late = table.device()
    table.introduce()
    table.until(lambda: len(late.node.view().revoked) == 40, 300.0)
    assert all(late.node.refused(n.to_bytes(16, "big") * 2) for n in range(40))
    table.until(lambda: len({listed(d, "revocations") for d in table.devices}) == 1, 300.0)
    assert [
        d.faults(other) for d in table.devices for other in table.devices if d is not other
    ] == [{} for _ in range(6)]


def test_a_further_revocation_costs_an_index_and_a_page() -> None:
    table, (a, b), _ = fleet(2)
    for n in range(40):
        table.send(a, RevocationReceived(table.fleet.revoke(n.to_bytes(16, "big"), "lost")))
    table.until(lambda: listed(a, "revocations") == listed(b, "revocations") is not None, 300.0)
    table.advance(60.0)
    before = len(b.sent(FetchObject))
    table.send(a, RevocationReceived(table.fleet.revoke(b"n" * 16, "lost")))
    table.until(lambda: len(b.node.view().revoked) == 41, 60.0)
    lists = [f for f in b.sent(FetchObject)[before:] if f.bytes_max == SHORT.list_bytes]
    assert len(lists) == 2


def test_proofs_spread_however_many_there_are() -> None:
    table, (a, b), liars = fleet(2, puppets=8)
    for liar in liars:
        table.until(lambda liar=liar: (p := a.peer(liar)) and p.seq == 1, 60.0)  # type: ignore[misc]
    proofs = [proof(liar, n) for n, liar in enumerate(liars)]
    assert len(pack_list(proofs)) > SHORT.list_bytes
    for n in range(0, len(proofs), 2):
        data = pack_list(proofs[n : n + 2])
        bringer = table.puppet()
        bringer.publish(evidence=bringer.hold(data))
        table.introduce(bringer)
        table.until(lambda n=n: a.node.view().evidence >= n + 2, 120.0)  # type: ignore[misc]
    table.until(lambda: b.node.view().evidence == 8, 300.0)
    table.until(lambda: listed(a, "evidence") == listed(b, "evidence"), 300.0)
    assert a.faults(b) == b.faults(a) == {}


def proof(liar: Puppet, salt: int) -> bytes:
    heads = [
        liar.sign(liar.compose(seq=9, prev=b"p" * 32, capability=f"{salt} {n}")) for n in (1, 2)
    ]
    return encode(Evidence(EvidenceKind.EQUAL_SEQ, heads[0], heads[1], liar.keys.member))


def test_two_proofs_of_one_fault_end_as_one_everywhere() -> None:
    """Each half of a fleet met another one: else their lists would differ for ever."""
    table, (a, b), (liar, x, y) = fleet(2, puppets=3)
    x.publish(evidence=x.hold(pack_list([proof(liar, 1)])))
    y.publish(evidence=y.hold(pack_list([proof(liar, 2)])))
    table.until(lambda: listed(a, "evidence") == listed(b, "evidence") is not None, 300.0)
    assert a.node.view().evidence == b.node.view().evidence == 1


@pytest.mark.parametrize("field", ["revocations", "evidence"])
@pytest.mark.parametrize("bad", ["pages of pages", "too many pages", "a bad page"])
def test_a_bad_index_costs_its_lister(field: str, bad: str) -> None:
    table, (a,), (x,) = fleet(1, puppets=1)
    index = pack_list([x.hold(pack_list([bytes(32)]))])
    if bad == "too many pages":
        a.node._core.limits = replace(SHORT, list_bytes=64 * 1024)
        index = pack_list([n.to_bytes(32, "big") for n in range(2**PAGE_BITS_MAX + 1)])
    elif bad == "a bad page":
        index = pack_list([x.hold(pack_list([b"rubbish" * 9]))])
    fields: dict[str, Any] = {field: x.hold(index)}
    x.publish(**fields)
    table.until(lambda: a.faults(x), 60.0)
    assert set(a.faults(x)) <= {Fault.MALFORMED.value, Fault.BAD_EVIDENCE.value}


def test_an_index_that_a_liar_names_as_a_page_is_still_read_from_others() -> None:
    """The honest list was refused for good, whoever had it: revocations could be kept away."""
    table, (a,), (x,) = fleet(1, puppets=1)
    for n in range(40):
        gone = n.to_bytes(16, "big")
        table.send(a, RevocationReceived(table.fleet.revoke(gone, "lost", tls=(gone * 2,))))
    theirs = a.node._core.roster.listing()
    assert theirs is not None
    assert theirs.pages
    x.publish(revocations=x.hold(pack_list([x.hold(theirs.root)])))
    late = table.device()
    table.introduce(x)
    table.until(lambda: late.faults(x), 60.0)
    assert not late.node.view().revoked
    table.introduce(a)
    table.until(lambda: len(late.node.view().revoked) == 40, 300.0)


@pytest.mark.parametrize("field", ["revocations", "evidence"])
def test_a_peer_that_names_another_list_with_each_head_is_asked_for_few(field: str) -> None:
    table, (a,), (x,) = fleet(1, puppets=1)
    table.advance(60.0)
    entry = table.fleet.revoke(b"g" * 16, "lost") if field == "revocations" else proof(x, 1)
    before, began = len(a.sent(FetchObject)), table.now
    for n in range(60):
        pages = [n.to_bytes(31, "big") + bytes([k]) for k in range(20)]
        named = pack_list(pages) if n % 2 else pack_list([entry, bytes([n]) * 40])
        fields: dict[str, Any] = {field: x.hold(named)}
        x.publish(**fields)
        table.advance(2.0)
    rounds = (table.now - began) / (table.pace.round_interval_s * (1 - table.pace.round_jitter))
    most = SHORT.evidence_fetches_per_round + SHORT.pages_per_round
    lists = [f for f in a.sent(FetchObject)[before:] if f.bytes_max == SHORT.list_bytes]
    assert 1 <= len(lists) <= (rounds + 2) * most


def test_one_devices_fault_listed_in_many_ways_is_the_listers_fault() -> None:
    """A liar can sign any number of proofs against itself; each would be verified."""
    table, (a,), (x, liar) = fleet(1, puppets=2)
    x.publish(evidence=x.hold(pack_list([proof(liar, n) for n in range(3)])))
    table.until(lambda: a.faults(x), 60.0)
    assert a.faults(x) == {Fault.BAD_EVIDENCE.value: 1}
