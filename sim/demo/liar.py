"""`python -m sim.demo.liar --config FILE --attack NAME`: an agent whose trainer is poisoned.

Everything else in it is the product's own agent, unchanged: keys, node, network, store. So what the
others meet is a certified device that follows the protocol and publishes lies.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from device_agent.agent import run
from device_agent.setting_files import load
from sim.demo.attacks import ATTACKS


def main() -> int:
    """The agent, until it is told to stop; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m sim.demo.liar", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--attack", choices=sorted(ATTACKS), required=True)
    args = parser.parse_args()
    return run(load([args.config]), wrap=ATTACKS[args.attack])


if __name__ == "__main__":
    sys.exit(main())
