"""A small convolutional network for the handwritten digits of MNIST (28x28 grey, 10 classes).

    gossipfl bundle from-torch examples/mnist_cnn.py:Cnn --input 1,28,28 --classes 10 \
        --batch 32 --scale 0.00392156862745098 -o mnist-cnn.gfl
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Cnn(nn.Module):
    """Two 3x3 convolutions with max-pooling, one hidden layer: 20,338 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1)
        self.hidden = nn.Linear(16 * 7 * 7, 24)
        self.output = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.first(x)), 2)
        x = functional.max_pool2d(torch.relu(self.second(x)), 2)
        return self.output(torch.relu(self.hidden(x.flatten(1))))
