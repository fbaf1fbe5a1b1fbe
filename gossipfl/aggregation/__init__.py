"""Aggregation: how one model is made of many, how many to ask, and when to refuse the result.

A rule takes the device's own published model and the models it received, and returns the merge and
the share that each received model had in it. Rules are pure numpy: no clock, no random numbers, no
threads. They work on separate row vectors in chunks along d and never build an m x d matrix, so the
memory beyond the output is a few MB whatever the model's size.
"""

from __future__ import annotations

from gossipfl.aggregation.anchored import Balance, CenteredClip
from gossipfl.aggregation.base import Merge, Rows, Rule, RuleError
from gossipfl.aggregation.distances import Squares, squared_distances
from gossipfl.aggregation.guard import catastrophic, require_mergeable
from gossipfl.aggregation.rules import (
    RULES,
    STEPS,
    Settings,
    between,
    fits,
    least,
    merge_step,
    rule,
)
from gossipfl.aggregation.sampling import assumed_faulty, plan, sample_size
from gossipfl.aggregation.weiszfeld import GeometricMedian

__all__ = [
    "RULES",
    "STEPS",
    "Balance",
    "CenteredClip",
    "GeometricMedian",
    "Merge",
    "Rows",
    "Rule",
    "RuleError",
    "Settings",
    "Squares",
    "assumed_faulty",
    "between",
    "catastrophic",
    "fits",
    "least",
    "merge_step",
    "plan",
    "require_mergeable",
    "rule",
    "sample_size",
    "squared_distances",
]
