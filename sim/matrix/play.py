"""One cell: a fleet of real nodes with numpy learners, its liars, and what came of it.

Every device holds as many examples as any other; what skew says is the mix of classes. Accuracy is
of bases on the test set, at the end. While it runs a device judges itself on `OWN_TEST` of the same
examples: nothing depends on it, and it would be most of the time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gossipfl.config import PACES, Limits, NodeSettings
from gossipfl.interfaces import Trainer
from gossipfl.messages import Training
from sim.attacks import attack
from sim.attacks.liar import corrupt
from sim.checkers import all_checkers
from sim.data import Split, digits, split_mixed
from sim.datasets import stored
from sim.device import SimDevice
from sim.learners import Learner, Mlp
from sim.matrix.cells import Cell, Options
from sim.options import Options as WorldOptions
from sim.scene import Scene, Setup

OWN_TEST = 100
# The demo's pace, but polled once a round: a round with sixty pulls needs no forty polls beside it.
# Nobody leaves, so that who was not heard for ten rounds is still there: else s is that of a fleet
# which is smaller and has as many liars.
PACE = replace(
    PACES["demo"],
    name="matrix",
    poll_interval_s=PACES["demo"].round_interval_s,
    live_s=10 * PACES["demo"].round_interval_s,
)
# A pull of sixty of a hundred holds sixty requests open at each server: the limits of a small board
# would refuse some, and a rule that stands against a third needs nearly all of them.
LIMITS = replace(Limits(), heads_out=256, serves_total=256)
LIMIT_ROUNDS = 4  # times as long as it should take: then something is broken


def play(cell: Cell, options: Options) -> dict[str, Any]:
    """The figures of one cell. Raises WorldError if an invariant breaks."""
    began = time.monotonic()
    figures = _alone(cell, options) if cell.row == "alone" else _together(cell, options)
    return {**figures, "seconds": round(time.monotonic() - began, 1)}


def learners(cell: Cell, options: Options) -> tuple[list[Learner], Split]:
    """One per device, and the whole test set."""
    data = digits(cell.seed) if options.data == "digits" else stored("mnist", cell.seed).flat()
    parts = split_mixed(data.train, options.devices, options.samples, cell.alpha, cell.seed)
    model = Mlp(data.train.x.shape[1], options.hidden, data.train.classes)
    own = data.test.first(OWN_TEST)
    return [Learner(model, Split(part, own), cell.seed) for part in parts], data


def training(options: Options) -> Training:
    return Training(
        epochs=1,
        learning_rate=options.learning_rate,
        momentum=options.momentum,
        batch=options.batch,
    )


def _alone(cell: Cell, options: Options) -> dict[str, Any]:
    """Nobody merges: each device trains as often as it would have."""
    found = []
    everyone, data = learners(cell, options)
    for number, learner in enumerate(everyone):
        model = learner.initial
        for round_ in range(options.rounds):
            model = learner.train(model, training(options), cell.seed * 1_000_003 + number + round_)
        found.append(_accuracy(learner, model, data))
    return _accuracies(found)


def _together(cell: Cell, options: Options) -> dict[str, Any]:
    everyone, data = learners(cell, options)
    scene = _scene(cell, options, everyone)
    liars = scene.devices[options.devices - cell.attackers :]
    if cell.attack:
        lie = attack(
            cell.attack, cell.noise, cell.rule, _assumed_in_a_pull(options), seed=cell.seed
        )
        corrupt(scene.world, liars, lie)
    scene.start()
    scene.run_rounds(options.rounds, LIMIT_ROUNDS * options.rounds * PACE.round_interval_s + 60.0)
    scene.world.finish()
    honest = scene.honest()
    found = [
        _accuracy(learner, base, data)
        for device, learner in zip(scene.devices, everyone, strict=True)
        if device.honest and (base := scene.base(device)) is not None
    ]
    return {
        **_accuracies(found),
        **_peers(scene, honest, liars),
        "merged": scene.tally.merged,
        "unmerged": sum(scene.tally.unmerged.values()),
        "virtual_s": round(scene.world.now, 1),
        "trace": scene.world.trace.digest()[:16],
    }


def _scene(cell: Cell, options: Options, everyone: Sequence[Trainer]) -> Scene:
    defended = cell.row != "undefended"
    settings = NodeSettings(
        pace=PACE, limits=LIMITS, guard=defended, reputation=defended and options.reputation
    )
    setup = Setup(
        devices=options.devices,
        attackers=options.assumed,
        rule=cell.rule,
        training=training(options),
        guard=defended,
        policy={} if options.sample is None else {"sample": options.sample},
    )
    world = WorldOptions(settings=settings, mdns_delay_s=0.5)
    return Scene(cell.seed, setup, world, all_checkers(), trainers=everyone)


def _assumed_in_a_pull(options: Options) -> int:
    """What the fleet's rule is told: adaptive liars know it."""
    from gossipfl.aggregation import assumed_faulty, sample_size

    sample = options.sample or sample_size(options.devices, options.assumed)
    return assumed_faulty(options.devices, options.assumed, sample)


def _accuracy(learner: Learner, model: Any, data: Split) -> float:
    logits = learner.model.logits(model, data.test.x)
    return float(np.mean(logits.argmax(axis=1) == data.test.y))


def _accuracies(found: list[float]) -> dict[str, Any]:
    return {"mean": round(float(np.mean(found)), 4), "worst": round(min(found), 4)}


def _peers(scene: Scene, honest: list[SimDevice], liars: Sequence[SimDevice]) -> dict[str, Any]:
    """What the honest devices think of their peers at the end."""
    bad = {scene.name(d) for d in liars}
    views = [scene.view(d) for d in honest]
    shares = [sum(p.influence for p in v.peers if p.device in bad) for v in views]
    shut = ("quarantined", "condemned")
    seen = [p for v in views for p in v.peers]
    return {
        "influence": round(float(np.mean(shares)), 4),
        "caught": sum(p.state in shut for p in seen if p.device in bad),
        "pairs": sum(p.device in bad for p in seen),
        "honest_shut_out": sum(p.state in shut for p in seen if p.device not in bad),
        "sample": views[0].sample,
        "f": views[0].f,
    }
