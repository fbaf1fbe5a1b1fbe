"""What `status` and `peers` say, as plain data: the node's own view, and what only the agent knows.

Local figures (accuracy, the alone reference, examples) are for the owner of this device: they go to
the local socket and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

from device_agent.progress import Progress, rss_mb, seconds_since_start
from gossipfl import __version__
from gossipfl.interfaces import Evaluation
from gossipfl.view import View


class Local(Protocol):
    """What the agent's trainer knows about its data (`local_training.LocalTrainer`)."""

    examples: tuple[int, int]

    @property
    def alone(self) -> Evaluation | None: ...
    @property
    def alone_is_done(self) -> bool: ...
    @property
    def problem(self) -> str: ...
    def measured(self, model: str | None) -> Evaluation | None: ...


def build(
    view: View,
    traffic: Mapping[str, int],
    progress: Progress,
    local: Local | None,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The data of `status --json`. `traffic` are the wire's counters, `more` the agent's facts."""
    alone = local.alone if local else None
    # After a restart the node has a model and no figures yet: those measured before it stopped.
    before = local.measured(view.base) if local and view.accuracy is None else None
    accuracy = before.accuracy if before else view.accuracy
    loss = before.loss if before else view.loss
    trained, held_out = local.examples if local else (0, 0)
    return {
        **_plain(asdict(view)),
        "accuracy": accuracy,
        "loss": _number(loss) if loss is not None else None,
        "together_accuracy": accuracy,
        "alone_accuracy": alone.accuracy if alone else None,
        "alone_loss": _number(alone.loss) if alone else None,
        "alone_is_done": local.alone_is_done if local else False,
        "examples": {"training": trained, "held_out": held_out},
        "data_problem": local.problem if local else "",
        "seconds_to_ready": _seconds(progress.ready_s),
        "seconds_to_first_training": _seconds(progress.first_training_s),
        "seconds_to_first_round": _seconds(progress.first_round_s),
        "seconds_to_last_round": _seconds(progress.last_round_s),
        "uptime_s": _seconds(seconds_since_start()),
        "bytes_sent": traffic.get("bytes_sent", 0),
        "bytes_received": traffic.get("bytes_received", 0),
        "updates_served": traffic.get("updates_served", 0),
        "traffic": dict(traffic),
        "rss_mb": round(rss_mb(), 1),
        "version": __version__,
        **more,
    }


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """JSON types only."""
    match value:
        case float():
            return _number(value)
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case bytes():
            return value.hex()
    return value
