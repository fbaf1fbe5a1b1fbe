"""Spreads seeds over processes and gives the answers back in their order.

A shell, not part of the simulated world: it starts processes. They are spawned, so nothing is
inherited, and what goes in and out is plain data. One worker means no process at all.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

AHEAD = 2  # tasks handed out per worker before the first one's answer is taken: guess

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def in_order(
    work: Callable[[Task], Answer], tasks: Iterable[Task], workers: int = 1
) -> Iterator[Answer]:
    """`work` of each task, in the order of the tasks. `work` is a function of a module."""
    if workers <= 1:
        for task in tasks:
            yield work(task)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: deque[Future[Answer]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) >= workers * AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
