"""The node as a witness of its hubs' logs, and a hub's node as the one that shows its own.

A hub's head names its newest checkpoint as an object. A device fetches it, joins it to what it has
seen (`witness`), keeps it, cosigns it, and names checkpoint and cosignature in its own head. Heads
of other devices name what they were shown, so any two devices that were shown two histories find
out: the proof goes the way of all evidence, and the hub is shut out.
"""

from __future__ import annotations

from collections.abc import Callable

from gossipfl.audit.cosignatures import cosign
from gossipfl.audit.linked import LogInconsistent, origin_of
from gossipfl.audit.notes import device_of_log, log_key
from gossipfl.audit.refused import AuditRefused
from gossipfl.chains import pack_evidence
from gossipfl.core import Core
from gossipfl.errors import Fault, PeerError
from gossipfl.events import FetchFailed, Topic
from gossipfl.identity import device_of, short_name
from gossipfl.messages import Evidence, EvidenceKind, Head, Role
from gossipfl.objects import Kind, Listing, bytes_max, digest, pack_list, unpack_list
from gossipfl.peers import Peer
from gossipfl.pulls import Pending, Purpose
from gossipfl.wire import unpack
from gossipfl.witness import STATE_BYTES_MAX, Finding, Verdict, Witness

Keep = Callable[[str, Listing | None], bytes | None]
LOGS_MAX = 4  # hubs followed: guess, one or two are usual
FETCHES_PER_ROUND = 64  # per peer: a walk has some tens of steps


class Witnessing:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._logs: dict[bytes, Witness] = {}  # hub -> what was seen of its log
        self._own: bytes | None = None  # of a hub's own log
        self._checkpoint: Listing | None = None
        self._cosignature: Listing | None = None
        self._fetched: dict[bytes, int] = {}  # by peer, in this round interval
        self._renewed_at = 0.0

    # --- what our head names ---------------------------------------------------------------

    def refs(self, keep: Keep) -> dict[str, bytes | None]:
        """The fields of a head. `keep` stores an object in place of the one before; a hub keeps all
        of its checkpoints, for who walks back to an old one."""
        if self._is_hub():
            before = self._core.own.refs
            return {"checkpoint": self._own or (before.checkpoint if before else None)}
        named = (("checkpoint", self._checkpoint), ("cosignature", self._cosignature))
        return {name: keep(name, found) for name, found in named}

    def made(self, data: bytes) -> None:
        """Our own log has a new checkpoint: this node is the hub's. Verified by who made it."""
        self._own = self._core.publisher.store(data)
        self._core.publisher.want_head()

    # --- what others' heads name -----------------------------------------------------------

    def new_head(self, peer: Peer, head: Head) -> None:
        name = head.checkpoint
        if name is None or self._is_hub():
            return
        own = self._logs.get(peer.device)  # of a hub, only what it names itself is followed
        if own is not None and own.newest is not None and own.newest.digest == name:
            return
        if own is None and any(witness.knows(name) for witness in self._logs.values()):
            return
        if not self._core.parcels.is_bad(Purpose.CHECKPOINT, name, peer.device):
            self._fetch(peer, name)

    def arrived(self, pending: Pending, data: bytes) -> None:
        """A checkpoint object. Whose log it is stands in it; the hub must be a member that we know.
        Raises PeerError for what no hub signed."""
        core = self._core
        try:
            hub = self._hub_of(data)
            witness = self._logs.get(hub.device) if hub is not None else None
            if hub is None or core.is_barred(hub.device):
                return
            if witness is None:
                if len(self._logs) >= LOGS_MAX:
                    return
                witness = self._logs[hub.device] = Witness(log_key(hub.key))
            core.shelf.put(digest(data), data)  # who walks after us may ask us
            shown = core.chains.newest(hub.device)
            adopt = shown is not None and shown.head.checkpoint == digest(data)
            self._found(pending, hub.device, witness, witness.receive(data, adopt=adopt))
        except AuditRefused as error:
            if isinstance(error, LogInconsistent) and self._is_proof(data, str(error)):
                return
            named = core.chains.newest(pending.device) if pending.device is not None else None
            if named is not None and named.head.checkpoint == pending.digest:
                raise PeerError(Fault.MALFORMED, f"its checkpoint: {error}") from error
            core.notice(Topic.EVIDENCE, f"a hub's log does not hang together: {error}", None, True)

    def failed(self, pending: Pending, event: FetchFailed) -> None:
        """Ask the hub itself for what a peer did not have; what the hub withholds is said."""
        core = self._core
        if pending.purpose is not Purpose.CHECKPOINT or pending.digest is None:
            return
        for hub, witness in self._logs.items():
            if pending.digest in witness.wants():
                peer = core.book.peers.get(hub)
                if pending.device != hub and peer is not None and peer.address is not None:
                    self._fetch(peer, pending.digest)
                    return
                witness.give_up(pending.digest)
                if event.absent:
                    text = f"hub {short_name(hub)} withholds an older checkpoint of its log"
                    core.notice(Topic.EVIDENCE, text, hub, True)

    def _is_hub(self) -> bool:
        return self._core.roster.is_hub(self._core.device)

    def _hub_of(self, data: bytes) -> _Hub | None:
        """The hub whose log this object says it is of, if that is a member that we know."""
        device = device_of_log(origin_of(data))
        known = self._core.roster.by_device(device) if device is not None else None
        if known is None or known.member.role is not Role.HUB:
            return None
        return _Hub(known.member.key, known.data)

    def _fetch(self, peer: Peer, name: bytes) -> None:
        core = self._core
        if core.now - self._renewed_at > core.pace.round_interval_s:
            self._fetched.clear()
            self._renewed_at = core.now
        asked = self._fetched.get(peer.device, 0)
        if peer.address is None or asked >= FETCHES_PER_ROUND:
            return
        self._fetched[peer.device] = asked + 1
        pending = Pending(Purpose.CHECKPOINT, peer.address, peer.device, digest=name)
        core.emit(*core.pulls.object(pending, bytes_max(Kind.CHECKPOINT, core.limits)))

    def _found(self, pending: Pending, hub: bytes, witness: Witness, finding: Finding) -> None:
        core = self._core
        match finding.verdict:
            case Verdict.FOLLOWS:
                self._cosign()
            case Verdict.AGREES:
                core.publisher.touch("witness")
            case Verdict.FETCH if finding.object is not None:
                self._go_on(pending, hub, witness, finding.object)
            case Verdict.FORK if finding.notes is not None:
                self._prove(EvidenceKind.FORKED_LOG, hub, *finding.notes)
            case _:
                pass

    def _go_on(self, pending: Pending, hub: bytes, witness: Witness, name: bytes) -> None:
        """The next object of a walk: from the shelf, from who gave the last one, or the hub."""
        core = self._core
        held = core.shelf.object(name)
        if held is not None:
            self.arrived(pending, held)
            return
        peer = core.book.peers.get(pending.device or hub) or core.book.peers.get(hub)
        if peer is None:
            witness.give_up(name)
        else:
            self._fetch(peer, name)

    def _cosign(self) -> None:
        """Name the newest checkpoint of the hub with the lowest id; what is signed here becomes
        durable with the head that names it, and public after that."""
        core = self._core
        for hub in sorted(self._logs):
            newest, data = self._logs[hub].newest, self._logs[hub].data
            if newest is None or data is None or core.is_barred(hub):
                continue
            if self._checkpoint is None or self._checkpoint.root != data:
                line = cosign(newest.checkpoint.text(), core.time(), core.signer).line()
                self._checkpoint, self._cosignature = Listing(data), Listing(line.encode())
            break
        core.publisher.touch("witness")
        core.publisher.want_head()

    # --- proofs ----------------------------------------------------------------------------

    def _is_proof(self, data: bytes, why: str) -> bool:
        """False links are the hub's lie if its own head names them, else of who named them."""
        core = self._core
        hub = self._hub_of(data)
        shown = core.chains.newest(hub.device) if hub is not None else None
        if hub is None or shown is None or shown.head.checkpoint != digest(data):
            return False
        text = f"the log of hub {short_name(hub.device)} is false: {why}"
        core.notice(Topic.EVIDENCE, text, hub.device, True)
        core.parcels.refuse(Purpose.CHECKPOINT, digest(data))
        self._prove(EvidenceKind.FALSE_CHECKPOINT, hub.device, shown.envelope, data)
        return True

    def _prove(self, kind: EvidenceKind, hub: bytes, first: bytes, second: bytes) -> None:
        core = self._core
        known = core.roster.by_device(hub)
        if known is None or (hub, kind.value) in core.evidence:
            return
        evidence = Evidence(kind, first, second, known.data)
        core.parcels.condemn(evidence, hub, pack_evidence(evidence))

    def barred(self, device: bytes) -> None:
        """A hub was condemned or revoked: its log is no longer followed, nor named."""
        if self._logs.pop(device, None) is not None:
            self._checkpoint = self._cosignature = None
            self._cosign()

    # --- over restarts ---------------------------------------------------------------------

    def dump(self) -> bytes:
        line = self._cosignature.root if self._cosignature is not None else b""
        return pack_list([line, *(self._logs[hub].dump() for hub in sorted(self._logs))])

    def load(self, data: bytes) -> None:
        line, *states = unpack_list(data, LOGS_MAX * STATE_BYTES_MAX)
        for item in states:
            key, _, _ = unpack(item, STATE_BYTES_MAX)
            witness = Witness(log_key(key))
            witness.load(item)
            self._logs[device_of(key)] = witness
        named = self._logs[min(self._logs)].data if self._logs else None
        if line and named is not None:
            self._checkpoint, self._cosignature = Listing(named), Listing(line)

    @property
    def logs(self) -> dict[bytes, Witness]:
        return self._logs


class _Hub:
    """A hub's signing key and member object."""

    def __init__(self, key: bytes, member: bytes) -> None:
        self.key = key
        self.device = device_of(key)
        self.member = member
