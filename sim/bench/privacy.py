"""What privacy costs in time: noise per 10^6 values, and DP-SGD beside plain local training.

Processor time, so that what else the machine does counts little. Local training is that of the
convolutional bundle on made-up digits: the same number of steps and of examples, with and without,
one after the other; a ratio is the median of the ratios of such pairs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from argparse import Namespace
from collections.abc import Callable

import numpy as np

from gossipfl import bundles
from gossipfl.bundle import archive
from gossipfl.messages import Training
from gossipfl.privacy import DevicePrivacy, RecordPrivacy
from gossipfl.privacy.device_unit import noised
from gossipfl.privacy.stream import Stream
from sim.bench.report import Figures

COUNT = 1_000_000
EXAMPLES = 1536  # four times what all lots divide
LOTS = (16, 24, 32, 48, 64, 128)  # the bundle's batch is 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=9, metavar="N")


def run(args: Namespace) -> Figures:
    """Median milliseconds of processor time, and ratios."""
    rng = np.random.default_rng(1)
    base = np.zeros(COUNT, np.float32)
    trained = (rng.standard_normal(COUNT) * 0.01).astype(np.float32)
    mode = DevicePrivacy(clip=1.0, z=2.0)
    figures: Figures = {
        "values": COUNT,
        "noise_ms": _median(lambda: Stream(os.urandom(32)).noise(COUNT, 1e4), args.repeats),
        "device_unit_ms": _median(
            lambda: noised(mode, base, trained, os.urandom(32)), args.repeats
        ),
    }
    for lot in LOTS:
        figures[f"record_unit_lot_{lot}"] = _training(lot, args.repeats)
    return figures


def _training(lot: int, repeats: int) -> dict[str, float]:
    """One pass over the examples in steps of `lot`; plain steps have one batch at most."""
    from device_agent.trainer import OnnxTrainer

    rng = np.random.default_rng(2)
    x = rng.integers(0, 256, (EXAMPLES, 784)).astype(np.uint8)
    y = rng.integers(0, 10, EXAMPLES)
    bundle = archive.read(bundles.read_bytes(bundles.MNIST_CNN))
    trainer = OnnxTrainer(bundle, x, y, x[:10], y[:10])
    steps = EXAMPLES // lot
    mode = RecordPrivacy(clip=1.0, z=1.2, sample_rate=lot / EXAMPLES, steps=steps, lot=lot)
    plain = Training(epochs=1, batch=min(lot, bundle.manifest.batch))
    seed = 1
    pairs = []
    for _ in range(1 + repeats):
        without = _cpu_ms(lambda: trainer.train(bundle.initial, plain, seed))
        private = _cpu_ms(
            lambda: trainer.train_private(bundle.initial, plain, mode, os.urandom(32))
        )
        pairs.append((without, private))
    pairs = pairs[1:]  # the first loads and allocates
    return {
        "plain_ms": round(statistics.median(without for without, _ in pairs), 1),
        "private_ms": round(statistics.median(private for _, private in pairs), 1),
        "ratio": round(statistics.median(private / without for without, private in pairs), 2),
    }


def _median(work: Callable[[], object], repeats: int) -> float:
    work()
    return round(statistics.median(_cpu_ms(work) for _ in range(repeats)), 1)


def _cpu_ms(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return 1000.0 * (time.process_time() - began)
