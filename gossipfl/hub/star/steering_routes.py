"""The routes by which operators steer star mode: policy, bundle, checkpoints, storage, blocks."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import Any

import msgspec

from gossipfl.audit.entries import EntryKind, account_subject
from gossipfl.config import Limits
from gossipfl.errors import PeerError, UserError
from gossipfl.hub.database import Conflict, Transaction
from gossipfl.hub.log.said import Said, say
from gossipfl.hub.rest.access import INSIGHT, OPERATORS
from gossipfl.hub.rest.bodies import KIB, OCTETS
from gossipfl.hub.rest.problems import Problem, absent, conflict
from gossipfl.hub.rest.routing import Call, Route
from gossipfl.hub.star import books, clients, storage
from gossipfl.hub.star import messages as m
from gossipfl.hub.star import orders as o
from gossipfl.hub.star.admission import code_digest
from gossipfl.hub.star.client_routes import API, TAG
from gossipfl.hub.star.service import Star
from gossipfl.hub.star.values import RoundState
from gossipfl.policies import Accepted

CODE_BYTES = 16  # 128 bits, in hex: it is typed into shells, where a leading dash is an option
CHECKPOINTS_MAX = 1_000  # guess


class SteeringApi:
    def __init__(self, star: Star) -> None:
        self._star = star

    def routes(self) -> list[Route]:
        checkpoint = f"{API}/checkpoints/{{name}}"
        table = [
            Route("POST", f"{API}/clients/invitations", self.invite, OPERATORS, m.Invite,
                  m.Invitation, "A code with which clients may register.", status=201),
            Route("POST", f"{API}/training/bundle", self.bundle, OPERATORS, bytes,
                  o.BundleAnswer, "A bundle (.gfl), which a policy names.", kinds=(OCTETS,),
                  bytes_max=Limits().bundle_bytes),
            Route("POST", f"{API}/aggregation/strategy", self.strategy, OPERATORS, bytes,
                  o.StrategyAnswer, "Switch rule, stop, privacy or job by a signed policy object.",
                  kinds=(OCTETS,), bytes_max=64 * KIB),
            Route("GET", f"{API}/checkpoints", self.checkpoints, INSIGHT, None, o.CheckpointList,
                  "All checkpoints."),
            Route("POST", f"{API}/checkpoints", self.checkpoint, OPERATORS, o.CheckpointRequest,
                  o.CheckpointView, "Keep a version under a name.", status=201,
                  refusals=(404, 409, 410)),
            Route("POST", f"{checkpoint}/restore", self.restore, OPERATORS, None, m.VersionView,
                  "Make a checkpoint the global model again, byte for byte.",
                  refusals=(404, 409)),
            Route("DELETE", checkpoint, self.drop, OPERATORS, None, None,
                  "Forget a checkpoint; its version is kept as long as others.", status=204),
            Route("GET", f"{API}/storage", self.storage, INSIGHT, None, o.StorageView,
                  "What takes how many bytes."),
            Route("POST", f"{API}/storage/cleanup", self.cleanup, OPERATORS, o.Cleanup,
                  o.CleanupAnswer, "Let old versions and updates go."),
            Route("POST", f"{API}/security/block-client", self.block, OPERATORS, o.BlockRequest,
                  o.BlockAnswer, "Shut a client out at once; its sessions end.",
                  refusals=(404,)),
            Route("POST", f"{API}/security/unblock-client", self.unblock, OPERATORS,
                  o.UnblockRequest, o.BlockAnswer, "Let a blocked client in again.",
                  refusals=(404,)),
        ]  # fmt: skip
        return [replace(route, tag=TAG) for route in table]

    # --- what is trained -------------------------------------------------------------------

    async def invite(self, hub: Any, call: Call) -> m.Invitation:
        now, code = int(self._star.clock()), secrets.token_hex(CODE_BYTES)
        expires = now + call.body.lasts_s
        async with self._star.database.transaction() as tx:
            await tx.execute("DELETE FROM star_codes WHERE expires <= ?", now)
            await tx.execute(
                "INSERT INTO star_codes (digest, uses, expires, made_by, labels)"
                " VALUES (?, ?, ?, ?, ?)",
                code_digest(code),
                call.body.uses,
                expires,
                call.caller.subject,
                msgspec.json.encode(call.body.labels).decode(),
            )
            await self._log(tx, call, {"action": "invite", "uses": call.body.uses})
        return m.Invitation(code, call.body.uses, expires)

    async def bundle(self, hub: Any, call: Call) -> o.BundleAnswer:
        star = self._star
        try:
            bundle = await asyncio.to_thread(star.shelf.read, call.body)
        except UserError as error:
            raise Problem(422, "GF846", error.cause) from None
        async with star.database.transaction() as tx:
            await star.shelf.add_bundle(
                tx, bundle, call.body, call.caller.subject, int(star.clock())
            )
            await self._log(tx, call, {"action": "bundle", "bundle": bundle.id.hex()})
        star.engine.wake()
        return o.BundleAnswer(bundle.id.hex(), bundle.manifest.name, bundle.layout.count)

    async def strategy(self, hub: Any, call: Call) -> o.StrategyAnswer:
        star, now = self._star, int(self._star.clock())
        async with star.database.transaction(write=False) as tx:
            await star.shelf.load(tx)
        try:
            accepted = star.shelf.verify(call.body)
            async with star.database.transaction() as tx:
                is_new = await star.shelf.add(tx, accepted, call.caller.subject, now)
                if is_new:
                    await self._log(tx, call, _strategy(accepted))
                newest = await books.newest_round(tx)
        except PeerError as error:
            raise Problem(422, "GF846", str(error)) from None
        star.engine.wake()
        is_open = newest is not None and newest.state is not RoundState.DONE
        policy, number = accepted.policy, newest.number if newest is not None else 0
        return o.StrategyAnswer(
            accepted.digest.hex(),
            policy.term,
            policy.version,
            policy.run,
            policy.rule,
            is_new,
            number + 1 if is_open or number else 1,
        )

    # --- checkpoints and storage -----------------------------------------------------------

    async def checkpoints(self, hub: Any, call: Call) -> o.CheckpointList:
        async with self._star.database.transaction(write=False) as tx:
            return o.CheckpointList(await storage.checkpoints(tx, CHECKPOINTS_MAX))

    async def checkpoint(self, hub: Any, call: Call) -> o.CheckpointView:
        body, now = call.body, int(self._star.clock())
        try:
            async with self._star.database.transaction() as tx:
                version = await books.version(tx, body.version)
                if version is None:
                    raise absent("there is no such version")
                if not version.is_kept:
                    raise Problem(410, "GF823", f"version {version.number} was cleaned up")
                if await storage.count_checkpoints(tx) >= CHECKPOINTS_MAX:
                    raise conflict(f"there are {CHECKPOINTS_MAX} checkpoints already")
                await storage.add_checkpoint(
                    tx, body.name, version.number, body.note, call.caller.subject, now
                )
                told: Said = {"action": "checkpoint", "name": body.name, "version": version.number}
                await self._log(tx, call, told)
        except Conflict:
            raise conflict(f"there is a checkpoint {body.name!r} already") from None
        return o.CheckpointView(
            body.name,
            version.number,
            version.digest.hex(),
            version.size,
            body.note,
            call.caller.subject,
            now,
        )

    async def restore(self, hub: Any, call: Call) -> m.VersionView:
        name = call.path["name"]
        try:
            async with self._star.database.transaction() as tx:
                await tx.lock(books.LOCK)
                restored = await storage.restore(tx, name, self._star.clock())
                if restored is not None:
                    told: Said = {"action": "restore", "name": name, "version": restored.number}
                    await self._log(tx, call, told)
        except Conflict:
            raise conflict("a round was merged at this instant; ask again") from None
        except storage.OtherBundle:
            what = f"checkpoint {name!r} is of another bundle than the one in force"
            raise conflict(f"{what}: switch to its bundle first") from None
        if restored is None:
            raise absent(f"there is no checkpoint {name!r}")
        self._star.engine.wake()
        return m.view(restored)

    async def drop(self, hub: Any, call: Call) -> None:
        async with self._star.database.transaction() as tx:
            if not await storage.drop_checkpoint(tx, call.path["name"]):
                raise absent(f"there is no checkpoint {call.path['name']!r}")
            await self._log(tx, call, {"action": "drop", "name": call.path["name"]})

    async def storage(self, hub: Any, call: Call) -> o.StorageView:
        size = await self._star.database.size_bytes()
        async with self._star.database.transaction(write=False) as tx:
            return await storage.statistics(tx, size)

    async def cleanup(self, hub: Any, call: Call) -> o.CleanupAnswer:
        async with self._star.database.transaction() as tx:
            await tx.lock(books.LOCK)
            done = await storage.cleanup(
                tx, call.body.versions_kept, is_dry_run=call.body.is_dry_run
            )
            if not call.body.is_dry_run:
                told: Said = {"action": "cleanup", "models": done.models, "updates": done.updates}
                await self._log(tx, call, told)
        return done

    # --- blocks ----------------------------------------------------------------------------

    async def block(self, hub: Any, call: Call) -> o.BlockAnswer:
        return await self._set_block(call, call.body.client_id, call.body.reason)

    async def unblock(self, hub: Any, call: Call) -> o.BlockAnswer:
        return await self._set_block(call, call.body.client_id, "")

    async def _set_block(self, call: Call, name: str, reason: str) -> o.BlockAnswer:
        async with self._star.database.transaction() as tx:
            if not await clients.block(tx, bytes.fromhex(name), reason):
                raise absent("there is no such client")
            told: Said = {"action": "unblock"}
            if reason:
                told = {"action": "block", "reason": reason}
            await self._log(tx, call, told, bytes.fromhex(name))
        if reason:
            await self._star.auth.sessions.end_all(name, "blocked", is_out=True)
        self._star.engine.wake()
        return o.BlockAnswer(name, bool(reason), reason)

    async def _log(
        self, tx: Transaction, call: Call, told: Said, about: bytes | None = None
    ) -> None:
        """What an operator did: about a client, or about that operator itself."""
        by, now = account_subject(call.caller.subject), int(self._star.clock())
        await say(tx, EntryKind.DECISION, told, now, about=about or by, by=by)


def _strategy(accepted: Accepted) -> Said:
    policy = accepted.policy
    return {
        "action": "strategy",
        "policy": accepted.digest.hex(),
        "rule": policy.rule,
        "run": policy.run,
    }
