"""The Merkle tree of RFC 6962 section 2.1 (verification as RFC 9162 section 2.1 writes it down).

Sizes and indexes count leaves from 0. A hash is 32 bytes of SHA-256: `0x00 || entry` for a leaf,
`0x01 || left || right` for a node, nothing for the empty tree. Proofs are lists of hashes, from the
leaf upward. Nothing here reads a store: what a proof needs is a list of `Node`s, whoever has them
(tiles, an export, a database) hands over a `Nodes`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gossipfl.audit.refused import AuditRefused

HASH_BYTES = 32
SIZE_MAX = 2**63 - 1  # C2SP tlog-checkpoint: sizes fit a signed 64-bit integer
PROOF_HASHES_MAX = 64  # no proof of a tree of that size has more


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """The root of the 2**level leaves that begin at index * 2**level."""

    level: int
    index: int


class Nodes(Protocol):
    """Where the hashes of complete subtrees come from."""

    def hash_of(self, node: Node) -> bytes:
        """32 bytes. Raises AuditRefused if it is not held."""
        ...


def leaf_hash(entry: bytes) -> bytes:
    """What stands for `entry` in the tree."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


EMPTY_ROOT = hashlib.sha256(b"").digest()


@dataclass(frozen=True, slots=True)
class CompactRange:
    """A tree known by the roots of its complete subtrees, largest first: enough to append.

    As many as `size` has bits set, so at most 63.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= SIZE_MAX:
            raise AuditRefused(f"a tree has 0 to 2**63 - 1 leaves, not {self.size}")
        if len(self.peaks) != self.size.bit_count():
            raise AuditRefused(f"{len(self.peaks)} subtrees do not make a tree of {self.size}")
        if any(len(peak) != HASH_BYTES for peak in self.peaks):
            raise AuditRefused("a hash has 32 bytes")

    def extended(self, leaves: Iterable[bytes]) -> CompactRange:
        """The tree with these leaf hashes appended."""
        size, peaks = self.size, list(self.peaks)
        for leaf in leaves:
            if len(leaf) != HASH_BYTES:
                raise AuditRefused("a hash has 32 bytes")
            carry, bits = leaf, size
            while bits & 1:
                carry = node_hash(peaks.pop(), carry)
                bits >>= 1
            peaks.append(carry)
            size += 1
        return CompactRange(size, tuple(peaks))

    def root(self) -> bytes:
        return fold(self.peaks)


def fold(peaks: Sequence[bytes]) -> bytes:
    """The root over neighbouring complete subtrees, largest first."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def complete_subtrees(first: int, end: int) -> list[Node]:
    """The largest complete subtrees that cover leaves [first, end), from left to right.

    `first` is a multiple of the largest power of two that fits (as in every range of a proof).
    """
    nodes = []
    while first < end:
        level = (end - first).bit_length() - 1
        nodes.append(Node(level, first >> level))
        first += 1 << level
    return nodes


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The [first, end) of each hash of the proof that leaf `index` is in a tree of `size`."""
    if not 0 <= index < size <= SIZE_MAX:
        raise AuditRefused(f"there is no leaf {index} in a tree of {size}")
    ranges = []
    first, end = 0, size
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((first, middle))
            first = middle
    return ranges[::-1]


def consistency_ranges(old: int, new: int) -> list[tuple[int, int]]:
    """The [first, end) of each hash of the proof that a tree of `new` begins with one of `old`."""
    _require_growth(old, new)
    if old == new:
        return []
    ranges = []
    first, end = 0, new
    whole = True  # is what is left of the old tree a complete subtree that the verifier knows?
    while old != end:
        middle = first + _split(end - first)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((first, middle))
            first, whole = middle, False
    if not whole:
        ranges.append((first, end))
    return ranges[::-1]


def nodes_of(ranges: Iterable[tuple[int, int]]) -> list[Node]:
    """Every node that must be read to hash these ranges."""
    return [node for first, end in ranges for node in complete_subtrees(first, end)]


def _prove(ranges: Iterable[tuple[int, int]], nodes: Nodes) -> list[bytes]:
    return [fold([nodes.hash_of(n) for n in complete_subtrees(*pair)]) for pair in ranges]


def prove_inclusion(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """RFC 6962 section 2.1.1: the audit path of leaf `index` in the tree of `size` leaves."""
    return _prove(inclusion_ranges(index, size), nodes)


def prove_consistency(old: int, new: int, nodes: Nodes) -> list[bytes]:
    """RFC 6962 section 2.1.2, for `old` of at least 1; empty between equal sizes."""
    return _prove(consistency_ranges(old, new), nodes)


def root_of(size: int, nodes: Nodes) -> bytes:
    """The root of the tree of the first `size` leaves."""
    return fold([nodes.hash_of(node) for node in complete_subtrees(0, size)])


def verify_inclusion(
    index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """RFC 9162 section 2.1.3.2. Raises AuditRefused unless leaf hash `leaf` is at `index`."""
    if not 0 <= index < size <= SIZE_MAX:
        raise AuditRefused(f"there is no leaf {index} in a tree of {size}")
    _require_hashes(leaf, root, *_bounded(proof))
    here, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise AuditRefused("the inclusion proof is too long")
        if here & 1 or here == last:
            found = node_hash(sibling, found)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        here, last = here >> 1, last >> 1
    if last:
        raise AuditRefused("the inclusion proof is too short")
    if found != root:
        raise AuditRefused(f"the inclusion proof of leaf {index} does not lead to the root")


def verify_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """RFC 9162 section 2.1.4.2. Raises AuditRefused unless the new tree begins with the old one.

    From an empty tree nothing is proven, so that is refused too: see `verify_growth`.
    """
    _require_growth(old, new)
    _require_hashes(old_root, new_root, *_bounded(proof))
    if old == new:
        if proof:
            raise AuditRefused("between equal sizes the consistency proof is empty")
        if old_root != new_root:
            raise AuditRefused(f"two roots for one tree of {old} leaves")
        return
    path = list(proof)
    if old & (old - 1) == 0:  # a power of two: its root is itself the first hash of the path
        path.insert(0, old_root)
    if not path:
        raise AuditRefused("the consistency proof is empty")
    here, last = old - 1, new - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    before = after = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise AuditRefused("the consistency proof is too long")
        if here & 1 or here == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        here, last = here >> 1, last >> 1
    if last:
        raise AuditRefused("the consistency proof is too short")
    if before != old_root or after != new_root:
        raise AuditRefused(f"the tree of {new} leaves does not begin with the tree of {old}")


def verify_growth(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """`verify_consistency` for a log's states, of which the first may be empty: then the root must
    be that of the empty tree, and the proof too is empty."""
    if old != 0:
        verify_consistency(old, new, old_root, new_root, proof)
    elif proof or old_root != EMPTY_ROOT or (new == 0 and new_root != EMPTY_ROOT):
        raise AuditRefused("an empty tree has one root, and a proof from it is empty")


def _require_growth(old: int, new: int) -> None:
    if not 1 <= old <= new <= SIZE_MAX:
        raise AuditRefused(f"no proof says that a tree of {new} leaves begins with one of {old}")


def _split(size: int) -> int:
    """The largest power of two below `size` (>= 2): RFC 6962's k."""
    return 1 << ((size - 1).bit_length() - 1)


def _bounded(proof: Sequence[bytes]) -> Sequence[bytes]:
    if len(proof) > PROOF_HASHES_MAX:
        raise AuditRefused(f"a proof has at most {PROOF_HASHES_MAX} hashes")
    return proof


def _require_hashes(*hashes: bytes) -> None:
    if any(not isinstance(value, bytes) or len(value) != HASH_BYTES for value in hashes):
        raise AuditRefused("a hash has 32 bytes")
