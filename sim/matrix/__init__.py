"""The matrix: rules x attacks x noise x attackers x skew x seeds, each cell one history of real
nodes. Results go to a file line by line, so that a run of hours may end and go on at any time.

A shell beside the simulated world: it starts processes, writes files and reads a clock.
"""
