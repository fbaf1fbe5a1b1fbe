"""Sums of rows: all alike, or each times its share.

They run in float32 in row order, value by value, so every machine gets the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gossipfl.parameters import Vector

STREAM_CHUNK = 3 << 15
"""Values per chunk where one buffer meets a stream of rows: two chunks are 768 kB. Measured:
smaller ones cost calls (65,536: 5 % more time, 16,384: 25 %), larger ones gain nothing."""

GROUPED_SHARE_MIN = 1 / 1024
"""Rows with equal shares below this are not added before they are multiplied: such a share belongs
to a far row, and the sum of two far rows can overflow float32."""


def mean_of(rows: Sequence[Vector]) -> Vector:
    """float32[d]: the plain mean of the rows."""
    count = rows[0].size
    out = np.empty(count, np.float32)
    scale = np.float32(1.0 / len(rows))
    for start in range(0, count, STREAM_CHUNK):
        end = start + STREAM_CHUNK
        part = out[start:end]
        if len(rows) == 1:
            part[:] = rows[0][start:end]
            continue
        np.add(rows[0][start:end], rows[1][start:end], out=part)
        for row in rows[2:]:
            np.add(part, row[start:end], out=part)
        np.multiply(part, scale, out=part)
    return out


def combine(rows: Sequence[Vector], shares: Sequence[float]) -> Vector:
    """float32[d]: the sum of the rows times their shares; a row with share 0 is not read.

    Rows with one share are added first and multiplied together, which saves time and makes equal
    shares of all rows give the very bits of `mean_of`.
    """
    groups = _grouped(rows, shares)
    count = rows[0].size
    out = np.zeros(count, np.float32)
    buffer = np.empty(min(count, STREAM_CHUNK), np.float32)
    for start in range(0, count, STREAM_CHUNK):
        end = start + STREAM_CHUNK
        part = out[start:end]
        term = buffer[: part.size]
        for index, (share, members) in enumerate(groups):
            into = term if index else part
            if len(members) == 1:
                np.multiply(members[0][start:end], share, out=into)
            else:
                np.add(members[0][start:end], members[1][start:end], out=into)
                for row in members[2:]:
                    np.add(into, row[start:end], out=into)
                np.multiply(into, share, out=into)
            if index:
                np.add(part, term, out=part)
    return out


def _grouped(
    rows: Sequence[Vector], shares: Sequence[float]
) -> list[tuple[np.float32, list[Vector]]]:
    """(share, rows that have it), in the order of each share's first row."""
    groups: dict[tuple[float, int], list[Vector]] = {}
    for index, (row, share) in enumerate(zip(rows, shares, strict=True)):
        if share:
            alone = index if abs(share) < GROUPED_SHARE_MIN else -1
            groups.setdefault((share, alone), []).append(row)
    return [(np.float32(share), members) for (share, _), members in groups.items()]
