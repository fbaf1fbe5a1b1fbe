"""Measured figures of the real thing: agents as processes, the command as a person starts it.

`script/bench NAME [--json]`; each prints a table and, with --json, one object as the last line. A
shell, like `sim.demo`: it reads clocks and starts processes.
"""
