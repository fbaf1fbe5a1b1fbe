"""docs/reference/scenarios.md, from the schema of scenario files."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

HEAD = """<!-- Made by script/docs from the code. Change it there. -->

# Scenario files

`gossipfl sim run FILE.toml` plays one; those that ship are in `sim/scenarios/`. \
[How to simulate](../how-to/simulate.md) shows how to write one. Unknown keys and values out of \
bounds are refused. Times are virtual seconds from the start, shares are of one. A time that says \
"lasts" may be a number or `[least, most]`, drawn from the seed.
"""


def scenarios_page() -> str:
    """The whole page."""
    from sim.scenarios import schema
    from sim.scenarios.hints import described

    tables: list[tuple[str, type[msgspec.Struct]]] = [
        ("At the top", schema.Scenario),
        ("[fleet]", schema.Fleet),
        ("[policy]", schema.Policy),
        ("[policy.privacy]", schema.Privacy),
        ("[network]", schema.Network),
        ("[network.lan] and [network.between]", schema.Lines),
        ("[[network.sites]]", schema.Site),
        ("[[compute]]", schema.Speed),
        ("[[attackers]]", schema.Attackers),
        ("[expect]", schema.Expect),
        ("[short]", schema.Short),
    ]
    parts = [HEAD]
    for title, kind in tables:
        parts += [f"## {title}\n", *_intro(kind), *_table(described(kind)), ""]
    parts += [
        "## [[timeline]]\n",
        "One table for each thing that happens; `what` says which. Which devices: `devices` by "
        "number, or `count` or `share` of those that are up, drawn from the seed. `at` says when; "
        "with `every` it happens again and again, to others, `until` then.\n",
    ]
    common = {name for name, _, _ in described(schema._Fault)}
    for kind in _faults():
        keys = [row for row in described(kind) if row[0] not in common]
        parts.append(f'**what = "{kind.__struct_config__.tag}"**: {_first(kind)}\n')
        if keys:
            parts += [*_table(keys), ""]
    return "\n".join(parts).rstrip() + "\n"


def _faults() -> Iterator[type[msgspec.Struct]]:
    from typing import get_args

    from sim.scenarios import schema

    yield from get_args(schema.Fault)


def _first(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split())


def _intro(kind: type) -> list[str]:
    doc = _first(kind)
    return [f"{doc}\n"] if doc else []


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    lines = ["| key | default | |", "|---|---|---|"]
    for name, default, text in rows:
        lines.append(f"| `{name}` | {default} | {text.replace('|', chr(92) + '|')} |")
    return lines
