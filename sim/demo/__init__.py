"""The demo: a fleet of real agents on this machine, one of which lies.

Real processes, real keys, real TLS, real data; only the world is pretended: one machine instead of
several, and a liar that we start ourselves. It is a shell: it reads clocks and starts processes,
which the rest of `sim` never does.
"""
