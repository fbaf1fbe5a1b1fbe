"""The table of routes. Dispatch, roles and the OpenAPI document all come from it.

A handler is `async def handler(hub, call) -> answer`. The answer is a struct of the type that the
route names, a `Raw` for bytes, or an aiohttp response for what streams. What goes wrong is raised
as a `Problem`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from gossipfl.hub.rest.access import Access, Caller
from gossipfl.hub.rest.bodies import JSON, JSON_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked: who sends it, its body and query as their types."""

    request: web.Request
    caller: Caller
    body: Any = None  # the route's request type; bytes where it is `bytes`
    query: Any = None  # the route's query type
    origin: str = ""  # the address of who asks; see `origins`

    @property
    def path(self) -> Mapping[str, str]:
        """The parameters in the path."""
        return self.request.match_info


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer of bytes, as the route's `answer_kind` or as said here."""

    body: bytes
    kind: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None


Handler = Callable[[Any, Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table. `words` is a sentence for the OpenAPI document.

    path: as in OpenAPI, `{name}` for a parameter. request: the type of the body, None for none.
    answer: the type of a JSON answer, None for one of bytes (`answer_kind`) or of nothing (204).
    refusals: the statuses beyond 4xx that every route may give which this handler raises.
    """

    method: str
    path: str
    handler: Handler
    access: Access
    request: Any = None
    answer: Any = None
    words: str = ""
    query: Any = None
    kinds: tuple[str, ...] = (JSON,)
    bytes_max: int | Callable[[], int] = JSON_BYTES_MAX
    status: int = 200
    answer_kind: str = JSON
    answer_kinds: tuple[str, ...] = ()  # beside that one, for whom asks for them
    tag: str = ""
    refusals: tuple[int, ...] = ()
    is_exempt: bool = False  # from pace and from how many may be under way: health, events

    @property
    def name(self) -> str:
        """Of the operation: unique, from the handler's module and name."""
        return f"{self.method.lower()}_{self.handler.__name__.strip('_')}"

    @property
    def body_bytes(self) -> int:
        """The most that a body may have now."""
        return self.bytes_max if isinstance(self.bytes_max, int) else self.bytes_max()

    @property
    def parameters(self) -> list[str]:
        """The names in the path."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


def require_distinct(routes: Iterable[Route]) -> list[Route]:
    """The routes as a list. ValueError if two are the same, or a name in `own` is not there."""
    found = list(routes)
    seen: set[tuple[str, str]] = set()
    names: set[str] = set()
    for route in found:
        key = (route.method, route.path)
        if key in seen or route.name in names:
            raise ValueError(f"{route.method} {route.path} ({route.name}) is there twice")
        if route.access.own is not None and route.access.own not in route.parameters:
            raise ValueError(f"{route.path} has no {{{route.access.own}}}")
        seen.add(key)
        names.add(route.name)
    return found


def answered(route: Route, answer: Any) -> web.StreamResponse:
    """The response of what a handler returned."""
    if isinstance(answer, web.StreamResponse):
        return answer
    if isinstance(answer, Raw):
        return web.Response(
            status=answer.status or route.status,
            body=answer.body,
            content_type=answer.kind or route.answer_kind,
            headers={"Cache-Control": "no-store", **answer.headers},
        )
    if answer is None:
        return web.Response(status=204)
    return web.Response(
        status=route.status,
        body=msgspec.json.encode(answer),
        content_type=JSON,
        headers={"Cache-Control": "no-store"},
    )
