"""What a scenario file may say. Unknown keys and values out of bounds are refused.

Times are virtual seconds from the start, shares are of one; the defaults of links are those of
`sim.network`, the policy's are the product's. docs/reference/scenarios.md is made
from the descriptions here.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e8)]
Devices = Annotated[int, Meta(ge=2, le=10_000)]
Rounds = Annotated[int, Meta(ge=1, le=100_000)]
Ratio = Annotated[float, Meta(gt=0.0, le=1e6)]
Points = Annotated[float, Meta(ge=-1.0, le=1.0)]
Few = Annotated[int, Meta(ge=0, le=10_000)]
Duration = Seconds | Annotated[list[Seconds], Meta(min_length=2, max_length=2)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Fleet(_Strict, frozen=True):
    """Who learns what from which examples."""

    devices: Annotated[Devices, Meta(description="all of them, attackers included")]
    data: Annotated[
        Literal["blobs", "digits", "mnist", "japanese_vowels", "basic_motions"],
        Meta(description="blobs are made up; mnist and below are fetched by a script of examples/"),
    ] = "digits"
    split: Annotated[
        Literal["iid", "dirichlet", "by_class", "by_speaker"],
        Meta(description="who gets which examples"),
    ] = "iid"
    alpha: Annotated[
        float, Meta(gt=0.0, le=1e6, description="skew of dirichlet: small is much")
    ] = 1.0
    classes: Annotated[int, Meta(ge=1, le=100, description="by_class: classes per device")] = 2
    examples: Annotated[
        int, Meta(ge=0, le=1_000_000, description="per device at most; 0: share out all there are")
    ] = 0
    model: Annotated[
        Literal["softmax", "mlp", "digits-logistic", "digits-mlp", "mnist-cnn"],
        Meta(description="a learner in numpy, or a bundle that ships, on onnxruntime"),
    ] = "softmax"
    scale: Annotated[
        Ratio, Meta(description="inputs, which are 0 to 1, times this: more learns quicker")
    ] = 1.0
    hidden: Annotated[int, Meta(ge=1, le=4_096, description="mlp: width of its hidden layer")] = 32
    mdns: Annotated[bool, Meta(description="devices of one site find each other by multicast")] = (
        True
    )
    wall_skew: Annotated[Seconds, Meta(description="wall clocks are wrong by up to this")] = 2.0


class Privacy(_Strict, frozen=True):
    """What devices add before they publish, and how much they may spend in all. Without this table
    nothing is added. `gossipfl privacy plan` says which numbers go together."""

    mode: Annotated[
        Literal["local", "group-sum"],
        Meta(description="group-sum: noise beside the sums that policy.group_size asks for"),
    ] = "local"
    unit: Annotated[
        Literal["device", "record"],
        Meta(description="what is hidden: all that a device has, or each example"),
    ] = "device"
    epsilon: Annotated[
        float, Meta(gt=0.0, le=1e3, description="over all publications of a device")
    ] = 8.0
    delta: Annotated[float, Meta(gt=0.0, lt=1.0)] = 1e-5
    clip: Annotated[float, Meta(ge=1e-6, le=1e6, description="length of a change or gradient")] = (
        1.0
    )
    z: Annotated[
        float, Meta(ge=0.25, le=1e5, description="noise over sensitivity: 2 clip, or clip")
    ] = 1.0
    sample_rate: Annotated[
        float, Meta(ge=1e-6, le=1.0, description="record: chance of an example in a step")
    ] = 1.0
    steps: Annotated[int, Meta(ge=1, le=1_000_000, description="record: of one publication")] = 1
    lot: Annotated[
        int, Meta(ge=1, le=65_536, description="record: examples that a step is divided by")
    ] = 1


class Policy(_Strict, frozen=True):
    """The operator's signed settings."""

    rule: Annotated[str, Meta(max_length=64, description="see docs/how-to/policy.md")] = (
        "collapse+nna"
    )
    attackers: Annotated[int, Meta(ge=0, le=10_000, description="how many it assumes")] = 0
    pace: Annotated[
        Literal["demo", "lan", "wan"], Meta(description="a round each 3, 30 or 300 s")
    ] = "demo"
    codec: Annotated[str, Meta(max_length=64)] = "f32"
    sample: Annotated[
        int | None, Meta(description="peers asked per round; by default from the exact bound")
    ] = None
    epochs: Annotated[int, Meta(ge=1, le=100)] = 1
    learning_rate: Annotated[float, Meta(gt=0.0, le=100.0)] = 0.05
    momentum: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.9
    batch: Annotated[int, Meta(ge=1, le=65_536)] = 32
    guard: Annotated[bool, Meta(description="the catastrophe guard")] = True
    group_size: Annotated[
        int, Meta(ge=0, le=16, description="4 to 16: group sums in groups of about so many")
    ] = 0
    group_train: Annotated[
        int, Meta(ge=1, le=86_400, description="group sums: seconds of a window to train")
    ] = 6
    group_step: Annotated[
        int, Meta(ge=1, le=3_600, description="group sums: seconds of each of six steps")
    ] = 2
    group_attempts: Annotated[
        int, Meta(ge=1, le=8, description="group sums: attempts in a window")
    ] = 2
    privacy: Privacy | None = None


class Lines(_Strict, frozen=True):
    """What every message meets on its way. Between sites: beside, not instead of."""

    latency: Annotated[Seconds, Meta(description="one way")] = 0.002
    jitter: Annotated[Seconds, Meta(description="uniform, added to the latency")] = 0.001
    loss: Annotated[Share, Meta(description="of the messages never arrive")] = 0.0
    duplicate: Annotated[Share, Meta(description="of the messages arrive twice")] = 0.0
    reorder: Annotated[Share, Meta(description="of the messages are held back by up to 0.5 s")] = (
        0.0
    )
    mbit: Annotated[
        float, Meta(gt=0.0, le=1e6, description="of each sender's uplink, per second")
    ] = 100.0


class Site(_Strict, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=32)]
    share: Annotated[Share, Meta(description="of the devices; the last site gets the rest")]


class Network(_Strict, frozen=True):
    """Links, and sites with slower links between them. Multicast does not cross sites."""

    lan: Annotated[Lines, Meta(description="within a site")] = Lines()
    between: Annotated[Lines, Meta(description="from site to site")] = Lines(
        latency=0.04, jitter=0.01, mbit=20.0
    )
    sites: Annotated[list[Site], Meta(max_length=64)] = []
    gateways: Annotated[
        int,
        Meta(ge=1, le=100, description="devices of each site that know as many of each other one"),
    ] = 2


class _Pick(_Strict, frozen=True):
    """Which devices: by number, how many, or what share, drawn from the seed."""

    devices: Annotated[list[Few], Meta(max_length=10_000)] = []
    count: Few = 0
    share: Share = 0.0


class Speed(_Pick, frozen=True):
    """Training and merging of some devices take `factor` times as long."""

    factor: Annotated[float, Meta(gt=0.0, le=1e6)] = 1.0


class Attackers(_Strict, frozen=True):
    """Liars: the last devices of the fleet. Several entries share them out in order."""

    attack: Annotated[str, Meta(max_length=64, description="a name of `gossipfl sim attacks`")]
    count: Few = 0
    share: Annotated[Share, Meta(description="of all devices, rounded down, in place of count")] = (
        0.0
    )
    noise: Annotated[
        float, Meta(ge=0.0, le=100.0, description="share of the honest deviation that is added")
    ] = 0.0
    since: Annotated[Seconds, Meta(description="honest until then")] = 0.0


class _Fault(_Pick, frozen=True, tag_field="what"):
    at: Annotated[Seconds, Meta(description="when")] = 0.0
    every: Annotated[Seconds, Meta(description="again and again, with others drawn; 0: once")] = 0.0
    until: Annotated[Seconds, Meta(description="the last time; 0: to the end")] = 0.0


class Crash(_Fault, frozen=True, tag="crash"):
    """The process dies; it starts again after `lasts`, [least, most] for a drawn time."""

    lasts: Duration = 1.0
    reboot: Annotated[bool, Meta(description="its monotonic clock begins anew")] = False


class Leave(_Fault, frozen=True, tag="leave"):
    """A clean end; it comes back after `lasts`, or never."""

    lasts: Duration = 0.0


class Join(_Fault, frozen=True, tag="join"):
    """These devices are not there before."""


class Sleep(_Fault, frozen=True, tag="sleep"):
    """The machine is suspended with its network off, and wakes after `lasts`."""

    lasts: Duration = 60.0


class Partition(_Fault, frozen=True, tag="partition"):
    """The picked devices and the others do not hear each other; 0: until `heal`."""

    lasts: Duration = 0.0


class Heal(_Fault, frozen=True, tag="heal"):
    """Every partition ends."""


class ClockJump(_Fault, frozen=True, tag="clock_jump"):
    """Their wall clocks jump."""

    by: Annotated[float, Meta(ge=-1e9, le=1e9, description="seconds, forward or back")] = 3_600.0


class Move(_Fault, frozen=True, tag="move"):
    """They change networks: a new address, and the links of that site if one is named."""

    site: Annotated[str, Meta(max_length=32)] = ""


Fault = Crash | Leave | Join | Sleep | Partition | Heal | ClockJump | Move


class Expect(_Strict, frozen=True):
    """What must come of it. Accuracies are of the honest devices' bases on the test set."""

    completed: Annotated[Share | None, Meta(description="of honest rounds merge, at least")] = None
    rounds: Annotated[
        Rounds | None, Meta(description="every honest device that is up has done as many")
    ] = None
    accuracy_mean: Annotated[Share | None, Meta(description="at least")] = None
    accuracy_worst: Annotated[Share | None, Meta(description="at least")] = None
    below_clean: Annotated[
        Points | None,
        Meta(
            description="mean accuracy at most this much under that of an undisturbed run: no "
            "attackers, no timeline, a good LAN, equal devices"
        ),
    ] = None
    consensus_ratio: Annotated[
        Ratio | None, Meta(description="distance of honest bases over that run's, at most")
    ] = None
    quarantined_honest: Annotated[
        Few | None, Meta(description="honest devices shut out by an honest one at the end")
    ] = None
    caught: Annotated[
        Share | None,
        Meta(description="of (honest device, liar) pairs end in quarantine, at least"),
    ] = None
    influence: Annotated[
        Share | None, Meta(description="of all liars together in honest merges at the end, at most")
    ] = None
    releases: Annotated[
        Few | None, Meta(description="of an honest device under privacy, at most")
    ] = None
    listening: Annotated[
        Share | None,
        Meta(description="of the honest devices only listen at the end, at least: budgets end"),
    ] = None


class Short(_Strict, frozen=True):
    """What `--short` runs instead: quick, and with expectations of its own."""

    devices: Devices | None = None
    rounds: Rounds | None = None
    minutes: Annotated[float, Meta(gt=0.0, le=1e6)] | None = None
    attackers: Few | None = None
    expect: Expect | None = None


class Scenario(_Strict, frozen=True):
    about: Annotated[str, Meta(min_length=1, max_length=200, description="one line for people")]
    fleet: Fleet
    rounds: Annotated[
        Rounds | None, Meta(description="how long: this many round intervals of the pace, or")
    ] = None
    minutes: Annotated[
        Annotated[float, Meta(gt=0.0, le=1e6)] | None, Meta(description="virtual minutes")
    ] = None
    policy: Policy = Policy()
    network: Network = Network()
    compute: Annotated[list[Speed], Meta(max_length=64)] = []
    attackers: Annotated[list[Attackers], Meta(max_length=64)] = []
    timeline: Annotated[list[Fault], Meta(max_length=1_000)] = []
    expect: Expect = Expect()
    short: Short = Short()
