"""The tree: known roots of RFC 6962, every proof of small trees, and refusal of what is not one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tree import (
    EMPTY_ROOT,
    CompactRange,
    Node,
    consistency_ranges,
    inclusion_ranges,
    leaf_hash,
    node_hash,
    nodes_of,
    prove_consistency,
    prove_inclusion,
    root_of,
    verify_consistency,
    verify_growth,
    verify_inclusion,
)

# The leaves and the roots of 1 to 8 of them that Certificate Transparency's code has used since
# 2013 (certificate-transparency/cpp/merkletree/merkle_tree_test.cc; transparency-dev/merkle).
LEAVES = [bytes.fromhex(x) for x in ("", "00", "10", "2021", "3031", "40414243")] + [
    bytes(range(0x50, 0x58)),
    bytes(range(0x60, 0x70)),
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


class Whole:
    """Every node of a tree, from its leaf hashes."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = list(leaves)

    def hash_of(self, node: Node) -> bytes:
        if node.level == 0:
            return self.leaves[node.index]
        below = node.level - 1
        left, right = Node(below, 2 * node.index), Node(below, 2 * node.index + 1)
        return node_hash(self.hash_of(left), self.hash_of(right))


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


HASHES = [leaf_hash(b"%d" % n) for n in range(66)]


def test_the_known_roots() -> None:
    tree = CompactRange()
    assert tree.root() == EMPTY_ROOT == hashlib.sha256().digest()
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        tree = tree.extended([leaf_hash(leaf)])
        assert tree.root().hex() == root


def test_a_root_is_the_same_however_it_is_made() -> None:
    for size in range(len(HASHES)):
        want = naive_root(HASHES[:size])
        assert CompactRange().extended(HASHES[:size]).root() == want
        assert root_of(size, Whole(HASHES)) == want


def test_every_inclusion_proof_of_small_trees_holds_and_only_for_its_leaf() -> None:
    for size in range(1, 34):
        root = naive_root(HASHES[:size])
        for index in range(size):
            proof = prove_inclusion(index, size, Whole(HASHES))
            verify_inclusion(index, size, HASHES[index], proof, root)
            for other in range(size):
                if other != index:
                    with pytest.raises(AuditRefused):
                        verify_inclusion(other, size, HASHES[index], proof, root)


def test_every_consistency_proof_of_small_trees_holds_and_only_between_its_sizes() -> None:
    roots = [naive_root(HASHES[:size]) for size in range(34)]
    for new in range(1, 34):
        for old in range(1, new + 1):
            proof = prove_consistency(old, new, Whole(HASHES))
            verify_consistency(old, new, roots[old], roots[new], proof)
            for other in range(1, new):
                if other != old:
                    with pytest.raises(AuditRefused):
                        verify_consistency(other, new, roots[old], roots[new], proof)


def test_a_log_may_begin_empty() -> None:
    root = naive_root(HASHES[:5])
    verify_growth(0, 5, EMPTY_ROOT, root, [])
    verify_growth(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    verify_growth(3, 5, naive_root(HASHES[:3]), root, prove_consistency(3, 5, Whole(HASHES)))
    for old_root, new, new_root, proof in (
        (root, 5, root, []),
        (EMPTY_ROOT, 0, root, []),
        (EMPTY_ROOT, 5, root, [root]),
    ):
        with pytest.raises(AuditRefused):
            verify_growth(0, new, old_root, new_root, proof)


def test_a_tree_that_was_rewritten_does_not_begin_with_the_old_one() -> None:
    for old in range(1, 20):
        for new in range(old + 1, 30):
            for place in range(old):
                leaves = list(HASHES[:new])
                leaves[place] = leaf_hash(b"another history")
                proof = prove_consistency(old, new, Whole(leaves))
                with pytest.raises(AuditRefused):
                    verify_consistency(
                        old, new, naive_root(HASHES[:old]), naive_root(leaves), proof
                    )


@given(st.data())
def test_one_changed_bit_of_a_proof_is_refused(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 66))
    old = data.draw(st.integers(1, new - 1))
    index = data.draw(st.integers(0, new - 1))
    root = naive_root(HASHES[:new])
    for proof, check in (
        (
            prove_inclusion(index, new, Whole(HASHES)),
            lambda p: verify_inclusion(index, new, HASHES[index], p, root),
        ),
        (
            prove_consistency(old, new, Whole(HASHES)),
            lambda p: verify_consistency(old, new, naive_root(HASHES[:old]), root, p),
        ),
    ):
        place = data.draw(st.integers(0, len(proof) * 256 - 1))
        hurt = list(proof)
        row = bytearray(hurt[place // 256])
        row[place % 256 // 8] ^= 1 << place % 8
        hurt[place // 256] = bytes(row)
        with pytest.raises(AuditRefused):
            check(hurt)
        with pytest.raises(AuditRefused):
            check([*proof, proof[-1]])
        with pytest.raises(AuditRefused):
            check(proof[:-1])


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0), (0, 2**63), (2**70, 2**71)])
def test_leaves_that_do_not_exist_are_refused(index: int, size: int) -> None:
    with pytest.raises(AuditRefused):
        verify_inclusion(index, size, HASHES[0], [], HASHES[0])
    with pytest.raises(AuditRefused):
        inclusion_ranges(index, size)


@pytest.mark.parametrize(("old", "new"), [(-1, 4), (0, 0), (0, 4), (5, 4), (1, 2**63)])
def test_sizes_that_cannot_follow_each_other_are_refused(old: int, new: int) -> None:
    with pytest.raises(AuditRefused):
        verify_consistency(old, new, HASHES[0], HASHES[0], [])
    with pytest.raises(AuditRefused):
        consistency_ranges(old, new)


def test_hashes_of_another_length_and_endless_proofs_are_refused() -> None:
    root = naive_root(HASHES[:2])
    with pytest.raises(AuditRefused, match="32 bytes"):
        verify_inclusion(0, 2, HASHES[0], [HASHES[1][:31]], root)
    with pytest.raises(AuditRefused, match="32 bytes"):
        verify_inclusion(0, 2, HASHES[0] + b"\x00", [HASHES[1]], root)
    with pytest.raises(AuditRefused, match="at most"):
        verify_inclusion(0, 2, HASHES[0], [HASHES[1]] * 65, root)
    with pytest.raises(AuditRefused, match="at most"):
        verify_consistency(1, 2, HASHES[0], root, [HASHES[1]] * 65)
    with pytest.raises(AuditRefused):
        CompactRange(2, (HASHES[0], HASHES[1]))


def test_a_proof_of_the_largest_tree_is_within_the_bound() -> None:
    size = 2**63 - 1
    assert max(len(inclusion_ranges(i, size)) for i in (0, 1, size - 1)) <= 64
    assert len(consistency_ranges(size // 3, size)) <= 64
    assert len(nodes_of(inclusion_ranges(0, size))) < 64 * 64
