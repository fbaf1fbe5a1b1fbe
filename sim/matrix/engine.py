"""Who plays the cells: processes on this machine, or a Ray cluster."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

from gossipfl.errors import UserError
from sim.matrix.cells import Cell, Options

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
Answer = tuple[Cell, dict[str, Any]]


def one_cell(cell: Cell, options: Options) -> dict[str, Any]:
    """The figures of a cell, or {"failed": why}: a broken invariant ends no matrix."""
    from sim.matrix.play import play
    from sim.world import WorldError

    try:
        return play(cell, options)
    except WorldError as error:
        return {"failed": error.cause}


def here(cells: Sequence[Cell], options: Options, workers: int) -> Iterator[Answer]:
    """Answers as they come. Spawned processes, so nothing is inherited; one thread each, because
    another number of threads sums in another order."""
    workers = max(1, workers)
    for name in THREADS:  # read by the library when a worker imports it
        os.environ[name] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        left = iter(cells)
        running: dict[Future[dict[str, Any]], Cell] = {}
        try:
            while True:
                for cell in left:  # no further ahead: who stops it loses no more than it must
                    running[pool.submit(one_cell, cell, options)] = cell
                    if len(running) >= workers:
                        break
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
        finally:
            for future in running:
                future.cancel()


def ray(cells: Sequence[Cell], options: Options, workers: int, address: str) -> Iterator[Answer]:
    """The same on a Ray cluster; address "": one that is started here, with so many workers.

    The code and the data have to be on every machine of the cluster."""
    try:
        cluster: Any = importlib.import_module("ray")
    except ImportError:
        hint = "pip install 'gossipfl[cluster]'"
        raise UserError("GF100", "--engine ray needs the package ray", hint) from None
    variables = dict.fromkeys(THREADS, "1")
    start: dict[str, Any] = {"address": address} if address else {"num_cpus": workers}
    cluster.init(
        runtime_env={"env_vars": variables}, include_dashboard=False, log_to_driver=False, **start
    )
    try:
        task = cluster.remote(num_cpus=1)(one_cell)
        left, running = iter(cells), {}
        while True:
            for cell in left:
                running[task.remote(cell, options)] = cell
                if len(running) >= workers:
                    break
            if not running:
                return
            done, _ = cluster.wait(list(running), num_returns=1)
            for reference in done:
                yield running.pop(reference), cluster.get(reference)
    finally:
        cluster.shutdown()
