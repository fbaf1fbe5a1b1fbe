"""A device as the witness of a hub's log: what follows is cosigned, and two histories are proof."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.audit.entries import EntryKind
from gossipfl.audit.forks import prove_fork
from gossipfl.audit.linked import LogInconsistent, linked_numbers, open_linked, pack_linked
from gossipfl.audit.memory import MemoryLog, digest_of
from gossipfl.audit.notes import log_key
from gossipfl.audit.refused import AuditRefused
from gossipfl.identity import Signer
from gossipfl.witness import Finding, Verdict, Witness

HUB = Signer(b"h" * 32)
KEY = log_key(HUB.key_id)


def history(checkpoints: int, forked_at: int | None = None, branch: bytes = b"") -> MemoryLog:
    """A log of so many checkpoints, three entries each; from `forked_at` on it is another one."""
    salts = iter(range(10**6))
    log = MemoryLog(HUB, lambda: next(salts).to_bytes(32, "big"))
    for number in range(1, checkpoints + 1):
        other = branch if forked_at is not None and number >= forked_at else b""
        for place in range(3):
            log.append(EntryKind.LOGIN, number, bytes(16), b"%d %d " % (number, place) + other)
        log.publish(number)
    return log


class Server:
    """Objects by digest, from any number of histories."""

    def __init__(self, *logs: MemoryLog) -> None:
        self.objects = {
            digest_of(log.linked(n)): log.linked(n)
            for log in logs
            for n in range(1, len(log.checkpoints) + 1)
        }
        self.asked = 0

    def show(self, witness: Witness, data: bytes) -> Finding:
        """Hand over an object, and all that is asked for after it."""
        finding = witness.receive(data)
        while finding.verdict is Verdict.FETCH:
            assert finding.object is not None
            self.asked += 1
            finding = witness.receive(self.objects[finding.object])
        return finding


def test_checkpoints_are_linked_to_the_one_before_and_far_back() -> None:
    assert linked_numbers(1) == []
    assert linked_numbers(2) == [1]
    assert linked_numbers(12) == [11, 8]
    assert linked_numbers(13) == [12]


def test_every_new_checkpoint_follows_and_costs_no_walk() -> None:
    log, witness = history(40), Witness(KEY)
    server = Server(log)
    for number in range(1, 41):
        assert server.show(witness, log.linked(number)).verdict is Verdict.FOLLOWS
        assert server.show(witness, log.linked(number)).verdict is Verdict.KNOWN
    assert server.asked == 0
    assert witness.newest is not None
    assert witness.newest.checkpoint.number == 40


def test_who_was_away_for_long_walks_back_in_few_steps() -> None:
    log = history(700)
    for held in (1, 255, 256, 511, 698):
        witness, server = Witness(KEY), Server(log)
        server.show(witness, log.linked(held))
        assert server.show(witness, log.linked(700)).verdict is Verdict.FOLLOWS
        assert server.asked <= 50, held


def test_an_older_one_that_others_were_shown_agrees() -> None:
    log = history(60)
    witness, server = Witness(KEY), Server(log)
    server.show(witness, log.linked(20))
    server.show(witness, log.linked(60))
    for number in (20, 33, 48, 59, 7):
        assert server.show(witness, log.linked(number)).verdict in (Verdict.AGREES, Verdict.KNOWN)
    assert witness.newest is not None
    assert witness.newest.checkpoint.number == 60


@given(st.integers(2, 40), st.integers(0, 40), st.integers(0, 40), st.randoms())
def test_any_two_devices_that_were_shown_two_histories_find_out(
    forked_at: int, mine: int, theirs: int, entropy: random.Random
) -> None:
    """One device follows one branch, another the other; each then sees what the other names."""
    honest, forked = HONEST, fork_at(forked_at)
    first, second = max(forked_at, mine), max(forked_at, theirs)
    witness, server = Witness(KEY), Server(honest, forked)
    for number in sorted(entropy.sample(range(1, first + 1), entropy.randint(0, first))):
        server.show(witness, honest.linked(number))
    server.show(witness, honest.linked(first))
    finding = server.show(witness, forked.linked(second))
    assert finding.verdict is Verdict.FORK
    assert finding.notes is not None
    prove_fork(*finding.notes, KEY)
    assert witness.newest is not None
    assert witness.newest.checkpoint.number == first  # the other branch is not followed


HONEST = history(40)
_forks: dict[int, MemoryLog] = {}


def fork_at(number: int) -> MemoryLog:
    if number not in _forks:
        _forks[number] = history(40, number, b"another history")
    return _forks[number]


@given(st.integers(1, 40), st.lists(st.integers(1, 40), max_size=30))
def test_an_honest_log_is_never_accused(first: int, numbers: list[int]) -> None:
    witness, server = Witness(KEY), Server(HONEST)
    for number in [first, *numbers]:
        finding = server.show(witness, HONEST.linked(number))
        assert finding.verdict in (Verdict.KNOWN, Verdict.FOLLOWS, Verdict.AGREES)


def test_a_log_whose_proofs_do_not_hold_accuses_itself() -> None:
    """The hub rewrites entry 0 and links the new tree to the old checkpoints all the same."""
    honest, rewritten = history(5), history(5, 1, b"rewritten")
    last, older = rewritten.checkpoints[-1], honest.checkpoints[-2]
    from dataclasses import replace

    from gossipfl.audit.checkpoints import sign_checkpoint
    from gossipfl.audit.linked import Link

    note = sign_checkpoint(replace(last, previous=older.digest), HUB).encode()
    link = open_linked(rewritten.linked(5), KEY).links[0]
    data = pack_linked(note, [Link(older.text(), digest_of(honest.linked(4)), link.proof)])
    witness = Witness(KEY)
    Server(honest).show(witness, honest.linked(4))
    with pytest.raises(LogInconsistent):
        witness.receive(data)
    assert witness.newest is not None
    assert witness.newest.checkpoint.number == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"\x00",
        lambda data: b"",
        lambda data: data.replace(b"number 12", b"number 13"),
        lambda data: bytes(20_000),
    ],
)
def test_what_is_no_checkpoint_object_is_refused(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(AuditRefused):
        Witness(KEY).receive(change(HONEST.linked(12)))


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_of_an_object_is_never_followed(place: int, change: int) -> None:
    data = bytearray(HONEST.linked(12))
    data[place % len(data)] ^= change
    witness = Witness(KEY)
    Server(HONEST).show(witness, HONEST.linked(11))
    try:
        finding = witness.receive(bytes(data))
    except AuditRefused:
        return
    # Only the name of an object farther down can change unseen: it leads nowhere.
    assert finding.verdict is Verdict.FOLLOWS
    assert open_linked(bytes(data), KEY).note == open_linked(HONEST.linked(12), KEY).note


def test_a_link_that_leads_elsewhere_than_it_says_is_refused() -> None:
    forked = fork_at(3)
    real = open_linked(HONEST.linked(40), KEY)
    from dataclasses import replace

    links = [replace(link, object=digest_of(forked.linked(38))) for link in real.links]
    witness = Witness(KEY)
    witness.receive(HONEST.linked(5))
    finding = witness.receive(pack_linked(real.note, links))
    assert finding.verdict is Verdict.FETCH
    with pytest.raises(AuditRefused, match="another checkpoint"):
        witness.receive(forked.linked(38))


def test_a_witness_remembers_over_a_restart() -> None:
    witness = Witness(KEY)
    for number in range(1, 21):
        witness.receive(HONEST.linked(number))
    again = Witness(KEY)
    again.load(witness.dump())
    assert again.newest == witness.newest
    finding = Server(fork_at(20)).show(again, fork_at(20).linked(20))
    assert finding.verdict is Verdict.FORK
    with pytest.raises(AuditRefused):
        Witness(log_key(Signer(b"x" * 32).key_id)).load(witness.dump())


def test_what_only_a_peer_names_is_compared_and_never_followed() -> None:
    """Its links bear no signature: a peer could have written others."""
    witness, server = Witness(KEY), Server(HONEST, fork_at(7))
    assert witness.receive(HONEST.linked(5), adopt=False).verdict is Verdict.KNOWN
    assert witness.newest is None
    server.show(witness, HONEST.linked(5))
    assert witness.receive(HONEST.linked(6), adopt=False).verdict is Verdict.AGREES
    assert witness.newest is not None
    assert witness.newest.checkpoint.number == 5
    assert server.show(witness, HONEST.linked(6)).verdict is Verdict.FOLLOWS
    server.show(witness, HONEST.linked(7))
    finding = witness.receive(fork_at(7).linked(7), adopt=False)
    assert finding.verdict is Verdict.FORK
