"""Logistic regression for the handwritten digits of MNIST, seen at half their resolution.

Few parameters and a convex loss: under privacy noise grows with the square root of the number of
parameters, and this one has a tenth of the convolutional network's.

    gossipfl bundle from-torch examples/mnist_logistic.py:Logistic --input 1,28,28 --classes 10 \
        --batch 64 --scale 0.00392156862745098 -o mnist-logistic.gfl
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Logistic(nn.Module):
    """2x2 means, one linear layer from zero: 1,970 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(14 * 14, 10)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(functional.avg_pool2d(x, 2).flatten(1))
