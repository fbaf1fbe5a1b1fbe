"""When a device has learnt enough: the conditions one by one, and what they never do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.aggregation import Merge, rule
from gossipfl.convergence import Convergence, convergence
from gossipfl.errors import PeerError
from gossipfl.messages import Stop
from gossipfl.stopping import ALONE_ROUNDS, HARD, HOLD, WINDOW, Cause, Stopping, slope

Step = Callable[[Stopping], Stopping]


def merge(
    relative: float | None = None,
    accuracy: float | None = None,
    loss: float | None = None,
    is_quiet: bool = False,
) -> Step:
    seen = None if relative is None else Convergence(relative, 1.0)
    return lambda state: state.merged(seen, accuracy, loss, is_quiet=is_quiet)


def after(*steps: Step, state: Stopping | None = None) -> Stopping:
    state = state or Stopping()
    for step in steps:
        state = step(state)
    return state


FAR = (merge(1.0),) * WINDOW
UNMERGED: Step = lambda state: state.unmerged()  # noqa: E731
SOME = Stop(distance=0.1)

CASES: list[tuple[str, tuple[Step, ...], int, Stop, Cause | None]] = [
    ("nothing is named", (*FAR,) * 40, 10_000, Stop(), None),
    ("below the rounds", (), 4, Stop(rounds=5), None),
    ("as many rounds", (), 5, Stop(rounds=5), Cause.ROUNDS),
    ("no round at all", (), 0, Stop(rounds=0), Cause.ROUNDS),
    ("below the epochs", (lambda s: s.trained(4, 9),), 1, Stop(epochs=5), None),
    ("as many epochs", (lambda s: s.trained(3, 9),) * 2, 2, Stop(epochs=5), Cause.EPOCHS),
    (
        "bytes published and pulled",
        (lambda s: s.trained(1, 60), lambda s: s.pulled(40)),
        1,
        Stop(bytes=100),
        Cause.BYTES,
    ),
    ("below the bytes", (lambda s: s.pulled(99),), 1, Stop(bytes=100), None),
    ("at the target", (*FAR, merge(0.1), merge(0.1)), 7, SOME, Cause.DISTANCE),
    ("one lucky pull", (*FAR, merge(0.1)), 6, SOME, None),
    ("one unlucky pull", (*FAR, merge(0.1), merge(0.2), merge(0.1)), 8, SOME, Cause.DISTANCE),
    ("away again", (*FAR, merge(0.05), merge(0.2), merge(0.2)), 8, SOME, None),
    ("too early to tell", (merge(0.01),) * (WINDOW - 1), 4, SOME, None),
    ("no distance known", (merge(),) * 20, 20, SOME, None),
    ("flat", FAR, 5, Stop(slope=0.01), Cause.SLOPE),
    (
        "falls by a tenth",
        tuple(merge(0.9**i) for i in range(9)),
        9,
        Stop(slope=0.05),
        None,
    ),
    (
        "falls by a hundredth",
        tuple(merge(0.99**i) for i in range(9)),
        9,
        Stop(slope=0.05),
        Cause.SLOPE,
    ),
    ("rises", tuple(merge(1.2**i) for i in range(9)), 9, Stop(slope=0.05), None),
    (
        "no better model",
        (merge(1.0, 0.9), *(merge(1.0, 0.9),) * 5),
        6,
        Stop(patience=5),
        Cause.PATIENCE,
    ),
    ("patient", (merge(1.0, 0.9), *(merge(1.0, 0.9),) * 4), 5, Stop(patience=5), None),
    (
        "better in the end",
        (*(merge(1.0, 0.9),) * 5, merge(1.0, 0.91), merge(1.0, 0.9)),
        7,
        Stop(patience=5),
        None,
    ),
    (
        "by the loss where there is no accuracy",
        (merge(1.0, None, 0.5), *(merge(1.0, None, 0.499),) * 5),
        6,
        Stop(patience=5),
        Cause.PATIENCE,
    ),
    (
        "as accurate, but surer",
        tuple(merge(1.0, 0.9, 0.5 * 0.98**i) for i in range(12)),
        12,
        Stop(patience=5),
        None,
    ),
    (
        "less sure, but more accurate",
        tuple(merge(1.0, 0.5 + 0.01 * i, 0.5 + i) for i in range(12)),
        12,
        Stop(patience=5),
        None,
    ),
    (
        "the loss falls",
        tuple(merge(1.0, None, 0.5 * 0.98**i) for i in range(12)),
        12,
        Stop(patience=5),
        None,
    ),
    ("a device without data", (merge(1.0, None, math.nan),) * 9, 9, Stop(patience=5), None),
    (
        "the last one to train",
        (merge(1.0), merge(1.0, is_quiet=True)),
        2,
        SOME,
        Cause.QUIET,
    ),
    ("left alone", (merge(1.0), *(UNMERGED,) * ALONE_ROUNDS), 4, SOME, Cause.QUIET),
    ("alone from the start", (UNMERGED,) * 50, 50, SOME, None),
    (
        "somebody still trains",
        (merge(1.0), UNMERGED, UNMERGED, merge(1.0), UNMERGED, UNMERGED),
        6,
        SOME,
        None,
    ),
    ("quiet, but it was told to go on", (merge(1.0), *(UNMERGED,) * 9), 10, Stop(rounds=99), None),
]


@pytest.mark.parametrize(
    ("steps", "rounds", "stop", "cause"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_when_a_device_rests(
    steps: tuple[Step, ...], rounds: int, stop: Stop, cause: Cause | None
) -> None:
    assert after(*steps).cause(stop, rounds, local=True) is cause


def test_with_a_privacy_policy_silence_says_nothing_of_local_data() -> None:
    state = after(merge(1.0, 0.9), *(merge(1.0, 0.9),) * 50)
    assert state.cause(Stop(patience=5), 51, local=True) is Cause.PATIENCE
    assert state.cause(Stop(patience=5), 51, local=False) is None
    quiet = after(merge(1.0, 0.9), *(UNMERGED,) * 9)
    assert quiet.cause(Stop(patience=5), 10, local=False) is None


def test_hard_conditions_come_first_and_outlive_what_is_new() -> None:
    state = after(*FAR, merge(0.1), merge(0.1), lambda s: s.trained(9, 100))
    assert state.cause(Stop(distance=0.1, epochs=9), 7, local=True) is Cause.EPOCHS
    assert state.renewed().cause(Stop(distance=0.1, epochs=9), 7, local=True) is Cause.EPOCHS
    assert state.renewed().cause(Stop(distance=0.1, bytes=100), 7, local=True) is Cause.BYTES
    assert state.renewed().cause(Stop(distance=0.1), 7, local=True) is None


def test_what_is_new_gives_five_rounds_before_the_next_rest() -> None:
    state = after(*FAR, merge(0.1), merge(0.1)).renewed()
    for _ in range(WINDOW - 1):
        state = after(merge(0.1), state=state)
        assert state.cause(SOME, 9, local=True) is None
    assert after(merge(0.1), state=state).cause(SOME, 9, local=True) is Cause.DISTANCE


def test_who_calls_and_is_not_heard_rests_again() -> None:
    state = after(*FAR, merge(0.1), merge(0.1)).renewed()
    state = after(*(UNMERGED,) * ALONE_ROUNDS, state=state)
    assert state.cause(SOME, 12, local=True) is Cause.QUIET


# --- drift --------------------------------------------------------------------------------------

DRIFT = Stop(drift=0.2, drift_checks=3)


@pytest.mark.parametrize(
    ("losses", "drifted"),
    [
        ((0.5, 0.71, 0.71, 0.71), True),
        ((0.5, 0.71, 0.71), False),
        ((0.5, 0.71, 0.71, 0.6, 0.71), False),  # three in a row
        ((0.5, 0.69, 0.69, 0.69, 0.69), False),  # within the margin
        ((0.5, 0.4, 0.61, 0.61, 0.61), True),  # above the best, which came later
        ((0.5, math.nan, 0.71, math.inf, 0.71, 0.71), True),  # no answer is no answer
        ((0.5, None, 0.71, 0.71), False),
        ((), False),
    ],
)
def test_drift(losses: tuple[float | None, ...], drifted: bool) -> None:
    state = Stopping()
    for loss in losses:
        state = state.checked(loss, 0.2)
    assert state.has_drifted(DRIFT) is drifted
    assert not state.has_drifted(Stop())
    assert not after(merge(1.0), state=state).has_drifted(DRIFT), "another model was merged"


# --- what is true of every history --------------------------------------------------------------

figure = st.none() | st.floats(0.0, 1.0)
happenings = st.one_of(
    st.builds(merge, st.none() | st.floats(0.0, 1e9), figure, figure, st.booleans()),
    st.just(UNMERGED),
    st.builds(lambda n, size: lambda s: s.trained(n, size), st.integers(1, 9), st.integers(1, 99)),
    st.builds(lambda size: lambda s: s.pulled(size), st.integers(1, 99)),
    st.just(lambda s: s.renewed()),
    st.builds(lambda loss: lambda s: s.checked(loss, 0.1), figure),
)
histories = st.lists(happenings, max_size=40).map(tuple)
limit = st.none() | st.integers(1, 30)
policies = st.builds(
    Stop,
    rounds=limit,
    epochs=limit,
    bytes=limit,
    distance=st.none() | st.floats(1e-3, 1e3),
    slope=st.none() | st.floats(1e-3, 1.0),
    patience=limit,
)


@given(histories, policies, st.integers(0, 40), st.booleans())
def test_a_rest_is_one_that_the_policy_names(
    history: tuple[Step, ...], stop: Stop, rounds: int, local: bool
) -> None:
    state = after(*history)
    cause = state.cause(stop, rounds, local=local)
    named = {
        Cause.ROUNDS: stop.rounds,
        Cause.EPOCHS: stop.epochs,
        Cause.BYTES: stop.bytes,
        Cause.DISTANCE: stop.distance,
        Cause.SLOPE: stop.slope,
        Cause.PATIENCE: stop.patience if local else None,
        Cause.QUIET: stop.distance or stop.slope or (stop.patience if local else None),
        None: True,
    }
    assert named[cause] is not None
    assert state.renewed().cause(stop, rounds, local=local) in {None, *HARD}


@given(histories, policies)
def test_a_restart_of_the_process_forgets_nothing(history: tuple[Step, ...], stop: Stop) -> None:
    state = after(*history)
    assert Stopping.load(state.dump()) == state
    assert len(state.dump()) < 1_024


@given(histories)
def test_budgets_only_grow_and_memory_does_not(history: tuple[Step, ...]) -> None:
    state = Stopping()
    for step in history:
        new = step(state)
        assert new.epochs >= state.epochs
        assert new.traffic >= state.traffic
        assert len(new.distances) <= WINDOW
        state = new


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xc0", b"\x01", Stopping().dump()[:-1]])
def test_damaged_state_is_refused(data: bytes) -> None:
    with pytest.raises((PeerError, ValueError, TypeError)):
        Stopping.load(data)


# --- the figures --------------------------------------------------------------------------------


@given(st.floats(0.5, 1.5), st.floats(1e-3, 1e3))
def test_the_slope_of_a_steady_change_is_that_change(factor: float, first: float) -> None:
    found = slope([first * factor**i for i in range(WINDOW)])
    assert found == pytest.approx(factor - 1.0, abs=1e-9)


@pytest.mark.parametrize("distances", [(1.0, 0.0, 1.0), (1.0, math.inf, 1.0), (1.0, math.nan, 1.0)])
def test_no_slope_where_there_is_none(distances: tuple[float, ...]) -> None:
    assert slope(distances) is None


def test_figures_of_a_merge_by_hand() -> None:
    """Base before (0, 0), own (3, 4), two peers, their mean, params0 at (0, -1)."""
    rows = [np.array(row, np.float32) for row in ((3.0, 4.0), (3.0, 0.0), (3.0, -1.0))]
    mean, zero = np.array((3.0, 1.0), np.float32), np.zeros(2, np.float32)
    merge = Merge(mean, (1 / 3, 1 / 3))
    seen = convergence(merge, rows[1:], rows[0], zero, np.array((0.0, -1.0), np.float32), 1)
    distance = 2.0 * math.sqrt(3 / 2)  # 3, 1 and 2: the median, and a merge of three is nearer
    assert seen.distance == pytest.approx(distance)
    assert seen.travelled == pytest.approx(math.sqrt(13.0))
    assert seen.step == pytest.approx(math.sqrt(10.0))
    assert seen.update == pytest.approx(5.0)
    assert seen.relative == pytest.approx(distance / math.sqrt(13.0))
    still = Merge(zero, (1.0, 0.0, 0.0))
    assert convergence(still, rows, None, None, zero, 0).relative == math.inf
    assert convergence(Merge(zero, ()), [], zero, None, zero, 0).distance == 0.0


@given(
    st.integers(0, 10_000),
    st.sampled_from(["nna", "median", "trimmed_mean", "krum", "multi_krum"]),
    st.sampled_from([0.0, 1e-3, 1e3, 1e6]),
)
def test_a_third_of_liars_cannot_move_the_distance_out_of_the_honest_range(
    seed: int, name: str, scale: float
) -> None:
    """Near (copies of the own model) or far, whatever the rule made of them."""
    generator = np.random.default_rng(seed)
    honest = list(generator.normal(0.0, 1.0, (9, 16)).astype(np.float32))
    own = honest[0]
    liars = [(own + np.float32(scale)).astype(np.float32) for _ in range(4)]
    merge = rule(name)(own, [*honest[1:], *liars], 4)
    seen = convergence(merge, [*honest[1:], *liars], own, None, np.zeros(16, np.float32), 4)
    alone = [float(np.linalg.norm(row - merge.parameters)) for row in honest]
    # From 1 - 1/13 for a mean of all to 2 - 2/13 for Krum's one of them, under the root.
    assert min(alone) / 1.37 <= seen.distance <= max(alone) / 0.95


@pytest.mark.parametrize("name", ["mean", "nna", "krum", "multi_krum", "median"])
@pytest.mark.parametrize("count", [6, 12, 40])
def test_the_distance_depends_little_on_the_rule_and_on_how_many_were_pulled(
    name: str, count: int
) -> None:
    """Standard normal models of 10^4 parameters: 100 from the mean of the fleet."""
    rows = list(np.random.default_rng(count).normal(0.0, 1.0, (count, 10_000)).astype(np.float32))
    merge = rule(name)(rows[0], rows[1:], 1)
    seen = convergence(merge, rows[1:], rows[0], None, np.ones(10_000, np.float32), 1)
    assert seen.distance == pytest.approx(100.0, rel=0.1)


def test_holds_and_windows_fit_together() -> None:
    assert HOLD <= WINDOW
    state = replace(after(*FAR), distances=(0.1,))
    assert state.cause(SOME, 5, local=True) is None, "one distance is not three"
