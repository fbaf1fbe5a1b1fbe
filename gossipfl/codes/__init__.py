"""The registry of error codes: for each what happened, what to do next, and the exit code.

GF0 ourselves, GF1 usage and config, GF2 identity and enrolment, GF3 network, GF4 bundle and data,
GF5 store, GF6 privacy, GF7 fleet and policy, GF8 the hub, GF9 the audit log. A test checks that
each has title and hint and that code raises it.
"""

from __future__ import annotations

from gossipfl.codes.audit import AUDIT
from gossipfl.codes.device import DEVICE
from gossipfl.codes.entry import ErrorEntry, Exit
from gossipfl.codes.hub import HUB

ERRORS: dict[str, ErrorEntry] = {**DEVICE, **HUB, **AUDIT}

__all__ = ["ERRORS", "ErrorEntry", "Exit"]
