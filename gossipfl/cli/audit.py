"""`gossipfl audit`: check a hub's log, show it, prove one entry of it, without trusting the hub."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.cli import audit_export
from gossipfl.cli.audit_logs import HELP, with_log
from gossipfl.cli.output import Result
from gossipfl.cli.times import seconds
from gossipfl.errors import Exit, UserError

if TYPE_CHECKING:
    from gossipfl.audit.notes import Key
    from gossipfl.audit.reader import LogReader
    from gossipfl.audit.verification import Verdict

SHOWN = 20
SHOWN_MAX = 256  # as many as one bundle holds


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("audit", help="the hub's log: check, show, prove")
    words = parser.add_subparsers(dest="audit_verb", metavar="VERB")
    one = words.add_parser("verify", help="check an export, a proof, or a compliance report")
    one.add_argument("export", type=Path, metavar="FILE", help="an export, proof or report")
    one.add_argument("--hub-key", type=Path, required=True, metavar="FILE", help="of the log")
    one.add_argument(
        "--witness", type=Path, action="append", default=[], metavar="FILE",
        help="key of a device that must have cosigned; may be repeated",
    )  # fmt: skip
    one.add_argument(
        "--witness-age", metavar="TIME",
        help="how much older than the last checkpoint the newest one that a witness cosigned may "
        "be, as 0s, 30m, 2h, 7d; default: any age, and the answer says what it covers",
    )  # fmt: skip
    one.set_defaults(handler=verify)
    two = words.add_parser("show", help="checkpoints and entries")
    two.add_argument("log", metavar="LOG", help=HELP)
    two.add_argument("--first", type=int, metavar="N", help="default: the last entries")
    two.add_argument("--count", type=int, default=SHOWN, metavar="N", help=f"default {SHOWN}")
    two.set_defaults(handler=show)
    three = words.add_parser("prove", help="write the proof that one entry is in the log")
    three.add_argument("log", metavar="LOG", help=HELP)
    three.add_argument("entry", type=int, metavar="N", help="its index, as `show` prints it")
    three.add_argument("--closed", action="store_true", help="without what the entry says")
    three.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default entry-N.tlog-proof"
    )
    three.set_defaults(handler=prove)
    exporting = words.add_parser("export", help="write the whole log into one file for an auditor")
    exporting.add_argument("log", metavar="LOG", help=HELP)
    exporting.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    exporting.add_argument(
        "--no-payloads", action="store_true", help="without what the entries say"
    )
    exporting.set_defaults(handler=audit_export.export)
    four = words.add_parser("key", help="the keys with which a hub signs and a device cosigns")
    four.add_argument("--state", type=Path, required=True, metavar="DIR")
    four.set_defaults(handler=key)


def verify(args: Namespace) -> Result:
    """VALID and exit 0, or the first thing that is wrong and exit 1."""
    from gossipfl.audit.proofs import MAGIC, PROOF_BYTES_MAX

    hub = key_of(args.hub_key)
    witnesses = [key_of(path) for path in args.witness]
    behind_s = None if args.witness_age is None else seconds(args.witness_age)
    if behind_s is not None and not witnesses:
        raise UserError("GF100", "--witness-age says nothing without --witness")
    try:
        with args.export.open("rb") as file:
            begin = file.read(len(MAGIC))
            file.seek(0)
            if begin == MAGIC:
                return _proof_verdict(file.read(PROOF_BYTES_MAX + 1), hub, witnesses)
            if begin[:1] == b"{":
                from gossipfl.cli.audit_reports import report_verdict

                return report_verdict(file, hub)
            return _export_verdict(_verified(file, hub, witnesses, behind_s))
    except OSError as error:
        raise UserError("GF215", f"{args.export}: {error.strerror}") from error


def _verified(file: Any, hub: Key, witnesses: list[Key], behind_s: int | None) -> Verdict:
    """With what the payloads say, signatures of devices and operators included."""
    from gossipfl.audit.verification import verify_export
    from gossipfl.logged import Contents

    return verify_export(file, hub, witnesses, lambda fleet: Contents(fleet).check, behind_s)


def _export_verdict(verdict: Verdict) -> Result:
    about, problem = verdict.about, verdict.problem
    data: dict[str, Any] = {
        "valid": verdict.valid,
        "entries": verdict.entries,
        "kinds": dict(sorted(verdict.kinds.items())),
        "payloads": verdict.payloads,
        "erased": verdict.erased,
        "checkpoints": verdict.checkpoints,
        "first_time": verdict.first_time,
        "last_time": verdict.last_time,
        "log": about.origin if about else None,
        "fleet": about.fleet.hex() if about else None,
        "checkpoint_time": verdict.newest.time if verdict.newest else None,
        "witnesses": [
            {
                "name": name,
                "checkpoint": seen.number,
                "entries": seen.size,
                "time": seen.time,
                "behind_s": seen.behind_s,
            }
            for name, seen in sorted(verdict.witnesses.items())
        ],
        "entries_cosigned": verdict.cosigned,
        "problem": dataclasses.asdict(problem) if problem else None,
    }
    if problem is not None:
        at = "" if problem.entry is None else f"\nfirst bad entry: {problem.entry}"
        return Result(data, f"INVALID: {problem}{at}", Exit.NO)
    return Result(data, "\n".join(_told(verdict)))


def _told(verdict: Verdict) -> Iterator[str]:
    """What was checked, for people."""
    from gossipfl.cli.times import stamp

    about, newest = verdict.about, verdict.newest
    if about is None or newest is None:
        return
    yield f"VALID: {verdict.entries} entries of {about.origin}, fleet {about.fleet.hex()[:16]}..."
    if verdict.first_time is not None and verdict.last_time is not None:
        yield f"  from {stamp(verdict.first_time)} to {stamp(verdict.last_time)}"
        yield "  " + ", ".join(f"{n} {kind}" for kind, n in sorted(verdict.kinds.items()))
    if about.payloads:
        yield f"  {verdict.payloads} payloads opened, {verdict.erased} erased"
    else:
        yield "  without payloads: what the entries say was not looked at"
    yield f"  {verdict.checkpoints} checkpoints, the last of {stamp(newest.time)}"
    for name, seen in sorted(verdict.witnesses.items()):
        yield f"  cosigned by {name}: checkpoint {seen.number}, {seen.size} entries, " + (
            f"at {stamp(seen.time)}"
        )
    rest = newest.size - verdict.cosigned
    if verdict.witnesses and rest:
        yield (
            f"  the last {rest} entries rest on the hub's word: no witness named has cosigned them "
            "(--witness-age asks for that)"
        )
    if not verdict.witnesses:
        yield "  no witness was named: that the hub shows others the same is not checked"


def _proof_verdict(data: bytes, hub: Key, witnesses: list[Key]) -> Result:
    from gossipfl.audit.cosignatures import require_cosignature
    from gossipfl.audit.proofs import parse_proof, verify_proof
    from gossipfl.audit.refused import AuditRefused
    from gossipfl.audit.words import sentence
    from gossipfl.cli.times import stamp

    try:
        proven = verify_proof(parse_proof(data), hub)
        times = {key.name: require_cosignature(proven.signed.note, key) for key in witnesses}
    except AuditRefused as error:
        shown = {"valid": False, "problem": {"place": "proof", "entry": None, "cause": str(error)}}
        return Result(shown, f"INVALID: {error}", Exit.NO)
    checkpoint = proven.signed.checkpoint
    found: dict[str, Any] = {
        "valid": True,
        "entry": proven.index,
        "kind": proven.entry.kind.word,
        "time": proven.entry.time,
        "payload": proven.payload.hex() if proven.payload is not None else None,
        "log": checkpoint.origin,
        "checkpoint": checkpoint.number,
        "checkpoint_time": checkpoint.time,
        "witnesses": [{"name": name, "time": time} for name, time in times.items()],
        "problem": None,
    }
    said = (
        ""
        if proven.payload is None
        else f"\n  it says: {sentence(proven.entry.kind, proven.payload)}"
    )
    text = (
        f"VALID: entry {proven.index} of {checkpoint.origin}: {found['kind']}, "
        f"{stamp(proven.entry.time)}\n  in checkpoint {checkpoint.number} of "
        f"{stamp(checkpoint.time)}, cosigned by {len(times)} of the witnesses named{said}"
    )
    return Result(found, text)


def show(args: Namespace) -> Result:
    """The newest checkpoint and a page of entries."""
    if not 1 <= args.count <= SHOWN_MAX:
        raise UserError("GF100", f"--count is 1 to {SHOWN_MAX}")
    return with_log(args.log, lambda log: _page(log.reader, args.first, args.count))


async def _page(reader: LogReader, first: int | None, count: int) -> Result:
    from gossipfl.audit.checkpoints import parse_checkpoint
    from gossipfl.audit.entries import parse_entry
    from gossipfl.audit.notes import parse_note
    from gossipfl.audit.words import sentence
    from gossipfl.cli.times import stamp
    from gossipfl.identity import short_name

    number = await reader.newest()
    if number == 0:
        return Result({"entries": [], "checkpoint": None}, "the log has no checkpoint yet")
    note = parse_note(await reader.checkpoint(number))
    checkpoint = parse_checkpoint(note.text)
    start = max(0, checkpoint.size - count) if first is None else first
    end = min(checkpoint.size, start + count)
    raw = await reader.entries(start, max(start, end))
    payloads = await reader.payloads(start, max(start, end))
    rows = []
    for index, (leaf, payload) in enumerate(zip(raw, payloads, strict=True), start):
        entry = parse_entry(leaf)
        row: dict[str, Any] = {"entry": index, "time": entry.time, "kind": entry.kind.word}
        row["about"] = payload.subject.hex() if payload else None
        row["says"] = sentence(entry.kind, payload.data) if payload else None
        row["shown"] = short_name(payload.subject) if payload else "-"
        rows.append(row)
    witnesses = [s.name for s in note.signatures[1:]]
    data = {
        "log": checkpoint.origin,
        "checkpoint": checkpoint.number,
        "checkpoint_time": checkpoint.time,
        "size": checkpoint.size,
        "cosignatures": witnesses,
        "entries": [{k: v for k, v in row.items() if k != "shown"} for row in rows],
    }
    lines = [
        f"{checkpoint.origin}: {checkpoint.size} entries, checkpoint {checkpoint.number} of "
        f"{stamp(checkpoint.time)}, {len(witnesses)} cosignatures"
    ]
    lines += [
        f"{row['entry']:>8}  {stamp(row['time'])}  {row['kind']:<10}  {row['shown']:<9}  "
        f"{row['says'] or 'erased, or not in this export'}"
        for row in rows
    ]
    return Result(data, "\n".join(lines))


def prove(args: Namespace) -> Result:
    """A C2SP tlog-proof in a file, for `verify` here or elsewhere."""
    from gossipfl.fleet import files

    encoded = with_log(args.log, lambda log: _proof(log.reader, args.entry, args.closed))
    output = args.output or Path(f"entry-{args.entry}.tlog-proof")
    # What an entry says may be about somebody: readable by its owner alone.
    files.write_file(output, encoded, files.PUBLIC_MODE if args.closed else files.SECRET_MODE)
    data = {"entry": args.entry, "file": str(output), "bytes": len(encoded)}
    return Result(data, f"written to {output}: gossipfl audit verify {output} --hub-key FILE")


async def _proof(reader: LogReader, index: int, closed: bool) -> bytes:
    from gossipfl.audit.proving import prove_entry

    note = await reader.checkpoint(await reader.newest())
    return (await prove_entry(reader, note, index, closed=closed)).encode()


def key(args: Namespace) -> Result:
    """Both public keys of a state folder; nothing secret is printed."""
    from gossipfl.audit.notes import log_key, witness_key
    from gossipfl.fleet.device import load_identity

    member = load_identity(args.state).member
    data = {"log": str(log_key(member.key)), "witness": str(witness_key(member.key))}
    return Result(data, f"log:     {data['log']}\nwitness: {data['witness']}")


def key_of(path: Path) -> Key:
    from gossipfl.audit.notes import parse_key
    from gossipfl.audit.refused import AuditRefused

    try:
        return parse_key(path.read_text().strip())
    except OSError as error:
        raise UserError("GF215", f"{path}: {error.strerror}") from error
    except (AuditRefused, UnicodeDecodeError) as error:
        raise UserError("GF901", f"{path}: {error}") from error
