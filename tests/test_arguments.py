"""What is passed to programs and policies in a wrong shape is refused by name, before JAX or flax see it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn import evaluate_policy, load_config, make_train, run_many
from purejaxdqn.config import building
from purejaxdqn.config.arguments import check_agents, check_numbers, count_points, one_key
from purejaxdqn.policies import policies
from tests.conftest import TINY

CONFIG = load_config("cartpole_cleanrl", TINY, **{"env.params.gravity": 9.8})
NUMBERS = CONFIG.hparams()
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def train():
    return make_train(CONFIG)


def line_of(call, *arguments, **options):
    with pytest.raises(ValueError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def with_numbers(**numbers):
    return NUMBERS._replace(**numbers)


ONE_RUN = "; the function of one run takes single numbers: map over points with jax.vmap, or use run_many"
MANY = "; run_many takes a number, or [P] numbers for P points"
NOT_NUMBERS = {
    "gamma=None": (with_numbers(gamma=None), "hparams.gamma must be a number, or an array of numbers, not None"),
    "gamma=list": (
        with_numbers(gamma=[0.9, 0.99]),
        "hparams.gamma must be a number, or an array of numbers, not [0.9, 0.99]",
    ),
    "gamma=word": (with_numbers(gamma="high"), "hparams.gamma must be a number, or an array of numbers, not 'high'"),
    "gamma=key": (with_numbers(gamma=KEY), "hparams.gamma must be a number, or an array of numbers, not "),
    "config": (CONFIG, "hparams must be config.hparams(), or that with other numbers, not Config"),
    "dict": ({"gamma": 1.0}, "hparams must be config.hparams(), or that with other numbers, not dict"),
}


@pytest.mark.parametrize("name", NOT_NUMBERS)
def test_what_is_no_number_is_refused_by_its_name(train, name):
    hparams, line = NOT_NUMBERS[name]
    assert line_of(jax.eval_shape, lambda key: train(hparams, key), KEY).startswith(line)
    assert line_of(run_many, CONFIG, hparams, KEY[None]).startswith(line)


@pytest.mark.parametrize(
    ("hparams", "line"),
    [
        (with_numbers(gamma=np.ones(3)), f"hparams.gamma has shape [3]{ONE_RUN}"),
        (
            with_numbers(optimizer_learning_rate=jnp.ones((1, 2))),
            f"hparams.optimizer_learning_rate has shape [1, 2]{ONE_RUN}",
        ),
        (with_numbers(env_params={"gravity": jnp.ones(2)}), f"hparams.env_params['gravity'] has shape [2]{ONE_RUN}"),
    ],
)
def test_an_array_of_numbers_needs_a_map(train, hparams, line):
    assert line_of(train, hparams, KEY) == line
    assert line_of(jax.jit(train), hparams, KEY) == line


@pytest.mark.parametrize(
    ("hparams", "line"),
    [
        (
            with_numbers(gamma=np.ones(3), exploration_end=np.ones(2)),
            "hparams.exploration_end has 2 numbers and hparams.gamma has 3; run_many takes one number of each for each "
            "point, or a number that serves all points",
        ),
        (with_numbers(gamma=np.ones((2, 3))), f"hparams.gamma has shape [2, 3]{MANY}"),
        (with_numbers(gamma=np.ones(0)), f"hparams.gamma has shape [0]{MANY}"),
        (
            with_numbers(env_params={"gravity": np.ones((1, 1))}),
            f"hparams.env_params['gravity'] has shape [1, 1]{MANY}",
        ),
    ],
)
def test_points_of_several_lengths_or_with_more_axes_are_refused(hparams, line):
    assert line_of(run_many, CONFIG, hparams, KEY[None]) == line


def test_points_are_counted():
    assert count_points(CONFIG, NUMBERS) == count_points(CONFIG, with_numbers(gamma=0.5)) == 1
    assert count_points(CONFIG, with_numbers(gamma=jnp.ones(3), optimizer_eps=np.ones(3), reward_scale=np.ones(1))) == 3
    assert check_numbers(CONFIG, with_numbers(gamma=1, reward_scale=jnp.float32(2))) is None


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (0, "int32[]"),
        (jnp.arange(2), "int32[2]"),
        (np.zeros(3, np.uint32), "ndarray"),
        (None, "NoneType"),
        ("key", "str"),
        (jax.random.split(KEY, 3), "[3] of them: map over keys with jax.vmap, or use run_many"),
        (jax.random.split(jax.random.PRNGKey(0), 3), "uint32[3, 2]"),
    ],
    ids=["int", "integers", "words", "None", "str", "keys", "legacy keys"],
)
def test_what_is_not_one_key_is_refused(train, key, found):
    line = f"key must be one random key, as of jax.random.key(0), not {found}"
    assert line_of(train, NUMBERS, key) == line
    if isinstance(key, jax.Array):
        assert line_of(jax.jit(train), NUMBERS, key) == line


def test_a_legacy_key_is_the_typed_one():
    assert (jax.random.key_data(one_key(jax.random.PRNGKey(3))) == jax.random.key_data(jax.random.key(3))).all()


def test_a_map_over_points_and_keys_passes_the_checks_which_add_nothing_to_the_program(train):
    program = building.make_program(CONFIG).train
    assert str(jax.make_jaxpr(train)(NUMBERS, KEY)) == str(jax.make_jaxpr(program)(NUMBERS, KEY))
    points = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2), NUMBERS)
    over_both = jax.vmap(jax.vmap(train, in_axes=(None, 0)), in_axes=(0, None))
    assert jax.eval_shape(over_both, points, jax.random.split(KEY, 3)).rows.loss.shape == (2, 3, 13)
    for keys in (jax.random.split(KEY, 3), jax.random.split(jax.random.PRNGKey(0), 3)):
        assert (jax.random.key_data(jax.vmap(one_key)(keys)) == jax.random.key_data(jax.random.split(KEY, 3))).all()


@pytest.fixture(scope="module")
def one_agent():
    shapes = building.policy_shapes(CONFIG, policies.make_environment(**CONFIG.env.making()))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def stacked(params, *axes):
    return jax.tree.map(lambda leaf: np.broadcast_to(leaf, (*axes, *leaf.shape)), params)


def test_parameters_that_are_not_of_agents_of_the_config_are_refused(one_agent, monkeypatch):
    monkeypatch.setattr(policies, "greedy_returns", lambda *_, **__: pytest.fail("it played"))
    line = line_of(evaluate_policy, CONFIG, one_agent)
    assert line.startswith("params are of one agent, not of S agents: add an axis")
    line = line_of(evaluate_policy, CONFIG, stacked(one_agent, 2, 3))
    assert line.startswith("params are of 2 points with 3 seeds each, as of run_many, not of S agents: choose a point")


def test_parameters_of_another_network_are_named(one_agent):
    assert check_agents(stacked(one_agent, 3), one_agent) is None
    agents = stacked(one_agent, 3)
    names, leaves = zip(
        *((jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(agents)), strict=True
    )
    structure = jax.tree.structure(agents)

    def refused(*changed):
        return line_of(check_agents, jax.tree.unflatten(structure, changed), one_agent)

    wanted = ", ".join(map(str, leaves[1].shape[1:]))
    for other in (leaves[1][:2], leaves[1][..., :1], leaves[1][0], leaves[1][None]):
        line = f"params{names[1]} has shape {list(other.shape)}; it must have shape [S, {wanted}] for S agents"
        assert refused(leaves[0], other, *leaves[2:]) == line
    assert re.search(r"has shape \[0, ", line_of(check_agents, stacked(one_agent, 0), one_agent))
    missing = {"params": {name: layer for name, layer in agents["params"].items() if name != "Dense_0"}}
    line = line_of(check_agents, missing, one_agent)
    assert line == "params are not of the network of this config: params['params']['Dense_0']['bias'] is missing"
    more = {"params": {**agents["params"], "Dense_9": np.zeros(3)}}
    assert line_of(check_agents, more, one_agent).endswith("params['params']['Dense_9'] is not expected")
    assert line_of(check_agents, np.zeros(3), one_agent).startswith("params are not of the network of this config")
