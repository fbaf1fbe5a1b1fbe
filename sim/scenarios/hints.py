"""What may stand where something wrong stood: keys and values of the schema at that place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect

from sim.scenarios.schema import Scenario

ELSEWHERE = "docs/reference/scenarios.md says what may stand where"
_UNKNOWN = re.compile(r"unknown field `(?P<word>[^`]*)`")
_VALUE = re.compile(r"Invalid (?:enum )?value '(?P<word>[^']*)'")
_PLACE = re.compile(r" - at `\$(?P<place>[^`]*)`")
_STEP = re.compile(r"\.?(?P<key>[^.[\]]+)|\[(?P<index>\d+)\]")


def allowed(message: str, raw: Mapping[str, Any]) -> str:
    """A hint for msgspec's message about the file's data `raw`."""
    found = _PLACE.search(message)
    place = found["place"] if found else ""
    if unknown := _UNKNOWN.search(message):
        keys = _keys(_at(place, raw))
        where = f"{place.lstrip('.')} may have" if place else "at the top there may be"
        return _near(unknown["word"], keys, f"{where}: {', '.join(keys)}")
    if value := _VALUE.search(message):
        words = _words(place, raw)
        return _near(value["word"], words, f"it is one of: {', '.join(words)}")
    return ELSEWHERE


def _near(word: str, words: list[str], told: str) -> str:
    if not words:
        return ELSEWHERE
    near = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {near[0]}? {told}" if near else told


def _at(place: str, raw: Mapping[str, Any]) -> inspect.Type | None:
    """The type of the schema at a place such as `.timeline[0]`."""
    kind: inspect.Type | None = inspect.type_info(Scenario)
    value: Any = raw
    for step in _STEP.finditer(place):
        if kind is None:
            return None
        kind = _bare(kind, value)
        if step["index"] is not None:
            value = value[int(step["index"])]
            kind = kind.item_type if isinstance(kind, inspect.ListType) else None
        elif isinstance(kind, inspect.StructType):
            value = value.get(step["key"]) if isinstance(value, Mapping) else None
            kind = next((f.type for f in kind.fields if f.encode_name == step["key"]), None)
        else:
            return None
    return None if kind is None else _bare(kind, value)


def _bare(kind: inspect.Type, value: Any) -> inspect.Type:
    """Without descriptions and None; of several tables the one that `value` is tagged with."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        kinds = [t for t in kind.types if not isinstance(t, inspect.NoneType)]
        what = value.get("what") if isinstance(value, Mapping) else None
        tagged = [t for t in kinds if isinstance(t, inspect.StructType) and t.tag == what]
        if len(tagged or kinds) == 1:
            return _bare((tagged or kinds)[0], value)
    return kind


def _keys(kind: inspect.Type | None) -> list[str]:
    if not isinstance(kind, inspect.StructType):
        return []
    tag = [kind.tag_field] if kind.tag_field else []
    return [*tag, *(field.encode_name for field in kind.fields)]


def _words(place: str, raw: Mapping[str, Any]) -> list[str]:
    """What a word at this place may be."""
    kind = _at(place, raw)
    if isinstance(kind, inspect.LiteralType):
        return [str(value) for value in kind.values]
    above = _at(place.rpartition(".")[0], raw)
    if place.endswith(".what") and isinstance(above, inspect.UnionType):
        return [str(t.tag) for t in above.types if isinstance(t, inspect.StructType)]
    return []


def described(kind: type[msgspec.Struct]) -> list[tuple[str, str, str]]:
    """(key, default, what it means) of each key of a table, for the reference page."""
    rows = []
    for field in inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        text = ""
        if isinstance(field.type, inspect.Metadata):
            text = (field.type.extra_json_schema or {}).get("description", "")
        default = "required" if field.required else _shown(field.default)
        rows.append(
            (field.encode_name, default, " ".join(filter(None, (text, _bounds(field.type)))))
        )
    return rows


def _shown(default: Any) -> str:
    if default is msgspec.NODEFAULT or isinstance(default, (list, msgspec.Struct)):
        return ""
    return (
        ""
        if default is None
        else str(default).lower()
        if isinstance(default, bool)
        else f"{default}"
    )


def _bounds(kind: inspect.Type) -> str:
    bare = _bare(kind, None)
    if isinstance(bare, inspect.LiteralType):
        return f"({', '.join(str(value) for value in bare.values)})"
    low = getattr(bare, "ge", None)
    low = getattr(bare, "gt", None) if low is None else low
    high = getattr(bare, "le", None)
    high = getattr(bare, "lt", None) if high is None else high
    if low is None or high is None:
        return ""
    return f"({low:g} to {high:g})"
