"""A client of a hub's star mode in plain Python: urllib, numpy, PyNaCl and msgpack; no gossipfl.

It registers its own key, fetches configuration and model, trains softmax regression on its share
of scikit-learn's digits, and sends signed updates until the hub says that training has finished.

    python examples/star_client.py --hub https://HOST:PORT --ca hub.pem --code CODE

`CODE` is of an invitation (POST /api/v1/clients/invitations). The job is the bundle
`digits-logistic`. With --epsilon-z Z each update is clipped and gets Gaussian noise, as a policy
with privacy asks; a hub refuses what no longer fits the budget.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt
from nacl.signing import SigningKey

PIXELS, CLASSES = 64, 10
Array = npt.NDArray[Any]


class Refused(Exception):
    """The hub said no: `status`, and the problem (RFC 9457) with `code`, `detail` and `hint`."""

    def __init__(self, status: int, problem: dict[str, Any], retry_after_s: float) -> None:
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail')}")
        self.status = status
        self.code = str(problem.get("code"))
        self.retry_after_s = retry_after_s


class Hub:
    """HTTP to one hub. `token`: what is sent as Bearer token, if there is one."""

    def __init__(self, url: str, ca: str | None = None, token: str = "") -> None:
        self.url = url.rstrip("/")
        self.token = token
        self._context = ssl.create_default_context(cafile=ca) if url.startswith("https") else None

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> bytes:
        """One request, tried again as often as the hub says that it is busy. Raises Refused."""
        sent = {"Content-Type": kind, **(headers or {})} if body is not None else headers or {}
        if self.token:
            sent = {**sent, "Authorization": f"Bearer {self.token}"}
        while True:
            request = urllib.request.Request(self.url + path, body, sent, method=method)
            try:
                with urllib.request.urlopen(request, timeout=60, context=self._context) as answer:
                    data: bytes = answer.read()
                    return data
            except urllib.error.HTTPError as error:
                refused = _refused(error)
            if refused.status not in (429, 503):
                raise refused
            time.sleep(refused.retry_after_s)

    def json(self, method: str, path: str, body: Any = None) -> Any:
        data = self.call(method, path, None if body is None else json.dumps(body).encode())
        return json.loads(data) if data else None


def _refused(error: urllib.error.HTTPError) -> Refused:
    data = error.read()
    try:
        problem = json.loads(data)
    except ValueError:
        problem = {"code": "", "detail": data[:200].decode(errors="replace")}
    return Refused(error.code, problem, float(error.headers.get("Retry-After", "1")))


def envelope(kind: str, payload: dict[str, Any], key: SigningKey) -> bytes:
    """[type, payload, key, signature]: a DSSE signature over type and payload."""
    data = msgpack.packb(payload, use_bin_type=True)
    content = f"application/vnd.gossipfl.v1.{kind}".encode()
    message = b"DSSEv1 %d %b %d %b" % (len(content), content, len(data), data)
    signature = key.sign(message).signature
    return bytes(msgpack.packb([kind, data, bytes(key.verify_key), signature], use_bin_type=True))


class Client:
    """One client with its own key and examples. A liar sends the opposite of what it learnt."""

    def __init__(
        self,
        hub: Hub,
        name: str,
        train: tuple[Array, Array],
        test: tuple[Array, Array],
        *,
        lies: bool = False,
        z: float = 0.0,
        key: SigningKey | None = None,
    ) -> None:
        self.hub, self.name, self.lies, self.z = hub, name, lies, z
        self.key = key or SigningKey.generate()
        self.id = hashlib.sha256(bytes(self.key.verify_key)).digest()[:16]
        self.seq = 0
        self.accuracy = 0.0
        self.sent = 0
        self._train, self._test = train, test
        self._rng = np.random.default_rng(int.from_bytes(self.id[:4], "little"))
        self._fleet = b""

    def register(self, code: str) -> None:
        """Show the key, and get a token. A known key needs no code."""
        info = self.hub.json("GET", "/api/v1/clients/register")
        self._fleet = bytes.fromhex(info["fleet"])
        join = {"fleet": self._fleet, "at": info["now"], "name": self.name}
        signed = base64.b64encode(envelope("star-join", join, self.key)).decode()
        found = self.hub.json(
            "POST", "/api/v1/clients/register", {"envelope": signed, "code": code}
        )
        self.hub.token, self.seq = found["access_token"], found["seq"]

    def config(self) -> dict[str, Any]:
        """What to do now."""
        found: dict[str, Any] = self.hub.json("GET", "/api/v1/training/config")
        return found

    def model(self, version: int) -> Array:
        """float32[P], as the hub holds it."""
        data = self.hub.call("GET", f"/api/v1/models/global?version={version}")
        return np.frombuffer(data, "<f4")

    def step(self, config: dict[str, Any]) -> bool:
        """One round's work: fetch, report, train, send. False if the round was over meanwhile."""
        base = self.model(config["version"])
        loss, self.accuracy = evaluate(base, *self._test)
        began = time.monotonic()
        trained = self._learn(base, config["training"])
        figures = {
            "version": config["version"],
            "accuracy": self.accuracy,
            "loss": loss,
            "examples": len(self._test[0]),
            "details": {"train_s": time.monotonic() - began},
        }
        self.hub.json("POST", f"/api/v1/clients/{self.id.hex()}/metrics", figures)
        try:
            self.send(config, self._noised(base, trained, config["privacy"]))
        except Refused as refused:
            if refused.code in ("GF843", "GF844"):  # not selected, or the round is over
                return False
            raise
        return True

    def send(self, config: dict[str, Any], parameters: Array) -> dict[str, Any]:
        """A signed update: the header that the hub gave, and little-endian float32."""
        update = base64.b64decode(config["update_header"]) + parameters.astype("<f4").tobytes()
        self.seq += 1
        signed = {
            "fleet": self._fleet,
            "client": self.id,
            "seq": self.seq,
            "round": config["round"],
            "version": config["version"],
            "lineage": {
                "bundle": bytes.fromhex(config["bundle"]),
                "run": config["run"],
                "layout": bytes.fromhex(config["layout"]),
            },
            "digest": hashlib.sha256(update).digest(),
            "size": len(update),
            "codec": config["codec"],
            "examples": len(self._train[0]),
        }
        if config["privacy"]["mode"] != "off":
            privacy = config["privacy"]
            signed["noise"] = {"unit": "device", "clip": privacy["clip"], "z": self.z}
        header = base64.b64encode(envelope("star-model", signed, self.key)).decode()
        answer = self.hub.call(
            "POST",
            "/api/v1/models/update",
            update,
            "application/octet-stream",
            {"Gossipfl-Envelope": header},
        )
        self.sent += 1
        found: dict[str, Any] = json.loads(answer)
        return found

    def run(self, code: str, pause_s: float = 0.2) -> None:
        """Register, then work until the hub says that training has finished."""
        self.register(code)
        while True:
            try:
                config = self.config()
            except Refused as refused:
                if refused.status != 404:  # nothing to train yet
                    raise
                time.sleep(pause_s)
                continue
            if config["state"] == "finished":
                return
            idle = not config["is_selected"] or config["has_sent"]
            if idle or not self.step(config):
                time.sleep(pause_s)

    def _learn(self, base: Array, training: dict[str, Any]) -> Array:
        """SGD with momentum from `base`, as the policy says."""
        x, y = self._train
        parameters, velocity = base.astype(np.float32), np.zeros_like(base)
        size = training["batch"] or 32
        for _ in range(training["epochs"]):
            order = self._rng.permutation(len(x))
            for at in range(0, len(x), size):
                cut = order[at : at + size]
                velocity = training["momentum"] * velocity + gradient(parameters, x[cut], y[cut])
                parameters = parameters - training["learning_rate"] * velocity
        return base - 3.0 * (parameters - base) if self.lies else parameters

    def _noised(self, base: Array, trained: Array, privacy: dict[str, Any]) -> Array:
        """The change clipped, and noise of deviation 2 z clip, where the policy asks for it.

        An illustration: a device of gossipfl draws its noise on an integer grid from a
        cryptographic stream.
        """
        if privacy["mode"] == "off":
            return trained
        self.z = self.z or privacy["z"]
        change = trained - base
        change *= min(1.0, privacy["clip"] / max(float(np.linalg.norm(change)), 1e-12))
        return base + change + self._rng.normal(0.0, 2 * self.z * privacy["clip"], len(base))


def scores(parameters: Array, x: Array) -> Array:
    weights = parameters[: PIXELS * CLASSES].reshape(CLASSES, PIXELS)
    logits = x @ weights.T + parameters[PIXELS * CLASSES :]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Array = powers / powers.sum(axis=1, keepdims=True)
    return found


def gradient(parameters: Array, x: Array, y: Array) -> Array:
    error = scores(parameters, x)
    error[np.arange(len(y)), y] -= 1.0
    error /= len(y)
    return np.concatenate([(error.T @ x).ravel(), error.sum(axis=0)]).astype(np.float32)


def evaluate(parameters: Array, x: Array, y: Array) -> tuple[float, float]:
    """(mean loss in nats, share of right answers)"""
    chance = scores(parameters, x)
    loss = -np.log(np.maximum(chance[np.arange(len(y)), y], 1e-12)).mean()
    return float(loss), float((chance.argmax(axis=1) == y).mean())


def digits(clients: int) -> tuple[list[tuple[Array, Array]], tuple[Array, Array]]:
    """The clients' shares of the training examples, and what is held out."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16.0).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    held, rest = order[:360], order[360:]
    return [(x[cut], y[cut]) for cut in np.array_split(rest, clients)], (x[held], y[held])


def fleet(hub: str, ca: str | None, clients: int, liars: int) -> list[Client]:
    """Clients with even shares of the digits; the last ones lie."""
    shares, held = digits(clients)
    return [
        Client(Hub(hub, ca), f"digits-{index}", share, held, lies=index >= clients - liars)
        for index, share in enumerate(shares)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hub", required=True, metavar="URL")
    parser.add_argument("--ca", metavar="FILE", help="the certificate that the hub's is signed by")
    parser.add_argument("--code", required=True, help="of an invitation")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--liars", type=int, default=1)
    args = parser.parse_args()
    members = fleet(args.hub, args.ca, args.clients, args.liars)
    threads = [threading.Thread(target=member.run, args=(args.code,)) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    best = max(member.accuracy for member in members)
    told = {"accuracy": best, "updates": sum(member.sent for member in members)}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
