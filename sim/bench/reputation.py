"""What reputation does: the real node with it and without, beside liars, and among honest devices.

Three questions, each over seeds, in fleets of 20 simulated devices (or `--devices`) on digits (MLP
64-128-10, one epoch a round, SGD 0.05 with momentum 0.9, nna, a fifth of the devices lie, from the
start or after `--since` rounds, a third are assumed to):

`influence`: the liars' part of the merges of honest devices in the last rounds, on against off.
`flags`: in how many seeds every liar was called by a right cause, by at least half of the honest
devices that it lies to, within 20 of their rounds.
`honest`: devices of scenarios without liars that anybody shut out at the end, and the share of
device-rounds in quarantine where data are skewed (Dirichlet 0.1).
"""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from gossipfl.anomaly import Cause
from gossipfl.config import PACES, Limits, NodeSettings
from gossipfl.events import Batch
from gossipfl.messages import Receipt
from gossipfl.wire import decode, open_envelope
from sim.attacks import attack
from sim.attacks.liar import corrupt
from sim.bench.report import Figures, progress
from sim.checkers import Checker
from sim.device import SimDevice
from sim.options import Options
from sim.scenarios.files import Named, load, shortened
from sim.scenarios.play import run as run_scenario
from sim.scene import Scene, Setup
from sim.workers import in_order
from sim.world import WorldError

DEVICES, LIARS, ASSUMED = 20, 4, 6
LAST = 5  # rounds at the end that an influence is the mean of
FLAG_ROUNDS = 20
ROUND_LIMIT_S = 60.0  # virtual; a demo round takes three
LOUD = ("foe", "sign_flip", "sign_flip_step", "dissensus", "gaussian", "equivocation")
RIGHT: dict[str, tuple[Cause, ...]] = {
    "foe": (Cause.DIRECTION,),
    "sign_flip": (Cause.DIRECTION,),
    "sign_flip_step": (Cause.DIRECTION,),
    "dissensus": (Cause.EQUIVOCATION, Cause.FAR, Cause.DIRECTION),  # one lie for each asker
    "gaussian": (Cause.NORM,),
    "equivocation": (Cause.EQUIVOCATION,),
    "stale_replay": (Cause.STALE,),
    "free_rider": (Cause.COPIES,),
    "mimic": (Cause.COPIES, Cause.COLLUSION),
    "alie": (Cause.COLLUSION, Cause.COPIES),
    "label_flip": (Cause.FAR, Cause.DIRECTION),
    "selective_silence": (Cause.SILENT,),
    "zero": (Cause.COPIES, Cause.FAR, Cause.STALE),
    "nan": (Cause.NORM,),
    "backdoor": (Cause.NORM, Cause.FAR),
    "slow_drip": (Cause.COLLUSION, Cause.COPIES),
    "adaptive": (Cause.COLLUSION, Cause.COPIES, Cause.DIRECTION),
}
"""What each attack is, in the causes that are true of it."""
ATTACKS = (*LOUD, "stale_replay", "free_rider", "mimic", "alie", "label_flip", "selective_silence")
CALM = ("lan20", "churn", "lossy", "slow_members")  # the goal is 0 there


@dataclass(frozen=True, slots=True)
class Task:
    """One history of liars, or, with `attack` "", of honest devices."""

    attack: str
    seed: int
    rounds: int
    reputation: bool = True
    noise: float = 0.0
    alpha: float = 1.0
    devices: int = DEVICES
    liars: int = LIARS
    assumed: int = ASSUMED
    since: int = 0  # rounds in which all are honest, before the others

    @property
    def length(self) -> int:
        return self.since + self.rounds


@dataclass(slots=True)
class Told:
    """What came of it, honest devices only."""

    task: Task
    rounds: int = 0  # that all honest devices merged in; fewer than asked for: some were stuck
    influence: float = 0.0  # of all liars, mean over the last merges
    pulled: float = 0.0  # their part of the models in these merges
    accuracy: float = 0.0
    worst: float = 0.0
    flagged: list[float] = field(default_factory=list)  # per liar, part of its victims that call it
    named: dict[str, int] = field(default_factory=dict)  # cause -> (device, liar) pairs that had it
    shut_out: float = 0.0  # share of honest pairs and rounds in quarantine
    framed: int = 0  # honest devices that anybody shuts out at the end


class Merges(Checker):
    """Reads receipts as they become durable: whose models were merged, and with what influence."""

    def __init__(self) -> None:
        self.of: dict[int, dict[int, Receipt]] = {}

    def on_commit(self, device: SimDevice, batch: Batch, done: bool) -> None:
        if batch.receipt is not None and done:
            payload = open_envelope(batch.receipt, "receipt", Limits().entry_bytes).payload
            receipt = decode(payload, Receipt, Limits().entry_bytes)
            self.of.setdefault(device.index, {})[receipt.round] = receipt

    def last(self, device: SimDevice) -> list[Receipt]:
        found = self.of.get(device.index, {})
        return [found[number] for number in sorted(found)[-LAST:]]


def play(task: Task) -> Told:
    """One history of real nodes."""
    settings = NodeSettings(pace=PACES["demo"], reputation=task.reputation)
    setup = Setup(
        devices=task.devices,
        data="digits",
        model="mlp",
        alpha=task.alpha,
        attackers=task.assumed,
        scale=4.0,
    )
    merges = Merges()
    scene = Scene(task.seed, setup, Options(settings=settings), checkers=[merges])
    liars = scene.devices[task.devices - task.liars :] if task.attack else []
    if liars and not task.since:
        _corrupt(scene, liars, task)
    honest = [d for d in scene.devices if d not in liars]
    scene.start()
    told = Told(task)
    called: dict[tuple[int, int], set[str]] = {}
    out = 0
    for number in range(1, task.length + 1):
        if liars and number == task.since + 1 > 1:
            _corrupt(scene, liars, task)
        try:
            scene.run_rounds(1, ROUND_LIMIT_S, honest)
        except WorldError:  # some device merges no more: too few updates come for what may lie
            break
        told.rounds = number
        is_early = 0 < number - task.since <= FLAG_ROUNDS
        out += _look(scene, honest, liars, called if is_early else {}, told)
    told.shut_out = out / (max(1, told.rounds) * len(honest) * (len(honest) - 1))
    accuracies = [scene.accuracy(d) for d in honest]
    told.accuracy, told.worst = float(np.mean(accuracies)), min(accuracies)
    told.influence, told.pulled = _shares(merges, honest, {d.device for d in liars})
    right = {cause.value for cause in RIGHT.get(task.attack, ())}
    for liar in liars:
        victims = [d for d in honest if _is_lied_to(task.attack, d)]
        seen = sum(bool(right & called.get((d.index, liar.index), set())) for d in victims)
        told.flagged.append(seen / len(victims))
    for causes in called.values():
        for cause in causes:
            told.named[cause] = told.named.get(cause, 0) + 1
    return told


def _corrupt(scene: Scene, liars: Sequence[SimDevice], task: Task) -> None:
    lie = attack(task.attack, task.noise, scene.setup.rule, task.liars, task.seed)
    corrupt(scene.world, liars, lie)


def _is_lied_to(name: str, device: SimDevice) -> bool:
    """The silent answer half of the askers, and these have nothing to complain of."""
    return name != "selective_silence" or device.index % 2 == 1


def _look(
    scene: Scene,
    honest: Sequence[SimDevice],
    liars: Sequence[SimDevice],
    called: dict[tuple[int, int], set[str]],
    told: Told,
) -> int:
    """Adds what each says of each liar; returns how many honest pairs are in quarantine."""
    index = {scene.name(d): d.index for d in scene.devices}
    lying = {d.index for d in liars}
    framed: set[int] = set()
    out = 0
    for device in honest:
        for peer in scene.view(device).peers:
            other = index[peer.device]
            if other in lying:
                called.setdefault((device.index, other), set()).update({peer.cause} - {""})
            elif peer.state in ("quarantined", "condemned", "revoked"):
                out += 1
                framed.add(other)
    told.framed = len(framed)
    return out


def _shares(merges: Merges, honest: Sequence[SimDevice], lying: set[bytes]) -> tuple[float, float]:
    """Influence of the liars, and their part of what was pulled, in the last merges."""
    influence, pulled = [], []
    for receipt in [r for device in honest for r in merges.last(device)]:
        influence.append(sum(m.influence for m in receipt.merged if m.device in lying))
        pulled.append(sum(m.device in lying for m in receipt.merged) / max(1, len(receipt.merged)))
    return float(np.mean(influence or [0.0])), float(np.mean(pulled or [0.0]))


def calm(name: str, seed: int, *, short: bool) -> dict[str, Any]:
    """A scenario without liars: how many honest devices anybody shuts out at its end."""
    named = load(name)
    if short:
        named = Named(named.name, shortened(named.scenario))
    played = run_scenario(named, seed)
    return {"framed": int(played.figures.get("quarantined_honest", -1)), "why": played.failures}


# --- the command --------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="per attack; default 3")
    parser.add_argument("--off-seeds", type=int, default=1, metavar="N", help="without reputation")
    parser.add_argument("--first-seed", type=int, default=1, metavar="N")
    parser.add_argument("--rounds", type=int, default=40, metavar="N")
    parser.add_argument("--noise", type=float, default=0.0, metavar="X")
    parser.add_argument("--alpha", type=float, default=1.0, metavar="X", help="Dirichlet skew")
    parser.add_argument("--attack", action="append", metavar="NAME", help="only this; may repeat")
    parser.add_argument("--calm-seeds", type=int, default=0, metavar="N", help="without liars")
    parser.add_argument("--calm", action="append", choices=CALM, help="only this scenario")
    parser.add_argument("--short", action="store_true", help="the scenarios' short forms")
    parser.add_argument("--skew-seeds", type=int, default=0, metavar="N", help="honest, skewed")
    parser.add_argument("--skew", type=float, default=0.1, metavar="X", help="Dirichlet of these")
    parser.add_argument("--devices", type=int, default=DEVICES, metavar="N", help="in a fleet")
    parser.add_argument("--liars", type=int, default=LIARS, metavar="N")
    parser.add_argument(
        "--assumed", type=int, default=ASSUMED, metavar="N", help="liars, by policy"
    )
    parser.add_argument(
        "--since", type=int, default=0, metavar="N", help="rounds before the liars begin to lie"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes")


def run(args: Namespace) -> Figures:
    """Everything that was asked for; one row per attack and per scenario."""
    names = args.attack or (list(ATTACKS) if args.seeds else [])
    fleet = (args.devices, args.liars, args.assumed)
    tasks = [
        Task(name, seed, args.rounds, on, args.noise, args.alpha, *fleet, args.since)
        for name in names
        for on, seeds in ((True, args.seeds), (False, args.off_seeds))
        for seed in range(args.first_seed, args.first_seed + seeds)
    ]
    first = args.first_seed
    honest = [Task("", first + n, args.rounds, alpha=args.skew) for n in range(args.skew_seeds)]
    skewed = [replace(task, devices=args.devices, assumed=args.assumed) for task in honest]
    told = []
    for found in in_order(play, [*tasks, *skewed], args.workers):
        told.append(found)
        progress(f"  {line(found)}")
    figures: Figures = {
        "devices": args.devices,
        "liars": args.liars,
        "assumed": args.assumed,
        "rounds": args.rounds,
        "since": args.since,
        "noise": args.noise,
        "alpha": args.alpha,
    }
    for name in names:
        figures[name] = attacked([t for t in told if t.task.attack == name])
    if skewed:
        quiet = [t for t in told if not t.task.attack]
        figures[f"dirichlet {args.skew:g}, honest"] = {
            "seeds": len(quiet),
            "shut_out_at_end": sum(t.framed for t in quiet),
            "device_rounds_in_quarantine": round(float(np.mean([t.shut_out for t in quiet])), 5),
            "worst_seed": round(max(t.shut_out for t in quiet), 5),
            "accuracy": round(float(np.mean([t.accuracy for t in quiet])), 4),
        }
    if args.calm_seeds:
        for name in args.calm or CALM:
            figures[f"{name}, honest"] = _calm(name, args)
    return figures


def _calm(name: str, args: Namespace) -> dict[str, Any]:
    seeds = range(args.first_seed, args.first_seed + args.calm_seeds)
    found = list(in_order(partial(calm, name, short=args.short), seeds, args.workers))
    framed = {seed: row["framed"] for seed, row in zip(seeds, found, strict=True) if row["framed"]}
    progress(f"  {name}: {len(found)} seeds, shut out by seed {framed or 'nobody'}")
    return {"seeds": len(found), "short": args.short, "shut_out": sum(framed.values())}


def attacked(rows: Sequence[Told]) -> dict[str, Any]:
    """One attack: on against off, and the flags of the runs with it on."""
    found: dict[str, Any] = {}
    on = [t for t in rows if t.task.reputation]
    for word, some in (("on", on), ("off", [t for t in rows if not t.task.reputation])):
        if some:
            found[f"influence_{word}"] = round(float(np.mean([t.influence for t in some])), 5)
            found[f"pulled_{word}"] = round(float(np.mean([t.pulled for t in some])), 4)
            found[f"accuracy_{word}"] = round(float(np.mean([t.accuracy for t in some])), 4)
            found[f"worst_{word}"] = round(min(t.worst for t in some), 4)
            found[f"stuck_{word}"] = sum(t.rounds < t.task.length for t in some)
    if on:
        flagged = [min(t.flagged) >= 0.5 for t in on]
        found |= {
            "seeds": len(on),
            "flagged_seeds": sum(flagged),
            "flagged_pairs": round(float(np.mean([np.mean(t.flagged) for t in on])), 3),
            "honest_in_quarantine": round(float(np.mean([t.shut_out for t in on])), 5),
            "causes": _causes(on),
        }
    return found


def _causes(rows: Sequence[Told]) -> dict[str, int]:
    total: dict[str, int] = {}
    for told in rows:
        for cause, count in told.named.items():
            total[cause] = total.get(cause, 0) + count
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def line(told: Told) -> str:
    """One history in one line."""
    task = told.task
    what = task.attack or "honest"
    flags = f"flagged by {min(told.flagged):.0%} or more" if told.flagged else ""
    if told.rounds < task.length:
        flags = f"stuck after round {told.rounds} {flags}"
    return (
        f"{what:<18} seed {task.seed:<3} {'on ' if task.reputation else 'off'} influence "
        f"{told.influence:.4f} pulled {told.pulled:.3f} accuracy {told.accuracy:.3f} worst "
        f"{told.worst:.3f} honest out {told.shut_out:.5f} at the end {told.framed} "
        f"{flags} {told.named or ''}"
    )
