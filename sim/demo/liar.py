"""`python -m sim.demo.liar --config FILE --attack NAME`: an agent that lies.

Everything else in it is the product's own agent, unchanged: keys, node, network, store. So what the
others meet is a certified device that follows the protocol and publishes lies.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from functools import cached_property
from pathlib import Path

from device_agent import logs
from device_agent.agent import Agent
from device_agent.setting_files import load
from device_agent.settings import Settings
from gossipfl.fleet.documents import DEFAULT_RULE
from gossipfl.interfaces import Trainer
from gossipfl.net.server import Server
from gossipfl.net.tls import TlsFiles, server_context
from sim.attacks import ATTACKS, Attack, attack
from sim.demo.lying import Knowledge, Liar, LyingNode, LyingServer, LyingShelf, LyingTrainer


class LyingAgent(Agent):
    """The composition of a device, with a liar between its parts."""

    def __init__(self, settings: Settings, lie: Attack, number: int, liars: int) -> None:
        self._lie = (lie, number, liars)
        super().__init__(settings, self._wrap)

    @cached_property
    def liar(self) -> Liar:
        lie, number, liars = self._lie
        knowledge = Knowledge(self.node, self.device, liars)
        return Liar(lie, number, knowledge, self._identity.signer)

    def _wrap(self, trainer: Trainer) -> Trainer:
        return LyingTrainer(trainer, self.liar)

    def _make_server(self, files: TlsFiles) -> Server:
        return LyingServer(
            self.liar,
            LyingShelf(self.node.shelf, self.device, self.liar),
            self._load_object,
            server_context(files),
            self.node.refused,
            self._limits,
            self._traffic,
        )

    def _driven(self) -> LyingNode:
        return LyingNode(self.node, self.liar)


def main() -> int:
    """The agent, until it is told to stop; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m sim.demo.liar", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--attack", choices=sorted(ATTACKS), required=True)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--rule", default=DEFAULT_RULE, help="what the fleet merges with")
    parser.add_argument("--f", type=int, default=1, help="attackers that the fleet assumes")
    parser.add_argument("--number", type=int, default=0, help="which of the liars this is")
    parser.add_argument("--liars", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="the liars' common one")
    args = parser.parse_args()
    settings = load([args.config])
    logs.set_up(settings.logging.level, settings.logging.format)
    lie = attack(args.attack, args.noise, args.rule, args.f, args.seed)
    return asyncio.run(LyingAgent(settings, lie, args.number, args.liars).run())


if __name__ == "__main__":
    sys.exit(main())
