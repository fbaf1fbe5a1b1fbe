"""Policies at a hub: proposed here, signed elsewhere, issued through the hub's own node."""
