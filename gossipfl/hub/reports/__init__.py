"""Reports of a hub: compliance (signed, proven, the same bytes for one size of the log),
performance, cost and value, contribution, and a summary on one page.

`tally` takes the log in, entry by entry; `compliance`, `performance`, `costs`, `contribution` and
`summary` make values of it and are pure; `history` reads, `signing` signs and checks, `formats` and
`rendering` write, `routes` serves. No report names a device or a person.
"""
