"""Real agents rest when their policy says so, and new files in a data folder get them going."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from agents import Device, Fleet, examples, until

from gossipfl.messages import Stop

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def add_examples(device: Device, name: str, seed: int) -> None:
    """A file that appears whole, as a careful program writes it."""
    x, y = examples(60, seed)
    temporary = device.folder / f"{name}.npz"
    np.savez(temporary, x=x, y=y)
    temporary.rename(device.folder / "data" / f"{name}.npz")


def rests(device: Device) -> int:
    """Its rounds once it is at rest."""
    return int(device.wait("a rest", lambda s: s["finished"])["round"])


def all_rest(devices: Sequence[Device]) -> list[int]:
    """Their rounds once all are at rest: while one trains on, it may wake another that rested."""

    def look() -> list[int]:
        found = [device.status() for device in devices]
        return [s["round"] for s in found] if all(s and s["finished"] for s in found) else []

    return list(until("all to rest at once", look))


def test_new_data_end_a_rest_also_if_they_came_while_the_agent_was_off(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 3, "none", stop=Stop(distance=0.5))
    try:
        for device in fleet.devices:
            device.start()
        first = all_rest(fleet.devices)
        fed, other, restarted = fleet.devices
        status = fed.json("status")
        assert status["stopping"]["cause"] in ("distance", "quiet")
        assert 0.0 < status["convergence"]["relative"] <= 0.5
        text = re.sub(r"\s+", " ", fed.cli("status")[1])
        assert re.search(r"finished after \d+ rounds, head \d+: the models are within 0.5", text)
        assert re.search(r"consensus models [\d.]+ apart, [\d.]+% of the way come", text)

        add_examples(fed, "more", seed=11)
        for device, rounds in zip(fleet.devices, first, strict=True):
            device.wait("it to go on", lambda s, rounds=rounds: s["round"] >= rounds + 5)
        assert fed.status()["examples"]["training"] > status["examples"]["training"]
        assert "training goes on: there are new local data" in fed.log.read_text()
        assert "train again" in other.log.read_text()
        second = all_rest(fleet.devices)

        restarted.end(signal.SIGTERM)
        restarted.start()
        assert rests(restarted) == second[2], "a restart alone is nothing new"
        restarted.end(signal.SIGTERM)
        add_examples(restarted, "while-off", seed=12)
        restarted.start()
        restarted.wait("it to go on", lambda s: s["round"] > second[2])
    finally:
        fleet.close()
