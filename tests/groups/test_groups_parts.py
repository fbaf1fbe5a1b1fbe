"""The parts of group sums: sharing, sealing, masks, the grid, the grouping."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

pytest.importorskip("Crypto")

from gossipfl.groups import grid, masks, sealing, shamir
from gossipfl.groups.masks import Mask
from gossipfl.groups.plan import Plan, groups, liars_borne, seed_of, threshold

ATTEMPT = bytes(range(32))


def entropy(seed: int = 1) -> shamir.Entropy:
    return random.Random(seed).randbytes


@pytest.mark.parametrize("size", [4, 5, 8, 16])
def test_any_t_shares_give_the_secret_and_one_less_does_not(size: int) -> None:
    secret, t = bytes(range(100, 132)), threshold(size)
    shares = shamir.split(secret, t, size, entropy())
    chosen = list(itertools.combinations(range(size), t))
    for places in random.Random(2).sample(chosen, min(4, len(chosen))):
        assert shamir.combine({place: shares[place] for place in places}, t) == secret
    short = {place: shares[place] for place in range(t - 1)}
    assert shamir.combine(short, t - 1) != secret
    with pytest.raises(ValueError, match="exactly"):
        shamir.combine(short, t)


def test_shares_below_the_threshold_fit_every_secret() -> None:
    """t - 1 shares and any guess of the secret lie on one polynomial: they rule nothing out."""
    shares = shamir.split(bytes(32), 3, 4, entropy())
    held = {0: shares[0], 1: shares[1]}
    for guess in (bytes(32), bytes([7]) * 32):
        halves = [
            shamir._value_at(
                {0: guess[at : at + 16], 1: held[0][at : at + 16], 2: held[1][at : at + 16]}, 3
            )
            for at in (0, 16)
        ]
        assert shamir.combine(held | {2: halves[0] + halves[1]}, 3) == guess


def test_shares_are_those_of_pycryptodome() -> None:
    from Crypto.Protocol.SecretSharing import Shamir

    shares = shamir.split(bytes(range(32)), 3, 5, entropy())
    assert Shamir.combine([(i + 1, shares[i][:16]) for i in (1, 3, 4)]) == bytes(range(16))
    theirs = dict(Shamir.split(3, 5, bytes(range(16))))
    both = {i - 1: share + share for i, share in theirs.items() if i in (1, 2, 5)}
    assert shamir.combine(both, 3) == bytes(range(16)) * 2


def test_what_is_sealed_opens_for_one_place_in_one_attempt() -> None:
    draw = entropy()
    one, two, three = (sealing.Secrets.draw(draw) for _ in range(3))
    shares = sealing.Shares(draw(32), draw(32))
    key_one, key_two = sealing.public(one.seal_key), sealing.public(two.seal_key)
    sealed = sealing.seal(one.seal_key, key_two, ATTEMPT, 0, 1, shares)
    assert len(sealed) == sealing.SEALED_BYTES
    assert sealing.unseal(two.seal_key, key_one, ATTEMPT, 0, 1, sealed) == shares
    assert sealing.unseal(three.seal_key, key_one, ATTEMPT, 0, 1, sealed) is None
    assert sealing.unseal(two.seal_key, key_one, bytes(32), 0, 1, sealed) is None
    assert sealing.unseal(two.seal_key, key_one, ATTEMPT, 1, 0, sealed) is None


def test_two_places_agree_on_a_mask_that_no_other_attempt_or_roster_has() -> None:
    one, two = (sealing.Secrets.draw(entropy(seed)) for seed in (1, 2))
    pub_one, pub_two = sealing.public(one.mask_key), sealing.public(two.mask_key)
    key = sealing.pair_key(one.mask_key, pub_two, ATTEMPT, bytes(32), 0, 1)
    assert key == sealing.pair_key(two.mask_key, pub_one, ATTEMPT, bytes(32), 0, 1)
    assert key != sealing.pair_key(two.mask_key, pub_one, bytes(32), bytes(32), 0, 1)
    assert key != sealing.pair_key(two.mask_key, pub_one, ATTEMPT, ATTEMPT, 0, 1)
    assert key != sealing.pair_key(two.mask_key, pub_one, ATTEMPT, bytes(32), 0, 2)


def test_a_key_that_agrees_with_everybody_is_refused() -> None:
    with pytest.raises(ValueError, match="low order"):
        sealing.require_usable(bytes(32))
    sealing.require_usable(sealing.public(bytes([9]) * 32))


def test_secrets_do_not_show() -> None:
    secrets = sealing.Secrets.draw(entropy())
    assert repr(secrets) == "Secrets(...)"
    assert "..." in repr(Mask(bytes(32), True))
    assert "..." in repr(sealing.Shares(b"", b""))


@pytest.mark.parametrize("size", [4, 8, 16])
def test_the_sum_of_the_largest_values_is_exact(size: int) -> None:
    rng = np.random.default_rng(3)
    rows = [rng.uniform(-8, 8, 1000).astype(np.float32) for _ in range(size)]
    for row in rows:
        row[:3] = [8.0, -8.0, 1e30]
    words = [grid.quantise(row, 8.0, size) for row in rows]
    whole = sum(word.view(np.int32).astype(np.int64) for word in words)
    total = masks.add_up(words)
    assert np.array_equal(total.view(np.int32), whole)
    inside = np.mean([np.clip(row, -8, 8).astype(np.float64) for row in rows], axis=0)
    error = np.abs(grid.mean(total, 8.0, size, size) - inside).max()
    assert error <= grid.step(8.0, size) + 8 * 2.0**-24


def test_a_vector_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        grid.quantise(np.array([1.0, np.nan], np.float32), 8.0, 4)
    with pytest.raises(ValueError, match="bytes"):
        grid.from_bytes(bytes(9), 2)


def test_masks_come_off_exactly_and_streams_are_those_of_chacha20() -> None:
    words = np.arange(40_000, dtype=np.uint32)
    chain = [Mask(bytes([n]) * 32, n % 2 == 0) for n in range(5)]
    masked = masks.apply(words, chain)
    assert not np.array_equal(masked, words)
    assert np.array_equal(masks.uncover([masked], chain), words)
    stream = masks.apply(np.zeros(16, np.uint32), [Mask(bytes(32), True)])
    # RFC 8439, A.1, test vector 1: key, nonce and counter zero
    assert stream.tobytes().hex().startswith("76b8e0ada0f13d90405d6ae55386bd28")


@pytest.mark.parametrize("added", [True, False])
def test_a_masked_vector_looks_uniform_whatever_is_under_it(added: bool) -> None:
    """Chi-square of each of the four bytes over 256 values; 255 degrees of freedom, 5 deviations;
    and the same bits are set as often as not."""
    for value in (0, 2**31, 12345):
        words = np.full(250_000, value, np.uint32)
        masked = masks.apply(words, [Mask(bytes([5]) * 32, added)])
        for byte in masked.view(np.uint8).reshape(-1, 4).T:
            seen = np.bincount(byte, minlength=256)
            expected = len(masked) / 256
            chi = float(((seen - expected) ** 2 / expected).sum())
            assert abs(chi - 255) < 5 * (2 * 255) ** 0.5
        ones = np.unpackbits(masked.view(np.uint8)).mean()
        assert abs(ones - 0.5) < 5 * 0.5 / (len(masked) * 32) ** 0.5


@pytest.mark.parametrize("count", [4, 7, 8, 15, 16, 17, 31, 100, 1000])
@pytest.mark.parametrize("size", [4, 8, 16])
def test_everybody_is_in_one_group_of_4_to_16(count: int, size: int) -> None:
    devices = [n.to_bytes(16, "big") for n in range(count)]
    found = groups(devices, seed_of(bytes(32), 1), size)
    assert sorted(itertools.chain.from_iterable(found)) == devices
    assert all(4 <= len(group) <= 16 for group in found)
    assert found == groups(devices[::-1], seed_of(bytes(32), 1), size)
    if count > 16:
        assert found != groups(devices, seed_of(bytes(32), 2), size)


def test_too_few_devices_and_copies_make_no_groups() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        groups([bytes(16)] * 5, bytes(32), 4)
    with pytest.raises(ValueError, match="allowed 4"):
        groups([], bytes(32), 3)


@pytest.mark.parametrize("size", range(4, 17))
def test_two_sets_of_t_share_more_members_than_may_lie(size: int) -> None:
    assert 2 * threshold(size) - size > liars_borne(size)
    assert liars_borne(size) * 3 < size <= liars_borne(size) * 3 + 3


def test_the_proposer_changes_with_each_attempt_and_so_does_the_id() -> None:
    members = tuple(n.to_bytes(16, "big") for n in range(8))
    plans = [Plan(bytes(32), bytes(32), 1, n, members, 10, 8.0) for n in range(8)]
    assert {plan.proposer for plan in plans} == set(range(8))
    assert len({plan.id for plan in plans}) == 8
    with pytest.raises(ValueError, match="ascending"):
        Plan(bytes(32), bytes(32), 1, 0, members[::-1], 10, 8.0)
