"""The local socket: what a person or script gets, and what a rude one cannot do."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from device_agent import local_server
from device_agent.local_api import REQUEST_BYTES_MAX, call
from device_agent.local_server import Answer, LocalServer
from gossipfl.errors import UserError

MODEL = bytes(range(256)) * 4_000


async def echo(request: Mapping[str, Any]) -> Answer:
    return Answer({"got": request["text"]})


async def model(_: Mapping[str, Any]) -> Answer:
    return Answer({"round": 3}, MODEL)


async def refuse(_: Mapping[str, Any]) -> Answer:
    raise UserError("GF405", "row 3 is wrong", "mend it")


async def break_(_: Mapping[str, Any]) -> Answer:
    raise RuntimeError("oops")


VERBS = {"echo": echo, "model": model, "refuse": refuse, "break": break_}


@pytest_asyncio.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    server = LocalServer(tmp_path / "agent.sock", VERBS)
    await server.start()
    yield tmp_path / "agent.sock"
    await server.close()


async def ask(path: Path, verb: str, **fields: Any) -> dict[str, Any]:
    return await asyncio.to_thread(call, path, verb, **fields)


async def test_a_question_and_its_answer(path: Path) -> None:
    assert await ask(path, "echo", text="grüezi\n") == {"got": "grüezi\n"}


async def test_bytes_come_whole(path: Path) -> None:
    assert await ask(path, "model") == {"round": 3, "body": MODEL}


async def test_the_agents_refusal_is_the_callers_error(path: Path) -> None:
    with pytest.raises(UserError, match="row 3 is wrong") as refused:
        await ask(path, "refuse")
    assert (refused.value.code, refused.value.hint) == ("GF405", "mend it")


async def test_an_unknown_verb_and_a_bug_are_told_and_the_server_lives(path: Path) -> None:
    with pytest.raises(UserError, match="does not know 'dance'"):
        await ask(path, "dance")
    with pytest.raises(UserError, match="RuntimeError: oops"):
        await ask(path, "break")
    assert await ask(path, "echo", text="x") == {"got": "x"}


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"{\n", b'"x"\n', b'{"verb": []}\n', b"\xff\n"])
async def test_nonsense_is_answered_with_an_error(path: Path, line: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(line)
    assert "error" in json.loads(await reader.read())
    writer.close()


async def test_an_endless_request_is_dropped(path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"x" * (2 * REQUEST_BYTES_MAX + 1))
    with suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    assert await ask(path, "echo", text="x") == {"got": "x"}


async def test_a_silent_caller_is_dropped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "REQUEST_S", 0.01)
    reader, writer = await asyncio.open_unix_connection(str(path))
    assert await asyncio.wait_for(reader.read(), 30.0) == b""
    writer.close()


async def test_only_the_owner_may_ask(path: Path) -> None:
    found = await asyncio.to_thread(path.stat)
    assert stat.S_IMODE(found.st_mode) == 0o600


async def test_a_dead_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    server = LocalServer(path, VERBS)
    await server.start()
    assert await ask(path, "echo", text="x") == {"got": "x"}
    await server.close()
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(UserError, match="is no socket"):
        await LocalServer(path, VERBS).start()
    assert path.read_text() == "mine"


async def test_a_deep_folder_is_no_problem(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    server = LocalServer(folder / "agent.sock", VERBS)
    await server.start()
    assert await ask(folder / "agent.sock", "echo", text="x") == {"got": "x"}
    await server.close()
    assert list(folder.iterdir()) == []


def test_nobody_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no agent answers at") as refused:
        call(tmp_path / "agent.sock", "status")
    assert refused.value.code == "GF311"


def test_asking_imports_nothing_heavy() -> None:
    code = "import sys, device_agent.local_api; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "aiohttp", "onnxruntime", "asyncio", "ssl", "msgspec", "nacl"}
    assert not heavy & set(done.stdout.split())
