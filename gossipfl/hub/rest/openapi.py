"""OpenAPI 3.1 from the table of routes: what validates requests is what is described."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gossipfl import __version__
from gossipfl.hub.rest.access import Access
from gossipfl.hub.rest.bodies import JSON, OCTETS
from gossipfl.hub.rest.problems import PROBLEM_TYPE, ProblemBody
from gossipfl.hub.rest.routing import Route

_REF = "#/components/schemas/{name}"
_REFUSALS = {
    400: "the path or the request line is not in its plain form",
    401: "no token, or one that is not valid",
    403: "the role does not allow it",
    404: "there is no such thing",
    408: "the body stopped coming",
    409: "it contradicts what is there",
    410: "it has ended",
    413: "the body is too large",
    415: "the body is of another kind, or compressed",
    422: "the request does not make sense",
    429: "too many requests; Retry-After says when to try again",
    503: "busy, or nothing can be written; Retry-After says when to try again",
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes, as JSON types."""
    table = sorted(routes, key=lambda route: (route.path, route.method))
    types: list[Any] = [ProblemBody]
    for route in table:
        types += [t for t in (route.request, route.answer, route.query) if _is_typed(t)]
    types = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, of, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gossipfl hub",
            "version": __version__,
            "description": "The optional hub of a gossipfl fleet. Errors are RFC 9457 problems "
            "whose codes `gossipfl explain` knows.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
    }


def _is_typed(shape: Any) -> bool:
    return shape is not None and shape is not bytes


def _operation(route: Route, of: Mapping[Any, Any], components: Mapping[str, Any]) -> Any:
    found: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.words,
        "tags": [route.tag or "hub"],
        "responses": _responses(route, of),
    }
    if route.access.is_public:
        found["security"] = []
    else:
        found["security"] = [{"token": []}]
        found["description"] = _who(route.access)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in route.parameters
    ]
    if route.query is not None:
        parameters += _query(of[route.query], components)
    if parameters:
        found["parameters"] = parameters
    if route.request is not None:
        content = {kind: _media(route, kind, of) for kind in route.kinds}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _who(access: Access) -> str:
    roles = ", ".join(sorted(role.value for role in access.roles))
    own = "; a device for itself only" if access.own else ""
    return f"Roles: {roles}{own}."


def _media(route: Route, kind: str, of: Mapping[Any, Any]) -> dict[str, Any]:
    if kind == OCTETS or route.request is bytes:
        return {"schema": {}}
    return {"schema": of[route.request]}


def _query(reference: Mapping[str, Any], components: Mapping[str, Any]) -> list[dict[str, Any]]:
    schema = components[reference["$ref"].rsplit("/", 1)[1]]
    required = set(schema.get("required", ()))
    return [
        {"name": name, "in": "query", "required": name in required, "schema": shape}
        for name, shape in schema["properties"].items()
    ]


def _responses(route: Route, of: Mapping[Any, Any]) -> dict[str, Any]:
    if route.answer is not None:
        content: dict[str, Any] = {JSON: {"schema": of[route.answer]}}
        good = {str(route.status): {"description": "done", "content": content}}
    elif route.status == 204:
        good = {"204": {"description": "done"}}
    else:
        content = {kind: {"schema": {}} for kind in (route.answer_kind, *route.answer_kinds)}
        good = {str(route.status): {"description": "done", "content": content}}
    problem = {PROBLEM_TYPE: {"schema": of[ProblemBody]}}
    refusals = {
        str(status): {"description": _REFUSALS[status], "content": problem}
        for status in sorted(_refusals(route))
    }
    return {**good, **refusals}


def _refusals(route: Route) -> set[int]:
    found = {400, 422, 429, 503, *route.refusals}
    if not route.access.is_public:
        found |= {401, 403}
    if route.parameters:
        found.add(404)
    if route.request is not None:
        found |= {408, 413, 415}
    else:
        found.add(413)
    return found
