"""The demo from start to end: three steps, a live table, the summary."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from gossipfl.bundle.archive import read_path
from gossipfl.errors import UserError
from gossipfl.messages import Training
from sim.attacks import in_words
from sim.demo import hub as demo_hub
from sim.demo.agents import Lie, ask, command, shipped_bundle, trainers
from sim.demo.places import Job, Place, free_ports, own_folder, settle
from sim.demo.processes import Child, Children
from sim.demo.references import undefended
from sim.demo.summary import Outcome, words
from sim.demo.table import Paint, Screen
from sim.demo.watch import Watch, Watched

BUNDLE = "digits-mlp"
TRAINING = Training(epochs=1, learning_rate=0.05, momentum=0.9, batch=16)  # by a probe of this job
LOOK_S = 0.5  # how often the table is drawn: guess
ROUND_S = 3.0  # pace "demo"
START_S = 60.0  # seven agents on a slow two-core machine: guess
RESTART_S = 3.0  # until a device that died is started again, as systemd would


@dataclass(frozen=True, slots=True)
class Plan:
    """What the person asked for. `once`: end with the summary."""

    devices: int
    liars: int
    attack: str
    noise: float
    rounds: int
    seed: int
    folder: Path
    once: bool
    hub: bool = True
    browser: bool = False  # open the hub's page in one

    def lie(self, job: Job) -> Lie:
        """What the liars are told."""
        assumed = job.liars if job.assumed is None else job.assumed
        return Lie(self.attack, self.noise, job.rule, assumed, max(1, job.liars), self.seed)


@dataclass(slots=True)
class Stage:
    """What the steps share."""

    plan: Plan
    job: Job
    screen: Screen
    children: Children
    began: float
    lie: Lie
    hub: tuple[demo_hub.HubPlace, Child] | None = None
    is_open: bool = False  # the hub's page, in a browser

    def say(self, text: str) -> None:
        self.screen.say(text)

    @property
    def now(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self.began


def show(plan: Plan, paint: Paint) -> Outcome:
    """Run it, with progress on stderr. Whatever ends it, every child is gone on return."""
    began = time.monotonic()
    job = Job(
        devices=plan.devices,
        liars=plan.liars,
        rounds=plan.rounds,
        seed=plan.seed,
        training=TRAINING,
        pace="demo",
        stops=plan.once,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    with own_folder(plan.folder) as folder, Children() as children:
        stage = Stage(plan, job, Screen(sys.stderr, paint), children, began, plan.lie(job))
        watch = start(stage, folder)
        learn(stage, watch)
        outcome = conclude(stage, watch)
        if not plan.once:
            stage.say(words(outcome, paint))
            stay(stage, watch)
        return outcome


def start(stage: Stage, folder: Path) -> Watch:
    """Step 1: keys, data, config; then one process per device."""
    job = stage.job
    honest = job.devices - job.liars
    stage.say(f"1/3 making a fleet of {job.devices} devices in {folder}/ ({honest} honest)")
    ports = free_ports(job.devices + 2 * stage.plan.hub, stage.say)
    poison = stage.lie.conspiracy().poison
    hub_port = ports[-2] if stage.plan.hub else None
    shipped = shipped_bundle(BUNDLE)
    places = settle(job, folder, shipped, ports[: job.devices], poison, hub_port)
    fleet = []
    for place in places:
        child = launch(stage.children, place, stage.lie)
        fleet.append(Watched(place, child))
    if stage.plan.hub:
        hub = demo_hub.settle_hub(folder, places, (ports[-2], ports[-1]))
        stage.hub = (hub, demo_hub.launch_hub(stage.children, hub))
        stage.say(f"    a hub keeps the audit log of all this, and shows it: {hub.url}/")
    for watched in fleet:
        if watched.place.is_liar:
            lie = in_words(stage.plan.attack)
            noise = f", with noise of {stage.plan.noise:g} s" if stage.plan.noise else ""
            stage.say(f"    {watched.place.name} is a liar; {stage.plan.attack}: {lie}{noise}")
    stage.say(f"    keys, certificates, data and processes ready after {stage.now:.1f} s")
    return Watch(fleet, ask)


def launch(children: Children, place: Place, lie: Lie) -> Child:
    """One device's process: the product's own agent, or an agent with a poisoned trainer."""
    return children.start(
        place.name, command(place, lie), place.folder / "agent.log", {"NO_COLOR": "1"}
    )


def learn(stage: Stage, watch: Watch) -> None:
    """Step 2: watch until every honest device has done its rounds, or time is up."""
    job = stage.job
    stage.say(f"2/3 they find each other, train and merge: {job.rounds} rounds of {ROUND_S:g} s")
    until = stage.now + START_S + 2 * ROUND_S * job.rounds
    told_first = False
    while any(w.finished_s is None for w in watch.honest) and stage.now < until:
        _require_alive(stage, watch)
        _look(stage, watch)
        firsts = [w.first_round_s for w in watch.honest]
        if not told_first and all(first is not None for first in firsts):
            told_first = True
            stage.say(f"    every honest device has ended its first round after {stage.now:.1f} s")
        time.sleep(LOOK_S)
    _look(stage, watch)
    stage.screen.keep()


def _look(stage: Stage, watch: Watch) -> None:
    """Ask every agent, say what is new, draw the table; open the hub's page once it is there."""
    if stage.plan.browser and not stage.is_open and stage.hub is not None:
        stage.is_open = demo_hub.answers(stage.hub[0])
        if stage.is_open:
            webbrowser.open(stage.hub[0].url)
    for news in watch.look(stage.now, stage.job.rounds):
        stage.say(f"    {news}")
    stage.screen.draw(watch.rows(), f"    {stage.now:.0f} s")


def _require_alive(stage: Stage, watch: Watch) -> None:
    for watched in watch.fleet:
        if not watched.child.is_alive:
            stage.say(watched.child.last_words())
            raise UserError("GF107", f"{watched.place.name} ended; its log is {watched.child.log}")


def conclude(stage: Stage, watch: Watch) -> Outcome:
    """Step 3: compare with what would have been without a defence."""
    job, attack = stage.job, stage.plan.attack
    stage.say("3/3 for comparison: the same job with plain mean and no defence")
    bundle = read_path(shipped_bundle(BUNDLE))
    honest = trainers(bundle, [w.place for w in watch.honest])
    liars = trainers(bundle, [w.place for w in watch.liars])
    lie = stage.lie.conspiracy()
    accuracies = undefended(honest, liars, job.training, job.rounds, job.seed, lie)
    audit = None
    if stage.hub is not None:
        receipts = sum(int(w.value("base_round", 0)) for w in watch.honest)
        audit = demo_hub.audit(*stage.hub, receipts)
    return Outcome(
        honest=watch.honest,
        liars=watch.liars,
        undefended=accuracies,
        rounds=job.rounds,
        seconds_run=stage.now,
        attack=attack,
        must_be_caught=not lie.looks_honest,
        audit=audit,
    )


def stay(stage: Stage, watch: Watch) -> None:
    """The fleet lives on until Ctrl-C, so that one can play with it."""
    stage.say(next_lines(watch, stage.hub[0].url if stage.hub is not None else ""))
    try:
        while True:
            _revive(stage, watch)
            _look(stage, watch)
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        stage.screen.keep()
        stage.say("stopping every process of the demo")


def next_lines(watch: Watch, page: str = "") -> str:
    """Three things to try now, and where to watch what comes of it."""
    first = watch.honest[0]
    name, config = first.place.name, first.place.config
    seen = f"\nWatch it at {page}/\n" if page else ""
    return (
        f"{seen}\nIt goes on until Ctrl-C. Try, in another terminal:\n"
        f"  kill -9 {first.child.pid}    # {name} dies; the others go on, and it comes back\n"
        f"  {program()} peers --config {config}    # what it thinks of each peer\n"
        "  docs/tutorial.md    # a fleet of your own devices, and your own model\n"
    )


def program() -> str:
    """How the command is called from here: its path if no shell would find it."""
    found = Path(sys.executable).with_name("gossipfl")
    if shutil.which("gossipfl") or not found.exists():
        return "gossipfl"
    return os.path.relpath(found) if found.is_relative_to(Path.cwd()) else str(found)


def _revive(stage: Stage, watch: Watch) -> None:
    """Start a dead device again, as its systemd unit would: same folder, same identity."""
    for watched in watch.fleet:
        if watched.child.is_alive:
            watched.died_at = None
        elif watched.died_at is None:
            watched.died_at = stage.now
        elif stage.now - watched.died_at > RESTART_S:
            watched.child = launch(stage.children, watched.place, stage.lie)
            watched.restarts += 1
            watched.died_at = None


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the demo as Ctrl-C does."""
    raise KeyboardInterrupt
