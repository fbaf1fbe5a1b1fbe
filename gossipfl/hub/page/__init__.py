"""The hub's page: what the audit log and the hub's node know of a fleet, for people to look at.

Three steps, the first two pure: `chronicle` takes in verified log entries, `compose` makes a
`model.Page` from them and from what the hub's node sees of each device, and `rendering` turns that
into HTML with SVG charts. A block whose data the hub does not have is left out.
"""
