"""What the demo sees of its fleet: each agent's own status, and what the others say of it.

Everything comes through each agent's local socket, as `gossipfl status` and `gossipfl peers` get
it. A device that does not answer is shown with its last words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.demo.places import Place
from sim.demo.processes import Child
from sim.demo.table import Row

_TIME_LEFT = re.compile(r" \(\d+ s left\)$")
SHUT_OUT = ("quarantined", "condemned", "revoked")
Status = Mapping[str, Any]
Ask = Callable[[Place], Status | None]


@dataclass(slots=True)
class Watched:
    """One device over time. Instants are seconds since the demo began."""

    place: Place
    child: Child
    status: Status | None = None
    first_round_s: float | None = None
    finished_s: float | None = None
    rss_mb: float | None = None
    quarantined_by: dict[str, tuple[float, str]] = field(default_factory=dict)
    """observer -> (when first seen so, why), honest observers only"""
    restarts: int = 0
    died_at: float | None = None

    def value(self, key: str, default: Any = None) -> Any:
        found = (self.status or {}).get(key)
        return default if found is None else found


class Watch:
    """Polls the fleet. `ask` gives a device's status, or None if it does not answer."""

    def __init__(self, fleet: Sequence[Watched], ask: Ask) -> None:
        self.fleet = list(fleet)
        self._ask = ask
        self._by_device = {w.place.device: w for w in self.fleet}

    @property
    def honest(self) -> list[Watched]:
        return [w for w in self.fleet if not w.place.is_liar]

    @property
    def liars(self) -> list[Watched]:
        return [w for w in self.fleet if w.place.is_liar]

    def look(self, now: float, rounds: int) -> list[str]:
        """Ask everybody once; what happened for the first time, in words.

        `rounds`: how many a device must have merged to be finished.
        """
        before = {w.place.device: len(w.quarantined_by) for w in self.fleet}
        for watched in self.fleet:
            answer = self._ask(watched.place)
            if answer is None:
                continue
            watched.status = answer
            watched.rss_mb = watched.child.rss_mb() or watched.rss_mb
            done = int(watched.value("base_round", 0))
            if done >= 1 and watched.first_round_s is None:
                watched.first_round_s = now
            if (done >= rounds or answer.get("finished")) and watched.finished_s is None:
                watched.finished_s = now
            if not watched.place.is_liar:
                self._hear(watched, now)
        return [
            f"after {now:.0f} s {w.place.name} is quarantined: {min(w.quarantined_by.values())[1]}"
            for w in self.fleet
            if w.quarantined_by and not before[w.place.device]
        ]

    def _hear(self, observer: Watched, now: float) -> None:
        for peer in observer.value("peers", ()):
            accused = self._by_device.get(peer["device"])
            if accused is not None and peer["state"] in SHUT_OUT:
                told = (now, _reason(peer["why"]))
                accused.quarantined_by.setdefault(observer.place.device, told)

    def rows(self) -> list[Row]:
        """The table, honest devices first."""
        return [self._row(watched) for watched in self.fleet]

    def _row(self, watched: Watched) -> Row:
        opinions = self._opinions(watched.place.device)
        now_out = sum(peer["state"] in SHUT_OUT for peer in opinions)
        state = watched.value("phase", "starting") if watched.child.is_alive else "gone"
        return Row(
            device=watched.place.name,
            state=state,
            round=int(watched.value("round", 0)),
            accuracy=watched.value("accuracy"),
            alone=watched.value("alone_accuracy"),
            reputation=_mean([_standing(peer) for peer in opinions]),
            peers=sum(peer["state"] == "live" for peer in watched.value("peers", ())),
            sent=int(watched.value("bytes_sent", 0)),
            note=self._note(watched, opinions, now_out),
            is_liar=watched.place.is_liar,
            is_quarantined=now_out > 0,
        )

    def _opinions(self, device: str) -> list[Mapping[str, Any]]:
        """What each honest device says of this one."""
        return [
            peer
            for observer in self.honest
            for peer in observer.value("peers", ())
            if peer["device"] == device
        ]

    def _note(self, watched: Watched, opinions: Sequence[Mapping[str, Any]], now_out: int) -> str:
        if now_out:
            return f"quarantined by {now_out} of {len(self.honest)}"
        if watched.place.is_liar:
            return "THE LIAR"
        if not watched.child.is_alive:
            return "its process ended"
        waiting = watched.value("waiting_for", "") or watched.value("listen_only", "")
        return f"waits for {waiting}" if waiting else ""


def _standing(peer: Mapping[str, Any]) -> float:
    """Reputation, 0 to 1; a device that is shut out is asked for nothing."""
    return 0.0 if peer["state"] in SHUT_OUT else float(peer["reputation"])


def _reason(why: str) -> str:
    """Without the time that is left: that changes each second, and the reason does not."""
    return _TIME_LEFT.sub("", why)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
