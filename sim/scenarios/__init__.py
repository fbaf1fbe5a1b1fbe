"""Scenarios as data: TOML files that say who learns what, on which network, and what goes wrong.

`schema` types them, `files` finds and reads them, `cast` builds the fleet, `faults` puts the
timeline into the schedule, `play` runs it and compares with what is expected.
"""
