"""A multi-layer perceptron for scikit-learn's 8x8 digits (64 pixels of 0..16, 10 classes).

    gossipfl bundle from-torch examples/digits_mlp.py:Mlp --input 64 --classes 10 \
        --batch 32 --scale 0.0625 -o digits-mlp.gfl
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    """64-128-10: 9,610 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 128)
        self.output = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.relu(self.hidden(x)))
