"""A restart on the same disk: the node knows what it knew, and goes on where it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import Device, Puppet, Table

from gossipfl.errors import Fault, LocalError
from gossipfl.events import (
    Commit,
    FetchFailed,
    FetchHead,
    FetchObject,
    HeadReceived,
    ObjectReceived,
    OwnAddresses,
    RevocationReceived,
    Start,
    StartTraining,
    Stop,
)
from gossipfl.memory import MemoryStore
from gossipfl.messages import Head
from gossipfl.objects import digest
from gossipfl.restorer import RESTORE_SKIP
from gossipfl.wire import decode, open_envelope
from sim.fleet import EPOCH


def fleet(count: int = 3, **policy: Any) -> Table:
    table = Table(n=count, **policy)
    for _ in range(count):
        table.device()
    table.introduce()
    table.employ()
    return table


def served(device: Device) -> Head | None:
    answer = device.serve(FetchHead(0, device.address, None, None, 0.0, 0))
    if not isinstance(answer, HeadReceived) or answer.head is None:
        return None
    return decode(open_envelope(answer.head, "head", 4096).payload, Head)


def named(head: Head) -> list[bytes]:
    rows = [head.policy, head.revocations, head.evidence, head.peers, head.member]
    rows += [head.receipts.digest] if head.receipts else []
    rows += [head.update.digest] if head.update else []
    return [name for name in rows if name is not None]


def full_scene() -> tuple[Table, Device, Puppet, bytes]:
    """A device with a base, a policy, a revoked and a condemned peer, and address records."""
    table = fleet(4)
    me = table.devices[0]
    liar = table.puppet()
    liar.publish()
    table.introduce(liar)
    for device in table.devices:
        table.send(device, OwnAddresses((device.address,)))
    table.until(lambda: all(d.node.base_round >= 2 for d in table.devices), 300.0)
    for word in ("one", "two"):
        liar.current = liar.sign(liar.compose(capability=word))
        table.advance(7.0)
    revoked = table.devices[3]
    table.send(me, RevocationReceived(table.fleet.revoke(revoked.id, "lost")))
    table.until(lambda: me.node.view().evidence, 60.0)
    table.advance(20.0)
    return table, me, liar, revoked.keys.tls_key


@pytest.mark.parametrize("clean", [True, False])
def test_what_a_node_knew_it_knows_after_a_restart(clean: bool) -> None:
    table, me, liar, revoked_tls = full_scene()
    before = me.node.view()
    if clean:
        table.send(me, Stop())
    table.hold = lambda d, e: True  # it has met nobody yet
    table.restart(me)
    view = me.node.view()
    assert view.seq == before.seq
    assert view.policy == before.policy
    assert view.revoked == before.revoked
    assert view.evidence == before.evidence == 1
    assert (view.base_round, view.base) == (before.base_round, before.base)
    assert view.fleet_time >= before.fleet_time - 60
    assert "lost" in (me.node.refused(revoked_tls) or "")
    assert me.node.refused(liar.keys.tls_key) is not None
    assert view.candidates == 2, "addresses of peers, from their records"
    for device in table.devices[1:3]:
        assert me.node.device_of_tls(device.keys.tls_key) == device.id


def test_it_goes_on_with_the_next_number_and_its_base() -> None:
    table = fleet(4)
    me = table.devices[0]
    table.until(lambda: me.node.base_round >= 2, 200.0)
    table.advance(15.0)
    seq, base = me.node.view().seq, me.node.base
    assert base is not None
    trained = len(me.sent(StartTraining))
    last = me.store.load().head
    assert last is not None
    table.restart(me)
    table.introduce()
    table.until(lambda: me.node.view().seq > seq, 30.0)
    heads = [e.batch.head for e in me.sent(Commit) if e.batch.seq == seq + 1]
    assert len(heads) == 1
    assert heads[0] is not None
    follower = decode(open_envelope(heads[0], "head", 4096).payload, Head)
    assert follower.prev == digest(last)
    table.until(lambda: len(me.sent(StartTraining)) > trained, 60.0)
    assert np.array_equal(me.sent(StartTraining)[trained].base, base)
    others = table.devices[1:]
    table.until(lambda: all((p := d.peer(me)) and p.seq > seq for d in others), 60.0)
    for device in others:
        view = device.peer(me)
        assert view is not None
        assert (view.state, view.faults) == ("live", {})


def test_a_restart_without_peers_loses_none_of_the_addresses() -> None:
    """No mDNS, no static peers: address records from before bring it back into the fleet."""
    table, me, _, _ = full_scene()
    table.restart(me)
    table.until(lambda: me.node.view().waiting_for == "", 60.0)


def test_everything_that_the_served_head_names_is_served() -> None:
    """Also when it was alone for a while, and saved, before it met anybody."""
    table, me, _, _ = full_scene()
    for pause in (0.0, 60.0):
        table.restart(me)
        table.advance(pause)
        table.introduce()
        table.until(lambda: served(me) is not None, 60.0)
        for _ in range(20):
            table.advance(1.0)
            head = served(me)
            assert head is not None
            for name in named(head):
                answer = me.serve(FetchObject(0, me.address, name, 1 << 20))
                assert isinstance(answer, ObjectReceived), name
                assert digest(answer.data) == name


def test_ten_restarts_in_a_row_change_nothing() -> None:
    table, me, _, _ = full_scene()
    before = me.node.view()
    table.hold = lambda d, e: d is me
    for _ in range(10):
        table.restart(me)
        table.advance(15.0)
    view = me.node.view()
    assert (view.seq, view.base, view.revoked) == (before.seq, before.base, before.revoked)
    assert len(me.store._objects) < 200


def test_the_whole_fleet_restarts_at_once() -> None:
    """A power cut: everybody asks everybody, and training goes on from where it was."""
    table = fleet(3)
    table.until(lambda: all(d.node.base_round >= 3 for d in table.devices), 300.0)
    table.advance(11.0)
    before = [d.node.view() for d in table.devices]
    for device in table.devices:
        table.restart(device)
    table.introduce()
    rounds = [v.base_round for v in before]
    table.until(
        lambda: all(d.node.base_round >= r + 2 for d, r in zip(table.devices, rounds, strict=True)),
        400.0,
    )
    for device, view in zip(table.devices, before, strict=True):
        assert device.node.view().seq > view.seq
        for other in table.devices:
            assert device.faults(other) == {}
            known = device.peer(other)
            assert known is None or known.state == "live"


def test_another_devices_disk_is_refused() -> None:
    """A copied state folder with another key: never signed on."""
    table = fleet(2)
    table.until(lambda: all(d.node.view().seq >= 2 for d in table.devices), 60.0)
    one, two = table.devices
    node = table._node(two.keys, 1)
    with pytest.raises(LocalError, match="another key"):
        node.handle(Start(one.store.load(), table.wall), 0.0)


def test_a_base_of_another_run_is_not_taken_up() -> None:
    table = fleet(2)
    me = table.devices[0]
    table.until(lambda: me.node.base_round >= 2, 200.0)
    table.advance(15.0)
    table.send(me, Stop())
    store = me.store
    table.policy = table.fleet.policy(
        table.job, n=2, rule="mean", version=2, run=1, prev=digest(table.policy)
    )
    table.restart(me, store)
    table.employ(me)
    assert me.node.lineage == table.job.lineage(1)
    assert me.node.base is None


def test_a_start_with_a_wall_clock_in_1970_keeps_fleet_time() -> None:
    table, me, _, _ = full_scene()
    before = me.node.view().fleet_time
    table.send(me, Stop())
    table.wall_offset = -table.wall
    table.restart(me)
    assert me.node.view().fleet_time >= before - 30
    table.introduce()
    table.advance(30.0)
    assert me.node.view().waiting_for == ""
    for device in table.devices[1:3]:
        assert me.faults(device) == {}


def test_peers_keep_what_a_restarted_device_needs() -> None:
    """Source of the truth after a restore: the newest head of each member, over restarts too."""
    table = fleet(3)
    me, x, y = table.devices
    table.until(lambda: all(d.node.base_round >= 1 for d in table.devices), 200.0)
    table.advance(15.0)
    seq = me.node.view().seq
    me.down = True
    for device in (x, y):
        table.restart(device)
    for device in (x, y):
        answer = device.serve(FetchHead(0, device.address, me.id, None, 0.0, 0))
        assert isinstance(answer, HeadReceived)
        assert answer.head is not None
        assert decode(open_envelope(answer.head, "head", 4096).payload, Head).seq == seq


def test_a_restart_with_nothing_to_say_serves_the_head_of_before() -> None:
    """No policy, no update, no lists: the numbers stay, and so does the answer to "who are you"."""
    table = Table(n=3)
    devices = [table.device() for _ in range(3)]
    table.introduce()
    table.advance(20.0)
    me = devices[0]
    before = me.store.load().head
    assert before is not None
    table.restart(me)
    assert served(me) is None, "an old disk may hold an old head"
    table.introduce()
    table.advance(60.0)
    shown = me.node.shelf.head(None)
    assert shown is not None
    assert shown.envelope == before
    assert me.node.view().seq == 1


def test_a_member_object_that_was_renewed_twice_leaves_the_store() -> None:
    table = Table(n=2)
    me, peer = table.device(), table.puppet()
    table.employ()
    peer.publish()
    table.introduce()
    names = [digest(peer.keys.member)]
    for n in range(1, 4):
        data = table.fleet.renew(peer.keys, not_before=EPOCH + n)
        names.append(peer.hold(data))
        peer.publish(member=names[-1])
        table.until(lambda: me.store.get(names[-1]) is not None, 60.0)
    table.until(lambda: me.store.get(names[0]) is None, 60.0)
    assert me.store.get(names[-2]) is not None, "heads from before the renewal name it"


# --- keys without a store ------------------------------------------------------------------------


def wiped(n: int) -> tuple[Table, Device, list[Puppet]]:
    """A device of n that has published, and starts again with nothing but its keys."""
    table = Table(n=n)
    me = table.device()
    others = [table.puppet() for _ in range(n - 1)]
    table.employ()
    table.introduce(others[0])
    table.until(lambda: me.node.view().seq >= 1, 200.0)
    table.first_start = False
    table.restart(me, MemoryStore())
    me.effects.clear()
    me.notices.clear()
    table.employ()
    return table, me, others


def signed(device: Device) -> list[int]:
    return [c.batch.seq for c in device.sent(Commit) if c.batch.seq is not None]


def test_a_wiped_device_publishes_nothing_before_a_majority_has_answered() -> None:
    """The first three that it finds never met it; they say "nothing of yours", truthfully."""
    table, me, others = wiped(9)
    table.introduce(*others[1:4])
    table.advance(600.0)
    assert signed(me) == []
    assert "3 of 5 peers" in me.node.view().waiting_for
    warned = [n.text for n in me.notices if "first-start" in n.text]
    assert len(warned) == 1
    assert "--replace" in warned[0]
    table.introduce(*others[4:6])
    table.until(lambda: me.node.view().seq >= 1, 60.0)


def test_a_wiped_device_goes_on_far_above_the_head_that_somebody_holds() -> None:
    table, me, others = wiped(9)
    holder = others[0]
    held = holder.fleet, me.keys  # it kept what it was shown before
    old = Puppet(held[0], held[1], me.address)
    holder.heads[me.id] = old.publish()
    table.introduce(*others[1:4])
    table.advance(60.0)
    assert signed(me) == []
    table.introduce(holder)
    table.until(lambda: me.node.view().seq > RESTORE_SKIP, 60.0)
    assert min(number for number in signed(me) if number != 1) > RESTORE_SKIP


def test_keys_that_have_signed_nothing_yet_need_no_majority() -> None:
    table, me, others = wiped(9)
    table.first_start = True  # a person said so, or the file of `join` is still there
    table.restart(me, MemoryStore())
    table.employ()
    table.introduce(*others[1:4])
    table.until(lambda: me.node.view().seq >= 1, 120.0)


def test_a_wiped_device_asks_all_who_are_there_not_just_a_majority() -> None:
    """The one that knows may be the last; one that never answers does not hold it up."""
    table, me, others = wiped(9)
    holder, silent = others[0], others[1]
    holder.heads[me.id] = Puppet(holder.fleet, me.keys, me.address).publish()
    table.hold = lambda device, effect: (
        isinstance(effect, FetchHead)
        and effect.device == me.id
        and effect.address == silent.address
    )
    for other in (*others[1:], holder):
        table.introduce(other)
    stalled = me.open
    table.until(lambda: stalled, 60.0)
    table.send(me, FetchFailed(next(iter(stalled)), Fault.STALLED, "no answer"))
    table.until(lambda: me.node.view().seq > RESTORE_SKIP, 120.0)


def test_a_copy_of_the_disk_a_second_old_signs_no_number_again() -> None:
    """The three that answer first saw none of what was signed in that second; the fourth did."""
    table = Table(n=6)
    me = table.device()
    others = [table.puppet() for _ in range(5)]
    for other in others:
        other.publish()
    table.employ()
    table.introduce(*others)
    table.until(lambda: me.node.view().seq >= 2, 200.0)
    copy, old, seq = me.store.copy(), me.node.shelf.head(None), me.node.view().seq
    assert old is not None
    for other in others:
        other.heads[me.id] = old.envelope
    table.until(lambda: me.node.view().seq > seq, 60.0)
    newest = me.node.view().seq
    me.effects.clear()
    table.restart(me, copy)
    table.employ()
    table.introduce(*others[:3])
    table.until(lambda: signed(me), 60.0)
    assert min(signed(me)) > newest


def test_two_that_stall_in_turns_do_not_keep_a_restarted_device_from_publishing() -> None:
    """One of them always had a request open, so that never all who were asked had answered."""
    table = Table(n=7)
    me = table.device()
    others = [table.puppet() for _ in range(6)]
    for other in others:
        other.publish()
    table.employ()
    table.introduce(*others)
    table.until(lambda: me.node.view().seq >= 1, 200.0)
    stallers = {other.address for other in others[:2]}
    table.hold = lambda device, effect: (
        isinstance(effect, FetchHead) and effect.device == me.id and effect.address in stallers
    )
    before = me.node.view().seq
    table.restart(me)
    table.employ()
    table.introduce(*others)
    for _ in range(40):
        table.advance(4.0)
        if len(me.open) > 1:  # the one that was asked first; the other is still open
            table.send(me, FetchFailed(min(me.open), Fault.STALLED, "no answer"))
    assert me.node.view().seq > before
