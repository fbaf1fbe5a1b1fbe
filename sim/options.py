"""Everything beside the seed that decides a simulated history."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from gossipfl.config import PACES, NodeSettings
from sim.network import Link


@dataclass(frozen=True, slots=True)
class Costs:
    """Virtual seconds that work takes. Guesses for a small board."""

    commit_s: float = 0.004  # an fsync on flash
    train_s_per_example: float = 2e-5  # one epoch
    merge_s_per_model: float = 2e-4
    load_job_s: float = 0.05
    restart_s: float = 1.0  # crash to a new process


@dataclass(frozen=True, slots=True)
class Options:
    """Everything beside the seed that decides a history. Printed with every failure."""

    link: Link = field(default_factory=Link)
    costs: Costs = field(default_factory=Costs)
    settings: NodeSettings = field(default_factory=lambda: NodeSettings(pace=PACES["demo"]))
    wall_skew_s: float = 2.0  # wall clocks differ by up to this, both ways
    drift: float = 5e-5  # monotonic clocks run fast or slow by up to this share
    slowness_max: float = 2.0  # the slowest device against the fastest
    mdns: bool = True  # devices that reach each other see each other
    mdns_delay_s: float = 1.4  # until a new device is seen by all: measured for 8 nodes on a LAN
    mdns_ttl_s: float = 75.0  # a silent device's record lives on this long (RFC 6762: 120 s)
    note: dict[str, Any] = field(default_factory=dict)  # what a scenario wants printed


def describe(value: Any, default: Any = None) -> str:
    """What differs from the defaults, as the call that makes it again."""
    if isinstance(value, NodeSettings):
        return f"NodeSettings(pace={value.pace.name!r}, guard={value.guard})"
    if not is_dataclass(value) or isinstance(value, type):
        return repr(value)
    default = default if default is not None else type(value)()
    changed = [
        f"{f.name}={describe(getattr(value, f.name))}"
        for f in fields(value)
        if getattr(value, f.name) != getattr(default, f.name)
    ]
    return f"{type(value).__name__}({', '.join(changed)})"
