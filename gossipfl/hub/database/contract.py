"""What the hub asks of a store, in words that SQLite and PostgreSQL both keep.

SQL is the portable subset: `?` for values, TEXT, BIGINT, DOUBLE PRECISION, `ON CONFLICT ... DO
UPDATE`, `RETURNING`; `{blob}` and `{id}` in migrations. A value must have the column's type: an
int is no text, a float no int. Text holds no NUL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

Value = int | float | str | bytes | None
Row = Mapping[str, Any]


class DatabaseError(Exception):
    """A statement or a commit failed; the transaction that it belongs to is undone."""


class Conflict(DatabaseError):
    """A row contradicts a UNIQUE, FOREIGN KEY, NOT NULL or CHECK rule."""


class DatabaseFull(DatabaseError):
    """No space: nothing can be written until there is some. Reading works on."""


class Unavailable(DatabaseError):
    """The store does not answer, or the outcome of a commit is not known: ask what is there."""


class Transaction(Protocol):
    """One transaction. After any DatabaseError it is over: leave the block by that error."""

    async def execute(self, sql: str, *values: Value) -> int:
        """Run one statement: how many rows it touched."""
        ...

    async def many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        """Run one statement once per row of values; the fast way to insert."""
        ...

    async def rows(self, sql: str, *values: Value) -> list[Row]:
        """All rows that a statement gives: bound them by LIMIT."""
        ...

    async def row(self, sql: str, *values: Value) -> Row | None:
        """The first row, or None."""
        ...

    async def lock(self, name: str) -> None:
        """Be alone with `name` among writing transactions until this one ends.

        SQLite's writers are alone anyway; PostgreSQL's run side by side, so whoever reads, decides
        and writes needs a lock (or one statement that does all three).
        """
        ...

    async def share(self, name: str) -> None:
        """Be with others who share `name`, and without whoever wants to be alone with it."""
        ...


class Lease(Protocol):
    """A lasting lock that one process holds; it is lost when that process dies."""

    @property
    def held(self) -> bool:
        """False once it is known to be lost. True is no proof: decisions need compare-and-swap."""
        ...

    async def check(self) -> bool:
        """Ask the store whether it still is ours."""
        ...

    async def release(self) -> None: ...


class Database(Protocol):
    """Safe for any number of tasks of one event loop."""

    @property
    def kind(self) -> str:
        """ "sqlite" or "postgresql"."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the last transaction that wrote found no space."""
        ...

    def transaction(self, *, write: bool = True) -> AbstractAsyncContextManager[Transaction]:
        """Commits on leaving, rolls back on an exception; durable when it returns.

        Never wait for anything but the database inside a writing one: on SQLite all others wait
        for it, and it is cut off after 30 s. `write=False` sees one unchanging state.
        """
        ...

    async def lease(self, name: str) -> Lease | None:
        """Become the one holder of `name` among all processes, or None if there is one."""
        ...

    async def size_bytes(self) -> int:
        """What the store takes, by its own count."""
        ...

    async def compact(self, tables: Sequence[str]) -> None:
        """Write the store anew, so that deleted rows of these tables leave its files, and let go
        of the copies that migrations made. Writers wait meanwhile. Raises DatabaseError: then some
        of it may still be there, and it can be asked for again.
        """
        ...

    async def close(self) -> None: ...
