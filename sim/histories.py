"""Histories that a scenario file cannot say: they look at disks, proofs and single commits.

A scenario raises WorldError if an invariant breaks or it does not get where it should in time; the
figures that a reader judges are in the result, thresholds are in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gossipfl.chains import verify_evidence
from gossipfl.config import PACES, Limits, NodeSettings
from gossipfl.membership import Roster
from gossipfl.memory import StoreFault
from gossipfl.messages import Evidence, Head, Training
from gossipfl.objects import unpack_list
from gossipfl.wire import decode, open_envelope
from sim.adversaries import Adversary, FoeTrainer
from sim.device import SimDevice
from sim.forks import Fork, OddEven
from sim.network import Link
from sim.options import Options
from sim.scene import Every, Scene, Setup

# design: the fault table's row. 200 ms of jitter and some reordering beyond it.
LOSSY = Link(latency_s=0.005, jitter_s=0.2, loss=0.2, duplicate=0.05, reorder=0.05, reorder_s=0.5)
SKEWED = Training(learning_rate=0.05, momentum=0.9)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures of one history. Accuracies are of bases on the common test set."""

    scenario: str
    seed: int
    virtual_s: float
    device_rounds: int  # rounds ended, over honest devices
    completed: float  # share of them that merged
    accuracy_mean: float
    accuracy_worst: float
    digest: str
    extra: dict[str, float]


def outcome(name: str, scene: Scene, **extra: float) -> Outcome:
    """Ends the history, with its last checks, and reads off the figures."""
    scene.world.finish()
    accuracies = scene.accuracies() or [0.0]
    return Outcome(
        name,
        scene.world.seed,
        scene.world.now,
        scene.tally.ended,
        scene.tally.completed,
        sum(accuracies) / len(accuracies),
        min(accuracies),
        scene.world.trace.digest(),
        extra,
    )


# --- learning -----------------------------------------------------------------------------------


def lossless(seed: int = 1, rounds: int = 20) -> Outcome:
    """Eight honest devices on a good LAN learn digits together."""
    scene = Scene(seed, Setup(data="digits")).start()
    scene.run_rounds(rounds, limit_s=rounds * 6.0 + 30.0)
    return outcome("lossless", scene)


def lossy(seed: int = 1, rounds: int = 100) -> Outcome:
    """The same with 20 % loss, 5 % duplicates, reordering and 200 ms of jitter, at the lan pace:
    the time-outs are the protocol's, ten times as long as a demo round would like."""
    options = Options(link=LOSSY, settings=NodeSettings(pace=PACES["lan"]))
    scene = Scene(seed, Setup(data="digits"), options).start()
    scene.run_rounds(rounds, limit_s=rounds * 60.0 + 300.0)
    return outcome("lossy", scene)


def partition(seed: int = 1, rounds: int = 8, heal: bool = True) -> Outcome:
    """Two halves for `rounds` rounds, then ten rounds healed. `heal` False: never parted."""
    scene = Scene(seed, Setup(data="digits")).start()
    scene.run_rounds(3, limit_s=60.0)
    if heal:
        half = len(scene.devices) // 2
        scene.world.network.partition(range(half), range(half, len(scene.devices)))
    scene.run_rounds(rounds, limit_s=rounds * 8.0 + 30.0)
    parted = scene.consensus_distance()
    if heal:
        scene.world.heal()
    scene.run_rounds(10, limit_s=100.0)
    return outcome("partition", scene, parted=parted, consensus=scene.consensus_distance())


def late_joiner(seed: int = 1) -> Outcome:
    """A device that knows neither policy nor bundle comes when the others are trained."""
    scene = Scene(seed, Setup(devices=6, data="digits")).start(absent=[5])
    scene.run_rounds(8, limit_s=90.0)
    joiner = scene.devices[5]
    came = scene.world.now
    scene.world.start(joiner)
    first = scene.world.run_until(Every(scene.world, lambda: scene.base(joiner) is not None), 30.0)
    joined_with = scene.accuracy(joiner)
    scene.run_rounds(3, limit_s=40.0, who=[joiner])
    return outcome("late_joiner", scene, came=came, first_s=first, joined_with=joined_with)


def foe(seed: int = 1, rounds: int = 20, rule: str = "nna", devices: int = 7) -> Outcome:
    """The demo's fleet: six honest devices and one FOE liar on skewed digits, an MLP."""
    liar = devices - 1
    setup = Setup(
        devices=devices,
        data="digits",
        model="mlp",
        alpha=0.5,
        attackers=1,
        rule=rule,
        training=SKEWED,
        scale=4.0,  # as the demo: raw pixels over four
        guard=rule != "mean",
        poison=((liar, FoeTrainer),),
    )
    scene = Scene(seed, setup).start()
    scene.run_rounds(rounds, limit_s=rounds * 6.0 + 30.0)
    name = scene.name(scene.devices[liar])
    states = [p for d in scene.honest() for p in scene.view(d).peers if p.device == name]
    return outcome(
        "foe",
        scene,
        quarantined_by=sum(p.state == "quarantined" for p in states),
        influence=max((p.influence for p in states), default=0.0),
    )


# --- own state ----------------------------------------------------------------------------------

CRASH_SETUP = Setup(devices=4)
CRASH_ROUNDS = 4


def commits_of(seed: int, rounds: int) -> int:
    """How often device 0 stores something while it does `rounds` rounds."""
    scene = Scene(seed, CRASH_SETUP).start()
    scene.run_rounds(rounds, limit_s=60.0)
    return scene.devices[0].store.commits


def store_fault(seed: int, index: int, fault: StoreFault) -> Outcome:
    """Device 0's commit number `index` goes wrong in one way; then three good rounds of all."""
    scene = Scene(seed, CRASH_SETUP).start()
    device = scene.devices[0]
    device.store.faults = [None] * index + [fault]
    scene.world.run_until(Every(scene.world, lambda: not device.store.faults), 60.0)
    before = durable_seq(device)
    scene.world.run_for(0.1)
    scene.world.run_until(Every(scene.world, lambda: device.up), 10.0)
    scene.tell(device)  # a person hands over again what the crash may have lost
    scene.run_rounds(3, limit_s=90.0)
    return outcome("store_fault", scene, before=before, after=durable_seq(device))


def durable_seq(device: SimDevice) -> int:
    head = device.store.load().head
    if head is None:
        return 0
    return decode(open_envelope(head, "head", Limits().head_bytes).payload, Head).seq


def restored(seed: int = 1, away_s: float = 60.0, reboot: bool = True) -> Outcome:
    """Device 0 gets a copy of its disk that is `away_s` old (20 demo rounds in a minute)."""
    scene = Scene(seed, Setup(devices=5)).start()
    device = scene.devices[0]
    scene.run_rounds(3, limit_s=60.0)
    backup = device.store.copy()
    old = durable_seq(device)
    scene.world.run_for(away_s)
    newest = durable_seq(device)
    scene.world.crash(device, reboot=reboot)
    scene.world.restore(device, backup)
    scene.world.start(device, scene.world.now + 2.0)
    scene.world.run_for(3.0)
    scene.run_rounds(5, limit_s=90.0)
    return outcome("restored", scene, old=old, newest=newest, after=durable_seq(device))


# --- equivocation -------------------------------------------------------------------------------


def equivocation(
    adversary: Callable[[], Adversary], seed: int = 1, devices: int = 6, settle_rounds: int = 3
) -> Outcome:
    """The last device lies from its first head on; one honest device is cut off from it, so that
    it never sees either chain and has only the others' proof to go by."""
    scene = Scene(seed, Setup(devices=devices, attackers=1))
    liar, blind = scene.devices[-1], scene.devices[0]
    scene.world.corrupt(liar, adversary())
    scene.world.network.block([liar.index], [blind.index])
    scene.world.network.block([blind.index], [liar.index])
    scene.start()
    honest = scene.honest()
    at: dict[int, int] = {}  # rounds that each has done when it serves a proof

    def proven() -> bool:
        for device in honest:
            if device.index not in at and proof_against(scene, device, liar):
                at[device.index] = scene.base_round(device)
        return len(at) == len(honest)

    scene.world.run_until(Every(scene.world, proven), 120.0)
    saw = blind.node is not None and blind.node.shelf.head(liar.device) is not None
    scene.run_rounds(settle_rounds, limit_s=60.0)
    return outcome(
        "equivocation", scene, rounds=max(at.values()), blind_rounds=at[blind.index], blind_saw=saw
    )


def proof_against(scene: Scene, device: SimDevice, liar: SimDevice) -> Evidence | None:
    """Evidence that `device` serves to anybody, verified with nothing but the fleet's root."""
    if device.node is None:
        return None
    served = device.node.shelf.head(None)
    if served is None:
        return None
    head = decode(open_envelope(served.envelope, "head", Limits().head_bytes).payload, Head)
    if head.evidence is None:
        return None
    data = device.node.shelf.object(head.evidence) or device.store.get(head.evidence)
    if data is None:
        return None
    roster = Roster(scene.fleet.root.key_id, Limits())
    for item in unpack_list(data, Limits().list_bytes):
        evidence, accused = verify_evidence(item, roster.verify_chain, Limits())
        if accused == liar.device:
            return evidence
    return None


def foe_undefended(seed: int = 1) -> Outcome:
    """The same fleet with a plain mean: what the lie would do."""
    return foe(seed, rule="mean")


def equal_seq(seed: int = 1) -> Outcome:
    """A liar signs two heads with one number; everybody gets the proof."""
    return equivocation(Fork, seed)


def odd_even(seed: int = 1) -> Outcome:
    """A liar shows odd numbers of one chain and even ones of another; everybody gets the proof."""
    return equivocation(OddEven, seed)


HISTORIES: dict[str, Callable[[int], Outcome]] = {
    "late-joiner": late_joiner,
    "demo-fleet": foe,
    "demo-fleet-undefended": foe_undefended,
    "restored-disk": restored,
    "equal-seq": equal_seq,
    "odd-even": odd_even,
}
"""By name, for `gossipfl sim run`."""
