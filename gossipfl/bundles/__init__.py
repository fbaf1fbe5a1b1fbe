"""The bundles that ship with the package, made by `gossipfl bundle from-torch` from `examples/`.

They are unsigned: whoever runs a fleet signs what it trains (`gossipfl bundle sign`).
"""

from __future__ import annotations

from importlib.resources import files

DIGITS_LOGISTIC = "digits-logistic"
DIGITS_MLP = "digits-mlp"
MNIST_CNN = "mnist-cnn"
MNIST_LOGISTIC = "mnist-logistic"
REGRESSION = "regression"
VOWELS_LOGISTIC = "vowels-logistic"
NAMES = (DIGITS_LOGISTIC, DIGITS_MLP, MNIST_CNN, MNIST_LOGISTIC, REGRESSION, VOWELS_LOGISTIC)


def read_bytes(name: str) -> bytes:
    """The bytes of the shipped `.gfl` file `name` (one of NAMES)."""
    if name not in NAMES:
        raise KeyError(name)
    return files(__name__).joinpath(f"{name}.gfl").read_bytes()
