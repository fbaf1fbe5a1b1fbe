"""Partial updates: what goes out when, what a receiver fetches, and that all see one vector."""

from __future__ import annotations

import numpy as np
import pytest

from gossipfl.codecs import Assembly, Publication, publish
from gossipfl.errors import PeerError
from gossipfl.messages import Lineage
from gossipfl.objects import digest
from gossipfl.parameters import Vector

LINEAGE = Lineage(b"b" * 32, 1, b"l" * 32)
CODEC = "partial:0.25+int8"
COUNT = 2_001
PEER = b"p" * 16


def model(seed: int) -> Vector:
    return np.random.default_rng(seed).standard_normal(COUNT).astype(np.float32)


class Publisher:
    """One device that publishes a new random model each time, and serves all it ever made."""

    def __init__(self, codec: str = CODEC, first: int = 0) -> None:
        self.codec = codec
        self.first = first
        self.rounds = 0
        self.last: Publication | None = None
        self.served: dict[bytes, bytes] = {}

    def publish(self) -> Publication:
        self.rounds += 1
        self.last = publish(
            LINEAGE, self.codec, model(self.rounds), self.rounds, self.last, self.first
        )
        for data in (*self.last.beside, self.last.data):
            self.served[digest(data)] = data
        return self.last


def receive(assembly: Assembly, publisher: Publisher) -> tuple[Vector, int]:
    """The newest vector, and how many objects it took to get it."""
    assert publisher.last is not None
    update, fetched = publisher.last.data, 1
    missing = assembly.offer(PEER, update, LINEAGE, publisher.codec, COUNT)
    for name in missing:
        fetched += 1
        whole = assembly.part(PEER, name, publisher.served[name])
        assert whole == (update if name == missing[-1] else None)
    assert assembly.offer(PEER, update, LINEAGE, publisher.codec, COUNT) == []
    return assembly.decode(PEER, update, LINEAGE, publisher.codec, COUNT), fetched


def test_a_follower_fetches_one_object_a_round_and_sees_the_publishers_vector() -> None:
    publisher, assembly = Publisher(), Assembly()
    fetched = []
    for _ in range(9):
        made = publisher.publish()
        vector, objects = receive(assembly, publisher)
        assert vector.tobytes() == made.vector.tobytes()
        fetched.append(objects)
    assert fetched == [4, 1, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("missed", "objects"), [(1, 2), (2, 3), (3, 4), (10, 4)])
def test_who_missed_some_fetches_them_and_never_more_than_a_whole(
    missed: int, objects: int
) -> None:
    publisher, assembly = Publisher(), Assembly()
    publisher.publish()
    receive(assembly, publisher)
    for _ in range(missed + 1):
        made = publisher.publish()
    vector, fetched = receive(assembly, publisher)
    assert fetched == objects
    assert vector.tobytes() == made.vector.tobytes()


def test_late_and_early_receivers_see_one_vector() -> None:
    publisher, early = Publisher(), Assembly()
    for _ in range(6):
        publisher.publish()
        seen, _ = receive(early, publisher)
    late, _ = receive(Assembly(), publisher)
    assert late.tobytes() == seen.tobytes()


def test_every_coordinate_goes_out_once_in_as_many_rounds_as_there_are_parts() -> None:
    publisher = Publisher("partial:0.2+f32")
    before = publisher.publish().vector
    assert before.tobytes() == model(1).tobytes()  # the first time all goes out
    changed = np.zeros(COUNT, int)
    for number in range(2, 7):
        made = publisher.publish()
        new = made.vector != before
        assert new.sum() in (COUNT // 5, COUNT // 5 + 1)
        assert (made.vector[new] == model(number)[new]).all()
        changed += new
        before = made.vector
    assert (changed == 1).all()


def test_what_did_not_go_out_is_carried_and_what_did_is_not() -> None:
    publisher = Publisher("partial:0.5+f32")
    change = model(50)
    assert publisher.publish().unsent(change) is None
    made = publisher.publish()
    left = made.unsent(change)
    assert left is not None
    sent = made.vector == model(2)
    assert not left[sent].any()
    assert (left[~sent] == change[~sent]).all()
    assert (change == model(50)).all()


def test_a_whole_codec_leaves_nothing_unsent() -> None:
    made = publish(LINEAGE, "int8", model(1), 1)
    assert made.unsent(model(2)) is None
    assert made.beside == ()


def test_devices_do_not_all_send_the_same_part_at_once() -> None:
    parts = set()
    for first in range(4):
        publisher = Publisher(first=first)
        publisher.publish()
        parts.add(publisher.publish().part)
    assert parts == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("lineage", "codec"),
    [
        (Lineage(b"b" * 32, 2, b"l" * 32), CODEC),
        (LINEAGE, "partial:0.5+int8"),
        (LINEAGE, "partial:0.25+bf16"),
    ],
)
def test_another_run_or_codec_begins_with_a_whole(lineage: Lineage, codec: str) -> None:
    before = publish(LINEAGE, CODEC, model(1), 1)
    made = publish(lineage, codec, model(2), 2, before)
    assert len(made.beside) in (1, 3)
    assert set(made.names).isdisjoint(before.names)


def test_a_retry_gives_the_same_bytes() -> None:
    first = publish(LINEAGE, CODEC, model(1), 7)
    assert publish(LINEAGE, CODEC, model(1), 7).data == first.data
    second = publish(LINEAGE, CODEC, model(2), 8, first)
    assert publish(LINEAGE, CODEC, model(2), 8, first).data == second.data


def test_parts_of_no_more_than_so_many_peers_are_kept() -> None:
    publisher, assembly = Publisher(), Assembly(peers_max=2)
    update = publisher.publish().data
    for peer in (b"a", b"b", b"a", b"c"):
        assembly.offer(peer, update, LINEAGE, CODEC, COUNT)
    assert not assembly.awaits(b"b", digest(update))
    assert assembly.awaits(b"a", digest(update))
    assert assembly.awaits(b"c", digest(update))


def test_a_part_that_nobody_asked_for_is_not_kept() -> None:
    publisher, assembly = Publisher(), Assembly()
    update = publisher.publish().data
    assert assembly.part(PEER, b"x" * 32, b"unasked") is None
    assembly.offer(PEER, update, LINEAGE, CODEC, COUNT)
    assert assembly.part(PEER, b"x" * 32, b"unasked") is None
    assert len(assembly.offer(PEER, update, LINEAGE, CODEC, COUNT)) == 3


def test_old_parts_leave_with_the_update_that_named_them() -> None:
    publisher, assembly = Publisher(), Assembly()
    for _ in range(20):
        publisher.publish()
        receive(assembly, publisher)
    held = assembly._peers[PEER].held
    assert len(held) == 4


def test_a_part_that_was_rubbish_is_so_however_often_it_is_offered() -> None:
    publisher, assembly = Publisher(), Assembly()
    update = publisher.publish().data
    for name in assembly.offer(PEER, update, LINEAGE, CODEC, COUNT):
        assembly.part(PEER, name, b"rubbish")
    for _ in range(2):
        assert assembly.offer(PEER, update, LINEAGE, CODEC, COUNT) == []
        with pytest.raises(PeerError):
            assembly.decode(PEER, update, LINEAGE, CODEC, COUNT)


def test_parts_are_rounded_independently() -> None:
    vector = np.full(4 * 512, 0.3, np.float32)
    vector[:4] = 99.0  # each part is one block, whose step is 0.78
    up = publish(LINEAGE, CODEC, vector, 5).vector[4:].reshape(-1, 4) > 0.3
    assert 0.3 < up.mean() < 0.5
    for part in range(1, 4):
        assert abs(np.corrcoef(up[:, 0], up[:, part])[0, 1]) < 0.2
