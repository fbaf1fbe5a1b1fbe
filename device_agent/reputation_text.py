"""`reputation` and `quarantine` for people, at 80 columns: plain dicts in, text out."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from device_agent.status_text import WIDTH, Paint, duration, size

Peer = Mapping[str, Any]
_LABEL = 12
_BAD = ("quarantined", "condemned", "revoked")


def reputation_text(peers: Sequence[Peer], paint: Paint) -> str:
    """One line per peer, those with something against them first; reasons below."""
    if not peers:
        return "no peers yet"
    lines = [paint(f"{'device':<9}  {'state':<11}  {'rep':>4}  {'gave':>5}  cause", "dim")]
    for peer in sorted(peers, key=lambda p: (p["reputation"], p["device"])):
        lines.append(
            f"{peer['device'][:9]}  {_state(peer, paint)}  {peer['reputation']:4.2f}  "
            f"{peer['contribution']:5.1%}  {peer['cause'] or '-'}"
        )
        lines += _reason(peer["why"])
    lines.append("")
    lines.append("rep 1 is a newcomer's, and nobody has more; gave is its part of what all peers")
    lines.append("gave us: half by its part in our merges, half by the bytes it served.")
    return "\n".join(lines)


def quarantine_text(peers: Sequence[Peer], paint: Paint) -> str:
    """Who is shut out, for how long, why."""
    if not peers:
        return "nobody is shut out at this device"
    lines = [paint(f"{'device':<35}  {'state':<11}  {'left':>6}  cause", "dim")]
    for peer in peers:
        left = peer["quarantine_left_s"]
        lines.append(
            f"{peer['device']:<35}  {_state(peer, paint)}  "
            f"{'-' if left is None else duration(left):>6}  {peer['cause'] or '-'}"
        )
        lines += _reason(peer["why"])
    return "\n".join(lines)


def peer_text(peer: Peer, paint: Paint) -> str:
    """All that this device knows of one peer."""
    rows = [
        ("device", peer["device"]),
        ("state", peer["state"]),
        ("reputation", f"{peer['reputation']:.2f} of a newcomer's{_weight(peer)}"),
        ("suspected", _suspected(peer)),
        ("evidence", _evidence(peer)),
        ("updates", _updates(peer)),
        ("answers", f"{peer['available']:.0%} of our requests, of late"),
        ("gave", _gave(peer)),
    ]
    faults = ", ".join(f"{count} x {fault}" for fault, count in peer["faults"].items())
    if faults:
        rows.append(("faults", faults))
    lines = [_row(label, text, paint) for label, text in rows]
    lines += [_row("history" if n == 0 else "", text, paint) for n, text in enumerate(_past(peer))]
    return "\n".join(lines)


def _row(label: str, text: str, paint: Paint) -> str:
    lines = textwrap.wrap(text, WIDTH - _LABEL) or [""]
    lead = paint(label.ljust(_LABEL), "dim")
    return "\n".join(
        (lead if number == 0 else " " * _LABEL) + line for number, line in enumerate(lines)
    )


def _state(peer: Peer, paint: Paint) -> str:
    state: str = paint(f"{peer['state']:<11}", "red" if peer["state"] in _BAD else "green")
    return state


def _reason(why: str) -> list[str]:
    return [f"    {line}" for line in textwrap.wrap(why, WIDTH - 4)]


def _weight(peer: Peer) -> str:
    weight = peer["weight"]
    if weight == 0.0:
        return "; it is not asked"
    return "" if weight == 1.0 else f"; it is asked {weight:.2f} times as often as one"


def _suspected(peer: Peer) -> str:
    if not peer["cause"] and not peer["why"]:
        return "of nothing"
    return f"{peer['cause']}: {peer['why']}" if peer["cause"] else str(peer["why"])


def _evidence(peer: Peer) -> str:
    found = ", ".join(f"{name} {value:.2f}" for name, value in peer["evidence"].items())
    count = peer["quarantines"]
    times = "never in quarantine" if not count else f"{count} times in quarantine"
    return f"{found}; {times}"


def _updates(peer: Peer) -> str:
    if peer["round"] is None:
        return "none yet"
    parts = [f"the newest is of its round {peer['round']}"]
    if peer["update_age_s"] is not None:
        parts.append(f"{duration(peer['update_age_s'])} old")
    if peer["latency_s"] is not None:
        parts.append(f"comes {duration(peer['latency_s'])} after ours")
    if peer["distance"] is not None:
        parts.append(f"{peer['distance']:.2f} of the median distance from us")
    return ", ".join(parts)


def _gave(peer: Peer) -> str:
    return (
        f"influence {peer['influence']:.1%} in the merges it was in, {peer['share']:.1%} of the "
        f"way of all our merges, {size(peer['served_bytes'])} served; "
        f"{peer['contribution']:.1%} of what all peers gave"
    )


def _past(peer: Peer) -> list[str]:
    """Its history, the newest first."""
    return [
        f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z "
        + (f"{cause}: {words}" if cause else words)
        for at, cause, words in reversed(peer["history"])
    ]
