"""The commented config.toml that `init` writes: the table of `settings`, in words."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path

from device_agent.settings import ROWS

_WIDTH = 96


def template(given: Mapping[str, object]) -> str:
    """Every setting: what it does, its default and where that comes from.

    `given` (`section.key` -> value) is written as set; everything else is commented out.
    """
    out = ["# gossipfl: the settings of one device. What is commented out is at its default."]
    section = ""
    for row in ROWS:
        if row.section != section:
            section = row.section
            out += ["", f"[{section}]"]
        out += _comment(row.doc.help)
        out += _comment(f"default: {_toml(row.default)} ({row.doc.origin})")
        if row.name in given:
            out.append(f"{row.key} = {_toml(given[row.name])}")
        else:
            example = row.default if row.doc.template is None else row.doc.template
            out.append(f"# {row.key} = {_toml(example)}")
    return "\n".join(out) + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _toml(value: object) -> str:
    """JSON's strings, numbers, booleans and lists of strings are TOML's too."""
    plain = "" if value is None else str(value) if isinstance(value, Path) else value
    return json.dumps(plain, ensure_ascii=False)
