"""What is accepted of star clients when others act at the same instant, or say what is not so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from authkit import Clock
from starkit import Stand, example, stand
from test_security_privacy import one_client, refused

from gossipfl.bundles import MNIST_CNN, read_bytes
from gossipfl.config import Limits
from gossipfl.hub.rest.bodies import KIB
from gossipfl.hub.star import books
from gossipfl.hub.star.admission import FRESH_S, Admission
from gossipfl.hub.star.budget import KINDS_MAX, Account, Ceilings, Unasked, counted, terms_of
from gossipfl.hub.star.client_routes import ClientApi
from gossipfl.hub.star.settings import StarSettings
from gossipfl.hub.star.values import RoundState
from gossipfl.messages import Privacy
from gossipfl.privacy.protection import DevicePrivacy, RecordPrivacy

DEVICE = Privacy(mode="local", unit="device", epsilon=8.0, delta=1e-5, clip=1.0, z=2.0)
RECORD = Privacy(
    mode="local", unit="record", epsilon=8.0, delta=1e-5, clip=1.0, z=1.0, sample_rate=0.01,
    steps=10, lot=64,
)  # fmt: skip


@pytest.fixture
async def hub(dsn: str, tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path, dsn, leads=False) as hub:
        yield hub


# --- a round that closes while an update comes -------------------------------------------------


async def test_an_update_accepted_while_its_round_closes_is_in_it(
    hub: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await one_client(hub)
    config = await asyncio.to_thread(client.config)
    model = await asyncio.to_thread(client.model, config["version"])
    inside, go_on = asyncio.Event(), asyncio.Event()
    real = books.add_update

    async def slow(*args: Any) -> bool:
        inside.set()
        await go_on.wait()
        return await real(*args)

    monkeypatch.setattr(books, "add_update", slow)
    sending = asyncio.create_task(asyncio.to_thread(client.send, config, model + 1))
    await asyncio.wait_for(inside.wait(), 10)
    async with hub.database.transaction(write=False) as tx:
        round_ = await books.newest_round(tx)
    assert round_ is not None
    closing = asyncio.create_task(hub.star.engine._move(round_, RoundState.CLOSED))
    done, _ = await asyncio.wait({closing}, timeout=0.3)
    go_on.set()
    await asyncio.wait_for(asyncio.gather(closing, sending), 10)
    assert not done, "the round was closed while an update of it was on its way"
    while await hub.star.engine.step():
        pass
    newest = (await hub.ask("GET", "/api/v1/models"))["versions"][0]
    assert newest["version"] == config["version"] + 1


async def test_who_comes_after_its_round_closed_is_told_so_and_spends_nothing(hub: Stand) -> None:
    client = await one_client(hub, privacy=DEVICE)
    config = await asyncio.to_thread(client.config)
    model = await asyncio.to_thread(client.model, config["version"])
    async with hub.database.transaction(write=False) as tx:
        round_ = await books.newest_round(tx)
    assert round_ is not None
    await hub.star.engine._move(round_, RoundState.CLOSED)
    client.z = 2.0
    assert (await refused(client.send, config, model + 1)).code == "GF844"
    assert (await hub.ask("GET", "/api/v1/privacy/budget"))["clients"][0]["epsilon_spent"] == 0.0


# --- how long an update may be -----------------------------------------------------------------


async def test_after_a_restart_a_large_update_needs_nobody_to_ask_first(tmp_path: Path) -> None:
    async with stand(tmp_path, leads=False) as hub:
        hub.operator.bundle = read_bytes(MNIST_CNN)  # 81 kB as float32
        await hub.start(n=3, attackers=0, rule="mean", codec="f32")
        star = example()
        nothing = np.zeros((1, 64)), np.zeros(1)
        client = star.Client(star.Hub(hub.url), "one", nothing, nothing)
        await asyncio.to_thread(client.register, await hub.code())
        while await hub.star.engine.step():
            pass
        config = await asyncio.to_thread(client.config)
        model = await asyncio.to_thread(client.model, config["version"])
        old = hub.star.admission
        hub.star.admission = Admission(  # as after a restart
            hub.database, hub.star.shelf, hub.star.settings, hub.star.clock, Limits()
        )
        assert old.update_bytes_max() > 72 * KIB
        answer = await asyncio.to_thread(client.send, config, model + 1)
        assert answer["is_repeat"] is False


def test_the_bound_of_an_update_is_that_of_the_job_while_that_is_news() -> None:
    clock = Clock()
    admission = Admission(None, None, StarSettings(), clock, Limits())  # type: ignore[arg-type]
    api = ClientApi(type("Star", (), {"admission": admission})())  # type: ignore[arg-type]
    assert api.update_bytes_max() > Limits().bundle_bytes
    admission.saw(type("Job", (), {"update_bytes": 100_000})())  # type: ignore[arg-type]
    assert api.update_bytes_max() == 100_000 + 8 * KIB
    clock.now += FRESH_S  # another instance may have been given a larger job
    assert api.update_bytes_max() > Limits().bundle_bytes


# --- what a client says of its noise -----------------------------------------------------------


@pytest.mark.parametrize(
    ("privacy", "said"),
    [
        (DEVICE, {"clip": 2.0, "z": 2.0, "unit": "device"}),
        (DEVICE, {"clip": 1.0, "z": 1.9, "unit": "device"}),
        (DEVICE, {"clip": 1.0, "z": 2.0, "unit": "record", "steps": 1_000_000}),
        (RECORD, {"clip": 1.0, "z": 1.0, "unit": "record", "sample_rate": 0.01, "lot": 64,
                  "steps": 1_000_000}),
        (RECORD, {"clip": 1.0, "z": 1.0, "unit": "record", "sample_rate": 1.0, "lot": 64,
                  "steps": 10}),
    ],
)  # fmt: skip
async def test_noise_that_the_policy_did_not_ask_for_is_refused_and_costs_nobody(
    tmp_path: Path, privacy: Privacy, said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = StarSettings(round_s=5.0, global_epsilon=privacy.epsilon)
    async with stand(tmp_path, settings=settings, leads=False) as hub:
        client = await one_client(hub, privacy=privacy)
        config = await asyncio.to_thread(client.config)
        model = await asyncio.to_thread(client.model, config["version"])
        module, real = example(), example().envelope

        def lying(kind: str, payload: dict[str, Any], key: Any) -> bytes:
            if kind == "star-model":
                payload = {**payload, "noise": said}
            return bytes(real(kind, payload, key))

        monkeypatch.setattr(module, "envelope", lying)
        found = await refused(client.send, config, model + 1)
        assert (found.status, found.code) == (403, "GF845")
        assert "the policy asks for" in str(found)
        budget = await hub.ask("GET", "/api/v1/privacy/budget")
        assert (budget["global_spent"], budget["clients"][0]["epsilon_spent"]) == (0.0, 0.0)


async def test_the_accountant_is_asked_once_and_outside_of_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Account] = []
    real = Ceilings.ask

    def ask(self: Ceilings, account: Account, spec: Any, terms: Any) -> None:
        asked.append(account)
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()  # a thread
        real(self, account, spec, terms)

    monkeypatch.setattr(Ceilings, "ask", ask)
    async with stand(tmp_path, leads=False) as hub:
        client = await one_client(hub, privacy=DEVICE)
        for _ in range(3):
            config = await asyncio.to_thread(client.config)
            assert await asyncio.to_thread(client.step, config)
            while await hub.star.engine.step():
                pass
        assert len(asked) == 1
        budget = (await hub.ask("GET", "/api/v1/privacy/budget"))["clients"][0]
        assert budget["releases"] == 3


def test_of_many_who_wait_for_the_accountant_the_first_one_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All clients of a round begin with the same account: 200 would take minutes one by one."""
    counted_at: list[Account] = []
    real = Account.affordable

    def affordable(self: Account, spec: Any, terms: Any) -> int:
        counted_at.append(self)
        return real(self, spec, terms)

    monkeypatch.setattr(Account, "affordable", affordable)
    ceilings, terms = Ceilings(), terms_of(DEVICE)
    assert terms is not None
    for _ in range(20):
        ceilings.ask(Account({}), DevicePrivacy(DEVICE.clip, DEVICE.z), terms)
    assert len(counted_at) == 1
    assert ceilings.refusal(Account({}), DevicePrivacy(DEVICE.clip, DEVICE.z), terms) is None


def test_more_noise_counts_in_few_sizes_and_never_as_more_than_was_said() -> None:
    sizes = set()
    for number in range(1, 3_000):
        said = DevicePrivacy(1.0, 2.0 + number * 0.1)
        found = counted(said, DEVICE)
        assert 2.0 <= found.z <= said.z
        sizes.add(found.z)
    assert 10 <= len(sizes) <= 17
    assert counted(DevicePrivacy(1.0, 2.0), DEVICE) == DevicePrivacy(1.0, 2.0)
    whole = RecordPrivacy(1.0, 1.0, 0.01, 10, 64)
    assert counted(whole, RECORD) == whole
    assert counted(DevicePrivacy(1.0, 1.0), RECORD) == DevicePrivacy(1.0, 1.0)


def test_a_ceiling_says_what_the_accountant_says_release_by_release() -> None:
    terms = terms_of(DEVICE)
    assert terms is not None
    spec, ceilings, account = DevicePrivacy(1.0, 2.0), Ceilings(), Account({})
    with pytest.raises(Unasked):
        ceilings.refusal(account, spec, terms)
    most = account.affordable(spec, terms)
    ceilings.ask(account, spec, terms)
    for _ in range(most):
        assert ceilings.refusal(account, spec, terms) is None
        account = account.with_release(spec)
    assert account.spent(terms) <= terms.epsilon < account.with_release(spec).spent(terms)
    assert ceilings.refusal(account, spec, terms) is not None
    with pytest.raises(Unasked):  # something of another kind was spent
        ceilings.refusal(account.with_release(DevicePrivacy(1.0, 4.0)), spec, terms)


def test_an_account_has_so_many_kinds() -> None:
    terms = terms_of(DEVICE)
    assert terms is not None
    account = Account({})
    for number in range(KINDS_MAX):
        account = account.with_release(DevicePrivacy(1.0, 2.0 + number))
    assert account.barred(DevicePrivacy(1.0, 2.0), terms) is None
    assert account.barred(DevicePrivacy(1.0, 1_000.0), terms) is not None
