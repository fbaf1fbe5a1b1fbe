"""Loads settings: files, environment, flags; each value with its place, each fault with its place.

Order: defaults < files, in the order given < `GOSSIPFL_SECTION__KEY` of the environment < flags.
Relative paths in a file are relative to that file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agent.settings import ROWS, SECTIONS, Settings
from gossipfl.errors import UserError
from gossipfl.toml_files import near, read_file

ENVIRONMENT = "GOSSIPFL_"
ENTRY_POINT = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
_ROWS = {row.name: row for row in ROWS}


@dataclass(frozen=True, slots=True)
class Found:
    """One value as somebody wrote it. `is_text`: it must still be read as its type."""

    section: str
    key: str
    value: Any
    where: str  # "path:line", a variable's or a flag's name
    folder: Path  # what a relative path is relative to
    is_text: bool = False


def load(
    files: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from files, environment and flags (`section.key` -> text). UserError GF101 to 103.

    A folder among `files` stands for its *.toml, sorted by name.
    """
    found: list[Found] = []
    for file in files:
        parts = sorted(file.glob("*.toml")) if file.is_dir() else [file]
        for part in parts:
            found += read_toml(part)
    found += _from_environment(os.environ if environment is None else environment)
    for name, text in (flags or {}).items():
        section, _, key = name.partition(".")
        found.append(Found(section, key, text, f"--set {name}", Path(), is_text=True))
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    sources: dict[str, str] = {}
    for entry in found:
        value = _value(entry)
        values[entry.section][entry.key] = value
        sources[f"{entry.section}.{entry.key}"] = entry.where
    if "device.state" not in sources and files:
        values["device"]["state"] = files[0] if files[0].is_dir() else files[0].parent
    sections = {section: kind(**values[section]) for section, kind in SECTIONS.items()}
    return Settings(**sections, sources=sources)


def read_toml(path: Path) -> list[Found]:
    """Every `[section] key = value` of a file. UserError GF103 if it cannot be read."""
    document, lines = read_file(path)
    found = []
    for section, values in document.items():
        where = f"{path}:{lines.get(section, 1)}"
        if not isinstance(values, dict):
            found.append(Found("", section, values, where, path.parent))
        elif section not in SECTIONS:
            found.append(Found(section, "", {}, where, path.parent))
        else:
            for key, value in values.items():
                line = lines.get(f"{section}.{key}", lines.get(section, 1))
                found.append(Found(section, key, value, f"{path}:{line}", path.parent))
    return found


def _from_environment(environment: Mapping[str, str]) -> list[Found]:
    found = []
    for name, text in sorted(environment.items()):
        section, separator, key = name.removeprefix(ENVIRONMENT).lower().partition("__")
        if name.startswith(ENVIRONMENT) and separator:
            found.append(Found(section, key, text, name, Path(), is_text=True))
    return found


def _value(entry: Found) -> Any:
    """The typed value of what was found, or UserError with place, problem and what is allowed."""
    if not entry.section:
        raise UserError("GF101", f"{entry.where}: {entry.key!r} stands outside of any [section]")
    if entry.section not in SECTIONS:
        raise UserError("GF101", f"{entry.where}: [{entry.section}]{near(entry.section, SECTIONS)}")
    name = f"{entry.section}.{entry.key}"
    row = _ROWS.get(name)
    if row is None:
        known = near(entry.key, [r.key for r in ROWS if r.section == entry.section])
        raise UserError("GF101", f"{entry.where}: {entry.key!r} in [{entry.section}]{known}")
    value = _from_text(entry.value, row.kind) if entry.is_text else entry.value
    if not _fits(value, row.kind):
        raise UserError("GF102", f"{entry.where}: {name} = {value!r} is not {_named(row.kind)}")
    if isinstance(value, list):
        value = tuple(value)
    problem = row.doc.problem(value)
    if problem is not None:
        raise UserError("GF102", f"{entry.where}: {name} = {value!r}: {problem}")
    if row.kind is float:
        return float(value)
    if row.kind in (Path, Path | None) or name == "data.source":
        return _path(value, name, entry.folder)
    return value


def _path(value: str, name: str, folder: Path) -> Path | str | None:
    """Relative to `folder`, except for the socket, which is relative to the state folder."""
    match name:
        case "local.socket":
            return Path(value)
        case "data.source":
            is_path = value and not ENTRY_POINT.match(value)
            return str(folder / Path(value).expanduser()) if is_path else value
        case "job.bundle" | "job.policy" if not value:
            return None
    return folder / Path(value).expanduser()


def _from_text(text: str, kind: Any) -> Any:
    """A variable's or flag's text as its type, where it can be read as such; else the text."""
    if kind == tuple[str, ...]:
        if text.startswith("["):
            return _toml_value(text)
        return [part.strip() for part in text.split(",") if part.strip()]
    return _toml_value(text) if kind in (bool, int, float) else text


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _fits(value: object, kind: Any) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, (int, float))
    if kind == tuple[str, ...]:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, int if kind is int else str)


def _named(kind: Any) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        tuple[str, ...]: 'a list of texts, like ["a", "b"]',
    }
    return names.get(kind, "a text in quotes")
