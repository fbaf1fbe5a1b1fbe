"""Faulty mechanisms, for the audit to find. Each is the shipped one with a single mistake."""

from __future__ import annotations

import dataclasses
import os
import sys

import numpy as np

from gossipfl.parameters import Cleared, Vector
from gossipfl.privacy import DevicePrivacy, Noised, RecordPrivacy, Unit
from gossipfl.privacy.canaries import Audit, Game, Make, Subject
from gossipfl.privacy.device_unit import noised
from gossipfl.privacy.record_unit import ClippedSum, Descent, train
from gossipfl.privacy.stream import Stream

SEED = bytes(range(32))


def half_noise_device(mode: DevicePrivacy, base: Vector, trained: Vector, key: bytes) -> Noised:
    return noised(dataclasses.replace(mode, z=mode.z / 2), base, trained, key)


def one_clip_device(mode: DevicePrivacy, base: Vector, trained: Vector, key: bytes) -> Noised:
    """Noise of deviation z C: as if two changes were never opposite."""
    step = mode.clip / 4096
    change = trained.astype(float) - base
    length = float(np.linalg.norm(change))
    change *= min(1.0, mode.clip / length) if length else 1.0
    noise = Stream(key).noise(len(base), mode.z * mode.clip / step) * step
    return Noised(Cleared((base + change + noise).astype(np.float32)), mode)


def no_clip_device(mode: DevicePrivacy, base: Vector, trained: Vector, key: bytes) -> Noised:
    step = mode.clip / 4096
    noise = Stream(key).noise(len(base), 2 * mode.z * mode.clip / step) * step
    return Noised(Cleared((trained + noise).astype(np.float32)), mode)


def same_key_device(mode: DevicePrivacy, base: Vector, trained: Vector, key: bytes) -> Noised:
    return noised(mode, base, trained, SEED)


def half_noise_record(
    mode: RecordPrivacy,
    base: Vector,
    examples: int,
    clipped_sum: ClippedSum,
    descent: Descent,
    key: bytes,
) -> Noised:
    lower = dataclasses.replace(mode, z=mode.z / 2)
    return train(lower, base, examples, clipped_sum, descent, key)


def no_clip_record(
    mode: RecordPrivacy,
    base: Vector,
    examples: int,
    clipped_sum: ClippedSum,
    descent: Descent,
    key: bytes,
) -> Noised:
    def unclipped(parameters: Vector, chosen: np.ndarray, clip: float) -> np.ndarray:
        return clipped_sum(parameters, chosen, 1e6 * clip)

    return train(mode, base, examples, unclipped, descent, key)


def same_key_record(
    mode: RecordPrivacy,
    base: Vector,
    examples: int,
    clipped_sum: ClippedSum,
    descent: Descent,
    key: bytes,
) -> Noised:
    return train(mode, base, examples, clipped_sum, descent, SEED)


def again(make: Make, made: Noised) -> Noised:
    """A retry that draws new noise."""
    return make()


BUGS = {
    "half noise": Subject(device=half_noise_device, record=half_noise_record),
    "no clip": Subject(device=no_clip_device, record=no_clip_record),
    "reused seed": Subject(device=same_key_device, record=same_key_record),
    "new noise on retry": Subject(again=again),
    "noise for C, not 2 C": Subject(device=one_clip_device),
}

# Which game finds which bug. A game that cannot see a bug must not be what finds it.
FINDS = [
    (Unit.DEVICE, "half noise", Game.OPPOSITE),
    (Unit.DEVICE, "no clip", Game.PRESENT),
    (Unit.DEVICE, "reused seed", Game.DIFFERENCE),
    (Unit.DEVICE, "new noise on retry", Game.RETRY),
    (Unit.DEVICE, "noise for C, not 2 C", Game.OPPOSITE),
    (Unit.RECORD, "half noise", Game.PRESENT),
    (Unit.RECORD, "no clip", Game.PRESENT),
    (Unit.RECORD, "reused seed", Game.DIFFERENCE),
    (Unit.RECORD, "new noise on retry", Game.RETRY),
]


def main() -> None:
    """`python tests/privacy/planted.py`: five runs of each, as `gossipfl privacy audit` makes."""
    from device_agent.canary import canary

    example = canary()
    for unit, bug, game in FINDS:
        found = Audit().play(unit, game, BUGS[bug], os.urandom, example)
        word = "passed" if found.holds else "found"
        sys.stdout.write(f"{unit.value:<7} {bug:<22} {game.value:<11} {found.median:5.2f} {word}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
