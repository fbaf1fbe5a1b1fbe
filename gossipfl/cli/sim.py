"""`gossipfl sim`: the code that ships, in a simulated network, in virtual time.

`run` plays a scenario, `soak` plays random histories until their number or the time is used up,
`matrix` sets rules against attacks.
"""

from __future__ import annotations

from typing import Any

from gossipfl.cli.matrix import add_matrix
from gossipfl.cli.mutants import add_mutants
from gossipfl.cli.scenarios import add_scenarios
from gossipfl.cli.soak import add_soak


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("sim", help="run the same node code in a simulated network")
    words = parser.add_subparsers(dest="word", metavar="WORD")
    add_scenarios(words)
    add_soak(words)
    add_mutants(words)
    add_matrix(words)
