"""The asyncio interpreter of a node's effects: one inbox, one deadline, two worker threads.

Events are handled one at a time, in the loop; what is heavy (training, merging, loading a bundle)
goes to one thread, what touches the disk to another. While a commit is under way nothing else is
handled, so nothing can overtake it. `sim.interpreter` is the other interpreter.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from gossipfl.errors import LocalError, StoreError, UserError
from gossipfl.events import (
    Cancel,
    Commit,
    CutOff,
    DeadlineReached,
    Effect,
    Event,
    FetchHead,
    FetchObject,
    JobFailed,
    JobReady,
    Loaded,
    LoadJob,
    Measure,
    Notice,
    Reckon,
    Reload,
    Start,
    StartMerge,
    StartTraining,
    Stop,
    Stored,
    StoreFailed,
    SumMask,
    SumUncover,
    Topic,
)
from gossipfl.groups.heavy import sum_step
from gossipfl.interfaces import Trainer
from gossipfl.net.ports import Hooks, NodeLike, Ports
from gossipfl.work import local_step, measure, merge, reckon

__all__ = ["Driver", "Hooks", "Ports"]

INBOX_MAX = 2_048  # guess, as the simulator's: fetches wait when it is full, hints are dropped
RELOAD_PAUSE_S = 1.0  # a disk that cannot be read is tried again this often
STOP_S = 5.0  # systemd gives 90 s; training that takes longer is left behind
COMMIT_S = 30.0  # the last commit may take this long at the end: a worn SD card
BEAT_S = 5.0  # the longest without a turn of the loop: watchdogs are fed from it
SPINS_MAX = 10_000  # deadlines in a row that do not move: the node would never sleep again


class Driver:
    """Runs one node. `clock` is monotonic and in seconds, by default the loop's own."""

    def __init__(
        self,
        node: NodeLike,
        ports: Ports,
        hooks: Hooks | None = None,
        clock: Callable[[], float] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._node = node
        self._ports = ports
        self._hooks = hooks or Hooks()
        self._clock = clock
        self._wall = wall
        self._inbox: asyncio.Queue[Event | None] = asyncio.Queue(INBOX_MAX)  # None: look again
        self._answers: deque[Event] = deque()  # own commits' outcomes: before anything else
        self._fetches: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._trainer: Trainer | None = None
        self._failure: BaseException | None = None
        self._running = False
        self._stopping = False
        self._undrained: int | None = None
        self._ended = asyncio.Event()
        self._shelf_version = node.shelf.version
        self._spins = 0
        self._spun_at = 0.0

    async def run(self) -> None:
        """Until `stop`, or until a bug: any exception of the node's ends it and is raised here."""
        if self._clock is None:
            self._clock = asyncio.get_running_loop().time
        self._running = True
        try:
            snapshot = await self._ports.disk.call(self._ports.store.load)
            event: Event = Start(snapshot, self._wall())
            while True:
                await self._turn(event)
                if isinstance(event, Stop):
                    break
                event = await self._next()
            while self._answers:
                await self._turn(self._answers.popleft())
        finally:
            await self._end()

    async def stop(self) -> None:
        """Let the node handle what is queued and Stop; returns when `run` has ended."""
        self._stopping = True
        self._wake()
        if self._running:
            await self._ended.wait()

    async def submit(self, event: Event) -> None:
        """Put an event into the inbox, waiting for room. Nothing is taken after `stop`."""
        if not self._stopping:
            await self._inbox.put(event)

    def offer(self, event: Event) -> bool:
        """The same without waiting: False if there is no room. For hints, which come again."""
        if self._stopping or self._inbox.full():
            return False
        self._inbox.put_nowait(event)
        return True

    # --- the loop -------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._clock() if self._clock is not None else 0.0

    async def _next(self) -> Event:
        """The next event: own answers, then the deadline and the inbox in turn, then Stop."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._answers:
                return self._answers.popleft()
            if self._stopping:
                return self._drained() or Stop()
            if self._node.deadline <= self._now() and (not self._spins or self._inbox.empty()):
                self._count_spin()
                await asyncio.sleep(0)  # others' turn, however often this happens
                return DeadlineReached(self._wall())
            event = await self._take()
            self._spins = 0
            if event is not None:
                return event
            self._hooks.on_turn()

    def _drained(self) -> Event | None:
        """What was in the inbox when `stop` was called, one by one. What comes later is lost."""
        if self._undrained is None:
            self._undrained = self._inbox.qsize()
        while self._undrained > 0:
            self._undrained -= 1
            if (event := self._inbox.get_nowait()) is not None:
                return event
        return None

    async def _take(self) -> Event | None:
        """From the inbox; None when it is time to look at the deadline or for a beat."""
        if not self._inbox.empty():
            return self._inbox.get_nowait()
        wait_s = max(0.0, min(self._node.deadline - self._now(), BEAT_S))
        timer = asyncio.get_running_loop().call_later(wait_s, self._wake)
        try:
            return await self._inbox.get()
        finally:
            timer.cancel()

    def _wake(self) -> None:
        if self._inbox.empty():
            self._inbox.put_nowait(None)

    def _count_spin(self) -> None:
        deadline = self._node.deadline
        self._spins = self._spins + 1 if deadline <= self._spun_at else 1
        self._spun_at = deadline
        if self._spins > SPINS_MAX:
            raise LocalError(f"the node's deadline {deadline} does not move on")

    async def _turn(self, event: Event) -> None:
        self._hooks.on_event(event)
        effects = self._node.handle(event, self._now())
        version = self._node.shelf.version
        if version != self._shelf_version:
            self._shelf_version = version
            self._ports.head_changed()
        for effect in effects:
            self._hooks.on_effect(effect)
            if not await self._execute(effect):
                break
        self._hooks.on_turn()

    # --- effects --------------------------------------------------------------------------------

    async def _execute(self, effect: Effect) -> bool:
        """False if the effects behind this one must be dropped."""
        match effect:
            case FetchHead() | FetchObject():
                task = self._start(self._fetch(effect))
                self._fetches[effect.request] = task
            case Cancel(request):
                if (fetch := self._fetches.pop(request, None)) is not None:
                    fetch.cancel()
            case SumMask() | SumUncover():
                self._start(self._answer(partial(sum_step, effect)))
            case StartTraining() | StartMerge() | Measure():
                self._step(effect)
            case Reckon():
                self._start(self._answer(partial(reckon, effect)))
            case Commit():
                return await self._commit(effect)
            case Reload():
                self._start(self._reload())
            case LoadJob():
                self._start(self._load_job(effect))
            case CutOff(_, tls_key):
                self._ports.cut_off(tls_key)
            case Notice():
                self._ports.notice(effect)
        return True

    async def _fetch(self, effect: FetchHead | FetchObject) -> None:
        answer: Event
        if isinstance(effect, FetchHead):
            answer = await self._ports.fetcher.fetch_head(effect)
        else:
            answer = await self._ports.fetcher.fetch_object(effect)
        self._fetches.pop(effect.request, None)
        await self._inbox.put(answer)

    def _step(self, effect: StartTraining | StartMerge | Measure) -> None:
        trainer = self._trainer
        if trainer is None:
            raise LocalError(f"{type(effect).__name__} before a job was ready")
        work: Callable[[], Event]
        match effect:
            case StartTraining():
                work = partial(local_step, effect, trainer, secrets.token_bytes)
            case StartMerge():
                work = partial(merge, effect, trainer)
            case Measure():
                work = partial(measure, effect, trainer)
        self._start(self._answer(work))

    async def _answer(self, work: Callable[[], Event]) -> None:
        await self._inbox.put(await self._ports.heavy.call(work))

    async def _commit(self, effect: Commit) -> bool:
        commit = partial(self._ports.store.commit, effect.batch)
        try:
            await self._patiently(self._ports.disk.call(commit))
        except (StoreError, OSError) as error:
            self._answers.append(StoreFailed(effect.commit, str(error)))
            return False
        self._answers.append(Stored(effect.commit))
        return True

    async def _patiently(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for it, and say now and then that only the disk is slow, for COMMIT_S at most."""
        task = asyncio.ensure_future(work)
        try:
            for _ in range(int(COMMIT_S / BEAT_S)):
                done, _pending = await asyncio.wait({task}, timeout=BEAT_S)
                if done:
                    break
                self._hooks.on_wait()
            await task
        finally:
            task.cancel()

    async def _reload(self) -> None:
        while True:
            try:
                snapshot = await self._ports.disk.call(self._ports.store.load)
            except (StoreError, OSError) as error:
                self._ports.notice(Notice(Topic.STORE, f"cannot read: {error}", warning=True))
                await asyncio.sleep(RELOAD_PAUSE_S)
            else:
                break
        await self._inbox.put(Loaded(snapshot))

    async def _load_job(self, effect: LoadJob) -> None:
        def load() -> tuple[Trainer, JobReady]:
            trainer = self._ports.load_job(effect.bundle, effect.data)
            return trainer, JobReady(effect.bundle, trainer.layout, trainer.initial)

        answer: Event
        try:
            self._trainer, answer = await self._ports.heavy.call(load)
        except UserError as error:
            answer = JobFailed(effect.bundle, f"{error.title} ({error.code}): {error.cause}")
        except Exception as error:  # a bundle is foreign: whatever it breaks, the node goes on
            answer = JobFailed(effect.bundle, f"{type(error).__name__}: {error}")
        await self._inbox.put(answer)

    # --- tasks ----------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error  # a bug in the shell is as loud as the node's
            self._wake()

    async def _end(self) -> None:
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while not self._inbox.empty():  # whoever waits for room need not wait any more
            self._inbox.get_nowait()
        if not await self._ports.heavy.close(STOP_S):
            text = f"training did not end within {STOP_S:.0f} s and is left behind"
            self._ports.notice(Notice(Topic.LIFECYCLE, text, warning=True))
        if not await self._ports.disk.close(COMMIT_S):
            text = f"the disk did not answer within {COMMIT_S:.0f} s"
            self._ports.notice(Notice(Topic.STORE, text, warning=True))
        self._running = False
        self._ended.set()
