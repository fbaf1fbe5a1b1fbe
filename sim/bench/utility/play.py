"""One cell: a fleet of real nodes with the trainers that ship, or devices that train alone."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from gossipfl.config import PACES, Limits, NodeSettings
from gossipfl.messages import Privacy, Training
from gossipfl.privacy.ledger import replay
from gossipfl.privacy.protection import Unit
from sim.attacks import attack
from sim.attacks.liar import corrupt
from sim.bench.utility import lockstep
from sim.bench.utility.breakeven import break_even
from sim.bench.utility.cells import RULE, Cell
from sim.bench.utility.lockstep import record, training
from sim.bench.utility.rates import DEVICE_RATE, rate_of
from sim.bench.utility.tasks import DELTA, TASKS, Task, trainers
from sim.checkers import LedgerGoesOn
from sim.device import SimDevice
from sim.options import Options as WorldOptions
from sim.scene import Scene, Setup

# A round pulls from everybody, so one poll a round is enough, and no server refuses for want of
# room: what is measured is learning.
PACE = replace(PACES["demo"], name="utility", poll_interval_s=PACES["demo"].round_interval_s)
LIMITS = replace(Limits(), heads_out=256, serves_total=256)
LIMIT_ROUNDS = 4  # times as long as it should take: then something is broken


def play(cell: Cell) -> dict[str, Any]:
    """The figures of one cell. Raises WorldError if an invariant breaks."""
    began = time.process_time()
    task = TASKS[cell.task]
    match cell.row:
        case "alone":
            figures = _alone(task, cell)
        case "break-even":
            figures = break_even(task, cell)
        case _:
            figures = _fleet(task, cell)
    return {**figures, "cpu_s": round(time.process_time() - began, 1)}


def _alone(task: Task, cell: Cell) -> dict[str, Any]:
    """Nobody merges: each device goes on from its own last model, under the same budget."""
    how, mode, z = task.record, None, None
    if cell.epsilon is not None:
        z = task.z("record", cell.epsilon)
        mode = record(how, z)
    rate = rate_of(task.name, "alone", cell.epsilon)
    found = [
        lockstep.alone(trainer, how.rounds, mode, training(rate), cell.seed * 1_009 + number)
        for number, trainer in enumerate(trainers(task, cell.seed))
    ]
    return {**_accuracies(found), "rounds": how.rounds, "z": z, "rate": rate}


def _fleet(task: Task, cell: Cell) -> dict[str, Any]:
    liars = 0 if cell.row == "together" else task.liars
    everyone = trainers(task, cell.seed, spare=liars if task.adds_liars else 0)
    how = task.schedule(cell.unit)
    privacy = _privacy(task, cell)
    rule = "mean" if cell.row == "undefended" else RULE
    assumed = 0 if cell.row == "undefended" else liars
    train = _training(task, cell)
    setup = Setup(
        devices=len(everyone),
        attackers=assumed,
        rule=rule,
        training=train,
        guard=cell.row != "undefended",
        policy={"sample": len(everyone) - 1, "privacy": privacy},
    )
    settings = NodeSettings(
        pace=PACE,
        limits=LIMITS,
        guard=setup.guard,
        reputation=cell.row != "undefended",
    )
    world = WorldOptions(settings=settings, mdns_delay_s=0.5)
    scene = Scene(cell.seed, setup, world, [LedgerGoesOn()], trainers=everyone)
    if liars:
        lie = attack("foe", 0.0, rule, assumed, seed=cell.seed)
        corrupt(scene.world, scene.devices[-liars:], lie)
    scene.start()
    scene.run_rounds(how.rounds, LIMIT_ROUNDS * how.rounds * PACE.round_interval_s + 60.0)
    honest = scene.honest()
    return {
        **_accuracies(scene.accuracies()),
        "rounds": how.rounds,
        "z": None if cell.epsilon is None else privacy.z,
        "rate": train.learning_rate,
        "releases": max(scene.view(d).releases for d in honest),
        "spent": _spent(honest, cell),
        "influence": round(_influence(scene, liars), 4),
        "trace": scene.world.trace.digest()[:16],
    }


def _privacy(task: Task, cell: Cell) -> Privacy:
    if cell.epsilon is None:
        return Privacy()
    how = task.schedule(cell.unit)
    return Privacy(
        mode="local",
        unit=cell.unit,
        epsilon=cell.epsilon,
        delta=DELTA,
        clip=how.clip,
        z=task.z(cell.unit, cell.epsilon),
        sample_rate=how.sample_rate,
        steps=how.steps,
        lot=how.lot,
    )


def _training(task: Task, cell: Cell) -> Training:
    if cell.unit == "device":
        return training(DEVICE_RATE, task.device.epochs)
    return training(rate_of(task.name, cell.row, cell.epsilon))


def _spent(honest: list[SimDevice], cell: Cell) -> float | None:
    """The largest epsilon in any honest device's ledger."""
    if cell.epsilon is None:
        return None
    ledgers = [replay(device.store.load().ledger) for device in honest]
    most = max(ledgers, key=lambda ledger: ledger.releases)
    return round(most.spent(DELTA, Unit(cell.unit)), 4)


def _influence(scene: Scene, liars: int) -> float:
    """Mean share that the liars have in honest devices' merges."""
    bad = {scene.name(d) for d in scene.devices[len(scene.devices) - liars :]}
    views = [scene.view(d) for d in scene.honest()]
    return float(np.mean([sum(p.influence for p in v.peers if p.device in bad) for v in views]))


def _accuracies(found: list[float]) -> dict[str, Any]:
    return {"mean": round(float(np.mean(found)), 4), "worst": round(min(found), 4)}
