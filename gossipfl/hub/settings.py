"""The settings of a hub, typed: the one table that validates a file and that `hub init` writes."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from gossipfl.config import PACES
from gossipfl.errors import UserError
from gossipfl.fleet.files import read_secret
from gossipfl.hub.alerts.settings import AlertsSection
from gossipfl.hub.reports.settings import ReportsSection
from gossipfl.setting_docs import PORT_MAX, Doc, addresses, between, is_loopback, networks, one_of
from gossipfl.toml_files import near, read_file

_WIDTH = 96


@dataclass(frozen=True, slots=True)
class HubSection:
    state: Annotated[
        Path,
        Doc("Folder of the hub's keys and of its SQLite database.", "the folder of this file"),
    ] = Path()


@dataclass(frozen=True, slots=True)
class ApiSection:
    host: Annotated[
        str, Doc("Address of page and API.", "loopback: nobody else asks before it is set up")
    ] = "127.0.0.1"
    port: Annotated[
        int, Doc("Port of page and API; 0 takes a free one.", "guess", between(0, PORT_MAX))
    ] = 8700
    certificate: Annotated[
        Path | None,
        Doc("PEM file of the API's certificate chain. Needed off loopback.", "empty: plain HTTP"),
    ] = None
    key: Annotated[Path | None, Doc("PEM file of its private key, mode 0600.", "empty")] = None
    guests: Annotated[
        bool,
        Doc("Anybody on this machine may look at the page. Loopback only, no proxy.", "off"),
    ] = False
    trusted_proxies: Annotated[
        tuple[str, ...],
        Doc(
            "Addresses or networks of proxies in front of the API: whom they name in "
            "X-Forwarded-For counts as who asks.",
            "empty: the address of a connection counts",
            networks,
        ),
    ] = ()

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class DatabaseSection:
    dsn: Annotated[
        str,
        Doc(
            "postgresql://USER@HOST/NAME, or sqlite:///PATH. No password in it.",
            "empty: hub.db in the state folder",
        ),
    ] = ""
    password_file: Annotated[
        Path | None, Doc("File with the password of a postgresql DSN, mode 0600.", "empty: none")
    ] = None


@dataclass(frozen=True, slots=True)
class NetworkSection:
    hosts: Annotated[
        tuple[str, ...],
        Doc("Addresses on which devices find the hub.", "as a device's: TLS proves membership"),
    ] = ("0.0.0.0", "::")
    port: Annotated[
        int,
        Doc("TCP port for devices; 0 takes any free one.", "as a device's", between(0, PORT_MAX)),
    ] = 0
    advertise: Annotated[
        tuple[str, ...],
        Doc('Addresses that devices are told, "host:port".', "empty: the interfaces'", addresses),
    ] = ()
    peers: Annotated[
        tuple[str, ...],
        Doc(
            'Devices that are always tried, "host:port".', "empty: discovery finds them", addresses
        ),
    ] = ()


@dataclass(frozen=True, slots=True)
class DiscoverySection:
    enabled: Annotated[bool, Doc("Find devices by mDNS on the local network.", "protocol")] = True
    interfaces: Annotated[
        tuple[str, ...],
        Doc("Interfaces to use for discovery.", "empty: those with the default route (protocol)"),
    ] = ()


@dataclass(frozen=True, slots=True)
class DeskSection:
    issuer: Annotated[
        Path | None,
        Doc(
            "Folder of an issuer (FLEET/issuers/NAME): the hub lets devices in, as `gossipfl fleet "
            "issuer run` does.",
            "empty: another machine lets them in",
        ),
    ] = None
    host: Annotated[str, Doc("Address for those who join.", "as `fleet issuer run`")] = "0.0.0.0"
    port: Annotated[int, Doc("Its port; 0 takes a free one.", "guess", between(0, PORT_MAX))] = (
        7_401
    )


@dataclass(frozen=True, slots=True)
class PaceSection:
    preset: Annotated[
        str, Doc("As the devices'. A checkpoint every 60 s; demo 10x faster, wan 10x slower.",
                 "protocol", one_of(*PACES))
    ] = "lan"  # fmt: skip


@dataclass(frozen=True, slots=True)
class StarSection:
    round_s: Annotated[
        int,
        Doc(
            "Star mode: a round is merged when all selected clients have answered, or after so "
            "many seconds, if a quorum has.",
            "protocol, preset lan",
            between(1, 86_400),
        ),
    ] = 30
    live_s: Annotated[
        int,
        Doc(
            "Clients that were not seen for so many seconds are not selected.",
            "guess, ten rounds",
            between(10, 30 * 86_400),
        ),
    ] = 300
    global_epsilon: Annotated[
        float,
        Doc(
            "What all clients' releases may spend together under a policy with privacy; 0: no "
            "such budget, only each client's own.",
            "off: for people whose data lie at several clients",
            between(0.0, 1e3),
        ),
    ] = 0.0
    holdout: Annotated[
        Path | None,
        Doc(
            "File .npz with public examples x and y: they judge each global model, and clients "
            "under weighted_mean.",
            "empty: clients' own figures, by their median",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class LoggingSection:
    level: Annotated[
        str, Doc("What is logged.", "guess", one_of("debug", "info", "warning", "error"))
    ] = "info"
    format: Annotated[
        str,
        Doc(
            "human, journald (<N> prefixes), json, or auto.",
            "auto: journald where it reads stderr, else human",
            one_of("auto", "human", "journald", "json"),
        ),
    ] = "auto"


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Immutable once loaded."""

    hub: HubSection = field(default_factory=HubSection)
    api: ApiSection = field(default_factory=ApiSection)
    database: DatabaseSection = field(default_factory=DatabaseSection)
    network: NetworkSection = field(default_factory=NetworkSection)
    discovery: DiscoverySection = field(default_factory=DiscoverySection)
    desk: DeskSection = field(default_factory=DeskSection)
    pace: PaceSection = field(default_factory=PaceSection)
    star: StarSection = field(default_factory=StarSection)
    alerts: AlertsSection = field(default_factory=AlertsSection)
    reports: ReportsSection = field(default_factory=ReportsSection)
    logging: LoggingSection = field(default_factory=LoggingSection)

    @property
    def dsn(self) -> str:
        return self.database.dsn or f"sqlite:///{self.hub.state / 'hub.db'}"

    @property
    def password(self) -> str | None:
        """Of the database, if a file holds one. Raises UserError."""
        path = self.database.password_file
        return None if path is None else read_secret(path).decode().strip()

    @property
    def holdout(self) -> str:
        """The name of the public examples, "" without any."""
        return self.star.holdout.stem if self.star.holdout is not None else ""

    @property
    def checkpoint_s(self) -> float:
        """protocol: every 60 s in the lan preset, scaled as everything else is."""
        return max(1.0, 2.0 * PACES[self.pace.preset].round_interval_s)


SECTIONS: dict[str, type[Any]] = {
    "hub": HubSection,
    "api": ApiSection,
    "database": DatabaseSection,
    "network": NetworkSection,
    "discovery": DiscoverySection,
    "desk": DeskSection,
    "pace": PaceSection,
    "star": StarSection,
    "alerts": AlertsSection,
    "reports": ReportsSection,
    "logging": LoggingSection,
}


@dataclass(frozen=True, slots=True)
class Row:
    section: str
    key: str
    kind: Any
    default: Any
    doc: Doc


def _rows() -> Iterator[Row]:
    for section, kind in SECTIONS.items():
        hints = get_type_hints(kind, include_extras=True)
        for entry in dataclasses.fields(kind):
            plain, doc = get_args(hints[entry.name])
            yield Row(section, entry.name, plain, entry.default, doc)


ROWS = tuple(_rows())
_KNOWN = {(row.section, row.key): row for row in ROWS}


def load_settings(files: Sequence[Path], flags: Mapping[str, str] | None = None) -> HubSettings:
    """Settings from files, then flags (`section.key` -> text). UserError GF101 to GF103.

    Relative paths in a file are relative to it; the state folder is that of the first file.
    """
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for path in files:
        document, lines = read_file(path)
        for section, entries in document.items():
            _require_section(section, entries, f"{path}:{lines.get(section, 1)}")
            for key, value in entries.items():
                where = f"{path}:{lines.get(f'{section}.{key}', lines.get(section, 1))}"
                values[section][key] = _value(section, key, value, where, path.parent)
    for name, text in (flags or {}).items():
        section, _, key = name.partition(".")
        _require_section(section, {}, f"--set {name}")
        values[section][key] = _value(section, key, _from_text(text), f"--set {name}", Path())
    if files:
        values["hub"].setdefault("state", files[0].parent)
    return HubSettings(**{name: kind(**values[name]) for name, kind in SECTIONS.items()})


def _require_section(section: str, entries: Any, where: str) -> None:
    if section not in SECTIONS:
        raise UserError("GF101", f"{where}: [{section}]{near(section, SECTIONS)}")
    if not isinstance(entries, dict):
        raise UserError("GF101", f"{where}: {section!r} stands outside of any [section]")


def _value(section: str, key: str, value: Any, where: str, folder: Path) -> Any:
    """The typed value, or UserError with the place, the problem and what is allowed."""
    row = _KNOWN.get((section, key))
    if row is None:
        keys = [r.key for r in ROWS if r.section == section]
        raise UserError("GF101", f"{where}: {key!r} in [{section}]{near(key, keys)}")
    found = tuple(value) if isinstance(value, list) else value
    if found == "" and row.kind == float | None:
        return None  # as in the template: not set
    if not _fits(found, row.kind):
        raise UserError("GF102", f"{where}: {section}.{key} = {value!r} is of another type")
    problem = row.doc.problem(found)
    if problem is not None:
        raise UserError("GF102", f"{where}: {section}.{key} = {value!r}: {problem}")
    if row.kind in (Path, Path | None):
        return folder / Path(str(found)).expanduser() if found or row.kind is Path else None
    return found


def _fits(value: object, kind: Any) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind == tuple[str, ...]:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if kind in (float, float | None):
        return isinstance(value, (int, float))
    return isinstance(value, int if kind is int else str)


def _from_text(text: str) -> Any:
    """A flag's text: numbers, true, false and lists as in JSON; everything else is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (bool, int, float, list)) else text


def template(given: Mapping[str, object]) -> str:
    """Every setting with its words and default; `given` (`section.key` -> value) is written."""
    out = ["# gossipfl: the settings of a hub. What is commented out is at its default."]
    section = ""
    for row in ROWS:
        if row.section != section:
            section = row.section
            out += ["", f"[{section}]"]
        text = f"{row.doc.help} Default: {_toml(row.default)} ({row.doc.origin})."
        out += textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")
        name = f"{row.section}.{row.key}"
        mark, value = ("", given[name]) if name in given else ("# ", row.default)
        out.append(f"{mark}{row.key} = {_toml(value)}")
    return "\n".join(out) + "\n"


def _toml(value: object) -> str:
    """JSON's texts, numbers, booleans and lists of texts are TOML's too."""
    plain = "" if value is None else str(value) if isinstance(value, Path) else value
    return json.dumps(plain, ensure_ascii=False)
