"""The audit log's pure room: RFC 6962 tree, C2SP tiles, notes, checkpoints and cosignatures, typed
entries, exports and their offline verification. No I/O; the hub's log writer stands on it.
"""
