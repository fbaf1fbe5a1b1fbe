"""What the agent answers on its local socket. `local_server` guards the door, this is the house."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from device_agent.local_server import Answer, Verb
from device_agent.onlooker import Said
from gossipfl.config import Limits
from gossipfl.errors import UserError
from gossipfl.events import BundleGiven, Event, PolicyReceived, Release, RevocationReceived
from gossipfl.identity import device_name, parse_device_name
from gossipfl.node import Node
from gossipfl.parameters import to_bytes

log = logging.getLogger(__name__)
Fields = Mapping[str, Any]


class House(Protocol):
    """The running agent, as far as its verbs need it."""

    @property
    def node(self) -> Node: ...
    @property
    def device(self) -> bytes: ...
    def status(self) -> dict[str, Any]: ...
    async def hand(self, event: Event) -> Said:
        """Gives the node an event and waits until it is handled: what the node said of it."""
        ...

    async def bundle(self) -> bytes | None:
        """The bundle file of the model that it answers with."""
        ...


def verbs(house: House) -> dict[str, Verb]:
    """Every verb by its name."""

    async def status(_: Fields) -> Answer:
        return Answer(house.status())

    async def peers(_: Fields) -> Answer:
        found = house.status()
        return Answer({key: found[key] for key in ("device", "peers", "revoked", "evidence")})

    async def privacy(_: Fields) -> Answer:
        view = house.node.view()
        # Of many steps it takes a second: not in the loop.
        said = await asyncio.to_thread(house.node.statement)
        facts = {"listen_only": view.listen_only, "releases": view.releases}
        return Answer({**facts, "statement": said.plain() if said is not None else None})

    async def base(_: Fields) -> Answer:
        return _base(house)

    async def bundle(_: Fields) -> Answer:
        data = await house.bundle()
        if data is None:
            raise UserError("GF408", "no bundle is in use yet")
        return Answer({"bytes": len(data)}, data)

    async def policy(fields: Fields) -> Answer:
        return await _handed(house, PolicyReceived(_data(fields)))

    async def spread(fields: Fields) -> Answer:
        try:
            name = bytes.fromhex(str(fields.get("digest", "")))
        except ValueError as error:
            raise UserError("GF312", f"digest is not hex: {error}") from error
        return Answer(asdict(house.node.spread(name)))

    async def revocation(fields: Fields) -> Answer:
        return await _handed(house, RevocationReceived(_data(fields)))

    async def give_bundle(fields: Fields) -> Answer:
        path = Path(str(fields.get("path", "")))
        return await _handed(house, BundleGiven(await asyncio.to_thread(read_bounded, path)))

    async def release(fields: Fields) -> Answer:
        try:
            device = parse_device_name(str(fields.get("device", "")))
        except ValueError as error:
            raise UserError("GF100", str(error)) from error
        answer = await _handed(house, Release(device))
        if not answer.data["said"]:
            raise UserError("GF703", f"{device_name(device)[:9]} is not in quarantine here")
        return answer

    found: dict[str, Callable[[Fields], Awaitable[Answer]]] = {
        "status": status,
        "peers": peers,
        "privacy": privacy,
        "base": base,
        "bundle": bundle,
        "policy": policy,
        "spread": spread,
        "revocation": revocation,
        "give-bundle": give_bundle,
        "release": release,
    }
    return found


def _base(house: House) -> Answer:
    """The current model: float32 bytes, and where it is from."""
    node = house.node
    model = node.serving
    if model is None:
        waiting = node.view().waiting_for
        raise UserError("GF408", f"this device waits for {waiting or 'its first merge'}")
    facts = {
        "device": device_name(house.device),
        "round": model.base_round,
        "bundle": model.lineage.bundle.hex(),
        "run": model.lineage.run,
        "layout": model.lineage.layout.hex(),
    }
    return Answer(facts, to_bytes(model.base))


async def _handed(house: House, event: Event) -> Answer:
    said = await house.hand(event)
    refusals = [text for text, is_refusal in said if is_refusal]
    if refusals:
        raise UserError("GF702", "; ".join(refusals))
    return Answer({"taken": True, "said": [text for text, _ in said]})


def _data(fields: Fields) -> bytes:
    try:
        return base64.b64decode(str(fields.get("data", "")), validate=True)
    except binascii.Error as error:
        raise UserError("GF312", f"data is not base64: {error}") from error


def read_bounded(path: Path, bytes_max: int = Limits().bundle_bytes) -> bytes:
    """The bytes of a file that somebody named. UserError GF403."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise UserError("GF403", f"{path}: {error.strerror or error}") from error
    if len(data) > bytes_max:
        raise UserError("GF403", f"{path} has more than {bytes_max} bytes")
    return data
