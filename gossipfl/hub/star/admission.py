"""From a request to a registered client or an accepted update: every check that comes before.

What is accepted is durable when it is answered, and is merged unless its client is blocked before.
A fault of a registered client costs it reputation, as a peer's does.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from gossipfl.aggregation.guard import require_mergeable
from gossipfl.audit.entries import EntryKind, account_subject
from gossipfl.codecs import CodecError, decode_update, encode_update, require_size
from gossipfl.config import Limits
from gossipfl.errors import Fault, PeerError
from gossipfl.hub import pseudonyms
from gossipfl.hub.database import Database, Transaction
from gossipfl.hub.log.said import say
from gossipfl.hub.rest.problems import Problem, conflict, malformed, plain, too_many
from gossipfl.hub.star import books, clients
from gossipfl.hub.star.budget import Account, Ceilings, Unasked, counted, terms_of
from gossipfl.hub.star.job import Job, Shelf
from gossipfl.hub.star.settings import StarSettings
from gossipfl.hub.star.values import Client, Round, RoundState
from gossipfl.hub.star.wire import Model, open_join, open_model
from gossipfl.objects import digest
from gossipfl.parameters import Vector

JOIN_WINDOW_S = 300  # as the skew of clocks that the fault table asks for
INLINE_BYTES_MAX = 1 << 20  # what is larger is decoded in a thread: 1 ms of the event loop
TRIES = 5  # of a client that sends two updates at one instant; two are for the accountant
FRESH_S = 10.0  # guess: a bundle that was given at another instance is known here so late
BUDGET = "budget"  # a lock, and a name in star_state


@dataclass(frozen=True, slots=True)
class Taken:
    """An update that is durable here."""

    model: Model
    round: Round
    is_repeat: bool = False


class Admission:
    """What is registered and accepted, by this instance."""

    def __init__(
        self,
        database: Database,
        shelf: Shelf,
        settings: StarSettings,
        clock: Callable[[], float],
        limits: Limits,
    ) -> None:
        self._database = database
        self._shelf = shelf
        self._settings = settings
        self._clock = clock
        self._limits = limits
        self.accepted = 0
        self._ceilings = Ceilings()
        self._asking = asyncio.Lock()
        self._update_bytes = (-FRESH_S, 0)  # when it was seen, and it

    def saw(self, job: Job) -> None:
        """The job in force: how long an update is."""
        self._update_bytes = (self._clock(), job.update_bytes)

    def update_bytes_max(self) -> int:
        """The most that an update of the job in force has; of the largest one before that was
        looked at, and some seconds after: another instance may have been given another job."""
        seen, found = self._update_bytes
        return found if self._clock() - seen < FRESH_S else self._limits.bundle_bytes

    # --- clients ---------------------------------------------------------------------------

    async def register(self, data: bytes, code: str) -> tuple[Client, bool]:
        """The client of a signed star-join, and whether it is new. Raises Problem."""
        now = int(self._clock())
        try:
            join, envelope = open_join(data, self._shelf.fleet)
        except PeerError as error:
            raise Problem(422, "GF841", str(error)) from None
        if abs(join.at - now) > JOIN_WINDOW_S:
            raise Problem(422, "GF841", f"it was signed {join.at - now:+d} s from now")
        client = Client(
            id=envelope.device,
            key_id=envelope.key_id,
            name=plain(join.name),
            capability=join.capability,
            labels={},
            registered=now,
            proved=join.at,
            seen=now,
            seq=0,
            updates=0,
            account=Account({}),
            blocked="",
        )
        async with self._database.transaction() as tx:
            await tx.lock(f"star-client {client.id.hex()}")
            if await pseudonyms.erased(tx, [client.id]):
                raise Problem(403, "GF851", "what this hub held of this key was erased")
            known = await clients.get(tx, client.id)
            if known is not None:
                if known.blocked:
                    raise blocked(known)
                if not await clients.prove(tx, client):
                    raise conflict("this registration has been used; sign another one")
                return replace(known, name=client.name, seen=now), False
            inviter, labels = await self._use_code(tx, code, now)
            client = replace(client, labels=labels)
            if await clients.count(tx) >= clients.CLIENTS_MAX:
                raise too_many(f"there are {clients.CLIENTS_MAX} clients already", 3_600)
            await clients.add(tx, client)
            doer, told = account_subject(inviter), {"action": "admit"}
            await say(tx, EntryKind.DECISION, told, now, about=client.id, by=doer)
        return client, True

    async def _use_code(self, tx: Transaction, code: str, now: int) -> tuple[str, dict[str, str]]:
        """Who made it, and the labels that come with it. Raises Problem 403."""
        used = await tx.row(
            "UPDATE star_codes SET uses = uses - 1 WHERE digest = ? AND uses > 0 AND expires > ?"
            " RETURNING made_by, labels",
            code_digest(code),
            now,
        )
        if used is None:
            raise Problem(403, "GF840", "this code is unknown, used up or has expired")
        labels = msgspec.json.decode(used["labels"] or "{}", type=dict[str, str])
        return str(used["made_by"]), labels

    # --- updates ---------------------------------------------------------------------------

    async def update(
        self,
        client_id: bytes,
        envelope: bytes,
        body: bytes | None,
        parameters: list[float] | None = None,
    ) -> Taken:
        """Accept an update, or say why not. Raises Problem."""
        async with self._database.transaction(write=False) as tx:
            client = await clients.get(tx, client_id)
            round_ = await books.newest_round(tx)
            job = None if round_ is None else await self._shelf.job_of(tx, round_.policy)
        if client is None:
            raise Problem(403, "GF840", "this client is not registered")
        if client.blocked:
            raise blocked(client)
        try:
            model = open_model(envelope, self._shelf.fleet, client.id)
            if round_ is None or job is None:
                raise over("no round is open")
            self.saw(job)
            if body is None:
                body = _encoded(job, model, parameters)
            if len(body) <= INLINE_BYTES_MAX:
                self._check(job, model, body)
            else:
                await asyncio.to_thread(self._check, job, model, body)
        except PeerError as error:
            async with self._database.transaction() as tx:
                await clients.add_fault(tx, client.id, error.fault.value)
            raise Problem(422, "GF841", str(error)) from None
        return await self._take(client, round_, job, model, envelope, body)

    def _check(self, job: Job, model: Model, body: bytes) -> None:
        """Length, name, lineage, form and values of the update object. Raises PeerError."""
        if model.lineage != job.lineage:
            raise PeerError(Fault.OTHER_LINEAGE, "the update is of another bundle, run or layout")
        if model.codec != job.codec:
            raise PeerError(Fault.MALFORMED, f"codec {model.codec!r}, the policy says {job.codec}")
        require_size(len(body), job.lineage, job.codec, job.layout.count)
        if len(body) != model.size or digest(body) != model.digest:
            raise PeerError(Fault.WRONG_DIGEST, "the update is not the one that was signed")
        vector = decode_update(body, job.lineage, job.codec, job.layout.count)
        require_mergeable(vector, job.layout.count, self._limits.norm_max)

    async def _take(
        self, client: Client, round_: Round, job: Job, model: Model, envelope: bytes, body: bytes
    ) -> Taken:
        """The checks that others' requests can change, and the write, in one transaction."""
        for _ in range(TRIES):
            try:
                taken = await self._try(client, round_, job, model, envelope, body)
            except Unasked as question:
                async with self._asking:
                    await asyncio.to_thread(self._ceilings.ask, *question.asked)
                continue
            if taken is not None:
                self.accepted += not taken.is_repeat
                return taken
        raise conflict("updates of this client come side by side; send one after the other")

    async def _try(
        self, client: Client, round_: Round, job: Job, model: Model, envelope: bytes, body: bytes
    ) -> Taken | None:
        """None: another one of its own came in between. Raises Unasked, Problem."""
        now = self._clock()
        async with self._database.transaction() as tx:
            await tx.share(books.LOCK)
            if self._settings.global_epsilon is not None:
                await tx.lock(BUDGET)
            known = await clients.get(tx, client.id) or client
            current = await books.newest_round(tx) or round_
            if known.blocked:
                raise blocked(known)
            sent = await books.sent(tx, client.id, current.number)
            if sent == model.digest.hex():
                return Taken(model, current, is_repeat=True)
            _require_open(current, model, client.id, is_sent=sent is not None)
            if model.seq <= known.seq:
                raise conflict(f"seq {model.seq}: the last one was {known.seq}")
            account = await self._spent(tx, known, job, model)
            if not await clients.count_update(tx, known, model.seq, account, int(now)):
                return None
            await books.add_update(tx, current, model, envelope, body, now)
        return Taken(model, current)

    async def _spent(self, tx: Transaction, client: Client, job: Job, model: Model) -> Account:
        """The client's account after this release, if both budgets hold it. Raises Problem, and
        Unasked: the accountant is no part of a transaction."""
        privacy = job.accepted.policy.privacy
        terms = terms_of(privacy)
        if terms is None:
            return client.account
        if model.noise is None:
            raise Problem(403, "GF845", "the policy asks for noise, the update names none")
        try:
            spec = counted(model.noise.spec, privacy)
        except ValueError as error:
            raise Problem(403, "GF845", str(error)) from None
        refusal = self._ceilings.refusal(client.account, spec, terms)
        if refusal is not None:
            raise Problem(403, "GF845", f"{refusal} (this client)")
        whole = terms_of(privacy, self._settings.global_epsilon)
        if self._settings.global_epsilon is not None and whole is not None:
            least = replace(spec, z=privacy.z)  # nobody's noise makes a kind of its own for all
            together = Account.load((await books.state(tx, BUDGET) or b"[]").decode())
            refusal = self._ceilings.refusal(together, least, whole)
            if refusal is not None:
                raise Problem(403, "GF845", f"{refusal} (all clients together)")
            after = together.with_release(least)
            await books.set_state(tx, BUDGET, after.dump().encode())
        return client.account.with_release(spec)


def _encoded(job: Job, model: Model, parameters: list[float] | None) -> bytes:
    """The update object of parameters that came as JSON. Raises PeerError or Problem."""
    if parameters is None:
        raise malformed("neither update nor parameters")
    if job.codec != "f32":
        raise malformed(f"parameters go with codec f32; the policy says {job.codec}")
    with np.errstate(over="ignore"):
        vector: Vector = np.asarray(parameters, np.float32)
    if len(vector) != job.layout.count:
        raise PeerError(Fault.WRONG_LENGTH, f"{len(vector)} parameters, not {job.layout.count}")
    try:
        return encode_update(job.lineage, job.codec, vector)
    except CodecError as error:
        raise PeerError(Fault.NOT_FINITE, str(error)) from None


def _require_open(round_: Round, model: Model, client: bytes, *, is_sent: bool) -> None:
    """Raises Problem 409 if this round does not take this update."""
    if round_.state is not RoundState.OPEN or model.version != round_.version:
        raise over(f"round {round_.number} of version {round_.version} is what is asked for now")
    if is_sent:
        raise conflict("an update of this client is in this round already")
    if client not in round_.selected:
        raise Problem(409, "GF843", f"not selected for round {round_.number}")


def over(detail: str) -> Problem:
    return Problem(409, "GF844", detail)


def blocked(client: Client) -> Problem:
    return Problem(403, "GF842", f"blocked: {client.blocked}")


def code_digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
