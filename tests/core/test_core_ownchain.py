"""Our own chains: numbering, chapters, restore; the shelf; how long history is kept."""

from __future__ import annotations

import pytest
from harness import fault_of
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.config import Limits
from gossipfl.errors import Fault, LocalError
from gossipfl.identity import Signer
from gossipfl.messages import ChainRef, Head, Lineage, Receipt
from gossipfl.objects import digest, unpack_chapter
from gossipfl.ownchain import ChapterLog, Link, OwnChain, Refs
from gossipfl.retention import Closed, Retention
from gossipfl.shelf import SMALL_BYTES, SMALL_MAX, Served, Shelf
from gossipfl.wire import check_signature, decode, open_envelope

FLEET, MEMBER = b"f" * 32, b"m" * 32
SIGNER = Signer(b"\x05" * 32)
LIMITS = Limits()


def own(limits: Limits = LIMITS) -> OwnChain:
    return OwnChain(SIGNER, FLEET, limits)


def read(envelope: bytes) -> Head:
    opened = open_envelope(envelope, "head", LIMITS.head_bytes)
    check_signature(opened)
    return decode(opened.payload, Head)


def grow(chain: OwnChain, count: int) -> list[tuple[Link, bytes]]:
    """So many heads composed and made durable; with each the chapter that it completed."""
    made = []
    for _ in range(count):
        refs = Refs(MEMBER, capability=str(chain.seq % 7))
        link, log, chapter = chain.compose(refs, 100)
        chain.adopt(link, refs, log)
        made.append((link, chapter))
    return made


def receipt(number: int = 1) -> Receipt:
    return Receipt(
        FLEET, SIGNER.device, number, 3, Lineage(b"b" * 32, 0, b"l" * 32), b"z" * 32, "nna", 1, 5
    )


# --- heads ---------------------------------------------------------------------------------------


def test_heads_are_numbered_chained_and_signed() -> None:
    links = [link for link, _ in grow(own(), 5)]
    heads = [read(link.envelope) for link in links]
    assert [head.seq for head in heads] == [1, 2, 3, 4, 5]
    assert [head.prev for head in heads] == [None, *(link.digest for link in links[:-1])]
    assert {(head.device, head.fleet, head.member) for head in heads} == {
        (SIGNER.device, FLEET, MEMBER)
    }
    assert all(digest(link.envelope) == link.digest for link in links)


def test_composing_alone_changes_nothing() -> None:
    """What was not stored never was: the number is free again."""
    chain = own()
    one, _, _ = chain.compose(Refs(MEMBER, capability="a"), 1)
    two, _, _ = chain.compose(Refs(MEMBER, capability="b"), 1)
    assert one.number == two.number == 1
    assert chain.seq == 0


def test_an_own_head_above_the_limit_is_our_own_bug() -> None:
    chain = own(Limits(head_bytes=200))
    with pytest.raises(LocalError, match="own head"):
        chain.compose(Refs(MEMBER), 1)


def test_restored_numbering_goes_on_from_the_durable_head() -> None:
    before, after = own(), own()
    links = grow(before, 7)
    head = after.restore(links[-1][0].envelope)
    assert head.seq == 7
    link, _, _ = after.compose(Refs(MEMBER), 1)
    again = read(link.envelope)
    assert (again.seq, again.prev) == (8, links[-1][0].digest)


def test_a_restored_device_leaves_numbers_out() -> None:
    chain = own()
    grow(chain, 2)
    chain.skip = 1_000
    [(link, _)] = grow(chain, 1)
    assert link.number == 1_003
    [(link, _)] = grow(chain, 1)
    assert link.number == 1_004, "once"


def test_a_head_of_another_key_is_never_taken_for_our_own() -> None:
    other = OwnChain(Signer(b"\x06" * 32), FLEET, LIMITS)
    [(link, _)] = grow(other, 1)
    with pytest.raises(LocalError, match="another key"):
        own().restore(link.envelope)


def test_a_damaged_own_head_is_refused() -> None:
    [(link, _)] = grow(own(), 1)
    assert fault_of(own().restore, link.envelope[:-1]) is Fault.MALFORMED


# --- receipts ------------------------------------------------------------------------------------


def test_receipts_are_chained_whatever_number_they_come_with() -> None:
    chain = own()
    links = [chain.receipt(receipt(99))[0] for _ in range(3)]
    read_back = [
        decode(open_envelope(link.envelope, "receipt", 65_536).payload, Receipt) for link in links
    ]
    assert [r.number for r in read_back] == [1, 2, 3]
    assert [r.prev for r in read_back] == [None, links[0].digest, links[1].digest]
    assert chain.receipts == ChainRef(3, links[2].digest)


def test_receipts_go_on_from_what_the_durable_head_names() -> None:
    chain, again = own(), own()
    link, _ = chain.receipt(receipt())
    refs = Refs(MEMBER, receipts=chain.receipts)
    head, log, _ = chain.compose(refs, 1)
    chain.adopt(head, refs, log)
    again.restore(head.envelope)
    after, _ = again.receipt(receipt())
    assert after.number == 2
    assert again.receipts == ChainRef(2, after.digest)
    assert link.digest != after.digest


# --- chapters ------------------------------------------------------------------------------------


def test_a_chapter_closes_every_256_links() -> None:
    made = grow(own(), 1_030)
    chapters = [(n, unpack_chapter(data, LIMITS), data) for n, (_, data) in enumerate(made) if data]
    assert [n + 1 for n, _, _ in chapters] == [256, 512, 768, 1_024]
    names = [link.digest for link, _ in made]
    for index, (_, chapter, _) in enumerate(chapters):
        assert (chapter.device, chapter.chain) == (SIGNER.device, "head")
        assert chapter.first == 256 * index + 1
        assert chapter.digests == names[256 * index : 256 * (index + 1)]
        before = digest(chapters[index - 1][2]) if index else None
        assert chapter.prev == before
    last = read(made[-1][0].envelope)
    assert last.head_chapter == digest(chapters[-1][2]), "heads name the newest one"


def test_receipts_have_chapters_of_their_own() -> None:
    chain = own(Limits(chapter=4))
    chapters = [chain.receipt(receipt())[1] for _ in range(9)]
    closed = [unpack_chapter(data, LIMITS) for data in chapters if data]
    assert [(c.chain, c.first, len(c.digests)) for c in closed] == [
        ("receipt", 1, 4),
        ("receipt", 5, 4),
    ]


def test_chapters_go_on_over_a_restart() -> None:
    limits = Limits(chapter=4)
    before, after = own(limits), own(limits)
    made = grow(before, 6)
    after.restore(made[-1][0].envelope)
    after.load_logs(before.dump_logs(None))
    made += grow(after, 2)
    closed = [unpack_chapter(data, LIMITS) for _, data in made if data]
    assert [(c.first, c.digests) for c in closed] == [
        (1, [link.digest for link, _ in made[:4]]),
        (5, [link.digest for link, _ in made[4:]]),
    ]


def test_a_chapter_never_spans_numbers_that_were_left_out() -> None:
    chain = own(Limits(chapter=4))
    made = grow(chain, 3)
    chain.skip = 100
    made += grow(chain, 4)
    closed = [unpack_chapter(data, LIMITS) for _, data in made if data]
    assert [(c.first, c.digests) for c in closed] == [(104, [link.digest for link, _ in made[3:]])]


@given(st.lists(st.integers(1, 3), min_size=1, max_size=60), st.integers(2, 5))
def test_chapters_hold_consecutive_numbers(steps: list[int], size: int) -> None:
    log, number = ChapterLog("head"), 0
    numbers: dict[bytes, int] = {}
    for step in steps:
        number += step
        name = digest(str(number).encode())
        numbers[name] = number
        log, data = log.after(number, name, SIGNER.device, size)
        if data:
            chapter = unpack_chapter(data, LIMITS)
            held = [numbers[name] for name in chapter.digests]
            assert held == list(range(chapter.first, chapter.first + size))


# --- the shelf -----------------------------------------------------------------------------------


def served(n: int, **more: bytes) -> Served:
    return Served(b"envelope %d" % n, digest(b"%d" % n), MEMBER, **more)


def test_only_an_own_head_wakes_those_who_wait() -> None:
    shelf = Shelf(10_000, 3)
    shelf.set_head(b"p" * 16, served(1))
    assert shelf.version == 0
    shelf.set_own(b"o" * 16, served(2))
    assert shelf.version == 1
    assert shelf.head(None) == shelf.head(b"o" * 16) == served(2)


def test_heads_are_bounded() -> None:
    shelf = Shelf(10_000, 3)
    for n in range(10):
        shelf.set_head(bytes([n]) * 16, served(n))
    assert [shelf.head(bytes([n]) * 16) is not None for n in range(10)] == [False] * 7 + [True] * 3


def test_a_flood_of_heads_does_not_take_our_own_off_the_shelf() -> None:
    shelf = Shelf(10_000, 3)
    shelf.set_own(b"o" * 16, served(0))
    for n in range(10):
        shelf.set_head(bytes([n]) * 16, served(n))
    assert shelf.head(None) == served(0)


def test_objects_are_bounded_and_the_least_used_go_first() -> None:
    shelf = Shelf(3 * (SMALL_BYTES + 1), 3)
    big = [bytes([n]) * (SMALL_BYTES + 1) for n in range(4)]
    for data in big[:3]:
        shelf.put(digest(data), data)
    assert shelf.object(digest(big[0])) == big[0]
    shelf.put(digest(big[3]), big[3])
    held = [shelf.object(digest(data)) is not None for data in big]
    assert held == [True, False, True, True]


def test_one_object_above_the_whole_bound_is_not_kept() -> None:
    shelf = Shelf(10_000, 3)
    data = bytes(10_001)
    shelf.put(digest(data), data)
    assert shelf.object(digest(data)) is None


def test_small_objects_have_a_bound_of_their_own() -> None:
    shelf = Shelf(10_000, 3)
    for n in range(SMALL_MAX + 10):
        shelf.put(n.to_bytes(32, "big"), b"x")
    assert shelf.object((0).to_bytes(32, "big")) is None
    assert shelf.object((SMALL_MAX + 9).to_bytes(32, "big")) == b"x"


def test_pinned_objects_stay_until_they_are_let_go() -> None:
    shelf = Shelf(2 * SMALL_BYTES, 3)
    mine = b"m" * (SMALL_BYTES + 1)
    shelf.pin(digest(mine), mine)
    for n in range(20):
        data = bytes([n]) * (SMALL_BYTES + 1)
        shelf.put(digest(data), data)
    assert shelf.object(digest(mine)) == mine
    shelf.unpin(digest(mine))
    assert shelf.object(digest(mine)) is None


# --- retention -----------------------------------------------------------------------------------


def closed(n: int, at: int, chain: str = "head") -> Closed:
    return Closed(chain, 256 * n + 1, 256 * (n + 1), bytes([n]) * 32, at)


def test_history_leaves_when_it_is_too_old_but_for_the_newest_chapter() -> None:
    held = Retention(history_s=100, history_links=10**9)
    for n in range(3):
        held.close(closed(n, at=10 * n))
    assert held.expired("head", 100) is None
    gone = held.expired("head", 111)
    assert gone is not None
    assert (gone.below, gone.chapters) == (513, (bytes([0]) * 32, bytes([1]) * 32))
    assert held.expired("head", 10**9) is None, "the newest one stays"


def test_history_leaves_when_it_is_too_long() -> None:
    held = Retention(history_s=10**9, history_links=512)
    for n in range(3):
        held.close(closed(n, at=0))
    gone = held.expired("head", 0)
    assert gone is not None
    assert (gone.below, gone.chapters) == (257, (bytes([0]) * 32,))


def test_the_two_chains_age_apart() -> None:
    held = Retention(history_s=100, history_links=10**9)
    held.close(closed(0, 0))
    held.close(closed(1, 0))
    held.close(closed(0, 0, "receipt"))
    assert held.expired("receipt", 1_000) is None
    assert held.expired("head", 1_000) is not None


def test_retention_survives_a_restart() -> None:
    held, again = Retention(100, 10**9), Retention(100, 10**9)
    held.close(closed(0, 0))
    held.close(closed(1, 0))
    again.load(held.dump())
    assert again.expired("head", 1_000) == held.expired("head", 1_000)
