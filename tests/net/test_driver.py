"""The driver on the real loop, with a scripted node, a transport in memory and a failing store."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from netkit import until

from gossipfl.config import Limits
from gossipfl.errors import Fault, LocalError, StoreError, UserError
from gossipfl.events import (
    Address,
    Batch,
    Cancel,
    Commit,
    CutOff,
    DeadlineReached,
    Effect,
    Event,
    FetchFailed,
    FetchHead,
    FetchObject,
    HeadReceived,
    JobFailed,
    JobReady,
    Loaded,
    LoadJob,
    Measure,
    Measured,
    MergeFinished,
    Notice,
    ObjectReceived,
    PeerGone,
    PeerSeen,
    Reload,
    Snapshot,
    Source,
    Start,
    StartMerge,
    StartTraining,
    Stop,
    Stored,
    StoreFailed,
    Topic,
    TrainingFailed,
    TrainingFinished,
)
from gossipfl.interfaces import Evaluation
from gossipfl.memory import Crash, MemoryStore, StoreFault
from gossipfl.messages import Training
from gossipfl.net import driver as driver_module
from gossipfl.net.driver import Driver, Hooks, Ports
from gossipfl.parameters import Layout, Tensor, Vector

HERE = Address("127.0.0.1", 1)
SEEN = PeerSeen(HERE, Source.MDNS)
TRAINING = Training(epochs=1, batch=1, learning_rate=0.1)


class Version:
    def __init__(self) -> None:
        self.version = 0


class ScriptedNode:
    """Answers each event by the first rule that fits; remembers all of them."""

    def __init__(self) -> None:
        self.deadline = math.inf
        self.shelf = Version()
        self.events: list[Event] = []
        self.times: list[float] = []
        self.rules: list[tuple[type, Callable[[Any], list[Effect]]]] = []

    def on(self, kind: type, *effects: Effect) -> None:
        self.rules.append((kind, lambda _: list(effects)))

    def handle(self, event: Event, now: float) -> list[Effect]:
        self.events.append(event)
        self.times.append(now)
        for at, (kind, rule) in enumerate(self.rules):
            if isinstance(event, kind):
                del self.rules[at]  # a rule is good once
                return rule(event)
        return []

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def saw(self, kind: type) -> bool:
        return any(isinstance(event, kind) for event in self.events)


class Memory:
    """A transport whose answers are given out by the test; unanswered requests wait."""

    def __init__(self) -> None:
        self.answers: dict[int, Event | Exception] = {}
        self.asked: list[int] = []
        self.cancelled: list[int] = []

    async def fetch_head(self, effect: FetchHead) -> HeadReceived | FetchFailed:
        return await self._fetch(effect.request)

    async def fetch_object(self, effect: FetchObject) -> ObjectReceived | FetchFailed:
        return await self._fetch(effect.request)

    async def _fetch(self, request: int) -> Any:
        self.asked.append(request)
        try:
            await until(lambda: request in self.answers)
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise
        answer = self.answers[request]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Learner:
    """Adds one to every parameter; can be made to wait or to break."""

    layout = Layout((Tensor("w", (3,), 0),))
    initial = np.zeros(3, np.float32)

    def __init__(self) -> None:
        self.gate: threading.Event | None = None
        self.broken = False
        self.threads: list[str] = []

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        self.threads.append(threading.current_thread().name)
        if self.gate is not None:
            self.gate.wait(20.0)
        if self.broken:
            raise RuntimeError("no data")
        return base + np.float32(1.0)

    def evaluate(self, parameters: Vector) -> Evaluation:
        self.threads.append(threading.current_thread().name)
        return Evaluation(loss=0.5, accuracy=0.75, examples=4)

    def loss(self, parameters: Vector) -> float:
        return 0.5


@dataclass
class Bench:
    node: ScriptedNode
    driver: Driver
    fetcher: Memory
    store: MemoryStore
    learner: Learner
    notices: list[Notice]
    cut: list[bytes] = field(default_factory=list)
    changes: list[int] = field(default_factory=list)
    running: asyncio.Task[None] | None = None

    async def sees(self, kind: type, bound_s: float = 10.0) -> Any:
        """The first event of this kind, waited for."""
        await until(lambda: self.node.saw(kind) or self._over(), bound_s)
        return next(event for event in self.node.events if isinstance(event, kind))

    def _over(self) -> bool:
        return self.running is not None and self.running.done()


def bench(store: MemoryStore | None = None, hooks: Hooks | None = None) -> Bench:
    node, fetcher, learner = ScriptedNode(), Memory(), Learner()
    store = store or MemoryStore()
    notices: list[Notice] = []
    cut: list[bytes] = []
    changes: list[int] = []

    def load_job(bundle: bytes, data: bytes) -> Learner:
        if data == b"refused":
            raise UserError("GF401", "it has an operator that is not allowed")
        if data == b"broken":
            raise ValueError("bad graph")
        return learner

    ports = Ports(
        fetcher,
        store,
        load_job,
        notices.append,
        cut.append,
        lambda: changes.append(node.shelf.version),
    )
    return Bench(node, Driver(node, ports, hooks), fetcher, store, learner, notices, cut, changes)


@asynccontextmanager
async def running(made: Bench) -> AsyncIterator[Bench]:
    """Runs it, and ends it properly; the driver's own exceptions surface here."""
    made.running = asyncio.create_task(made.driver.run())
    try:
        await made.sees(Start)
        yield made
    finally:
        await made.driver.stop()
        await made.running


def trained(made: Bench, *effects: Effect) -> None:
    """The node gets its job at the start, then asks for these."""
    made.node.on(Start, LoadJob(b"b" * 32, b"bundle"))
    made.node.on(JobReady, *effects)


def step(job: int) -> StartTraining:
    return StartTraining(job, np.zeros(3, np.float32), TRAINING, 0)


async def test_start_brings_what_is_durable_and_stop_comes_last() -> None:
    made = bench(MemoryStore(Snapshot(head=b"head 7")))
    async with running(made):
        made.driver.offer(SEEN)
    assert made.node.kinds() == ["Start", "PeerSeen", "Stop"]
    assert made.node.events[0].snapshot.head == b"head 7"  # type: ignore[union-attr]
    assert made.node.times == sorted(made.node.times)


async def test_requests_are_answered_by_number() -> None:
    made = bench()
    made.node.on(Start, FetchHead(1, HERE, None, None, 0.0, 0), FetchObject(2, HERE, b"d", 10))
    made.fetcher.answers[2] = ObjectReceived(2, b"object")
    async with running(made):
        assert await made.sees(ObjectReceived) == ObjectReceived(2, b"object")
        made.fetcher.answers[1] = FetchFailed(1, Fault.UNREACHABLE, "away")
        assert await made.sees(FetchFailed) == FetchFailed(1, Fault.UNREACHABLE, "away")


async def test_a_cancelled_request_is_never_answered() -> None:
    made = bench()
    made.node.on(Start, FetchHead(1, HERE, None, None, 0.0, 0))
    made.node.on(PeerSeen, Cancel(1), Cancel(99))
    async with running(made):
        await until(lambda: made.fetcher.asked == [1])
        made.driver.offer(SEEN)
        await until(lambda: made.fetcher.cancelled == [1])
        made.fetcher.answers[1] = HeadReceived(1, b"head")
    assert not made.node.saw(HeadReceived)


async def test_the_deadline_is_pulled_and_comes_once_it_is_reached() -> None:
    made = bench()
    loop = asyncio.get_running_loop()
    async with running(made):
        made.node.deadline = wanted = loop.time() + 0.1

        def later(_: Event) -> list[Effect]:
            made.node.deadline = math.inf
            return []

        made.node.rules.append((DeadlineReached, later))
        made.driver.offer(SEEN)  # any event: the deadline is looked at after it
        await made.sees(DeadlineReached)
        at = made.node.times[made.node.kinds().index("DeadlineReached")]
    assert wanted <= at < wanted + 1.0
    assert made.node.kinds().count("DeadlineReached") == 1


async def test_a_deadline_that_moves_earlier_counts_at_once() -> None:
    made = bench()
    loop = asyncio.get_running_loop()
    async with running(made):
        made.node.deadline = loop.time() + 1_000.0
        made.driver.offer(SEEN)
        await made.sees(PeerSeen)

        def sooner(_: Event) -> list[Effect]:
            made.node.deadline = loop.time()
            return []

        def done(_: Event) -> list[Effect]:
            made.node.deadline = math.inf
            return []

        made.node.rules += [(PeerSeen, sooner), (DeadlineReached, done)]
        made.driver.offer(SEEN)
        await made.sees(DeadlineReached)


async def test_events_are_not_starved_by_a_deadline_that_is_always_due() -> None:
    made = bench()
    async with running(made):

        def always(_: Event) -> list[Effect]:
            made.node.rules.append((DeadlineReached, always))
            made.node.deadline = asyncio.get_running_loop().time()
            return []

        made.node.rules.append((PeerSeen, always))
        made.driver.offer(SEEN)
        await made.sees(DeadlineReached)
        made.driver.offer(PeerGone(HERE))
        await made.sees(PeerGone)


async def test_a_deadline_that_never_moves_is_a_bug_and_loud(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver_module, "SPINS_MAX", 50)
    made = bench()
    made.node.deadline = 0.0
    with pytest.raises(LocalError, match="does not move on"):
        await asyncio.wait_for(made.driver.run(), 30.0)
    await made.driver.stop()  # and stopping afterwards does not hang


async def test_a_commit_is_durable_before_what_is_behind_it() -> None:
    made = bench()
    seen: list[int] = []

    def fetch(effect: Effect) -> None:
        if isinstance(effect, FetchHead):
            seen.append(made.store.commits)

    made = bench(made.store, Hooks(on_effect=fetch))
    made.node.on(
        Start, Commit(7, Batch(seq=1, head=b"head 1")), FetchHead(1, HERE, None, None, 0.0, 0)
    )
    async with running(made):
        assert await made.sees(Stored) == Stored(7)
    assert seen == [1]
    assert made.store.load().head == b"head 1"


@pytest.mark.parametrize("fault", [StoreFault.NOT_DONE, StoreFault.DONE_BUT_ERROR])
async def test_a_doubtful_commit_drops_the_rest_and_is_read_again(fault: StoreFault) -> None:
    made = bench()
    made.store.faults = [fault]
    made.node.on(
        Start, Commit(7, Batch(seq=1, head=b"head 1")), FetchHead(1, HERE, None, None, 0.0, 0)
    )
    made.node.on(StoreFailed, Reload())
    async with running(made):
        loaded = await made.sees(Loaded)
    assert made.fetcher.asked == []
    assert made.node.kinds()[:3] == ["Start", "StoreFailed", "Loaded"]
    done = fault is StoreFault.DONE_BUT_ERROR
    assert loaded.snapshot.head == (b"head 1" if done else None)


async def test_nothing_overtakes_a_commits_outcome() -> None:
    """What was queued while the disk was at work comes after Stored."""
    made = bench()
    gate = threading.Event()
    commit = made.store.commit

    def slow(batch: Batch) -> None:
        gate.wait(20.0)
        commit(batch)

    made.store.commit = slow  # type: ignore[method-assign]
    made.node.on(Start, Commit(1, Batch(seq=1, head=b"head 1")))
    async with running(made):
        for _ in range(3):
            made.driver.offer(SEEN)
        assert made.node.kinds() == ["Start"]
        gate.set()
        await made.sees(PeerSeen)
    assert made.node.kinds()[:3] == ["Start", "Stored", "PeerSeen"]


async def test_while_a_commit_takes_long_somebody_is_told_and_nothing_else_is_handled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver_module, "BEAT_S", 0.01)
    waited: list[bool] = []
    made = bench(hooks=Hooks(on_wait=lambda: waited.append(made.node.saw(Stored))))
    gate = threading.Event()
    commit = made.store.commit

    def slow(batch: Batch) -> None:
        assert gate.wait(10)
        commit(batch)

    made.store.commit = slow  # type: ignore[method-assign]
    made.node.on(Start, Commit(1, Batch(seq=1, head=b"head 1")))
    async with running(made):
        async with asyncio.timeout(10):
            while len(waited) < 3:  # noqa: ASYNC110 - what is counted is called from outside
                await asyncio.sleep(0.005)
        gate.set()
        await made.sees(Stored)
    assert not any(waited)


async def test_a_disk_that_cannot_be_read_is_tried_until_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver_module, "RELOAD_PAUSE_S", 0.01)
    made = bench()
    load, failures = made.store.load, [StoreError("no space"), OSError("input/output error")]

    def failing() -> Snapshot:
        if made.node.saw(Start) and failures:
            raise failures.pop(0)
        return load()

    made.store.load = failing  # type: ignore[method-assign]
    made.node.on(Start, Reload())
    async with running(made):
        await made.sees(Loaded)
    assert [n.text for n in made.notices if n.topic is Topic.STORE] == [
        "cannot read: no space",
        "cannot read: input/output error",
    ]


@pytest.mark.parametrize("fault", [StoreFault.CRASH_BEFORE, StoreFault.CRASH_AFTER])
async def test_a_simulated_crash_ends_the_run(fault: StoreFault) -> None:
    made = bench()
    made.store.faults = [fault]
    made.node.on(Start, Commit(7, Batch(seq=1, head=b"head 1")))
    with pytest.raises(Crash):
        await made.driver.run()
    assert made.node.kinds() == ["Start"]


async def test_training_and_merging_run_in_one_thread_off_the_loop() -> None:
    made = bench()
    rows = (np.ones(3, np.float32), np.zeros(3, np.float32))
    trained(made, step(1), StartMerge(2, "mean", rows[0], rows, 0, None))
    async with running(made):
        ready = await made.sees(JobReady)
        finished = await made.sees(TrainingFinished)
        merged = await made.sees(MergeFinished)
    assert ready.layout == Learner.layout
    assert (finished.job, finished.model.vector.tolist()) == (1, [1.0, 1.0, 1.0])
    assert (merged.job, merged.accuracy) == (2, 0.75)
    assert made.learner.threads == ["gossipfl-work"] * 2  # trained, and evaluated the merge


async def test_a_model_at_rest_is_measured_in_that_thread_too() -> None:
    made = bench()
    trained(made, Measure(5, np.ones(3, np.float32)))
    async with running(made):
        measured = await made.sees(Measured)
    assert (measured.job, measured.accuracy) == (5, 0.75)
    assert made.learner.threads == ["gossipfl-work"]


async def test_the_loop_goes_on_while_training() -> None:
    made = bench()
    made.learner.gate = threading.Event()
    trained(made, step(1))
    async with running(made):
        await until(lambda: made.learner.threads)
        made.driver.offer(SEEN)
        await made.sees(PeerSeen)
        assert not made.node.saw(TrainingFinished)
        made.learner.gate.set()
        await made.sees(TrainingFinished)


async def test_a_broken_trainer_is_an_event_and_not_the_end() -> None:
    made = bench()
    made.learner.broken = True
    trained(made, step(1))
    async with running(made):
        assert await made.sees(TrainingFailed) == TrainingFailed(1, "RuntimeError: no data")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"refused", "bundle refused (GF401): it has an operator that is not allowed"),
        (b"broken", "ValueError: bad graph"),
    ],
)
async def test_a_job_that_cannot_be_loaded_says_why(data: bytes, reason: str) -> None:
    made = bench()
    made.node.on(Start, LoadJob(b"b" * 32, data))
    async with running(made):
        assert await made.sees(JobFailed) == JobFailed(b"b" * 32, reason)


async def test_a_bug_in_the_node_ends_the_run_with_its_exception() -> None:
    made = bench()

    def broken(_: Event) -> list[Effect]:
        raise ZeroDivisionError

    made.node.on(Start, FetchHead(1, HERE, None, None, 0.0, 0))
    made.node.rules.append((PeerSeen, broken))
    run = asyncio.create_task(made.driver.run())
    await until(lambda: made.fetcher.asked)
    made.driver.offer(SEEN)
    with pytest.raises(ZeroDivisionError):
        await run
    assert made.fetcher.cancelled == [1]


async def test_a_bug_in_the_transport_is_as_loud() -> None:
    made = bench()
    made.node.on(Start, FetchHead(1, HERE, None, None, 0.0, 0))
    made.fetcher.answers[1] = KeyError("a bug")
    with pytest.raises(KeyError, match="a bug"):
        await asyncio.wait_for(made.driver.run(), 30.0)


async def test_notices_cuts_and_new_heads_are_passed_on() -> None:
    made = bench()
    said = Notice(Topic.ROUND, "round 1")

    def publish(_: Event) -> list[Effect]:
        made.node.shelf.version += 1
        return [said, CutOff(b"d" * 16, b"k" * 32)]

    made.node.rules.append((PeerSeen, publish))
    async with running(made):
        made.driver.offer(SEEN)
        made.driver.offer(SEEN)
    assert made.notices == [said]
    assert made.cut == [b"k" * 32]
    assert made.changes == [1]


async def test_stop_lets_the_node_save_itself_and_cancels_what_is_out() -> None:
    made = bench()
    made.node.on(Start, FetchHead(1, HERE, None, None, 0.0, 0))
    made.node.on(Stop, Commit(9, Batch(documents={"reputation": b"kept"})))
    async with running(made):
        await until(lambda: made.fetcher.asked)
    assert made.store.load().documents == {"reputation": b"kept"}
    assert made.fetcher.cancelled == [1]
    assert made.node.kinds() == ["Start", "Stop", "Stored"]
    assert not made.driver.offer(SEEN)


async def test_stop_ends_even_if_every_answer_asks_again() -> None:
    made = bench()
    number = iter(range(2, 1_000_000))

    def again(_: Event) -> list[Effect]:
        request = next(number)
        made.fetcher.answers[request] = HeadReceived(request, None)
        made.node.rules.append((HeadReceived, again))
        return [FetchHead(request, HERE, None, None, 0.0, 0)]

    made.node.rules.append((Start, again))
    async with running(made):
        await until(lambda: len(made.node.events) > 20)
        await asyncio.wait_for(made.driver.stop(), 30.0)


async def test_training_that_does_not_end_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver_module, "STOP_S", 0.05)
    made = bench()
    made.learner.gate = threading.Event()
    trained(made, step(1))
    async with running(made):
        await until(lambda: made.learner.threads)
        await asyncio.wait_for(made.driver.stop(), 30.0)
    made.learner.gate.set()
    assert "is left behind" in made.notices[-1].text


async def test_no_task_and_no_thread_is_left() -> None:
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    made = bench()
    trained(made, step(1), Commit(1, Batch(seq=1, head=b"h")))
    async with running(made):
        await made.sees(TrainingFinished)
        # By identity: one that an earlier test left behind may end while this one runs.
        assert len(set(threading.enumerate()) - threads) == 2
    await until(lambda: not set(threading.enumerate()) - threads)
    assert asyncio.all_tasks() == tasks


async def test_a_cancelled_run_finishes_the_commit_it_is_at() -> None:
    made = bench()
    gate, at_work = threading.Event(), threading.Event()
    commit = made.store.commit

    def slow(batch: Batch) -> None:
        at_work.set()
        gate.wait(20.0)
        commit(batch)

    made.store.commit = slow  # type: ignore[method-assign]
    made.node.on(Start, Commit(1, Batch(seq=1, head=b"head 1")))
    run = asyncio.create_task(made.driver.run())
    await until(at_work.is_set)
    run.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert made.store.load().head == b"head 1"


async def test_hints_are_dropped_when_the_inbox_is_full_and_fetches_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver_module, "INBOX_MAX", 3)
    made = bench()
    gate = threading.Event()
    commit = made.store.commit

    def slow(batch: Batch) -> None:
        gate.wait(20.0)
        commit(batch)

    made.store.commit = slow  # type: ignore[method-assign]
    made.node.on(Start, FetchHead(1, HERE, None, None, 0.0, 0), Commit(1, Batch()))
    async with running(made):
        taken = [made.driver.offer(SEEN) for _ in range(5)]
        made.fetcher.answers[1] = HeadReceived(1, b"head")
        gate.set()
        await made.sees(HeadReceived)  # it waited for room and was not lost
    assert taken == [True, True, True, False, False]


async def test_every_turn_beats_and_idleness_does_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "BEAT_S", 0.01)
    beats: list[float] = []
    made = bench(hooks=Hooks(on_turn=lambda: beats.append(0.0)))
    async with running(made):
        await until(lambda: len(beats) > 5)
    assert made.node.kinds() == ["Start", "Stop"]


def test_the_inbox_is_larger_than_what_can_be_out_at_once() -> None:
    limits = Limits()
    assert limits.heads_out + limits.pulls_out < driver_module.INBOX_MAX
