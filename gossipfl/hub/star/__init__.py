"""Star mode: clients without peers register a key, fetch a model and send signed updates; the hub
merges them with the rules, checks and reputation that every node has."""

from __future__ import annotations
