"""Log lines: for people on a terminal, `<N>` prefixes under journald, JSON on request.

A line that repeats is folded: shown once, then counted, then shown with its count when something
else is said or a minute has passed. A peer that fails every two seconds must not fill a disk.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

FOLD_S = 60.0  # guess: a repeated line is shown again after a minute
_LEVELS = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
_CRITICAL = 2  # sd-daemon(3) prefixes; syslog's numbers
ROOT_NAMES = ("gossipfl", "device_agent")
_LINE_MAX = 2_000  # guess: a peer's words may be in it


def set_up(level: str, form: str, stream: TextIO | None = None) -> None:
    """Logging of this process to `stream` (stderr). `form`: auto, human, journald or json."""
    out = stream or sys.stderr
    if form == "auto":
        form = "journald" if _is_journal(out) else "human"
    handler = FoldingHandler(out, _FORMS[form](out), time.monotonic)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)  # of libraries, only what matters
    for name in ROOT_NAMES:
        logging.getLogger(name).setLevel(level.upper())


def _is_journal(stream: TextIO) -> bool:
    """Whether the stream leads to journald: $JOURNAL_STREAM is its device and inode."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class FoldingHandler(logging.Handler):
    """Writes records, folding equal ones that follow each other. `clock`: monotonic seconds."""

    def __init__(
        self,
        stream: TextIO,
        formatter: logging.Formatter,
        clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self._stream = stream
        self._clock = clock
        self._last: tuple[int, str] | None = None
        self._shown_at = 0.0
        self._folded: list[logging.LogRecord] = []  # the newest one only
        self._count = 0
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        key = (record.levelno, record.getMessage())
        now = self._clock()
        if key == self._last and record.exc_info is None and now - self._shown_at < FOLD_S:
            self._folded = [record]
            self._count += 1
            return
        self._unfold()
        self._write(record)
        self._last, self._shown_at = key, now

    def flush(self) -> None:
        self._unfold()

    def close(self) -> None:
        self._unfold()
        super().close()

    def _unfold(self) -> None:
        if not self._count:
            return
        last, count = self._folded[0], self._count
        self._folded, self._count = [], 0
        message = f"{last.getMessage()} (and {count} more times)"
        self._write(
            logging.LogRecord(
                last.name, last.levelno, last.pathname, last.lineno, message, None, None
            )
        )

    def _write(self, record: logging.LogRecord) -> None:
        try:
            self._stream.write(self.format(record) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # stderr is gone: there is nobody to tell


class _Human(logging.Formatter):
    """`12:30:05 message`; warnings are marked by a word, and by colour on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S")
        self._colour = stream.isatty() and not os.environ.get("NO_COLOR")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)[:_LINE_MAX]
        if record.levelno < logging.WARNING:
            return text
        stamp, _, message = text.partition(" ")
        word = record.levelname.lower()
        if self._colour:
            word = f"\x1b[{'33' if record.levelno == logging.WARNING else '31'}m{word}\x1b[0m"
        return f"{stamp} {word}: {message}"


class _Journald(logging.Formatter):
    """`<6>message`: journald keeps the time itself. Each line of a traceback has its prefix."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__("%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_LEVELS.get(record.levelno, _CRITICAL)}>"
        return "\n".join(prefix + line[:_LINE_MAX] for line in super().format(record).splitlines())


class _Json(logging.Formatter):
    def __init__(self, stream: TextIO) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_LINE_MAX],
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


_FORMS: dict[str, Callable[[TextIO], logging.Formatter]] = {
    "human": _Human,
    "journald": _Journald,
    "json": _Json,
}
