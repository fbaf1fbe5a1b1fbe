"""A random history as data: who is there, on what network, and what goes wrong when.

A plan is drawn once, from a seed, and then played without any further draw. So a part of it can be
taken away and the rest stays what it was: that is how a failing plan is made small (`sim.shrink`).
Plans are JSON to people: `gossipfl sim soak --plan FILE` plays one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, structs

from gossipfl.memory import StoreFault
from sim.focuses import BUDGETS as BUDGETS
from sim.focuses import FOCUSES as FOCUSES
from sim.focuses import LIARS as LIARS
from sim.focuses import RULES as RULES
from sim.focuses import USUAL as USUAL
from sim.focuses import Focus as Focus

FAULTY_S = 45.0  # virtual seconds with faults: 15 demo rounds
FAULTS_MAX = 12  # guess: more of them only hide each other
DEVICES_MIN, DEVICES_MAX = 4, 9
TEN_YEARS_S = 315_576_000.0

Index = Annotated[int, Meta(ge=0, lt=1_000)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e6)]


class _Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="fault"):
    at: Seconds  # virtual second


class Crash(_Fault, frozen=True, tag="crash"):
    """The process dies and comes back; `reboot`: with another monotonic clock."""

    device: Index
    down_s: Seconds
    reboot: bool = False


class Disk(_Fault, frozen=True, tag="disk"):
    """The commit after the next `after` ones goes wrong; `how` is a StoreFault's name."""

    device: Index
    after: Index
    how: str


class Partition(_Fault, frozen=True, tag="partition"):
    """These devices hear only each other, the rest too."""

    group: tuple[Index, ...]
    for_s: Seconds


class OneWay(_Fault, frozen=True, tag="one_way"):
    """Nothing passes from one to the other."""

    sender: Index
    receiver: Index
    for_s: Seconds


class Sleep(_Fault, frozen=True, tag="sleep"):
    """Off the network, with its process alive."""

    device: Index
    for_s: Seconds


class ClockJump(_Fault, frozen=True, tag="clock_jump"):
    device: Index
    by_s: float


class Restore(_Fault, frozen=True, tag="restore"):
    """Its disk becomes again what it was at virtual second `copied_at`."""

    device: Index
    copied_at: Seconds


class Reinstall(_Fault, frozen=True, tag="reinstall"):
    """Its disk and keys are lost; it is enrolled again and replaces its old self.

    With `copied_at` the old disk is still there, as it was at that virtual second, and its privacy
    ledger is taken over from it. Equal to `at`: the newest."""

    device: Index
    down_s: Seconds
    copied_at: Seconds | None = None


class Move(_Fault, frozen=True, tag="move"):
    """It gets another address."""

    device: Index
    net: Annotated[int, Meta(ge=0, le=255)]


class Quit(_Fault, frozen=True, tag="stop"):
    """A clean end, and a start later."""

    device: Index
    down_s: Seconds


class NewRun(_Fault, frozen=True, tag="new_run"):
    """The operator starts the training afresh; the policy is handed to one device."""

    told: Index


class Revoke(_Fault, frozen=True, tag="revoke"):
    """The issuer revokes a device; another one is told."""

    device: Index
    told: Index


Fault: TypeAlias = (
    Crash
    | Disk
    | Partition
    | OneWay
    | Sleep
    | ClockJump
    | Restore
    | Reinstall
    | Move
    | Quit
    | NewRun
    | Revoke
)


class Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every link of the plan. Shares, seconds, bytes a second."""

    latency_s: Seconds = 0.002
    jitter_s: Seconds = 0.001
    loss: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    duplicate: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    reorder: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    bytes_per_s: Annotated[float, Meta(gt=0.0)] = 12_500_000.0


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last `len(liars)` devices lie. Indices in faults count from 0, honest devices first."""

    seed: int
    devices: Annotated[int, Meta(ge=2, le=1_000)]
    liars: tuple[str, ...] = ()
    rule: str = "nna"
    alpha: float | None = None  # Dirichlet skew of the data; None: IID
    wire: Wire = Wire()
    wall_skew_s: Seconds = 1.0
    faulty_s: Seconds = FAULTY_S
    budget: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """publications that the policy's privacy budget pays for; 0: no privacy"""
    sums: Annotated[int, Meta(ge=0, le=16)] = 0
    """size of the groups that sum; 0: each publishes its own model"""
    faults: tuple[Fault, ...] = ()

    @property
    def honest(self) -> int:
        return self.devices - len(self.liars)

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()

    @staticmethod
    def from_json(data: bytes | str) -> Plan:
        """Raises msgspec.ValidationError or DecodeError that says where it is wrong."""
        plan = msgspec.json.decode(data, type=Plan)
        _require(plan.honest >= 1, "a plan needs an honest device")
        for fault in plan.faults:
            who = [*getattr(fault, "group", ())]
            names = ("device", "told", "sender", "receiver")
            who += [getattr(fault, name) for name in names if hasattr(fault, name)]
            _require(all(index < plan.devices for index in who), f"{fault} names no device of it")
            known = not isinstance(fault, Disk) or fault.how in StoreFault.__members__
            _require(known, f"{fault} is no way in which a disk fails")
        return plan


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise msgspec.ValidationError(what)


# --- drawing one --------------------------------------------------------------------------------

Draw: TypeAlias = Callable[[random.Random, float, Plan], Fault]


def _honest(draw: random.Random, plan: Plan) -> int:
    return draw.randrange(plan.honest)


def _partition(draw: random.Random, at: float, plan: Plan) -> Fault:
    indices = list(range(plan.devices))
    draw.shuffle(indices)
    cut = draw.randint(1, len(indices) - 1)
    return Partition(at, tuple(sorted(indices[:cut])), draw.uniform(2.0, 20.0))


def _revoke(draw: random.Random, at: float, plan: Plan) -> Fault:
    """Of a liar where there is one: so few honest ones are left out that the rest still merge."""
    device = plan.devices - 1
    told = draw.randrange(plan.honest if plan.liars else plan.devices - 1)
    return Revoke(at, device, told)


KINDS: dict[str, Draw] = {
    "crash": lambda d, at, p: Crash(at, _honest(d, p), d.uniform(0.2, 8.0), d.random() < 0.5),
    "disk": lambda d, at, p: Disk(
        at, _honest(d, p), d.randint(0, 3), d.choice(sorted(StoreFault.__members__))
    ),
    "partition": _partition,
    "one_way": lambda d, at, p: OneWay(at, _honest(d, p), _honest(d, p), d.uniform(2.0, 20.0)),
    "sleep": lambda d, at, p: Sleep(at, _honest(d, p), d.uniform(2.0, 20.0)),
    "clock_jump": lambda d, at, p: ClockJump(
        at, _honest(d, p), d.choice((-3_600.0, 3_600.0, TEN_YEARS_S, -TEN_YEARS_S))
    ),
    "restore": lambda d, at, p: Restore(at, _honest(d, p), d.uniform(1.0, at)),
    "reinstall": lambda d, at, p: Reinstall(at, _honest(d, p), d.uniform(0.5, 8.0)),
    "move": lambda d, at, p: Move(at, _honest(d, p), d.randint(0, 255)),
    "stop": lambda d, at, p: Quit(at, _honest(d, p), d.uniform(0.5, 10.0)),
    "new_run": lambda d, at, p: NewRun(at, _honest(d, p)),
    "revoke": _revoke,
}


def draw_plan(seed: int, focus: Focus | None = None) -> Plan:
    """The plan of one seed: always the same."""
    focus = focus or FOCUSES["any"]
    draw = random.Random(f"soak {seed}")
    devices = draw.randint(DEVICES_MIN, DEVICES_MAX)
    liars = draw.choice((0, 0, 1, 1, 2)) if devices >= 7 else draw.choice((0, 0, 1))
    liars = max(liars, focus.liars_min)
    lossy = draw.random() < 0.5
    plan = Plan(
        seed=seed,
        devices=devices,
        liars=tuple(draw.choice(focus.liars) for _ in range(liars)),
        rule=draw.choice(focus.rules),
        alpha=draw.choice((None, 1.0, 0.3)),
        wire=Wire(
            latency_s=draw.choice((0.001, 0.005, 0.05)),
            jitter_s=draw.choice((0.001, 0.02, 0.2)),
            loss=draw.uniform(0.0, 0.2) if lossy else 0.0,
            duplicate=draw.choice((0.0, 0.05)),
            reorder=draw.choice((0.0, 0.05)),
            bytes_per_s=draw.choice((12_500_000.0, 125_000.0)),
        ),
        wall_skew_s=draw.choice((1.0, 300.0)),
    )
    plan = structs.replace(plan, faults=_faults(draw, plan, focus))
    if focus.sums:
        plan = structs.replace(plan, sums=focus.sums, wall_skew_s=1.0)
    # Drawn last: whatever is private, the rest of a seed's plan stays what it was.
    return _private(draw, plan) if draw.random() < focus.private else plan


def _private(draw: random.Random, plan: Plan) -> Plan:
    """The same under a privacy budget. Who is enrolled again may still have its old disk."""
    faults = [
        structs.replace(fault, copied_at=draw.choice((None, fault.at, draw.uniform(1.0, fault.at))))
        if isinstance(fault, Reinstall)
        else fault
        for fault in plan.faults
    ]
    return structs.replace(plan, budget=draw.choice(BUDGETS), faults=tuple(faults))


def _faults(draw: random.Random, plan: Plan, focus: Focus) -> tuple[Fault, ...]:
    faults: list[Fault] = []
    times = sorted(
        draw.uniform(2.0, FAULTY_S) for _ in range(draw.randint(focus.faults_min, FAULTS_MAX))
    )
    for at in times:
        fault = KINDS[draw.choice(focus.kinds)](draw, at, plan)
        if isinstance(fault, Revoke) and _holds_revocation(faults):
            continue  # one is enough: what is left must be able to merge
        faults.append(fault)
    return tuple(faults)


def _holds_revocation(faults: Sequence[Fault]) -> bool:
    return any(isinstance(fault, Revoke) for fault in faults)


def kind_of(fault: Fault) -> str:
    """The word that it has in JSON."""
    return str(type(fault).__struct_config__.tag)
