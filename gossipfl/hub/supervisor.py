"""Background tasks that are restarted when they fail, and say so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gossipfl.errors import UserError

log = logging.getLogger(__name__)

PAUSE_S = 0.5  # before the first restart; doubles with each failure in a row
PAUSE_MAX_S = 5.0  # so that a full disk is noticed to have space again in less than ten seconds
CALM_S = 5.0  # who ran so long is well again, and starts from the first pause the next time


@dataclass(slots=True)
class Health:
    """How one task is."""

    name: str
    is_running: bool = False
    restarts: int = 0
    problem: str = ""  # of the last failure; "" once it has run for a while
    last_failure: str = ""
    failed_at: float | None = None  # when that was, on the loop's clock
    failures: int = 0  # in a row


class Supervisor:
    """Runs tasks until `close`. `told(name, problem)` hears of every failure."""

    def __init__(self, told: Callable[[str, str], None] = lambda name, problem: None) -> None:
        self.health: dict[str, Health] = {}
        self._told = told
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._fatal: asyncio.Future[None] | None = None

    def start(
        self, name: str, work: Callable[[], Awaitable[None]], *, is_vital: bool = True
    ) -> None:
        """Run `work()`, again whenever it ends. A UserError is for a person: of vital work it ends
        everything, of other work it is a failure like others."""
        self.health[name] = Health(name)
        self._tasks[name] = asyncio.create_task(
            self._keep(name, work, is_vital), name=f"hub-{name}-keeper"
        )

    async def failed(self) -> None:
        """Waits until something failed that no restart can mend, and raises it."""
        if self._fatal is None:
            self._fatal = asyncio.get_running_loop().create_future()
        await self._fatal

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    def problems(self) -> list[str]:
        return [f"{h.name}: {h.problem}" for h in self.health.values() if h.problem]

    def kinds_of_problems(self) -> list[str]:
        """As `problems`, for strangers: what an exception says may name a device or a place."""
        found = self.health.values()
        return [f"{h.name}: {h.problem.partition(':')[0]}" for h in found if h.problem]

    async def _keep(self, name: str, work: Callable[[], Awaitable[None]], is_vital: bool) -> None:
        health = self.health[name]
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            health.is_running = True
            calm = loop.call_later(CALM_S, _forgive, health)
            try:
                problem = await self._live(name, work, is_vital)
            finally:
                calm.cancel()
                health.is_running = False
            health.failed_at = loop.time()
            health.failures = 1 if health.failed_at - began > CALM_S else health.failures + 1
            health.restarts += 1
            health.problem = health.last_failure = problem
            self._told(name, problem)
            await asyncio.sleep(min(PAUSE_MAX_S, PAUSE_S * 2 ** min(health.failures - 1, 10)))

    async def _live(self, name: str, work: Callable[[], Awaitable[None]], is_vital: bool) -> str:
        """Until it ends: why. In a task of its own, so that who cancels it does not end us."""
        life = asyncio.create_task(_awaited(work), name=f"hub-{name}")
        try:
            await asyncio.wait({life})
        finally:
            if not life.done():
                life.cancel()
                await asyncio.gather(life, return_exceptions=True)
        if life.cancelled():
            log.warning("%s was cancelled and is restarted", name)
            return "it was cancelled"
        error = life.exception()
        if error is None:
            return "it ended"
        problem = f"{type(error).__name__}: {error}"
        if isinstance(error, UserError):
            problem = f"{error.code}: {error.cause}"
            if is_vital:
                self._end(error)
                return problem
        log.warning("%s failed and is restarted: %s", name, problem)
        log.debug("its traceback", exc_info=error)
        return problem

    def _end(self, error: UserError) -> None:
        if self._fatal is None:
            self._fatal = asyncio.get_running_loop().create_future()
        if not self._fatal.done():
            self._fatal.set_exception(error)
            self._fatal.exception()


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def _forgive(health: Health) -> None:
    health.problem = ""
