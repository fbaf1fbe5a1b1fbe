"""Rules, weights, selection, quality, early stop and hand-over in star mode."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starkit import Operator, Stand, example, stand

from gossipfl.aggregation import RULES
from gossipfl.bundle.archive import read
from gossipfl.events import MergeFinished
from gossipfl.fleet import documents
from gossipfl.fleet.local import make_fleet
from gossipfl.hub.star import books
from gossipfl.hub.star.budget import Account
from gossipfl.hub.star.engine import Engine
from gossipfl.hub.star.job import Job
from gossipfl.hub.star.merging import QUALITY_MAX, Contribution, merged, weighed
from gossipfl.hub.star.selection import chances, select
from gossipfl.hub.star.settings import StarSettings
from gossipfl.hub.star.values import Client, Round, RoundState
from gossipfl.interfaces import Evaluation
from gossipfl.policies import Accepted
from gossipfl.reputation import Reputation


def client(number: int, updates: int = 0) -> Client:
    name = bytes([number]) * 16
    return Client(name, bytes(32), "", {}, {}, 0, 0, 0, 0, updates, Account({}), "")


def contribution(number: int, vector: Any, examples: int = 10) -> Contribution:
    return Contribution(bytes([number]) * 16, bytes([number]) * 32, 1, examples, vector)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path, leads=False) as found:
        yield found


async def go(hub: Stand) -> None:
    """Everything that is due now."""
    while await hub.star.engine.step():
        pass


async def puppets(hub: Stand, count: int) -> list[Any]:
    """Registered clients that send what they are told to."""
    star, code = example(), await hub.code()
    shares, held = star.digits(20)
    found = [star.Client(star.Hub(hub.url), f"p{i}", shares[i], held) for i in range(count)]
    for each in found:
        await asyncio.to_thread(each.register, code)
    return found


async def send(each: Any, parameters: Any, examples: int | None = None) -> dict[str, Any]:
    config = await asyncio.to_thread(each.config)
    if examples is not None:
        each._train = (np.zeros((examples, 64)), np.zeros(examples))
    found: dict[str, Any] = await asyncio.to_thread(each.send, config, parameters)
    return found


async def newest(hub: Stand) -> Any:
    async with hub.database.transaction(write=False) as tx:
        return await books.version(tx, has_body=True)


async def parameters(hub: Stand) -> Any:
    """Of the newest model."""
    return np.frombuffer((await newest(hub)).body, "<f4")


async def eight(hub: Stand) -> list[Any]:
    """Puppets whose first round is open, under a rule that bears one liar."""
    await hub.start(n=9, attackers=1, rule="nna", sample=8)
    members = await puppets(hub, 8)
    await go(hub)
    return members


# --- rules -----------------------------------------------------------------------------------


async def test_the_list_of_strategies_has_every_rule(hub: Stand) -> None:
    listed = await hub.ask("GET", "/api/v1/aggregation/strategies")
    assert {each["name"] for each in listed["strategies"]} == set(RULES)
    assert (listed["current"], listed["steps"]) == ("", ["collapse", "nnm"])
    assert all(each["words"] for each in listed["strategies"])
    await hub.start(rule="nnm+trimmed_mean")
    listed = await hub.ask("GET", "/api/v1/aggregation/strategies")
    assert listed["current"] == "nnm+trimmed_mean"


@pytest.mark.parametrize("rule", [*RULES, "collapse+nna", "nnm+trimmed_mean"])
def test_a_liar_does_not_move_a_robust_rule(tmp_path: Path, rule: str) -> None:
    operator = Operator(make_fleet(tmp_path / "fleet").operator().load())
    job = _job(operator, rule=rule)
    rng, base = np.random.default_rng(3), job.initial
    rows = [base + rng.normal(0.0, 0.05, len(base)).astype(np.float32) for _ in range(9)]
    rows.append(base - 50.0)
    entries = [contribution(i, row.astype(np.float32)) for i, row in enumerate(rows)]
    round_ = Round(1, 0, b"", 0.0, 1.0, 1, 1, frozenset())
    event = merged(job, round_, base, entries, None)
    assert isinstance(event, MergeFinished)
    moved = float(np.abs(event.merge.parameters - base).max())
    if rule in ("mean", "weighted_mean"):
        assert moved > 1.0
    else:
        assert moved < 0.5


def _job(operator: Operator, **choices: Any) -> Job:
    data = operator.policy(**choices)
    opened = documents.open_policy(data)
    accepted = Accepted(opened.policy, opened.digest, data, bytes(16), by_issuer=False)
    return Job(accepted, read(operator.bundle))


def test_examples_and_quality_weigh_within_bounds() -> None:
    def holdout(vector: Any) -> Evaluation:
        return Evaluation(1.0, float(vector[0]), 100)

    entries = [
        contribution(1, np.full(2, 0.9, np.float32), examples=100),
        contribution(2, np.full(2, 0.9, np.float32), examples=300),
        contribution(3, np.full(2, 0.1, np.float32), examples=100),
        contribution(4, np.full(2, 9.0, np.float32), examples=100),
    ]
    assert weighed(entries, None) == [100.0, 300.0, 100.0, 100.0]
    found = weighed(entries, holdout)
    assert found[:2] == pytest.approx([100.0, 300.0])
    assert found[2] == pytest.approx(50.0)
    assert found[3] == pytest.approx(100.0 * QUALITY_MAX)


async def test_weighted_mean_follows_the_examples(hub: Stand) -> None:
    await hub.start(n=4, attackers=0, rule="weighted_mean")
    small, large = await puppets(hub, 2)
    await go(hub)
    base = await parameters(hub)
    await send(small, base, examples=10)
    await send(large, base + 1.0, examples=30)
    await go(hub)
    merged_ = await parameters(hub)
    assert merged_ - base == pytest.approx(np.full(len(base), 0.75), abs=1e-6)
    version = await hub.ask("GET", "/api/v1/models/1")
    shares = {part[0]: part[3] for part in version["details"]["merged"]}
    assert shares[large.id.hex()] == pytest.approx(0.75)


# --- selection -------------------------------------------------------------------------------


def test_reputation_slowness_and_turns_lower_a_chance() -> None:
    reputation = Reputation(30.0)
    members = [client(1), client(2), client(3, updates=4)]
    found = chances(members, reputation, {members[0].id: 1.0, members[1].id: 4.0}, 0.0)
    assert found[0] > found[1] > 0.0
    assert found[2] == pytest.approx(1 / 5)
    reputation.condemn(members[0].id, "it lied")
    assert chances(members, reputation, {}, 0.0)[0] == 0.0


def test_a_small_sample_takes_turns(tmp_path: Path) -> None:
    operator = Operator(make_fleet(tmp_path / "fleet").operator().load())
    policy = _job(operator, n=40, attackers=0, rule="mean", sample=5).accepted.policy
    entropy, turns = random.Random(5), dict.fromkeys(range(1, 31), 0)
    for _ in range(60):
        members = [client(number, updates=turns[number]) for number in turns]
        chosen, f = select(policy, members, Reputation(30.0), {}, 0.0, entropy)
        assert (len(chosen), f) == (5, 0)
        for name in chosen:
            turns[name[0]] += 1
    assert sum(turns.values()) == 300
    assert min(turns.values()) >= 7
    assert max(turns.values()) <= 13


async def test_who_is_not_selected_is_told_so(hub: Stand) -> None:
    await hub.start(n=10, attackers=0, rule="mean", sample=2)
    members = await puppets(hub, 4)
    await go(hub)
    base = await parameters(hub)
    configs = [await asyncio.to_thread(each.config) for each in members]
    chosen = [config["is_selected"] for config in configs]
    assert sum(chosen) == 2
    out = members[chosen.index(False)]
    with pytest.raises(example().Refused) as found:
        await send(out, base)
    assert (found.value.status, found.value.code) == (409, "GF843")


# --- rounds ----------------------------------------------------------------------------------


async def test_a_round_that_is_not_filled_hands_over_what_it_accepted(tmp_path: Path) -> None:
    async with stand(tmp_path, settings=StarSettings(round_s=0.0), leads=False) as hub:
        await hub.start(n=5, attackers=0, rule="mean")
        first, second, third = await puppets(hub, 3)
        await hub.star.engine.step()
        await hub.star.engine.step()
        base = await parameters(hub)
        await send(first, base + 0.3)
        await hub.star.engine.step()
        async with hub.database.transaction(write=False) as tx:
            round_ = await books.newest_round(tx)
            assert round_ is not None
            kept = await books.count_updates(tx, round_.number)
        assert (round_.number, round_.version, kept) == (2, 0, 1)
        await send(second, base + 0.3)
        await go_until_merged(hub)
        merged_ = await parameters(hub)
        assert merged_ - base == pytest.approx(np.full(len(base), 0.2), abs=1e-6)
        assert third.sent == 0


async def go_until_merged(hub: Stand) -> None:
    for _ in range(10):
        await hub.star.engine.step()
        if (await newest(hub)).origin == "merge":
            return
    raise AssertionError("nothing was merged")


async def test_another_instance_merges_what_one_had_closed(tmp_path: Path) -> None:
    """The leader dies after it closed a round: nothing that was acknowledged is lost."""
    async with stand(tmp_path, leads=False) as hub:
        await hub.start(n=3, attackers=0, rule="mean")
        members = await puppets(hub, 2)
        await go(hub)
        base = await parameters(hub)
        for each in members:
            await send(each, base + 3.0)
        await hub.star.engine.step()
        async with hub.database.transaction(write=False) as tx:
            round_ = await books.newest_round(tx)
        assert round_ is not None
        assert round_.state is RoundState.CLOSED
        other = _second(hub)
        await other.load()
        while await other.step():
            pass
        found = await newest(hub)
        assert (found.number, len(found.details.merged)) == (1, 2)


def _second(hub: Stand) -> Engine:
    return Engine(
        hub.database,
        hub.star.shelf,
        hub.star.settings,
        hub.star.clock,
        entropy=random.Random(1),
    )


async def test_two_instances_one_leads_and_the_other_takes_over(tmp_path: Path) -> None:
    async with stand(tmp_path, leads=False) as hub:
        await hub.start(n=3, attackers=0, rule="mean")
        members = await puppets(hub, 2)
        first = asyncio.create_task(hub.star.engine.run())
        await hub.until(lambda: _version_is(hub, 0))
        other = _second(hub)
        second = asyncio.create_task(other.run())
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await hub.until(lambda: _is_open(hub))
        base = await parameters(hub)
        for each in members:
            await send(each, base + 1.0)
        other.wake()
        await hub.until(lambda: _version_is(hub, 1), within_s=10.0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)


async def _version_is(hub: Stand, number: int) -> bool:
    found = await newest(hub)
    return found is not None and found.number >= number


async def _is_open(hub: Stand) -> bool:
    async with hub.database.transaction(write=False) as tx:
        found = await books.newest_round(tx)
    return found is not None and found.state is RoundState.OPEN


async def test_training_stops_when_the_policy_says_and_goes_on_with_another(hub: Stand) -> None:
    await hub.start(n=3, attackers=0, rule="mean", rounds=2)
    members = await puppets(hub, 2)
    await go(hub)
    base = await parameters(hub)
    for _ in range(2):
        for each in members:
            await send(each, base + 1.0)
        await go(hub)
    config = await asyncio.to_thread(members[0].config)
    assert (config["state"], config["why"]) == ("finished", "rounds")
    with pytest.raises(example().Refused) as found:
        await send(members[0], base)
    assert found.value.code == "GF844"
    await hub.switch(n=3, attackers=0, rule="median", rounds=3)
    await go(hub)
    config = await asyncio.to_thread(members[0].config)
    assert (config["state"], config["rule"]) == ("running", "median")


async def test_a_liar_is_quarantined_and_said_why(hub: Stand) -> None:
    members = await eight(hub)
    rng = np.random.default_rng(0)
    for _ in range(12):
        base = await parameters(hub)
        for each in members:
            config = await asyncio.to_thread(each.config)
            if not config["is_selected"]:
                continue
            step = rng.normal(0.1, 0.02, len(base))
            lie = each is members[-1]
            await asyncio.to_thread(each.send, config, base - 20 * step if lie else base + step)
        await go(hub)
        status = await hub.ask("GET", "/api/v1/security/status")
        if status["quarantined"]:
            break
    liar = members[-1].id.hex()
    assert list(status["quarantined"]) == [liar]
    seen = await hub.ask("GET", f"/api/v1/clients/{liar}")
    assert seen["state"] == "quarantined"
    assert seen["why"]
    config = await asyncio.to_thread(members[-1].config)
    assert config["is_selected"] is False
    assert config["why"].startswith("quarantined")


async def test_a_client_with_unlike_data_stays_when_the_others_have_agreed(hub: Stand) -> None:
    """Far beside what the others still move, near beside the way that all have come."""
    members = await eight(hub)
    rng = np.random.default_rng(0)
    for number in range(12):
        base = await parameters(hub)
        for each in members:
            config = await asyncio.to_thread(each.config)
            assert config["is_selected"], config["why"]
            step = np.ones(len(base)) if number < 2 else rng.normal(0.0, 0.001, len(base))
            if each is members[-1] and number >= 2:
                step = rng.normal(0.0, 0.2, len(base))
            await asyncio.to_thread(each.send, config, base + step)
        await go(hub)
    status = await hub.ask("GET", "/api/v1/security/status")
    assert status["quarantined"] == {}


# --- the holdout -----------------------------------------------------------------------------


async def test_a_public_holdout_judges_versions_and_keeps_a_harmful_merge_out(
    tmp_path: Path,
) -> None:
    star = example()
    _, (x, y) = star.digits(20)

    def holdout(vector: Any) -> Evaluation:
        loss, accuracy = star.evaluate(vector, x, y)
        return Evaluation(loss, accuracy, len(x))

    async with stand(tmp_path, holdout=lambda bundle: holdout, leads=False) as hub:
        await hub.start(n=3, attackers=0, rule="mean")
        members = await puppets(hub, 2)
        await go(hub)
        base = await parameters(hub)
        for each in members:
            await send(each, base + np.random.default_rng(1).normal(0, 40, len(base)))
        await go(hub)
        harmed = await newest(hub)
        assert harmed.details.kept_old is True
        assert harmed.body == base.astype("<f4").tobytes()
        history = (await hub.ask("GET", "/api/v1/convergence/history"))["rounds"]
        assert 0.0 < history[0]["accuracy"] < 0.5


async def test_policies_of_nobody_and_of_yesterday_are_refused(hub: Stand) -> None:
    await hub.start(rule="nna")
    octets = "application/octet-stream"
    path, hand = "/api/v1/aggregation/strategy", hub.hand
    good = hub.operator.policy(rule="median")
    with pytest.raises(example().Refused) as found:
        await asyncio.to_thread(hand.call, "POST", path, good[:-1] + bytes([good[-1] ^ 1]), octets)
    assert (found.value.status, found.value.code) == (422, "GF846")
    in_parts = hub.operator.policy(rule="median", codec="partial:0.25+f32")
    with pytest.raises(example().Refused) as found:
        await asyncio.to_thread(hand.call, "POST", path, in_parts, octets)
    assert found.value.code == "GF846"
    hub.operator.last = good
    await asyncio.to_thread(hand.call, "POST", path, good, octets)
    listed = await hub.ask("GET", "/api/v1/aggregation/strategies")
    assert listed["current"] == "median"
