"""What random histories are drawn from: kinds of faults, liars, rules, and privacy."""

from __future__ import annotations

import msgspec

USUAL = (
    *("crash", "crash", "crash", "disk", "disk", "disk", "partition", "one_way", "sleep"),
    *("clock_jump", "restore", "restore", "move", "stop", "reinstall", "new_run", "revoke"),
)
"""How often each kind is drawn: crashes and disks most, they are where state is lost."""

LIARS = (
    *("fork", "odd_even_withheld", "odd_even", "foe", "not_a_number", "silent", "half_silent"),
    *("stale_replay", "bit_flipper", "forger", "framer", "slanderer", "flooder", "frozen"),
    "tamperer",
)
RULES = ("nna", "nna", "median", "trimmed_mean", "mean")


class Focus(msgspec.Struct, frozen=True):
    """What plans are drawn from. The default is everything."""

    kinds: tuple[str, ...] = USUAL
    liars: tuple[str, ...] = LIARS
    liars_min: int = 0
    faults_min: int = 0
    rules: tuple[str, ...] = RULES
    private: float = 0.0  # share of plans under a policy with privacy
    sums: int = 0  # all plans: size of groups that sum


BUDGETS = (6, 12, 1_000)
"""Publications: some are spent in the middle of the faults, some after them, some never."""

FOCUSES: dict[str, Focus] = {
    "any": Focus(private=0.125),
    "privacy": Focus(
        kinds=(
            *("restore", "restore", "reinstall", "reinstall", "disk", "disk", "crash", "crash"),
            *("stop", "partition", "sleep", "new_run"),
        ),
        faults_min=2,
        private=1.0,
    ),
    # The policy's list of devices stays what it was: nobody joins, nobody is revoked.
    "sums": Focus(
        kinds=(
            *("crash", "crash", "crash", "disk", "disk", "restore", "stop"),
            *("partition", "one_way", "sleep", "clock_jump"),
        ),
        liars=("foe", "silent", "half_silent", "fork", "bit_flipper"),
        faults_min=3,
        rules=("nna",),
        sums=4,
    ),
    # trust.md: equivocation with restores, re-installs and doubtful commits among the faults.
    "equivocation": Focus(
        kinds=("restore", "restore", "reinstall", "disk", "disk", "crash", "stop", "partition"),
        liars=("fork", "odd_even", "odd_even_withheld"),
        liars_min=1,
        faults_min=2,
    ),
}
