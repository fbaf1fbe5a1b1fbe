"""Telling systemd how this service is: sd_notify(3), a datagram to $NOTIFY_SOCKET.

Without that variable nothing is sent, so the same program runs under any init or none.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """READY, STOPPING, STATUS and WATCHDOG. A failure to tell never stops the service."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        given = os.environ if environment is None else environment
        self._address = given.get("NOTIFY_SOCKET", "")
        self.watchdog_s = _watchdog_s(given)

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """To be called at least twice in each `watchdog_s`."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the zero byte of an abstract address.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), address)
        except OSError as error:
            log.debug("systemd was not told: %s", error)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Seconds within which a sign of life is due (sd_watchdog_enabled(3)), or None."""
    pid, usec = environment.get("WATCHDOG_PID"), environment.get("WATCHDOG_USEC", "")
    if not usec.isdigit() or int(usec) == 0 or (pid is not None and pid != str(os.getpid())):
        return None
    return int(usec) / 1_000_000
