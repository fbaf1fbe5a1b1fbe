"""Published models on public examples: what is judged, what is left aside, what is written down."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gossipfl
from gossipfl.bundle.archive import Bundle, read
from gossipfl.codecs import encode_update
from gossipfl.config import Limits
from gossipfl.errors import Fault
from gossipfl.events import Address, FetchFailed, FetchHead, FetchObject, ObjectReceived
from gossipfl.holdings import Holdings, Neighbour
from gossipfl.hub.database import Database, open_database
from gossipfl.hub.measured.measuring import Figures, Measurer, figures
from gossipfl.interfaces import Evaluation
from gossipfl.membership import Known
from gossipfl.messages import Head, Lineage, Member, Policy, Role, UpdateRef
from gossipfl.objects import Vouched, digest, pack_vouched
from gossipfl.parameters import Vector
from gossipfl.wire import encode, seal
from sim.fleet import Fleet

BUNDLE = (Path(gossipfl.__file__).parent / "bundles" / "vowels-logistic.gfl").read_bytes()


class World:
    """Devices whose models are params0 moved by so much; the judge reads that off again."""

    def __init__(self, moves: dict[int, float]) -> None:
        self.bundle: Bundle = read(BUNDLE)
        self.lineage = Lineage(self.bundle.id, 1, self.bundle.layout.digest)
        self.objects: dict[bytes, bytes] = {digest(BUNDLE): BUNDLE}
        self.asked: list[bytes] = []
        self.heads: dict[int, Head] = {}
        fleet = Fleet(1)
        self.operator = fleet.operator
        policy = Policy(
            fleet=fleet.id,
            term=0,
            version=1,
            run=1,
            bundle=self.bundle.id,
            bundle_object=digest(BUNDLE),
            bundle_bytes=len(BUNDLE),
            n=7,
            attackers=1,
            issued=0,
        )
        envelope = seal("policy", encode(policy), self.operator.signer)
        self.policy = pack_vouched(Vouched(envelope, self.operator.member))
        for number, move in moves.items():
            self.publish(number, move)

    def publish(self, number: int, move: float, lineage: Lineage | None = None) -> None:
        of = lineage or self.lineage
        data = encode_update(of, "f32", self.bundle.initial + np.float32(move))
        self.objects[digest(data)] = data
        ref = UpdateRef(digest(data), len(data), "f32", 1)
        self.heads[number] = Head(
            bytes(32), bytes([number] * 16), 1, bytes(32), 0, lineage=of, update=ref
        )

    def holdings(self) -> Holdings:
        neighbours = []
        for number, head in self.heads.items():
            member = Member(bytes(32), head.device, bytes(32), Role.DEVICE, 0, 9, 0)
            address = Address("127.0.0.1", 1_000 + number)
            known = Known(member, b"", b"")
            neighbours.append(Neighbour(known, head, (address,), True))
        policies = ((self.operator.signer.device, self.policy),)
        return Holdings((), tuple(neighbours), policies, {}, ())

    def judge(self, bundle: Bundle) -> Callable[[Vector], Evaluation]:
        def evaluate(model: Vector) -> Evaluation:
            return Evaluation(0.0, float(np.median(model - bundle.initial)), 10)

        return evaluate

    async def fetch_object(self, effect: FetchObject) -> ObjectReceived | FetchFailed:
        self.asked.append(effect.digest)
        data = self.objects.get(effect.digest)
        if data is None or len(data) > effect.bytes_max:
            return FetchFailed(effect.request, Fault.UNREACHABLE, "it is not here")
        return ObjectReceived(effect.request, data)

    async def fetch_head(self, effect: FetchHead) -> FetchFailed:
        raise AssertionError("the hub's node has the heads")

    def measurer(self, database: Database, out: frozenset[bytes] = frozenset()) -> Measurer:
        return Measurer(
            database,
            self.judge,
            lambda: (self.holdings(), self),
            lambda: out,
            lambda: 1_000,
            Limits(),
            random.Random(1),
        )


async def test_models_are_judged_once_and_the_liar_does_not_count(tmp_path: Path) -> None:
    world = World({1: 0.5, 2: 0.6, 3: 0.7, 4: 0.8, 5: 0.9, 6: -7.0})
    database = await open_database(tmp_path / "hub.db")
    try:
        measurer = world.measurer(database, frozenset({bytes([6] * 16)}))
        found = await measurer.look()
        assert found is not None
        assert found.models == 5
        assert found.middle == pytest.approx(0.7)
        assert (found.low, found.high) == (pytest.approx(0.54), pytest.approx(0.86))
        assert found.merged == pytest.approx(0.7, abs=0.1)
        asked = len(world.asked)
        assert asked == 6  # the bundle and five models
        assert await measurer.look() is None
        assert len(world.asked) == asked
        async with database.transaction(write=False) as transaction:
            rows = await transaction.rows("SELECT time, models FROM measured")
        assert [tuple(row.values()) for row in rows] == [(1_000, 5)]
    finally:
        await database.close()


async def test_what_is_of_another_run_or_too_long_is_not_fetched(tmp_path: Path) -> None:
    world = World({1: 0.5, 2: 0.6})
    world.publish(3, 0.7, Lineage(world.lineage.bundle, 2, world.lineage.layout))
    huge = UpdateRef(digest(b"huge"), 1 << 31, "f32", 1)
    world.heads[4] = Head(
        bytes(32), bytes([4] * 16), 1, bytes(32), 0, lineage=world.lineage, update=huge
    )
    database = await open_database(tmp_path / "hub.db")
    try:
        found = await world.measurer(database).look()
        assert found is not None
        assert found.models == 2
        assert huge.digest not in world.asked
        other = world.heads[3].update
        assert other is not None
        assert other.digest not in world.asked
    finally:
        await database.close()


def test_figures_by_hand() -> None:
    start = np.zeros(4, np.float32)
    models = [np.full(4, v, np.float32) for v in (1.0, 2.0, 3.0)]
    found = figures([0.1, 0.2, 0.3], models, start)
    # Distances to the median (2, 2, 2, 2) are 2, 0 and 2; it has come 4 from the start.
    assert found == Figures(
        3,
        pytest.approx(0.12),  # type: ignore[arg-type]
        pytest.approx(0.2),  # type: ignore[arg-type]
        pytest.approx(0.28),  # type: ignore[arg-type]
        pytest.approx(4 / 3 / 4),  # type: ignore[arg-type]
    )
    assert replace(found, merged=0.5).merged == 0.5
    assert figures([0.1, 0.2], [start, start], start).disagreement is None
