"""`status` and `peers` for people, at 80 columns: plain dicts in, text out, nothing heavy."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

Paint = Any
"""`gossipfl.cli.output.Palette.paint`, or anything of its shape."""

WIDTH = 80
_LABEL = 10
_SHUT_OUT = ("quarantined", "condemned", "revoked", "blocked", "evidence")
_TRIALS = {
    "trying": "this device is a canary of the policy",
    "declined": "went back to the policy before",
    "changing": "another job begins",
}
_COLOURS = {"live": "green", "away": "dim"}
_ORDER = {"live": 1, "away": 2}  # who is shut out comes first: that is why people look
NOTE_LINES = 3
ADDRESS = 22  # columns


def status_text(status: Mapping[str, Any], paint: Paint) -> str:
    """A line for each thing a person wants to know."""
    rows = [
        ("device", status["device"]),
        ("fleet", status["fleet"]),
        ("state", _state(status)),
        ("policy", _policy(status.get("policy"))),
        *_privacy(status),
        ("model", _model(status)),
        ("accuracy", _accuracy(status)),
        ("consensus", _convergence(status.get("convergence") or {})),
        ("peers", _peers(status)),
        ("traffic", _traffic(status)),
        ("process", _process(status)),
    ]
    if status.get("trial"):
        rows.insert(4, ("trial", _trial(status["trial"])))
    for label, key in (("waits for", "waiting_for"), ("listening", "listen_only")):
        if status.get(key):
            rows.append((label, status[key]))
    for label, key in (("data", "data_problem"), ("store", "store_problem")):
        if status.get(key):
            rows.append((label, paint(f"problem: {status[key]}", "yellow")))
    return "\n".join(_row(label, text, paint) for label, text in rows)


def _row(label: str, text: str, paint: Paint) -> str:
    lines = textwrap.wrap(text, WIDTH - _LABEL) or [""]
    lead = paint(label.ljust(_LABEL), "dim")
    return "\n".join(
        (lead if number == 0 else " " * _LABEL) + line for number, line in enumerate(lines)
    )


def _state(status: Mapping[str, Any]) -> str:
    if status.get("finished"):
        cause = status.get("stopping", {}).get("cause")
        why = f": {status['finished_why']}" if cause != "rounds" else ""
        return f"finished after {status['round']} rounds, head {status['seq']}{why}"
    return f"round {status['round']}, {status['phase']}, head {status['seq']}"


def _policy(policy: Mapping[str, Any] | None) -> str:
    if policy is None:
        return "none yet"
    rounds = f", {policy['rounds']} rounds" if policy.get("rounds") else ""
    return (
        f"{policy['term']}.{policy['version']}, run {policy['run']}: rule {policy['rule']}, "
        f"{policy['n']} devices, {policy['attackers']} assumed attackers{rounds}"
    )


def _trial(trial: Mapping[str, Any]) -> str:
    """Of a canary, and of who changes its job: which model it answers with."""
    told = _TRIALS[trial["state"]] + (f": {trial['why']}" if trial["why"] else "")
    if trial["state"] == "declined":
        return told
    return f"{told}; the {'model from before' if trial['serves'] == 'old' else 'new model'} serves"


def _privacy(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nothing where there is no privacy: the policy's line says enough."""
    asked = (status.get("policy") or {}).get("privacy") or {"mode": "off"}
    count = status.get("releases", 0)
    spent = f"{count} release{'' if count == 1 else 's'} in the ledger"
    if asked["mode"] == "off":
        return [("privacy", f"off; {spent}")] if count else []
    if asked.get("sums") is not None:
        return _sums(asked, status.get("sums") or {}, spent)
    return [
        (
            "privacy",
            f"{asked['mode']}, unit {asked['unit']}, epsilon {asked['epsilon']:g} at most; {spent}",
        )
    ]


def _sums(asked: Mapping[str, Any], state: Mapping[str, Any], spent: str) -> list[tuple[str, str]]:
    """Group sums: how they go, and how few attackers the fleet bears with them."""
    sums, made = asked["sums"], state.get("sums", 0)
    text = f"group-sum, {sums['groups']} groups of about {sums['size']}; "
    text += f"{made} sum{'' if made == 1 else 's'} since the start"
    if state.get("listening"):
        text += f"; takes no part: {state['listening']}"
    if sums["noise"]:
        text += f"; noise beside it, epsilon {asked['epsilon']:g} at most; {spent}"
    return [("privacy", text), ("mind", sums["warning"])]


def _model(status: Mapping[str, Any]) -> str:
    if not status.get("base"):
        return "none yet"
    return f"the merge of round {status['base_round']} (base {status['base'][:12]})"


def _convergence(figures: Mapping[str, Any]) -> str:
    """How far apart the fleet's models are, as seen in the last merge."""
    relative, slope = figures.get("relative"), figures.get("slope")
    if relative is None:
        return "not known yet"
    change = "" if slope is None else f", {slope:+.1%} a round"
    moved = [
        f"{name} moved {value:.3g}"
        for name, value in (
            ("the base", figures.get("step_norm")),
            ("own training", figures.get("update_norm")),
        )
        if value is not None
    ]
    text = f"models {figures['distance']:.3g} apart, {relative:.1%} of the way come{change}"
    return "; ".join([text, ", ".join(moved)] if moved else [text])


def _accuracy(status: Mapping[str, Any]) -> str:
    """Together against alone; the loss where the task has no accuracy."""
    held_out = status["examples"]["held_out"]
    together, alone = status["together_accuracy"], status["alone_accuracy"]
    if together is None:
        loss = status.get("loss")
        if loss is None:
            return "not measured yet" if held_out else "no data here to measure it"
        beside = status.get("alone_loss")
        alone_text = "" if beside is None else f", alone {beside:.4g}"
        return f"held-out loss {loss:.4g} together{alone_text} ({held_out} examples)"
    if alone is None:
        return f"{together:.1%} together, on {held_out} held-out examples"
    still = "" if status["alone_is_done"] else ", still training"
    return (
        f"{together:.1%} together, {alone:.1%} alone{still} "
        f"({together - alone:+.1%}), on {held_out} held-out examples"
    )


def _peers(status: Mapping[str, Any]) -> str:
    peers = status["peers"]
    live = sum(peer["state"] == "live" for peer in peers)
    out = sum(peer["state"] in _SHUT_OUT for peer in peers)
    parts = [f"{live} live", f"{len(peers) - live - out} away"]
    if out:
        parts.append(f"{out} shut out{_causes(peers)}")
    suspects = sum(bool(peer.get("cause")) and peer["state"] not in _SHUT_OUT for peer in peers)
    if suspects:
        parts.append(f"{suspects} suspected")
    seen = sum(len(peer["addresses"]) for peer in peers) + status["candidates"]
    return (
        f"{', '.join(parts)}; {status['sample']} asked in a round, "
        f"at most {status['f']} of them assumed to lie; {_counted(seen, 'address', 'es')} seen, "
        f"{status['candidates']} of them unanswered"
    )


def _counted(count: int, name: str, plural: str) -> str:
    return f"{count} {name}{plural if count != 1 else ''}"


def _causes(peers: Sequence[Mapping[str, Any]]) -> str:
    """Of what those are convicted who are shut out."""
    found = {str(p["cause"]) for p in peers if p["state"] in _SHUT_OUT and p.get("cause")}
    return f" ({', '.join(sorted(found))})" if found else ""


def _traffic(status: Mapping[str, Any]) -> str:
    return (
        f"{size(status['bytes_sent'])} sent, {size(status['bytes_received'])} received, "
        f"{status['updates_served']} updates served"
    )


def _process(status: Mapping[str, Any]) -> str:
    first = status["seconds_to_first_round"]
    begun = "" if first is None else f", first round after {duration(first)}"
    return f"{status['rss_mb']:.0f} MB, up {duration(status['uptime_s'])}{begun}"


def peers_text(peers: Sequence[Mapping[str, Any]], paint: Paint) -> str:
    """A table of peers; a reason in words goes on lines of its own below its peer."""
    if not peers:
        return "no peers yet: see [discovery] and network.peers in the config"
    lines = [
        paint(f"{'device':<9}  {'state':<11}  {'rep':>4}  {'infl':>4}  {'dist':>4}", "dim")
        + paint(f"  {'seen':>6}  {'round':>5}  address", "dim")
    ]
    for peer in sorted(peers, key=lambda p: (_ORDER.get(p["state"], 0), p["device"])):
        lines += _peer(peer, paint)
    lines.append("")
    lines.append("rep 1 is a newcomer's reputation; infl is its share in our merges;")
    lines.append("dist is its distance to us, over the median of the last pull.")
    lines.append("`gossipfl reputation show PEER` says all that is held against one, and why.")
    return "\n".join(lines)


def _peer(peer: Mapping[str, Any], paint: Paint) -> list[str]:
    state = paint(f"{peer['state']:<11}", _COLOURS.get(peer["state"], "red"))
    seen = "-" if peer["last_seen_s"] is None else duration(peer["last_seen_s"])
    number = "-" if peer["round"] is None else str(peer["round"])
    distance = "-" if peer["distance"] is None else f"{peer['distance']:.2f}"
    address = peer["addresses"][0] if peer["addresses"] else "-"
    line = (
        f"{peer['device'][:9]}  {state}  {peer['reputation']:4.2f}  {peer['influence']:4.2f}"
        f"  {distance:>4}  {seen:>6}  {number:>5}  {shorten(address)}"
    )
    faults = ", ".join(f"{count} x {fault}" for fault, count in peer.get("faults", {}).items())
    why = f"{peer['cause']}: {peer['why']}" if peer.get("cause") else peer["why"]
    note = "; ".join(part for part in (why, faults) if part)
    if not note:
        return [line]
    wrapped = textwrap.wrap(note, WIDTH - 4, max_lines=NOTE_LINES, placeholder=" ...")
    return [line, *(f"    {part}" for part in wrapped)]


def shorten(address: str) -> str:
    """An IPv6 address may be too long for its column: its end says more than its middle."""
    if len(address) <= ADDRESS:
        return address
    return address[: ADDRESS // 2 - 1] + ".." + address[-(ADDRESS // 2) :]


def size(count: float) -> str:
    """Bytes in decimal units: 12.3 kB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1_000
    return ""


def duration(seconds: float) -> str:
    """At most five characters: 0.4 s, 12 s, 3 min, 5 h, 12 d."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for limit, unit, divisor in ((99.5, "s", 1), (5_940, "min", 60), (356_400, "h", 3_600)):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
