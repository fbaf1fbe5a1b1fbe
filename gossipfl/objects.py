"""Content-addressed objects: digests, kinds with their bounds, and containers of signed things.

An object is named by the SHA-256 of its bytes, so who serves it does not matter. A member object
is `[envelope, issuer's envelope or nil]`, so it proves itself from the root key alone; policies
and revocations are `[envelope, signer's member object]` for the same reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gossipfl.config import Limits
from gossipfl.errors import Fault, PeerError
from gossipfl.messages import Chapter
from gossipfl.wire import decode, encode, pack, unpack

DIGEST_BYTES = 32
PAGE_BITS_MAX = 8
"""A list has at most 256 pages of 512 KiB: 170,000 revocations, or 10,000 proofs of the largest
size. Far above `Limits.devices`; what does not fit is kept but not passed on."""
# RFC 8410: the DER prefix of an Ed25519 SubjectPublicKeyInfo. Prefix and raw key are the SPKI.
SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")


class Kind(StrEnum):
    MEMBER = "member"
    HEAD = "head"
    RECEIPT = "receipt"
    UPDATE = "update"
    POLICY = "policy"
    REVOCATIONS = "revocations"
    EVIDENCE = "evidence"
    PEERS = "peers"
    CHAPTER = "chapter"
    BUNDLE = "bundle"
    CHECKPOINT = "checkpoint"
    COSIGNATURE = "cosignature"


def bytes_max(kind: Kind, limits: Limits) -> int:
    """The most that an object of this kind may have; an update's is exact, from its lineage."""
    return {
        Kind.MEMBER: limits.member_bytes,
        Kind.HEAD: limits.head_bytes,
        Kind.RECEIPT: limits.entry_bytes,
        Kind.UPDATE: 2**32,
        Kind.POLICY: limits.entry_bytes,
        Kind.REVOCATIONS: limits.list_bytes,
        Kind.EVIDENCE: limits.list_bytes,
        Kind.PEERS: limits.peers_bytes,
        Kind.CHAPTER: limits.chapter_bytes,
        Kind.BUNDLE: limits.bundle_bytes,
        Kind.CHECKPOINT: limits.checkpoint_bytes,
        Kind.COSIGNATURE: limits.member_bytes,
    }[kind]


def digest(data: bytes | memoryview) -> bytes:
    """SHA-256: an object's name."""
    return hashlib.sha256(data).digest()


def spki_digest(key: bytes) -> bytes:
    """SHA-256 of the Ed25519 SubjectPublicKeyInfo of a raw 32-byte key (TLS pin, fleet id)."""
    return hashlib.sha256(SPKI_PREFIX + key).digest()


def fleet_of(root_key: bytes) -> bytes:
    """The fleet id: the SPKI digest of its root key, as an invitation pins it."""
    return spki_digest(root_key)


@dataclass(frozen=True, slots=True)
class MemberObject:
    envelope: bytes
    issuer: bytes | None  # the issuer's own member envelope; None: signed by the root itself


@dataclass(frozen=True, slots=True)
class Vouched:
    """A policy or revocation with the member object of who signed it."""

    envelope: bytes
    member: bytes


def pack_member(member: MemberObject) -> bytes:
    return pack([member.envelope, member.issuer])


def unpack_member(data: bytes, limits: Limits) -> MemberObject:
    match unpack(data, limits.member_bytes):
        case [bytes() as envelope, None]:
            member = MemberObject(envelope, None)
        case [bytes() as envelope, bytes() as issuer]:
            member = MemberObject(envelope, issuer)
        case _:
            what = "a member object is [envelope, issuer's envelope or nil]"
            raise PeerError(Fault.MALFORMED, what)
    _require_shortest(pack_member(member), data)
    return member


def pack_vouched(vouched: Vouched) -> bytes:
    return pack([vouched.envelope, vouched.member])


def unpack_vouched(data: bytes, limits: Limits) -> Vouched:
    match unpack(data, limits.entry_bytes):
        case [bytes() as envelope, bytes() as member]:
            vouched = Vouched(envelope, member)
        case _:
            raise PeerError(Fault.MALFORMED, "a vouched object is [envelope, member object]")
    _require_shortest(pack_vouched(vouched), data)
    return vouched


def _require_shortest(packed: bytes, data: bytes) -> None:
    """One meaning, one byte string: else a carrier could give one signed thing many digests."""
    if packed != data:
        raise PeerError(Fault.MALFORMED, "not in shortest msgpack form")


def pack_list(items: list[bytes]) -> bytes:
    return pack(items)


def unpack_list(data: bytes, size_max: int) -> list[bytes]:
    """A container of opaque parts (evidence, revocations, peers)."""
    items = unpack(data, size_max)
    if not (isinstance(items, list) and all(isinstance(item, bytes) for item in items)):
        raise PeerError(Fault.MALFORMED, "a list object is an array of byte strings")
    if len(set(items)) != len(items):
        # Copies of one valid entry would each be verified: a second of work for a liar's minute.
        raise PeerError(Fault.MALFORMED, "a list object names nothing twice")
    return items


@dataclass(frozen=True, slots=True)
class Listing:
    """A list object as heads name it. If it is long, `root` is an index: a list of the digests of
    `pages`, which are list objects. No entry has the length of a digest, so an index shows."""

    root: bytes
    pages: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, entries: Mapping[bytes, bytes], size_max: int) -> Listing:
        """Entries by key, in the order of their keys; equal sets give equal bytes.

        Pages go by the first bits of SHA-256(key), so that one more entry changes one page, and
        whoever holds the others fetches them no more.
        """
        whole = pack_list([entries[key] for key in sorted(entries)])
        if len(whole) <= size_max:
            return cls(whole)
        pages: list[bytes] = []
        for bits in range(1, PAGE_BITS_MAX + 1):
            parts: dict[int, list[bytes]] = {}
            for key in sorted(entries):
                parts.setdefault(digest(key)[0] >> (8 - bits), []).append(entries[key])
            pages = [_fitting(parts[number], size_max) for number in sorted(parts)]
            if all(len(pack_list(part)) <= size_max for part in parts.values()):
                break
        return cls(pack_list([digest(page) for page in pages]), tuple(pages))


def _fitting(items: list[bytes], size_max: int) -> bytes:
    """A list object of the first items that fit."""
    whole = pack_list(items)
    if len(whole) <= size_max:
        return whole
    count, size = 0, 5  # an array's header has at most 5 bytes, and so has a byte string's
    while count < len(items) and size + len(items[count]) + 5 <= size_max:
        size += len(items[count]) + 5
        count += 1
    return pack_list(items[:count])


def is_index(items: list[bytes]) -> bool:
    """Are these the digests of a list's pages?"""
    return bool(items) and all(len(item) == DIGEST_BYTES for item in items)


def pack_chapter(chapter: Chapter) -> bytes:
    return encode(chapter)


def unpack_chapter(data: bytes, limits: Limits) -> Chapter:
    return decode(data, Chapter, limits.chapter_bytes)
