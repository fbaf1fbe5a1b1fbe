"""`gossipfl privacy status`, and what the agent answers on its socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from device_agent import local_api
from device_agent.demands import floors
from device_agent.settings import PrivacySection
from device_agent.verbs import House, verbs
from gossipfl.errors import Exit
from gossipfl.messages import Privacy
from gossipfl.privacy import Unit
from gossipfl.privacy.agreed import agreed
from gossipfl.privacy.ledger import Floors, Refusal, open_ledger
from gossipfl.privacy.statement import Statement, statement

Cli = Callable[..., tuple[int, str, str]]
POLICY = Privacy(mode="local", epsilon=1.0, delta=1e-5, clip=0.5, z=5.6)  # pays for two


def after(count: int) -> Statement:
    found = agreed(POLICY)
    assert found is not None
    ledger, _ = open_ledger(b"d" * 16)
    for number in range(count):
        ledger, _ = ledger.release(found.spec, bytes([number]) * 32, found.terms)
    return statement(ledger, found.spec, found.terms)


class Agent:
    """A house with a node that has released so often, or follows no policy with privacy."""

    def __init__(self, said: Statement | None, listen_only: str = "") -> None:
        self.said = said
        self.listen_only = listen_only
        self.releases = said.releases if said else 0

    @property
    def node(self) -> Agent:
        return self

    def view(self) -> Agent:
        return self

    def statement(self) -> Statement | None:
        return self.said


async def answer(agent: Agent) -> dict[str, Any]:
    said = await verbs(cast(House, agent))["privacy"]({})
    return json.loads(json.dumps(said.data))  # type: ignore[no-any-return]


def behind(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]) -> None:
    monkeypatch.setattr(local_api, "call", lambda path, verb, /, **fields: found)


async def test_the_statement_is_there_field_by_field(
    gossipfl: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    behind(monkeypatch, await answer(Agent(after(1))))
    code, out, _ = gossipfl("privacy", "status", "--state", str(tmp_path), "--json")
    said = json.loads(out)["data"]["statement"]
    assert code == Exit.OK
    assert (said["releases"], said["releases_max"], said["unit"]) == (1, 2, "device")
    assert said["digest"] == after(1).digest.hex()
    assert set(said) == {*Statement.__struct_fields__, "digest"}
    code, out, _ = gossipfl("privacy", "status", "--state", str(tmp_path))
    assert "of 1 spent, delta 1e-05" in out
    assert "releases     1 of 2" in out
    assert "any two data sets of the device" in out


async def test_a_spent_budget_has_its_own_exit_code_and_says_why(
    gossipfl: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    behind(monkeypatch, await answer(Agent(after(2), Refusal.SPENT.value)))
    code, out, _ = gossipfl("privacy", "status", "--state", str(tmp_path))
    assert code == Exit.BUDGET
    assert "listening    the privacy budget is spent" in out


async def test_without_privacy_that_is_said(
    gossipfl: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    behind(monkeypatch, await answer(Agent(None)))
    code, out, _ = gossipfl("privacy", "status", "--state", str(tmp_path))
    assert code == Exit.OK
    assert "no privacy" in out


def test_settings_become_demands_and_empty_ones_do_not() -> None:
    assert floors(PrivacySection()) == Floors()
    found = floors(PrivacySection(epsilon_max=2.0, delta_max=1e-6, z_min=3.0, unit="device"))
    assert found == Floors(epsilon=2.0, delta=1e-6, z=3.0, unit=Unit.DEVICE)
