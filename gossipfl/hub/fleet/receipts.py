"""One device's receipts, from where the log stands to its newest, oldest first, each verified.

Nothing is believed for who sends it: a receipt counts for its signature and for its place in a
chain whose end a signed head names. Few missing ones are walked back by `prev`; more are found by
chapters, 256 digests each, and then fetched from the oldest on.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from gossipfl.chains import open_receipt
from gossipfl.config import Limits
from gossipfl.errors import Fault, PeerError
from gossipfl.holdings import Neighbour
from gossipfl.messages import Marker, Receipt
from gossipfl.objects import digest, unpack_chapter, unpack_list
from gossipfl.wire import check_signature, decode, open_envelope

log = logging.getLogger(__name__)

CHAPTERS_MAX = 4_096
"""Chapters read back at once: a million receipts, a year at one in 30 s; 32 MiB of digests."""

Fetch = Callable[[bytes, int], Awaitable[bytes | None]]
"""(digest, most bytes) -> the object, its digest not checked; None: the device has it no more.
Raises PeerError for anything else that goes wrong."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a chain is in the log: its newest link there."""

    number: int = 0
    digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """One verified receipt."""

    receipt: Receipt
    digest: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers [first, end) that the device has no more. `marker`: it says so, signed."""

    first: int
    end: int
    marker: bytes | None


class Chain:
    """The receipts of one device that its head names."""

    def __init__(self, source: Neighbour, fetch: Fetch, limits: Limits) -> None:
        self._member = source.known.member
        self._head = source.head
        self._fetch = fetch
        self._limits = limits

    async def after(self, place: Place) -> AsyncIterator[Link | Gap]:
        """What follows `place`, in order. Raises PeerError where the chain does not hold.

        A first link whose number is not above `place` says that the chain was forked there.
        """
        ref = self._head.receipts if self._head is not None else None
        if ref is None or ref.digest == place.digest:
            return
        if ref.number - place.number > self._limits.chapter:
            async for item in self._by_chapters(place):
                yield item
                if isinstance(item, Link):
                    place = Place(item.receipt.number, item.digest)
                else:
                    place = Place(item.end - 1, None)
        for item in await self._by_links(place):
            yield item

    async def _by_chapters(self, place: Place) -> AsyncIterator[Link | Gap]:
        digests = await self._digests(place.number)
        for number in sorted(digests):
            if number <= place.number:
                continue
            if number > place.number + 1:
                yield await self._gap(place.number + 1, number)
                place = Place(number - 1, None)
            link = await self._link(digests[number])
            if link is None:
                return  # what is left is found by links, or said to be missing there
            self._require_next(link, place)
            yield link
            place = Place(number, link.digest)

    async def _digests(self, have: int) -> dict[int, bytes]:
        """Digests by number, from the chapters that reach down to `have`."""
        found: dict[int, bytes] = {}
        name = self._head.receipt_chapter if self._head is not None else None
        for _ in range(CHAPTERS_MAX):
            data = await self._object(name, self._limits.chapter_bytes) if name else None
            if data is None:
                break
            chapter = unpack_chapter(data, self._limits)
            if chapter.device != self._member.device or chapter.chain != "receipt":
                raise PeerError(Fault.WRONG_DEVICE, "a chapter of another chain")
            found |= {chapter.first + i: name for i, name in enumerate(chapter.digests)}
            if chapter.first <= have + 1:
                break
            name = chapter.prev
        return found

    async def _by_links(self, place: Place) -> list[Link | Gap]:
        """Walk back from the newest to `place`, or to where nothing is left."""
        ref = self._head.receipts if self._head is not None else None
        name = ref.digest if ref is not None else None
        links: list[Link] = []
        while name is not None and name != place.digest:
            if len(links) > 2 * self._limits.chapter:
                raise PeerError(Fault.WITHHELD_CHAIN, "more receipts than its chapters leave over")
            link = await self._link(name)
            if link is None:
                break
            if links and link.receipt.number != links[-1].receipt.number - 1:
                raise PeerError(Fault.MALFORMED, "receipts whose numbers do not follow each other")
            links.append(link)
            number = link.receipt.number
            if number <= place.number or (number == place.number + 1 and place.digest is None):
                break  # below `place` without having met it: the chain was forked
            name = link.receipt.prev
        if not links:
            raise PeerError(Fault.WITHHELD_CHAIN, "it does not hand out its newest receipt")
        links.reverse()
        first = links[0].receipt.number
        if first > place.number + 1:
            return [await self._gap(place.number + 1, first), *links]
        return list(links)

    def _require_next(self, link: Link, place: Place) -> None:
        if link.receipt.number != place.number + 1:
            raise PeerError(Fault.MALFORMED, "a chapter names receipts in another order")
        if place.digest is not None and link.receipt.prev != place.digest:
            raise PeerError(Fault.MALFORMED, f"receipt {link.receipt.number} follows another one")

    async def _gap(self, first: int, end: int) -> Gap:
        """Whether a signed marker says that these were let go."""
        pruned = self._head.pruned if self._head is not None else None
        data = await self._object(pruned, self._limits.list_bytes) if pruned else None
        for item in unpack_list(data, self._limits.list_bytes) if data is not None else []:
            envelope = open_envelope(item, "marker", self._limits.entry_bytes)
            if envelope.key_id != self._member.key:
                raise PeerError(Fault.WRONG_DEVICE, "a marker of another device")
            check_signature(envelope)
            marker = decode(envelope.payload, Marker, self._limits.entry_bytes)
            if marker.chain == "receipt" and marker.number >= end:
                return Gap(first, end, item)
        return Gap(first, end, None)

    async def _link(self, name: bytes) -> Link | None:
        data = await self._object(name, self._limits.entry_bytes)
        if data is None:
            return None
        return Link(open_receipt(data, self._member, self._limits), name, data)

    async def _object(self, name: bytes, most: int) -> bytes | None:
        data = await self._fetch(name, most)
        if data is not None and digest(data) != name:
            raise PeerError(Fault.WRONG_DIGEST, "an object of other bytes")
        return data
