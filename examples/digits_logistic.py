"""Logistic regression for scikit-learn's 8x8 digits (64 pixels of 0..16, 10 classes).

    gossipfl bundle from-torch examples/digits_logistic.py:Logistic --input 64 --classes 10 \
        --batch 32 --scale 0.0625 -o digits-logistic.gfl
"""

from __future__ import annotations

from torch import Tensor, nn


class Logistic(nn.Module):
    """One linear layer: 650 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(x)
