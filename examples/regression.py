"""Regression: how far diabetes goes in a year, from ten measurements (scikit-learn's data).

    gossipfl bundle from-torch examples/regression.py:Progress --task regression --input 10 \
        --batch 32 --scale 21 --target-scale 0.013 --target-offset -2 -o regression.gfl

The raw targets (25 to 346) are scaled to about -1.7 to 2.5 on the device; predictions come back in
the raw unit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Progress(nn.Module):
    """10-16-1: 193 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(10, 16)
        self.output = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.tanh(self.hidden(x))).squeeze(-1)
