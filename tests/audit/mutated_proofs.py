"""Mutated proofs, of which none may be believed: `python -m tests.audit.mutated_proofs [COUNT]`.

Each case makes a random tree, a right proof of inclusion or consistency, and changes one thing in
the statement or in the proof: a bit, a hash dropped, doubled, swapped or brought from elsewhere, an
index, a size, a root, a leaf. Prints how many cases there were and how many were believed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence

from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tiles import Edge, TiledNodes, levels_of, tiles_of
from gossipfl.audit.tree import (
    CompactRange,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
    verify_consistency,
    verify_inclusion,
)

SIZE_MAX = 600  # two tile levels; proofs of one to ten hashes

Statement = tuple[int, int, bytes, bytes, list[bytes]]
"""Inclusion: index, size, leaf, root, proof. Consistency: old, new, old root, new root, proof."""


class Trees:
    """All trees of up to SIZE_MAX leaves, with their roots and tiles."""

    def __init__(self) -> None:
        self.leaves = [leaf_hash(b"%d" % n) for n in range(SIZE_MAX)]
        tree, self.roots = CompactRange(), [CompactRange().root()]
        for leaf in self.leaves:
            tree = tree.extended([leaf])
            self.roots.append(tree.root())
        self._tiles = {t.full: d for t, d in Edge().extended(self.leaves).tiles.items()}

    def nodes(self, size: int) -> TiledNodes:
        held = {
            tile: self._tiles[tile.full][: 32 * tile.width]
            for level in range(levels_of(size))
            for tile in tiles_of(size, level)
        }
        return TiledNodes(size, held)

    def inclusion(self, entropy: random.Random) -> Statement:
        size = entropy.randint(1, SIZE_MAX)
        index = entropy.randrange(size)
        proof = prove_inclusion(index, size, self.nodes(size))
        return index, size, self.leaves[index], self.roots[size], proof

    def consistency(self, entropy: random.Random) -> Statement:
        new = entropy.randint(2, SIZE_MAX)
        old = entropy.randint(1, new - 1)
        proof = prove_consistency(old, new, self.nodes(new))
        return old, new, self.roots[old], self.roots[new], proof


def _flipped(value: bytes, entropy: random.Random) -> bytes:
    place = entropy.randrange(len(value) * 8)
    hurt = bytearray(value)
    hurt[place // 8] ^= 1 << place % 8
    return bytes(hurt)


def _number(value: int, entropy: random.Random) -> int:
    far = [value + 1, value - 1, value * 2, value // 2, value ^ 1 << entropy.randrange(64), -value]
    return entropy.choice(far)


def mutated(given: Statement, strange: Sequence[bytes], entropy: random.Random) -> Statement:
    """The statement with one thing changed; it may come out as it was. `strange`: other hashes."""
    small, large, first, second, proof = given
    path = list(proof)
    kind = entropy.randrange(11)
    if kind < 4 and path:
        place = entropy.randrange(len(path))
        path[place] = _flipped(path[place], entropy)
    elif kind == 4 and path:
        path.pop(entropy.randrange(len(path)))
    elif kind == 5:
        extra = entropy.choice([*path, *strange, first, second])
        path.insert(entropy.randint(0, len(path)), extra)
    elif kind == 6 and path:
        path[entropy.randrange(len(path))] = entropy.choice(strange)
    elif kind == 7 and len(path) > 1:
        here, there = entropy.sample(range(len(path)), 2)
        path[here], path[there] = path[there], path[here]
    elif kind == 8:
        small = _number(small, entropy)
    elif kind == 9:
        first = entropy.choice([_flipped(first, entropy), second, entropy.choice(strange)])
    else:
        second = entropy.choice([_flipped(second, entropy), first, entropy.choice(strange)])
    return small, large, first, second, path


def _believed(check: Callable[..., None], claim: Statement) -> bool:
    small, large, first, second, proof = claim
    try:
        if check is verify_inclusion:
            check(small, large, first, proof, second)
        else:
            check(small, large, first, second, proof)
    except AuditRefused:
        return False
    return True


def play(count: int, seed: int) -> tuple[int, list[Statement]]:
    """(cases that differed from the truth, those of them that were believed)."""
    entropy = random.Random(f"mutated proofs {seed}")
    trees = Trees()
    cases, wrong = 0, []
    while cases < count:
        inclusion = entropy.random() < 0.5
        given = trees.inclusion(entropy) if inclusion else trees.consistency(entropy)
        check: Callable[..., None] = verify_inclusion if inclusion else verify_consistency
        if not _believed(check, given):
            raise RuntimeError(f"a right proof was refused: {given}")
        strange = [entropy.choice(trees.leaves), entropy.choice(trees.roots), entropy.randbytes(32)]
        for _ in range(min(50, count - cases)):  # of one proof, because making it is the dear part
            claim = mutated(given, strange, entropy)
            if claim != given:
                cases += 1
                if _believed(check, claim):
                    wrong.append(claim)
    return cases, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    cases, wrong = play(args.count, args.seed)
    found = {"cases": cases, "believed": len(wrong), "seed": args.seed}
    sys.stdout.write(json.dumps(found) + "\n")
    for claim in wrong[:3]:
        sys.stdout.write(f"{claim}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
