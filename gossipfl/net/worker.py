"""One thread for work that must not hold up the loop, in the order in which it was asked for.

A thread cannot be stopped from outside. At the end it gets a bounded time to finish what it is at;
after that it is left behind as a daemon thread, so that a training of minutes cannot keep a
service from stopping.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Worker(Protocol):
    """Runs functions elsewhere than in the loop."""

    async def call(self, work: Callable[[], T]) -> T:
        """The result or exception of `work`. Cancelling the wait does not stop the work."""
        ...

    async def close(self, bound_s: float) -> bool:
        """Finish what is being worked at; False if that took longer than `bound_s`."""
        ...


class ThreadWorker:
    """The real one. The thread starts with the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = False

    async def call(self, work: Callable[[], T]) -> T:
        if self._closing:
            raise RuntimeError(f"the worker {self._name} is closed")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            if self._closing and future.cancelled():
                return
            try:
                result = work()
            except BaseException as error:  # whatever it is, it is the caller's
                _post(loop, _fail, future, error)
            else:
                _post(loop, _succeed, future, result)

        self._queue.put(job)
        return await future

    async def close(self, bound_s: float) -> bool:
        self._closing = True
        thread, self._thread = self._thread, None
        if thread is None:
            return True
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        self._queue.put(lambda: _post(loop, _succeed, ended, None))
        self._queue.put(None)
        try:
            async with asyncio.timeout(bound_s):
                await ended
        except TimeoutError:
            return False
        return True

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            job()


class InlineWorker:
    """Runs the work at once, in the loop: for tests and for loops in virtual time."""

    async def call(self, work: Callable[[], T]) -> T:
        await asyncio.sleep(0)
        return work()

    async def close(self, bound_s: float) -> bool:
        return True


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: Any) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(callback, *args)


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
