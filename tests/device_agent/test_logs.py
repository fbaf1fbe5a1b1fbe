"""What is written where: terminal, journal, JSON; and that repetition does not fill a disk."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterator

import pytest

from device_agent import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    root.handlers, root.level = before
    for name in logs.ROOT_NAMES:
        logging.getLogger(name).setLevel(logging.NOTSET)


log = logging.getLogger("device_agent.test")


def written(form: str, level: str = "info") -> io.StringIO:
    out = io.StringIO()
    logs.set_up(level, form, out)
    return out


def test_people_get_time_and_words() -> None:
    out = written("human")
    log.info("round %d", 3)
    log.warning("slow")
    assert re.fullmatch(r"\d\d:\d\d:\d\d round 3\n\d\d:\d\d:\d\d warning: slow\n", out.getvalue())


def test_journald_gets_levels_on_every_line() -> None:
    out = written("journald", "debug")
    log.debug("d")
    log.info("i")
    log.warning("w")
    try:
        int("x")
    except ValueError:
        log.exception("e")
    lines = out.getvalue().splitlines()
    assert lines[:4] == ["<7>d", "<6>i", "<4>w", "<3>e"]
    assert all(line.startswith("<3>") for line in lines[4:])
    assert lines[-1].startswith("<3>ValueError")


def test_json_lines() -> None:
    out = written("json")
    log.error("bad %s", "thing")
    entry = json.loads(out.getvalue())
    assert (entry["level"], entry["message"]) == ("error", "bad thing")


def test_auto_asks_where_stderr_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    found = os.fstat(writing)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    with os.fdopen(writing, "w") as stream:
        logs.set_up("info", "auto", stream)
        log.info("to the journal")
    assert os.read(reading, 100) == b"<6>to the journal\n"
    os.close(reading)


def test_levels_of_libraries_do_not_follow_ours() -> None:
    out = written("human", "debug")
    logging.getLogger("aiohttp").info("noise")
    log.debug("ours")
    assert "noise" not in out.getvalue()
    assert "ours" in out.getvalue()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_repeated_lines_are_folded_and_counted() -> None:
    out, clock = io.StringIO(), Clock()
    handler = logs.FoldingHandler(out, logging.Formatter("%(message)s"), clock)
    record = logging.makeLogRecord({"msg": "cannot reach peer", "levelno": logging.INFO})
    for _ in range(1_000):
        handler.emit(record)
    assert out.getvalue().splitlines() == ["cannot reach peer"]
    handler.emit(logging.makeLogRecord({"msg": "other"}))
    assert out.getvalue().splitlines()[1:] == ["cannot reach peer (and 999 more times)", "other"]


def test_a_lasting_repetition_is_shown_once_a_minute() -> None:
    out, clock = io.StringIO(), Clock()
    handler = logs.FoldingHandler(out, logging.Formatter("%(message)s"), clock)
    for second in range(0, 180, 2):
        clock.now = float(second)
        handler.emit(logging.makeLogRecord({"msg": "again"}))
    handler.flush()
    shown = out.getvalue().splitlines()
    assert shown == [line for _ in range(3) for line in ("again", "again (and 29 more times)")]
