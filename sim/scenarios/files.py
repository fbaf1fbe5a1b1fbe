"""Finds scenario files by name or path and reads them; whatever is wrong is told with its place."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gossipfl import messages
from gossipfl.aggregation import RuleError, rule
from gossipfl.codecs import CodecError
from gossipfl.codecs.names import parse
from gossipfl.errors import UserError
from gossipfl.privacy.agreed import affordable
from sim.attacks import attack
from sim.scenarios.hints import allowed
from sim.scenarios.schema import Privacy, Scenario, Short

FOLDER = Path(__file__).parent
FILE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Named:
    name: str
    scenario: Scenario


def names() -> list[str]:
    """Those that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Named:
    """A shipped scenario by its name, or any file by its path. Raises UserError GF100, GF108."""
    path = Path(name)
    if name in names():
        path = FOLDER / f"{name}.toml"
    elif path.suffix != ".toml":
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}?" if near else "`gossipfl sim list` lists them"
        raise UserError("GF100", f"there is no scenario {name!r}, and it is no .toml file", hint)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError("GF108", f"{path}: {error.strerror}") from None
    return Named(path.stem, parse_bytes(data, str(path)))


def parse_bytes(data: bytes, where: str) -> Scenario:
    """The scenario in these bytes. Raises UserError GF108 with the place."""
    if len(data) > FILE_BYTES:
        raise UserError("GF108", f"{where} has {len(data)} bytes, at most {FILE_BYTES}")
    try:
        raw = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError("GF108", f"{where}: {error}") from None
    try:
        scenario = msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as error:
        raise UserError("GF108", f"{where}: {error}", allowed(str(error), raw)) from None
    try:
        _check(scenario)
    except (ValueError, RuleError, CodecError) as error:
        raise UserError("GF108", f"{where}: {error}") from None
    return scenario


def shortened(scenario: Scenario) -> Scenario:
    """The quick form."""
    short = scenario.short
    changes: dict[str, object] = {"short": Short()}
    if short.devices is not None:
        changes["fleet"] = msgspec.structs.replace(scenario.fleet, devices=short.devices)
    if short.rounds is not None or short.minutes is not None:
        changes |= {"rounds": short.rounds, "minutes": short.minutes}
    if short.attackers is not None:
        changes["policy"] = msgspec.structs.replace(scenario.policy, attackers=short.attackers)
    if short.expect is not None:
        changes["expect"] = short.expect
    return msgspec.structs.replace(scenario, **changes)


def _check(scenario: Scenario) -> None:
    """What types cannot say. Raises ValueError, RuleError or CodecError."""
    if (scenario.rounds is None) == (scenario.minutes is None):
        raise ValueError("say how long: either rounds or minutes")
    rule(scenario.policy.rule)
    parse(scenario.policy.codec)
    for entry in scenario.attackers:
        attack(entry.attack)
        if (entry.count > 0) == (entry.share > 0.0):
            raise ValueError(f"attackers {entry.attack}: say either count or share")
    for form in (scenario, shortened(scenario)):
        liars = sum(_liars(form).values())
        if liars > form.fleet.devices - 2:
            raise ValueError(f"{liars} attackers leave fewer than 2 honest devices")
        if form.policy.attackers >= form.fleet.devices:
            raise ValueError("policy.attackers is not below fleet.devices")
        _check_privacy(form)
    sites = {site.name for site in scenario.network.sites}
    for number, fault in enumerate(scenario.timeline):
        site = getattr(fault, "site", "")
        if site and site not in sites:
            raise ValueError(f"timeline[{number}]: there is no site {site!r} in network.sites")
        if fault.every and fault.every < 0.1:
            raise ValueError(f"timeline[{number}]: every is at least 0.1 s")


def _check_privacy(scenario: Scenario) -> None:
    policy = scenario.policy
    table = policy.privacy
    if table is None:
        return
    if (table.mode == "group-sum") != (policy.group_size > 0):
        raise ValueError("policy.privacy.mode group-sum and policy.group_size go together")
    if affordable(privacy(table)) < 1:
        raise ValueError(
            f"policy.privacy: one publication costs more than epsilon {table.epsilon:g}; "
            "`gossipfl privacy plan` says which z the budget needs"
        )


def privacy(table: Privacy) -> messages.Privacy:
    """As a policy of mode local says it; group sums add theirs."""
    return messages.Privacy(**{**msgspec.structs.asdict(table), "mode": "local"})


def _liars(scenario: Scenario) -> dict[int, int]:
    """How many devices each entry of `attackers` corrupts."""
    devices = scenario.fleet.devices
    return {
        number: entry.count or int(entry.share * devices + 1e-9)
        for number, entry in enumerate(scenario.attackers)
    }


def liar_counts(scenario: Scenario) -> list[int]:
    """The same, in order."""
    return list(_liars(scenario).values())
