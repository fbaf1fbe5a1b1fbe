"""How fast the simulator is: fleets of real nodes on virtual time, each in a process of its own.

Digits, MLP 64-128-10, no attackers, rounds back to back, all checkers on. Three kinds of rows:

- 100 devices that pull 20, and 100 that pull 1: rounds, merges and device-rounds a second. A merge
  of the second kind is what gossipy counts: one received model (376 a second, docs: the field).
- 1,000 devices x 50 rounds: seconds and memory of the whole run.
- how time and memory grow with the number of devices at one s.

Above 100 devices nobody knows everybody: each is told of `--known` others and looks for no more
(`Limits.peers`), as in a fleet of many sites. What starts the fleet is in `start_s`, apart. Seconds
are CPU seconds, so that a busy machine disturbs less; `wall_s` is beside them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import time
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from gossipfl.config import PACES, Limits, NodeSettings
from gossipfl.errors import UserError
from sim.bench.report import Figures, progress
from sim.bench.where import Where
from sim.options import Options
from sim.scene import Scene, Setup

GOSSIPY_MERGES = 376.0  # a second, 100 nodes, on the machine of the design's other figures
FULL_MESH_MAX = 100
WARM_ROUNDS = 20
WARM_S = 1.0  # and so long, virtual: rounds of one pull are short, and until then peers are met
LIMIT_S = 3_600.0  # virtual


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--devices", default="100,300,1000,3000", metavar="N,N", help="to grow by")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="measured, per row")
    parser.add_argument("--sample", type=int, default=20, metavar="S")
    parser.add_argument("--one", metavar="N,S,R,K", help="one row: devices, pulls, rounds, known")
    parser.add_argument("--where", action="store_true", help="of one row: what the time is for")
    parser.add_argument("--known", type=int, default=64, metavar="K", help="others that one knows")
    parser.add_argument(
        "--whole", type=int, default=1_000, metavar="N", help="of 50 rounds; 0: none"
    )


def run(args: Namespace) -> Figures:
    """Rows by kind, or one."""
    if args.one is not None:
        try:
            devices, sample, rounds, known = (int(text) for text in args.one.split(","))
        except ValueError:
            raise UserError("GF100", "--one is four numbers, as 100,20,10,99") from None
        return _apart(devices, sample, rounds, known, args.where)
    counts = [int(text) for text in args.devices.split(",")]
    figures: dict[str, Any] = {
        "pull_20": _apart(100, args.sample, args.rounds, FULL_MESH_MAX),
        "pull_1": _apart(100, 1, 5 * args.rounds, FULL_MESH_MAX),
    }
    one = figures["pull_1"]
    one["times_gossipy"] = round(one["merges_per_s"] / GOSSIPY_MERGES, 2)
    figures["grow"] = [_apart(n, args.sample, args.rounds, args.known) for n in counts]
    if args.whole:
        figures["whole"] = _apart(args.whole, args.sample, 50, args.known)
    return figures


def _apart(
    devices: int, sample: int, rounds: int, known: int, where: bool = False
) -> dict[str, Any]:
    """In a process of its own, so that its memory is its own."""
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found = pool.submit(measure, devices, sample, rounds, known, where).result()
    progress(f"{devices} devices, s = {sample}: {found}")
    return found


def measure(
    devices: int, sample: int, rounds: int, known: int, where: bool = False
) -> dict[str, Any]:
    """One fleet: started, warmed up, then timed. `where`: also what the time was for."""
    began, wall = time.process_time(), time.monotonic()
    scene = fleet(devices, sample, known)
    scene.run_rounds(WARM_ROUNDS, LIMIT_S)
    scene.world.run_for(max(0.0, WARM_S - scene.world.now))
    start_s = time.process_time() - began
    before, entries, virtual = scene.tally.merged, scene.world.trace.entries, scene.world.now
    began = time.process_time()
    places = Where()
    with places if where else nullcontext():
        scene.run_rounds(rounds, LIMIT_S)
    seconds = time.process_time() - began
    merged = scene.tally.merged - before
    scene.world.finish()
    accuracies = scene.accuracies()
    return {
        "devices": devices,
        "sample": sample,
        "rounds": rounds,
        "known": min(known, devices - 1),
        "start_s": round(start_s, 1),
        "seconds": round(seconds, 2),
        "wall_s": round(time.monotonic() - wall, 1),
        "rounds_per_s": round(merged / devices / seconds, 3),
        "device_rounds_per_s": round(merged / seconds, 1),
        "merges_per_s": round(merged * sample / seconds, 1),
        "ms_per_device_round": round(1_000 * seconds / merged, 2),
        "entries": scene.world.trace.entries - entries,
        "virtual_s": round(scene.world.now - virtual, 2),
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024),
        "accuracy_mean": round(sum(accuracies) / len(accuracies), 3),
        "trace": scene.world.trace.digest()[:16],
        **({"where": places.shares(), "samples": places.samples} if where else {}),
    }


def fleet(devices: int, sample: int, known: int) -> Scene:
    """Started, and everybody told of its peers. `known` of them each, if that is not all."""
    everybody = devices - 1 <= known
    limits = Limits() if everybody else replace(Limits(), peers=known)
    setup = Setup(
        devices=devices,
        data="digits",
        model="mlp",
        examples=14,
        policy={"sample": min(sample, devices - 1)},
    )
    settings = NodeSettings(pace=PACES["none"], limits=limits)
    scene = Scene(1, setup, Options(settings=settings, mdns=everybody, mdns_delay_s=0.2)).start()
    if not everybody:
        introduce(scene, known, random.Random("bench"))
    return scene


def introduce(scene: Scene, known: int, draw: random.Random) -> None:
    """A random graph: `known` others each, as static peers."""
    indices: Sequence[int] = range(len(scene.devices))
    for device in scene.devices:
        for index in draw.sample(indices, known + 1)[: known + 1]:
            if index != device.index:
                scene.world.introduce(device, scene.devices[index])
