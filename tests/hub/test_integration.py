"""Star mode from a plain client: register, learn, stop, check point, restore, switch, clean up."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starkit import Stand, example, side_by_side, stand

from gossipfl.messages import Stop


async def run_all(hub: Stand, members: list[Any]) -> None:
    code = await hub.code()
    await side_by_side([partial(member.run, code) for member in members])


async def test_a_plain_client_does_all_that_the_server_offers(tmp_path: Path, dsn: str) -> None:
    """Ten clients, the last one lies. The operator checks a version point, restores it, switches
    the rule, and cleans up."""
    async with stand(tmp_path, dsn) as hub:
        await hub.start(epochs=3, learning_rate=0.2, stop=Stop(patience=4), rounds=60)
        members = example().fleet(hub.url, None, 10, 1)
        await run_all(hub, members)
        history = (await hub.ask("GET", "/api/v1/convergence/history"))["rounds"]
        assert members[0].accuracy >= 0.92
        assert history[0]["stopped"] == "patience"
        assert history[0]["version"] == len(history)

        body = {"name": "best", "note": "before the switch"}
        kept = await hub.ask("POST", "/api/v1/checkpoints", body)
        model = await model_of(hub)
        assert kept["digest"] == hashlib.sha256(model).hexdigest()
        with pytest.raises(example().Refused, match="GF829"):
            await hub.ask("POST", "/api/v1/checkpoints", body)

        round_before = history[0]["round"]
        told = await hub.switch(rule="trimmed_mean", epochs=1, rounds=len(history) + 3)
        assert told["rule"] == "trimmed_mean"
        await side_by_side([partial(member.run, "") for member in members])
        after = (await hub.ask("GET", "/api/v1/convergence/history"))["rounds"]
        switched = [entry for entry in after if entry["rule"] == "trimmed_mean"]
        assert min(entry["round"] for entry in switched) <= round_before + 2
        assert len(switched) == 3

        assert await model_of(hub) != model
        restored = await hub.ask("POST", "/api/v1/checkpoints/best/restore")
        assert await model_of(hub) == model
        assert restored["origin"] == "checkpoint best"
        assert restored["parent"] == kept["version"]

        await clean_up(hub, model)


async def clean_up(hub: Stand, live: bytes) -> None:
    """Freed is what was told; the live version and the checkpoint stay."""
    before = await hub.ask("GET", "/api/v1/storage")
    wanted = {"versions_kept": 2}
    dry = await hub.ask("POST", "/api/v1/storage/cleanup", {**wanted, "is_dry_run": True})
    assert await hub.ask("GET", "/api/v1/storage") | {"database_bytes": 0} == before | {
        "database_bytes": 0
    }
    freed = await hub.ask("POST", "/api/v1/storage/cleanup", wanted)
    assert freed == dry
    after = await hub.ask("GET", "/api/v1/storage")
    gone = sum(before[key] - after[key] for key in ("model_bytes", "update_bytes"))
    assert freed["bytes_freed"] == gone > 0
    assert after["checkpoint_bytes"] == before["checkpoint_bytes"] == len(live)
    assert await model_of(hub) == live
    with pytest.raises(example().Refused, match="GF823"):
        await model_of(hub, 1)
    assert len((await hub.ask("GET", "/api/v1/convergence/history"))["rounds"]) > 3


async def model_of(hub: Stand, version: int | None = None) -> bytes:
    path = "/api/v1/models/global" + (f"?version={version}" if version is not None else "")
    data: bytes = await asyncio.to_thread(hub.hand.call, "GET", path)
    return data


async def test_a_model_is_sent_only_if_it_is_another_one(tmp_path: Path) -> None:
    async with stand(tmp_path, leads=False) as hub:
        await hub.start()
        await hub.star.engine.step()
        model = await model_of(hub)
        etag = f'"{hashlib.sha256(model).hexdigest()}"'
        with pytest.raises(example().Refused) as found:
            await asyncio.to_thread(
                hub.hand.call, "GET", "/api/v1/models/global", None, "", {"If-None-Match": etag}
            )
        assert found.value.status == 304


async def test_before_there_is_anything_to_train_it_is_said_so(tmp_path: Path) -> None:
    async with stand(tmp_path, leads=False) as hub:
        await hub.star.engine.step()
        with pytest.raises(example().Refused, match="no policy has been given"):
            await hub.ask("GET", "/api/v1/training/config")
        with pytest.raises(example().Refused) as found:
            await model_of(hub)
        assert found.value.status == 404
