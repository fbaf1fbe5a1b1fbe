"""Scenario files: those that ship come out as they expect; mistakes are told with their place."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gossipfl.errors import Exit, UserError
from sim.scenarios.cast import cast, parts_of, trainers
from sim.scenarios.drawing import draw
from sim.scenarios.files import Named, load, names, parse_bytes, shortened
from sim.scenarios.play import Played, Point, play, run, unmet
from sim.scenarios.schema import Expect, Scenario

Call = Callable[..., tuple[int, str, str]]
SMALL = """
about = "three devices"
rounds = 3
[fleet]
devices = 3
data = "blobs"
"""


HAPPENS = {
    "group_sum": {"crash"},
    "churn": {"crash", "leave"},
    "partition_heal": {"partition"},
    "handoff": {"move"},
    "sleepy_devices": {"sleep"},
}


def scenario(text: str) -> Named:
    return Named("a test", parse_bytes(text.encode(), "test.toml"))


# --- those that ship ----------------------------------------------------------------------------


def test_all_fourteen_ship() -> None:
    assert set(names()) == {
        *("lan20", "churn", "partition_heal", "lossy", "slow_members", "byzantine_20"),
        *("byzantine_33", "equivocators", "sleepy_devices", "heterogeneous_compute"),
        *("handoff", "wan_two_sites", "free_riders", "group_sum"),
    }


@pytest.mark.parametrize("name", names())
def test_a_scenario_comes_out_as_it_expects_in_its_short_form(name: str) -> None:
    named = load(name)
    expect = named.scenario.short.expect
    assert expect is not None
    assert expect.completed is not None
    played = play(Named(name, shortened(named.scenario)), 1)
    assert played.failures == [], played.report
    assert played.figures["device_rounds"] > 20
    assert set(played.faults) == HAPPENS.get(name, set())


def test_a_fleet_merges_as_a_policy_does_by_default() -> None:
    from gossipfl.fleet.documents import DEFAULT_RULE

    assert scenario(SMALL).scenario.policy.rule == DEFAULT_RULE


# --- what happens -------------------------------------------------------------------------------


def test_one_seed_gives_one_history() -> None:
    named = scenario(SMALL)
    assert run(named, 4).digest == run(named, 4).digest != run(named, 5).digest


def test_a_suspended_device_goes_on_where_it_was_and_its_clock_stood_still() -> None:
    stage = cast(scenario(SMALL.replace("= 3", "= 4")), 1)
    scene, world = stage.scene, stage.scene.world
    scene.start()
    scene.run_rounds(2, 30.0)
    sleeper, other = scene.devices[0], scene.devices[1]
    before, monotonic = scene.base_round(sleeper), sleeper.clock.monotonic(world.now)
    wall = sleeper.clock.wall(world.now)
    theirs = scene.base_round(other)
    world.suspend(sleeper, 30.0)
    world.run_for(29.0)
    assert scene.base_round(sleeper) == before
    assert scene.base_round(other) >= theirs + 8
    world.run_for(2.0)
    assert sleeper.clock.monotonic(world.now) == pytest.approx(monotonic + 1.0, abs=0.1)
    assert sleeper.clock.wall(world.now) == pytest.approx(wall + 31.0, abs=0.1)
    scene.run_rounds(3, 20.0, who=[sleeper])
    world.finish()


def test_sites_hear_no_multicast_of_each_other_but_find_each_other_through_gateways() -> None:
    sites = (
        '[[network.sites]]\nname = "a"\nshare = 0.5\n[[network.sites]]\nname = "b"\nshare = 0.5\n'
    )
    small = SMALL.replace("devices = 3", "devices = 8").replace("rounds = 3", "rounds = 6")
    apart = scenario(small + "[network]\ngateways = 1\n" + sites)
    stage = cast(apart, 1)
    network = stage.scene.world.network
    assert stage.site_of == ["a"] * 4 + ["b"] * 4
    assert not network.same_site(0, 4)
    assert network.link(0, 4).latency_s == pytest.approx(0.04)
    assert network.link(0, 3).latency_s == pytest.approx(0.002)
    played = run(apart, 1)
    assert played.points[-1].spread < 1e-3  # everybody merges everybody, across sites
    assert played.figures["completed"] > 0.9


def test_devices_that_join_later_were_not_there() -> None:
    late = scenario(SMALL + '[[timeline]]\nwhat = "join"\nat = 8.0\ndevices = [2]\n')
    played = run(late, 1)
    assert played.faults == {"join": 1}
    assert played.points[0].up < 3
    assert played.points[-1].up == 3


def test_liars_are_the_last_devices_and_count_for_no_figure() -> None:
    text = (
        SMALL.replace("devices = 3", "devices = 10")
        + '[[attackers]]\nattack = "zero"\nshare = 0.25\n'
    )
    stage = cast(scenario(text), 1)
    assert [d.index for d in stage.liars] == [8, 9]
    assert len(stage.honest()) == 8


def test_an_expectation_that_fails_says_which_and_by_how_much() -> None:
    played = play(scenario(SMALL + "[expect]\naccuracy_worst = 1.0\nquarantined_honest = 0\n"), 1)
    (failure,) = played.failures
    assert failure.startswith("accuracy_worst is 0.")
    assert failure.endswith("expected at least 1")
    assert not played.is_good


def test_every_expectation_can_fail() -> None:
    for field in msgspec.structs.fields(Expect):
        low = unmet(Expect(**{field.name: 0}), {field.name: -1.0})  # type: ignore[arg-type]
        high = unmet(Expect(**{field.name: 0}), {field.name: 1.0})  # type: ignore[arg-type]
        assert len(low) + len(high) == 1, field.name
        assert unmet(Expect(**{field.name: 0}), {}), field.name  # type: ignore[arg-type]


# --- data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "most_classes"),
    [
        ('split = "by_class"\nclasses = 2', 2),
        ('split = "iid"', 10),
        ('split = "by_class"\nclasses = 1', 1),
    ],
)
def test_splits_deal_out_what_they_say(lines: str, most_classes: int) -> None:
    from sim.data import digits

    fleet = scenario(
        SMALL.replace('"blobs"', '"digits"').replace("= 3\ndata", f"= 12\n{lines}\ndata")
    )
    parts = parts_of(digits().train, fleet.scenario.fleet, 1)
    assert len(parts) == 12
    assert min(len(part) for part in parts) > 20
    assert max(len(np.unique(part.y)) for part in parts) == most_classes


def test_by_speaker_each_device_has_as_few_speakers_as_can_be() -> None:
    from sim.data import Examples, split_by_group

    x = np.zeros((90, 4), np.float32)
    who = np.repeat(np.arange(9), 10)
    said = Examples(x, who % 3, 3, who)
    for parts, speakers in ((9, 1), (4, 3), (20, 1)):
        found = split_by_group(said, parts, 1)
        assert sum(len(part) for part in found) == 90
        assert max(len(np.unique(part.groups)) for part in found) == speakers  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="do not say who"):
        split_by_group(Examples(x, who, 9), 3, 1)


def test_a_fleet_may_run_the_bundle_of_real_agents() -> None:
    text = (
        SMALL.replace('"blobs"', '"digits"') + 'model = "digits-mlp"\nscale = 4.0\nexamples = 100\n'
    )
    played = play(scenario(text + "[expect]\ncompleted = 1.0\naccuracy_worst = 0.7\n"), 1)
    assert played.failures == []


def test_a_bundle_and_the_learner_start_training_from_the_same_inputs() -> None:
    text = SMALL.replace('"blobs"', '"digits"')
    (bundle, *_) = trainers(scenario(text + 'model = "digits-logistic"\n').scenario.fleet, 1)
    (learner, *_) = trainers(scenario(text).scenario.fleet, 1)
    assert bundle.loss(np.zeros_like(bundle.initial)) == pytest.approx(np.log(10), rel=1e-4)
    assert learner.loss(learner.initial) == pytest.approx(np.log(10), rel=1e-4)


@pytest.mark.parametrize("name", ["mnist", "japanese_vowels", "basic_motions"])
def test_fetched_data_are_used_where_they_are_and_their_script_named_where_not(
    name: str, tmp_path: Path
) -> None:
    from sim.datasets import FOLDER, SOURCES, stored

    with pytest.raises(UserError, match="is not here") as told:
        stored(name, 0, tmp_path)
    assert SOURCES[name][1] in told.value.hint
    assert Path(SOURCES[name][1]).exists()
    if not (FOLDER / SOURCES[name][0]).exists():
        pytest.skip("not fetched")
    split = stored(name)
    assert len(split.train) >= 40
    assert np.isfinite(split.train.x).all()
    assert set(np.unique(split.test.y)) == set(range(split.train.classes))


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cause", "hint"),
    [
        (
            SMALL + "devises = 4\n",
            "unknown field `devises` - at `$.fleet`",
            "did you mean devices?",
        ),
        ("abot = 1\n" + SMALL, "unknown field `abot`", "did you mean about?"),
        (SMALL.replace("devices = 3", "devices = 1"), "$.fleet.devices", "scenarios.md"),
        (SMALL.replace('"blobs"', '"blops"'), "$.fleet.data", "did you mean blobs?"),
        (SMALL + '[[timeline]]\nwhat = "slep"\n', "$.timeline[0].what", "did you mean sleep?"),
        (SMALL + '[[timeline]]\nwhat = "sleep"\nlast = 3\n', "$.timeline[0]", "mean lasts?"),
        (SMALL + "[network]\nlan = { los = 0.1 }\n", "$.network.lan", "did you mean loss?"),
        (SMALL + '[policy]\nrule = "nnb"\n', "'nna'", "scenarios.md"),
        (SMALL + '[[attackers]]\nattack = "fo"\ncount = 1\n', "'foe'", "scenarios.md"),
        (
            SMALL + "[policy.privacy]\nz = 0.3\nepsilon = 0.1\n",
            "one publication costs more than epsilon 0.1",
            "scenarios.md",
        ),
        (SMALL + '[policy.privacy]\nmode = "group-sum"\n', "group_size", "scenarios.md"),
        (SMALL + '[policy.privacy]\nmode = "locl"\n', "$.policy.privacy.mode", "local"),
        (SMALL + '[[attackers]]\nattack = "foe"\n', "either count or share", "scenarios.md"),
        (SMALL + '[[attackers]]\nattack = "foe"\ncount = 2\n', "fewer than 2 honest", ""),
        (SMALL + "minutes = 3", "unknown field", ""),
        (SMALL.replace("rounds = 3", ""), "either rounds or minutes", ""),
        (SMALL + '[[timeline]]\nwhat = "move"\nsite = "moon"\n', "no site 'moon'", ""),
        ("about = ", "Invalid value (at end of document)", ""),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_may_stand_there(
    text: str, cause: str, hint: str
) -> None:
    with pytest.raises(UserError) as told:
        scenario(text)
    assert told.value.code == "GF108"
    assert "test.toml" in told.value.cause
    assert cause in told.value.cause
    assert hint in told.value.hint


def test_the_example_of_the_how_to_is_a_scenario(root: Path) -> None:
    page = (root / "docs/how-to/simulate.md").read_text()
    text = page.split("```toml\n")[1].split("```")[0]
    assert isinstance(parse_bytes(text.encode(), "simulate.md"), Scenario)


# --- the verb -----------------------------------------------------------------------------------


def test_the_verb_plays_a_file_and_draws_it(gossipfl: Call, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(SMALL + "[expect]\ncompleted = 0.9\n")
    code, out, _ = gossipfl("sim", "run", str(file), "--json", "--plot", str(tmp_path / "a.svg"))
    assert code == Exit.OK
    told = json.loads(out.splitlines()[-1])["data"]
    assert (told["scenario"], told["failures"]) == ("mine", [])
    picture = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert picture.tag.endswith("svg")


def test_an_unmet_expectation_is_exit_1_with_seed_options_and_reason(
    gossipfl: Call, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(SMALL + "[expect]\naccuracy_mean = 1.0\n")
    code, out, _ = gossipfl("sim", "run", str(file), "--seed", "3")
    assert code == Exit.NO
    assert "NOT as expected: accuracy_mean is" in out
    assert f"again: gossipfl sim run {file} --seed 3" in out
    assert "options: Options(" in out


def test_lists_name_every_scenario_and_attack(gossipfl: Call) -> None:
    from sim.attacks import ATTACKS

    code, out, _ = gossipfl("sim", "list")
    assert code == Exit.OK
    assert all(name in out for name in names())
    _, out, _ = gossipfl("sim", "attacks", "--json")
    assert set(json.loads(out.splitlines()[-1])["data"]["attacks"]) == set(ATTACKS)


def test_an_unknown_scenario_is_told_with_the_nearest(gossipfl: Call) -> None:
    code, _, err = gossipfl("sim", "run", "lan2")
    assert code == Exit.USAGE
    assert "did you mean lan20?" in err
    code, _, err = gossipfl("sim", "run", "nowhere/there.toml")
    assert code == Exit.CONFIG
    assert "No such file" in err


def test_the_picture_has_curves_axes_and_a_legend_in_light_and_dark() -> None:
    points = [Point(3.0 * k, 0.1 * k, 0.08 * k, 1.0 / (k + 1), 8 * k, 8) for k in range(10)]
    text = draw(Played("<a & b>", 7, points))
    picture = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    words = [node.text for node in picture.iter(f"{space}text")]
    assert {"<a & b>, seed 7", "mean", "worst", "virtual seconds", "0.8"} <= set(words)
    curves = list(picture.iter(f"{space}polyline"))
    assert [len(c.attrib["points"].split()) for c in curves] == [10] * 4
    assert "prefers-color-scheme: dark" in text
    assert "script" not in text


def test_under_a_budget_devices_publish_as_often_as_it_pays_for_and_then_listen() -> None:
    text = SMALL.replace("rounds = 3", "rounds = 12") + (
        "[policy.privacy]\nepsilon = 4.0\nz = 2.0\nclip = 0.1\n"
        "[expect]\nreleases = 3\nlistening = 1.0\n"
    )
    played = play(scenario(text), 1)
    assert played.failures == []
    assert played.figures["releases"] == 3, "epsilon 4 pays for three at z = 2"


def test_records_can_be_the_unit() -> None:
    text = SMALL + (
        '[policy.privacy]\nunit = "record"\nepsilon = 8.0\nz = 2.0\nsample_rate = 0.1\n'
        "steps = 2\nlot = 10\n"
    )
    played = play(scenario(text), 1)
    assert played.failures == []
    assert played.figures["releases"] >= 2
    assert played.figures["listening"] == 0.0


def test_noise_is_added_beside_group_sums() -> None:
    text = SMALL.replace("devices = 3", "devices = 8").replace("rounds = 3", "minutes = 2") + (
        "[policy]\ngroup_size = 4\n"
        '[policy.privacy]\nmode = "group-sum"\nepsilon = 8.0\nz = 4.0\nclip = 0.1\n'
    )
    played = play(scenario(text), 1)
    assert played.failures == []
    assert played.figures["releases"] >= 2
