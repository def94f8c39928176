"""Points of a sweep: grids, ranges, draws, and what is wrong with them."""

import numpy as np
import pytest
import scipy.stats

from purejaxdqn.core.plan import make_plan
from purejaxdqn.searches.halving import Halving, check_rungs
from purejaxdqn.sweeps.directory import check_directory, describe, hold_directory, read_directory
from purejaxdqn.sweeps.points import (
    check_points,
    drawn_candidates,
    find_idle_keys,
    grid_candidates,
    read_points,
    split_values,
)
from purejaxdqn.sweeps.spaces import Choices, Range, as_text, draw_shares, read_space
from purejaxdqn.system.faults import UserError
from tests.conftest import PQN, words_without


def points_of(candidates):
    return check_points(candidates, read_points(candidates))


def lines_of(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return list(caught.value.lines)


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("gamma=0.9,0.99", ["0.9", "0.99"]),
        ("network.hidden=[64,64],[120,84]", ["[64,64]", "[120,84]"]),
        ("gamma=0.9", ["0.9"]),
        ("env.kwargs={a: 1, b: 2}, {a: 2}", ["{a: 1, b: 2}", "{a: 2}"]),
        ("env.id='a,b',c", ["'a,b'", "c"]),
        ("reward.clip=null,1", ["null", "1"]),
    ],
)
def test_commas_inside_brackets_and_quotes_separate_nothing(override, values):
    assert split_values(override) == (override.partition("=")[0], values)


def test_a_grid_is_all_combinations_and_the_first_key_is_the_slowest():
    points = points_of(
        grid_candidates(["cartpole"], ["gamma=0.9,0.8", "loss=huber", "optimizer.learning_rate=1e-3,1e-4"])
    )
    assert [tuple(point.swept.items()) for point in points] == [
        (("gamma", gamma), ("optimizer.learning_rate", rate)) for gamma in (0.9, 0.8) for rate in (1e-3, 1e-4)
    ]
    assert {point.config.loss for point in points} == {"huber"}
    assert points[0].name == "gamma=0.9 optimizer.learning_rate=0.001"


def test_compared_configs_are_laid_over_the_first_one_by_one():
    points = points_of(grid_candidates(["cartpole"], ["gamma=0.9,0.8"], ["dqn", "c51.yaml"]))
    assert [tuple(point.swept.values()) for point in points] == [("dqn", 0.9), ("dqn", 0.8), ("c51", 0.9), ("c51", 0.8)]
    assert [point.config.distribution.kind for point in points] == ["scalar", "scalar", "categorical", "categorical"]
    assert points[0].config.total_timesteps == points_of(grid_candidates(["cartpole"], []))[0].config.total_timesteps


def test_whole_numbers_and_fractions_of_a_parameter_share_a_program():
    """In a file, on the command line and in a search: 9 is read as a whole number and 9.8 as a fraction."""
    swept = ["env.params={gravity: 10, max_steps_in_episode: 100}", "env.params.length=1,0.5"]
    points = points_of(grid_candidates(["cartpole"], swept))
    types = [{name: leaf.dtype for name, leaf in point.config.hparams().env_params.items()} for point in points]
    assert types[0] == types[1] == {"gravity": "float64", "length": "float64", "max_steps_in_episode": "int64"}
    assert points[0].swept == {"env.params.length": 1}


def test_an_environments_parameter_can_be_swept():
    points = points_of(grid_candidates(["cartpole"], ["env.params.gravity=9.8,20.0"]))
    assert [point.swept for point in points] == [{"env.params.gravity": 9.8}, {"env.params.gravity": 20.0}]
    assert points[0].config.static() == points[1].config.static()


@pytest.mark.parametrize(
    ("grid", "line"),
    [
        (["gama=0.9,0.8"], "gama: unknown key; did you mean 'gamma'?"),
        (["gamma"], "'gamma' is not an override; write key=value, or key=value,value to sweep"),
        (["gamma=0.9,,0.8"], "gamma: a value is missing between the commas of '0.9,,0.8'"),
        (["gamma=0.9,0.9"], "gamma: a value appears twice in '0.9,0.9'"),
        (["gamma=0.9,0.90"], "the points 'gamma=0.9' and 'gamma=0.9' are the same run"),
        (
            ["total_timesteps=100_000,100_001"],
            "the points 'total_timesteps=100000' and 'total_timesteps=100000' are the same run, because values were "
            "moved to fit the schedule: total_timesteps 100001 -> 100000",
        ),
        (
            ["total_timesteps=100_001,100_000"],
            "the points 'total_timesteps=100000' and 'total_timesteps=100000' are the same run, because values were "
            "moved to fit the schedule: total_timesteps 100001 -> 100000",
        ),
        (["gamma=0.9", "gamma=0.8"], "gamma: given twice; write its values with commas between them"),
        (["gamma=0.9,1.5"], "gamma: 1.5 must be less than or equal to 1 (point gamma=1.5)"),
    ],
)
def test_a_bad_grid_is_refused_by_name(grid, line):
    assert lines_of(lambda: points_of(grid_candidates(["cartpole"], grid))) == [line]


def test_a_choice_of_any_length_is_taken_whole():
    """YAML folds lines of 80 columns, of which the first was taken."""
    deep = Choices((tuple(range(10, 40)), (8,)))
    points = points_of(drawn_candidates(["cartpole"], [], {"network.hidden": deep}, [[0.0], [0.5]]))
    assert [point.config.network.hidden for point in points] == list(deep.values)
    text = f"[{', '.join(map(str, deep.values[0]))}]"
    assert as_text(deep.values[0]) == text  # a cell of runs.csv, a choice of a search
    assert points[0].name == f"network.hidden={text}"


def test_a_fault_of_many_points_is_reported_once():
    grid = ["gamma=0.9,0.8,0.7", "replay.batch_size=0"]
    assert lines_of(lambda: points_of(grid_candidates(["cartpole"], grid))) == [
        "replay.batch_size: 0 must be greater than or equal to 1"
    ]


@pytest.mark.parametrize(
    ("text", "range"),
    [
        ("{low: 0.9, high: 0.999}", Range(0.9, 0.999)),
        ("{low: 1e-5, high: 1e-2, log: true}", Range(1e-5, 1e-2, log=True)),
        ("{low: 1, high: 5}", Range(1, 5, step=1)),
        ("{low: 32, high: 256, step: 32}", Range(32, 256, step=32)),
        ("[[64, 64], [120, 84]]", Choices(((64, 64), (120, 84)))),
        ("{choices: [1, 2]}", Choices((1, 2))),
    ],
)
def test_a_space_is_ranges_and_choices(tmp_path, text, range):
    path = tmp_path / "space.yaml"
    path.write_text(f"n_step: {text}\n")
    assert read_space(path) == {"n_step": range}


@pytest.mark.parametrize("key", ["gamma", "replay.alpha", "optimizer.max_grad_norm"])
def test_whole_ends_of_a_real_number_are_a_range_of_real_numbers(tmp_path, key):
    path = tmp_path / "space.yaml"
    path.write_text(f"{key}: {{low: 0, high: 1}}\n")
    space = read_space(path)
    assert space == {key: Range(0, 1)}
    assert space[key].at(0.25) == 0.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{low: 2, high: 1}", "the range is empty: low 2 is not below high 1"),
        ("{low: 0.0, high: 1.0, log: true}", "a logarithmic range must start above 0, not at 0.0"),
        ("{low: a, high: 1}", "low and high must be numbers, within the range of float32"),
        ("{low: 0, high: .inf}", "low and high must be numbers, within the range of float32"),
        (f"{{low: 1, high: {10**400}}}", "low and high must be numbers, within the range of float32"),
        ("{low: 0.1, high: 1, step: 2}", "step, low and high must be whole numbers, and step at least 1"),
        ("{low: 1, high: 64, log: true, step: 2}", "log and a step above 1 exclude each other"),
        ("[]", "{'choices': []} must be a list of one choice or more, and nothing else"),
        ("3", "3 must be a list of choices, or low and high with log or step"),
        ("{from: 1, to: 2}", "{'from': 1, 'to': 2} must be a list of choices, or low and high with log or step"),
        ("{low: 1, high: 2, log: 3}", "log: 3 must be true or false"),
    ],
)
def test_a_bad_range_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "space.yaml"
    path.write_text(f"gamma: {text}\n")
    assert lines_of(read_space, path) == [f"--space: gamma: {message}"]


def test_an_empty_or_missing_space_is_refused(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("")
    assert lines_of(read_space, path) == [f"--space: {path} names no key"]
    (line,) = lines_of(read_space, "search/nothing.yaml")
    assert line.startswith("--space: search/nothing.yaml is neither a file nor a shipped one")


@pytest.mark.parametrize("method", ["random", "sobol"])
@pytest.mark.parametrize(
    ("range", "quantiles"),
    [
        (Range(0.5, 2.5), lambda x: (x - 0.5) / 2),
        (Range(1e-4, 1e-1, log=True), lambda x: np.log10(x / 1e-4) / 3),
    ],
)
def test_draws_fill_a_range_evenly_on_its_scale(method, range, quantiles):
    values = np.array([range.at(share) for share in draw_shares(512, 1, method=method, seed=0)[:, 0]])
    assert scipy.stats.kstest(quantiles(values), "uniform").pvalue > 0.01
    assert range.low <= values.min() < values.max() <= range.high


@pytest.mark.parametrize(
    ("range", "chances"),
    [
        (Range(32, 128, step=32), {32: 0.25, 64: 0.25, 96: 0.25, 128: 0.25}),
        (Range(1, 3, step=1), {1: 1 / 3, 2: 1 / 3, 3: 1 / 3}),
        # Each whole number has the share of the logarithmic scale between its half-way neighbours.
        (Range(1, 3, log=True, step=1), {k: np.log((k + 0.5) / (k - 0.5)) / np.log(7) for k in (1, 2, 3)}),
        (Choices(("a", "b")), {"a": 0.5, "b": 0.5}),
    ],
)
def test_every_whole_number_and_choice_has_its_chance(range, chances):
    drawn = [range.at(share) for share in (np.arange(30_000) + 0.5) / 30_000]
    assert {value: drawn.count(value) for value in chances} == {
        value: pytest.approx(30_000 * chance, abs=2) for value, chance in chances.items()
    }


def test_sobol_draws_are_more_even_than_random_ones():
    spread = {
        method: scipy.stats.qmc.discrepancy(draw_shares(100, 3, method=method, seed=1))
        for method in ("sobol", "random")
    }
    assert spread["sobol"] < spread["random"] / 4


def test_draws_repeat_and_hang_on_their_seed():
    for method in ("random", "sobol"):
        one, again, other = (draw_shares(20, 2, method=method, seed=seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert not np.allclose(one, other)


def test_drawn_points_carry_their_values():
    space = {"gamma": Range(0.9, 0.99), "network.hidden": Choices(((8, 8), (16,)))}
    points = points_of(drawn_candidates(["cartpole"], [], space, [[0.0, 0.0], [0.5, 0.75]]))
    assert [point.swept for point in points] == [
        {"gamma": 0.9, "network.hidden": (8, 8)},
        {"gamma": pytest.approx(0.945), "network.hidden": (16,)},
    ]
    assert points[1].config.network.hidden == (16,)


def test_every_length_that_is_swept_has_its_own_interval_and_can_be_searched():
    """The file's, 2,000 steps, serves 40,000 steps, but not a million, of which halving reaches two rungs."""
    candidates = grid_candidates(["cartpole"], ["total_timesteps=40_000,1_000_000", "stop.return=null"])
    short, long = (draft.config for draft in read_points(candidates))
    assert (short.evaluation.every, long.evaluation.every) == (2_000, 99_800)
    for config in (short, long):
        check_rungs(Halving(factor=2, rungs=2), config)
    own = grid_candidates(["cartpole"], ["total_timesteps=40_000,1_000_000", "evaluation.every=2_000"])
    assert [draft.config.evaluation.every for draft in read_points(own)] == [2_000, 2_000]


@pytest.mark.parametrize(
    ("swept", "lengths", "epochs"),
    [
        ("rollout.steps=8,12", [640, 624], [20, 13]),  # rollouts of 32 and 48 steps
        ("env.num_envs=4,6", [640, 624], [20, 13]),
        ("schedule.target_every=null,64", [640, 640], [20, 10]),  # whole periods of a target network
    ],
)
def test_every_point_without_replay_has_the_length_of_its_own_rollouts(swept, lengths, epochs):
    key = swept.partition("=")[0]
    points = points_of(grid_candidates(["cartpole_cleanrl"], [*words_without(PQN, key), swept]))
    assert [point.config.total_timesteps for point in points] == lengths
    assert [make_plan(point.config).epochs for point in points] == epochs
    assert len({point.config.static() for point in points}) == 2
    assert [list(point.swept) for point in points] == [[key]] * 2


def test_a_space_that_names_an_unknown_key_is_refused():
    space = {"gama": Range(0.9, 0.99)}
    (line,) = lines_of(lambda: points_of(drawn_candidates(["cartpole"], [], space, [[0.0]])))
    assert line == "gama: unknown key; did you mean 'gamma'?"


@pytest.mark.parametrize(
    ("grid", "lines"),
    [
        (
            ["replay.alpha=0.2,0.9", "gamma=0.9,0.99"],
            ["replay.alpha is swept but has no effect: it needs replay.kind prioritised"],
        ),
        (["replay.alpha=0.2,0.9", "replay.kind=uniform,prioritised"], []),
        (["loss=huber,squared"], []),
        (["exploration.end=1,0.1", "exploration.fraction=0.1,0.2", "exploration.start=1"], []),
    ],
)
def test_a_swept_key_that_does_nothing_in_any_point_is_named(grid, lines):
    assert find_idle_keys(points_of(grid_candidates(["cartpole"], grid))) == lines


def test_an_early_end_has_no_effect_in_a_sweep_which_is_said_of_the_command_line_alone():
    words = ["stop.return=400", "gamma=0.9,0.99"]
    points = points_of(grid_candidates(["cartpole"], words))
    assert find_idle_keys(points, words) == ["stop.return has no effect here: the runs of a program end together"]
    assert find_idle_keys(points, words[1:]) == []


@pytest.mark.parametrize(
    ("grid", "line"),
    [
        ("stop.return=100,200", "stop.return has no effect here: the runs of a program end together"),
        ("checkpoint.keep=1,2", "checkpoint.keep is swept but has no effect: only train reads it"),
        ("log=csv,tensorboard", "log is swept but has no effect: only train reads it"),
    ],
)
def test_a_swept_key_that_only_train_reads_is_named(grid, line):
    """As a search has it, whose points come from a space and not from the command line."""
    assert find_idle_keys(points_of(grid_candidates(["cartpole"], [grid]))) == [line]


@pytest.mark.parametrize(
    "override",
    [
        "gamma=0.9,0.99",
        "network.hidden=[8],[8, 16]",
        "network={hidden: [8]},{hidden: [16], noisy: true}",
        "env.params={gravity: 9},{gravity: 8, force_mag: 9.5}",
        "env.params.gravity=9,8.5",
        "reward.clip=null,1",
        "loss=huber,squared",
        "network.noisy=true,false",
    ],
)
def test_what_is_swept_is_read_back_from_a_sweeps_directory(override, tmp_path):
    points = points_of(grid_candidates(["cartpole"], [override]))
    with hold_directory(tmp_path / "sweep", describe(points, 2)):
        found, seeds = read_directory(tmp_path / "sweep")
    assert seeds == 2
    assert [point.config for point in found] == [point.config.model_copy(update={"num_seeds": 1}) for point in points]
    assert [point.name for point in found] == [point.name for point in points]
    assert check_directory(tmp_path / "sweep", describe(points, 2))


def test_a_grid_whose_number_of_points_cannot_be_printed_is_refused():
    (line,) = lines_of(grid_candidates, ["cartpole"], [f"k{i}=1,2" for i in range(20_000)])
    assert line == "More than 10^15 points are too many for one sweep; it takes 1000000 at most"
