"""Nodes under a partial codec: they merge whole vectors, lose nothing, and are misled by nobody."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from harness import Device, Puppet, Table

from gossipfl.codecs import decode_update, named_parts, parse, publish, update_bytes
from gossipfl.codecs.update import NOBODY, encode_object
from gossipfl.config import Limits
from gossipfl.errors import Fault
from gossipfl.events import FetchObject, PolicyReceived, StartMerge, StartTraining
from gossipfl.messages import Head, Training, UpdateRef
from gossipfl.objects import digest
from gossipfl.parameters import Vector
from gossipfl.wire import decode, open_envelope

CODEC = "partial:0.25+f32"
COUNT = 10


def fleet(devices: int = 3, **policy: Any) -> Table:
    table = Table(count=COUNT, n=4, codec=CODEC, **policy)
    for _ in range(devices):
        table.device()
    table.introduce()
    table.employ()
    return table


def head_of(device: Device) -> Head:
    data = device.store.load().head
    assert data is not None
    return decode(open_envelope(data, "head", Limits().head_bytes).payload, Head)


def merges(device: Device) -> list[StartMerge]:
    return [effect for effect in device.sent(StartMerge) if effect.own is not None]


def merge_more(table: Table, rounds: int) -> None:
    done = [len(merges(d)) + rounds for d in table.devices]
    table.until(
        lambda: all(len(merges(d)) >= n for d, n in zip(table.devices, done, strict=True)), 600.0
    )


# --- what is merged ------------------------------------------------------------------------------


def test_all_see_the_same_vectors() -> None:
    """What a device anchors its merge on is, bit by bit, what the others merge of it."""
    table = fleet()
    table.until(lambda: all(len(merges(d)) >= 9 for d in table.devices), 600.0)
    own = {e.own.tobytes() for d in table.devices for e in merges(d) if e.own is not None}
    merged = {row.tobytes() for d in table.devices for e in merges(d) for row in e.received}
    assert len(merged & own) > 15
    assert len(merged - own) == 0


def test_a_round_costs_a_quarter_once_a_peer_is_known() -> None:
    table = fleet()
    me = table.devices[0]
    table.until(lambda: len(merges(me)) >= 3, 300.0)
    update = head_of(me).update
    assert update is not None
    assert update.size == update_bytes(table.lineage, CODEC, COUNT)
    assert update.size < update_bytes(table.lineage, "f32", COUNT) + 3 * 32 + 2
    known = len(merges(me))
    fetched = len(parts_fetched(me))
    table.until(lambda: len(merges(me)) >= known + 6, 600.0)
    assert len(parts_fetched(me)) == fetched


def parts_fetched(device: Device) -> list[FetchObject]:
    """Requests for updates; the newest ones ride in their heads' answers here."""
    size = update_bytes(head_lineage(device), CODEC, COUNT)
    return [e for e in device.sent(FetchObject) if e.bytes_max == size]


def head_lineage(device: Device) -> Any:
    lineage = head_of(device).lineage
    assert lineage is not None
    return lineage


def test_training_goes_on_from_what_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rounds in four a coordinate is trained and does not go out: it is not lost."""
    table = fleet()
    me = table.devices[0]
    train = me.trainer.train
    steps: list[tuple[Vector, Vector, Vector]] = []  # base, where training starts and ends

    def watched(start: Vector, training: Training, seed: int) -> Vector:
        assert me.node.base is not None
        steps.append((me.node.base, start, train(start, training, seed)))
        return steps[-1][2]

    monkeypatch.setattr(me.trainer, "train", watched)
    table.until(lambda: len(steps) >= 10, 600.0)
    for (base, _, end), (new_base, start, _) in pairwise(steps[1:]):
        carried, unsent = start - new_base, end - base
        kept = np.isclose(carried, unsent, atol=1e-6)
        assert COUNT - kept.sum() in (COUNT // 4, COUNT // 4 + 1)
        assert not carried[~kept].any()


def test_they_learn_what_they_would_have_learnt_whole() -> None:
    table = fleet()
    table.until(lambda: all(len(merges(d)) >= 25 for d in table.devices), 1500.0)
    goal = np.mean([d.trainer.goal for d in table.devices], axis=0)
    for device in table.devices:
        assert device.node.base is not None
        assert np.abs(device.node.base - goal).max() < 0.02


# --- own objects ---------------------------------------------------------------------------------


def test_what_a_head_names_is_there_and_what_nothing_names_leaves() -> None:
    table = fleet()
    me = table.devices[0]
    merge_more(table, 6)
    for _ in range(8):
        table.advance(7.0)  # at different points of a round
        update = head_of(me).update
        assert update is not None
        data = me.store.get(update.digest)
        assert data is not None
        held = {name: me.store.get(name) for name in named_parts(data, table.lineage, CODEC, COUNT)}
        parts = {name: part for name, part in held.items() if part is not None}
        assert len(parts) == 3
        vector = decode_update(data, table.lineage, CODEC, COUNT, parts)
        assert vector.tobytes() in {e.own.tobytes() for e in merges(me) if e.own is not None}
        stored = [d for d in me.store._objects.values() if d[:4] == b"GFU1"]
        assert len(stored) <= table.limits.updates_kept + 3 + 1  # one is retired with the next


def test_after_a_restart_the_first_update_is_whole() -> None:
    table = fleet()
    me, other = table.devices[0], table.devices[1]
    table.until(lambda: len(merges(me)) >= 3, 300.0)
    seq = me.node.view().seq
    table.restart(me)
    table.introduce()
    table.employ(me)
    rounds = len(merges(me))
    table.until(lambda: len(merges(me)) >= rounds + 2 and me.node.view().seq > seq, 300.0)
    assert not any(other.faults(me).values())
    own = {e.own.tobytes() for e in merges(me)[rounds:] if e.own is not None}
    table.advance(60.0)
    assert own & {row.tobytes() for e in merges(other) for row in e.received}


def test_a_policy_may_change_the_codec_without_a_lost_round() -> None:
    table = fleet()
    table.until(lambda: all(len(merges(d)) >= 3 for d in table.devices), 300.0)
    for version, codec in ((2, "int8"), (3, "partial:0.5+int8"), (4, "f32"), (5, CODEC)):
        table.policy = table.fleet.policy(
            table.job, n=4, version=version, prev=digest(table.policy), rule="mean", codec=codec
        )
        for device in table.devices:
            table.send(device, PolicyReceived(table.policy))
        merge_more(table, 3)
        assert all(head_of(d).update.codec == codec for d in table.devices)  # type: ignore[union-attr]
        assert all(d.node.view().below_quorum == 0 for d in table.devices)
    assert not any(sum(a.faults(b).values()) for a in table.devices for b in table.devices)


# --- peers that name what is not so --------------------------------------------------------------


def lying(parts: dict[int, bytes | None]) -> tuple[Table, Device, Puppet]:
    """A puppet's update names these objects for its parts 1 to 3; None: it has no such object."""
    table = Table(count=COUNT, n=4, codec=CODEC)
    me, liar, honest = table.device(), table.puppet(), table.puppet()
    vector = np.ones(COUNT, np.float32)
    names = []
    for part in (1, 2, 3):
        data = parts.get(part, encode_object(table.lineage, parse(CODEC), vector, 0, part, ALONE))
        names.append(b"?" * 32 if data is None else liar.hold(data))
    serve(table, liar, encode_object(table.lineage, parse(CODEC), vector, 0, 0, names))
    made = publish(table.lineage, CODEC, vector, 1)
    for data in made.beside:
        honest.hold(data)
    serve(table, honest, made.data)
    table.introduce()
    table.employ()
    return table, me, liar


ALONE = (NOBODY,) * 3


def serve(table: Table, puppet: Puppet, update: bytes) -> None:
    ref = UpdateRef(puppet.hold(update), len(update), CODEC, 1)
    puppet.publish(lineage=table.lineage, update=ref)


def test_an_honest_one_is_merged() -> None:
    table, me, liar = lying({})
    table.until(lambda: me.sent(StartMerge), 120.0)
    assert len(me.sent(StartMerge)[0].received) == 2
    assert not any(me.faults(liar).values())


def test_a_part_that_it_does_not_have_costs_it_its_vote_and_nobody_the_round() -> None:
    table, me, liar = lying({2: None})
    began = table.now
    table.until(lambda: me.sent(StartTraining), 120.0)
    table.until(lambda: me.node.view().round >= 2, 120.0)
    assert table.now - began < 2 * table.pace.round_interval_s + table.pace.join_wait_s
    assert all(len(e.received) <= 1 for e in me.sent(StartMerge))
    asked = [e for e in liar.asked if isinstance(e, FetchObject) and e.digest == b"?" * 32]
    assert 1 <= len(asked) <= 8 * me.node.view().round


@pytest.mark.parametrize("what", ["rubbish", "the same part", "not finite", "another run"])
def test_a_part_that_is_none_is_its_signers_fault(what: str) -> None:
    probe = Table(count=COUNT)
    vector = np.ones(COUNT, np.float32)
    good = encode_object(probe.lineage, parse(CODEC), vector, 0, 2, ALONE)
    data = {
        "rubbish": b"rubbish",
        "the same part": encode_object(probe.lineage, parse(CODEC), vector, 0, 1, ALONE),
        "not finite": good[:-4] + np.float32(np.inf).tobytes(),
        "another run": encode_object(probe.job.lineage(7), parse(CODEC), vector, 0, 2, ALONE),
    }[what]
    table, me, liar = lying({2: data})
    table.until(lambda: any(me.faults(liar).values()), 120.0)
    expected = {
        "rubbish": Fault.WRONG_LENGTH,
        "the same part": Fault.MALFORMED,
        "not finite": Fault.NOT_FINITE,
        "another run": Fault.OTHER_LINEAGE,
    }[what]
    assert set(me.faults(liar)) == {expected.value}
    assert all(len(e.received) <= 1 for e in me.sent(StartMerge))


def test_an_update_that_leaves_parts_open_is_its_signers_fault() -> None:
    table, me, liar = lying({})
    update = encode_object(table.lineage, parse(CODEC), np.ones(COUNT, np.float32), 0, 0, ALONE)
    serve(table, liar, update)
    table.until(lambda: me.faults(liar).get(Fault.MALFORMED.value), 200.0)


def test_parts_for_which_there_is_no_room_do_not_hold_the_round_up() -> None:
    """A joiner lacks all parts of everybody, and may only queue two requests."""
    table = Table(
        count=COUNT, n=3, codec="partial:0.1+f32", limits=replace(Limits(), pulls_queued=2)
    )
    for _ in range(2):
        table.device()
    table.introduce()
    table.employ()
    merge_more(table, 3)
    late = table.device()
    table.employ(late)
    table.hold = lambda device, effect: (
        device is late and isinstance(effect, FetchObject) and effect.bytes_max < 1_000
    )  # slow: what is under way stays so
    table.introduce()
    waited_s = 0
    for _ in range(200):
        table.advance(1.0)
        waited_s += late.node.view().phase == "collecting"
    rounds = late.node.view().below_quorum
    assert rounds >= 2
    assert waited_s < rounds * table.pace.round_deadline_s / 2
