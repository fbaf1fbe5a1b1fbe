"""Logistic regression for the nine speakers of JapaneseVowels: 12 coefficients over 29 frames.

    gossipfl bundle from-torch examples/vowels_logistic.py:Logistic --input 12,29 --classes 9 \
        --batch 32 -o vowels-logistic.gfl
"""

from __future__ import annotations

from torch import Tensor, nn


class Logistic(nn.Module):
    """The mean of each coefficient over time, one linear layer from zero: 117 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(12, 9)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(x.mean(2))
