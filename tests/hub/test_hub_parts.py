"""Settings, supervisor and broadcast of a hub."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gossipfl.errors import UserError
from gossipfl.hub import broadcast, supervisor
from gossipfl.hub.broadcast import Broadcast
from gossipfl.hub.service import Service
from gossipfl.hub.settings import load_settings, template
from gossipfl.hub.supervisor import Supervisor


def test_the_template_says_everything_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hub.toml"
    path.write_text(template({"api.port": 8_800}))
    settings = load_settings([path])
    assert settings.api.port == 8_800
    assert settings.hub.state == tmp_path
    assert settings.dsn == f"sqlite:///{tmp_path}/hub.db"
    everything = "\n".join(
        line.removeprefix("# ") if " = " in line and line.startswith("# ") else line
        for line in template({}).splitlines()
    )
    path.write_text(everything)
    assert load_settings([path]).network.hosts == ("0.0.0.0", "::")


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("[api]\nprot = 1\n", "GF101", "hub.toml:2: 'prot' in [api] is not known, did you mean"),
        ("[apo]\n", "GF101", "hub.toml:1: [apo] is not known, did you mean 'api'"),
        ("api = 1\n", "GF101", "outside of any [section]"),
        ("[api]\nport = 99999\n", "GF102", "hub.toml:2: api.port = 99999: allowed: 0 to 65535"),
        ('[api]\nport = "8"\n', "GF102", "another type"),
        ('[network]\npeers = ["x"]\n', "GF102", "host:port"),
        ("[api\n", "GF103", "not TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_told_with_its_place(
    tmp_path: Path, text: str, code: str, told: str
) -> None:
    path = tmp_path / "hub.toml"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        load_settings([path])
    assert raised.value.code == code
    assert told in raised.value.cause


async def test_off_loopback_there_is_no_start_without_tls(tmp_path: Path) -> None:
    settings = load_settings((), {"api.host": "0.0.0.0", "hub.state": str(tmp_path)})
    with pytest.raises(UserError) as raised:
        await Service(settings).run(signals=False)
    assert raised.value.code == "GF805"


async def test_a_task_that_dies_is_restarted_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PAUSE_S", 0.001)
    told: list[tuple[str, str]] = []
    lives = 0
    calm = asyncio.Event()

    async def work() -> None:
        nonlocal lives
        lives += 1
        if lives < 4:
            raise OSError(f"life {lives}")
        calm.set()
        await asyncio.Event().wait()

    parts = Supervisor(lambda name, problem: told.append((name, problem)))
    parts.start("work", work)
    await asyncio.wait_for(calm.wait(), 10)
    assert told == [("work", f"OSError: life {n}") for n in (1, 2, 3)]
    assert parts.health["work"].restarts == 3
    assert parts.health["work"].is_running
    assert parts.problems() == ["work: OSError: life 3"]
    await parts.close()


async def test_a_task_that_is_killed_from_outside_is_restarted_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "PAUSE_S", 0.001)
    lives = 0
    living = asyncio.Event()

    async def work() -> None:
        nonlocal lives
        lives += 1
        living.set()
        await asyncio.Event().wait()

    told: list[tuple[str, str]] = []
    parts = Supervisor(lambda name, problem: told.append((name, problem)))
    parts.start("work", work)
    for life in (1, 2):
        await asyncio.wait_for(living.wait(), 10)
        living.clear()
        assert lives == life
        (task,) = [t for t in asyncio.all_tasks() if t.get_name() == "hub-work"]
        task.cancel()
    await asyncio.wait_for(living.wait(), 10)
    assert told == [("work", "it was cancelled")] * 2
    assert parts.health["work"].restarts == 2
    await asyncio.wait_for(parts.close(), 10)
    assert lives == 3


async def test_what_no_restart_can_mend_ends_the_service() -> None:
    async def work() -> None:
        raise UserError("GF803", "the root is another one")

    parts = Supervisor()
    parts.start("work", work)
    with pytest.raises(UserError, match="another one"):
        await asyncio.wait_for(parts.failed(), 10)
    await parts.close()


async def test_what_a_hub_can_live_without_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PAUSE_S", 0.001)
    monkeypatch.setattr(supervisor, "CALM_S", 0.05)
    well = asyncio.Event()
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise UserError("GF803", "the file of /home/ann/x.npz is another one")
        well.set()
        await asyncio.Event().wait()

    parts = Supervisor()
    parts.start("page", work, is_vital=False)
    ending = asyncio.create_task(parts.failed())
    await asyncio.wait_for(well.wait(), 10)
    assert not ending.done()
    assert parts.health["page"].restarts == 2
    assert "ann" in parts.problems()[0]
    assert parts.kinds_of_problems() == ["page: GF803"]  # what strangers are told
    ending.cancel()
    await parts.close()


async def test_a_slow_reader_loses_its_place_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broadcast, "QUEUE_MAX", 3)
    events = Broadcast()
    with events.listen() as slow, events.listen() as quick:
        events.tell("notice", number=0)
        assert (await anext(quick)).data == {"number": 0}
        for number in range(1, 4):
            events.tell("notice", number=number)
            assert (await anext(quick)).data == {"number": number}
        assert [h.data["number"] async for h in slow] == [1, 2]
        assert events.readers == 1
    assert events.readers == 0
