"""How the audit room says no."""

from __future__ import annotations


class AuditRefused(ValueError):
    """Bytes that are no valid proof, note, tile, entry or export; the message says why."""
