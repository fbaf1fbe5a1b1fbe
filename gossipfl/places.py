"""Where a peer may be reached, and who said so."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Address(NamedTuple):
    """Where a peer may be reached: an IP address or name, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Source(StrEnum):
    """How an address came to us. Only a `STATIC` one is never forgotten."""

    MDNS = "mdns"
    STATIC = "static"
    RECORD = "record"
