"""What cannot be written down is told from memory: that the disk is full.

It is told once to each channel, tried again with pauses; when there is space again it goes on in
the database. A restart in between forgets it, and tells it anew. Where the database knows of the
incident already (there was little space), it is that one which got worse.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gossipfl.hub.alerts import book
from gossipfl.hub.alerts.channels import Channel, Undelivered
from gossipfl.hub.alerts.messages import Composer, Message
from gossipfl.hub.alerts.tracking import Incident
from gossipfl.hub.page.finding import Finding

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Try:
    due: int
    tries: int = 0


class Urgent:
    """At most one incident at a time."""

    def __init__(
        self, channels: Sequence[Channel], composer: Composer, clock: Callable[[], int]
    ) -> None:
        self.incident: Incident | None = None
        self.is_known = False  # to the database
        self.sent: set[str] = set()  # names of channels
        self._channels = tuple(channels)
        self._composer = composer
        self._clock = clock
        self._tries: dict[str, _Try] = {}
        self._at = 0

    async def tell(self, found: Sequence[Finding], known: Sequence[Incident] = ()) -> None:
        """The first of `found`, to whom it was not told yet and is due. `known`: incidents that
        the database has."""
        now = self._clock()
        if self.incident is None:
            if not found:
                return
            self.incident = self._begin(found[0], known, now)
        event = "escalated" if self.is_known else "firing"
        body = self._composer.body(self.incident, event, self._at)
        message = Message(f"{self.incident.id}-{event}", body)
        for channel in self._channels:
            attempt = self._tries.setdefault(channel.name, _Try(now))
            if channel.name in self.sent or now < attempt.due:
                continue
            try:
                await channel.send(message)
                self.sent.add(channel.name)
            except Undelivered as error:
                attempt.due = now + int(book.pause_s(attempt.tries))
                attempt.tries += 1
                log.warning("alert %s was not sent by %s: %s", message.key, channel.name, error)

    def _begin(self, finding: Finding, known: Sequence[Incident], now: int) -> Incident:
        same = [i for i in known if i.finding.key == finding.key and i.fired is not None]
        self.is_known, self._at = bool(same), now
        made = (
            replace(same[0], finding=finding)
            if same
            else Incident(secrets.token_hex(16), finding, now, fired=now)
        )
        log.warning("alert (from memory): %s", finding.title)
        return made

    def forget(self) -> None:
        self.incident = None
        self.sent.clear()
        self._tries.clear()
