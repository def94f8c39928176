"""Configs: what is accepted, what is refused and how, and the plan that comes of it."""

import contextlib
import time

import numpy as np
import pytest
import yaml

from purejaxdqn import ConfigError, load_config
from purejaxdqn.config.building import make_algorithm
from purejaxdqn.config.checks import _find_interval_faults, _find_length_faults, find_warnings
from purejaxdqn.config.fitting import fit, nearest_multiple
from purejaxdqn.config.reading import read_config, shipped_configs, to_yaml
from purejaxdqn.core.config import Config, config_keys, traced_keys, value_at
from purejaxdqn.core.plan import make_plan
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.runs.resuming import read_run
from purejaxdqn.runs.training import choose_segments
from tests.conftest import PQN, TRAINABLE


def faults(*overrides, source="cartpole_cleanrl"):
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    return list(caught.value.lines)


@pytest.mark.parametrize("name", TRAINABLE)
def test_every_shipped_config_loads_and_comes_back_from_its_yaml(name, tmp_path):
    config = load_config(name)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path) == config


def test_the_defaults_are_the_contracts():
    config = load_config("cartpole_cleanrl")
    assert Config().replay.size == config.replay.size == 10_000
    assert Config().total_timesteps == 100_000
    assert set(traced_keys()) <= set(config_keys())
    assert Config().hparams()._fields == config.hparams()._fields == tuple(traced_keys().values())


def test_files_are_laid_over_each_other_key_by_key(tmp_path):
    (tmp_path / "preset.yaml").write_text("bootstrap: {kind: double}\noptimizer: {eps: 1e-4}\n", encoding="utf-8")
    config = load_config(["cartpole_cleanrl.yaml", tmp_path / "preset.yaml"], ["optimizer.eps=2e-4"])
    assert config.bootstrap.kind == "double"
    assert config.optimizer.eps == 2e-4
    assert config.optimizer.learning_rate == 2.5e-4


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optimizer.learning_rate=1e-3", "optimizer.learning_rate", 1e-3),
        ("optimizer.learning_rate=.5", "optimizer.learning_rate", 0.5),
        ("gamma=1", "gamma", 1.0),
        ("network.hidden=[64,64]", "network.hidden", (64, 64)),
        ("network={hidden: [8], layer_norm: true}", "network.hidden", (8,)),
        ("optimizer.max_grad_norm=null", "optimizer.max_grad_norm", None),
        ("env.params.gravity=10", "env.params", (("gravity", 10),)),
        ("total_timesteps=20_000", "total_timesteps", 20_000),
    ],
)
def test_overrides_are_yaml(override, key, value):
    assert value_at(load_config("cartpole_cleanrl", [override]), key) == value


PLANS = {
    # overrides: (environments, warm-up, epochs, periods, iterations, rollout, episodes, final episodes), gradient steps
    (): ((10, 1000, 20, 49, 50, 1, 10, 100), 1),
    ("evaluation.every=245000",): ((10, 1000, 2, 490, 50, 1, 10, 100), 1),
    ("schedule.train_every=50", "schedule.gradient_steps=3"): ((10, 1000, 20, 49, 10, 5, 10, 100), 3),
    ("schedule.target_every=10", "schedule.tau=0.005"): ((10, 1000, 20, 2450, 1, 1, 10, 100), 1),
    ("env.num_envs=2", "total_timesteps=10500"): ((2, 5000, 1, 1, 50, 5, 10, 100), 1),
    ("total_timesteps=32500", "evaluation.final_episodes=7"): ((10, 1000, 15, 3, 50, 1, 10, 7), 1),
}


@pytest.mark.parametrize("overrides", PLANS)
def test_the_plan_makes_up_the_whole_run(overrides):
    config = load_config("cartpole_cleanrl", overrides)
    plan = make_plan(config)
    lengths, gradient_steps = PLANS[overrides]
    assert plan == lengths
    draws = make_algorithm(config, make_environment("CartPole-v1")).draws
    assert draws.shapes == ((gradient_steps, config.replay.batch_size), (gradient_steps, 2))
    learning = plan.epochs * plan.periods * plan.iterations * plan.rollout
    assert (plan.warmup + learning) * config.env.num_envs == config.total_timesteps


MOVED = {
    ("total_timesteps=1e6",): "total_timesteps 1000000 -> 999500",
    ("total_timesteps=1_000_000", "evaluation.every=249_500"): "",  # four evaluations, which is meant
    ("total_timesteps=5_500",): "",  # there are seven periods
    ("total_timesteps=60_000",): "total_timesteps 60000 -> 59000",
    ("total_timesteps=2147483647",): "total_timesteps 2147483647 -> 2147483000",
    ("checkpoint.every=20000",): "checkpoint.every 20000 -> 22000",
    ("evaluation.every=10_000",): "evaluation.every 10000 -> 11000",
    ("evaluation.every=70_000",): "evaluation.every 70000 -> 66000",
    ("evaluation.every=150_000",): "total_timesteps 200000 -> 152000",
    ("evaluation.every=1",): "evaluation.every 1 -> 500",
    ("evaluation.every=1e9",): "evaluation.every 1000000000 -> 198000",
    ("schedule.train_every=15",): "schedule.train_every 15 -> 20",
    ("schedule.train_every=7",): "schedule.train_every 7 -> 10",
    ("schedule.target_every=505",): "schedule.target_every 505 -> 510, total_timesteps 200000 -> 200900",
    ("env.num_envs=32",): (
        "schedule.warmup 2000 -> 2016, schedule.train_every 10 -> 32, schedule.target_every 500 -> 512, "
        "total_timesteps 200000 -> 201696"
    ),
    ("network.memory=gru", "replay.size=10010"): "replay.size 10010 -> 10000",
    ("network.memory=gru", "schedule={train_every: 20, warmup: 10010}"): (
        "schedule.warmup 10010 -> 10020, total_timesteps 200000 -> 200020"
    ),
    ("replay.kind=none", "total_timesteps=199_000"): "total_timesteps 199000 -> 200000",
    ("replay.kind=none", "schedule.target_every=1000"): "schedule.target_every 1000 -> 2000",
}


@pytest.mark.parametrize("overrides", MOVED)
def test_what_does_not_fit_the_schedule_is_moved_and_named_in_a_line(overrides):
    with_replay = "replay.kind=none" not in overrides
    moves = MOVED[overrides]
    draft = read_config("cartpole_double" if with_replay else ["cartpole_double", "pqn"], overrides)
    assert draft.moves == (moves and f"moved to fit the schedule: {moves}")
    if draft.moves:
        with pytest.warns(UserWarning, match="moved to fit"):
            load_config("cartpole_double" if with_replay else ["cartpole_double", "pqn"], overrides)


@pytest.mark.parametrize("name", shipped_configs())
def test_any_budget_of_a_shipped_config_gives_about_20_evaluations(name):
    """Also of one that sets ``evaluation.every``, which stays while it gives 10 to 100, or as many as in the file."""
    file = read_config(name).config
    for total in ("60_000", "1e6"):
        config = read_config(name, [f"total_timesteps={total}"]).config
        epochs = make_plan(config).epochs
        if config.evaluation.every == file.evaluation.every is not None:
            assert min(10, make_plan(file).epochs) <= epochs <= 100
        else:
            assert 10 <= epochs <= 20
        assert config.total_timesteps == pytest.approx(float(total), rel=0.03)
    assert read_config(name, [f"total_timesteps={file.total_timesteps}"]).config == file


INTERVALS = {
    # overrides of cartpole, whose file has an evaluation every 2,000 of 100,000 steps: its interval and length
    (): (2_000, 100_000),
    ("total_timesteps=60_000",): (2_000, 60_000),
    ("total_timesteps=22_000",): (2_000, 22_000),
    ("total_timesteps=202_000",): (2_000, 202_000),  # 100 evaluations
    ("total_timesteps=204_000",): (20_200, 204_000),
    ("total_timesteps=1e6",): (99_800, 1_000_000),
    ("total_timesteps=10_000",): (400, 10_000),
    ("total_timesteps=1e6", "evaluation.every=2_000"): (2_000, 1_000_000),
    ("evaluation.every=500", "total_timesteps=1e6"): (600, 999_800),
    ("evaluation={every: 2_000}", "total_timesteps=1e6"): (2_000, 1_000_000),
    ("total_timesteps=1e6", "evaluation.every=null"): (None, 1_000_000),
    ("evaluation.every=200",): (200, 100_000),  # 490 evaluations, which is meant
}


@pytest.mark.parametrize("overrides", INTERVALS)
def test_the_interval_of_a_file_is_set_anew_for_another_budget(overrides):
    draft = read_config("cartpole", overrides)
    every, total = INTERVALS[overrides]
    assert (draft.config.evaluation.every, draft.config.total_timesteps) == (every, total)
    assert draft.config.total_timesteps == 100_000 or every in (None, 2_000) or "evaluation.every" in draft.moves
    assert fit(draft.config) == draft.config


def test_the_new_interval_is_said_in_a_line_and_stands_in_the_resolved_config(tmp_path):
    with pytest.warns(UserWarning, match=r"^moved to fit the schedule: evaluation\.every 2000 -> 99800$"):
        config = load_config("cartpole", total_timesteps=1_000_000)
    assert config.evaluation.every == 99_800
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "config.yaml") == config
    assert load_config("cartpole", total_timesteps=1_000_000, **{"evaluation.every": 2_000}).evaluation.every == 2_000
    assert load_config("cartpole", evaluation={"every": 2_000}, total_timesteps=1e6).evaluation.every == 2_000


def test_a_run_that_is_resumed_keeps_its_interval_whatever_its_new_length(tmp_path):
    (tmp_path / "config.yaml").write_text(to_yaml(load_config("cartpole")), encoding="utf-8")
    config = read_run(tmp_path, ["total_timesteps=1e6"]).config
    assert (config.evaluation.every, config.total_timesteps) == (2_000, 1_000_000)


def test_a_later_file_may_change_the_budget_or_the_interval(tmp_path):
    longer, often = tmp_path / "longer.yaml", tmp_path / "often.yaml"
    longer.write_text("total_timesteps: 1_000_000\n", encoding="utf-8")
    often.write_text("evaluation.every: 1_000\n", encoding="utf-8")

    def every(*sources):
        return read_config(sources).config.evaluation.every

    assert every("cartpole", longer) == every("cartpole", often, longer) == 99_800
    assert every("cartpole", longer, often) == 1_000  # written beside the longer run
    both = tmp_path / "both.yaml"
    both.write_text("total_timesteps: 1_000_000\nevaluation: {every: 1_000}\n", encoding="utf-8")
    assert every("cartpole", both) == 1_000
    assert every(both) == 1_000
    assert read_config(both, ["total_timesteps=990_000"]).config.evaluation.every == 1_000  # 988; 998 in the file
    assert read_config(both, ["total_timesteps=1_100_000"]).config.evaluation.every > 50_000
    for length in ("many", ".nan", f"1{'0' * 400}"):
        both.write_text(f"total_timesteps: {length}\nevaluation: {{every: 1_000}}\n", encoding="utf-8")
        assert read_config(both, ["total_timesteps=10_000"]).config.total_timesteps == 10_000


@pytest.mark.parametrize(
    ("value", "unit", "most", "wanted"),
    [
        (14, 10, 99, 10),
        (15, 10, 99, 20),
        (3, 10, 99, 10),
        (59971, 500, 59980, 59500),
        (500, 500, 400, 500),
        (7, 10, 5, 10),
    ],
)
def test_the_nearest_multiple_is_at_least_the_unit_and_rounds_down_at_a_limit(value, unit, most, wanted):
    assert nearest_multiple(value, unit, most=most) == wanted


def test_any_schedule_fits_once_it_is_moved_and_nothing_moves_twice():
    generator = np.random.default_rng(0)
    moved = 0
    for _ in range(300):
        total, every, warmup, train, target, checkpoint = (int(10 ** generator.uniform(0, 6)) for _ in range(6))
        config = Config.model_validate(
            {
                "total_timesteps": total + warmup + target,
                "env": {"num_envs": int(generator.integers(1, 40))},
                "evaluation": {"every": every if generator.random() < 0.7 else None},
                "checkpoint": {"every": checkpoint},
                "schedule": {"warmup": warmup, "train_every": train, "target_every": target},
            }
        )
        fitted = fit(config)
        keys = {fault.key for fault in [*_find_interval_faults(fitted), *_find_length_faults(fitted)]}
        assert not keys or warmup + max(train, target, config.env.num_envs) > total, config
        assert fit(fitted) == fitted
        if not keys:
            moved += fitted != config
            plan = make_plan(fitted)
            epoch = plan.periods * plan.iterations * plan.rollout * plan.num_envs
            assert fitted.checkpoint.every % epoch == 0
            assert plan.warmup * plan.num_envs + plan.epochs * epoch == fitted.total_timesteps
    assert moved > 150


@pytest.mark.parametrize(
    ("epochs", "asked", "expected"),
    [(20, None, 20), (7, None, 7), (53, None, 53), (100, None, 20), (36, None, 18), (6, 3, 3)],
)
def test_segments_divide_the_epochs(epochs, asked, expected):
    assert choose_segments(epochs, asked) == expected


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("learning_rate=1e-3", "learning_rate: unknown key; did you mean 'optimizer.learning_rate'?"),
        ("optimiser.eps=1", "optimiser: unknown key; did you mean 'optimizer'?"),
        ("optimizer.learning_rte=1", "optimizer.learning_rte: unknown key; did you mean 'optimizer.learning_rate'?"),
        ("loss=hubr", "loss: 'hubr' is not one of huber, squared; did you mean 'huber'?"),
        ("optimizer.learning_rate=-1", "optimizer.learning_rate: -1 must be greater than 0"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate: 'fast' must be a number"),
        ("env.num_envs=2.5", "env.num_envs: 2.5 must be an integer"),
        ("env.num_envs=true", "env.num_envs: True must be an integer"),
        ("network.layer_norm=1", "network.layer_norm: 1 must be true or false"),
        ("network.hidden=64", "network.hidden: 64 must be a list"),
        ("rollout.lambda=null", "rollout.lambda: null must be a number"),
        ("loss=null", "loss: null is not one of huber, squared"),
        ("gamma=1.5", "gamma: 1.5 must be less than or equal to 1"),
        ("gamma=.nan", "gamma: nan must be less than or equal to 1"),
        ("optimizer.learning_rate=.inf", "optimizer.learning_rate: inf must be finite"),
        ("network.hidden=[]", "network.hidden: [] must be longer"),
        ("network.hidden=[8, 0]", "network.hidden: [8, 0] must be greater than or equal to 1"),
        ("env.params=[1]", "env.params: [1] must be a mapping of names to single values"),
        (
            "network=big",
            "network: 'big' is not a section of keys: torso, channels, kernels, strides, hidden, activation, "
            "layer_norm, dueling, noisy, sigma, memory, memory_size",
        ),
        (
            "total_timesteps=10400",
            "total_timesteps: 10400 less schedule.warmup (10000) is below schedule.target_every (500)",
        ),
        ("total_timesteps=9000", "total_timesteps: 9000 leaves no steps after schedule.warmup (10000)"),
        ("env.num_envs=1000000", "schedule.warmup: 10000 is not a multiple of env.num_envs (1000000)"),
        ("env.params.gravity=.nan", "env.params.gravity: nan must be a finite number"),
        ("env.params.gravity=1e300", "env.params.gravity: 1e+300 must be a finite number"),
        (f"env.params.gravity={10**400}", f"env.params.gravity: {10**400} must be a finite number"),
        (
            "log=[csv, tensorbord]",
            "log: ['csv', 'tensorbord'] is not one of csv, tensorboard, wandb; did you mean 'tensorboard'?",
        ),
        ("log=[[csv]]", "log: [['csv']] is not one of csv, tensorboard, wandb"),
        ("env.params.gravity=true", "env.params.gravity: True must be a number"),
        (
            "env.params.max_steps_in_episode=0.5",
            "env.params.max_steps_in_episode: 0.5 must be an integer of 32 bits",
        ),
        (
            "env.params.max_steps_in_episode=1000000000000",
            "env.params.max_steps_in_episode: 1000000000000 must be an integer of 32 bits",
        ),
        ("env.params={1: 2}", "env.params: not YAML: the key 1 is not a word"),
        ("optimizer.learning_rate=1e300", "optimizer.learning_rate: 1e+300 must be within the range of float32"),
        ("optimizer.eps=1e-60", "optimizer.eps: 1e-60 must be within the range of float32"),
        ("replay.size=3000000000000", "replay.size: 3000000000000 must be less than 2147483648"),
        ("seed=1:30", "seed: '1:30' must be an integer"),
        ("seed=010", "seed: '010' must be an integer"),
        ("seed=2020-13-45", "seed: '2020-13-45' must be an integer"),
        ("gamma.=0.5", "'gamma.=0.5' is not an override; write key=value, as in num_seeds=10"),
        ("network.hidden=[true]", "network.hidden: [True] must be an integer"),
        ("total_timesteps=5000", "total_timesteps: 5000 leaves no steps after schedule.warmup (10000)"),
        ("replay.size=100", "replay.size: 100 is below replay.batch_size (128): the buffer must hold a batch"),
        (
            "schedule.warmup=100",
            "schedule.warmup: 100 is below replay.batch_size (128): the first batch would contain steps twice",
        ),
        ("env.id=Cartpole", "env.id: 'Cartpole' is not an environment of gymnax; did you mean 'CartPole-v1'?"),
        ("env.id=Pendulum-v1", "env.id: 'Pendulum-v1' has continuous actions; Q-learning needs discrete ones"),
        ("env.resets=11", "env.resets: 11 is more than env.num_envs (10); all makes as many as there are"),
        ("env.resets=some", "env.resets: 'some' must be all, or an integer of 1 or more"),
        ("env.resets=0", "env.resets: 0 must be all, or an integer of 1 or more"),
        ("env.params.gravty=3", "env.params.gravty: CartPole-v1 has no such parameter; did you mean 'gravity'?"),
        ("env.params.gravity=low", "env.params.gravity: 'low' must be a number"),
        ("gamma", "'gamma' is not an override; write key=value, as in num_seeds=10"),
        ("gamma=[0.9", "gamma: not YAML: expected ',' or ']', but got '<stream end>'"),
        *(
            (f"seed={text}", "seed: not YAML: a value does not have the form of its type")
            for text in ("!!bool maybe", "!!bool", '"\\UFFFFFFFF"')
        ),
        (
            "seed=!!timestamp x",
            "seed: not YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:timestamp'",
        ),
        *(
            (f"seed=!!int {text}", f"seed: not YAML: invalid literal for int() with base 10: {text!r}")
            for text in ("_", "+", "1:30", "0b101")
        ),
        ("seed=\x00", "seed: not YAML: unacceptable character #x0000: special characters are not allowed"),
        (f"seed={'[' * 3000}", "seed: not YAML: more than 16 levels"),
    ],
)
def test_a_bad_override_is_refused_in_one_line(override, line):
    lines = faults(override)
    assert line in lines
    assert all("\n" not in one for one in lines)


def test_all_faults_are_reported_at_once():
    lines = faults("gamma=2", "loss=l1", "colour=red", "total_timesteps=9000", "env.id=Nowhere-v0", "x")
    assert len(lines) == 6
    for part in ("gamma: 2", "loss: 'l1'", "colour: unknown", "total_timesteps: 9000", "env.id: 'Nowhere", "'x' is"):
        assert sum(part in line for line in lines) == 1


def test_a_fault_is_not_blamed_on_keys_that_are_right():
    """A size of the wrong type stands at its default while the rest is checked, and says nothing of that default."""
    assert len(faults("replay.batch_size=many", "replay.size=50", "schedule.warmup=60", "total_timesteps=10060")) == 1


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("gamma: [0.9\n", "line 2: not YAML"),
        ("- gamma", "a config is a mapping"),
        ("gamma: 0.9\ngamma: 0.8\n", "line 2: not YAML: the key 'gamma' stands twice"),
        ("gamma: !!python/object:os.system {}", "not YAML"),
        ("\x00", "not YAML"),
        ("env: &e {kwargs: *e}", "aliases are not supported"),
        ("env: {1: 2}", "the key 1 is not a word"),
        ("[" * 5000, "not YAML"),
        ("seed: !!int foo", "not YAML"),
        ("env: {kwargs: !!set {a, b}}", "could not determine a constructor for the tag"),
        (f"? a{'.a' * 3000}\n: 1", "has more than 16 parts"),
        (
            "a:\n" + "".join(f"{' ' * n}{'.'.join('a' * 16)}:\n" for n in range(1, 40)),
            "line 17: not YAML: more than 16 levels",
        ),
        ("\ud800".encode("utf-8", "surrogatepass"), "cannot be read"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path, text, part):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (line,) = faults(source=path)
    assert str(path) in line
    assert part in line


def test_a_missing_config_names_the_nearest():
    (line,) = faults(source="cartpole_cleanrll.yaml")
    assert line.endswith("is neither a file nor a shipped one; did you mean 'cartpole_cleanrl'?")


def test_a_run_directory_is_not_a_config(tmp_path):
    (line,) = faults(source=tmp_path)
    assert "is a directory" in line


@pytest.mark.parametrize("name", ["cartpole", "minatar/breakout"])
def test_a_directory_does_not_hide_a_shipped_config_of_its_name(name, tmp_path, monkeypatch):
    """As ``train --config cartpole --out cartpole`` leaves one."""
    shipped = load_config(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    assert load_config(name) == shipped


def test_an_empty_file_is_the_defaults(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n", encoding="utf-8")
    assert load_config(path).model_copy(update={"evaluation": Config().evaluation}) == Config()


def test_the_yaml_of_a_config_holds_every_key():
    tree = yaml.safe_load(to_yaml(load_config("cartpole_cleanrl")))
    for key in config_keys():
        value = tree
        for name in key.split("."):
            value = value[name]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["distribution={kind: categorical, v_max: 1}"],
            "distribution.v_min: missing: categorical needs the lowest and the highest return of its support",
        ),
        (
            ["distribution={kind: categorical, v_min: 3, v_max: 3}"],
            "distribution.v_min: 3 is not below distribution.v_max (3) by steps that float32 can tell apart",
        ),
        (
            ["distribution={kind: categorical, v_min: 1.0, v_max: 1.00000001}"],
            "distribution.v_min: 1 is not below distribution.v_max (1) by steps that float32 can tell apart",
        ),
        (
            ["distribution.atoms=51"],
            "distribution.atoms: 51, but distribution.kind is scalar, which has one number per action",
        ),
        (
            ["distribution={kind: hl_gauss, atoms: 1, v_min: 0, v_max: 1}"],
            "distribution.atoms: 1 is below 2, the least that distribution.kind hl_gauss can have",
        ),
        (
            ["distribution={kind: quantile, atoms: 1}"],
            "distribution.atoms: 1 is below 2, the least that distribution.kind quantile can have",
        ),
        (
            ["distribution={kind: quantile, risk: cvar}"],
            "distribution.risk: 'cvar' needs distribution.kind iqn, the only one that takes any fraction",
        ),
        (
            ["distribution={kind: iqn, risk: cvar, risk_level: 1.5}"],
            "distribution.risk_level: 1.5 must be above 0 and at most 1: the share of the worst returns",
        ),
        (["distribution={kind: iqn, risk: cpw, risk_level: -1}"], "distribution.risk_level: -1 must be from 0.1 to 10"),
        (
            ["distribution.kind=c51"],
            "distribution.kind: 'c51' is not one of scalar, categorical, hl_gauss, quantile, iqn, fqf",
        ),
        (["optimizer.centered=true"], "optimizer.centered: true needs optimizer.name rmsprop, not adam"),
        (["bootstrap.clip=0.5"], "bootstrap.clip: 0.5 must be less than or equal to 0"),
        (
            ["replay.kind=none"],
            "replay.size: 10000 has no effect with replay.kind none, which learns from each rollout; set it to null",
        ),
        (
            [*PQN, "rollout.minibatches=5"],
            "rollout.minibatches: 5 does not divide env.num_envs x rollout.steps (32); the nearest that do are 4 and 8",
        ),
        ([*PQN, "rollout.lambda=1.5"], "rollout.lambda: 1.5 must be less than or equal to 1"),
        ([*PQN, "rollout.lambda=-0.5"], "rollout.lambda: -0.5 must be greater than or equal to 0"),
        (
            [*PQN, "n_step=3"],
            "n_step: 3 needs replay: without it rollout.lambda mixes returns of all lengths",
        ),
        (
            [*PQN, "network.memory=gru", "rollout.minibatches=8"],
            "rollout.minibatches: 8 does not divide env.num_envs (4): sequences of a memory stay whole; the nearest "
            "that does is 4",
        ),
        (["network.memory=lru", "replay.burn_in=20"], "replay.burn_in: 20 is not below replay.sequence (20)"),
        (
            ["network.memory=lru", "replay.period=17"],
            "replay.period: 17 is above replay.sequence less replay.burn_in (16): no sequence would learn from the "
            "steps between",
        ),
        (
            ["network.memory=gru", "replay={sequence: 8, period: 2}", "n_step=5"],
            "n_step: 5 is above replay.sequence less replay.burn_in (4), the steps that a sequence learns from",
        ),
        (
            ["network.memory=gru", "replay={sequence: 994, period: 10}"],
            "replay.sequence: 994 and replay.period (10) are more than the 1000 steps of each environment in the ring",
        ),
        (
            ["network.memory=gru", "schedule.train_every=50"],
            "replay.period: 8 is not a multiple of schedule.train_every / env.num_envs (5): sequences begin with a "
            "rollout",
        ),
        (
            ["network.memory=gru", "schedule.warmup=500"],
            "schedule.warmup: 500 gives 40 sequences, fewer than replay.batch_size (128)",
        ),
        (
            ["network.memory=gru", "env.frame_stack=4"],
            "env.frame_stack: 4 with a memory needs replay.kind none: sequences are stored without frames before "
            "their first",
        ),
        (
            ["env.frame_stack=990"],
            "replay.size: 10000 is below env.frame_stack and replay.batch_size (10018): the oldest 9890 steps lack the "
            "frames before them and cannot be sampled",
        ),
        (
            ["env.num_envs=64", "env.frame_stack=4", "n_step=4", "replay={size: 320, batch_size: 64}"],
            "replay.size: 320 is below env.frame_stack, n_step and replay.batch_size (448): the oldest 192 steps lack "
            "the frames before them and cannot be sampled, and the newest 192 steps (n_step - 1 of each environment) "
            "cannot be sampled yet",
        ),
        (
            ["network.memory=gru", "replay={size: 400, sequence: 12, burn_in: 2, period: 10}"],
            "replay.size: 400 leaves only 20 sequences to sample from at times, fewer than replay.batch_size (128)",
        ),
        (["env.observe=[0, 4]"], "env.observe: 4 is no feature of CartPole-v1, which has 0 to 3"),
        (["env.observe=[0, 0]"], "env.observe: [0, 0] must be a list without repetitions"),
        (["env.observe=0"], "env.observe: 0 must be null or a list of numbers from 0 on"),
        (["env.observe=[-1]"], "env.observe: [-1] must be null or a list of numbers from 0 on"),
        (
            ["env={id: Breakout-MinAtar, observe: [0]}"],
            "env.observe: [0] needs observations that are vectors; those of Breakout-MinAtar are [10, 10, 4]",
        ),
        (["env.frame_stack=0"], "env.frame_stack: 0 must be greater than or equal to 1"),
        (["replay.eta=2"], "replay.eta: 2 must be less than or equal to 1"),
        (
            [*PQN, "distribution.kind=iqn"],
            "distribution.kind: 'iqn' needs replay: a lambda-return is a mixture, which a fixed number of quantiles "
            "cannot hold",
        ),
        (
            [*PQN, "bootstrap.kind=double"],
            "bootstrap.kind: 'double' needs a target network, without which it is greedy; set schedule.target_every",
        ),
        (
            [*PQN, "schedule.train_every=32"],
            "schedule.train_every: 32 has no effect with replay.kind none, which learns from each rollout; "
            "set it to null",
        ),
        ([*PQN, "total_timesteps=20"], "total_timesteps: 20 is below env.num_envs x rollout.steps (32)"),
        (
            ["bootstrap={kind: munchausen, temperature: 1e-9}"],
            "bootstrap.temperature: 1e-09 is too small for float32",
        ),
        (["replay.kind=prioritized"], "replay.kind: 'prioritized' is not one of uniform, prioritised, none"),
        (["n_step=0"], "n_step: 0 must be greater than or equal to 1"),
        (
            ["n_step=1000"],
            "schedule.warmup: 10000 is below n_step and replay.batch_size (10118): the newest 9990 steps "
            "(n_step - 1 of each environment) cannot be sampled yet",
        ),
    ],
)
def test_choices_that_do_not_go_together_are_refused_by_name(overrides, line):
    assert faults(*overrides)[0].removesuffix("; did you mean 'prioritised'?") == line


@pytest.mark.parametrize(("num_envs", "below", "above"), [(10, 10, 20), (20, 10, 20), (30, 15, 20), (1, 10, 25)])
def test_minibatches_that_do_not_divide_a_rollout_are_refused_with_the_nearest_that_do(num_envs, below, above):
    """Of the preset ``pqn``, which splits the 50 steps of each environment into 16."""
    overrides = [f"env.num_envs={num_envs}", f"total_timesteps={20 * 50 * num_envs}"]
    assert faults(*overrides, source=["cartpole_cleanrl", "pqn"]) == [
        f"rollout.minibatches: 16 does not divide env.num_envs x rollout.steps ({50 * num_envs}); "
        f"the nearest that do are {below} and {above}"
    ]
    for count in range(below, above + 1):
        divides = count in (below, above)
        draft = read_config(["cartpole_cleanrl", "pqn"], [*overrides, f"rollout.minibatches={count}"])
        with contextlib.nullcontext() if divides else pytest.raises(ConfigError):
            draft.checked()


def test_noise_on_top_of_noise_is_a_warning():
    (warning,) = find_warnings(load_config("cartpole_cleanrl", ["network.noisy=true"]))
    assert "random actions" in warning
    assert not list(find_warnings(load_config(["cartpole_cleanrl", "noisy"])))


@pytest.mark.parametrize("word", ["1e3", "true", "0x10", "null", "1:30", "~", "- 1", "a: b", "2026-01-01", "", "yes"])
def test_a_word_is_read_back_as_a_word(word, tmp_path):
    env = Config().env.model_copy(update={"kwargs": (("name", word),)})
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(Config().model_copy(update={"env": env})), encoding="utf-8")
    assert read_config(path).config.env.kwargs == (("name", word),)


def test_going_on_after_the_rate_has_come_to_0_is_a_warning():
    longer = ["schedule.horizon=200_000", "total_timesteps=400_000"]
    (warning,) = find_warnings(load_config("cartpole_cleanrl", [*longer, "optimizer.anneal=true"]))
    assert "after step 200000" in warning
    assert not list(find_warnings(load_config("cartpole_cleanrl", longer)))
    assert not list(find_warnings(load_config("cartpole_cleanrl", ["optimizer.anneal=true"])))


def test_an_annealed_run_of_a_single_rollout_is_a_warning():
    """The rate is read at the end of a rollout, and there it is 0: nothing would be learned."""
    one = ["env.num_envs=4", "rollout={steps: 100, minibatches: 4}", "total_timesteps=400"]
    (warning,) = find_warnings(load_config(["cartpole_cleanrl", "pqn"], one))
    assert warning.startswith("nothing is learned: ") and "ends at step 400" in warning
    for other in ("optimizer.anneal=false", "total_timesteps=800", "schedule.horizon=800"):
        assert not list(find_warnings(load_config(["cartpole_cleanrl", "pqn"], [*one, other]))), other


def test_exploration_that_does_not_reach_its_end_is_a_warning():
    longer = ["exploration.fraction=1", "total_timesteps=200_000"]
    (warning,) = find_warnings(load_config("cartpole_cleanrl", longer))
    assert "exploration.end is not reached" in warning
    assert not list(find_warnings(load_config("cartpole_cleanrl", [*longer, "schedule.horizon=190_000"])))
    assert not list(find_warnings(load_config("cartpole_cleanrl", [*longer, "exploration.end=1"])))


def test_no_shipped_config_is_warned_of():
    for name in shipped_configs():
        if not name.startswith("search/") and "env" in read_config(name).config.model_fields_set:
            draft = read_config(name)
            assert (list(find_warnings(draft.config)), draft.moves) == ([], ""), name


ALPHA, TAU = "replay.alpha (needs replay.kind prioritised)", "schedule.tau (needs schedule.target_every)"
LAMBDA, ONCE = "rollout.lambda (needs replay.kind none)", "network.sigma (needs network.noisy true)"
IDLE = {
    ("catch", "pqn", "replay.alpha=0.5"): ALPHA,
    ("catch", "pqn", "schedule={tau: 0.3}", "replay.alpha=0.5"): f"{TAU}, {ALPHA}",
    ("catch", "replay.sequence=4"): "replay.sequence (needs network.memory gru or lru)",
    ("catch", "rollout.lambda=0.2", "network.sigma=1", "network.sigma=2"): f"{LAMBDA}, {ONCE}",
    ("catch", "pqn", "replay={kind: none, size: null, alpha: null}"): "",
    ("catch", "pqn", "rollout.lambda=0.2"): "",
    ("catch", "rainbow", "distribution.kind=scalar"): "",  # the preset's support is not what the caller set
    ("catch", "pqn", "per"): "",
}


def idle_of(*words, **values):
    sources = [word for word in words if "=" not in str(word)]
    return read_config(sources, [word for word in words if word not in sources], values).idle()


@pytest.mark.parametrize("words", IDLE)
def test_keys_that_the_caller_set_and_that_do_nothing_are_named_in_a_line(words):
    assert idle_of(*words) == (IDLE[words] and f"keys without effect: {IDLE[words]}")


def test_keys_of_ones_own_later_files_that_do_nothing_are_named_and_those_of_a_first_file_are_not(tmp_path):
    own, run = tmp_path / "own.yaml", tmp_path / "config.yaml"
    own.write_text("replay: {alpha: 0.5}\nschedule.tau: 0.3\n", encoding="utf-8")
    assert idle_of("catch", own, "pqn") == f"keys without effect: {ALPHA}, {TAU}"
    assert idle_of("catch", own) == f"keys without effect: {ALPHA}"
    assert idle_of("catch", shipped_configs()["rainbow"], "distribution.kind=scalar") == ""
    run.write_text(to_yaml(load_config("catch")), encoding="utf-8")  # which writes every key out
    assert idle_of(run) == ""


def test_values_that_do_nothing_are_a_warning():
    with pytest.warns(UserWarning, match=r"^keys without effect: replay\.alpha \(needs replay\.kind prioritised\)$"):
        load_config("catch", **{"replay.alpha": 0.5})


def test_no_exploration_at_all_is_a_warning():
    (warning,) = find_warnings(load_config(["cartpole_cleanrl", "noisy", "dqn"]))
    assert "the agent does not explore" in warning


@pytest.mark.parametrize(
    ("below", "overrides", "key", "value"),
    [
        ("iqn", ["distribution.risk=cvar"], "distribution.risk_level", 0.25),
        ("iqn", ["distribution.risk_level=0.5", "distribution.risk=cvar"], "distribution.risk_level", 0.5),
        ("dqn", ["distribution.kind=quantile"], "distribution.atoms", 51),
        ("iqn", ["distribution.atoms=7"], "distribution.atoms", 7),
        ("minatar/breakout", ["network.torso=mlp"], "network.hidden", (120, 84)),
        ("pgx/2048", ["network.channels=[8, 4]"], "network.kernels", (2, 2)),
        ("octax/brix", ["network.channels=[8]"], "network.kernels", (3,)),
    ],
)
def test_a_number_goes_with_what_it_belonged_to(below, overrides, key, value, tmp_path):
    """Over a resolved config, in which every number is written out."""
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(load_config(below)), encoding="utf-8")
    assert value_at(load_config(path, overrides), key) == value


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        ([], "distribution.atoms", 1),
        (["distribution.kind=iqn"], "distribution.atoms", 32),
        (["distribution.kind=quantile"], "distribution.atoms", 51),
        (["distribution={kind: quantile, atoms: 200}"], "distribution.atoms", 200),
        (["distribution={kind: iqn, risk: wang}"], "distribution.risk_level", -0.75),
        (["network.torso=minatar_cnn", "env.id=Breakout-MinAtar"], "network.hidden", (128,)),
        (["network={torso: minatar_cnn, hidden: [64]}", "env.id=Breakout-MinAtar"], "network.hidden", (64,)),
        (["network={torso: cnn, channels: [8, 4]}", "env.id=Breakout-MinAtar"], "network.kernels", (3, 3)),
        (["network={torso: cnn, channels: [8, 4]}", "env.id=Breakout-MinAtar"], "network.strides", (1, 1)),
    ],
)
def test_a_default_may_hang_on_another_key(overrides, key, value):
    assert value_at(load_config("dqn", overrides), key) == value


@pytest.mark.parametrize("name", ["c51", "rainbow", "iqn", "munchausen", "noisy", "per", "dueling", "n_step"])
def test_the_dqn_preset_takes_every_choice_back(name):
    """But for numbers, which plain DQN does not look at or which are the environment's."""
    plain = load_config(["cartpole_cleanrl", "dqn"])
    assert load_config(["cartpole_cleanrl", name]).static() != plain.static()
    assert load_config(["cartpole_cleanrl", name, "dqn"]).static() == plain.static()


def test_an_integer_that_python_cannot_print_is_refused():
    (line,) = faults(f"seed=!!int 0x{'f' * 5000}")
    assert line.startswith("seed: not YAML: ")


def test_a_dotted_key_of_3000_parts_is_refused():
    (line,) = faults(f"a{'.a' * 3000}=1")
    assert line.endswith("is not an override; write key=value, as in num_seeds=10")


MANY = {
    "keys of a file": ([], lambda n: "".join(f"k{i}: 1\n" for i in range(n))),
    "overrides": (lambda n: [f"k{i}=1" for i in range(n)], None),
    "elements": (lambda n: [f"network.hidden=[{'0,' * n}]"], None),
    "parameters": (lambda n: [f"env.params.k{i}=1" for i in range(n)], None),
}


def _seconds(what, count, path):
    overrides, text = MANY[what]
    if text:
        path.write_text(text(count), encoding="utf-8")
    start = time.process_time()
    lines = faults(*(overrides(count) if overrides else []), source=path if text else "cartpole_cleanrl")
    assert len(lines) == (1 if what == "elements" else count)
    return time.process_time() - start


@pytest.mark.slow
@pytest.mark.parametrize("what", MANY)
def test_the_time_of_a_refusal_grows_with_the_input_and_not_with_its_square(what, tmp_path):
    few, many = (_seconds(what, count, tmp_path / "many.yaml") for count in (2000, 20_000))
    assert many < 30 * few + 1


FOLLOWED = {"network.hidden": [64, 64], "network.torso": "mlp"}


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_keys_in_a_file_or_among_values_does_not_matter(tmp_path, order):
    """A new torso takes back the hidden layers of the file below, but none that are given beside it."""
    keys = dict(list(FOLLOWED.items())[::order])
    path = tmp_path / "mine.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
    for config in (load_config(["minatar/breakout", str(path)]), load_config("minatar/breakout", **keys)):
        assert (config.network.torso, config.network.hidden) == ("mlp", (64, 64))
