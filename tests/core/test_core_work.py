"""The heavy steps and the store's fake: foreign code and disks that fail end no node."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from harness import Table, Toy

from gossipfl.aggregation import merge_step
from gossipfl.aggregation.collapse import RECEIVED_MIN
from gossipfl.anomaly import measure as traits_of
from gossipfl.convergence import convergence
from gossipfl.errors import StoreError
from gossipfl.events import (
    Batch,
    Measure,
    Measured,
    MergeFailed,
    MergeFinished,
    StartMerge,
    StartTraining,
    TrainingFailed,
    TrainingFinished,
)
from gossipfl.interfaces import Evaluation
from gossipfl.memory import Crash, MemoryStore, StoreFault
from gossipfl.messages import Training
from gossipfl.parameters import Vector
from gossipfl.privacy import DevicePrivacy, Noised, RecordPrivacy
from gossipfl.work import CATASTROPHE_NATS, local_step, measure, merge

ONES = np.ones(4, np.float32)


class Odd(Toy):
    """A trainer that does what the test says."""

    def __init__(self, trained: Any = None, losses: dict[float, float] | None = None) -> None:
        super().__init__(4, 0)
        self.trained = trained
        self.losses = losses or {}

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        if isinstance(self.trained, Exception):
            raise self.trained
        return self.trained  # type: ignore[no-any-return]

    def train_private(
        self, base: Vector, training: Training, mode: RecordPrivacy, key: bytes
    ) -> Noised:
        if isinstance(self.trained, Exception):
            raise self.trained
        return super().train_private(base, training, mode, key)

    def loss(self, parameters: Vector) -> float:
        return self.losses.get(float(parameters[0]), 0.0)

    def evaluate(self, parameters: Vector) -> Evaluation:
        return Evaluation(self.loss(parameters), float(parameters[0]), 10)


def train(trained: Any) -> TrainingFinished | TrainingFailed:
    return local_step(
        StartTraining(7, ONES, Training(), 1), Odd(trained), random.Random(1).randbytes
    )


def merged(
    trainer: Toy, received: list[float], previous: float | None = None, rule: str = "mean"
) -> MergeFinished | MergeFailed:
    rows = tuple(np.full(4, value, np.float32) for value in received)
    before = None if previous is None else np.full(4, previous, np.float32)
    return merge(StartMerge(9, rule, ONES, rows, 0, before), trainer)


def test_training_answers_with_its_job() -> None:
    answer = train(2 * ONES)
    assert isinstance(answer, TrainingFinished)
    assert answer.job == 7


@pytest.mark.parametrize(
    ("trained", "said"),
    [
        (np.array([1, np.nan, 1, 1], np.float32), "not finite: training diverged"),
        (np.array([1, np.inf, 1, 1], np.float32), "not finite: training diverged"),
        (ValueError("bad batch"), "ValueError: bad batch"),
        (MemoryError("no room"), "MemoryError: no room"),
        (None, "TypeError"),
    ],
)
def test_whatever_a_trainer_does_is_an_answer(trained: Any, said: str) -> None:
    answer = train(trained)
    assert isinstance(answer, TrainingFailed)
    assert answer.job == 7
    assert said in answer.reason


@pytest.mark.parametrize(
    "trained",
    [np.ones(3, np.float32), np.ones((2, 2), np.float32), np.ones(4, np.float64), np.ones(4, int)],
    ids=["too short", "a matrix", "float64", "integers"],
)
def test_a_model_of_another_form_is_not_published(trained: Any) -> None:
    table = Table(n=2)
    me, x = table.device(), table.puppet()
    x.publish_update(table.lineage, ONES)
    table.introduce()
    me.trainer.train = lambda base, training, seed: trained  # type: ignore[method-assign]
    table.employ()
    table.advance(60.0)
    said = ("not fit to publish", "training failed")
    assert [n for n in me.notices if any(words in n.text for words in said)]
    assert not [name for name, data in me.store._objects.items() if data[:4] == b"GFU1"]


def test_a_merge_says_how_far_each_one_lay_and_how_it_does_here() -> None:
    answer = merged(Odd(), [1.0, 4.0])
    assert isinstance(answer, MergeFinished)
    assert answer.job == 9
    assert list(answer.distances) == pytest.approx([0.0, 6.0])
    assert answer.accuracy == pytest.approx(2.0), "of the merge, (1 + 1 + 4) / 3"
    assert not answer.kept_old


@pytest.mark.parametrize(
    ("loss", "kept"),
    [
        (0.5 + CATASTROPHE_NATS - 0.01, False),  # worse, as merges are under skew
        (0.5 + CATASTROPHE_NATS + 0.01, True),
        (float("inf"), True),
        (float("nan"), True),  # not a number is not "not worse"
    ],
)
def test_the_guard_keeps_the_old_base_from_a_catastrophe(loss: float, kept: bool) -> None:
    trainer = Odd(losses={2.0: loss, 8.0: 0.5})
    answer = merged(trainer, [3.0], previous=8.0)
    assert isinstance(answer, MergeFinished)
    assert answer.kept_old is kept
    assert answer.accuracy == pytest.approx(8.0 if kept else 2.0), "of what training starts from"
    assert float(answer.merge.parameters[0]) == 2.0, "the merge itself stays what anyone recomputes"


def test_without_a_previous_base_nothing_is_guarded() -> None:
    answer = merged(Odd(losses={2.0: 99.0}), [3.0])
    assert isinstance(answer, MergeFinished)
    assert not answer.kept_old


def test_a_rule_that_cannot_and_a_guard_that_fails_are_answers() -> None:
    answer = merged(Odd(), [1.0], rule="krum")
    assert isinstance(answer, MergeFailed)
    assert "krum" in answer.reason

    class Broken(Odd):
        def loss(self, parameters: Vector) -> float:
            raise RuntimeError("session is gone")

    answer = merged(Broken(), [1.0], previous=2.0)
    assert isinstance(answer, MergeFailed)
    assert answer.reason == "RuntimeError: session is gone"


def test_local_data_that_cannot_be_read_take_no_merge_away() -> None:
    class Blind(Odd):
        def evaluate(self, parameters: Vector) -> Evaluation:
            raise RuntimeError("session is gone")

    answer = merged(Blind(), [3.0])
    assert isinstance(answer, MergeFinished)
    assert (answer.accuracy, answer.loss) == (None, None)
    assert float(answer.merge.parameters[0]) == 2.0


# --- the store's fake ----------------------------------------------------------------------------


def test_a_head_must_follow_the_durable_one() -> None:
    store = MemoryStore()
    store.commit(Batch(seq=1, head=b"one"))
    for seq in (1, 3, 0):
        with pytest.raises(StoreError, match="does not follow"):
            store.commit(Batch(seq=seq, head=b"another"))
    assert store.load().head == b"one"
    store.commit(Batch(seq=9, head=b"nine", adopt=True))
    with pytest.raises(StoreError):
        store.commit(Batch(seq=5, head=b"five", adopt=True))
    assert store.load().head == b"nine"


def test_a_refused_batch_leaves_nothing_behind() -> None:
    store = MemoryStore()
    store.commit(Batch(seq=1, head=b"one", objects=((b"a", b"A"),), documents={"d": b"1"}))
    with pytest.raises(StoreError):
        store.commit(
            Batch(seq=3, head=b"3", objects=((b"b", b"B"),), documents={"d": b"2"}, retire=(b"a",))
        )
    assert store.get(b"b") is None
    assert store.get(b"a") == b"A"
    assert store.load().documents["d"] == b"1"


@pytest.mark.parametrize(
    ("fault", "error", "written"),
    [
        (StoreFault.NOT_DONE, StoreError, False),
        (StoreFault.DONE_BUT_ERROR, StoreError, True),
        (StoreFault.CRASH_BEFORE, Crash, False),
        (StoreFault.CRASH_AFTER, Crash, True),
    ],
)
def test_the_fake_fails_both_ways(
    fault: StoreFault, error: type[BaseException], written: bool
) -> None:
    store = MemoryStore()
    store.faults = [fault]
    with pytest.raises(error):
        store.commit(Batch(seq=1, head=b"one", objects=((b"a", b"A"),)))
    assert (store.load().head == b"one") is written
    assert (store.get(b"a") == b"A") is written
    store.commit(Batch(seq=2 if written else 1, head=b"next"))


def test_a_copy_is_on_its_own() -> None:
    store = MemoryStore()
    store.commit(Batch(seq=1, head=b"one", links=(("head", 1, b"a"),), objects=((b"a", b"A"),)))
    copy = store.copy()
    store.commit(Batch(seq=2, head=b"two", prune=(("head", 2),)))
    assert copy.load().head == b"one"
    assert copy.get(b"a") == b"A"
    assert store.get(b"a") is None, "pruned links take their objects along"
    copy.commit(Batch(seq=2, head=b"another two"))


# --- at rest ------------------------------------------------------------------------------------


def test_a_measurement_that_fails_ends_no_node() -> None:
    class Failing(Odd):
        def evaluate(self, parameters: Vector) -> Evaluation:
            raise RuntimeError("the disk with the data is gone")

    assert measure(Measure(3, ONES), Failing()) == Measured(3, None, None)
    assert measure(Measure(3, ONES), Odd(losses={1.0: 0.5})) == Measured(3, 0.5, 1.0)


def test_who_asks_for_no_convergence_pays_for_none() -> None:
    answer = merged(Odd(), [1.0, 2.0])
    assert isinstance(answer, MergeFinished)
    assert answer.seen is None


@pytest.mark.parametrize("count", [RECEIVED_MIN - 1, RECEIVED_MIN, 19])
@pytest.mark.parametrize("rule", ["nna", "median", "collapse+nna"])
def test_a_merge_measures_what_it_would_measure_one_by_one(count: int, rule: str) -> None:
    """Distances are shared by the rule, the traits and the convergence; the figures are theirs."""
    rows = np.random.default_rng(count).standard_normal((count + 3, 3000)).astype(np.float32)
    own, before, initial, *received = rows
    answer = merge(StartMerge(9, rule, own, tuple(received), 2, None, initial, before), Odd())
    assert isinstance(answer, MergeFinished)
    alone = merge_step(rule, own, received, 2)
    np.testing.assert_array_equal(answer.merge.parameters, alone.parameters)
    assert answer.merge.influence == alone.influence
    expected = [float(np.linalg.norm(row.astype(np.float64) - own)) for row in received]
    assert answer.distances == pytest.approx(expected, rel=1e-5)
    traits = traits_of(own, before, alone.parameters, received, alone.influence)
    assert answer.traits == traits
    assert {trait.crowd is None for trait in traits} == {count < RECEIVED_MIN}
    assert answer.seen == convergence(alone, received, own, before, initial, 2)


# --- with privacy on ----------------------------------------------------------------------------

DEVICE = DevicePrivacy(clip=1.0, z=2.0)
RECORD = RecordPrivacy(clip=1.0, z=2.0, sample_rate=0.5, steps=2, lot=4)


def private(trained: Any, mode: DevicePrivacy | RecordPrivacy = DEVICE) -> TrainingFinished:
    effect = StartTraining(7, ONES, Training(), 1, mode)
    answer = local_step(effect, Odd(trained), random.Random(1).randbytes)
    assert isinstance(answer, TrainingFinished), "a silence would tell something about the data"
    return answer


@pytest.mark.parametrize(
    "trained",
    [np.full(4, np.nan, np.float32), ValueError("bad batch"), np.zeros(5, np.float32)],
    ids=["diverged", "failed", "other shape"],
)
def test_a_failed_training_goes_out_as_noise_around_no_change(trained: Any) -> None:
    answer = private(trained)
    assert isinstance(answer.model, Noised)
    assert answer.model.spec == DEVICE
    np.testing.assert_array_equal(answer.model.vector, private(ONES).model.vector)


def test_what_leaves_is_never_the_trained_model() -> None:
    answer = private(2 * ONES)
    assert isinstance(answer.model, Noised)
    assert not np.isin(answer.model.vector, 2 * ONES).any()
    assert answer.problem == ""


def test_dp_sgd_that_fails_goes_out_as_noise_of_nobodys_examples() -> None:
    answer = private(ValueError("no data"), RECORD)
    assert isinstance(answer.model, Noised)
    assert answer.model.spec == RECORD
    assert answer.problem
    assert np.isfinite(answer.model.vector).all()
    assert not np.array_equal(answer.model.vector, ONES)


def test_each_training_draws_a_key_of_its_own() -> None:
    drawn: list[int] = []

    def entropy(count: int) -> bytes:
        drawn.append(count)
        return bytes([len(drawn)]) * count

    made = []
    for _ in range(2):
        effect = StartTraining(7, ONES, Training(), 1, DEVICE)
        answer = local_step(effect, Odd(2 * ONES), entropy)
        assert isinstance(answer, TrainingFinished)
        made.append(answer.model.vector)
    assert drawn == [32, 32]
    assert not np.array_equal(*made)
