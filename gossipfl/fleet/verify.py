"""Child process: does everything in a state folder belong together? Silence and exit 0, or why not.

`python -m gossipfl.fleet.verify DIR` prints `CODE cause` and exits 1 if it does not.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gossipfl.errors import UserError
from gossipfl.fleet.device import DeviceFolder


def main() -> int:
    try:
        DeviceFolder(Path(sys.argv[1])).load()
    except UserError as error:
        sys.stdout.write(f"{error.code} {error.cause}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
