"""The hub: an optional observer of a fleet that records, relays and shows. No device needs it."""
