"""Codec names, as policies and heads bear them: `[partial:SHARE+]f32|bf16|int8[+zlib]`.

One spelling per codec, so that the name is compared as text: "int8", "bf16+zlib",
"partial:0.25+int8".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

BLOCK = 512
"""Values that share one int8 scale: guess, costs 0.8 % of the bytes."""
SHARES: dict[str, int] = {"0.5": 2, "0.25": 4, "0.2": 5, "0.125": 8, "0.1": 10}
"""share of the coordinates per publish -> parts that the vector is cut into"""
DIGEST_BYTES = 32


class CodecError(ValueError):
    """No codec has this name, or a vector is none that a codec takes."""


class Values(StrEnum):
    """How one value is written."""

    F32 = "f32"
    BF16 = "bf16"
    INT8 = "int8"


WIDTHS: dict[Values, int] = {Values.F32: 4, Values.BF16: 2, Values.INT8: 1}
"""bytes per value"""


@dataclass(frozen=True, slots=True)
class Codec:
    """A parsed name. `parts` is 1 unless the codec is partial."""

    name: str
    values: Values
    parts: int
    zlib: bool

    def slots(self, count: int) -> int:
        """Values in one object of a vector of `count`: the last part is filled up with zeros."""
        return -(-count // self.parts)

    @property
    def names_bytes(self) -> int:
        """The part's number and the digests of the other parts, which follow the header."""
        return 1 + DIGEST_BYTES * (self.parts - 1) if self.parts > 1 else 0

    def scale_bytes(self, count: int) -> int:
        """The float32 scales of one object, one per block."""
        return 4 * -(-self.slots(count) // BLOCK) if self.values is Values.INT8 else 0

    def body_bytes(self, count: int) -> int:
        """Everything behind the header; with zlib it may be less."""
        width = WIDTHS[self.values]
        return self.names_bytes + self.scale_bytes(count) + width * self.slots(count)


@lru_cache(maxsize=64)
def parse(name: str) -> Codec:
    """Raises CodecError, with what is offered instead."""
    left = name.split("+")
    parts = 1
    if left[0].startswith("partial:"):
        parts = SHARES.get(left.pop(0).removeprefix("partial:"), 0)
    values = left.pop(0) if left else ""
    zlib = left == ["zlib"]
    if parts and values in list(Values) and (zlib or not left):
        return Codec(name, Values(values), parts, zlib)
    raise CodecError(f"codec {name[:40]!r} is not known here: {_offer(name)}")


def _offer(name: str) -> str:
    if "zstd" in name:
        return "zlib leaves as few bytes as zstd and needs no package: end the name in +zlib"
    if name.startswith("partial:"):
        return f"partial:SHARE+f32|bf16|int8[+zlib], SHARE one of {', '.join(SHARES)}"
    return "[partial:SHARE+]f32|bf16|int8[+zlib]"


def problem(name: str) -> str:
    """Why this node cannot follow a policy with this codec, or ""."""
    try:
        parse(name)
    except CodecError as error:
        return str(error)
    return ""
