"""Guards of bytes taken out: signatures, digests, values."""

from __future__ import annotations

from sim.mutants.base import Mutant, with_liars
from sim.mutate import Edit

BYTES: tuple[Mutant, ...] = (
    Mutant(
        "unsigned-head",
        "the signature of a head is not checked",
        (
            Edit(
                "gossipfl.intake:Intake._verified",
                "core.pure(read_signed, envelope,",
                "core.pure(decode, envelope.payload,",
            ),
        ),
        with_liars("forger"),
    ),
    Mutant(
        "unsigned-evidence",
        "heads in evidence need no signature",
        (Edit("gossipfl.chains:_signed_head", "check_signature(envelope)", "pass"),),
        with_liars("framer"),
    ),
    Mutant(
        "unsigned-revocation",
        "a revocation needs no signature",
        (Edit("gossipfl.membership:Roster._verified", "check_signature(envelope)", "pass"),),
        with_liars("slanderer"),
        known=2,
    ),
    Mutant(
        "wrong-bytes",
        "an object's digest is not compared with its name",
        (
            Edit(
                "gossipfl.parcels:Parcels.object",
                "if core.pure(digest, event.data) != pending.digest:",
                "if False:",
            ),
            Edit(
                "gossipfl.collector:Collector.head",
                "if core.pure(digest, update) != head.update.digest:",
                "if False:",
            ),
        ),
        with_liars("tamperer"),
    ),
    Mutant(
        "not-finite",
        "an update that is not a number is merged",
        (
            Edit(
                "gossipfl.collector:read_update",
                "require_mergeable(vector, count, norm_max)",
                "pass",
            ),
            Edit("gossipfl.codecs.update:Opened.values", "require_finite(vector)", "pass"),
        ),
        with_liars("not_a_number"),
    ),
)
