"""What is sent: one JSON object, the same at every try, and how a receiver knows whose it is."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

from gossipfl.hub.alerts.tracking import MORE, Incident, device_of
from gossipfl.hub.page.finding import Finding, Kind, Level

SCHEMA = 1
SIGNATURE = "X-Gossipfl-Signature"
KEY = "Idempotency-Key"
_UNNAMED = {
    Kind.QUARANTINE: "A device is kept out of the merges",
    Kind.BUDGET: "A device is near the end of its privacy budget",
    Kind.SILENCE: "A device was not heard of",
    Kind.LOG: "The audit log needs a look",
}
_EVENTS = {"firing": "ALERT", "escalated": "WORSE", "resolved": "ended", "test": "test"}


@dataclass(frozen=True, slots=True)
class Message:
    """`key` is the same for each repetition of it; `body` is what was made once."""

    key: str
    body: str

    @property
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Composer:
    """`fleet`: the fleet's id in hex; `hub`: this hub's name; `page_url`: "" for no links."""

    def __init__(self, fleet: str, hub: str, page_url: str, *, name_devices: bool) -> None:
        self._fleet = fleet
        self._hub = hub
        self._page_url = page_url.rstrip("/")
        self._names = name_devices

    def body(self, incident: Incident, event: str, at: int) -> str:
        """What is sent of `incident`: `event` is firing, escalated, resolved or test."""
        f = incident.finding
        title, words, link = f.title, f.words, f.link
        device = device_of(f)
        if not self._names and f.kind in _UNNAMED and f.subject != MORE:
            title, words, link = _UNNAMED[f.kind], "The page says which, and why.", ""
            device = None
        return json.dumps(
            {
                "schema": SCHEMA,
                "id": incident.id,
                "event": event,
                "kind": f.kind.value,
                "level": f.level.value,
                "title": title,
                "words": words,
                "device": device,
                "since": incident.began,
                "at": at,
                "fleet": self._fleet,
                "hub": self._hub,
                "link": f"{self._page_url}{_place(link)}" if self._page_url else "",
            },
            ensure_ascii=False,
        )


def _place(link: str) -> str:
    return link if link.startswith("/") else f"/{link}"


def trial(identity: str, now: int) -> Incident:
    """What `gossipfl hub alerts test` sends."""
    finding = Finding(
        Kind.TASK,
        "test",
        Level.NOTE,
        "A test alert",
        "Somebody asked for it with `gossipfl hub alerts test`: nothing is wrong.",
    )
    return Incident(identity, finding, now, fired=now)


def signature(secret: bytes, body: bytes, at: int) -> str:
    """`t=TIME,v1=HEX`: HMAC-SHA-256 of `TIME.BODY`. A receiver refuses old times, so that what was
    recorded cannot be sent again later."""
    mac = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"


def subject_line(content: dict[str, Any]) -> str:
    """Of a mail: short, and on one line whatever the words hold."""
    text = f"[gossipfl] {_EVENTS.get(content['event'], 'alert')}: {content['title']}"
    return "".join(c if c.isprintable() else " " for c in text)[:150]


def text(content: dict[str, Any]) -> str:
    """Of a mail."""
    lines = [content["title"], "", content["words"], ""]
    if content["device"]:
        lines.append(f"device: {content['device']}")
    lines += [f"kind: {content['kind']}, level: {content['level']}, event: {content['event']}"]
    if content["link"]:
        lines += ["", content["link"]]
    lines += ["", f"hub {content['hub']}, alert {content['id']}"]
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines) + "\n"
