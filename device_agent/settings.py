"""The settings of one device, typed; the one table that validates and that `init` writes out.

`setting_files` loads them, `setting_template` writes them. Nothing here imports numpy or the
network, so that `status` can find the socket quickly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

from gossipfl.config import PACES
from gossipfl.setting_docs import PORT_MAX, Doc, addresses, between, one_of


@dataclass(frozen=True, slots=True)
class DeviceSection:
    state: Annotated[
        Path, Doc("Folder of keys, store and socket. Keep it private.", "the folder of this file")
    ] = Path()
    capability: Annotated[
        str,
        Doc(
            "Coarse class of this machine, published in heads, for example pi4.",
            "empty: nothing is told",
            problem=lambda value: None if len(value) <= 64 else "at most 64 characters",
        ),
    ] = ""


@dataclass(frozen=True, slots=True)
class NetworkSection:
    hosts: Annotated[
        tuple[str, ...],
        Doc(
            "Addresses to listen on.",
            "every IPv4 and IPv6 address: membership is proved by TLS, not by the place",
        ),
    ] = ("0.0.0.0", "::")
    port: Annotated[
        int,
        Doc(
            "TCP port to listen on. 0 takes any free one. Set it where a firewall must know it.",
            "several daemons on one machine must not collide, and peers learn it by discovery",
            problem=between(0, PORT_MAX),
        ),
    ] = 0
    advertise: Annotated[
        tuple[str, ...],
        Doc(
            'Addresses that peers are told to use, "host:port".',
            "empty: the addresses of the interfaces in [discovery], with the port above",
            problem=addresses,
            template=("192.0.2.7:7400",),
        ),
    ] = ()
    peers: Annotated[
        tuple[str, ...],
        Doc(
            'Peers that are always tried, "host:port". They work beside discovery, never instead.',
            "empty: multicast finds the peers; set some where routers drop multicast",
            problem=addresses,
            template=("192.0.2.8:7400", "[2001:db8::9]:7400"),
        ),
    ] = ()


@dataclass(frozen=True, slots=True)
class DiscoverySection:
    enabled: Annotated[bool, Doc("Find peers by mDNS on the local network.", "protocol")] = True
    interfaces: Annotated[
        tuple[str, ...],
        Doc(
            "Interfaces to use for discovery, by name.",
            "empty: those with the default route (protocol)",
            template=("eth0",),
        ),
    ] = ()


@dataclass(frozen=True, slots=True)
class PaceSection:
    preset: Annotated[
        str,
        Doc(
            "How often rounds start: lan 30 s, demo 10x faster, wan 10x slower, none back to back.",
            "protocol",
            problem=one_of(*PACES),
        ),
    ] = "lan"


@dataclass(frozen=True, slots=True)
class JobSection:
    bundle: Annotated[
        Path | None,
        Doc(
            "A bundle file (.gfl) to start with.",
            "empty: it is fetched from a peer when the policy names it",
            template="model.gfl",
        ),
    ] = None
    policy: Annotated[
        Path | None,
        Doc("A policy file to start with.", "empty: peers hand it over", template="policy"),
    ] = None


@dataclass(frozen=True, slots=True)
class DataSection:
    source: Annotated[
        str,
        Doc(
            'A folder of .npz, .npy or .csv files, or a Python entry point "module:function".',
            "empty: this device trains nothing; it listens, merges and can predict",
            template="data",
        ),
    ] = ""
    target: Annotated[
        str,
        Doc(
            "Target column of .csv files; several, with commas, for a vector.",
            "empty: the last column",
            template="label",
        ),
    ] = ""
    test_share: Annotated[
        float,
        Doc(
            "Share of the examples that is held out to measure accuracy. Never trained on.",
            "guess: the usual fifth",
            problem=between(0.01, 0.9),
        ),
    ] = 0.2
    seed: Annotated[
        int,
        Doc("Chooses which examples are held out.", "any number does", problem=between(0, 2**53)),
    ] = 0
    max_mb: Annotated[
        int,
        Doc(
            "Most memory that the examples may take, in MB.",
            "guess: half of a small board",
            problem=between(1, 1_048_576),
        ),
    ] = 1_024


@dataclass(frozen=True, slots=True)
class TrainingSection:
    alone_reference: Annotated[
        bool,
        Doc(
            "Also train a model on local data alone, to show what the fleet is worth. It stops"
            " when it no longer gets better, and never leaves this device.",
            "the figure that people ask for first; false saves the time",
        ),
    ] = True


@dataclass(frozen=True, slots=True)
class PrivacySection:
    """What the owner demands beyond the policy: stricter, never looser."""

    epsilon_max: Annotated[
        float,
        Doc(
            "Most that this device may spend in all. Under a policy without privacy a device that"
            " demands any publishes nothing. 0: what the policy says.",
            "the policy's budget",
            problem=between(0.0, 1e3),
        ),
    ] = 0.0
    delta_max: Annotated[
        float,
        Doc("The same for delta. 0: what the policy says.", "policy", problem=between(0.0, 0.1)),
    ] = 0.0
    z_min: Annotated[
        float,
        Doc(
            "Least noise: if the policy has less, this device adds so much. 0: what it says.",
            "policy",
            problem=between(0.0, 1e5),
        ),
    ] = 0.0
    unit: Annotated[
        str,
        Doc(
            "device: nothing is published that hides single examples only. Empty: the policy's.",
            "policy",
            problem=one_of("", "device", "record"),
        ),
    ] = ""


@dataclass(frozen=True, slots=True)
class LocalSection:
    socket: Annotated[
        Path,
        Doc(
            "Unix socket for status, peers and predict. A relative path is in the state folder.",
            "the state folder is private already",
        ),
    ] = Path("agent.sock")
    health_port: Annotated[
        int,
        Doc(
            "Port of /healthz and /metrics on 127.0.0.1. 0: not served.",
            "0: nothing listens that nobody asked for",
            problem=between(0, PORT_MAX),
        ),
    ] = 0


@dataclass(frozen=True, slots=True)
class LoggingSection:
    level: Annotated[
        str,
        Doc(
            "What is logged.",
            "guess: rounds and refusals, not requests",
            problem=one_of("debug", "info", "warning", "error"),
        ),
    ] = "info"
    format: Annotated[
        str,
        Doc(
            "human, journald (<N> prefixes), json, or auto.",
            "auto: journald where it reads stderr, else human",
            problem=one_of("auto", "human", "journald", "json"),
        ),
    ] = "auto"


@dataclass(frozen=True, slots=True)
class Settings:
    """Immutable once loaded. `sources` names where each value came from, by `section.key`."""

    device: DeviceSection = DeviceSection()
    network: NetworkSection = NetworkSection()
    discovery: DiscoverySection = DiscoverySection()
    pace: PaceSection = PaceSection()
    job: JobSection = JobSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    privacy: PrivacySection = PrivacySection()
    local: LocalSection = LocalSection()
    logging: LoggingSection = LoggingSection()
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        return self.device.state / self.local.socket

    def items(self) -> Iterator[tuple[str, object, str]]:
        """(section.key, value, source) of every setting, in file order."""
        for row in ROWS:
            value = getattr(getattr(self, row.section), row.key)
            yield row.name, value, self.sources.get(row.name, "default")


class Row(NamedTuple):
    """One setting of the table."""

    section: str
    key: str
    kind: Any  # its type
    default: object
    doc: Doc

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"


SECTIONS: dict[str, type] = {
    name: kind for name, kind in get_type_hints(Settings).items() if name != "sources"
}


def _rows() -> Iterator[Row]:
    for section, kind in SECTIONS.items():
        hints = get_type_hints(kind, include_extras=True)
        defaults = kind()
        for entry in dataclasses.fields(kind):
            type_, doc = get_args(hints[entry.name])
            yield Row(section, entry.name, type_, getattr(defaults, entry.name), doc)


ROWS: tuple[Row, ...] = tuple(_rows())
