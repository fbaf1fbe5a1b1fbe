"""What a group sum costs one member: processor time and bytes of one attempt.

Counted for each member: quantising, masks, signatures made and verified, sharing and recovery,
hashing of its own vector and of all that it fetches, and the sum. Not counted: the network.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import time
from argparse import Namespace
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np

from gossipfl.errors import UserError
from gossipfl.groups import grid, masks, messages
from gossipfl.groups.attempt import Attempt
from gossipfl.groups.messages import Signed, SumVector
from gossipfl.groups.plan import Plan, threshold
from gossipfl.groups.steps import (
    DeadlineReached,
    Effect,
    Event,
    Fetch,
    Journal,
    Masked,
    MaskVector,
    Publish,
    Received,
    Uncover,
    VectorHeld,
)
from gossipfl.identity import Signer
from gossipfl.objects import digest
from sim.bench.report import Figures

REACH = 8.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--members", type=int, default=8, metavar="G")
    parser.add_argument("--count", type=int, default=1_000_000, metavar="D")
    parser.add_argument("--repeats", type=int, default=5, metavar="N")


def run(args: Namespace) -> Figures:
    """Seconds of processor time of the median and of the worst member; bytes it publishes."""
    if find_spec("Crypto") is None:
        hint = "pip install 'gossipfl[groups]' brings it"
        raise UserError("GF106", "PyCryptodome, which shares secrets", hint)
    figures: Figures = {"members": args.members, "values": args.count}
    for dropped in (0, args.members - threshold(args.members)):
        seconds, sizes, exact = [], [], True
        for number in range(args.repeats):
            bench = Bench(args, number, dropped)
            bench.run()
            seconds += [bench.seconds[place] for place in bench.living]
            sizes += [bench.published[place] for place in bench.living]
            exact = exact and bench.exact
        name = f"dropped_{dropped}"
        figures[f"{name}_cpu_s"] = round(statistics.median(seconds), 4)
        figures[f"{name}_cpu_s_worst"] = round(max(seconds), 4)
        figures[f"{name}_bytes_over_4d"] = round(max(sizes) / (4 * args.count), 5)
        figures[f"{name}_bytes_besides"] = max(sizes) - 4 * args.count
        figures[f"{name}_exact"] = exact
    return figures


def _plan(args: Namespace, number: int) -> tuple[Plan, list[Signer]]:
    drawn = [Signer(hashlib.sha256(bytes([n])).digest()) for n in range(args.members)]
    signers = sorted(drawn, key=lambda signer: signer.device)
    devices = tuple(signer.device for signer in signers)
    return Plan(bytes(32), bytes(32), 1, number, devices, args.count, REACH), signers


class Bench:
    """One attempt of all members in one process, each on its own account."""

    def __init__(self, args: Namespace, number: int, dropped: int) -> None:
        self.plan, self.signers = _plan(args, number)
        size = self.plan.size
        others = [place for place in range(size) if place != self.plan.proposer]
        self.gone = set(others[:dropped])  # after step 2: their mask keys have to be recovered
        self.living = [place for place in range(size) if place not in self.gone]
        self.seconds = dict.fromkeys(range(size), 0.0)
        self.published = dict.fromkeys(range(size), 0)
        self.objects: dict[bytes, bytes] = {}
        self.queue: deque[tuple[int, Event | Signed]] = deque()
        rng = np.random.default_rng(number)
        self.vectors = [rng.standard_normal(args.count).astype(np.float32) for _ in range(size)]
        self.words: dict[int, grid.Words] = {}
        self.sums: dict[int, grid.Words] = {}
        self.attempts: dict[int, Attempt] = {}

    @contextmanager
    def _account(self, place: int) -> Iterator[None]:
        began = time.process_time()
        yield
        self.seconds[place] += time.process_time() - began

    def run(self) -> None:
        for place, signer in enumerate(self.signers):
            with self._account(place):
                words = grid.quantise(self.vectors[place], REACH, self.plan.size)
                self.words[place] = words
                name = digest(grid.to_bytes(words))
                journal = Journal(window=0, attempt=0)
                attempt = Attempt(self.plan, signer, os.urandom, 1.0, journal, name)
                effects = attempt.start(0.0)
            self.attempts[place] = attempt
            self._carry_out(place, effects)
        now = 0.0
        while len(self.sums) < len(self.living) and now < 10:
            while self.queue:
                place, what = self.queue.popleft()
                self._give(place, what, now)
            now += 1.0
            self.queue.extend((place, DeadlineReached()) for place in self.living)

    @property
    def exact(self) -> bool:
        """Do all have the sum of the living, to the last bit?"""
        expected = masks.add_up([self.words[place] for place in self.living])
        sums = [self.sums.get(place) for place in self.living]
        return all(found is not None and np.array_equal(found, expected) for found in sums)

    def _give(self, place: int, what: Event | Signed, now: float) -> None:
        with self._account(place):
            if isinstance(what, Signed):
                kind = messages.NAMES[type(what.message)]
                what = Received(messages.read(what.data, kind, self.plan))
            elif isinstance(what, VectorHeld):
                digest(self.objects[what.digest])  # as whoever fetches it checks
            effects = self.attempts[place].handle(what, now)
        self._carry_out(place, effects)

    def _carry_out(self, place: int, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Publish(signed):
                    if place in self.gone and isinstance(signed.message, SumVector):
                        return
                    self.published[place] += len(signed.data)
                    others = [to for to in range(self.plan.size) if to != place]
                    self.queue.extend((to, signed) for to in others)
                case MaskVector(chain) if place not in self.gone:
                    with self._account(place):
                        data = grid.to_bytes(masks.apply(self.words[place], chain))
                        name = digest(data)
                    self.objects[name] = data
                    self.published[place] += len(data)
                    self.queue.append((place, Masked(name)))
                case Fetch(_, name, None, _):
                    self.queue.append((place, VectorHeld(name)))
                case Uncover(_, names, chain):
                    with self._account(place):
                        found = [self.objects[name] for name in names]
                        rows = [grid.from_bytes(data, self.plan.count) for data in found]
                        self.sums[place] = masks.uncover(rows, chain)
                case _:
                    pass
