"""`gossipfl audit export`: the whole log in one file, for an auditor."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from gossipfl.cli.audit_logs import OpenLog, fleet_of_log, with_log
from gossipfl.cli.output import Result
from gossipfl.errors import UserError


def export(args: Namespace) -> Result:
    """A tar, as docs/reference/audit-log.md describes it. A hub's log notes that it was taken."""
    return with_log(args.log, lambda log: _export(log, args.output, not args.no_payloads))


async def _export(log: OpenLog, output: Path, payloads: bool) -> Result:
    import os

    from gossipfl.audit.exports import Exporter
    from gossipfl.audit.opened import ExportReader

    fleet = await fleet_of_log(log)
    if isinstance(log.reader, ExportReader) and payloads and not log.reader.about.payloads:
        raise UserError("GF903", "that export has no payloads", "export with --no-payloads")
    written = 0
    partial = output.with_name(f".{output.name}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        erasures = -1
        while erasures != (erasures := await _erasures(log)):
            # What entries say may be about somebody: readable by its owner alone.
            with os.fdopen(os.open(partial, flags, 0o600), "wb") as file:
                written = 0
                async for chunk in Exporter(log.reader, fleet, payloads).chunks():
                    written += file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        partial.replace(output)
    except OSError as error:
        raise UserError("GF215", f"{output}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    if log.database is not None:
        await _note_export(log, payloads, written)
    data = {"file": str(output), "bytes": written, "payloads": payloads, "fleet": fleet.hex()}
    hint = f"gossipfl audit verify {output} --hub-key FILE"
    return Result(data, f"written to {output}, {written} bytes: {hint}")


async def _erasures(log: OpenLog) -> int:
    """How many there were: an export that was being written meanwhile is written again, since it
    ends before the entry that explains what it misses."""
    if log.database is None:
        return 0
    from gossipfl.hub import pseudonyms

    async with log.database.transaction(write=False) as transaction:
        return await pseudonyms.erasures(transaction)


async def _note_export(log: OpenLog, payloads: bool, written: int) -> None:
    """Who took an export is itself an entry."""
    import time

    from gossipfl.audit.entries import EntryKind, account_subject
    from gossipfl.cli.user import by_hand
    from gossipfl.hub.log.said import Said, say

    if log.database is None:
        return
    told: Said = {"action": "export", "bytes": written, "payloads": payloads}
    async with log.database.transaction() as transaction:
        about = account_subject(by_hand())
        await say(transaction, EntryKind.EXPORT, told, int(time.time()), about=about)
