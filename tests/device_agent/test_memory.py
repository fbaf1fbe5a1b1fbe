"""Memory is really given back, and what is needed again still works."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys

from device_agent import memory

_SCRIPT = """
import numpy as np
import device_agent.runtime
from device_agent import memory
from device_agent.progress import rss_mb
x = np.arange(1e6).reshape(1000, 1000)
before, right = rss_mb(), (x @ x).sum()
memory.give_back()
after = rss_mb()
print(before - after, (x @ x).sum() == right)
"""


def test_code_that_only_the_start_needed_leaves_resident_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True
    )
    freed_mb, works = done.stdout.split()
    assert float(freed_mb) > 1  # about 10; a machine short of memory took some before
    assert works == "True"


async def test_connections_hold_small_buffers() -> None:
    memory.shrink_tls_buffers()
    protocol = asyncio.sslproto.SSLProtocol(
        asyncio.get_running_loop(), asyncio.Protocol(), ssl.create_default_context(), None
    )
    assert len(protocol._ssl_buffer) == memory.TLS_BUFFER_BYTES
