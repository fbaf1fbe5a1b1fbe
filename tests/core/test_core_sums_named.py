"""What members of a group name: who answers for it, and how much of it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from gossipfl.errors import Fault
from gossipfl.events import FetchHead, FetchObject
from gossipfl.groups.messages import Message, Signed, SumVector
from gossipfl.objects import digest
from gossipfl.sums.exchange import ASKED_MAX
from tests.core.harness import Answer, Device, Fetch, absent
from tests.core.sumkit import Summing, objects, says

pytest.importorskip("Crypto")


class Lying(Summing):
    """A window is trained in. `liar` is not the proposer of its group; `honest` are the others of
    it. It serves nothing of what is in `withheld`."""

    def __init__(self, windows: int = 1) -> None:
        """Of the `windows`-th window."""
        super().__init__()
        first = self.devices[0]
        self.until(lambda: len(self.trained[first.id]) >= windows, 4 * self.window_s)
        proposer = self.proposer(first)
        self.liar = next(d for d in self.group_of(first) if d is not proposer)
        self.honest = [d for d in self.group_of(first) if d is not self.liar]
        self.withheld: set[bytes] = set()
        self.tamper = self._withhold

    def _withhold(self, device: Device, effect: Fetch, answer: Answer) -> Answer:
        asked = isinstance(effect, FetchObject) and effect.digest in self.withheld
        return absent(effect) if asked and effect.address == self.liar.address else answer

    def names(self, *names: bytes) -> None:
        """The liar's next head says that these are its objects of the attempt."""
        core = self.liar.node._core
        core.sums.turns._objects = list(names)
        core.publisher.want_head(now=True)

    def asked(self, names: Iterable[bytes], device: Device, of: Device) -> list[bytes]:
        """What of these `device` asked another for."""
        wanted = set(names)
        return [
            effect.digest
            for effect in device.sent(FetchObject)
            if effect.address == of.address and effect.digest in wanted
        ]

    def charged(self) -> dict[str, int]:
        """Faults that members of the group hold against each other, the liar's left out."""
        found: dict[str, int] = {}
        for device in self.honest:
            for other in self.honest:
                found |= device.faults(other)
        return found


@pytest.mark.parametrize("what", ["a policy", "a member", "a bundle", "an earlier attempt's keys"])
def test_who_serves_what_a_liars_head_names_is_not_charged_for_it(what: str) -> None:
    """The liar serves it to nobody, so the others are asked for it, and have it."""
    table = Lying(windows=2)
    data = {
        "a policy": table.policy,
        "a member": table.liar.keys.member,
        "a bundle": table.job.data + bytes(8_192),
        "an earlier attempt's keys": next(d for d in objects(table.liar) if b"sum-keys" in d[:12]),
    }[what]
    name = digest(data)
    for device in table.honest:
        device.node.shelf.pin(name, data)
    table.withheld.add(name)
    says(table.liar, lambda signed: [])
    turns = table.liar.node._core.sums.turns
    table.until(lambda: turns._attempt is not None, table.window_s)
    table.names(name)
    table.merged(2, who=table.honest)
    pairs = [(d, other) for d in table.honest for other in table.honest if d is not other]
    assert any(table.asked([name], device, other) for device, other in pairs)
    assert table.charged() == {}
    if what != "a bundle":  # what is too big may be made up by who serves it: nobody is charged
        assert any(device.faults(table.liar) for device in table.honest)


def test_a_vector_of_a_wrong_length_is_who_named_its_fault_and_not_who_served_its() -> None:
    table = Lying()
    data = b"short"
    table.withheld.add(digest(data))
    for device in table.honest:
        device.node.shelf.pin(digest(data), data)

    def short(signed: Signed) -> Iterable[Message]:
        if isinstance(signed.message, SumVector):
            yield msgspec.structs.replace(signed.message, vector=digest(data))
        else:
            yield signed.message

    says(table.liar, short)
    table.merged(1, who=table.honest)
    assert table.charged() == {}
    for device in table.honest:
        assert device.faults(table.liar) == {Fault.WRONG_LENGTH.value: 1}
        assert table.summed(device) == 1


def test_who_names_without_end_takes_nobody_elses_room() -> None:
    """Its heads name 300 objects that nobody has, before the others' first answers are here."""
    table = Lying()
    table.hold = lambda device, effect: (
        isinstance(effect, FetchHead)
        and device in table.honest
        and any(effect.address == other.address for other in table.honest)
    )
    table.until(lambda: table.honest[0].node._core.sums.turns._attempt is not None, 99.0)
    invented = [digest(b"invented %d" % number) for number in range(300)]
    for at in range(0, 300, 6):
        table.names(*invented[at : at + 6])
        table.advance(0.02)
    table.hold = lambda device, effect: False
    for device in table.honest:
        for effect in device.open.values():
            table._answer(device, effect)
        device.open.clear()
    table.merged(1, who=table.honest)
    for device in table.honest:
        assert table.summed(device) == 1, table.now
        for other in table.honest:
            assert len(table.asked(invented, device, other)) <= 4 * ASKED_MAX


def test_what_only_one_member_got_is_fetched_from_it() -> None:
    """A liar serves its vector and what it signed to the proposer alone."""
    table = Lying()
    proposer = table.proposer(table.liar)
    others = [d for d in table.honest if d is not proposer]
    table.tamper = lambda device, effect, answer: (
        absent(effect)
        if device in others
        and isinstance(effect, FetchObject)
        and effect.address == table.liar.address
        else answer
    )
    table.merged(1, who=table.honest)
    turns = table.liar.node._core.sums.turns
    assert turns.sums == 1
    for device in others:
        assert table.summed(device) == 1
        sets = [d for d in objects(device) if b"sum-set" in d[:12]]
        assert len(sets) == 1
