"""Group sums in the node: when its group sums, what it exchanges for that, what comes of it.

The protocol is `gossipfl.groups`, which knows neither heads nor requests. Here are its windows and
attempts among the rounds, its objects in the own head, the other members' objects pulled, and the
groups' means in the place of devices' updates.
"""
