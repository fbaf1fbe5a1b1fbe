"""The reference pages say what the code says."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path

import msgspec
import pytest

from gossipfl import messages
from gossipfl.cli import main, reference, scenario_reference
from gossipfl.config import Limits
from gossipfl.errors import ERRORS

FIELDS_DOCUMENTED = (
    *("Member", "Head", "Lineage", "Receipt", "Policy", "Stop", "Revocation", "Record"),
    *("Marker", "Chapter", "Evidence"),
)


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("errors.md", reference.errors_page),
        ("cli.md", reference.cli_page),
        ("config.md", reference.config_page),
        ("hub-config.md", reference.hub_config_page),
        ("rest.md", reference.rest_page),
        ("compliance-report.schema.json", reference.compliance_schema_file),
        ("scenarios.md", scenario_reference.scenarios_page),
    ],
)
def test_reference_pages_are_up_to_date(root: Path, name: str, page: object) -> None:
    assert callable(page)
    assert (root / "docs/reference" / name).read_text() == page(), "run script/docs"


def test_every_verb_of_the_table_is_registered_by_its_module() -> None:
    for _, verb, module, _ in main.VERBS:
        subparsers = main.Parser(prog="gossipfl").add_subparsers(dest="verb")
        importlib.import_module(f"gossipfl.cli.{module}").add_parser(subparsers)
        assert verb in subparsers.choices, f"{module} does not register {verb}"


def test_every_bound_says_where_it_comes_from() -> None:
    told = {name: why for name, _, why in reference._bounds()}
    fields = {field.name for field in dataclasses.fields(Limits)}
    assert fields == set(told), "a bound without a comment"
    assert all(told.values())


def test_codes_that_code_raises_are_in_the_registry(root: Path) -> None:
    raised = set()
    for package in ("gossipfl", "device_agent", "sim"):
        for path in (root / package).rglob("*.py"):
            if path.parent.name == "codes":
                continue  # the registry itself
            raised |= set(re.findall(r'["\'](GF\d{3})["\']', path.read_text()))
    assert raised <= set(ERRORS)
    unused = set(ERRORS) - raised
    assert not unused, f"codes that nothing raises: {sorted(unused)}"


def test_links_between_the_documents_lead_somewhere(root: Path) -> None:
    pages = [root / "README.md", root / "CHANGELOG.md", *(root / "docs").rglob("*.md")]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(root)} -> {target}")
    assert not broken, "\n".join(broken)


def test_verbs_in_the_documents_exist(root: Path) -> None:
    known = {verb for _, verb, _, _ in main.VERBS}
    for page in [root / "README.md", *(root / "docs").rglob("*.md")]:
        for line in page.read_text().splitlines():
            for verb in re.findall(r"(?:^|`|\$ )gossipfl ([a-z][a-z-]+)", line):
                assert verb in known, f"{page.relative_to(root)}: gossipfl {verb}"


def test_the_readme_lists_every_decision(root: Path) -> None:
    text = (root / "README.md").read_text()
    missing = [p.name for p in (root / "docs/decisions").glob("*.md") if p.name not in text]
    assert missing == []


def test_the_protocol_page_names_every_field_of_every_payload(root: Path) -> None:
    """And marks with a question mark what may be left out."""
    page = (root / "docs/reference/protocol.md").read_text()
    for name in FIELDS_DOCUMENTED:
        row = re.search(rf"^\| {name.lower()} \| (.*) \|$", page, re.MULTILINE)
        assert row is not None, name
        for field in msgspec.structs.fields(getattr(messages, name)):
            mark = "" if field.required else r"\?"
            assert re.search(rf"\b{field.name}\b{mark}", row[1]), f"{name}.{field.name}"
