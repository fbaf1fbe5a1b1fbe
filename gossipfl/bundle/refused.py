"""Why a bundle was not accepted: a typed reason and a sentence."""

from __future__ import annotations

from enum import StrEnum

from gossipfl.errors import UserError


class Reason(StrEnum):
    """The value is what verdict files, status and tests name."""

    OVERSIZED = "oversized"
    ARCHIVE = "not a bundle archive"
    NAME = "file name not allowed"
    MANIFEST = "bad manifest"
    HASH = "wrong hash"
    UNSIGNED = "not signed"
    SIGNATURE = "wrong signature"
    SIGNER = "signer not an operator of this fleet"
    MALFORMED = "not an ONNX model"
    VERSION = "opset or IR version not allowed"
    DOMAIN = "operator domain not allowed"
    OPERATOR = "operator not allowed"
    CONSTRUCT = "model feature not allowed"
    EXTERNAL = "external data"
    TOO_LARGE = "too many nodes or elements"
    SHAPE = "shape not static or not as declared"
    INTERFACE = "inputs or outputs not as declared"
    BUDGET = "over its budget or this device's"
    CRASHED = "dry run died"
    TIMEOUT = "dry run took too long"
    RUNTIME = "onnxruntime refused it"
    SELFTEST = "self-test differs"


# A refusal of the same bytes would come out the same: worth remembering. The others may be chance
# (a busy machine) or a limit that its owner raises, and are tried again.
LASTING = frozenset(Reason) - {Reason.CRASHED, Reason.TIMEOUT, Reason.BUDGET, Reason.RUNTIME}


class BundleRefused(UserError):
    """The bundle fails a check. `reason` for programs, `cause` for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__("GF401", f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
