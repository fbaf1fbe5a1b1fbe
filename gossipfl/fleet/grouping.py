"""Whether a policy's group sums could ever work, asked before it is signed."""

from __future__ import annotations

from gossipfl.aggregation import RuleError, rule
from gossipfl.errors import UserError
from gossipfl.groups.across import tolerance
from gossipfl.groups.plan import GROUP_MIN
from gossipfl.groups.schedule import require_sense
from gossipfl.messages import Policy


def require_groups(policy: Policy) -> None:
    """That groups can be formed, and that the rule bears the assumed attackers across their means.
    Raises UserError GF701."""
    sums = policy.privacy.sums
    try:
        require_sense(policy.privacy, policy.codec)
    except ValueError as error:
        raise UserError("GF701", f"group sums: {error}") from error
    if sums is None:
        return
    count = len(sums.devices)
    if count > policy.n:
        raise UserError("GF701", f"{count} devices in groups, the fleet has --n {policy.n}")
    if policy.sample is not None or policy.f is not None:
        raise UserError("GF701", "group sums: one mean of each group is merged: leave --sample out")
    bears = tolerance(count, sums.size)
    others = bears.number - 1
    if not others and not policy.attackers:
        return
    try:
        rule(policy.rule).check(others, min(policy.attackers, others))
        if policy.attackers <= others:
            return
        cause = f"{policy.attackers} attackers among {bears.number} groups"
    except RuleError as error:
        cause = str(error)
    smaller = f"--group-size {GROUP_MIN}, " if sums.size > GROUP_MIN else ""
    hint = f"what may work: {smaller}fewer --attackers, more devices. {bears.warning}"
    raise UserError(
        "GF701",
        f"{policy.rule} could never merge the means of {bears.number} groups with "
        f"{policy.attackers} attackers, each of whom spoils one: {cause}",
        hint,
    )
