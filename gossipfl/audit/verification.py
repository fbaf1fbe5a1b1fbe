"""`gossipfl audit verify`: an export checked offline, from the hub's key and witnesses' keys alone.

In one pass and in little memory: the tar itself, every checkpoint's signature, number, link to the
one before and witnesses, every entry against its hash tile, against the checkpoints' roots, in the
order of time, and against its payload, every upper tile, every erasure, and last the sums. The
first thing that is wrong ends it, named by the entry where there is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gossipfl.audit import exports
from gossipfl.audit.archive import ArchiveReader, Source
from gossipfl.audit.checkpoints import Checkpoint, SignedCheckpoint, open_checkpoint
from gossipfl.audit.cosignatures import check_cosignature
from gossipfl.audit.entries import (
    ENTRY_BYTES,
    SALT_BYTES,
    SUBJECT_BYTES,
    Entry,
    EntryKind,
    Payload,
    parse_entry,
)
from gossipfl.audit.notes import NOTE_BYTES_MAX, Key
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tiles import BUNDLE, WIDTH, Edge, Tile, levels_of, tiles_of, unpack_bundle
from gossipfl.audit.tree import HASH_BYTES, leaf_hash

Check = Callable[[EntryKind, Payload], None]
"""Checks what an entry's payload says, signatures within it included; raises AuditRefused."""
Contents = Callable[[bytes], Check]
"""The check for a fleet id. The id stands in the export: whoever trusts the hub's key trusts that
the log is about this fleet, and compares the id if in doubt."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The first thing that is wrong. `entry` is the index of the entry, or of the first of those
    among which it is; None if it lies in no entry."""

    place: str
    cause: str
    entry: int | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.cause}"


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest checkpoint that a witness cosigned, and when it did. `behind_s`: how much older
    that checkpoint is than the export's newest one."""

    number: int
    size: int
    time: int
    behind_s: int = 0


@dataclass(slots=True)
class Verdict:
    """What an export was found to be. Valid if there is no problem."""

    problem: Problem | None = None
    about: exports.About | None = None
    newest: Checkpoint | None = None
    entries: int = 0  # checked
    kinds: Counter[str] = field(default_factory=Counter)
    first_time: int | None = None
    last_time: int | None = None
    payloads: int = 0  # opened
    erased: int = 0
    checkpoints: int = 0  # checked
    witnesses: dict[str, Seen] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        return self.problem is None

    @property
    def cosigned(self) -> int:
        """How many entries lie under a checkpoint that a named witness cosigned. The entries after
        them rest on the hub's word: it may have shown others another end of the log."""
        return max((seen.size for seen in self.witnesses.values()), default=0)


class _Bad(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def verify_export(
    source: Source,
    hub: Key,
    witnesses: Sequence[Key] = (),
    contents: Contents | None = None,
    behind_s: int | None = None,
) -> Verdict:
    """Reads the whole of `source`. `hub` and `witnesses` are what the auditor trusts; each witness
    named must have cosigned, with `behind_s` a checkpoint that is at most so many seconds older
    than the newest one. Raises nothing for any bytes."""
    verification = _Verification(source, hub, witnesses, contents, behind_s)
    try:
        verification.run()
    except _Bad as bad:
        verification.verdict.problem = bad.problem
    return verification.verdict


class _Verification:
    def __init__(
        self,
        source: Source,
        hub: Key,
        witnesses: Sequence[Key],
        contents: Contents | None,
        behind_s: int | None,
    ) -> None:
        self._archive = ArchiveReader(source)
        self._hub = hub
        self._witnesses = witnesses
        self._contents = contents
        self._behind_s = behind_s
        self._check: Check | None = None
        self._checkpoints: list[Checkpoint] = []
        self._salts: dict[bytes, bytes] = {}
        self._edge = Edge()
        self._upper: dict[Tile, bytes] = {}
        self._passed = 0  # checkpoints whose root was compared
        self._gone: list[int] = []
        self._erased: list[tuple[int, int]] = []
        self.verdict = Verdict()

    def run(self) -> None:
        about = self._about()
        self._read_checkpoints(about)
        if about.payloads:
            rows = exports.SUBJECTS_MAX * (SUBJECT_BYTES + SALT_BYTES)
            with _blame(exports.SALTS):
                self._salts = exports.unpack_salts(self._archive.read(exports.SALTS, rows))
        self._compare_roots(0, 0)
        for tile in tiles_of(about.entries, BUNDLE):
            self._bundle(tile, about.payloads)
        for level in range(1, levels_of(about.entries)):
            for tile in tiles_of(about.entries, level):
                with _blame(tile.path):
                    if self._archive.read(tile.path, WIDTH * HASH_BYTES) != self._upper[tile.full]:
                        raise AuditRefused("it does not follow from the tiles below it")
        self._require_erasures()
        self._require_witnesses()
        self._compare_sums()

    def _about(self) -> exports.About:
        with _blame(exports.ABOUT):
            about = exports.parse_about(self._archive.read(exports.ABOUT, 4_096))
            if about.origin != self._hub.name:
                raise AuditRefused(f"it is of {about.origin}, not of {self._hub.name}")
        if self._contents is not None:
            self._check = self._contents(about.fleet)
        self.verdict.about = about
        return about

    def _read_checkpoints(self, about: exports.About) -> None:
        with _blame(exports.CHECKPOINT):
            newest = self._archive.read(exports.CHECKPOINT, NOTE_BYTES_MAX)
            checkpoint = open_checkpoint(newest, self._hub).checkpoint
            if (checkpoint.number, checkpoint.size) != (about.checkpoints, about.entries):
                raise AuditRefused("it is not the one that the first file announces")
        self.verdict.newest = checkpoint
        note = b""
        for tile in tiles_of(about.checkpoints, BUNDLE):
            name = exports.place_name("checkpoints", tile)
            with _blame(name):
                data = self._archive.read(name, WIDTH * (2 + NOTE_BYTES_MAX))
                notes = unpack_bundle(data, tile.width)
            for note in notes:
                with _blame(f"checkpoint {len(self._checkpoints) + 1}"):
                    self._checkpoint(open_checkpoint(note, self._hub))
        if note != newest:
            raise _Bad(Problem(exports.CHECKPOINT, "the last of the checkpoints is another one"))

    def _checkpoint(self, signed: SignedCheckpoint) -> None:
        this = signed.checkpoint
        before = self._checkpoints[-1] if self._checkpoints else None
        if this.number != len(self._checkpoints) + 1:
            raise AuditRefused(f"it has the number {this.number}")
        if before is not None:
            if this.previous != before.digest:
                raise AuditRefused("it does not name the one before: the log was forked")
            if this.size < before.size:
                raise AuditRefused(f"the log has shrunk from {before.size} entries to {this.size}")
            if this.time < before.time:
                raise AuditRefused("it was signed before the one before")
        self._checkpoints.append(this)
        self.verdict.checkpoints += 1
        for key in self._witnesses:
            signature = signed.note.of(key)
            if signature is not None:
                time = check_cosignature(signed.note.text, signature, key)
                self.verdict.witnesses[key.name] = Seen(this.number, this.size, time)

    def _bundle(self, tile: Tile, with_payloads: bool) -> None:
        """256 entries: against their hashes, the checkpoints, the clock and their payloads."""
        first = tile.index * WIDTH
        payloads: list[Payload | None] = []
        with _blame(tile.path, first):
            size = tile.width * (2 + ENTRY_BYTES)
            entries = unpack_bundle(self._archive.read(tile.path, size), tile.width)
        if with_payloads:
            name = exports.place_name("payloads", tile)
            with _blame(name, first):
                data = self._archive.read(name, exports.PAYLOADS_FILE_MAX)
                payloads = exports.unpack_payloads(data, tile.width)
        hashes = Tile(0, tile.index, tile.width)
        with _blame(hashes.path, first):
            row = self._archive.read(hashes.path, tile.width * HASH_BYTES)
            if len(row) != tile.width * HASH_BYTES:
                raise AuditRefused(f"it has {len(row)} bytes")
        leaves = []
        for place, data in enumerate(entries):
            with _blame(f"entry {first + place}", first + place):
                leaves.append(leaf_hash(data))
                if leaves[-1] != row[place * HASH_BYTES : (place + 1) * HASH_BYTES]:
                    raise AuditRefused(f"it and its hash in {hashes.path} do not agree")
                entry = parse_entry(data)
                self._entry(first + place, entry)
                if with_payloads:
                    self._payload(first + place, entry, payloads[place])
        self._extend(leaves)

    def _entry(self, index: int, entry: Entry) -> None:
        verdict = self.verdict
        if verdict.last_time is not None and entry.time < verdict.last_time:
            raise AuditRefused("it is older than the entry before")
        verdict.first_time = entry.time if verdict.first_time is None else verdict.first_time
        verdict.last_time = entry.time
        covering = self._passed
        while self._checkpoints[covering].size <= index:
            covering += 1
        if entry.time > self._checkpoints[covering].time:
            raise AuditRefused(f"it is younger than checkpoint {covering + 1}, which contains it")
        verdict.entries += 1
        verdict.kinds[entry.kind.word] += 1

    def _payload(self, index: int, entry: Entry, payload: Payload | None) -> None:
        if payload is None:
            self._gone.append(index)
            self.verdict.erased += 1
            return
        salt = self._salts.get(payload.subject)
        if salt is None:
            raise AuditRefused("there is no salt for whom it is about")
        if not entry.opens(salt, payload.data):
            raise AuditRefused("the payload is not the one that the entry commits to")
        if entry.kind is EntryKind.ERASURE:
            self._erased += exports.erased_by(index, payload.data)
        if self._check is not None:
            self._check(entry.kind, payload)
        self.verdict.payloads += 1

    def _extend(self, leaves: Sequence[bytes]) -> None:
        """Append, and stop at each checkpoint on the way to compare its root."""
        base = self._edge.size
        end = base + len(leaves)
        while self._edge.size < end:
            upto = end
            if self._passed < len(self._checkpoints):
                upto = min(end, self._checkpoints[self._passed].size)
            before = self._edge.size
            growth = self._edge.extended(leaves[before - base : upto - base])
            self._edge = growth.edge
            for tile, data in growth.tiles.items():
                if tile.level > 0:
                    self._upper[tile.full] = data  # of a partial tile the widest counts
            self._compare_roots(before, upto)

    def _compare_roots(self, before: int, size: int) -> None:
        """All checkpoints of this size. What is wrong came in since the last one that was right."""
        while self._passed < len(self._checkpoints):
            checkpoint = self._checkpoints[self._passed]
            if checkpoint.size != size:
                return
            if checkpoint.root != self._edge.root():
                first = self._checkpoints[self._passed - 1].size if self._passed else 0
                last = max(first, size - 1)
                raise _Bad(
                    Problem(
                        f"checkpoint {checkpoint.number}",
                        f"its root is not that of the entries: one of entries {first} to {last} "
                        "was changed after it was signed",
                        first,
                    )
                )
            self._passed += 1

    def _require_erasures(self) -> None:
        missing = exports.unexplained(self._gone, self._erased)
        if missing is not None:
            cause = "its payload is missing, and no later entry says that it was erased"
            raise _Bad(Problem(f"entry {missing}", cause, missing))

    def _require_witnesses(self) -> None:
        newest = self._checkpoints[-1].time if self._checkpoints else 0
        for key in self._witnesses:
            place, seen = f"witness {key.name}", self.verdict.witnesses.get(key.name)
            if seen is None:
                raise _Bad(Problem(place, "it has cosigned none of the checkpoints"))
            behind_s = newest - self._checkpoints[seen.number - 1].time
            self.verdict.witnesses[key.name] = replace(seen, behind_s=behind_s)
            if self._behind_s is not None and behind_s > self._behind_s:
                cause = f"the newest checkpoint it cosigned is {behind_s} s older than the last"
                raise _Bad(Problem(place, cause))

    def _compare_sums(self) -> None:
        want = exports.pack_sums(self._archive.sums)
        names = [name for name, _ in self._archive.sums]
        with _blame(exports.SUMS):
            found = self._archive.read(exports.SUMS, len(want) + 4_096)
        if found != want:
            pairs = zip(names, found.splitlines(), want.splitlines(), strict=False)
            wrong = next((name for name, a, b in pairs if a != b), exports.SUMS)
            raise _Bad(Problem(wrong, "it does not have the sum that the export names"))
        with _blame("the end of the export"):
            self._archive.end()


class _blame:
    """Turns AuditRefused within into the problem of this place."""

    def __init__(self, place: str, entry: int | None = None) -> None:
        self._place = place
        self._entry = entry

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AuditRefused):
            raise _Bad(Problem(self._place, str(error), self._entry)) from error
