"""The shell around the node: sockets, TLS, threads, clocks. Level 4: nothing below imports it.

`tls` makes the contexts, `server` answers the two GET routes, `client` asks them, `discovery` finds
addresses by mDNS, `driver` turns effects into all of these and answers into events. `local` is the
listener for people and monitors on this machine alone.
"""
