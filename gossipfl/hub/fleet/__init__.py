"""How the hub follows its fleet: a node of its own that listens, and a recorder beside it."""
