"""Rules over group means, and the promise that goes with them."""

from __future__ import annotations

import numpy as np
import pytest

from gossipfl.aggregation import RuleError, merge_step
from gossipfl.groups.across import agreed_mean, tolerance


@pytest.mark.parametrize("rule", ["nna", "cs_plus"])
def test_spoilt_groups_do_not_move_the_merge_far(rule: str) -> None:
    rng = np.random.default_rng(1)
    honest = [rng.normal(1, 0.1, 50).astype(np.float32) for _ in range(9)]
    spoilt = [np.full(50, -100, np.float32) for _ in range(3)]
    merged = merge_step(rule, honest[0], [*honest[1:], *spoilt], 3)
    assert np.abs(merged.parameters - 1).max() < 0.5
    plain = np.mean([*honest, *spoilt], axis=0)
    assert np.abs(plain - 1).max() > 10


def test_more_attackers_than_the_groups_bear_are_refused() -> None:
    rows = [np.ones(5, np.float32) for _ in range(5)]
    with pytest.raises(RuleError):
        merge_step("nna", rows[0], rows[1:], 3)


def test_the_share_falls_with_the_size_of_the_groups_and_the_warning_says_so() -> None:
    fleet = tolerance(240, 8)
    assert (fleet.number, fleet.attackers, fleet.liars) == (30, 9, 2)
    assert fleet.share == pytest.approx(1 / 24)
    assert "about 4.2 % attackers" in fleet.warning.replace("4.2%", "4.2 %")
    assert "240 devices in 30 groups bears 9" in fleet.warning
    assert tolerance(8, 8).attackers == 0
    assert "1 group bears 0" in tolerance(8, 8).warning
    assert tolerance(240, 4).share == 2 * fleet.share


def test_a_groups_mean_is_what_more_members_name_than_may_lie() -> None:
    members = [n.to_bytes(16, "big") for n in range(8)]
    true, false = bytes(32), bytes([1]) * 32
    named = dict.fromkeys(members[:2], false) | dict.fromkeys(members[2:4], true)
    assert agreed_mean(named, members) is None, "two of eight may lie, so two are not enough"
    named[members[4]] = true
    assert agreed_mean(named, members) == true
    stranger = {bytes([9]) * 16: false} | dict.fromkeys(members[:2], false)
    assert agreed_mean(stranger, members) is None
    assert agreed_mean(named | {members[5]: false}, members) is None, "too many liars"
