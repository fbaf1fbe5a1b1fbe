"""Fleet time: wall clocks may be wrong, so only verified statements and a plausible wall clock can
move it, and it never goes back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median_low

NEAR_S = 900
"""A wall clock this near to the fleet's median is believed: guess, three times the 5 min of skew
that the fault table asks for."""
VOICES_MIN = 3  # heads of so many devices outvote our wall clock, and one liar among them
HEARD_MAX = 64


@dataclass(slots=True)
class _Voice:
    """What one device's newest head says of the time."""

    seq: int
    heard_at: float
    offset: float  # issued minus the monotonic time when it was heard
    is_now: bool  # signed while we watched; else it may be days old, and is a lower bound only


class FleetClock:
    """Seconds since the epoch as the fleet sees it; its floor never goes back, over restarts too.

    A head says when it was signed, not what time it is: one heard for the first time may have been
    lying there since before a whole site was switched off. So it is a lower bound, and only a head
    whose number grew between two looks can contradict our wall clock.

    A wall clock that nobody has confirmed only serves until somebody is heard: it never raises the
    floor, so that a board that boots ten years ahead finds back. Nor does one voice alone. Neither
    gets past `ceiling`, the end of our own membership: beyond it everybody would look expired.
    """

    def __init__(self, ceiling: float = math.inf) -> None:
        self.floor = 0
        self._ceiling = ceiling
        self._good = 0.0
        self._good_at = 0.0
        self._confirmed = False
        self._heard: dict[bytes, _Voice] = {}

    def raise_floor(self, seconds: int) -> None:
        """A trusted lower bound: the durable floor, or when our own membership was issued."""
        self.floor = max(self.floor, seconds)

    def hear_issued(self, device: bytes, seq: int, issued: int, now: float) -> None:
        """A verified head says when it was signed over there. One voice per device."""
        before, offset = self._heard.get(device), issued - now
        if before is None:
            if len(self._heard) >= HEARD_MAX:
                self._heard.pop(next(iter(self._heard)))
            self._heard[device] = _Voice(seq, now, offset, is_now=False)
        elif seq > before.seq:
            if now - before.heard_at <= NEAR_S:
                self._heard[device] = _Voice(seq, now, offset, is_now=True)
            else:  # signed at any time since the one before
                offset = max(offset, before.offset)
                self._heard[device] = _Voice(seq, now, offset, before.is_now)

    def hear_wall(self, wall: float, now: float) -> None:
        """Our own wall clock: believed alone for now, or near the median of what others say."""
        if not self._heard:
            self._move(wall, now, confirmed=False)
            return
        earliest = now + median_low(voice.offset for voice in self._heard.values())
        voices = [voice.offset for voice in self._heard.values() if voice.is_now]
        if not voices:
            self._move(max(wall, earliest), now, confirmed=False)
            return
        fleet = max(now + median_low(voices), earliest)
        near = abs(wall - fleet) <= NEAR_S
        self._move(wall if near else fleet, now, confirmed=near or len(voices) >= VOICES_MIN)

    def _move(self, good: float, now: float, confirmed: bool) -> None:
        # What is below the floor still ends an earlier, unconfirmed belief: it counts as the floor.
        self._good, self._good_at, self._confirmed = max(good, float(self.floor)), now, confirmed

    def exact(self, now: float) -> float:
        """As `time`, with its fraction where there is one: for what many do at the same time."""
        whole, since = self.time(now), self._good + (now - self._good_at)
        return since if int(since) == whole else float(whole)

    def time(self, now: float) -> int:
        """Fleet time at monotonic `now`."""
        since = self._good + (now - self._good_at) if self._good else 0.0
        if not self._confirmed:
            return max(self.floor, int(min(since, self._ceiling)))
        time = int(since)
        if time <= self.floor:
            return self.floor
        self.raise_floor(int(min(time, self._ceiling)))
        return time
