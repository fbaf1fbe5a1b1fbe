"""What an instance of the hub sees of itself: its disk, and its background tasks."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from gossipfl.hub.alerts.settings import AlertsSection
from gossipfl.hub.database import Database
from gossipfl.hub.page import words
from gossipfl.hub.page.finding import Finding, Kind, Level
from gossipfl.hub.settings import HubSettings
from gossipfl.hub.supervisor import Health

TASK_S = 60.0  # guess: a task that has run for so long since it failed is well again
KEEPS_FAILING = 5  # restarts in a row: guess, ten seconds of nothing but failing
MEGABYTE = 1_000_000


def rules_of(settings: HubSettings) -> AlertsSection:
    """From when on something needs a person. No checkpoint is late before three are due."""
    given = settings.alerts
    return replace(given, log_s=max(given.log_s, int(3 * settings.checkpoint_s)))


def of_disk(database: Database, state: Path, free_mb: int) -> list[Finding]:
    """A full database, or little space where the state folder lies."""
    if database.is_full:
        title = "The hub's disk is full"
        what = "It only reads until there is space. What devices keep is read later: make space."
        return [Finding(Kind.DISK, "", Level.ALARM, title, what, at_once=True)]
    try:
        usage = shutil.disk_usage(state)
    except OSError as error:
        title = "The hub's state folder cannot be read"
        return [Finding(Kind.DISK, "", Level.ALARM, title, str(error.strerror), at_once=True)]
    if usage.free >= free_mb * MEGABYTE:
        return []
    what = f"Less than {words.size(free_mb * MEGABYTE)} are free where its state lies."
    return [Finding(Kind.DISK, "", Level.WARNING, "The hub's disk is nearly full", what)]


def of_tasks(tasks: Iterable[Health]) -> list[Finding]:
    """Background tasks that failed a short while ago: each was restarted."""
    now = asyncio.get_running_loop().time()
    found = []
    for task in tasks:
        if task.failed_at is None or now - task.failed_at > TASK_S:
            continue
        keeps = task.failures >= KEEPS_FAILING
        title = f"The hub's task {task.name!r} " + ("keeps failing" if keeps else "failed")
        what = f"{task.last_failure or 'it failed'}. It was restarted. `GET /health` says more."
        level = Level.ALARM if keeps else Level.WARNING
        found.append(Finding(Kind.TASK, task.name, level, title, what, at_once=True))
    return found
