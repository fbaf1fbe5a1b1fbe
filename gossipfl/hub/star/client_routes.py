"""The routes that clients of star mode use: register, configuration, model, update, metrics."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

from aiohttp import web
from msgspec import structs

from gossipfl.hub.rest.access import DEVICES, EVERYBODY, PUBLIC, Role, only
from gossipfl.hub.rest.bodies import JSON, JSON_BYTES_MAX, KIB, MSGPACK, OCTETS, media_type
from gossipfl.hub.rest.problems import Problem, absent, malformed
from gossipfl.hub.rest.routing import Call, Route
from gossipfl.hub.star import books, clients, metrics
from gossipfl.hub.star import messages as m
from gossipfl.hub.star.admission import blocked
from gossipfl.hub.star.job import Job
from gossipfl.hub.star.service import Star, phase
from gossipfl.hub.star.values import Phase, Round, RoundState, Version

API = "/api/v1"
ENVELOPE_HEADER = "Gossipfl-Envelope"
"""The signed star-model of an update that comes as application/octet-stream, in base64."""
OVERHEAD_BYTES = 8 * KIB  # an envelope and msgpack around an update
TAG = "star mode"


class ClientApi:
    def __init__(self, star: Star) -> None:
        self._star = star

    def routes(self) -> list[Route]:
        one = f"{API}/clients/{{client_id}}"
        table = [
            Route("GET", f"{API}/clients/register", self.register_info, PUBLIC, None,
                  m.RegisterInfo, "What a client has to sign to register.", is_exempt=True),
            Route("POST", f"{API}/clients/register", self.register, PUBLIC, m.Register,
                  m.Registered, "Register a signing key, or show a known one, and get a token.",
                  kinds=(JSON, MSGPACK), refusals=(403, 409)),
            Route("GET", f"{API}/training/config", self.config, EVERYBODY, None,
                  m.TrainingConfig, "What to do now: round, version, policy, form of updates.",
                  refusals=(404,)),
            Route("GET", f"{API}/models/global", self.model, EVERYBODY, None, None,
                  "The global model as little-endian float32, with its digest as ETag.",
                  query=m.VersionQuery, answer_kind=OCTETS, refusals=(404, 410)),
            Route("POST", f"{API}/models/update", self.update, DEVICES, m.Submission, m.Accepted,
                  "A signed update. As octet-stream the envelope is in the header "
                  f"{ENVELOPE_HEADER}.", kinds=(OCTETS, MSGPACK, JSON),
                  bytes_max=self.update_bytes_max, refusals=(409,)),
            Route("POST", f"{one}/metrics", self.report, only(Role.DEVICE, own="client_id"),
                  m.MetricsReport, None, "Figures of a version on the client's own data.",
                  status=204),
        ]  # fmt: skip
        return [replace(route, tag=TAG) for route in table]

    def update_bytes_max(self) -> int:
        """An update has one length, known from the lineage and codec of the round; in JSON it may
        be longer."""
        return max(JSON_BYTES_MAX, self._star.admission.update_bytes_max() + OVERHEAD_BYTES)

    async def register_info(self, hub: Any, call: Call) -> m.RegisterInfo:
        return m.RegisterInfo(self._star.fleet.hex(), int(self._star.clock()))

    async def register(self, hub: Any, call: Call) -> m.Registered:
        client, is_new = await self._star.admission.register(call.body.envelope, call.body.code)
        pair = await self._star.auth.sessions.begin(client.id.hex(), Role.DEVICE)
        self._star.engine.wake()
        return m.Registered(
            client.id.hex(), pair.access, pair.refresh, pair.expires_in_s, is_new, client.seq
        )

    async def config(self, hub: Any, call: Call) -> m.TrainingConfig:
        star, now = self._star, self._star.clock()
        me = client_id(call) if call.caller.role is Role.DEVICE else None
        sent = None
        async with star.database.transaction(write=False) as tx:
            client = await clients.get(tx, me) if me is not None else None
            newest = await books.newest_round(tx)
            now_job = await star.job(tx)
            is_open = newest is not None and newest.state is RoundState.OPEN
            job = await star.shelf.job_of(tx, newest.policy) if newest and is_open else now_job
            version = await books.version(tx)
            told = await phase(tx)
            if now_job is not None:
                told = told.under(now_job.accepted.digest)
            if me is not None and newest is not None:
                sent = await books.sent(tx, me, newest.number)
        if me is not None and client is None:
            raise Problem(403, "GF840", "this client is not registered")
        if client is not None and client.blocked:
            raise blocked(client)
        if me is not None and client is not None and client.seen < int(now) - 10:
            async with star.database.transaction() as tx:
                await clients.see(tx, me, int(now))
            star.engine.wake()
        if job is None or version is None:
            raise absent(f"there is nothing to train yet: {told.why}")
        star.admission.saw(job)
        return _config(job, version, newest if is_open else None, told, me, sent, now)

    async def model(self, hub: Any, call: Call) -> web.Response:
        async with self._star.database.transaction(write=False) as tx:
            head = await books.version(tx, call.query.version)
            if head is None:
                raise absent("there is no such version")
            etag = f'"{head.digest.hex()}"'
            headers = {
                "ETag": etag,
                "Gossipfl-Version": str(head.number),
                "Gossipfl-Round": str(head.round),
                "Cache-Control": "private, no-cache",
            }
            if call.request.headers.get("If-None-Match") == etag:
                return web.Response(status=304, headers=headers)
            whole = await books.version(tx, head.number, has_body=True)
        if whole is None or whole.body is None:
            raise Problem(410, "GF823", f"version {head.number} is history: it was cleaned up")
        return web.Response(body=whole.body, content_type=OCTETS, headers=headers)

    async def update(self, hub: Any, call: Call) -> m.Accepted:
        client, body = client_id(call), call.body
        if media_type(call.request) == OCTETS:
            envelope = _header_envelope(call.request)
            taken = await self._star.admission.update(client, envelope, body)
        else:
            if (body.update is None) == (body.parameters is None):
                raise malformed("one of update and parameters")
            taken = await self._star.admission.update(
                client, body.envelope, body.update, body.parameters
            )
        self._star.engine.wake()
        model = taken.model
        return m.Accepted(
            client.hex(),
            taken.round.number,
            model.version,
            model.seq,
            model.digest.hex(),
            taken.is_repeat,
        )

    async def report(self, hub: Any, call: Call) -> None:
        body, client, now = call.body, client_id(call), int(self._star.clock())
        async with self._star.database.transaction() as tx:
            known = await clients.get(tx, client)
            if known is None:
                raise absent("this client is not registered")
            if known.blocked:
                raise blocked(known)
            if await books.version(tx, body.version) is None:
                raise absent(f"there is no version {body.version}")
            await metrics.put(
                tx,
                client,
                body.version,
                body.accuracy,
                body.loss,
                body.examples,
                body.details,
                now,
            )
            await clients.see(tx, client, now)


def client_id(call: Call) -> bytes:
    """The id of the client or device that calls."""
    try:
        return bytes.fromhex(call.caller.subject)
    except ValueError:
        raise Problem(403, "GF840", "this token is not a client's") from None


def _header_envelope(request: web.Request) -> bytes:
    text = request.headers.get(ENVELOPE_HEADER, "")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise malformed(f"{ENVELOPE_HEADER} is not base64") from None


def _config(
    job: Job,
    version: Version,
    round_: Round | None,
    told: Phase,
    me: bytes | None,
    sent: str | None,
    now: float,
) -> m.TrainingConfig:
    policy = job.accepted.policy
    why = told.why
    if me is not None and me.hex() in told.shut_out:
        why = f"quarantined: {told.shut_out[me.hex()]}"
    return m.TrainingConfig(
        state="running" if round_ is not None else told.name,
        why=why,
        fleet=policy.fleet.hex(),
        round=round_.number if round_ is not None else version.round,
        version=round_.version if round_ is not None else version.number,
        is_selected=round_ is not None and me in round_.selected,
        has_sent=round_ is not None and sent is not None,
        deadline_in_s=max(0.0, round_.deadline - now) if round_ is not None else 0.0,
        bundle=policy.bundle.hex(),
        run=policy.run,
        layout=job.lineage.layout.hex(),
        rule=policy.rule,
        f=round_.faulty if round_ is not None else 0,
        codec=policy.codec,
        update_header=job.header,
        update_bytes=job.update_bytes,
        parameters=job.layout.count,
        tensors=[m.TensorView(t.name, list(t.shape), t.offset) for t in job.layout.tensors],
        training=m.TrainingView(**structs.asdict(policy.training)),
        privacy=m.PrivacyView(**structs.asdict(policy.privacy)),
        stop=m.StopView(**structs.asdict(policy.stop)),
        policy=job.accepted.digest.hex(),
    )
