"""The table of routes: dispatch, roles, bounds on bodies, problems, and the OpenAPI document."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gossipfl.hub.rest.access import DEVICES, EVERYBODY, PUBLIC, Caller, Role, only
from gossipfl.hub.rest.bodies import JSON, MSGPACK, OCTETS
from gossipfl.hub.rest.dispatch import Dispatcher
from gossipfl.hub.rest.doors import SERVER_OPTIONS
from gossipfl.hub.rest.openapi import document
from gossipfl.hub.rest.problems import conflict, unauthorised
from gossipfl.hub.rest.routing import Call, Raw, Route, require_distinct

Client = TestClient[web.Request, web.Application]


class Note(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    times: int = 1


class Page(msgspec.Struct, forbid_unknown_fields=True):
    limit: int = 10


class Echo(msgspec.Struct):
    said: str
    by: str


async def write(hub: dict[str, Any], call: Call) -> Echo:
    return Echo(call.body.text * call.body.times, call.caller.subject)


async def listing(hub: dict[str, Any], call: Call) -> Echo:
    return Echo("x" * call.query.limit, "")


async def own(hub: dict[str, Any], call: Call) -> Echo:
    return Echo(call.path["client_id"], call.caller.subject)


async def upload(hub: dict[str, Any], call: Call) -> Raw:
    hub["read"] = len(call.body)
    return Raw(call.body[:4])


async def hold(hub: dict[str, Any], call: Call) -> None:
    hub["holding"].set()
    await hub["go_on"].wait()


async def broken(hub: dict[str, Any], call: Call) -> None:
    raise ZeroDivisionError


async def clash(hub: dict[str, Any], call: Call) -> None:
    raise conflict("\x1b[31mthere is\none")


ROUTES = [
    Route("POST", "/notes", write, EVERYBODY, Note, Echo, "write", kinds=(JSON, MSGPACK)),
    Route("GET", "/notes", listing, PUBLIC, None, Echo, "list", query=Page),
    Route("GET", "/clients/{client_id}", own, only(*Role, own="client_id"), None, Echo, "see"),
    Route("PUT", "/blob", upload, DEVICES, bytes, None, "put", kinds=(OCTETS,), bytes_max=1 << 20),
    Route("GET", "/hold", hold, PUBLIC, None, None, "wait", status=204),
    Route("GET", "/broken", broken, PUBLIC, None, None, "fail", status=204),
    Route("GET", "/clash", clash, PUBLIC, None, None, "fail", status=204, refusals=(409,)),
]


class Badge:
    """Takes the role, and a name, from a header."""

    async def caller(self, request: web.Request) -> Caller:
        role, _, subject = request.headers.get("Badge", "").partition(":")
        if not role:
            raise unauthorised("no badge")
        return Caller(subject, Role(role))


@pytest.fixture
def hub() -> dict[str, Any]:
    return {"holding": asyncio.Event(), "go_on": asyncio.Event()}


@pytest.fixture
async def client(hub: dict[str, Any]) -> AsyncIterator[Client]:
    app = web.Application()
    Dispatcher(hub, ROUTES, Badge(), in_flight_max=2).install(app)
    server = TestServer(app)
    async with TestClient(server, auto_decompress=False) as client:
        yield client


async def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status == status, await response.text()
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = json.loads(await response.read())
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"]
    assert body["hint"]
    return body


OPERATOR = {"Badge": "operator:ann"}
DEVICE = {"Badge": "device:aa"}


async def test_a_typed_body_reaches_the_handler_in_both_forms(client: Client) -> None:
    body = {"text": "ho", "times": 2}
    response = await client.post("/notes", json=body, headers=OPERATOR)
    assert await response.json() == {"said": "hoho", "by": "ann"}
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    packed = msgspec.msgpack.encode(body)
    headers = {**OPERATOR, "Content-Type": MSGPACK}
    assert (await client.post("/notes", data=packed, headers=headers)).status == 200


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"text": 1}', b'{"text": "x", "other": 1}', b"\xff", b"[" * 30_000, b"", b"null"],
)
async def test_a_body_of_another_type_is_refused(client: Client, body: bytes) -> None:
    headers = {**OPERATOR, "Content-Type": JSON}
    await problem(await client.post("/notes", data=body, headers=headers), 422, "GF824")


async def test_without_a_token_nothing_is_looked_at(client: Client) -> None:
    response = await client.post("/notes", data=b"{")
    await problem(response, 401, "GF821")
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_roles_and_own_ids(client: Client) -> None:
    await problem(await client.put("/blob", data=b"x", headers=OPERATOR), 403, "GF822")
    assert (await client.get("/clients/aa", headers=DEVICE)).status == 200
    await problem(await client.get("/clients/bb", headers=DEVICE), 403, "GF822")
    assert (await client.get("/clients/bb", headers=OPERATOR)).status == 200


@pytest.mark.parametrize("query", ["limit=x", "other=1", "limit=1&limit=2"])
async def test_a_query_of_another_type_is_refused(client: Client, query: str) -> None:
    assert (await (await client.get("/notes?limit=3")).json())["said"] == "xxx"
    await problem(await client.get(f"/notes?{query}"), 422, "GF824")


async def test_json_above_64_kib_is_refused_and_a_declared_body_unread(
    client: Client, hub: dict[str, Any]
) -> None:
    long = {"text": "x" * 70_000}
    told = await problem(await client.post("/notes", json=long, headers=OPERATOR), 413, "GF825")
    assert "octet-stream" in told["hint"]
    headers = {**DEVICE, "Content-Type": OCTETS}
    fits = await client.put("/blob", data=b"y" * (1 << 20), headers=headers)
    assert await fits.read() == b"yyyy"
    await problem(
        await client.put("/blob", data=b"y" * ((1 << 20) + 1), headers=headers), 413, "GF825"
    )
    assert hub["read"] == 1 << 20


async def test_a_hundred_megabytes_in_chunks_are_cut_off(client: Client) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1 << 20
            yield bytes(1 << 20)

    headers = {**DEVICE, "Content-Type": OCTETS}
    response = await client.put("/blob", data=endless(), headers=headers)
    await problem(response, 413, "GF825")
    assert sent < 50 << 20


async def test_packed_bodies_and_other_kinds_are_refused(client: Client) -> None:
    bomb = gzip.compress(bytes(10 << 20))
    headers = {**DEVICE, "Content-Type": OCTETS, "Content-Encoding": "gzip"}
    await problem(await client.put("/blob", data=bomb, headers=headers), 415, "GF826")
    await problem(
        await client.put("/blob", data=b"x", headers={**DEVICE, "Content-Type": JSON}), 415, "GF826"
    )


async def test_a_body_where_none_is_wanted_is_refused(client: Client) -> None:
    await problem(await client.get("/notes", data=b"x"), 413, "GF825")


@pytest.mark.parametrize(
    "path",
    ["//notes", "/a/../notes", "/notes/%2e%2e/x", "/%2fnotes", "/notes%00", "/.git", "/a\\b"],
)
async def test_odd_paths_are_refused(client: Client, path: str) -> None:
    port = client.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    status = (await reader.readline()).split()[1]
    writer.close()
    assert status == b"400"


async def test_unknown_paths_and_methods_are_problems_too(client: Client) -> None:
    await problem(await client.get("/nothing"), 404, "GF823")
    response = await client.delete("/notes")
    await problem(response, 405, "GF823")
    assert response.headers["Allow"] == "GET, POST"


async def test_a_bug_shows_nothing_of_itself(client: Client) -> None:
    told = await problem(await client.get("/broken"), 500, "GF001")
    assert "ZeroDivision" not in json.dumps(told)


async def test_what_others_sent_comes_back_printable(client: Client) -> None:
    told = await problem(await client.get("/clash"), 409, "GF829")
    assert told["detail"] == "?[31mthere is?one"


async def test_more_than_fits_is_told_to_come_again(client: Client, hub: dict[str, Any]) -> None:
    held = [asyncio.create_task(client.get("/hold")) for _ in range(2)]
    await asyncio.wait_for(hub["holding"].wait(), 5)
    while not any(task.done() for task in held):
        response = await client.get("/notes")
        if response.status == 503:
            await problem(response, 503, "GF828")
            assert response.headers["Retry-After"] == "1"
            break
    hub["go_on"].set()
    assert [(await task).status for task in held] == [204, 204]
    assert (await client.get("/notes")).status == 200


async def test_a_flood_of_one_caller_is_told_to_slow_down(client: Client) -> None:
    statuses = [(await client.get("/clients/aa", headers=DEVICE)).status for _ in range(150)]
    assert statuses[:90] == [200] * 90
    assert 429 in statuses
    assert (await client.get("/clients/bb", headers={"Badge": "device:bb"})).status == 200


def test_a_route_is_there_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        require_distinct([*ROUTES, ROUTES[0]])
    wrong = Route("GET", "/x", write, only(Role.DEVICE, own="client_id"))
    with pytest.raises(ValueError, match="client_id"):
        require_distinct([wrong])


def test_the_document_describes_the_table() -> None:
    made = document(ROUTES)
    assert made["openapi"] == "3.1.0"
    post = made["paths"]["/notes"]["post"]
    assert set(post["requestBody"]["content"]) == {JSON, MSGPACK}
    assert post["security"] == [{"token": []}]
    assert made["paths"]["/notes"]["get"]["security"] == []
    assert made["paths"]["/notes"]["get"]["parameters"][0]["name"] == "limit"
    assert {"Note", "Echo", "ProblemBody"} <= set(made["components"]["schemas"])
    for methods in made["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
    assert len({o["operationId"] for m in made["paths"].values() for o in m.values()}) == len(
        ROUTES
    )


def test_servers_are_told_to_unpack_nothing() -> None:
    assert SERVER_OPTIONS["auto_decompress"] is False
