"""Others' head chains: forks become proofs, honest chains never do, and proofs stand alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
from harness import fault_of, flip
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipfl.chains import Chains, SeenHead, pack_evidence, verify_evidence
from gossipfl.config import Limits
from gossipfl.errors import Fault
from gossipfl.membership import Roster
from gossipfl.messages import Evidence, EvidenceKind, Head
from gossipfl.objects import digest
from gossipfl.wire import decode, encode, open_envelope, seal
from sim.fleet import EPOCH, Fleet, Keys

LIMITS = Limits()
FLEET = Fleet(21)
LIAR, OTHER = FLEET.admit(), FLEET.admit()
D = b"d" * 16


# --- unsigned chains: observe() takes heads that were verified before ----------------------------


def link(seq: int, prev: bytes | None, salt: str = "", device: bytes = D) -> SeenHead:
    """A head as chains see it; its digest stands for the envelope."""
    head = Head(b"f" * 32, device, seq, b"m" * 32, seq, prev)
    name = digest(f"{device.hex()} {seq} {salt}".encode() + (prev or b""))
    return SeenHead(head, name, name)


def chain(length: int, first: int = 1, prev: bytes | None = None, salt: str = "") -> list[SeenHead]:
    heads: list[SeenHead] = []
    for seq in range(first, first + length):
        heads.append(link(seq, heads[-1].digest if heads else prev, salt))
    return heads


def test_honest_chains_are_never_evidence_in_any_order() -> None:
    """20,000 histories: gaps, repeats, restores that skip numbers, any order, any bound K."""
    entropy = random.Random(5)
    for _ in range(20_000):
        heads: list[SeenHead] = []
        seq = 0
        for _ in range(entropy.randint(1, 12)):
            seq += 1 if entropy.random() < 0.9 else entropy.randint(2, 2**20)
            heads.append(link(seq, heads[-1].digest if heads else None))
        chains = Chains(Limits(chain=entropy.choice([1, 2, 3, 64])))
        for _ in range(entropy.randint(1, 20)):
            assert chains.observe(entropy.choice(heads), b"") is None


@settings(max_examples=500)
@given(st.lists(st.integers(0, 29), max_size=60), st.integers(1, 8))
def test_honest_chains_are_never_evidence(order: list[int], bound: int) -> None:
    heads = chain(30)
    chains = Chains(Limits(chain=bound))
    for index in order:
        assert chains.observe(heads[index], b"member") is None
        newest = chains.newest(D)
        assert newest is not None


@settings(max_examples=500)
@given(st.integers(1, 20), st.permutations(range(8)))
def test_a_fork_is_proven_by_any_two_heads_that_meet(at: int, order: list[int]) -> None:
    """Heads of both branches in any order, all within K: the contradiction is found."""
    trunk = chain(at)
    ours = chain(4, at + 1, trunk[-1].digest, "ours")
    theirs = chain(4, at + 1, trunk[-1].digest, "theirs")
    both = ours + theirs
    found = [e for e in (Chains(LIMITS),) for i in order if (e.observe(both[i], b"m"))]
    assert found


def test_equal_numbers_are_evidence() -> None:
    chains = Chains(LIMITS)
    one, two = link(5, b"p" * 32, "one"), link(5, b"p" * 32, "two")
    assert chains.observe(one, b"member") is None
    assert chains.observe(one, b"member") is None, "the same head twice says nothing"
    found = chains.observe(two, b"member")
    assert found == Evidence(EvidenceKind.EQUAL_SEQ, one.envelope, two.envelope, b"member")


@pytest.mark.parametrize("upper_first", [False, True])
def test_a_head_that_does_not_follow_the_one_before_is_evidence(upper_first: bool) -> None:
    """Odd numbers to one peer, even ones to another: no number is used twice."""
    low, high = link(5, b"p" * 32), link(6, b"another five".ljust(32))
    chains = Chains(LIMITS)
    for seen in (high, low) if upper_first else (low, high):
        found = chains.observe(seen, b"member")
    assert found == Evidence(EvidenceKind.FORKED_CHAIN, low.envelope, high.envelope, b"member")


def test_two_devices_do_not_prove_anything_about_each_other() -> None:
    chains = Chains(LIMITS)
    assert chains.observe(link(1, None, "a"), b"") is None
    assert chains.observe(link(1, None, "b", b"e" * 16), b"") is None


def test_the_newest_head_is_the_highest_number_not_the_last_seen() -> None:
    heads = chain(5)
    chains = Chains(LIMITS)
    assert chains.newest(D) is None
    for index in (4, 2, 3):
        chains.observe(heads[index], b"")
    assert chains.newest(D) == heads[4]
    chains.forget(D)
    assert chains.newest(D) is None


def test_heads_and_devices_are_bounded() -> None:
    chains = Chains(Limits(chain=4, devices=3))
    for seen in chain(100):
        chains.observe(seen, b"")
    assert len(chains._chains[D].seen) == 4
    for n in range(10):
        chains.observe(link(1, None, "", bytes([n]) * 16), b"")
    assert len(chains._chains) == 3


def test_an_old_head_does_not_push_out_newer_ones() -> None:
    chains = Chains(Limits(chain=4))
    heads = chain(10)
    for seen in heads[4:]:
        chains.observe(seen, b"")
    chains.observe(heads[0], b"")
    assert sorted(chains._chains[D].seen) == [7, 8, 9, 10]


# --- walking -------------------------------------------------------------------------------------


def test_a_gap_is_walked_down_one_digest_at_a_time() -> None:
    heads = chain(9)
    chains = Chains(LIMITS)
    chains.observe(heads[1], b"")
    chains.observe(heads[8], b"")
    by_digest = {seen.digest: seen for seen in heads}
    walked = []
    while (name := chains.gap(D)) is not None:
        walked.append(by_digest[name].head.seq)
        chains.observe(by_digest[name], b"")
    assert walked == [8, 7, 6, 5, 4, 3]


def test_a_fork_inside_a_gap_is_found_by_walking() -> None:
    """The liar showed us 1 to 3 of one branch and now 9 of another."""
    trunk = chain(2)
    ours = chain(1, 3, trunk[-1].digest, "ours")
    theirs = chain(7, 3, trunk[-1].digest, "theirs")
    chains = Chains(LIMITS)
    for seen in trunk + ours:
        chains.observe(seen, b"")
    served = {seen.digest: seen for seen in theirs}
    found = chains.observe(theirs[-1], b"")
    while found is None:
        name = chains.gap(D)
        assert name is not None
        found = chains.observe(served[name], b"")
    assert found.kind in EvidenceKind


def test_further_back_than_k_is_first_contact() -> None:
    chains = Chains(Limits(chain=8))
    chains.observe(link(1, None), b"")
    chains.observe(link(9, b"p" * 32), b"")
    assert chains.gap(D) == b"p" * 32
    chains.observe(link(30, b"q" * 32), b"")
    assert chains.gap(D) is None


def test_no_gap_without_two_heads() -> None:
    chains = Chains(LIMITS)
    assert chains.gap(D) is None
    chains.observe(link(70, b"p" * 32), b"")
    assert chains.gap(D) is None


def test_what_a_receipt_mentions_is_compared() -> None:
    heads = chain(9)
    chains = Chains(LIMITS)
    for index in (2, 3, 6):
        chains.observe(heads[index], b"")
    said = {
        (3, heads[2].digest): False,  # what we hold
        (3, b"x" * 32): True,  # another head of that number
        (6, heads[5].digest): False,  # what the head after it names as its prev
        (6, b"x" * 32): True,
        (8, b"x" * 32): False,  # nothing to compare with
        (2, heads[1].digest): False,
        (2, b"x" * 32): True,
    }
    for (seq, name), wanted in said.items():
        assert chains.contradicts(D, seq, name) is wanted, seq
    assert not chains.contradicts(b"e" * 16, 3, b"x" * 32)
    followers = [seq for seq in range(1, 12) if chains.follows(D, seq)]
    assert followers == [5, 8], "unknown numbers right after one that we hold"
    assert not chains.follows(b"e" * 16, 5)


# --- proofs --------------------------------------------------------------------------------------


def head(seq: int, prev: bytes | None, keys: Keys = LIAR, **fields: Any) -> bytes:
    values: dict[str, Any] = {
        **{"fleet": FLEET.id, "device": keys.device, "seq": seq, "member": digest(keys.member)},
        **{"prev": prev, "issued": int(EPOCH)},
    }
    return seal("head", encode(Head(**{**values, **fields})), keys.signer)


def proof(kind: EvidenceKind, first: bytes, second: bytes, member: bytes = LIAR.member) -> Evidence:
    return Evidence(kind, first, second, member)


def verdict(evidence: Evidence) -> bytes:
    """Who is condemned, judged by somebody who knows nothing but the root key."""
    roster = Roster(FLEET.root.key_id, LIMITS)
    return verify_evidence(pack_evidence(evidence), roster.verify_chain, LIMITS)[1]


ONE, TWO = head(5, b"p" * 32), head(5, b"p" * 32, capability="two")
AFTER = head(6, digest(TWO))
EQUAL = proof(EvidenceKind.EQUAL_SEQ, ONE, TWO)
FORKED = proof(EvidenceKind.FORKED_CHAIN, ONE, AFTER)


@pytest.mark.parametrize("evidence", [EQUAL, FORKED])
def test_a_proof_needs_nothing_but_the_root(evidence: Evidence) -> None:
    assert verdict(evidence) == LIAR.device


@pytest.mark.parametrize("evidence", [EQUAL, FORKED])
def test_a_proof_stands_after_membership_ended(evidence: Evidence) -> None:
    fleet = Fleet(22)
    keys = fleet.admit(days=0.0, not_before=EPOCH - 1e8)
    heads = [
        seal("head", encode(Head(fleet.id, keys.device, 3, b"m" * 32, n)), keys.signer)
        for n in (1, 2)
    ]
    old = proof(EvidenceKind.EQUAL_SEQ, heads[0], heads[1], keys.member)
    roster = Roster(fleet.root.key_id, LIMITS)
    assert verify_evidence(pack_evidence(old), roster.verify_chain, LIMITS)[1] == keys.device


@pytest.mark.parametrize(
    ("what", "evidence"),
    [
        ("one head twice", proof(EvidenceKind.EQUAL_SEQ, ONE, ONE)),
        ("other numbers", proof(EvidenceKind.EQUAL_SEQ, ONE, AFTER)),
        ("an honest chain", proof(EvidenceKind.FORKED_CHAIN, TWO, AFTER)),
        ("a number left out", proof(EvidenceKind.FORKED_CHAIN, ONE, head(7, b"x" * 32))),
        ("the wrong way round", proof(EvidenceKind.FORKED_CHAIN, AFTER, ONE)),
        ("equal numbers as a fork", proof(EvidenceKind.FORKED_CHAIN, ONE, TWO)),
        ("two devices", proof(EvidenceKind.EQUAL_SEQ, ONE, head(5, None, OTHER))),
        ("another's member object", proof(EvidenceKind.EQUAL_SEQ, ONE, TWO, OTHER.member)),
        (
            "another fleet's head",
            proof(EvidenceKind.EQUAL_SEQ, ONE, head(5, None, fleet=b"f" * 32)),
        ),
        (
            "another device's name",
            proof(EvidenceKind.EQUAL_SEQ, ONE, head(5, None, device=OTHER.device)),
        ),
        ("a stranger", proof(EvidenceKind.EQUAL_SEQ, ONE, TWO, Fleet(33).admit().member)),
        ("no heads", proof(EvidenceKind.EQUAL_SEQ, b"", b"")),
        ("no member", proof(EvidenceKind.EQUAL_SEQ, ONE, TWO, b"")),
    ],
)
def test_what_proves_nothing(what: str, evidence: Evidence) -> None:
    assert fault_of(verdict, evidence) is Fault.BAD_EVIDENCE, what


@pytest.mark.parametrize(("evidence", "step"), [(EQUAL, 1), (FORKED, 7)])
def test_every_flipped_bit_of_a_proof_is_refused(evidence: Evidence, step: int) -> None:
    data = pack_evidence(evidence)
    roster = Roster(FLEET.root.key_id, LIMITS)
    condemned = set()
    refused = 0
    bits = range(0, 8 * len(data), step)
    for bit in bits:
        fault = fault_of(
            lambda changed: condemned.add(verify_evidence(changed, roster.verify_chain, LIMITS)[1]),
            flip(data, bit),
        )
        refused += fault is Fault.BAD_EVIDENCE
    assert not condemned
    assert refused == len(bits)


def test_evidence_from_observed_heads_verifies() -> None:
    """What `observe` returns is what everybody else can check."""
    chains = Chains(LIMITS)
    for data in (TWO, AFTER, ONE):
        seen = SeenHead(decode(open_envelope(data, "head", 4096).payload, Head), digest(data), data)
        found = chains.observe(seen, LIAR.member)
    assert found is not None
    assert verdict(found) == LIAR.device


def test_nobody_can_make_proof_from_an_honest_devices_heads() -> None:
    """All pairs of an honest chain, under both kinds, are refused."""
    heads: list[bytes] = []
    for seq in range(1, 8):
        heads.append(head(seq, digest(heads[-1]) if heads else None, OTHER))
    for first in heads:
        for second in heads:
            for kind in EvidenceKind:
                claim = proof(kind, first, second, OTHER.member)
                assert fault_of(verdict, claim) is Fault.BAD_EVIDENCE
