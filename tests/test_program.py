"""The compiled program: traced once, without branches, and the same bits however it is run."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn import evaluate_policy, load_config, make_train, run_many
from purejaxdqn.config.building import make_program
from purejaxdqn.config.checks import find_idle
from purejaxdqn.core import loop
from purejaxdqn.core.config import Config, traced_keys
from purejaxdqn.core.keys import episodes_key, run_key
from purejaxdqn.core.many import lay_out, map_runs
from purejaxdqn.environments.registry import from_gymnax, make_environment
from purejaxdqn.policies.programs import sample_observations
from purejaxdqn.system.compiling import inner_jaxprs
from tests.conftest import PQN, TINY, jit_quickly, mostly_slow
from tests.probes import Table, TableMDP

KEYS = [run_key(np.uint32(0), np.uint32(k)) for k in range(5)]


def assert_same_bits(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def pick(result, point, seed):
    return jax.tree.map(lambda leaf: leaf[point, seed], result)


@pytest.fixture(scope="module")
def alone(config, compiled_train):
    """Seed 3 by itself."""
    return compiled_train(config.hparams(), KEYS[3])


def test_a_run_repeats_bit_for_bit(config, compiled_train, alone):
    assert_same_bits(alone, compiled_train(config.hparams(), KEYS[3]))


def test_another_seed_is_another_run(config, compiled_train, alone):
    other = compiled_train(config.hparams(), KEYS[4])
    assert not np.array_equal(alone.rows.loss, other.rows.loss)


@pytest.mark.parametrize("laid_out", mostly_slow([(1, None), (2, None), (1, 5)], fast=[(2, None)]))
def test_a_seed_does_not_depend_on_the_seeds_beside_it(config, alone, laid_out):
    """In sequence on one device, on two devices with a place left over, and vmapped."""
    devices, batch_size = laid_out
    result = run_many(config, config.hparams(), jnp.stack(KEYS), devices=jax.devices()[:devices], batch_size=batch_size)
    assert result.rows.loss.shape == (1, 5, 13)
    assert_same_bits(alone, pick(result, 0, 3))


@pytest.mark.parametrize("cut", mostly_slow([(1, 1), (13, 1), (13, 3)], fast=[(13, 3)]))
def test_any_number_of_segments_gives_the_same_bits(config, program, alone, cut):
    segments, num_runs = cut
    layout = lay_out(num_runs)  # three runs on two devices: in place, one after another
    hparams = jax.tree.map(lambda leaf: np.repeat(leaf, layout.size), config.hparams())
    init, finish = map_runs(program.init, layout), map_runs(program.finish, layout)
    segment = map_runs(lambda hparams, state: program.segment(hparams, state, 13 // segments), layout, in_place=True)
    state, parts = init(hparams, layout.fill(jnp.stack(KEYS[4 - num_runs : 4]))), []
    for _ in range(segments):
        state, rows = segment(hparams, state)
        parts.append(rows)
    rows = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1)[num_runs - 1], *jax.device_get(parts))
    assert_same_bits(alone.rows, rows)
    assert_same_bits(alone.final_returns, finish(hparams, state)[num_runs - 1])
    assert_same_bits(alone.params, jax.tree.map(lambda leaf: leaf[num_runs - 1], state.algorithm.learner.online))


PLAIN = {
    "gamma",
    "optimizer_learning_rate",
    "optimizer_eps",
    "optimizer_max_grad_norm",
    "reward_scale",
    "reward_clip",
    "exploration_start",
    "exploration_end",
    "exploration_fraction",
    "schedule_tau",
    "schedule_horizon",
    "env_params",
}
PROGRAMS = {
    "plain": (
        ["optimizer.anneal=true", "optimizer.max_grad_norm=5", "reward.clip=0.9", "env.params.gravity=9.8"],
        PLAIN,
    ),
    "rainbow of Munchausen": (
        [
            "distribution={kind: categorical, v_min: -2, v_max: 8}",
            "bootstrap={kind: munchausen, clip: -0.01}",  # a bound that is reached
            "network.noisy=true",
            "replay.kind=prioritised",
            "n_step=2",
        ],
        {"distribution_v_min", "distribution_v_max", "network_sigma", "replay_alpha", "replay_beta"}
        | {"bootstrap_alpha", "bootstrap_temperature", "bootstrap_clip"},
    ),
    "implicit": (
        ["distribution={kind: iqn, atoms: 4, risk: cvar}", "bootstrap.kind=double"],
        {"distribution_kappa", "distribution_risk_level"},
    ),
    "without replay": (
        [
            *PQN,
            "schedule.target_every=64",
            "distribution={kind: hl_gauss, v_min: -1, v_max: 10}",
            "optimizer={name: adamw, weight_decay: 0.1}",
        ],
        {"rollout_lambda", "distribution_sigma_ratio", "optimizer_weight_decay", "schedule_tau"},
    ),
    "remembering": (
        [
            "network={memory: gru, memory_size: 4}",
            "replay={kind: prioritised, size: 320, sequence: 8, burn_in: 2, period: 2}",
        ],
        {"replay_eta", "replay_alpha"},
    ),
    "members": (
        ["ensemble={members: 2, prior_scale: 0.5, mask: 0.7}"],
        {"ensemble_prior_scale", "ensemble_mask"},
    ),
    "proposed": (
        ["distribution={kind: fqf, atoms: 4, fraction_rate: 0.5}"],
        {"distribution_kappa", "distribution_fraction_rate"},
    ),
}


def test_every_hyper_parameter_is_looked_at():
    assert set.union(*(fields for _, fields in PROGRAMS.values())) == set(Config().hparams()._fields)


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.parametrize("name", mostly_slow(PROGRAMS, fast=[]))
def test_hyper_parameters_can_be_mapped_and_each_of_them_matters(name):
    """One program for all points; each changes one number and so another run, whatever its place and neighbours."""
    overrides, fields = PROGRAMS[name]
    config = load_config("cartpole_cleanrl", [*TINY, *overrides])
    base = config.hparams()
    points = [base]
    for field in sorted(fields):
        value = base._asdict()[field]
        new = {"gravity": np.asarray(20.0)} if field == "env_params" else np.float32(value * 0.5)
        points.append(base._replace(**{field: new}))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *points)
    result = run_many(config, stacked, KEYS[0][None])
    losses = np.asarray(result.rows.loss[:, 0])
    assert len(np.unique(losses, axis=0)) == len(points) == len(fields) + 1
    turned = run_many(config, jax.tree.map(lambda leaf: leaf[::-1], stacked), KEYS[0][None])
    for place in range(len(points)):
        assert_same_bits(pick(result, place, 0), pick(turned, len(points) - 1 - place, 0))
    if name == "plain":  # in a program of its own
        last = run_many(config, points[-1], KEYS[0][None])
        assert_same_bits(pick(result, -1, 0), pick(last, 0, 0))


def test_episodes_after_training_have_keys_that_no_run_has():
    """A split key is one folded in: those of episodes from the same seed would be those of runs."""
    runs = [run_key(np.uint32(0), np.uint32(k)) for k in range(100)]
    apart = [*runs, *jax.random.split(runs[0], 6), episodes_key(0), *jax.random.split(episodes_key(0), 100)]
    assert len(np.unique(jnp.stack([jax.random.key_data(key) for key in apart]), axis=0)) == len(apart)


@pytest.mark.parametrize("name", [*PROGRAMS, "sgd", "without a target network"])
def test_a_number_is_called_idle_where_the_program_does_not_read_it(name):
    others = {"sgd": ["optimizer.name=sgd"], "without a target network": PQN}
    overrides = others[name] if name in others else PROGRAMS[name][0]
    config = load_config("cartpole_cleanrl", [*TINY, *overrides])
    hparams = config.hparams()
    jaxpr = jax.make_jaxpr(make_program(config).train)(hparams, KEYS[0]).jaxpr
    fields = [path[0].name for path, _ in jax.tree.leaves_with_path(hparams)]
    read = {id(value) for equation in jaxpr.eqns for value in equation.invars}
    unread = {field for field, value in zip(fields, jaxpr.invars, strict=False) if id(value) not in read}
    traced = traced_keys()
    assert {traced[key] for key in find_idle(config) if key in traced} == unread


def test_programs_are_built_from_static_values_alone():
    values = {"bootstrap.clip": -0.3, "schedule.horizon": 900, "env.params": "{gravity: 20.0}"}
    values |= {"ensemble.prior_scale": 0, "ensemble.mask": 1}  # which others need members for
    numbers = [f"{key}={values.get(key, 0.3)}" for key in traced_keys()] + [
        "seed=5", "num_seeds=7", "checkpoint={every: 120, keep: 3}", "log=[tensorboard]",
    ]  # fmt: skip
    one = load_config("cartpole_cleanrl", [*TINY, "env.params.gravity=9.8"])
    other = load_config("cartpole_cleanrl", [*TINY, *numbers])
    assert one.static() == other.static()
    assert hash(one.static()) == hash(other.static())
    assert one.static() != load_config("cartpole_cleanrl", [*TINY, "loss=huber"]).static()
    texts = [jax.jit(make_train(config)).lower(one.hparams(), KEYS[0]).as_text() for config in (one, other)]
    assert texts[0] == texts[1]


def _primitives(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in inner_jaxprs(equation):
            yield from _primitives(inner)


def test_the_program_has_no_branch_and_no_callback(config, program, compiled_train):
    primitives = list(_primitives(jax.make_jaxpr(program.train)(config.hparams(), KEYS[0]).jaxpr))
    assert {"scan", "while", "dot_general"} <= set(primitives)  # the walk sees what is in the nest
    # What depends on the platform is a choice until the program is lowered for one.
    assert primitives.count("cond") == primitives.count("platform_index")
    assert not [name for name in primitives if "callback" in name]
    vmapped = jit_quickly(jax.vmap(program.train, (None, 0))).lower(config.hparams(), jnp.stack(KEYS)).compile()
    for text in (compiled_train.as_text(), vmapped.as_text()):
        assert " while(" in text
        assert " conditional(" not in text


def test_everything_is_traced_once(config):
    mdp = TableMDP([[1, 0], [0, 1]], [[0, 1], [1, 0]], [False, False], time_limit=6)
    applied = []

    class Counting(Table):
        def apply(self, params, obs):
            applied.append(obs.shape)
            return super().apply(params, obs)

    train = jax.jit(make_train(config, network=Counting(np.zeros((2, 2))), env=from_gymnax(mdp)))
    train(config.hparams(), KEYS[0])
    # The check of its output, target and online in the update, acting, evaluation and the final evaluation.
    assert sorted(applied) == [(1, 2), (3, 2), (4, 2), (4, 2), (8, 2), (8, 2)]
    assert mdp.traces <= 4  # warm-up, acting, two evaluations
    traces = mdp.traces
    train(config.hparams()._replace(gamma=np.float32(0.5)), KEYS[1])
    assert (len(applied), mdp.traces) == (6, traces)


@pytest.mark.parametrize("kind", mostly_slow(["uniform", "prioritised"], fast=["uniform"]))
def test_the_state_is_updated_where_it_lies(kind):
    """The buffer of a run exists once: donated, aliased, and no copy among the temporaries."""
    config = load_config("cartpole_cleanrl", [*TINY, "replay.size=200000", f"replay.kind={kind}"])
    program, layout = make_program(config), lay_out(1)
    hparams = jax.tree.map(lambda leaf: np.repeat(leaf, 1), config.hparams())
    state = jax.eval_shape(map_runs(program.init, layout), hparams, KEYS[0][None])
    segment = map_runs(lambda hparams, state: program.segment(hparams, state, 1), layout, in_place=True)
    memory = segment.lower(hparams, state).compile().memory_analysis()
    buffer = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.algorithm.replay))
    assert buffer > 200_000 * 42
    assert memory.alias_size_in_bytes > buffer
    assert memory.temp_size_in_bytes < buffer / 10


def test_jaxs_own_checker_finds_no_key_used_twice(config):
    with jax.debug_key_reuse(True):
        jax.jit(make_program(config).train)(config.hparams(), KEYS[0])


@pytest.mark.parametrize("name", ["draw", "start_actors", "greedy_returns"])
def test_jaxs_own_checker_would_find_a_key_used_twice(config, monkeypatch, name):
    """Each consumer of a key in the loop gets one that has been used before."""
    right = getattr(loop, name)

    def wrong(*args, **kwargs):
        for key in args:
            if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
                jax.random.bits(key)
        return right(*args, **kwargs)

    monkeypatch.setattr(loop, name, wrong)
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        jax.jit(make_program(config).train)(config.hparams(), KEYS[0])


def test_a_config_that_contradicts_itself_builds_no_program(config):
    schedule = config.schedule.model_copy(update={"train_every": 15})
    with pytest.raises(ValueError, match=r"schedule.train_every: 15 is not a multiple of env.num_envs \(4\)"):
        make_train(config.model_copy(update={"schedule": schedule}))


@pytest.mark.slow
def test_run_many_takes_networks_that_are_not_hashable(config):
    table = Table(np.zeros((2, 2)))
    network = SimpleNamespace(init=table.init, apply=table.apply)
    mdp = TableMDP([[1, 0], [0, 1]], [[0, 1], [1, 0]], [False, False], time_limit=6)
    env = from_gymnax(mdp)
    result = run_many(config, config.hparams(), KEYS[0][None], network=network, env=env)
    traces = mdp.traces
    again = run_many(config, config.hparams(), KEYS[0][None], network=network, env=env)
    assert mdp.traces == traces  # the program was kept
    assert_same_bits(result, again)


def test_epochs_report_the_schedule(config, alone):
    np.testing.assert_array_equal(alone.rows.env_step, np.arange(120, 601, 40))
    start, end, decay = 1.0, 0.05, 0.5 * 600
    expected = np.maximum(end, start - (np.arange(120, 601, 40) - 80) / decay * (start - end))
    np.testing.assert_allclose(alone.rows.epsilon, expected, rtol=1e-5)
    finished = np.asarray(alone.rows.episodes)
    assert finished.sum() > 5
    np.testing.assert_array_equal(np.isnan(alone.rows.episode_return), finished == 0)
    np.testing.assert_array_equal(alone.rows.episode_return, alone.rows.episode_length)  # CartPole pays 1 a step
    assert alone.rows.eval_returns.shape == (13, 3)
    assert alone.final_returns.shape == (4,)


def test_episode_means_are_over_the_episodes_that_finished(config):
    """Episodes of exactly 5 steps worth 10, in 4 environments: 10 steps of each make 8 episodes an epoch."""
    mdp = TableMDP([[0, 0]], [[2, 2]], [False], time_limit=5)
    train = jax.jit(make_train(config, network=Table(np.zeros((1, 2))), env=from_gymnax(mdp)))
    rows = train(config.hparams(), KEYS[0]).rows
    np.testing.assert_array_equal(rows.episodes, 8)
    np.testing.assert_array_equal(rows.episode_return, 10)
    np.testing.assert_array_equal(rows.episode_length, 5)
    np.testing.assert_array_equal(rows.eval_returns, 10)


@pytest.mark.slow
def test_policies_of_run_many_are_evaluated_wherever_their_parameters_are(config):
    """Two seeds on two devices, evaluated with the parameters as they are and with those of the host."""
    result = run_many(config, config.hparams(), jnp.stack(KEYS[:2]), devices=jax.devices())
    params = jax.tree.map(lambda leaf: leaf[0], result.params)  # [seeds, ...]
    returns = evaluate_policy(config, params, episodes=3)
    host = evaluate_policy(config, jax.device_get(params), episodes=3)
    np.testing.assert_array_equal(returns, host)


def test_run_many_takes_legacy_keys_as_it_takes_typed_ones(config, monkeypatch):
    monkeypatch.setattr("purejaxdqn.config.building._compiled_train", lambda *_: lambda hparams, keys: keys)
    points = config.hparams()._replace(gamma=jnp.array([0.9, 0.99]))
    typed = run_many(config, points, jax.random.split(jax.random.key(0), 3))
    legacy = run_many(config, points, jax.random.split(jax.random.PRNGKey(0), 3))
    assert typed.shape == (2, 3)
    assert (jax.random.key_data(typed) == jax.random.key_data(legacy)).all()


@pytest.mark.parametrize(
    "keys",
    [jax.random.key(0), jax.random.PRNGKey(0), jnp.arange(3), np.zeros((3, 2)), jax.random.split(KEYS[0], 2)[:0]],
)
def test_run_many_refuses_what_is_no_list_of_keys(config, keys):
    with pytest.raises(ValueError, match=r"keys must be random keys \[S\]"):
        run_many(config, config.hparams(), keys)


# JAX's check that no key is used twice, which follows a scan over keys only where nothing is vmapped over runs.
@pytest.mark.parametrize("override", ["network.noisy=true", "env.sticky_actions=0.2"])
def test_no_key_is_used_twice_in_a_run(config, override):
    config = load_config("cartpole_cleanrl", [*TINY, override])
    with jax.debug_key_reuse(True):
        jax.jit(make_train(config)).trace(config.hparams(), jax.random.key(0)).lower()


def test_no_key_is_used_twice_by_runs_that_follow_one_another():
    def function(hparams, key):
        key, mine = jax.random.split(key)
        return key, jax.random.normal(mine)

    keys, layout = jax.random.split(jax.random.key(0), 3), lay_out(3, devices=jax.devices()[:1])
    wanted = jax.vmap(function, (None, 0))(None, keys)
    with jax.debug_key_reuse(True):
        found = map_runs(function, layout, in_place=True)(np.zeros(3), keys)
    assert (jax.random.key_data(found[0]) == jax.random.key_data(wanted[0])).all()
    np.testing.assert_array_equal(found[1], wanted[1])


def test_no_key_is_used_twice_in_the_play_that_checks_an_export():
    config = load_config("cartpole_cleanrl", [*TINY, "env.sticky_actions=0.2"])
    agent = SimpleNamespace(config=config, env=make_environment(**config.env.making()))
    with jax.debug_key_reuse(True):
        assert sample_observations(agent, num_envs=3, steps=2).shape == (6, 4)
