"""The codes GF8: the hub, its API, its users and star mode."""

from __future__ import annotations

from gossipfl.codes.entry import ErrorEntry

HUB: dict[str, ErrorEntry] = {}
