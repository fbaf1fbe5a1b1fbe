"""Puts a known bug into the running program and takes it out again.

An edit is a replacement in the source of one function: the shipped function is read, changed,
compiled in its own module's names, and put in its place. If the words to be replaced are not there
exactly once, the code has moved on and the edit says so.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType
from typing import Any


class EditError(Exception):
    """The function or the words to be replaced are not there."""


@dataclass(frozen=True, slots=True)
class Edit:
    """`target` is "module:function" or "module:Class.method"."""

    target: str
    old: str
    new: str


@contextmanager
def mutated(edits: Sequence[Edit]) -> Iterator[None]:
    """All of these edits are in force inside. Raises EditError if one does not fit."""
    by_target: dict[str, list[Edit]] = {}
    for edit in edits:
        by_target.setdefault(edit.target, []).append(edit)
    with ExitStack() as stack:
        for target, of_one in by_target.items():
            stack.enter_context(_one(target, of_one))
        yield


@contextmanager
def _one(target: str, edits: Sequence[Edit]) -> Iterator[None]:
    owner, name, found = _find(target)
    setattr(owner, name, _rewritten(target, edits, found, name))
    try:
        yield
    finally:
        setattr(owner, name, found)


def _find(target: str) -> tuple[Any, str, Any]:
    """Where the function is kept, its name there, and what is kept: a staticmethod stays one."""
    module, _, path = target.partition(":")
    owner: Any = import_module(module)
    *outer, name = path.split(".")
    try:
        for part in outer:
            owner = getattr(owner, part)
        return owner, name, vars(owner)[name]
    except (AttributeError, KeyError):
        raise EditError(f"{target}: there is no such function") from None


def _rewritten(target: str, edits: Sequence[Edit], found: Any, name: str) -> Any:
    function = inspect.unwrap(getattr(found, "__func__", getattr(found, "fget", found)))
    if not isinstance(function, FunctionType):
        raise EditError(f"{target}: is no function")
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        if source.count(edit.old) != 1:
            raise EditError(f"{target}: {edit.old!r} is there {source.count(edit.old)} times")
        source = source.replace(edit.old, edit.new)
    program = "from __future__ import annotations\n" + source
    made: dict[str, Any] = {}
    exec(compile(program, f"<mutant of {target}>", "exec"), function.__globals__, made)
    return made[name]
