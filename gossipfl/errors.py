"""What can go wrong, and whose fault it is.

Blame is a type. A `LocalError` is our own bug or our own disk: loud, never charged to anybody. A
`PeerError` is theirs: it carries the peer and a `Fault`, costs that peer reputation and never
leaves `Node.handle`. A `UserError` is for the person at the keyboard: a code of the registry in
`gossipfl.codes`, what happened, and what to do next.
"""

from __future__ import annotations

from enum import StrEnum

from gossipfl.codes import ERRORS as ERRORS
from gossipfl.codes import ErrorEntry as ErrorEntry
from gossipfl.codes import Exit as Exit


class Fault(StrEnum):
    """Why a peer's bytes were not accepted. The value is what status and receipts show."""

    OVERSIZED = "oversized"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    UNKNOWN_TYPE = "unknown type"
    UNKNOWN_MEMBER = "unknown member"
    EXPIRED_MEMBER = "expired member"
    REVOKED_MEMBER = "revoked member"
    WRONG_ROLE = "wrong role"
    BAD_SIGNATURE = "bad signature"
    WRONG_FLEET = "wrong fleet"
    WRONG_DEVICE = "wrong device"
    REPLAYED_SEQ = "replayed sequence"
    WITHHELD_CHAIN = "withheld chain"
    OTHER_LINEAGE = "other lineage"
    NOT_FINITE = "not finite"
    NORM_BOUND = "norm bound"
    WRONG_DIGEST = "wrong digest"
    WRONG_LENGTH = "wrong length"
    BAD_EVIDENCE = "bad evidence"
    EQUIVOCATION = "equivocation"
    TLS_MISMATCH = "TLS key of another device"
    FALSE_SUM = "false in a group sum"
    STALE = "stale"
    STALLED = "stalled"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


class LocalError(Exception):
    """Our own fault or our own machine's: never charged to a peer."""


class StoreError(LocalError):
    """A commit failed or its outcome is unknown; the node must re-read what is durable."""


class PeerError(Exception):
    """A peer broke a rule of the protocol. `peer` is a device id, or None before it is known."""

    def __init__(self, fault: Fault, detail: str, peer: bytes | None = None) -> None:
        super().__init__(f"{fault.value}: {detail}")
        self.fault = fault
        self.detail = detail
        self.peer = peer


class SignerError(PeerError):
    """A fault of who signed it, which who passed it on could not know: nobody is charged here."""


class UserError(Exception):
    """An error a person reads: `code` of ERRORS, the concrete `cause`, and a hint."""

    def __init__(self, code: str, cause: str, hint: str | None = None) -> None:
        entry = ERRORS[code]
        super().__init__(cause)
        self.code = code
        self.cause = cause
        self.title = entry.title
        self.hint = hint or entry.hint
        self.exit = entry.exit
