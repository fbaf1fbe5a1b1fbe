"""What the local socket's verbs answer, beside what they hand to the node."""

from __future__ import annotations

from typing import Any, cast

import pytest

from device_agent.verbs import House, verbs
from gossipfl.errors import UserError
from gossipfl.events import Event, Release
from gossipfl.identity import device_name

PEER = b"p" * 16


class Said:
    """A house whose node says `lines` to whatever it is given."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        self.handed: list[Event] = []

    async def hand(self, event: Event) -> list[tuple[str, bool]]:
        self.handed.append(event)
        return [(line, False) for line in self.lines]


async def release(house: Said, device: str) -> Any:
    return await verbs(cast(House, house))["release"]({"device": device})


async def test_a_release_tells_what_the_node_said() -> None:
    house = Said("pppp is released")
    answer = await release(house, device_name(PEER))
    assert answer.data["said"] == ["pppp is released"]
    assert house.handed == [Release(PEER)]


async def test_who_is_not_in_quarantine_cannot_be_released() -> None:
    with pytest.raises(UserError, match="is not in quarantine here") as caught:
        await release(Said(), device_name(PEER))
    assert caught.value.code == "GF703"


async def test_a_typo_in_an_id_is_told() -> None:
    house = Said()
    with pytest.raises(UserError, match="not a device id"):
        await release(house, "abcd")
    assert house.handed == []
