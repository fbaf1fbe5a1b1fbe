"""What the codecs cost: milliseconds and bytes per 10^6 values, and accuracy against bytes.

`--learn` plays ten real nodes in virtual time, Dirichlet(1), one epoch a round, SGD 0.05 with
momentum 0.9: MNIST (5,000 digits, MLP 784-32-10) and digits (MLP 64-128-10). Bytes are those of
updates, counted where they arrive; accuracies are of bases on the examples held out for all.
"""

from __future__ import annotations

import argparse
import importlib
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from gossipfl.codecs import decode_update, encode_update, parse, publish
from gossipfl.codecs.names import Values
from gossipfl.codecs.planes import deflate
from gossipfl.codecs.values import encode_values
from gossipfl.events import BundleGiven, Event, HeadReceived, ObjectReceived, PolicyReceived
from gossipfl.messages import Lineage, Training
from gossipfl.privacy import Off, unprotected
from sim.bench.mnist import mnist
from sim.bench.report import Figures, progress
from sim.checkers import Checker, all_checkers
from sim.data import Split, digits, split_dirichlet
from sim.device import SimDevice
from sim.fleet import Fleet
from sim.learners import Learner, Mlp
from sim.scene import Every
from sim.world import World

TIMED = ("f32", "bf16", "int8", "f32+zlib", "bf16+zlib", "int8+zlib")
LEARNT = ("f32", "bf16", "int8", "partial:0.25+int8")  # zlib loses nothing: it learns alike
COUNT = 1_000_000
REPEATS = 9
DEVICES = 10
TRAINING = Training(epochs=1, learning_rate=0.05, momentum=0.9)
SMOOTH = 5  # rounds that an accuracy is the mean of
ROUND_LIMIT_S = 60.0  # virtual; a demo round takes three
LINEAGE = Lineage(b"b" * 32, 1, b"l" * 32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--learn", action="store_true", help="accuracy against bytes instead")
    parser.add_argument("--rounds", type=int, default=40, metavar="N", help="of whole codecs")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--alpha", type=float, default=1.0, metavar="X", help="Dirichlet skew")
    parser.add_argument("--data", choices=("mnist", "digits"), action="append")
    parser.add_argument("--codec", action="append", metavar="NAME", help="beside f32")


def run(args: Namespace) -> Figures:
    """Times, or with `--learn` the curves."""
    if args.learn:
        return learn(args)
    return {"values": COUNT, "codecs": timings(), "last_plane": entropy()}


# --- milliseconds -------------------------------------------------------------------------------


def timings(count: int = COUNT) -> dict[str, dict[str, float]]:
    """Per codec ms to encode and to decode `count` values, bytes, and times fewer than f32."""
    vector = (np.random.default_rng(1).standard_normal(count) * 0.05).astype(np.float32)
    rows: dict[str, dict[str, float]] = {}
    for name in TIMED:
        data = encode_update(LINEAGE, name, vector, seed=1)
        rows[name] = _row(
            lambda name=name: encode_update(LINEAGE, name, vector, seed=1),  # type: ignore[misc]
            lambda name=name, data=data: decode_update(data, LINEAGE, name, count),  # type: ignore[misc]
            len(data),
            count,
        )
    name = "partial:0.25+int8"
    cleared = unprotected(Off(), vector).vector
    first = publish(LINEAGE, name, cleared, 1)
    after = publish(LINEAGE, name, cleared, 2, first)
    held = dict(zip(_in_turn(first.names, first.part), first.beside, strict=False))
    held[first.names[first.part]] = first.data
    rows[name] = _row(
        lambda: publish(LINEAGE, name, cleared, 2, first),
        lambda: decode_update(after.data, LINEAGE, name, count, held),
        len(after.data),
        count,
    )
    return rows


def entropy(count: int = COUNT) -> dict[str, dict[str, float]]:
    """The last plane of `count` values by deflate, as shipped, and by zstd where it is installed:
    percent of its bytes that are left, ms."""
    vector = (np.random.default_rng(1).standard_normal(count) * 0.05).astype(np.float32)
    rows: dict[str, dict[str, float]] = {}
    for values in (Values.BF16, Values.INT8):
        _, elements = encode_values(values, vector, 1, 0)
        plane = elements.view(np.uint8).reshape(count, -1)[:, -1].tobytes()
        for name, pack in {"deflate": deflate, **_zstd()}.items():
            rows[f"{values} {name}"] = {
                "percent": round(100 * len(pack(plane)) / len(plane), 1),
                "ms": round(_best_ms(lambda pack=pack, plane=plane: pack(plane)), 2),  # type: ignore[misc]
            }
    return rows


def _zstd() -> dict[str, Callable[[bytes], bytes]]:
    """Python's own from 3.14 on, or its backport; nothing of ours needs either."""
    for module in ("compression.zstd", "backports.zstd"):
        try:
            zstd = importlib.import_module(module)
        except ImportError:
            continue
        return {f"zstd {level}": partial(zstd.compress, level=level) for level in (1, 3, 9)}
    return {}


def _in_turn(names: Sequence[bytes], part: int) -> list[bytes]:
    """The digests of the other parts in the order of their turns."""
    return [*names[part + 1 :], *names[:part]]


def _row(
    encode: Callable[[], object], decode: Callable[[], object], size: int, count: int
) -> dict[str, float]:
    return {
        "encode_ms": round(_best_ms(encode), 2),
        "decode_ms": round(_best_ms(decode), 2),
        "bytes": size,
        "times_fewer": round(4 * count / size, 2),
    }


def _best_ms(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times) * 1000


# --- accuracy against bytes ---------------------------------------------------------------------


@dataclass(slots=True)
class Curve:
    """One point per round: mean accuracy of the bases, bytes of updates per device so far."""

    accuracy: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)

    def smooth(self) -> list[float]:
        """Percent, each the mean of the last rounds."""
        rows = [self.accuracy[max(0, i + 1 - SMOOTH) : i + 1] for i in range(len(self.accuracy))]
        return [100 * float(np.mean(row)) for row in rows]

    def bytes_to(self, percent: float) -> float | None:
        """Bytes per device until the smoothed accuracy is first there."""
        for accuracy, received in zip(self.smooth(), self.received, strict=True):
            if accuracy >= percent - 1e-9:  # means of means differ in the last digit
                return received
        return None


class Traffic(Checker):
    """Bytes of update objects that arrive."""

    def __init__(self) -> None:
        self.bytes = 0

    def on_event(self, device: SimDevice, event: Event) -> None:
        data = None
        if isinstance(event, HeadReceived):
            data = event.update
        elif isinstance(event, ObjectReceived):
            data = event.data
        if data is not None and data[:4] == b"GFU1":
            self.bytes += len(data)


def learn(args: Namespace) -> Figures:
    """Per data set and codec: accuracy, cost in points, bytes, and the curve."""
    found: Figures = {"devices": DEVICES, "alpha": args.alpha, "seeds": args.seeds}
    for data in args.data or ("mnist", "digits"):
        curves: dict[str, list[Curve]] = {}
        for codec in ("f32", *(args.codec or LEARNT[1:])):
            # A part of the coordinates needs more rounds; it may still cost fewer bytes.
            rounds = args.rounds * (2 if parse(codec).parts > 1 else 1)
            for seed in range(1, args.seeds + 1):
                curve = play(data, codec, rounds, args.alpha, seed)
                curves.setdefault(codec, []).append(curve)
                progress(f"{data} {codec} seed {seed}: {curve.smooth()[-1]:.2f} %")
        found[data] = {codec: _summary(rows, curves["f32"]) for codec, rows in curves.items()}
    return found


def _summary(rows: Sequence[Curve], f32: Sequence[Curve]) -> dict[str, Any]:
    """Means over seeds. Bytes are to the accuracy that f32 ends with, and to two points less."""
    rounds = len(f32[0].accuracy)
    last = float(np.mean([c.smooth()[-1] for c in rows]))
    same = float(np.mean([c.smooth()[rounds - 1] for c in rows]))
    goal = float(np.mean([c.smooth()[-1] for c in f32]))
    figures: dict[str, Any] = {
        "rounds": len(rows[0].accuracy),
        "accuracy": round(last, 2),
        "accuracy_worst_device": round(100 * float(np.mean([c.worst[-1] for c in rows])), 2),
        "points_lost_at_equal_rounds": round(goal - same, 2),
        "bytes_per_device_and_round": round(float(np.mean([c.received[-1] for c in rows])))
        // len(rows[0].accuracy),
    }
    mean, base = _mean(rows), _mean(f32)
    for name, level in (("goal", goal), ("goal_less_1", goal - 1), ("goal_less_2", goal - 2)):
        mine, theirs = mean.bytes_to(level), base.bytes_to(level)
        times = round(theirs / mine, 1) if mine and theirs else None
        figures[name] = {
            "percent": round(level, 2),
            "bytes_per_device": round(mine) if mine else None,
            "times_fewer": times,
        }
    figures["curve"] = [
        [i + 1, round(accuracy, 2), round(received)]
        for i, (accuracy, received) in enumerate(zip(mean.smooth(), mean.received, strict=True))
        if i < 10 or i % 5 == 4
    ]
    return figures


def _mean(rows: Sequence[Curve]) -> Curve:
    return Curve(
        np.mean([c.accuracy for c in rows], axis=0).tolist(),
        [],
        np.mean([c.received for c in rows], axis=0).tolist(),
    )


def play(data: str, codec: str, rounds: int, alpha: float, seed: int) -> Curve:
    """One history of real nodes. All checkers watch."""
    split, model = _task(data, seed)
    parts = split_dirichlet(split.train, DEVICES, alpha, seed)
    traffic = Traffic()
    world, fleet = World(seed, checkers=[*all_checkers(), traffic]), Fleet(seed)
    job = fleet.job(data, model.layout)
    for part in parts:
        learner = Learner(model, Split(part, split.test))
        world.add(fleet, fleet.admit(), job, learner, examples=len(part))
    policy = fleet.policy(job, n=DEVICES, training=TRAINING, codec=codec)
    for device in world.devices:
        world.start(device)
        world.deliver(device, PolicyReceived(policy))
        world.deliver(device, BundleGiven(job.data))
    curve = Curve()
    for goal in range(1, rounds + 1):
        world.run_until(
            Every(world, lambda goal=goal: all(_round(d) >= goal for d in world.devices)),  # type: ignore[misc]
            ROUND_LIMIT_S * rounds,
        )
        found = [_accuracy(model, device, split) for device in world.devices]
        curve.accuracy.append(float(np.mean(found)))
        curve.worst.append(min(found))
        curve.received.append(traffic.bytes / DEVICES)
    world.finish()
    return curve


def _task(data: str, seed: int) -> tuple[Split, Mlp]:
    if data == "digits":
        return digits(seed).scaled(4.0), Mlp(64, 128, 10)  # as the demo: raw pixels over four
    split = mnist(seed)
    for part in (split.train, split.test):
        part.x.shape = (len(part), 784)
    return split.scaled(1 / 255), Mlp(784, 32, 10)


def _round(device: SimDevice) -> int:
    return device.node.base_round if device.node is not None else 0


def _accuracy(model: Mlp, device: SimDevice, split: Split) -> float:
    base = device.node.base if device.node is not None else None
    if base is None:
        return 0.0
    return float(np.mean(model.logits(base, split.test.x).argmax(axis=1) == split.test.y))
