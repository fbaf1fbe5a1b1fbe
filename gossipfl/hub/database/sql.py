"""From the portable subset of SQL to what each store speaks."""

from __future__ import annotations

from functools import lru_cache

STATEMENTS_MAX = 1_024  # distinct statements are written in code: this only bounds a mistake


@lru_cache(maxsize=STATEMENTS_MAX)
def numbered(sql: str) -> str:
    """`?` to `$1`, `$2`, ... outside of quotes, as PostgreSQL wants them."""
    parts: list[str] = []
    count, quote = 0, ""
    for character in sql:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "?":
            count += 1
            parts.append(f"${count}")
            continue
        parts.append(character)
    if quote:
        raise ValueError(f"a quote without an end: {sql}")
    return "".join(parts)


def statements(script: str) -> list[str]:
    """The statements of a migration: separated by semicolons that end a line."""
    lines = [line.split("--")[0].rstrip() for line in script.splitlines()]
    text = "\n".join(line for line in lines if line)
    parts = [part.strip() for part in (text + "\n").split(";\n")]
    return [part for part in parts if part]


def typed(script: str, names: dict[str, str]) -> str:
    """A migration with `{blob}` and `{id}` put into a store's own words. Raises KeyError."""
    for name, word in names.items():
        script = script.replace("{" + name + "}", word)
    if "{" in script:
        raise KeyError(f"an unknown name in braces: {script[script.index('{') :][:20]}")
    return script
