"""`python -m sim.bench.agent --config FILE --ride-bytes N`: an agent with another bound."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from device_agent.agent import run
from device_agent.setting_files import load
from gossipfl.config import Limits


def main() -> int:
    """The product's agent, until it is told to stop; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m sim.bench.agent")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--ride-bytes", type=int, required=True)
    args = parser.parse_args()
    return run(load([args.config]), limits=Limits(ride_bytes=args.ride_bytes))


if __name__ == "__main__":
    sys.exit(main())
