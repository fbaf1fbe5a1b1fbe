"""Our own two chains: heads and receipts. Composes what is signed; remembers only what is durable.

A head is composed from `Refs`, everything it can name. Nothing here counts as published until the
commit that holds it came back: `adopt` is called then, and not before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gossipfl.config import Limits
from gossipfl.errors import LocalError
from gossipfl.identity import Signer
from gossipfl.messages import ChainRef, Chapter, Head, Lineage, Receipt, SumRef, UpdateRef
from gossipfl.objects import digest, pack_chapter
from gossipfl.wire import decode, encode, open_envelope, pack, seal, unpack


@dataclass(frozen=True, slots=True)
class Refs:
    """What the next head will name beside itself."""

    member: bytes
    lineage: Lineage | None = None
    update: UpdateRef | None = None
    receipts: ChainRef | None = None
    ledger: ChainRef | None = None
    policy: bytes | None = None
    revocations: bytes | None = None
    evidence: bytes | None = None
    peers: bytes | None = None
    checkpoint: bytes | None = None
    cosignature: bytes | None = None
    pruned: bytes | None = None
    capability: str = ""
    group: SumRef | None = None
    declined: bytes | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A signed link of a chain, ready to be stored."""

    number: int
    digest: bytes
    envelope: bytes


@dataclass(slots=True)
class ChapterLog:
    """Digests of the links since the last chapter; `chapter` is the newest one's digest."""

    chain: str
    first: int = 1
    digests: list[bytes] = field(default_factory=list)
    chapter: bytes | None = None

    def after(self, number: int, name: bytes, device: bytes, size: int) -> tuple[ChapterLog, bytes]:
        """The log with one more link, and the bytes of the chapter that this completes, or b"".

        A completed log is empty and starts after the chapter's last link.
        """
        if number != self.first + len(self.digests):  # a restored chain continues elsewhere
            return ChapterLog(self.chain, number, [name], self.chapter), b""
        digests = [*self.digests, name]
        if len(digests) < size:
            return ChapterLog(self.chain, self.first, digests, self.chapter), b""
        data = pack_chapter(Chapter(device, self.chain, self.first, digests, self.chapter))
        return ChapterLog(self.chain, number + 1, [], digest(data)), data


class OwnChain:
    """seq and digest of our durable head; number and digest of our durable receipt."""

    def __init__(self, signer: Signer, fleet: bytes, limits: Limits) -> None:
        self._signer = signer
        self._fleet = fleet
        self._limits = limits
        self.seq = 0
        self.skip = 0  # numbers that the next head leaves out (after a restore)
        self.digest: bytes | None = None
        self.issued = 0  # fleet time of the head that was taken over, not of those signed since
        self.refs: Refs | None = None  # of the durable head
        self.receipts: ChainRef | None = None  # newest composed, durable with the next head
        self.heads_log = ChapterLog("head")
        self.receipts_log = ChapterLog("receipt")

    def compose(self, refs: Refs, issued: int) -> tuple[Link, ChapterLog, bytes]:
        """The next head, the head log after it, and a chapter's bytes if it completes one."""
        head = Head(
            fleet=self._fleet,
            device=self._signer.device,
            seq=self.seq + 1 + self.skip,
            prev=self.digest,
            issued=issued,
            head_chapter=self.heads_log.chapter,
            receipt_chapter=self.receipts_log.chapter,
            **{name: getattr(refs, name) for name in Refs.__slots__},
        )
        envelope = seal("head", encode(head), self._signer)
        if len(envelope) > self._limits.head_bytes:
            raise LocalError(f"own head has {len(envelope)} bytes, above {self._limits.head_bytes}")
        link = Link(head.seq, digest(envelope), envelope)
        log, chapter = self.heads_log.after(
            link.number, link.digest, self._signer.device, self._limits.chapter
        )
        return link, log, chapter

    def adopt(self, link: Link, refs: Refs, log: ChapterLog) -> None:
        """The head is durable: it is ours from now on."""
        self.seq, self.digest, self.refs, self.heads_log = link.number, link.digest, refs, log
        self.skip = 0

    def receipt(self, receipt: Receipt) -> tuple[Link, bytes]:
        """Sign the next receipt of the chain; a chapter's bytes if it completes one."""
        before = self.receipts
        numbered = replace_receipt(receipt, before)
        envelope = seal("receipt", encode(numbered), self._signer)
        link = Link(numbered.number, digest(envelope), envelope)
        self.receipts = ChainRef(link.number, link.digest)
        self.receipts_log, chapter = self.receipts_log.after(
            link.number, link.digest, self._signer.device, self._limits.chapter
        )
        return link, chapter

    def restore(self, envelope: bytes) -> Head:
        """Take over a head of our own: from disk, or from a peer after a restore."""
        opened = open_envelope(envelope, "head", self._limits.head_bytes)
        if opened.key_id != self._signer.key_id:
            raise LocalError("the stored head is signed by another key than this device's")
        head = decode(opened.payload, Head, self._limits.head_bytes)
        self.seq, self.digest, self.issued = head.seq, digest(envelope), head.issued
        self.receipts = head.receipts
        self.refs = Refs(**{name: getattr(head, name) for name in Refs.__slots__})
        return head

    def dump_logs(self, heads: ChapterLog | None) -> bytes:
        """Both chapter logs; `heads` is the head log that a commit is about to make true."""
        return pack(
            [
                [log.chain, log.first, log.digests, log.chapter]
                for log in (heads or self.heads_log, self.receipts_log)
            ]
        )

    def load_logs(self, data: bytes) -> None:
        heads, receipts = (ChapterLog(*row) for row in unpack(data, 64 * 1024))
        self.heads_log, self.receipts_log = heads, receipts


def replace_receipt(receipt: Receipt, before: ChainRef | None) -> Receipt:
    """The receipt with its place in the chain."""
    values = {name: getattr(receipt, name) for name in receipt.__struct_fields__}
    values["number"] = before.number + 1 if before else 1
    values["prev"] = before.digest if before else None
    return Receipt(**values)
