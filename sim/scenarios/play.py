"""Plays a scenario: figures over virtual time, the end, and what was expected of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from gossipfl.config import PACES
from sim.device import SimDevice
from sim.options import describe
from sim.scenarios.cast import Cast, cast, introduce_sites
from sim.scenarios.faults import Timeline
from sim.scenarios.files import Named
from sim.scenarios.schema import Expect, Network, Scenario
from sim.world import WorldError

POINTS_MAX = 400  # looks at the fleet in one run
SETTLED = 5  # last looks, some five rounds
STARTS_S = 2.0  # devices boot within this long of each other: as a power cut ends
SHUT_OUT = ("quarantined", "condemned", "revoked")


@dataclass(frozen=True, slots=True)
class Point:
    """The honest devices at one moment. Accuracies are of bases, on the common test set."""

    at_s: float
    accuracy_mean: float
    accuracy_worst: float
    spread: float  # mean L2 distance of their bases to the mean of them
    merged: int  # rounds that ended with a merge, all of them together
    up: int


@dataclass(slots=True)
class Played:
    """What came of one run."""

    name: str
    seed: int
    points: list[Point] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    unmerged: dict[str, int] = field(default_factory=dict)  # why rounds ended without a merge
    failures: list[str] = field(default_factory=list)
    digest: str = ""
    options: str = ""
    report: str = ""  # of a broken invariant, with the tail of the trace

    @property
    def is_good(self) -> bool:
        return not self.failures


def play(named: Named, seed: int) -> Played:
    """One run, and one more without faults and attackers if it is compared with that."""
    played = run(named, seed)
    expect = named.scenario.expect
    if played.report:
        return played
    if expect.below_clean is not None or expect.consensus_ratio is not None:
        clean = run(Named(f"{named.name}, clean", undisturbed(named.scenario)), seed)
        _compare(played, clean)
    played.failures += unmet(expect, played.figures)
    return played


def undisturbed(scenario: Scenario) -> Scenario:
    """The same run on a good LAN of equal devices, where nothing goes wrong and nobody lies."""
    return msgspec.structs.replace(
        scenario, timeline=[], attackers=[], network=Network(), compute=[], expect=Expect()
    )


def run(named: Named, seed: int) -> Played:
    """One run without judging it. A broken invariant is a failure with its report."""
    played = Played(named.name, seed)
    try:
        _run(named, seed, played)
    except WorldError as error:
        played.failures.append(error.cause)
        played.report = str(error)
    return played


def _run(named: Named, seed: int, played: Played) -> None:
    stage = cast(named, seed)
    played.options = describe(stage.scene.world.options)
    world = stage.scene.world
    ends = duration_s(named.scenario)
    timeline = Timeline(stage)
    draw = random.Random(f"starts {seed}")
    for device in stage.scene.devices:
        if device.index not in stage.absent:
            world.start(device, draw.uniform(0.0, STARTS_S))
    world.run_for(STARTS_S)
    introduce_sites(stage)
    for device in stage.scene.devices:
        if device.up:
            stage.scene.tell(device)
    timeline.schedule(ends)
    every = max(PACES[named.scenario.policy.pace].round_interval_s, ends / POINTS_MAX)
    while world.now < ends:
        world.run_for(min(every, ends - world.now))
        played.points.append(look(stage))
    world.finish()
    played.faults = dict(sorted(timeline.happened.items()))
    played.digest = world.trace.digest()
    played.unmerged = dict(stage.scene.tally.unmerged)
    played.figures = figures(stage, played.points)


def duration_s(scenario: Scenario) -> float:
    """Virtual seconds of the whole run."""
    if scenario.minutes is not None:
        return scenario.minutes * 60.0
    pace = PACES[scenario.policy.pace]
    rounds = scenario.rounds or 1
    return STARTS_S + pace.join_wait_s + rounds * pace.round_interval_s * (1 + pace.round_jitter)


def _awake(stage: Cast) -> list[SimDevice]:
    return [d for d in stage.honest() if d.up and not d.asleep]


def look(stage: Cast) -> Point:
    """How the honest devices are now."""
    scene = stage.scene
    devices = [d for d in _awake(stage) if scene.base(d) is not None]
    accuracies = [scene.accuracy(d) for d in devices] or [0.0]
    return Point(
        at_s=scene.world.now,
        accuracy_mean=float(np.mean(accuracies)),
        accuracy_worst=min(accuracies),
        spread=_spread(stage, devices),
        merged=scene.tally.merged,
        up=len(devices),
    )


def _spread(stage: Cast, devices: list[SimDevice]) -> float:
    bases = [base for d in devices if (base := stage.scene.base(d)) is not None]
    if not bases:
        return 0.0
    centre = np.mean(bases, axis=0)
    return float(np.mean([np.linalg.norm(base - centre) for base in bases]))


def figures(stage: Cast, points: list[Point]) -> dict[str, float]:
    """What a reader judges, at the end; the spread as a mean over the last rounds, since devices
    merge one after the other and it goes up and down."""
    scene, last = stage.scene, points[-1]
    devices = _awake(stage)
    liars = {scene.name(d) for d in stage.liars}
    honest = {scene.name(d) for d in stage.honest()}
    views = {d.index: scene.view(d) for d in devices}
    pairs = [p for v in views.values() for p in v.peers if p.device in liars]
    framed = {
        p.device
        for v in views.values()
        for p in v.peers
        if p.device in honest and p.state in SHUT_OUT
    }
    shares = [sum(p.influence for p in v.peers if p.device in liars) for v in views.values()]
    caught = sum(p.state in SHUT_OUT for p in pairs)
    return {
        "virtual_s": scene.world.now,
        "device_rounds": scene.tally.ended,
        "completed": scene.tally.completed,
        "rounds": min((scene.base_round(d) for d in devices), default=0),
        "accuracy_mean": last.accuracy_mean,
        "accuracy_worst": last.accuracy_worst,
        "spread": float(np.mean([point.spread for point in points[-SETTLED:]])),
        "quarantined_honest": len(framed),
        "caught": caught / max(1, len(devices) * len(liars)),
        "influence": float(np.mean(shares)) if shares else 0.0,
        "releases": max((view.releases for view in views.values()), default=0),
        "listening": sum(bool(v.listen_only) for v in views.values()) / max(1, len(views)),
    }


def _compare(played: Played, clean: Played) -> None:
    """With the run in which nothing went wrong."""
    played.failures += [f"the undisturbed run: {failure}" for failure in clean.failures]
    if not clean.figures:
        return
    mine, theirs = played.figures, clean.figures
    mine["clean_accuracy_mean"] = theirs["accuracy_mean"]
    mine["clean_spread"] = theirs["spread"]
    mine["below_clean"] = theirs["accuracy_mean"] - mine["accuracy_mean"]
    mine["consensus_ratio"] = mine["spread"] / max(theirs["spread"], 1e-12)


AT_MOST = ("below_clean", "consensus_ratio", "quarantined_honest", "influence", "releases")


def unmet(expect: Expect, found: dict[str, float]) -> list[str]:
    """Every expectation that does not hold, in words."""
    wrong = []
    for name, bound in msgspec.structs.asdict(expect).items():
        if bound is None:
            continue
        value = found.get(name, float("nan"))
        most = name in AT_MOST
        if not (value <= bound if most else value >= bound):
            told = "at most" if most else "at least"
            wrong.append(f"{name} is {value:.4g}, expected {told} {bound:g}")
    return wrong


def data(played: Played) -> dict[str, Any]:
    """The JSON of `gossipfl sim run`."""
    return {
        "scenario": played.name,
        "seed": played.seed,
        "failures": played.failures,
        **{name: round(value, 4) for name, value in played.figures.items()},
        "faults": played.faults,
        "unmerged": played.unmerged,
        "digest": played.digest,
    }
