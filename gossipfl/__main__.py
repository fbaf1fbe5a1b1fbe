"""`python -m gossipfl` is the same program as `gossipfl`."""

from __future__ import annotations

import sys

from gossipfl.cli.main import entry

if __name__ == "__main__":
    sys.exit(entry())
