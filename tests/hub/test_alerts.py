"""Alerts from what is found to who gets them: on both stores, and across restarts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from alertkit import NOON, SECRET, Clock, Hook, Receiver, finding, hook, is_signed
from pagekit import facts, near_its_end, story

from gossipfl.hub.alerts import book, conditions
from gossipfl.hub.alerts.alerter import Alerter
from gossipfl.hub.alerts.channels import Channel, Webhook, default_tls
from gossipfl.hub.alerts.messages import Composer
from gossipfl.hub.alerts.settings import KINDS, AlertsSection
from gossipfl.hub.database import Database, DatabaseFull, open_database
from gossipfl.hub.page import compose
from gossipfl.hub.page.facts import LogFacts, Measured
from gossipfl.hub.page.feed import Feed
from gossipfl.hub.page.model import Check, Finding, Kind, Level, Page
from gossipfl.hub.supervisor import Supervisor
from gossipfl.identity import device_name, short_name

COMPOSER = Composer("f1ee7", "hubx-name", "https://hub.example", name_devices=True)


@dataclass
class World:
    """An alerter whose fleet and hub are whatever the test says."""

    database: Database
    receivers: Sequence[Channel]
    settings: AlertsSection = field(default_factory=AlertsSection)
    composer: Composer = COMPOSER
    found: list[Finding] = field(default_factory=list)
    local: list[Finding] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    is_ready: bool = True

    def __post_init__(self) -> None:
        self.alerter = self.restarted()

    def restarted(self) -> Alerter:
        feed = cast(Feed, self)
        self.alerter = Alerter(
            self.database,
            self.settings,
            feed,
            lambda: self.local,
            self.receivers,
            self.composer,
            self.clock,
            look_s=0.01,
        )
        return self.alerter

    def page(self, tariffs: object) -> Page:
        return cast(Page, SimpleNamespace(findings=tuple(self.found)))

    async def at(self, after_s: int) -> None:
        """Evaluate, and send what is due, so many seconds after noon."""
        self.clock.now = NOON + after_s
        await self.alerter.look()
        for channel in self.receivers:
            await self.alerter.deliver(channel)

    async def open(self) -> list[str]:
        async with self.database.transaction(write=False) as tx:
            return [line.title for line in await book.lines(tx)]


@pytest.fixture
async def world(dsn: str) -> AsyncIterator[World]:
    database = await open_database(dsn)
    try:
        yield World(database, [Receiver()])
    finally:
        await database.close()


def receiver(world: World) -> Receiver:
    return cast(Receiver, world.receivers[0])


async def test_it_is_told_when_it_starts_and_when_it_ends(world: World) -> None:
    world.found = [finding(subject="a")]
    for second in (0, 30, 60, 90):
        await world.at(second)
    assert receiver(world).events == [("silence", "firing")]
    assert await world.open() == ["silence of a"]
    world.found = []
    await world.at(100)
    await world.at(220)
    assert receiver(world).events == [("silence", "firing"), ("silence", "resolved")]
    assert await world.open() == []
    first, last = (content for _, content in receiver(world).got)
    assert first["id"] == last["id"]
    assert (first["since"], first["at"], last["at"]) == (NOON, NOON + 60, NOON + 220)


async def test_a_restart_forgets_nothing(world: World) -> None:
    world.found = [finding(subject="a")]
    await world.at(0)
    world.restarted()
    await world.at(60)  # it has held since before
    receiver(world).problem = "it answers 500"
    world.found.append(finding(Kind.LOG, "check", at_once=True))
    await world.at(70)
    world.restarted()
    receiver(world).problem = ""
    await world.at(80)
    assert receiver(world).events == [("silence", "firing"), ("log", "firing")]


async def test_tries_are_further_and_further_apart_and_end(world: World) -> None:
    receiver(world).problem = "it answers 500"
    world.found = [finding(Kind.LOG, "check", at_once=True)]
    tries: list[int] = []
    for second in itertools.chain(range(0, 1_000), range(1_000, 2 * 86_400, 60)):
        before = receiver(world).tries
        await world.at(second) if second % 5 == 0 else None
        tries += [second] * (receiver(world).tries - before)
    assert tries[:7] == [0, 5, 15, 35, 75, 155, 315]
    assert max(b - a for a, b in itertools.pairwise(tries)) <= book.PAUSE_MAX_S + 60
    assert 86_400 <= tries[-1] <= 86_400 + book.PAUSE_MAX_S + 60  # given up after a day
    async with world.database.transaction(write=False) as tx:
        (line,) = await book.lines(tx)
    assert line.problem == "webhook: it answers 500"


async def test_the_end_is_not_told_before_the_beginning(world: World) -> None:
    world.receivers = [Receiver(), Receiver("mail")]
    world.restarted()
    hook_, mail = (cast(Receiver, r) for r in world.receivers)
    hook_.problem = "it answers 500"
    world.found = [finding(Kind.LOG, "check", at_once=True)]
    await world.at(0)
    world.found = []
    await world.at(4)
    await world.at(124)
    assert mail.events == [("log", "firing"), ("log", "resolved")]  # one does not wait for another
    hook_.problem = ""
    await world.at(2_000)
    assert hook_.events == [("log", "firing"), ("log", "resolved")]


async def test_what_was_sent_and_not_written_down_is_sent_again_with_its_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object) -> None:
        raise ConnectionAbortedError("killed")

    world.found = [finding(Kind.LOG, "check", at_once=True)]
    monkeypatch.setattr(book, "delivered", dies)
    with pytest.raises(ConnectionAbortedError):
        await world.at(0)
    monkeypatch.undo()
    world.restarted()
    await world.at(10)
    keys = [key for key, _ in receiver(world).got]
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert receiver(world).got[0] == receiver(world).got[1]


async def test_while_the_log_is_being_read_no_alert_ends(world: World) -> None:
    world.found = [finding(subject="a")]
    await world.at(0)
    await world.at(60)
    world.found, world.is_ready = [], False
    await world.at(100)
    await world.at(1_000)
    assert receiver(world).events == [("silence", "firing")]
    world.local = [finding(Kind.TASK, "page", at_once=True)]  # what this instance knows is told
    await world.at(1_010)
    assert receiver(world).events == [("silence", "firing"), ("task", "firing")]


async def test_kinds_that_are_not_asked_for_are_not_told(world: World) -> None:
    world.settings = replace(world.settings, kinds=("disk",))
    world.restarted()
    world.found = [finding(Kind.LOG, "check", at_once=True)]
    world.local = [finding(Kind.DISK, at_once=True), finding(Kind.TASK, "page", at_once=True)]
    await world.at(0)
    assert receiver(world).events == [("disk", "firing")]


async def test_one_process_evaluates_and_tells_what_the_other_sees(dsn: str) -> None:
    database, other = await open_database(dsn), await open_database(dsn)
    first, second = World(database, [Receiver()]), World(other, [Receiver()])
    first.found = second.found = [finding(Kind.LOG, "check", at_once=True)]
    tasks = [asyncio.create_task(first.alerter.run())]
    try:
        await until(lambda: receiver(first).got)
        second.local = [finding(Kind.TASK, "page", title="page of the second", at_once=True)]
        tasks.append(asyncio.create_task(second.alerter.run()))
        await until(lambda: len(receiver(first).got) == 2)
        assert receiver(first).got[1][1]["title"] == "page of the second"
        # Whoever ends before a message is written down as sent leaves it to be sent once more:
        # test_what_was_sent_and_not_written_down_is_sent_again_with_its_key.
        await nothing_waits(first.database)
        assert receiver(second).got == []
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        second.found = [*second.found, finding(Kind.LOG, "alarms", at_once=True)]
        await until(lambda: receiver(second).got)  # it has taken over
        assert [c["title"] for _, c in receiver(second).got] == ["log of alarms"]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await database.close()
        await other.close()


async def until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def nothing_waits(database: Database) -> None:
    async with asyncio.timeout(20):
        while True:
            async with database.transaction(write=False) as tx:
                if (await book.counts(tx))[1] == 0:
                    return
            await asyncio.sleep(0.01)


async def has_space(database: Database) -> None:
    """What the hub does every two seconds while its disk is full."""
    async with database.transaction() as tx:
        await tx.execute("DELETE FROM hub_space")
    assert not database.is_full


async def test_a_full_disk_is_told_though_nothing_can_be_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise DatabaseFull("the disk is full")

    world.local = [finding(Kind.DISK, level=Level.ALARM, at_once=True)]
    receiver(world).problem = "it answers 500"
    monkeypatch.setattr(book, "write", full)
    await world.at(0)
    receiver(world).problem = ""
    for second in (1, 5, 10, 20):
        await world.at(second)
    assert receiver(world).events == [("disk", "firing")]
    assert await world.open() == []
    monkeypatch.undo()
    await has_space(world.database)
    await world.at(30)
    assert await world.open() == ["disk of "]
    world.local = []
    await world.at(40)
    await world.at(160)
    assert receiver(world).events == [("disk", "firing"), ("disk", "resolved")]
    assert len({content["id"] for _, content in receiver(world).got}) == 1


async def test_little_space_that_becomes_none_is_the_same_alert_grown_worse(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise DatabaseFull("the disk is full")

    world.local = [finding(Kind.DISK, title="nearly", at_once=True)]
    await world.at(0)
    monkeypatch.setattr(book, "write", full)
    world.local = [finding(Kind.DISK, level=Level.ALARM, title="full", at_once=True)]
    await world.at(10)
    await world.at(20)
    monkeypatch.undo()
    await has_space(world.database)
    await world.at(30)
    world.local = []
    await world.at(40)
    await world.at(160)
    events = [event for _, event in receiver(world).events]
    assert events[:2] == ["firing", "escalated"]
    assert events[-1] == "resolved"
    keys = {key for key, _ in receiver(world).got}
    assert len(keys) == 3  # what may be sent twice has the same key


async def test_the_queue_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "WAITING_MAX", 3)
    receiver(world).problem = "it answers 500"
    for number in range(6):
        world.found = [finding(Kind.LOG, f"entry {number}", at_once=True)]
        await world.at(number)
    async with world.database.transaction(write=False) as tx:
        waiting = await book.waiting(tx, "webhook", 10)
        _, count = await book.counts(tx)
    assert count == len(waiting) == 3
    assert '"title": "log of entry 5"' in waiting[-1].body


async def test_each_alert_says_why_it_was_not_sent_however_many_were_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "WAITING_MAX", 1)
    receiver(world).problem = "it answers 500"
    for number in range(4):
        world.found.append(finding(Kind.LOG, f"entry {number}", at_once=True))
        await world.at(number)
    async with world.database.transaction(write=False) as tx:
        problems = {line.title: line.problem for line in await book.lines(tx)}
    old = dict.fromkeys((f"log of entry {n}" for n in range(3)), "webhook: too many messages wait")
    assert problems == {**old, "log of entry 3": "webhook: it answers 500"}


async def test_what_ended_long_ago_is_forgotten(world: World) -> None:
    world.found = [finding(Kind.LOG, "check", at_once=True)]
    await world.at(0)
    world.found = []
    await world.at(4_000)
    await world.at(8_000)
    async with world.database.transaction(write=False) as tx:
        assert len(await book.listed(tx, 10, is_open=False)) == 1
    await world.at(8_000 + book.KEPT_S + 1)
    async with world.database.transaction(write=False) as tx:
        assert await book.listed(tx, 10, is_open=False) == []
        assert await tx.rows("SELECT id FROM alert_messages") == []


async def test_who_is_erased_is_in_no_alert(world: World) -> None:
    gone, other = story().liar, story().honest[0]
    world.found = [
        finding(Kind.QUARANTINE, device_name(gone), at_once=True),
        finding(Kind.LOG, "alarms", title=f"withheld, device {short_name(gone)}", at_once=True),
        finding(Kind.QUARANTINE, device_name(other), at_once=True),
    ]
    await world.at(0)
    async with world.database.transaction() as tx:
        await book.forget(tx, gone)
    assert await world.open() == [f"quarantine of {device_name(other)}"]
    async with world.database.transaction(write=False) as tx:
        rows = await tx.rows("SELECT body FROM alert_messages")
    assert len(rows) == 1
    assert short_name(gone) not in rows[0]["body"]


# --- every kind, from what causes it to the webhook -----------------------------------------------


def budget_page() -> Page:
    made, _ = near_its_end(story())
    return compose.page(made)


def silent_page() -> Page:
    told = story()
    later = told.now + 900
    here = {d: replace(s, seen=later - 4) for d, s in told.sightings.items()}
    here[told.honest[0]] = replace(told.sightings[told.honest[0]], state="away")
    return compose.page(facts(told, sightings=here, now=later))


def worse_page() -> Page:
    told = story()
    measured = tuple(
        Measured(told.now - 9 + i, 0.1, 0.5, 0.9, merged, 0.1)
        for i, merged in enumerate((0.93, 0.94, 0.88))
    )
    return compose.page(facts(told, measured=measured, holdout="digits"))


def stalled_page() -> Page:
    told = story()
    later = told.now + 4_000
    here = {d: replace(s, seen=later - 4) for d, s in told.sightings.items()}
    return compose.page(facts(told, sightings=here, now=later))


def forged_page() -> Page:
    told = story()
    log = LogFacts("log", "00", (), 0, Check(False, told.now, "entry 7 is not what was signed"))
    return compose.page(facts(told, log=log))


def late_page() -> Page:
    told = story()
    log = LogFacts("log", "00", (), 3, None, told.now - 700)
    return compose.page(facts(told, log=log))


def no_policy_page() -> Page:
    made = facts(story())
    made.chronicle.policies.clear()
    return compose.page(made)


def left_out_page() -> Page:
    return compose.page(facts(story()))


def star_page() -> Page:
    return compose.page(facts(story(), star_shut_out={story().honest[1].hex(): "it lies apart"}))


PAGES = {
    "quarantine": (left_out_page, lambda: story().liar, "has no weight in any merge"),
    "quarantine of a star client": (star_page, lambda: story().honest[1], "is shut out"),
    "budget": (budget_page, lambda: story().honest[0], "near the end of its privacy budget"),
    "silence": (silent_page, lambda: story().honest[0], "was not heard of for 10 min or more"),
    "convergence: accuracy": (worse_page, None, "The fleet's model got worse"),
    "convergence: stall": (stalled_page, None, "No device merges"),
    "log: check": (forged_page, None, "The log does not verify"),
    "log: late": (late_page, None, "The log writes no checkpoint"),
    "policy": (no_policy_page, None, "No policy yet"),
}


@asynccontextmanager
async def told_by_webhook(
    folder: Path, page: Page, local: Sequence[Finding] = ()
) -> AsyncIterator[Hook]:
    """What a real webhook gets of a page, over HTTP."""
    database = await open_database(folder / "hub.db")
    async with hook() as listening:
        clock = Clock()
        channel = Webhook(listening.url, SECRET, default_tls(None), clock)
        settings = AlertsSection(kinds=KINDS)
        made = World(database, [channel], settings, clock=clock)
        made.found, made.local = list(page.findings), list(local)
        await made.at(0)
        await made.at(60)
        try:
            yield listening
        finally:
            await database.close()


@pytest.mark.parametrize("case", PAGES)
async def test_an_alert_of_each_kind_reaches_the_webhook(tmp_path: Path, case: str) -> None:
    make, device, words = PAGES[case]
    kind = case.partition(":")[0].partition(" ")[0]
    async with told_by_webhook(tmp_path, make()) as hook_:
        mine = [c for c in hook_.contents if words in c["title"]]
        assert len(mine) == 1, [c["title"] for c in hook_.contents]
        (content,) = mine
        assert (content["kind"], content["event"]) == (kind, "firing")
        name = None if device is None else device_name(device())
        assert content["device"] == name
        assert name is None or short_name(device()) in content["title"]
        assert content["link"].startswith("https://hub.example/")
        for headers, body in hook_.got:
            assert is_signed(headers, body)
            assert not is_signed(headers, body + b" ")
        keys = [headers["Idempotency-Key"] for headers, _ in hook_.got]
        assert len(set(keys)) == len(keys)


async def test_disk_and_tasks_reach_the_webhook(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def work() -> None:
        raise OSError("no route to host")

    told = asyncio.Event()
    parts = Supervisor(lambda name, problem: told.set())
    parts.start("recorder", work)
    await asyncio.wait_for(told.wait(), 10)
    database = cast(Database, SimpleNamespace(is_full=False))
    usage = SimpleNamespace(total=10**10, used=9 * 10**9, free=4 * 10**8)
    monkeypatch.setattr(conditions.shutil, "disk_usage", lambda path: usage)
    low = conditions.of_disk(database, tmp_path, 500)
    assert conditions.of_disk(database, tmp_path, 399) == []
    local = [*low, *conditions.of_tasks(parts.health.values())]
    nothing = cast(Page, SimpleNamespace(findings=()))
    async with told_by_webhook(tmp_path, nothing, local) as hook_:
        assert {(c["kind"], c["title"]) for c in hook_.contents} == {
            ("disk", "The hub's disk is nearly full"),
            ("task", "The hub's task 'recorder' failed"),
        }
        words = next(c["words"] for c in hook_.contents if c["kind"] == "task")
        assert words.startswith("OSError: no route to host. It was restarted.")
    full = conditions.of_disk(cast(Database, SimpleNamespace(is_full=True)), tmp_path, 500)
    assert [(f.title, f.level) for f in full] == [("The hub's disk is full", Level.ALARM)]
    await parts.close()


async def test_messages_that_may_not_name_devices_do_not(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "hub.db")
    quiet = Composer("f1ee7", "hubx", "", name_devices=False)
    world = World(database, [Receiver()], AlertsSection(kinds=KINDS), quiet)
    for make in (left_out_page, budget_page, silent_page, star_page):
        world.found += make().findings
    try:
        await world.at(0)
        await world.at(60)
    finally:
        await database.close()
    text = str(receiver(world).got)
    assert len(receiver(world).got) >= 4
    for device in (*story().honest, story().liar):
        assert short_name(device) not in text
        assert device.hex() not in text
