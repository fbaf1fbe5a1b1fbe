"""The file of results: one JSON object a line, the options first. Each line is durable when the
next cell begins, so that what a power cut costs is one cell.

Other benches keep such a file too, of their own options and cells.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from gossipfl.errors import UserError
from sim.matrix.cells import Cell, Options

FORM = 1
C = TypeVar("C", bound=msgspec.Struct)
Told = TypeVar("Told", bound=msgspec.Struct)


class Lines(Generic[C, Told]):
    """Results by cell. `add` appends; only one process writes."""

    def __init__(self, path: Path, options: Told, cell: type[C], *, resume: bool) -> None:
        """Raises UserError if the file is there and not to be gone on with, or is another
        matrix's."""
        self.path = path
        self.options = options
        self.results: dict[C, dict[str, Any]] = {}
        if path.exists() and path.stat().st_size:
            if not resume:
                raise UserError("GF100", f"{path} is there already", "--resume goes on with it")
            self.options, self.results = read_lines(path, type(options), cell)
            self._require_same(options)
            self._drop_torn_line()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"matrix": FORM, "options": msgspec.to_builtins(options)})

    def _require_same(self, options: Told) -> None:
        mine, theirs = msgspec.to_builtins(options), msgspec.to_builtins(self.options)
        other = [f"{k}: {theirs[k]} there, {mine[k]} here" for k in mine if mine[k] != theirs[k]]
        if other:
            hint = "use the same options, or another file: cells of one file are compared"
            raise UserError("GF100", f"{self.path} has other options: {'; '.join(other)}", hint)

    def _drop_torn_line(self) -> None:
        """A line that was being written when the power went is written again."""
        data = self.path.read_bytes()
        if not data.endswith(b"\n"):
            with self.path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)

    def add(self, cell: C, result: Mapping[str, Any]) -> None:
        self.results[cell] = dict(result)
        self._append({"cell": msgspec.to_builtins(cell), **result})

    def _append(self, row: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())


class Book(Lines[Cell, Options]):
    """Of a matrix."""

    def __init__(self, path: Path, options: Options, *, resume: bool) -> None:
        super().__init__(path, options, Cell, resume=resume)


def read(path: Path) -> tuple[Options, dict[Cell, dict[str, Any]]]:
    """What a matrix's file holds; a torn last line is left out. Raises UserError."""
    return read_lines(path, Options, Cell)


def read_lines(
    path: Path, options_type: type[Told], cell_type: type[C]
) -> tuple[Told, dict[C, dict[str, Any]]]:
    """What a file holds; a torn last line is left out. Raises UserError."""
    results: dict[C, dict[str, Any]] = {}
    options: Told | None = None
    try:
        *lines, torn = path.read_text(encoding="utf-8").split("\n")
        del torn
        for line in lines:
            row = json.loads(line)
            if options is None:
                options = msgspec.convert(row["options"], options_type)
            else:
                cell = msgspec.convert(row.pop("cell"), cell_type)
                results[cell] = row
    except OSError as error:
        raise UserError("GF100", f"{path}: {error.strerror}", "name a file of results") from None
    except (ValueError, KeyError, TypeError) as error:
        hint = "name a file that `gossipfl sim matrix` wrote"
        raise UserError("GF100", f"{path} is no file of results: {error}", hint) from None
    if options is None:
        raise UserError("GF100", f"{path} is empty", "leave --resume out")
    return options, results
