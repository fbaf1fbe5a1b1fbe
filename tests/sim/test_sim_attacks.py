"""What liars publish, and what becomes of it in a simulated fleet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gossipfl.aggregation import merge_step
from gossipfl.messages import Training
from gossipfl.parameters import Matrix
from sim.attacks import ATTACKS, Sight, attack, in_words, poisoned, stamped, triggered
from sim.attacks.adaptive import Adaptive
from sim.attacks.liar import corrupt
from sim.data import digits, hold_out
from sim.learners import Learner, Softmax
from sim.scene import Scene, Setup

NUMBERS = ("sign_flip", "sign_flip_step", "alie", "foe", "dissensus", "slow_drip", "zero")


def honest_models(count: int = 12, size: int = 400, seed: int = 5) -> Matrix:
    """Around a step of length 1 per coordinate away from zero, 0.3 apart from each other."""
    draw = np.random.default_rng(seed)
    return (1.0 + 0.3 * draw.standard_normal((count, size))).astype(np.float32)


def sight(count: int = 12, size: int = 400, **more: object) -> Sight:
    models = honest_models(count, size)
    zeros = np.zeros(size, np.float32)
    given = Sight(models, zeros, models[0], zeros, attackers=3)
    return replace(given, **more)  # type: ignore[arg-type]


# --- vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_says_what_it_does_and_gives_a_model_of_the_right_kind(name: str) -> None:
    assert 20 < len(in_words(name)) <= 100
    lie = attack(name, noise=0.3, f=3).vector(sight(victim=2))
    assert lie is not None
    assert (lie.shape, lie.dtype) == ((400,), np.float32)
    assert np.isfinite(lie).all() == (name not in ("nan", "inf"))


def test_lies_point_where_the_literature_says() -> None:
    seen = sight()
    mean = {n: float(np.mean(attack(n).vector(seen))) for n in NUMBERS}  # type: ignore[arg-type]
    h = float(seen.mean.mean())
    s = float(seen.spread.mean())
    assert mean["sign_flip"] == pytest.approx(-h, rel=1e-4)
    assert mean["sign_flip_step"] == pytest.approx(-4 * h, rel=1e-4)
    assert mean["foe"] == pytest.approx(-11 * h, rel=1e-4)
    assert mean["alie"] == pytest.approx(h - 1.5 * s, rel=1e-4)
    assert mean["slow_drip"] == pytest.approx(h - 0.3 * s, rel=1e-4)
    assert mean["zero"] == 0.0


def test_dissensus_cancels_what_the_others_would_pull() -> None:
    """With strength one, 12 honest and 3 lies leave the victim where it is; it is 1.5."""
    seen = sight(victim=4)
    lie = attack("dissensus").vector(seen)
    assert lie is not None
    own = seen.honest[4]
    pulled = (seen.honest - own).sum(axis=0) + 3 * (lie - own)
    away = -0.5 * (seen.honest - own).sum(axis=0)
    np.testing.assert_allclose(pulled, away, atol=1e-3)


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_noise_is_that_share_of_the_honest_deviation_and_each_liars_own(noise: float) -> None:
    seen = sight(size=20_000)
    foe = attack("foe", noise=noise)
    plain = attack("foe").vector(seen)
    first, second = foe.vector(seen.at(0)), foe.vector(seen.at(1))
    assert plain is not None
    assert first is not None
    assert second is not None
    added = (first - plain) / seen.spread
    assert float(added.std()) == pytest.approx(noise, rel=0.03)
    assert abs(float(np.corrcoef(first - plain, second - plain)[0, 1])) < 0.05
    np.testing.assert_array_equal(first, foe.vector(seen.at(0, victim=3)))


def test_mimics_follow_one_device_through_the_rounds() -> None:
    mimic = attack("mimic", seed=3)
    first = sight(who=range(12))
    lie = mimic.vector(first)
    (row,) = np.flatnonzero((first.honest == lie).all(axis=1))
    later = replace(first, honest=first.honest[::-1] + 1, who=range(11, -1, -1), round=1)
    np.testing.assert_array_equal(mimic.vector(later), first.honest[row] + 1)
    np.testing.assert_array_equal(mimic.vector(later.at(2)), first.honest[row] + 1)


def test_equivocators_and_the_silent_treat_askers_differently() -> None:
    equivocation, silence = attack("equivocation"), attack("selective_silence")
    even, odd = sight(victim=2), sight(victim=3)
    np.testing.assert_array_equal(equivocation.vector(even), even.own)
    assert not np.array_equal(equivocation.vector(odd), odd.own)  # type: ignore[arg-type]
    assert silence.vector(odd) is None
    np.testing.assert_array_equal(silence.vector(even), even.own)


@pytest.mark.parametrize("rule", ["median", "nna", "krum", "collapse+nna"])
def test_the_adaptive_liar_goes_as_far_as_the_rule_lets_it(rule: str) -> None:
    adaptive = attack("adaptive", noise=0.3, rule=rule, f=3, seed=2)
    assert isinstance(adaptive, Adaptive)
    seen = sight(count=20)
    lie = adaptive.vector(seen)
    assert lie is not None
    assert 0.0 <= adaptive.reach < 10.0

    def share(by: float) -> float:
        """Influence of three liars who go `by` times as far, on device 0's merge."""
        lies = [adaptive.noised(seen.mean + by * (plain - seen.mean), seen.at(k)) for k in range(3)]
        merge = merge_step(rule, seen.honest[0], [*seen.honest[1:], *lies], 3)
        return sum(merge.influence[19:])

    plain = adaptive.lie(seen)
    assert share(20.0) < 0.5 * 3 / 23


def test_the_adaptive_liar_goes_to_the_end_where_nothing_is_refused() -> None:
    adaptive = attack("adaptive", rule="mean", f=0)
    adaptive.vector(sight())
    assert isinstance(adaptive, Adaptive)
    assert adaptive.reach > 60.0


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="'sign_flip'"):
        attack("sign-flipp")


# --- examples -----------------------------------------------------------------------------------


def test_flipped_labels_and_triggers_are_what_the_liar_trains_on() -> None:
    data = digits().train
    flipped = attack("label_flip").poison(data)
    np.testing.assert_array_equal(flipped.y, 9 - data.y)
    marked = attack("backdoor").poison(data)
    changed = (marked.x != data.x).any(axis=1)
    assert 0.4 < changed.mean() <= 0.5
    assert (marked.y[changed] == 0).all()
    assert stamped(data.x).reshape(-1, 8, 8)[:, -2:, -2:].min() == data.x.max()


def test_a_backdoor_works_on_an_undefended_mean_and_leaves_the_task_alone() -> None:
    split = digits()
    learner = Learner(Softmax(64, 10), hold_out(split.train, 0.01, 1))
    door = attack("backdoor")
    liar = poisoned(learner, door)
    job = Training(learning_rate=0.05, momentum=0.9)
    base = learner.initial
    for number in range(15):
        model, lie = learner.train(base, job, number), liar.train(base, job, number)
        seen = Sight(model[None], base, lie, base, number)
        told = door.vector(seen)
        assert told is not None
        base = (5 * model + told) / np.float32(6)
    measured = learner.with_data(replace(split, test=triggered(split.test)))
    assert (measured.evaluate(base).accuracy or 0) > 0.9
    assert (learner.with_data(split).evaluate(base).accuracy or 0) > 0.8


# --- in a fleet ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_a_fleet_gets_on_with_its_work_beside_any_liar(name: str) -> None:
    """The checkers watch: nothing unsigned, unfinished or twice is merged, nobody is framed."""
    scene = Scene(3, Setup(devices=8, attackers=2))
    corrupt(scene.world, scene.devices[6:], attack(name, noise=0.3, f=2, seed=3))
    scene.start()
    scene.run_rounds(6, 60.0)
    scene.world.finish()
    assert scene.tally.completed >= 0.85  # two of seven refused in a first round leave too few
    assert min(scene.accuracies()) >= 0.85
    liars = {scene.name(d) for d in scene.devices[6:]}
    seen = [p for d in scene.honest() for p in scene.view(d).peers if p.device in liars]
    if name in ("nan", "inf"):
        assert all("not finite" in p.faults for p in seen)
    if name in ("dissensus", "equivocation"):
        assert {p.state for p in seen} == {"condemned"}
    else:
        assert "condemned" not in {p.state for p in seen}


def test_liars_may_begin_later() -> None:
    scene = Scene(3, Setup(devices=6, attackers=1))
    corrupt(scene.world, scene.devices[5:], attack("equivocation"), since_s=10.0)
    scene.start()
    name = scene.name(scene.devices[5])

    def states() -> set[str]:
        return {p.state for d in scene.honest() for p in scene.view(d).peers if p.device == name}

    scene.world.run_for(9.5)
    assert states() == {"live"}
    scene.world.run_until(lambda: states() == {"condemned"}, 15.0)
    scene.world.finish()
