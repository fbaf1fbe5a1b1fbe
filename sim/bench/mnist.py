"""Ten simulated devices learn real handwritten digits with the convolutional bundle that ships.

The real node code on virtual time, the real trainer on onnxruntime. 5,000 MNIST digits, fetched by
`examples/fetch_mnist.py`: 4,000 dealt out by Dirichlet(1), 1,000 held out for all.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from argparse import Namespace
from pathlib import Path

import numpy as np

from device_agent.trainer import OnnxTrainer
from gossipfl import bundles
from gossipfl.bundle.archive import read
from gossipfl.errors import UserError
from gossipfl.events import BundleGiven, PolicyReceived
from gossipfl.messages import Training
from sim.bench.report import Figures, progress
from sim.checkers import all_checkers
from sim.data import Examples, Split, split_dirichlet
from sim.device import SimDevice
from sim.fleet import Fleet
from sim.scene import Every
from sim.world import World

ALPHA = 1.0  # the project's own target for this job
HELD_OUT = 1_000
TRAINING = Training(epochs=1, learning_rate=0.05, momentum=0.9)  # of two tried, the quicker
ROUND_LIMIT_S = 60.0  # virtual; a round takes three
FETCH = Path("examples/fetch_mnist.py")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--devices", type=int, default=10, metavar="N")
    parser.add_argument("--rounds", type=int, default=30, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")


def run(args: Namespace) -> Figures:
    """Accuracy of each device's base on the digits held out for all."""
    began = time.monotonic()
    split = mnist(args.seed)
    parts = split_dirichlet(split.train, args.devices, ALPHA, args.seed)
    bundle = read(bundles.read_bytes(bundles.MNIST_CNN))
    trainers = [OnnxTrainer(bundle, p.x, p.y, split.test.x, split.test.y) for p in parts]
    world, fleet = World(args.seed, checkers=all_checkers()), Fleet(args.seed)
    job = fleet.job(bundle.manifest.name, bundle.layout)
    for trainer, part in zip(trainers, parts, strict=True):
        world.add(fleet, fleet.admit(), job, trainer, examples=len(part))
    policy = fleet.policy(job, n=args.devices, training=TRAINING)
    for device in world.devices:
        world.start(device)
        world.deliver(device, PolicyReceived(policy))
        world.deliver(device, BundleGiven(job.data))
    for done in range(5, args.rounds + 5, 5):
        goal = min(done, args.rounds)
        world.run_until(
            Every(world, lambda goal=goal: all(_round(d) >= goal for d in world.devices)),  # type: ignore[misc]
            ROUND_LIMIT_S * args.rounds,
        )
        progress(f"round {goal} at {world.now:.0f} virtual seconds")
    world.finish()
    found = [_accuracy(d, t) for d, t in zip(world.devices, trainers, strict=True)]
    return {
        "devices": args.devices,
        "rounds": args.rounds,
        "alpha": ALPHA,
        "examples": [len(part) for part in parts],
        "parameters": bundle.layout.count,
        "accuracy_mean": round(float(np.mean(found)), 4),
        "accuracy_worst": round(min(found), 4),
        "virtual_s": round(world.now, 1),
        "seconds": round(time.monotonic() - began, 1),
    }


def mnist(seed: int) -> Split:
    """The digits, fetched on first use. Raises UserError GF407."""
    spec = importlib.util.spec_from_file_location("fetch_mnist", FETCH)
    if spec is None or spec.loader is None or not FETCH.exists():
        raise UserError("GF407", f"{FETCH} is not here", "run it in the project's folder")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with np.load(module.fetch(), allow_pickle=False) as arrays:
        x, y = arrays["x"], arrays["y"]
    order = np.random.default_rng(seed).permutation(len(x))
    everything = Examples(x, y, 10)
    return Split(everything.take(order[HELD_OUT:]), everything.take(order[:HELD_OUT]))


def _round(device: SimDevice) -> int:
    return device.node.base_round if device.node is not None else 0


def _accuracy(device: SimDevice, trainer: OnnxTrainer) -> float:
    base = device.node.base if device.node is not None else None
    return 0.0 if base is None else trainer.evaluate(base).accuracy or 0.0
