"""Rules of other packages: found by entry point, held to the contract of a rule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gossipfl.aggregation import RuleError, foreign, merge_step, rule
from gossipfl.parameters import Matrix

MODULE = '''
import numpy as np
from gossipfl.aggregation import Merge, RuleError


class Rule:
    """Own and the first received, half and half."""

    name = "halves"
    seen = None

    def check(self, m, f):
        if m < 2 * f + 1:
            raise RuleError(f"halves: {m} are too few for {f}")

    def __call__(self, own, received, f, weights=None):
        self.seen = [row.shape for row in received]
        first = received[0]
        base = (first if own is None else own + first) / np.float32(1 if own is None else 2)
        return Merge(base, (0.5 if own is not None else 1.0,) + (0.0,) * (len(received) - 1))


class Bad(Rule):
    def __init__(self, how):
        self.how = how

    def check(self, m, f):
        if self.how == "check":
            raise ZeroDivisionError("oops")

    def __call__(self, own, received, f, weights=None):
        good = Rule()(own, received, f)
        base, influence = good.parameters, good.influence
        match self.how:
            case "raises":
                raise KeyError("lost")
            case "writes":
                received[0][0] = 1
            case "nothing":
                return None
            case "wide":
                return Merge(base.astype(np.float64), influence)
            case "list":
                return Merge(list(base), influence)
            case "short":
                return Merge(base[:-1], influence)
            case "matrix":
                return Merge(base.reshape(2, -1), influence)
            case "nan":
                return Merge(base * np.float32(np.nan), influence)
            case "fewer":
                return Merge(base, influence[1:])
            case "negative":
                return Merge(base, (-0.5,) + influence[1:])
            case "greedy":
                return Merge(base, (0.6,) * len(influence))
            case "nan influence":
                return Merge(base, (float("nan"),) + influence[1:])
            case "words":
                return Merge(base, ("much",) + influence[1:])
            case "alias":
                return Merge(received[0], influence)
        return good


class Unmade(Rule):
    pass


halves = Rule()
plain_function = lambda own, received, f: None
'''
HOWS = {
    "raises": "KeyError",
    "writes": "read-only",
    "nothing": "returned NoneType, expected Merge",
    "wide": "not a float32 array",
    "list": "not a float32 array",
    "short": r"shape \(9,\), expected \(10,\)",
    "matrix": r"shape \(2, 5\), expected \(10,\)",
    "nan": "overflows|NaN",
    "fewer": "5 influences for 6 models",
    "negative": "outside 0..1",
    "greedy": "more than 1",
    "nan influence": "outside 0..1",
    "words": "no list of numbers",
    "check": "ZeroDivisionError: oops",
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package on the path with entry points, as an installed wheel leaves it."""
    bad = "".join(f"bad_{how.replace(' ', '_')} = Bad({how!r})\n" for how in [*HOWS, "alias"])
    (tmp_path / "other_rules.py").write_text(MODULE + bad)
    info = tmp_path / "other_rules-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-rules\nVersion: 1\n")
    names = [f"bad_{how.replace(' ', '_')}" for how in [*HOWS, "alias"]]
    points = [f"{name} = other_rules:{name}" for name in names]
    points += [
        "halves = other_rules:halves",
        "function = other_rules:plain_function",
        "a_class = other_rules:Unmade",
        "missing = other_rules:nobody",
        "nna = other_rules:halves",
    ]
    (info / "entry_points.txt").write_text("[gossipfl.rules]\n" + "\n".join(points) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    foreign.offered.cache_clear()
    rule.cache_clear()
    yield
    foreign.offered.cache_clear()
    rule.cache_clear()


def models(count: int = 7, d: int = 10) -> Matrix:
    return np.random.default_rng(0).standard_normal((count, d), dtype=np.float32)


@pytest.mark.usefixtures("installed")
def test_an_installed_rule_works_by_name() -> None:
    x = models()
    result = merge_step("halves", x[0], list(x[1:]), 1)
    np.testing.assert_allclose(result.parameters, (x[0] + x[1]) / 2)
    assert result.influence == (0.5, 0, 0, 0, 0, 0)
    without_own = merge_step("halves", None, list(x), 1)
    np.testing.assert_allclose(without_own.parameters, x[0])
    assert without_own.influence == (1.0, 0, 0, 0, 0, 0, 0)
    rule("halves").check(3, 1)
    with pytest.raises(RuleError, match="2 are too few for 1"):
        rule("halves").check(2, 1)


@pytest.mark.usefixtures("installed")
def test_an_installed_rule_works_after_a_step() -> None:
    x = models()
    mixed = merge_step("nnm+halves", x[0], list(x[1:]), 2)
    shares = np.array([1 - sum(mixed.influence), *mixed.influence])
    np.testing.assert_allclose(mixed.parameters, shares @ x, rtol=1e-5, atol=1e-6)
    assert sum(share > 0 for share in shares) >= 5
    x[3:] = x[3]
    collapsed = merge_step("collapse+halves", x[0], list(x[1:]), 2)
    assert len(collapsed.collapsed) == 2


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("how", sorted(HOWS))
def test_a_rule_out_of_order_is_refused_in_words(how: str) -> None:
    x = models()
    with pytest.raises(RuleError, match=HOWS[how]):
        merge_step(f"bad_{how.replace(' ', '_')}", x[0], list(x[1:]), 1)


@pytest.mark.usefixtures("installed")
def test_its_answer_never_aliases_what_was_received() -> None:
    x = models()
    result = merge_step("bad_alias", x[0], list(x[1:]), 1)
    np.testing.assert_array_equal(result.parameters, x[1])
    assert not np.shares_memory(result.parameters, x)
    assert result.parameters.flags.writeable


@pytest.mark.usefixtures("installed")
def test_what_is_no_rule_is_refused_when_it_is_named() -> None:
    for name, words in {
        "function": "other_rules:plain_function is not a rule: it needs check and __call__",
        "a_class": "is not a rule",
        "missing": "other_rules:nobody cannot be loaded: AttributeError",
    }.items():
        with pytest.raises(RuleError, match=words):
            rule(name)


@pytest.mark.usefixtures("installed")
def test_no_package_replaces_a_rule_of_ours() -> None:
    x = models()
    result = merge_step("nna", x[0], list(x[1:]), 1)
    assert sum(share > 0 for share in result.influence) == 5


@pytest.mark.usefixtures("installed")
def test_a_foreign_name_is_offered_when_it_is_nearest() -> None:
    with pytest.raises(RuleError, match="the nearest name is 'halves'"):
        rule("halfes")


@pytest.mark.usefixtures("installed")
def test_two_packages_with_one_name_are_refused(tmp_path: Path) -> None:
    info = tmp_path / "third_rules-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-rules\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[gossipfl.rules]\nhalves = other_rules:Rule\n")
    foreign.offered.cache_clear()
    with pytest.raises(RuleError, match="more than one package offers this rule"):
        rule("halves")
