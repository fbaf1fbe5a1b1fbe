"""What `init` of a device and of a hub share: settings on the command line, and a fresh file."""

from __future__ import annotations

from pathlib import Path

from gossipfl.errors import UserError


def flags_of(given: list[str]) -> dict[str, str]:
    """`--set SECTION.KEY=VALUE`, by name. UserError GF100."""
    flags = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or "." not in name:
            raise UserError("GF100", f"--set {text}: SECTION.KEY=VALUE is wanted")
        flags[name.strip()] = value.strip()
    return flags


def write_new(path: Path, text: str) -> None:
    """A config where none was, in a folder that only its owner reads. UserError GF103."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UserError(
            "GF103", f"{path} is there already", "edit it, or move it away to get a fresh one"
        ) from error
    except OSError as error:
        raise UserError("GF103", f"{path}: {error.strerror or error}") from error
