"""Group sums in real nodes: what they publish, what becomes of drops, restarts and lies."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from gossipfl.codecs import encode_update
from gossipfl.errors import Fault, PeerError
from gossipfl.events import (
    Commit,
    Effect,
    StartMerge,
    StartTraining,
    SumMask,
    SumMasked,
    SumUncover,
    TrainingFinished,
)
from gossipfl.groups.heavy import sum_step
from gossipfl.groups.messages import (
    TYPES,
    Message,
    Signed,
    SumKeys,
    SumReveal,
    SumRoster,
    SumSet,
    SumShares,
    SumVector,
    kind_of,
)
from gossipfl.groups.sealing import KEY_BYTES
from gossipfl.groups.steps import Lie
from gossipfl.groups.steps import Phase as AttemptPhase
from gossipfl.messages import Privacy
from gossipfl.objects import digest
from gossipfl.privacy import Hidden, Summed, summed
from gossipfl.privacy.entries import Released, parse_entry
from gossipfl.wire import decode, open_envelope
from gossipfl.work import local_step
from tests.core import harness
from tests.core.harness import Device
from tests.core.sumkit import Summing, heads, objects, says, words

pytest.importorskip("Crypto")


NOISE = {"epsilon": 8.0, "clip": 1.0, "z": 4.0}
"""With it a group may sum again in a window: each vector is a release of its own."""


def first_held(table: Summing, device: Device, kind: type[Any]) -> list[Any]:
    """The first effect of this kind that `device` has from now on is not carried out, but here."""
    held: list[Any] = []
    execute = table._execute

    def keep(who: Device, effect: Effect) -> bool:
        if who is device and isinstance(effect, kind) and not held:
            held.append(effect)
            return True
        return execute(who, effect)

    table._execute = keep  # type: ignore[method-assign]
    return held


def near(device: Device, wanted: np.ndarray) -> bool:
    base = device.node.base
    return base is not None and bool(np.allclose(base, wanted, atol=1e-6))


def spoken(device: Device) -> list[Message]:
    """What it signed of group sums, in order."""
    found = []
    for data in objects(device):
        try:
            kind = kind_of(data)
        except PeerError:
            continue
        found.append(decode(open_envelope(data, kind, 4_096).payload, TYPES[kind]))
    return found


def notices(device: Device) -> str:
    return "\n".join(n.text for n in device.notices)


def test_a_fleet_sums_in_groups_and_merges_their_means() -> None:
    table = Summing()
    table.merged(1)
    wanted = np.mean([t[0] for t in table.trained.values()], axis=0)
    assert all(near(device, wanted) for device in table.devices)
    assert all(table.summed(device) == 1 for device in table.devices)


def test_one_group_alone_is_its_own_mean() -> None:
    table = Summing(count=5)
    table.merged(2)
    assert all(table.summed(device) == 2 for device in table.devices)
    [first, *rest] = [d.node.base for d in table.devices]
    assert first is not None
    assert all(other is not None and np.array_equal(first, other) for other in rest)


def test_nothing_of_a_device_s_own_model_ever_leaves_it_bare() -> None:
    table = Summing()
    table.merged(3)
    for device in table.devices:
        plan = table.plan(device)
        left = objects(device)
        assert len(table.trained[device.id]) >= 3
        for trained in table.trained[device.id]:
            bare = (trained.tobytes(), words(trained, plan).tobytes())
            plain = encode_update(table.lineage, "f32", trained)
            assert not any(form in data for data in left for form in (*bare, plain))


def test_all_of_a_group_publish_the_same_update_and_it_is_their_mean() -> None:
    table = Summing()
    table.merged(1)
    for device in table.devices:
        group = table.group_of(device)
        named = {h.update.digest for d in group for h in heads(d) if h.update is not None}
        assert len(named) == 1
        mean = np.mean([table.trained[d.id][0] for d in group], axis=0)
        [pub] = {d.node._core.job.pub_digest for d in group}
        assert pub in named
        assert np.allclose(device.node._core.job.pub, mean, atol=1e-6)


@pytest.mark.parametrize("step", range(6))
def test_who_vanishes_at_any_step_costs_its_group_nothing(step: int) -> None:
    """Of four three are enough. It vanishes when its head names so many objects of the attempt."""
    table = Summing()
    lost = table.devices[0]

    def said() -> int:
        ref = lost.node._core.sums.ref
        return len(ref.objects) if ref is not None else 0

    table.until(lambda: said() >= step and table.trained[lost.id], table.window_s * 2)
    proposes = table.proposer(lost) is lost
    group = [d for d in table.group_of(lost) if d is not lost]
    lost.down = True
    table.merged(1, who=[d for d in table.devices if d is not lost])
    if not proposes or step > 4:
        assert all(table.summed(d) == 1 for d in group), notices(group[0])
    table.merged(2, who=[d for d in table.devices if d is not lost])
    assert all(table.summed(d) >= 1 for d in group), notices(group[0])


def test_two_of_four_gone_is_a_clean_end_and_the_next_window_is_another_chance() -> None:
    table = Summing()
    group = table.group_of(table.devices[0])
    others = [d for d in table.devices if d not in group]
    table.until(lambda: table.trained[group[0].id], 2 * table.window_s)
    for device in group[:2]:
        device.down = True
    table.until(lambda: group[2].node.view().merges or len(table.trained[group[2].id]) > 1, 200.0)
    for device in group[2:]:
        assert table.summed(device) == 0
        assert not any(h.update for h in heads(device))
        assert not any(isinstance(m, SumReveal) for m in spoken(device))
    for device in group[:2]:
        device.down = False
    table.merged(3, windows=6)
    assert all(table.summed(d) >= 1 for d in [*group, *others])


@pytest.mark.parametrize("step", range(1, 6))
def test_a_restart_within_an_attempt_signs_nothing_twice(step: int) -> None:
    table = Summing()
    device = table.devices[0]

    def said() -> int:
        ref = device.node._core.sums.ref
        return len(ref.objects) if ref is not None else 0

    table.until(lambda: said() >= step, table.window_s * 2)
    table.restart(device)
    table.introduce(*[d for d in table.devices if d is not device])
    table.introduce(device)
    table.merged(2)
    seen: dict[tuple[bytes, type[Message]], set[bytes]] = {}
    for message in spoken(device):
        seen.setdefault((message.attempt, type(message)), set()).add(repr(message).encode())
    assert all(len(versions) == 1 for versions in seen.values())
    assert not any(d.node.view().evidence for d in table.devices)
    assert table.summed(device) >= 1


def test_what_an_attempt_stored_leaves_the_store_with_the_next() -> None:
    table = Summing()
    table.merged(3)
    for device in table.devices:
        stored = [
            name
            for commit in device.sent(Commit)
            for name, data in commit.batch.objects
            if device.store.get(name) is not None and _is_of_a_sum(data, table.count)
        ]
        assert 0 < len(stored) <= 7


def _is_of_a_sum(data: bytes, count: int) -> bool:
    return len(data) == 4 * count or b"sum-" in data[:12]


# --- who is in no group, whom nothing else lets publish -------------------------------------------


def test_a_device_in_no_group_merges_the_means_of_all() -> None:
    table = Summing()
    guest = table.device()
    table.introduce()
    table.employ(guest)
    table.merged(2)
    assert not any(h.update for h in heads(guest))
    assert guest.node.base is not None
    assert table.trained[table.devices[0].id]


def test_an_older_copy_of_its_disk_waits_for_a_window_of_its_own() -> None:
    """It must not sign in an attempt that it took part in before: others would prove it a liar."""
    table = Summing()
    device = table.devices[0]
    old = deepcopy(device.store)
    table.until(lambda: len(spoken(device)) >= 3, 2 * table.window_s)
    table.restart(device, old)
    table.introduce()
    table.merged(3)
    assert not any(d.node.view().evidence for d in table.devices)


def test_noise_beside_the_sum_is_spent_before_anything_leaves() -> None:
    budget = {"epsilon": 8.0, "clip": 1.0, "z": 4.0}
    table = Summing(budget=budget)
    table.merged(2)
    for device in table.devices:
        rows = device.store.load().ledger
        out = {d for c in device.sent(Commit) for d, data in c.batch.objects if len(data) == 24}
        released = [parse_entry(row.data) for row in rows]
        names = {entry.released for entry in released if isinstance(entry, Released)}
        assert len(out) >= 2
        assert out <= names, "a masked vector left that is in no ledger"
    mean = np.mean([t[0] for t in table.trained.values()], axis=0)
    assert not near(table.devices[0], mean)


def test_what_was_trained_before_the_policy_asked_for_noise_is_not_masked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The new policy is in force when a model without noise comes from the old one's job."""

    def before_noise(*asked: Any) -> Any:
        answer = local_step(*asked)
        assert isinstance(answer, TrainingFinished)
        assert isinstance(answer.model, Hidden)
        return replace(answer, model=Hidden(answer.model.vector))

    monkeypatch.setattr(harness, "local_step", before_noise)
    table = Summing(budget=NOISE)
    table.advance(4 * table.window_s)
    for device in table.devices:
        assert "before the policy asked for noise" in notices(device)
        assert not any(len(data) == 24 for c in device.sent(Commit) for _, data in c.batch.objects)


@pytest.mark.parametrize("size", [4, 8])
def test_a_policy_that_comes_while_a_device_trains_ends_its_part_under_the_old_one(
    size: int,
) -> None:
    """Without noise under both: nothing else keeps what was trained for one group from another."""
    table = Summing()
    device = table.devices[0]
    held = first_held(table, device, StartTraining)
    table.until(lambda: held, 2 * table.window_s)
    old = {table.plan(device, number).id for number in range(2)}
    sums = msgspec.structs.replace(table.schedule.sums, size=size, reach=4.0)
    table.policy = table.fleet.policy(
        table.job,
        n=8,
        rule="nna",
        version=2,
        prev=digest(table.policy),
        privacy=Privacy(mode="group-sum", sums=sums),
        issued=int(table.wall),
    )
    table.employ()
    table.send(device, local_step(held[0], device.trainer, bytes))
    table.merged(2)
    assert not any(message.attempt in old for message in spoken(device))
    assert table.summed(device) >= 1


def test_a_masked_vector_that_comes_late_is_neither_kept_nor_charged() -> None:
    """Its attempt has gone on without it."""
    table = Summing(budget=NOISE)
    device = table.devices[0]
    held = first_held(table, device, SumMask)
    table.until(lambda: held, 2 * table.window_s)
    turns = device.node._core.sums.turns

    def is_past() -> bool:
        return turns._attempt is not None and turns._attempt.phase is AttemptPhase.REVEALS

    table.until(is_past, table.window_s)
    late = sum_step(held[0])
    assert isinstance(late, SumMasked)
    table.send(device, late)
    table.advance(1.0)
    assert device.store.load().ledger == ()
    assert device.store.get(late.name) is None
    table.merged(2)
    rows = [parse_entry(row.data) for row in device.store.load().ledger]
    out = {d for c in device.sent(Commit) for d, data in c.batch.objects if len(data) == 24}
    assert out
    assert {row.released for row in rows if isinstance(row, Released)} >= out - {late.name}
    assert late.name not in {row.released for row in rows if isinstance(row, Released)}


def lost_after_vectors(table: Summing) -> list[Device]:
    """The proposer of a group says nothing after the roster, so the first attempt fails when the
    vectors are out. The others of the group."""
    liar = table.proposer(in_window(table))
    says(liar, lambda signed: [] if isinstance(signed.message, SumSet) else [signed.message])
    return [d for d in table.group_of(liar) if d is not liar]


def test_without_noise_a_window_in_which_a_vector_went_out_in_vain_has_no_second_one() -> None:
    """Trained again from the same base, by the same group: two sums would differ by one member."""
    table = Summing(attempts=3)
    group = lost_after_vectors(table)
    window = table.plan(group[0]).window
    table.merged(1, who=group)
    for device in group:
        masked = [effect.plan for effect in device.sent(SumMask) if effect.plan.window == window]
        assert len(masked) == 1
        assert not any(effect.plan.window == window for effect in device.sent(SumUncover))
        assert table.summed(device) >= 1, "another window has its sum"


def test_with_noise_it_trains_again_and_each_vector_is_a_release() -> None:
    table = Summing(budget=NOISE)
    group = lost_after_vectors(table)
    table.merged(1, who=group)
    for device in group:
        assert table.summed(device) == 1
        rows = [parse_entry(row.data) for row in device.store.load().ledger]
        assert sum(isinstance(row, Released) for row in rows) == 2


def test_a_spent_budget_takes_a_device_out_of_the_sums_and_not_out_of_the_merges() -> None:
    table = Summing(budget={"epsilon": 1.0, "clip": 1.0, "z": 4.0})
    table.merged(1)
    merged = table.devices[0].node.view().merges
    table.until(lambda: all(d.node.view().listen_only for d in table.devices), 8 * table.window_s)
    spent = [len(d.store.load().ledger) for d in table.devices]
    table.advance(2 * table.window_s)
    assert [len(d.store.load().ledger) for d in table.devices] == spent
    assert table.devices[0].node.view().merges >= merged


# --- lies -----------------------------------------------------------------------------------------


def condemned(table: Summing, liar: Device) -> bool:
    honest = [d for d in table.devices if d is not liar]
    return all((view := d.peer(liar)) is not None and view.state == "condemned" for d in honest)


def in_window(table: Summing) -> Device:
    """Time passes until a window is trained in: some device of it."""
    device = table.devices[0]
    table.until(lambda: table.trained[device.id], 2 * table.window_s)
    return device


@pytest.mark.parametrize("shape", [SumKeys, SumShares, SumRoster, SumVector, SumSet])
def test_two_objects_for_one_step_condemn_their_signer_everywhere(shape: type[Message]) -> None:
    """A second reveal comes when all have their sum, and nobody looks any more."""
    table = Summing()
    liar = table.proposer(in_window(table))

    def twice(signed: Signed) -> Iterable[Message]:
        yield signed.message
        if isinstance(signed.message, shape):
            yield _other(signed.message)

    says(liar, twice)
    table.until(lambda: condemned(table, liar), 3 * table.window_s)
    honest = [d for d in table.devices if d is not liar]
    table.merged(3, who=honest, windows=6)
    assert not any(d.faults(other) for d in honest for other in honest)


def _other(message: Message) -> Message:
    """Another one that is well formed."""
    match message:
        case SumKeys():
            return msgspec.structs.replace(message, commitment=bytes(32))
        case SumShares():
            marks = [m and bytes([m[0] ^ 1]) + m[1:] for m in message.marks]
            return msgspec.structs.replace(message, marks=marks)
        case SumRoster():
            return msgspec.structs.replace(message, shares=[b"", *message.shares[1:]])
        case SumVector():
            return msgspec.structs.replace(message, vector=bytes(32))
        case SumSet():
            return msgspec.structs.replace(message, vectors=[b"", *message.vectors[1:]])
        case SumReveal():
            return message


def test_a_key_of_an_earlier_attempt_condemns_its_signer() -> None:
    table = Summing()
    liar = in_window(table)
    drawn = itertools.cycle([b"m", b"s", b"b"])  # the three secrets of an attempt, each time

    def secret(count: int) -> bytes:
        return next(drawn) * count if count == KEY_BYTES else bytes(range(count))

    liar.node._core.sums.turns._secret = secret
    table.until(lambda: condemned(table, liar), 5 * table.window_s)


def test_a_false_set_is_signed_by_nobody_and_the_next_attempt_has_its_sum() -> None:
    table = Summing(budget=NOISE)
    liar = table.proposer(in_window(table))
    group = [d for d in table.group_of(liar) if d is not liar]

    def false(signed: Signed) -> Iterable[Message]:
        message = signed.message
        if isinstance(message, SumSet):
            names = [bytes([9]) * 32 if name else b"" for name in message.vectors]
            message = msgspec.structs.replace(message, vectors=names)
        yield message

    says(liar, false)
    table.merged(1, who=group)
    for device in group:
        sets = [m for m in spoken(device) if isinstance(m, SumSet)]
        assert table.summed(device) == 1, notices(device)
        assert len({m.attempt for m in sets}) == 1  # in the second attempt, by another proposer
        assert Lie.STALLED.value in notices(device)


@pytest.mark.parametrize("shape", [SumRoster, SumSet])
def test_a_proposer_that_stalls_costs_an_attempt(shape: type[Message]) -> None:
    table = Summing(budget=NOISE)
    liar = table.proposer(in_window(table))
    group = [d for d in table.group_of(liar) if d is not liar]
    says(liar, lambda signed: [] if isinstance(signed.message, shape) else [signed.message])
    table.merged(1, who=group)
    assert all(table.summed(device) == 1 for device in group), notices(group[0])
    assert all(len(d.sent(SumUncover)) == 1 for d in group)


def test_who_asks_for_both_shares_gets_neither() -> None:
    """The proposer signs two sets, so that one member is in one of them and not in the other."""
    table = Summing()
    liar = table.proposer(in_window(table))
    group = [d for d in table.group_of(liar) if d is not liar]

    def both(signed: Signed) -> Iterable[Message]:
        yield signed.message
        if isinstance(signed.message, SumSet):
            at = table.plan(liar).members.index(group[0].id)
            names = [b"" if n == at else v for n, v in enumerate(signed.message.vectors)]
            yield msgspec.structs.replace(signed.message, vectors=names)

    says(liar, both)
    table.until(lambda: condemned(table, liar), 3 * table.window_s)
    for device in group:
        sets = {m.set for m in spoken(device) if isinstance(m, SumReveal)}
        assert len(sets) <= 1


def test_a_wrong_vector_s_length_is_its_signer_s_fault() -> None:
    table = Summing(budget=NOISE)
    liar = in_window(table)
    turns = liar.node._core.sums.turns
    honest = turns.masked

    def masked(event: SumMasked) -> None:
        data = event.data[:-4]
        honest(SumMasked(event.job, digest(data), data))

    turns.masked = masked  # type: ignore[method-assign]
    group = [d for d in table.group_of(liar) if d is not liar]
    table.merged(1, who=group)
    assert any(Fault.WRONG_LENGTH.value in d.faults(liar) for d in group)
    assert all(table.summed(d) == 1 for d in group)


# --- what is merged -------------------------------------------------------------------------------


def test_one_mean_of_each_other_group_is_merged_and_the_receipt_says_so() -> None:
    table = Summing(count=16, attackers=1)
    table.merged(1)
    for device in table.devices:
        [merge] = device.sent(StartMerge)[-1:]
        assert len(merge.received) == 3
        assert merge.f == 1


def test_a_mean_that_one_member_alone_names_is_merged_by_nobody() -> None:
    """A liar may publish what it likes as its group's mean: the others of its group outvote it."""
    table = Summing(count=16, attackers=1)
    liar = in_window(table)
    sums = liar.node._core.sums

    def false(mean: Summed, attempt: bytes, window: int) -> None:
        honest(summed(mean.vector + np.float32(5.0), 4, 3), attempt, window)

    honest = sums._publish
    sums._publish = false  # type: ignore[method-assign]
    table.merged(1)
    for device in table.devices:
        if device is not liar:
            [merge] = device.sent(StartMerge)
            assert all(np.abs(row).max() < 3.0 for row in merge.received)
