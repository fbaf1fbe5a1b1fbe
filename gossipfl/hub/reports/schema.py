"""The JSON Schema (2020-12) of a signed compliance report, made from the types that write it."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from gossipfl.hub.reports.compliance import ComplianceReport

SCHEMA_ID = "urn:gossipfl:compliance-report:1"


class SignedReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`signature`: a C2SP signed note over log, size and the digest of the report's bytes."""

    report: ComplianceReport
    signature: str


def compliance_schema() -> dict[str, Any]:
    """Deterministic, so that it can be kept in a file and compared."""
    (shape,), components = msgspec.json.schema_components(
        [SignedReport], ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "gossipfl compliance report, format 1",
        **shape,
        "$defs": {name: _tidy(components[name]) for name in sorted(components)},
    }


def _tidy(shape: dict[str, Any]) -> dict[str, Any]:
    """Without the indentation of docstrings, which some versions of Python keep."""
    words = shape.get("description")
    return shape if words is None else {**shape, "description": inspect.cleandoc(words)}
