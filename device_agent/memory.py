"""Keeps the agent small: smaller TLS buffers, and memory given back after the start.

A third of what is resident after the start is code that only starting needs: the kernel maps
64 KiB around each first touch (fault-around) and keeps them mapped until memory is short. Dropping
such pages is what it would do itself then. They are clean, so what is needed again comes back from
the page cache by a minor fault. `script/bench idle` and `fleet` print what the agents then hold.
"""

from __future__ import annotations

import asyncio.sslproto
import ctypes
import logging
from collections.abc import Iterator
from pathlib import Path

TLS_BUFFER_BYTES = 64 * 1024  # per connection and direction of asyncio; its own is 256 KiB. TLS
# records have 16 KiB, so four of them are read at once (measured: no slower for 38 kB updates).
_MADV_DONTNEED = 4  # madvise(2)

log = logging.getLogger(__name__)


def shrink_tls_buffers() -> None:
    """For connections made from now on. asyncio keeps one such buffer for each, for its life."""
    if hasattr(asyncio.sslproto.SSLProtocol, "max_size"):
        asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES


def give_back() -> None:
    """Lets go of untouched code pages and of free heap. Takes a millisecond; never raises."""
    try:
        libc = ctypes.CDLL(None)
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for start, end in _code():
            libc.madvise(start, end - start, _MADV_DONTNEED)
        libc.malloc_trim(0)  # glibc only: elsewhere the attribute is missing
    except (OSError, AttributeError, ValueError) as error:
        log.debug("memory was not given back: %s", error)


def _code() -> Iterator[tuple[int, int]]:
    """Private, read-only, executable mappings of files: proc(5). Nobody can have written there."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[1] == "r-xp" and fields[5].startswith("/"):
            start, _, end = fields[0].partition("-")
            yield int(start, 16), int(end, 16)
