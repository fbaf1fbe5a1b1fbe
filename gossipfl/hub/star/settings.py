"""How a hub runs star mode. What is learnt, by which rule, is in the signed policy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StarSettings:
    """Seconds, versions and budgets; each default with where it comes from."""

    round_s: float = 30.0  # protocol, preset lan: a round is merged then, if a quorum is there
    live_s: float = 300.0  # guess, ten rounds: who was not seen for longer is not waited for
    versions_kept: int = 50  # guess: global models kept whole beside checkpoints
    rounds_kept: int = 3  # protocol "the newest 3": rounds whose updates are kept whole
    global_epsilon: float | None = None  # of all clients' releases together; None: no such budget
    hub: bytes = bytes(16)  # the hub's device, which made the models that the log tells of
    invitation_uses_max: int = 10_000  # as clients
