"""The fleet of a scenario: devices with their data and trainers, links, sites, speeds, liars."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from gossipfl.config import PACES, NodeSettings
from gossipfl.interfaces import Trainer
from gossipfl.messages import Training
from gossipfl.privacy.agreed import affordable
from sim.attacks import attack
from sim.attacks.liar import corrupt
from sim.checkers import BudgetKept, all_checkers
from sim.data import (
    Examples,
    Split,
    blobs,
    digits,
    split_by_class,
    split_by_group,
    split_dirichlet,
    split_iid,
)
from sim.device import SimDevice
from sim.learners import Learner, Mlp, Model, Softmax
from sim.network import Link
from sim.options import Options
from sim.scenarios.files import Named, liar_counts, privacy
from sim.scenarios.schema import Fleet, Join, Lines, Policy, Scenario, _Pick
from sim.scene import Grouping, Scene, Setup


@dataclass(slots=True)
class Cast:
    """A scenario ready to be played. `site_of` by device number; `liars` lie sooner or later."""

    named: Named
    seed: int
    scene: Scene
    site_of: list[str]
    absent: list[int]
    liars: list[SimDevice]

    @property
    def scenario(self) -> Scenario:
        return self.named.scenario

    def honest(self) -> list[SimDevice]:
        """Those that never lie."""
        return [d for d in self.scene.devices if d not in self.liars]


def cast(named: Named, seed: int) -> Cast:
    """Builds the world; nothing runs yet."""
    scenario = named.scenario
    scene = _scene(named, seed)
    draw = random.Random(f"cast {seed}")
    sites = _place(scenario, scene)
    for speed in scenario.compute:
        for index in chosen(speed, range(len(scene.devices)), draw):
            scene.devices[index].slowness *= speed.factor
    absent = [
        index
        for fault in scenario.timeline
        if isinstance(fault, Join)
        for index in chosen(fault, range(len(scene.devices)), draw)
    ]
    liars = _corrupt(scenario, scene, seed)
    return Cast(named, seed, scene, sites, absent, liars)


def chosen(pick: _Pick, among: Sequence[int], draw: random.Random) -> list[int]:
    """The devices that a table names, or as many as it says, drawn from `among`."""
    if pick.devices:
        return [index for index in pick.devices if index in among]
    count = pick.count or round(pick.share * len(among))
    return sorted(draw.sample(list(among), min(count, len(among))))


def _scene(named: Named, seed: int) -> Scene:
    scenario = named.scenario
    fleet, policy = scenario.fleet, scenario.policy
    settings = NodeSettings(pace=PACES[policy.pace], guard=policy.guard)
    options = Options(
        link=link(scenario.network.lan),
        settings=settings,
        wall_skew_s=fleet.wall_skew,
        mdns=fleet.mdns,
        note={"scenario": named.name},
    )
    more: dict[str, object] = {"codec": policy.codec}
    if policy.sample is not None:
        more["sample"] = policy.sample
    watching = all_checkers()
    if policy.privacy is not None and not policy.group_size:
        more["privacy"] = privacy(policy.privacy)
        watching.append(BudgetKept(affordable(privacy(policy.privacy))))
    setup = Setup(
        devices=fleet.devices,
        attackers=policy.attackers,
        rule=policy.rule,
        training=Training(
            epochs=policy.epochs,
            learning_rate=policy.learning_rate,
            momentum=policy.momentum,
            batch=policy.batch,
        ),
        policy=more,
        sums=grouping(policy) if policy.group_size else None,
    )
    return Scene(seed, setup, options, watching, trainers=trainers(fleet, seed))


def grouping(policy: Policy) -> Grouping:
    beside = privacy(policy.privacy) if policy.privacy is not None else None
    times = (policy.group_train, policy.group_step, policy.group_attempts)
    return Grouping(policy.group_size, *times, beside)


def link(lines: Lines) -> Link:
    return Link(
        latency_s=lines.latency,
        jitter_s=lines.jitter,
        loss=lines.loss,
        duplicate=lines.duplicate,
        reorder=lines.reorder,
        bytes_per_s=lines.mbit * 125_000.0,
    )


# --- what they learn ----------------------------------------------------------------------------


def dataset(name: str, seed: int) -> Split:
    """Raises DataMissing for what has to be fetched first."""
    if name == "blobs":
        return blobs(seed)
    if name == "digits":
        return digits(seed)
    from sim.datasets import stored  # reads files

    return stored(name, seed)


def parts_of(data: Examples, fleet: Fleet, seed: int) -> list[Examples]:
    """One part per device."""
    if fleet.examples and fleet.examples * fleet.devices < len(data) and fleet.split == "iid":
        data = split_iid(data, 1, seed)[0].first(fleet.examples * fleet.devices)
    match fleet.split:
        case "iid":
            parts = split_iid(data, fleet.devices, seed)
        case "dirichlet":
            parts = split_dirichlet(data, fleet.devices, fleet.alpha, seed)
        case "by_class":
            parts = split_by_class(data, fleet.devices, fleet.classes, seed)
        case "by_speaker":
            parts = split_by_group(data, fleet.devices, seed)
    return [part.first(fleet.examples) for part in parts] if fleet.examples else parts


def trainers(fleet: Fleet, seed: int) -> list[Trainer]:
    """One per device, over its part, all measured on the same test set."""
    data = dataset(fleet.data, seed).scaled(fleet.scale)
    splits = [Split(part, data.test) for part in parts_of(data.train, fleet, seed)]
    if fleet.model not in ("softmax", "mlp"):
        from sim.bundled import bundled  # brings onnxruntime

        return bundled(fleet.model, splits)
    features, classes = data.train.x[0].size, data.train.classes
    model: Model = Softmax(features, classes)
    if fleet.model == "mlp":
        model = Mlp(features, fleet.hidden, classes)
    return [Learner(model, split.flat()) for split in splits]


# --- where they are, and who lies ---------------------------------------------------------------


def _place(scenario: Scenario, scene: Scene) -> list[str]:
    """The site of each device. Between sites links are slower and multicast is not heard."""
    network, devices = scenario.network, scene.devices
    if not network.sites:
        return [""] * len(devices)
    names: list[str] = []
    for site in network.sites[:-1]:
        names += [site.name] * round(site.share * len(devices))
    names = names[: len(devices)]
    names += [network.sites[-1].name] * (len(devices) - len(names))
    for device, name in zip(devices, names, strict=True):
        scene.world.network.place(device.index, name, link(network.between))
    return names


def introduce_sites(cast_: Cast) -> None:
    """The gateways of each site know those of the others, as static peers in their settings."""
    by_site: dict[str, list[SimDevice]] = {}
    for device, site in zip(cast_.scene.devices, cast_.site_of, strict=True):
        by_site.setdefault(site, []).append(device)
    gates = cast_.scenario.network.gateways
    for site, devices in by_site.items():
        for other, theirs in by_site.items():
            if other != site:
                for device in devices[:gates]:
                    for peer in theirs[:gates]:
                        cast_.scene.world.introduce(device, peer)


def _corrupt(scenario: Scenario, scene: Scene, seed: int) -> list[SimDevice]:
    counts = liar_counts(scenario)
    at = len(scene.devices) - sum(counts)
    for entry, count in zip(scenario.attackers, counts, strict=True):
        lie = attack(
            entry.attack,
            noise=entry.noise,
            rule=scenario.policy.rule,
            f=scenario.policy.attackers,
            seed=seed,
        )
        corrupt(scene.world, scene.devices[at : at + count], lie, entry.since)
        at += count
    return scene.devices[len(scene.devices) - sum(counts) :]
