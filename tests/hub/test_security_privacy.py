"""Who may do what, what hostile requests get, and budgets that hold: by name, on a real hub."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
import numpy as np
import pytest
from authkit import bearer, user
from nacl.signing import SigningKey
from starkit import Stand, example, stand

from gossipfl.hub.api import described
from gossipfl.hub.rest.access import Role
from gossipfl.hub.star.settings import StarSettings
from gossipfl.messages import Privacy

PUBLIC = "*"
# (method, path) -> the roles that get in: o perator, a uditor, v iewer, d evice, h ub. A device
# gets in where the path names itself only ("D").
TABLE = {
    ("GET", "/health"): PUBLIC,
    ("GET", "/openapi.json"): PUBLIC,
    ("GET", "/metrics"): "oavh",
    ("GET", "/api/v1/status"): "oavdh",
    ("GET", "/api/v1/events"): "oavh",
    ("GET", "/"): "oav",
    ("GET", "/devices/{device}"): "oav",
    ("GET", "/verify"): "oav",
    ("GET", "/fleet.csv"): "oav",
    ("GET", "/page/events"): "oav",
    ("GET", "/page/assets/{version}/style.css"): PUBLIC,
    ("GET", "/page/assets/{version}/page.js"): PUBLIC,
    ("GET", "/page/icon.svg"): PUBLIC,
    ("GET", "/reports/compliance"): "oa",
    ("GET", "/reports/performance"): "oav",
    ("GET", "/reports/cost"): "oav",
    ("GET", "/reports/contribution"): "oav",
    ("GET", "/reports/summary"): "oav",
    ("GET", "/api/v1/compliance/report"): "oa",
    ("GET", "/api/v1/compliance/schema"): "oavdh",
    ("GET", "/api/v1/reports/performance"): "oav",
    ("GET", "/api/v1/reports/cost"): "oav",
    ("GET", "/api/v1/reports/contribution"): "oav",
    ("GET", "/api/v1/reports/summary"): "oav",
    ("GET", "/login"): PUBLIC,
    ("POST", "/login"): PUBLIC,
    ("POST", "/login/link"): PUBLIC,
    ("POST", "/logout"): PUBLIC,
    ("POST", "/api/v1/auth/token"): PUBLIC,
    ("POST", "/api/v1/auth/refresh"): PUBLIC,
    ("POST", "/api/v1/auth/revoke"): "oavdh",
    ("POST", "/api/v1/auth/credentials"): "oavdh",
    ("POST", "/api/v1/auth/link"): PUBLIC,
    ("POST", "/api/v1/auth/device"): PUBLIC,
    ("POST", "/api/v1/auth/session"): PUBLIC,
    ("POST", "/api/v1/auth/session/refresh"): PUBLIC,
    ("POST", "/api/v1/auth/session/end"): "oavdh",
    ("GET", "/api/v1/auth/me"): "oavdh",
    ("GET", "/api/v1/audit/checkpoint"): "oavdh",
    ("GET", "/api/v1/audit/checkpoints/{number}"): "oavdh",
    ("GET", "/api/v1/audit/tiles/{level}/{index}"): "oavdh",
    ("GET", "/api/v1/audit/consistency"): "oavdh",
    ("GET", "/api/v1/audit/entries"): "oa",
    ("GET", "/api/v1/audit/proof/{entry}"): "oa",
    ("GET", "/api/v1/alerts"): "oah",
    ("POST", "/api/v1/alerts/{alert}/acknowledge"): "o",
    ("POST", "/alerts/acknowledge"): PUBLIC,
    ("POST", "/quarantine/release"): PUBLIC,
    ("GET", "/api/v1/users"): "o",
    ("POST", "/api/v1/users"): "o",
    ("POST", "/api/v1/users/{name}/disable"): "o",
    ("POST", "/api/v1/users/{name}/link"): "o",
    ("GET", "/api/v1/clients/register"): PUBLIC,
    ("POST", "/api/v1/clients/register"): PUBLIC,
    ("POST", "/api/v1/clients/invitations"): "o",
    ("GET", "/api/v1/clients"): "oavh",
    ("GET", "/api/v1/clients/{client_id}"): "oavDh",
    ("POST", "/api/v1/clients/{client_id}/erase"): "o",
    ("POST", "/api/v1/clients/{client_id}/metrics"): "D",
    ("GET", "/api/v1/training/config"): "oavdh",
    ("POST", "/api/v1/training/bundle"): "o",
    ("GET", "/api/v1/models"): "oavdh",
    ("GET", "/api/v1/models/global"): "oavdh",
    ("GET", "/api/v1/models/{version}"): "oah",
    ("POST", "/api/v1/models/update"): "d",
    ("GET", "/api/v1/convergence/history"): "oavdh",
    ("GET", "/api/v1/aggregation/strategies"): "oavdh",
    ("POST", "/api/v1/aggregation/strategy"): "o",
    ("GET", "/api/v1/security/status"): "oah",
    ("POST", "/api/v1/security/block-client"): "o",
    ("POST", "/api/v1/security/unblock-client"): "o",
    ("GET", "/api/v1/privacy/budget"): "oavdh",
    ("GET", "/api/v1/checkpoints"): "oah",
    ("POST", "/api/v1/checkpoints"): "o",
    ("POST", "/api/v1/checkpoints/{name}/restore"): "o",
    ("DELETE", "/api/v1/checkpoints/{name}"): "o",
    ("GET", "/api/v1/storage"): "oah",
    ("POST", "/api/v1/storage/cleanup"): "o",
    ("GET", "/api/v1/policy"): "oah",
    ("GET", "/api/v1/policy/history"): "oah",
    ("GET", "/api/v1/policy/objects/{digest}"): "oah",
    ("GET", "/api/v1/policy/proposals"): "oah",
    ("POST", "/api/v1/policy/proposals"): "o",
    ("GET", "/api/v1/policy/proposals/{proposal}"): "oah",
    ("GET", "/api/v1/policy/proposals/{proposal}/payload"): "oah",
    ("DELETE", "/api/v1/policy/proposals/{proposal}"): "o",
    ("POST", "/api/v1/policy/issue"): "o",
    ("POST", "/api/v1/security/release-device"): "o",
}
LETTERS = {
    Role.OPERATOR: "o",
    Role.AUDITOR: "a",
    Role.VIEWER: "v",
    Role.DEVICE: "d",
    Role.HUB: "h",
}
ME, OTHER = "aa" * 16, "bb" * 16


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path, leads=False) as found:
        yield found


def filled_in(path: str, client: str = ME) -> str:
    """With something in the place of each parameter; the rest are numbers."""
    path = path.replace("{client_id}", client).replace("{device}", "nobody")
    path = path.replace("{name}", "nobody")
    return re.sub(r"\{[a-z]+\}", "7", path)


def test_every_endpoint_has_a_row() -> None:
    assert {(route.method, route.path) for route in described()} == set(TABLE)


@pytest.mark.parametrize("role", list(Role))
async def test_every_role_at_every_endpoint(hub: Stand, role: Role) -> None:
    wrong = []
    async with aiohttp.ClientSession(hub.url) as session:
        for number, ((method, path), roles) in enumerate(TABLE.items()):
            # A session for each: one of the routes ends it, and nobody is to be slowed down.
            subject = ME if role is Role.DEVICE else f"somebody{number}"
            pair = await hub.auth.sessions.begin(subject, role)
            for client in (ME, OTHER) if "{client_id}" in path else (ME,):
                if roles == PUBLIC:
                    continue
                filled = filled_in(path, client)
                async with session.request(
                    method,
                    filled,
                    headers=bearer(pair.access),
                    data=b"" if method == "POST" else None,
                ) as response:
                    told = await response.json() if response.status >= 400 else {}
                own = role is Role.DEVICE and client == ME and "D" in roles
                allowed = own or LETTERS[role] in roles
                if (told.get("code") == "GF822") == allowed or response.status in (401, 500):
                    wrong.append((method, filled, role, response.status, told.get("code")))
    assert not wrong


async def test_without_a_token_only_public_endpoints_answer(hub: Stand) -> None:
    wrong = []
    async with aiohttp.ClientSession(hub.url) as session:
        for (method, path), roles in TABLE.items():
            async with session.request(method, filled_in(path)) as response:
                code = (await response.json()).get("code") if response.status >= 400 else ""
            if (code == "GF821") != (roles != PUBLIC) and not path.startswith("/api/v1/auth/"):
                wrong.append((method, path, response.status, code))
    assert not wrong


# --- hostile requests ------------------------------------------------------------------------


async def test_the_list_of_hostile_requests(hub: Stand) -> None:
    """Each is refused with the status that says why (tokens: test_hub_auth)."""
    octets = {"Content-Type": "application/octet-stream"}
    device = bearer((await hub.auth.sessions.begin(ME, Role.DEVICE)).access)
    operator = bearer(hub.token)
    update, bundle = "/api/v1/models/update", "/api/v1/training/bundle"
    bomb = gzip.compress(bytes(100 << 20))
    cases: list[tuple[str, str, dict[str, Any], int]] = [
        ("a client who never registered", update, {"headers": {**device, **octets}}, 403),
        ("a body of 100 MB", bundle, {"headers": {**operator, **octets}, "data": _megabytes(100)},
         413),
        ("a gzip bomb", bundle,
         {"headers": {**operator, **octets, "Content-Encoding": "gzip"}, "data": bomb}, 415),
        ("a long JSON array", update, {"headers": device, "json": {"parameters": [0.5] * 40_000}},
         413),
        ("another kind of body", update, {"headers": device, "data": {"a": "b"}}, 415),
        ("another's metrics", f"/api/v1/clients/{OTHER}/metrics",
         {"headers": device, "json": {"version": 0}}, 403),
        ("a policy of nobody", "/api/v1/aggregation/strategy",
         {"headers": {**operator, **octets}, "data": b"\x92\xc4\x00\xc4\x00"}, 422),
        ("a bundle of nothing", bundle, {"headers": {**operator, **octets}, "data": b"PK"}, 422),
        ("an unknown client blocked", "/api/v1/security/block-client",
         {"headers": operator, "json": {"client_id": OTHER, "reason": "just so"}}, 404),
        ("SQL in a name", "/api/v1/checkpoints/x'; DROP TABLE star_models;--/restore",
         {"headers": operator}, 404),
    ]  # fmt: skip
    async with aiohttp.ClientSession(hub.url) as session:
        for what, path, request, status in cases:
            async with session.post(path, **request) as response:
                assert response.status == status, (what, await response.text())
                assert response.content_type == "application/problem+json"


async def _megabytes(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(1 << 20)


# --- clients and their signatures ------------------------------------------------------------


async def one_client(hub: Stand, **choices: Any) -> Any:
    """A registered client of examples/ in an open round that takes one update is enough for."""
    star = example()
    await hub.start(n=3, attackers=0, rule="mean", **choices)
    shares, held = star.digits(20)
    client = star.Client(star.Hub(hub.url), "one", shares[0], held)
    await asyncio.to_thread(client.register, await hub.code())
    while await hub.star.engine.step():
        pass
    return client


async def refused(work: Any, *args: Any) -> Any:
    with pytest.raises(example().Refused) as found:
        await asyncio.to_thread(work, *args)
    return found.value


async def test_a_code_is_needed_counts_its_uses_and_a_known_key_needs_none(hub: Stand) -> None:
    star = example()
    code = await hub.code(uses=1)
    assert code.isalnum()  # a shell takes it for no option

    def client(key: SigningKey | None = None) -> Any:
        nothing = np.zeros((0, 64)), np.zeros(0)
        return star.Client(star.Hub(hub.url), "one", nothing, nothing, key=key)

    first = client()
    assert (await refused(first.register, "")).code == "GF840"
    await asyncio.to_thread(first.register, code)
    assert (await refused(client().register, code)).code == "GF840"
    again = client(first.key)
    await hub.until(lambda: _later(hub))
    await asyncio.to_thread(again.register, "")
    assert again.id == first.id


async def _later(hub: Stand) -> bool:
    """A second has gone by: a proof is newer than the last."""
    async with hub.database.transaction(write=False) as tx:
        row = await tx.row("SELECT MAX(proved) AS at FROM star_clients")
    return row is not None and int(hub.star.clock()) > row["at"]


async def test_a_registration_cannot_be_replayed(hub: Stand) -> None:
    star = example()
    info = await hub.ask("GET", "/api/v1/clients/register")
    key = SigningKey.generate()
    join = {"fleet": bytes.fromhex(info["fleet"]), "at": info["now"], "name": "x"}
    signed = base64.b64encode(star.envelope("star-join", join, key)).decode()
    body = {"envelope": signed, "code": await hub.code()}
    await hub.ask("POST", "/api/v1/clients/register", body)
    assert (await refused(hub.hand.json, "POST", "/api/v1/clients/register", body)).status == 409
    for wrong in ({"at": info["now"] - 3_600}, {"fleet": bytes(32)}, {"extra": 1}):
        changed = star.envelope("star-join", {**join, **wrong}, SigningKey.generate())
        body["envelope"] = base64.b64encode(changed).decode()
        found = await refused(hub.hand.json, "POST", "/api/v1/clients/register", body)
        assert (found.status, found.code) == (422, "GF841")


async def test_one_wrong_thing_in_an_update_and_it_is_refused(hub: Stand) -> None:
    client = await one_client(hub)
    config = await asyncio.to_thread(client.config)
    assert (config["state"], config["is_selected"]) == ("running", True)
    model = await asyncio.to_thread(client.model, config["version"])

    def forge(parameters: Any = model, **changes: Any) -> Any:
        return client.send({**config, **changes}, parameters)

    cases: list[tuple[dict[str, Any], int]] = [
        ({"parameters": np.full(650, np.nan)}, 422),
        ({"parameters": np.full(650, np.inf)}, 422),
        ({"parameters": np.full(650, 1e7)}, 422),
        ({"parameters": model[:-1]}, 422),
        ({"run": 9}, 422),
        ({"bundle": "00" * 32}, 422),
        ({"codec": "int8"}, 422),
        ({"version": 7}, 409),
    ]
    for changes, status in cases:
        found = await refused(partial(forge, **changes))
        assert found.status == status, changes
    stranger = client.key
    client.key = SigningKey.generate()
    assert (await refused(forge)).status == 422
    client.key = stranger
    accepted = await asyncio.to_thread(forge)
    assert accepted["is_repeat"] is False
    async with hub.database.transaction(write=False) as tx:
        faults = await tx.rows("SELECT fault, times FROM star_faults")
    assert {row["fault"] for row in faults} >= {"not finite", "norm bound", "wrong device"}


async def test_an_update_is_taken_once(hub: Stand) -> None:
    client = await one_client(hub)
    config = await asyncio.to_thread(client.config)
    model = await asyncio.to_thread(client.model, config["version"])
    await asyncio.to_thread(client.send, config, model)
    client.seq -= 1
    again = await asyncio.to_thread(client.send, config, model)
    assert again["is_repeat"] is True
    found = await refused(client.send, config, model + 1)
    assert found.status == 409
    assert hub.star.admission.accepted == 1


async def test_small_models_may_come_as_json_or_msgpack(hub: Stand) -> None:
    client = await one_client(hub)
    config = await asyncio.to_thread(client.config)
    model = await asyncio.to_thread(client.model, config["version"])
    kept = client.hub.call
    sent: dict[str, Any] = {}

    def keep(method: str, path: str, body: bytes, kind: str, headers: dict[str, str]) -> bytes:
        sent.update(body=body, envelope=base64.b64decode(headers["Gossipfl-Envelope"]))
        return b"{}"

    client.hub.call = keep
    client.send(config, model)
    client.hub.call = kept
    path = "/api/v1/models/update"
    body = {
        "envelope": base64.b64encode(sent["envelope"]).decode(),
        "parameters": [float(value) for value in model],
    }
    answer = await asyncio.to_thread(client.hub.json, "POST", path, body)
    assert answer["digest"] == hashlib.sha256(sent["body"]).hexdigest()
    packed = msgpack.packb({"envelope": sent["envelope"], "update": sent["body"]})
    same = await asyncio.to_thread(kept, "POST", path, packed, "application/msgpack")
    assert json.loads(same)["is_repeat"] is True


# --- blocks and budgets ----------------------------------------------------------------------


async def test_a_blocked_client_is_out_at_once_and_its_update_is_not_merged(hub: Stand) -> None:
    client = await one_client(hub)
    config = await asyncio.to_thread(client.config)
    model = await asyncio.to_thread(client.model, config["version"])
    await asyncio.to_thread(client.send, config, model + 1)
    order = {"client_id": client.id.hex(), "reason": "it was stolen"}
    blocked = await hub.ask("POST", "/api/v1/security/block-client", order)
    assert blocked["is_blocked"] is True
    assert (await refused(client.config)).status == 401
    shown = await refused(client.register, await hub.code())
    assert shown.code in ("GF842", "GF829")
    while await hub.star.engine.step():
        pass
    status = await hub.ask("GET", "/api/v1/security/status")
    assert status["blocked"] == {client.id.hex(): "it was stolen"}
    newest = (await hub.ask("GET", "/api/v1/models"))["versions"][0]
    assert newest["version"] == config["version"]
    order.pop("reason")
    await hub.ask("POST", "/api/v1/security/unblock-client", order)
    assert (await hub.ask("GET", f"/api/v1/clients/{client.id.hex()}"))["state"] == "live"


async def test_a_spent_budget_is_refused(tmp_path: Path) -> None:
    privacy = Privacy(mode="local", unit="device", epsilon=3.0, delta=1e-5, clip=1.0, z=2.0)
    async with stand(tmp_path, leads=False) as hub:
        client = await one_client(hub, privacy=privacy)
        budget = (await hub.ask("GET", "/api/v1/privacy/budget"))["clients"][0]
        assert budget["epsilon_spent"] == 0.0
        affordable = budget["releases_left"]
        assert affordable >= 1
        for _ in range(affordable):
            await one_round(hub, client)
        spent = (await hub.ask("GET", "/api/v1/privacy/budget"))["clients"][0]
        assert 0.0 < spent["epsilon_spent"] <= 3.0
        assert spent["releases_left"] == 0
        found = await refused_round(hub, client)
        assert (found.status, found.code) == (403, "GF845")


async def test_noise_is_asked_for_and_so_much_of_it(tmp_path: Path) -> None:
    privacy = Privacy(mode="local", unit="device", epsilon=8.0, delta=1e-5, clip=1.0, z=2.0)
    async with stand(tmp_path, leads=False) as hub:
        client = await one_client(hub, privacy=privacy)
        client.z = 1.0
        found = await refused_round(hub, client)
        assert (found.status, found.code) == (403, "GF845")
        config = await asyncio.to_thread(client.config)
        plain = {**config, "privacy": {"mode": "off"}}
        model = await asyncio.to_thread(client.model, config["version"])
        assert (await refused(client.send, plain, model)).code == "GF845"


async def test_all_clients_together_have_a_budget_too(tmp_path: Path) -> None:
    privacy = Privacy(mode="local", unit="device", epsilon=8.0, delta=1e-5, clip=1.0, z=2.0)
    settings = StarSettings(round_s=5.0, global_epsilon=3.0)
    async with stand(tmp_path, settings=settings, leads=False) as hub:
        client = await one_client(hub, privacy=privacy)
        left = (await hub.ask("GET", "/api/v1/privacy/budget"))["clients"][0]["releases_left"]
        while (await spent_of_all(hub))["releases"] < left:
            config = await asyncio.to_thread(client.config)
            if not await fits_still(client, config):
                break
            while await hub.star.engine.step():
                pass
        assert 1 <= (await spent_of_all(hub))["releases"] < left
        spent = (await hub.ask("GET", "/api/v1/privacy/budget"))["global_spent"]
        assert 0.0 < spent <= 3.0


async def spent_of_all(hub: Stand) -> Any:
    return (await hub.ask("GET", "/api/v1/privacy/budget"))["clients"][0]


async def fits_still(client: Any, config: Any) -> bool:
    """One more update; False if a budget refused it."""
    try:
        return bool(await asyncio.to_thread(client.step, config))
    except example().Refused as found:
        if found.code != "GF845":
            raise
        return False


async def one_round(hub: Stand, client: Any) -> None:
    config = await asyncio.to_thread(client.config)
    assert await asyncio.to_thread(client.step, config)
    while await hub.star.engine.step():
        pass


async def refused_round(hub: Stand, client: Any) -> Any:
    config = await asyncio.to_thread(client.config)
    return await refused(client.step, config)


async def test_a_viewer_sees_its_labels_only(hub: Stand) -> None:
    star = example()
    info = await hub.ask("GET", "/api/v1/clients/register")
    for site in ("north", "south"):
        invited = {"uses": 1, "labels": {"site": site}}
        code = (await hub.ask("POST", "/api/v1/clients/invitations", invited))["code"]
        key = SigningKey.generate()
        for again in range(2):  # a known key keeps its labels
            join = {"fleet": bytes.fromhex(info["fleet"]), "at": info["now"] + again}
            signed = base64.b64encode(star.envelope("star-join", join, key)).decode()
            await hub.ask("POST", "/api/v1/clients/register", {"envelope": signed, "code": code})
    token = await user(hub.auth, "vic", Role.VIEWER, {"site": "north"})
    viewer = star.Hub(hub.url, token=token)
    seen = (await asyncio.to_thread(viewer.json, "GET", "/api/v1/clients"))["clients"]
    everybody = (await hub.ask("GET", "/api/v1/clients"))["clients"]
    assert [client["labels"] for client in seen] == [{"site": "north"}]
    assert len(everybody) == 2
    hidden = next(c["client_id"] for c in everybody if c["labels"] == {"site": "south"})
    assert (await refused(viewer.json, "GET", f"/api/v1/clients/{hidden}")).status == 404
    assert (await refused(viewer.json, "GET", "/api/v1/privacy/budget")).status == 403


async def test_a_client_cannot_label_itself(hub: Stand) -> None:
    """A viewer who is limited to a site would be shown whatever calls itself that site."""
    star = example()
    info = await hub.ask("GET", "/api/v1/clients/register")
    join = {"fleet": bytes.fromhex(info["fleet"]), "at": info["now"], "labels": {"site": "north"}}
    signed = base64.b64encode(star.envelope("star-join", join, SigningKey.generate())).decode()
    body = {"envelope": signed, "code": await hub.code()}
    found = await refused(hub.hand.json, "POST", "/api/v1/clients/register", body)
    assert (found.status, found.code) == (422, "GF841")
