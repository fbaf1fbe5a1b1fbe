"""Rows of the fault table that are about one node: replay, strangers, false accusations.

Each prints its figure; `pytest -n 0 -s` shows it, and docs/results/faults.md has it.
"""

# ruff: noqa: T201

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from harness import Device, Puppet, Table, opened

from gossipfl.chains import Chains, SeenHead, pack_evidence, verify_evidence
from gossipfl.config import Limits
from gossipfl.errors import PeerError
from gossipfl.events import FetchHead, HeadReceived, StartMerge
from gossipfl.identity import Signer
from gossipfl.membership import Roster
from gossipfl.messages import EvidenceKind, Head, Lineage, Member, Role, UpdateRef
from gossipfl.objects import MemberObject, digest, pack_member
from gossipfl.parameters import Vector
from gossipfl.wire import encode, seal
from sim.fleet import EPOCH, Fleet

# --- replay --------------------------------------------------------------------------------------


class Replays:
    """x has published twenty updates; then it shows what it should not, and each time we look."""

    ROUNDS = 20

    def __init__(self) -> None:
        self.table = Table(n=3)
        self.me: Device = self.table.device()
        self.x, self.other = self.table.puppet(), self.table.puppet()
        self.old: list[bytes] = []
        self.models: list[Vector] = []
        for number in range(self.ROUNDS):
            model = np.full(self.table.count, 1.0 + number, np.float32)
            self.x.publish_update(self.table.lineage, model, ride=True)
            assert self.x.current is not None
            self.old.append(self.x.current)
            self.models.append(model)
        self.table.introduce()
        self.table.employ()
        self.table.advance(60.0)
        self.tried = self.taken = 0

    @property
    def seq(self) -> int:
        view = self.me.peer(self.x)
        assert view is not None
        return view.seq

    def show(self, head: bytes, update: bytes | None = None, member: bytes | None = None) -> None:
        """x answers the next poll with this. It is taken if it becomes x's newest head."""
        asked = opened(self.table, self.me, FetchHead, self.x)
        name = member or digest(self.x.keys.member)
        before = self.seq
        self.table.send(
            self.me, HeadReceived(asked.request, head, name, update, self.x.keys.tls_key)
        )
        served = self.me.node.shelf.head(self.x.id)
        self.tried += 1
        self.taken += self.seq != before or (served is not None and served.envelope == head)

    def merged(self, model: Vector) -> bool:
        rows = [row for effect in self.me.sent(StartMerge) for row in effect.received]
        return any(np.array_equal(row, model) for row in rows)


def test_no_replay_is_taken() -> None:
    """Of another round, of another fleet, of another shape, and after a restart."""
    scene = Replays()
    table, x = scene.table, scene.x
    assert scene.seq == scene.ROUNDS
    for head in scene.old[:-1] * 10:
        scene.show(head)
    elsewhere = Fleet(99)
    there = Puppet(elsewhere, elsewhere.admit(), x.address)
    x.hold(there.keys.member)
    for _ in range(100):
        scene.show(there.publish(), member=digest(there.keys.member))
        scene.show(x.sign(x.compose(fleet=elsewhere.id)))
    table.restart(scene.me)
    table.introduce()
    table.advance(5.0)
    for head in scene.old[:-1] * 5:
        scene.show(head)
    heads, taken = scene.tried, scene.taken
    assert not any(scene.merged(model) for model in scene.models[:-1])
    shapes = 0
    for number in range(100):
        count = table.count + 1 + number % 3
        odd = np.full(count, 7.0, np.float32)
        lineage = Lineage(table.lineage.bundle, number % 2, digest(b"layout %d" % count))
        x.publish_update(lineage if number % 4 else table.lineage, odd, ride=True)
        asked = opened(table, scene.me, FetchHead, x)
        table.send(scene.me, x.says(asked, x.current, x.update))
        shapes += 1
        assert not any(len(held.vector) != table.count for held in inbox(scene.me))
    print(f"\nreplay: {heads} heads of other rounds, fleets and lives, {taken} taken; ", end="")
    print(f"{shapes} updates of other shapes, 0 taken")
    assert taken == 0


def inbox(device: Device) -> list[object]:
    return list(device.node._core.rounds.inbox.values())


# --- 10^4 identities without a certificate -------------------------------------------------------

IDENTITIES = 10_000


def strangers(fleet: Fleet, count: int) -> Iterator[bytes]:
    """Member objects that nobody admitted: signed by themselves, or by an issuer of their own."""
    draw = random.Random("strangers")
    issuer = Signer(draw.randbytes(32))
    own = _member(fleet, issuer, issuer, Role.ISSUER)
    for number in range(count):
        signer = Signer(draw.randbytes(32))
        role = (Role.DEVICE, Role.HUB, Role.OPERATOR, Role.ISSUER)[number % 4]
        if number % 2:
            yield pack_member(MemberObject(_member(fleet, signer, issuer, role), own))
        else:
            yield pack_member(MemberObject(_member(fleet, signer, signer, role), None))


def _member(fleet: Fleet, subject: Signer, by: Signer, role: Role) -> bytes:
    end = int(EPOCH) + 86_400
    tls = digest(subject.key_id)
    member = Member(
        fleet.id, subject.device, subject.key_id, role, int(EPOCH), end, int(EPOCH), tls
    )
    return seal("member", encode(member), by)


def test_ten_thousand_identities_without_a_certificate_are_admitted_nowhere() -> None:
    fleet = Fleet(1)
    roster = Roster(fleet.root.key_id, Limits())
    roster.admit(fleet.admit().member)
    admitted = 0
    for data in strangers(fleet, IDENTITIES):
        try:
            roster.admit(data)
            admitted += 1
        except PeerError:
            pass
    print(f"\n{IDENTITIES} identities without a certificate: {admitted} admitted")
    assert admitted == 0
    assert roster.size == 1


def test_a_member_who_brings_a_thousand_strangers_brings_nobody() -> None:
    """Their heads come over a member's connection, and it serves their member objects too."""
    table = Table(n=3)
    me, x = table.device(), table.puppet()
    x.publish()
    table.introduce()
    table.advance(5.0)
    before = me.node.view()
    for data in strangers(table.fleet, 1_000):
        stranger = Signer(digest(data))
        head = Head(table.fleet.id, stranger.device, 1, digest(x.hold(data)), int(EPOCH))
        asked = opened(table, me, FetchHead, x)
        lie = seal("head", encode(head), stranger)
        table.send(me, HeadReceived(asked.request, lie, digest(data), None, x.keys.tls_key))
    assert len(me.node.view().peers) == len(before.peers)
    for name, (held, bound) in me.node.held().items():
        assert held <= bound, name
    assert me.node.held()["members"] == (2, Limits().devices)


# --- equivocation: no false accusation, and no fork that goes unproven ---------------------------

CASES = 100_000
SKIP = 2**20


@dataclass
class Chain:
    """What an honest device makes public while its disk is restored and commits fail."""

    draw: random.Random
    device: bytes = b"d" * 16
    seq: int = 0
    name: bytes | None = None
    skip: int = 0
    public: list[SeenHead] = field(default_factory=list)
    copies: list[tuple[int, bytes | None]] = field(default_factory=list)

    def publish(self, prev: bytes | None = None, seq: int | None = None) -> SeenHead:
        seq = seq or self.seq + 1 + self.skip
        head = Head(b"f" * 32, self.device, seq, b"m" * 32, 0, self.name if prev is None else prev)
        name = self.draw.randbytes(32)
        seen = SeenHead(head, name, b"")
        self.public.append(seen)
        self.seq, self.name, self.skip = seq, name, 0
        return seen

    def step(self) -> None:
        """A head; a commit that was not done, whose number the next head takes; a copy of the
        disk; or a restore, after which peers' newest is adopted or numbers are left out."""
        match self.draw.randrange(6):
            case 0 | 1 | 2:
                self.publish()
            case 3:
                self.draw.randbytes(32)
            case 4:
                self.copies.append((self.seq, self.name))
            case 5 if self.copies:
                self.seq, self.name = self.draw.choice(self.copies)
                known = [s for s in self.public if s.head.seq > self.seq]
                if known and self.draw.random() < 0.5:
                    newest = max(known, key=lambda s: s.head.seq)
                    self.seq, self.name = newest.head.seq, newest.digest
                self.skip = SKIP + self.draw.randrange(SKIP)


def shown(draw: random.Random, heads: list[SeenHead]) -> list[SeenHead]:
    """Some of the heads, in any order, some of them twice: what one observer comes to see."""
    return [draw.choice(heads) for _ in range(min(8, 2 * len(heads)))]


@pytest.mark.slow
def test_a_hundred_thousand_honest_histories_accuse_nobody() -> None:
    accused = 0
    for case in range(CASES):
        draw = random.Random(case)
        chain = Chain(draw)
        for _ in range(8):
            chain.step()
        if not chain.public:
            continue
        observer = Chains(Limits())
        accused += any(
            observer.observe(seen, b"member") is not None for seen in shown(draw, chain.public)
        )
    print(f"\n{CASES} honest histories with restores and doubtful commits: {accused} accused")
    assert accused == 0


def test_every_fork_of_which_both_sides_are_seen_is_proven() -> None:
    """With real signatures: the proof verifies with nothing but the fleet's root."""
    fleet = Fleet(3)
    roster = Roster(fleet.root.key_id, Limits())
    proven = 0
    for case in range(500):
        draw = random.Random(case)
        keys = fleet.admit()
        first = _signed(fleet, keys.signer, 5, draw.randbytes(32))
        equal = case % 2 == 0
        second = _signed(fleet, keys.signer, 5 if equal else 6, draw.randbytes(32))
        observer = Chains(Limits())
        pair = [first, second]
        draw.shuffle(pair)
        observer.observe(pair[0], keys.member)
        evidence = observer.observe(pair[1], keys.member)
        assert evidence is not None
        _, accused = verify_evidence(pack_evidence(evidence), roster.verify_chain, Limits())
        expected = EvidenceKind.EQUAL_SEQ if equal else EvidenceKind.FORKED_CHAIN
        proven += accused == keys.device and evidence.kind is expected
    print(f"\n500 forks with both sides seen: {proven} proven")
    assert proven == 500


def _signed(fleet: Fleet, signer: Signer, seq: int, prev: bytes) -> SeenHead:
    ref = UpdateRef(prev, 10, "f32", 1)
    head = Head(fleet.id, signer.device, seq, b"m" * 32, int(EPOCH), prev, update=ref)
    envelope = seal("head", encode(head), signer)
    return SeenHead(head, digest(envelope), envelope)
