"""kill -9 under load, on both stores: what the writer said it had logged is in the log."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from logkit import audited, log_on

from gossipfl.hub.database import open_database

KILLS = 3
LOAD = """
import asyncio, sys
from logkit import draft, log_on
from gossipfl.hub.database import open_database

async def append(log, numbers):
    while True:
        number = next(numbers)
        await log.append([draft(number)])
        print(number, flush=True)

async def main():
    database = await open_database(sys.argv[1])
    log, writer = log_on(database, batch_max=50)
    numbers = iter(range(int(sys.argv[2]), 10**9))
    await asyncio.gather(writer.run(0.01), *(append(log, numbers) for _ in range(8)))

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_killed_writer_loses_nothing_that_it_acknowledged(dsn: str, root: Path) -> None:
    await (await open_database(dsn)).close()
    acknowledged: set[int] = set()
    seed = 7
    for kill in range(KILLS):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LOAD, dsn, str(kill * 1_000_000)),
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": f"{root}:{Path(__file__).parent}"},
        )
        assert process.stdout is not None
        most = random.Random(seed + kill).randrange(20, 300)
        lines = [await asyncio.wait_for(process.stdout.readline(), 30) for _ in range(most)]
        process.kill()
        rest = await process.stdout.read()
        await process.wait()
        acknowledged |= {int(line) for line in [*lines, *rest.split(b"\n")[:-1]] if line.strip()}
    began = time.monotonic()
    database = await open_database(dsn)
    log, writer = log_on(database)
    await writer.start()
    restart_s = time.monotonic() - began
    while await writer.integrate():
        pass
    logged = [int(data.split()[1]) for data in await audited(log)]
    await database.close()
    assert acknowledged <= set(logged)
    assert len(logged) == len(set(logged))
    assert restart_s < 2.0
