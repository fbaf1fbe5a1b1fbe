"""The device's current model, for those who use it: from the running agent, or from its store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from device_agent.local_api import call
from device_agent.settings import Settings
from device_agent.store import DeviceStore
from gossipfl.bundle.archive import Bundle
from gossipfl.bundle.archive import read as read_bundle
from gossipfl.documents import split_base
from gossipfl.errors import PeerError, StoreError, UserError
from gossipfl.messages import Lineage
from gossipfl.parameters import Vector, from_bytes
from gossipfl.trial import Spare, spare_serves
from gossipfl.wire import decode


@dataclass(frozen=True, slots=True)
class CurrentModel:
    """The base, float32[P], of `round`, with the bundle that it belongs to."""

    device: str
    bundle: Bundle
    lineage: Lineage
    round: int
    parameters: Vector

    def facts(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "name": self.bundle.manifest.name,
            "bundle": self.lineage.bundle.hex(),
            "run": self.lineage.run,
            "layout": self.lineage.layout.hex(),
            "round": self.round,
            "base": hashlib.sha256(self.parameters.astype("<f4").tobytes()).hexdigest(),
            "parameters": len(self.parameters),
        }


def current_model(settings: Settings) -> CurrentModel:
    """Asks the agent; without one reads the store. UserError GF408 if there is no model yet."""
    try:
        given = call(settings.socket, "base")
    except UserError as error:
        if error.code != "GF311":
            raise
        return _from_store(settings)
    bundle = read_bundle(call(settings.socket, "bundle")["body"])
    lineage = Lineage(bytes.fromhex(given["bundle"]), given["run"], bytes.fromhex(given["layout"]))
    return _checked(given["device"], bundle, lineage, given["round"], given["body"])


def _from_store(settings: Settings) -> CurrentModel:
    """As durable. Opening it takes the lock, so no agent can be in the middle of a commit."""
    from gossipfl.fleet.stored import load_identity
    from gossipfl.identity import device_name

    identity = load_identity(settings.device.state)
    store = DeviceStore(settings.device.state)
    try:
        documents = store.load().documents
    except StoreError as error:
        raise UserError("GF504", str(error)) from error
    finally:
        store.close()
    name = device_name(identity.signer.device)
    try:
        if spare_serves(documents):
            return _spare(name, documents["spare"])
    except PeerError as error:
        raise UserError("GF504", f"the stored model: {error}") from error
    if not documents.get("base") or not documents.get("bundle"):
        raise UserError("GF408", f"{settings.device.state} holds no merged model")
    try:
        (header, number, _), raw = split_base(documents["base"])
        lineage = decode(header, Lineage)
    except PeerError as error:
        raise UserError("GF504", f"the stored base: {error}") from error
    return _checked(name, read_bundle(documents["bundle"]), lineage, number, raw)


def _spare(name: str, data: bytes) -> CurrentModel:
    """The model from before, while another one is on trial."""
    model = Spare.load(data).serving
    bundle = read_bundle(model.bundle or b"")
    return CurrentModel(name, bundle, model.lineage, model.base_round, model.base)


def _checked(
    device: str, bundle: Bundle, lineage: Lineage, number: int, raw: bytes
) -> CurrentModel:
    if bundle.id != lineage.bundle or len(raw) != 4 * bundle.layout.count:
        raise UserError("GF408", "the model belongs to another bundle: a new job has just begun")
    return CurrentModel(device, bundle, lineage, number, from_bytes(raw))
