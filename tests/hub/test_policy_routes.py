"""Policies at a hub: proposed there, signed elsewhere, issued through it; on both stores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starkit import Operator, Stand, example, stand

from gossipfl.bundle.archive import read
from gossipfl.bundles import read_bytes
from gossipfl.events import BundleGiven, Event, PolicyReceived
from gossipfl.fleet import documents
from gossipfl.fleet.proposals import open_proposal
from gossipfl.hub.policy.courier import Courier
from gossipfl.identity import device_name
from gossipfl.messages import Head, Lineage
from gossipfl.objects import digest, pack_list
from gossipfl.wire import encode

API = "/api/v1/policy"
OCTETS = "application/octet-stream"
OTHER = "digits-mlp"
SEEN = (
    "INSERT INTO fleet_devices (device, role, state, why, seq, round, receipts, seen, reputation, "
    "head, address) VALUES (?, 'device', ?, '', 1, 1, 0, 0, 1.0, ?, '') ON CONFLICT (device) "
    "DO UPDATE SET state = excluded.state, head = excluded.head"
)
DEVICES = [bytes([n]) * 16 for n in range(1, 7)]


@pytest.fixture
async def hub(tmp_path: Path, dsn: str) -> AsyncIterator[Stand]:
    async with stand(tmp_path, dsn, leads=False) as found:
        yield found


async def send(hub: Stand, path: str, body: bytes) -> Any:
    found = await asyncio.to_thread(hub.hand.call, "POST", path, body, OCTETS)
    return json.loads(found)


async def refused(call: Any) -> tuple[int, str]:
    with pytest.raises(example().Refused) as told:
        await call
    return told.value.status, told.value.code


async def knows(hub: Stand, *policies: bytes) -> None:
    """As the hub's node leaves them in the database."""
    async with hub.database.transaction() as tx:
        await tx.execute(
            "INSERT INTO node_documents (name, data) VALUES ('policies', ?) "
            "ON CONFLICT (name) DO UPDATE SET data = excluded.data",
            pack_list(list(policies)),
        )


async def shows(hub: Stand, devices: Sequence[bytes], policy: bytes | None, **fields: Any) -> None:
    """What the hub saw of these devices: heads that name the policy."""
    async with hub.database.transaction() as tx:
        for device in devices:
            head = Head(
                fleet=hub.star.fleet, device=device, seq=1, member=b"m" * 32, issued=9,
                policy=policy, **fields,
            )  # fmt: skip
            await tx.execute(SEEN, device, "live", encode(head))


def sign(operator: Operator, payload: bytes, now: int = 1_900_000_000) -> bytes:
    """On the operator's own machine."""
    policy = msgspec.structs.replace(open_proposal(payload), issued=now)
    return documents.policy_object(policy, operator.official)


async def proposed(hub: Stand, **change: Any) -> tuple[Any, bytes]:
    made = await hub.ask("POST", f"{API}/proposals", {"change": change, "note": "try it"})
    path = f"{API}/proposals/{made['id']}/payload"
    return made, await asyncio.to_thread(hub.hand.call, "GET", path)


async def test_a_number_that_does_not_follow_is_refused(hub: Stand) -> None:
    first = hub.operator.policy()
    await knows(hub, first)
    _, payload = await proposed(hub, rule="median")
    far = msgspec.structs.replace(open_proposal(payload), version=2**53)
    signed = documents.policy_object(far, hub.operator.official)
    assert (await refused(send(hub, f"{API}/issue?wait_s=0", signed)))[0] == 409
    history = await hub.ask("GET", f"{API}/history")
    assert [policy["version"] for policy in history["policies"]] == [1]


async def test_of_two_policies_issued_at_once_one_is_taken(hub: Stand) -> None:
    await knows(hub, hub.operator.policy())
    rivals = [sign(hub.operator, (await proposed(hub, rule=r))[1]) for r in ("median", "krum")]
    asked = [send(hub, f"{API}/issue?wait_s=0", rival) for rival in rivals]
    found = await asyncio.gather(*asked, return_exceptions=True)
    wrong = [each for each in found if isinstance(each, example().Refused)]
    assert [each.status for each in wrong] == [409]
    assert len((await hub.ask("GET", f"{API}/history"))["policies"]) == 2


async def test_a_proposal_is_signed_elsewhere_and_issued(hub: Stand) -> None:
    first = hub.operator.policy()
    await knows(hub, first)
    await shows(hub, DEVICES, digest(first))
    made, payload = await proposed(hub, rule="median", block=[device_name(DEVICES[5])])
    assert (made["state"], made["made_by"], made["note"]) == ("open", "ann", "try it")
    assert made["policy"]["version"] == 2
    assert made["policy"]["digest"] == "", "nobody has signed it"
    assert any("rule: nna -> median" in line for line in made["changes"])
    assert (await hub.ask("GET", API))["proposals_open"] == 1
    signed = sign(hub.operator, payload)
    answer = await send(hub, f"{API}/issue?wait_s=0", signed)
    assert answer["policy"]["blocked"] == [device_name(DEVICES[5])]
    assert answer["has_spread"] is False
    assert answer["spread"] == {"named": 0, "live": 6, "wanted": 3}
    assert "goes on spreading" in answer["words"]
    after = await hub.ask("GET", f"{API}/proposals/{made['id']}")
    assert (after["state"], after["issued_as"]) == ("issued", answer["policy"]["digest"])
    state = await hub.ask("GET", API)
    assert state["newest"]["digest"] == digest(signed).hex()
    assert state["proposals_open"] == 0
    history = await hub.ask("GET", f"{API}/history")
    assert [p["version"] for p in history["policies"]] == [2, 1]
    path = f"{API}/objects/{digest(signed).hex()}"
    assert await asyncio.to_thread(hub.hand.call, "GET", path) == signed


async def test_issuing_returns_when_enough_heads_name_it(hub: Stand) -> None:
    first = hub.operator.policy(n=9, attackers=1)
    await knows(hub, first)
    await shows(hub, DEVICES, digest(first))
    second = hub.operator.policy(n=9, attackers=1, rule="median")
    waiting = asyncio.create_task(send(hub, f"{API}/issue?wait_s=30", second))

    async def taken() -> bool:
        found = await hub.ask("GET", f"{API}/history")
        return len(found["policies"]) == 2

    await hub.until(taken)
    await shows(hub, DEVICES[:2], digest(second))
    async with asyncio.timeout(20):
        state = await hub.ask("GET", API)
        assert state["spread"] == {"named": 2, "live": 6, "wanted": 3}
        assert not waiting.done()
        await shows(hub, DEVICES[2:3], digest(second))
        answer = await waiting
    assert answer["has_spread"] is True
    assert answer["spread"]["named"] == 3
    again = await send(hub, f"{API}/issue?k=6&wait_s=0", second)
    assert (again["has_spread"], again["spread"]["wanted"]) == (False, 6)


async def test_what_is_not_an_operators_next_word_is_refused(hub: Stand, tmp_path: Path) -> None:
    from gossipfl.fleet.local import make_fleet

    first = hub.operator.policy()
    await knows(hub, first)
    second = hub.operator.policy(rule="median")
    hub.operator.last = first
    rival = hub.operator.policy(rule="krum")
    stranger = Operator(make_fleet(tmp_path / "stranger").operator().load())
    issue = f"{API}/issue?wait_s=0"
    _, payload = await proposed(hub, rule="mean")
    for wrong in (b"", b"\x00" * 200, payload, second[:-1], stranger.policy()):
        assert (await refused(send(hub, issue, wrong)))[0] == 422
    await send(hub, issue, second)
    if digest(rival) > digest(second):  # of two with one number the lower digest wins
        assert (await refused(send(hub, issue, rival)))[0] == 409
    hub.operator.last = rival
    third = hub.operator.policy(rule="mean")
    assert (await refused(send(hub, issue, third)))[0] == 409, "it follows what nobody has"
    old = await send(hub, issue, first)
    assert old["policy"]["version"] == 1, "what is known already is no error"


async def test_nonsense_is_no_proposal(hub: Stand) -> None:
    async def propose(**change: Any) -> tuple[int, str]:
        return await refused(hub.ask("POST", f"{API}/proposals", {"change": change}))

    assert await propose(rule="median") == (422, "GF701"), "there is no policy yet"
    await knows(hub, hub.operator.policy())
    assert await propose(rule="best") == (422, "GF701")
    assert await propose(roll="back") == (422, "GF701")
    assert await propose(bundle="ab" * 32) == (422, "GF701")
    assert await propose(block=["abcd-efgh"]) == (422, "GF100")
    assert await propose(canary_count=3) == (422, "GF701"), "nobody is there"
    assert await propose(rulez="nna") == (422, "GF824")
    assert (await refused(hub.ask("DELETE", f"{API}/proposals/nobody")))[0] == 404
    assert (await refused(hub.ask("GET", f"{API}/objects/zz")))[0] == 404


async def test_a_withdrawn_proposal_stays_on_the_list(hub: Stand) -> None:
    await knows(hub, hub.operator.policy())
    made, _ = await proposed(hub, rule="median")
    path = f"{API}/proposals/{made['id']}"
    await asyncio.to_thread(hub.hand.call, "DELETE", path)
    assert (await refused(hub.ask("DELETE", path)))[0] == 404
    found = (await hub.ask("GET", f"{API}/proposals"))["proposals"]
    assert [p["state"] for p in found] == ["withdrawn"]


async def test_canaries_are_drawn_from_who_is_there_and_shown(hub: Stand) -> None:
    first = hub.operator.policy(n=9, attackers=1)
    await knows(hub, first)
    await shows(hub, DEVICES, digest(first))
    data = read_bytes(OTHER)
    bundle = (await send(hub, "/api/v1/training/bundle", data))["bundle"]
    blocked = device_name(DEVICES[0])
    made, payload = await proposed(
        hub, bundle=bundle, canary_count=3, block=[blocked], gate={"rounds": 4}
    )
    shown = made["policy"]
    chosen = [d for d in DEVICES if device_name(d) in shown["canary"]]
    assert len(chosen) == 3
    assert DEVICES[0] not in chosen
    assert (shown["n"], shown["attackers"], shown["run"]) == (3, 0, 2)
    signed = sign(hub.operator, payload)
    answer = await send(hub, f"{API}/issue?wait_s=0", signed)
    assert answer["spread"]["wanted"] == 3, "by the fleet's attackers, not the canaries'"
    layout = read(data).layout.digest
    new = Lineage(bytes.fromhex(bundle), 2, layout)
    await shows(hub, DEVICES, digest(signed))
    await shows(hub, chosen[:1], digest(signed), lineage=new)
    await shows(hub, chosen[1:2], digest(signed), declined=digest(signed))
    state = await hub.ask("GET", API)
    found = {c["device"]: c["state"] for c in state["canaries"]}
    assert found == dict(zip(map(device_name, chosen), ("trying", "declined", "waiting"),
                             strict=True))  # fmt: skip
    assert state["for_all"]["version"] == 1
    back, _ = await proposed(hub, roll="back")
    assert (back["policy"]["run"], back["policy"]["n"]) == (1, 9)
    assert back["policy"]["blocked"] == [blocked]


async def test_the_leader_hands_on_what_another_instance_took(hub: Stand) -> None:
    data = read_bytes(OTHER)
    await send(hub, "/api/v1/training/bundle", data)
    first = hub.operator.policy()
    await knows(hub, first)
    other = replace(hub.operator, bundle=data)
    second = other.policy(canary=(DEVICES[0],))
    given: list[Event] = []
    is_full = True

    def give(event: Event) -> bool:
        if not is_full:
            given.append(event)
        return not is_full

    courier = Courier(hub.database, give)
    await courier.look()
    await send(hub, f"{API}/issue?wait_s=0", second)
    await courier.look()
    assert given == [], "the node's inbox was full: it is tried again"
    is_full = False
    await courier.look()
    await courier.look()
    assert given == [PolicyReceived(second), BundleGiven(data)]
