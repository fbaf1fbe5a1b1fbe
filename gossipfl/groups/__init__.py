"""Secure aggregation without a server: a group learns the sum of its members' vectors, no more.

Double masking (Bonawitz et al., CCS 2017) with every member an aggregator: all steps are signed
objects that members pull from each other. Pure: entropy and time come in from outside.
docs/explanation/group-sum.md says what holds under which condition, and what does not.
"""
