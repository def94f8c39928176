"""Parts of your own in place of the config's: every axis is a value, and the package knows nothing of it."""

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purejaxdqn import load_config, make_train, run_many
from purejaxdqn.config import building
from purejaxdqn.config.building import Own
from purejaxdqn.config.checks import find_faults
from purejaxdqn.core import config as config_module
from purejaxdqn.core.config import Config, OptimizerConfig, Share, Traced, config_keys, traced_keys
from purejaxdqn.dqn.axes import AXES
from purejaxdqn.dqn.bootstrap import BOOTSTRAPS, Backup
from purejaxdqn.dqn.heads import HEADS, scalar_head
from purejaxdqn.dqn.memory import Memory
from purejaxdqn.dqn.replay import uniform_replay
from purejaxdqn.dqn.rings import make_ring
from purejaxdqn.environments.registry import from_gymnax, make_environment
from tests.conftest import PQN, SEQUENCES, TINY, jit_quickly
from tests.probes import Table, TableMDP


def expectile_head(level):
    """The expectile of the return (Newey and Powell 1987): errors below the target weigh ``level``, above 1 - level."""
    plain = scalar_head("squared")

    def loss(hparams, out, action, target):
        _, td_error = plain.loss(hparams, out, action, target)
        weight = jnp.where(td_error > 0, level, 1 - level)
        return weight * jnp.square(td_error), td_error

    return plain._replace(loss=loss)


def boltzmann(hparams, estimates):
    """The softmax policy of the target network at temperature 1, a soft operator without Munchausen's bonus."""
    return Backup(policy=jax.nn.softmax(estimates.target_next(), axis=-1))


def fitted(overrides=(), **own):
    """Q [S, A] of a table after random behaviour."""
    config = load_config(
        "cartpole_cleanrl",
        [
            *("total_timesteps=3000", "env.num_envs=4", "gamma=0", "optimizer={name: sgd, learning_rate: 0.5}"),
            *("exploration={start: 1, end: 1}", "replay={size: 400, batch_size: 64}", "loss=squared"),
            *(
                "schedule={warmup: 200, train_every: 4, target_every: 40}",
                "evaluation={episodes: 1, final_episodes: 1}",
            ),
            *overrides,
        ],
    )
    env = from_gymnax(TableMDP([[0, 0]], [[0, 0]], [False], time_limit=20)) if "env" not in own else own.pop("env")
    train = make_train(config, env=env, network=Table(np.zeros((env.obs_shape[0], 2))), **own)
    return np.asarray(jit_quickly(train)(config.hparams(), jax.random.key(0)).params["q"])


def test_a_head_of_your_own_is_learned():
    """A coin's expectile: the level where level (1 - q) = (1 - level) (q + 1), which is 2 level - 1."""
    q = fitted(["optimizer.learning_rate=0.05", "gamma=0"], head=expectile_head(0.8), env=_coin())
    np.testing.assert_allclose(q[0, 0], 2 * 0.8 - 1, atol=0.15)


def _coin():
    class Coin(TableMDP):
        """Action 0 pays 1 or -1, as a coin falls."""

        def __init__(self):
            super().__init__([[0, 0]], [[0, 0]], [False], time_limit=20)

        def step_env(self, key, state, action, params):
            obs, state, _, terminated, info = super().step_env(key, state, action, params)
            reward = jnp.where(action == 0, 2.0 * jax.random.bernoulli(key) - 1.0, 0.0)
            return obs, state, reward, terminated, info

    return from_gymnax(Coin())


def test_a_bootstrap_of_your_own_is_learned():
    """One state, rewards 1 and 0, gamma 0.5: q = r + 0.5 softmax(q) . q, solved by iteration in float64."""
    env = from_gymnax(TableMDP([[0, 0]], [[1, 0]], [False], time_limit=20))
    q = fitted(["gamma=0.5"], env=env, bootstrap=boltzmann)
    wanted = np.zeros(2)
    for _ in range(200):
        policy = np.exp(wanted) / np.exp(wanted).sum()
        wanted = np.array([1.0, 0.0]) + 0.5 * policy @ wanted
    np.testing.assert_allclose(q[0], wanted, atol=1e-3)
    assert wanted[0] < 1.95  # which the greedy bootstrap, at 2, is not


def test_an_optimizer_of_optax_takes_the_place_of_the_configs():
    env = from_gymnax(TableMDP([[0, 0]], [[1, 3]], [False], time_limit=20))
    q = fitted(env=env, optimizer=optax.chain(optax.scale_by_adam(), optax.scale(-0.05)))
    np.testing.assert_allclose(q[0], [1, 3], atol=0.1)
    np.testing.assert_array_equal(fitted(env=env, optimizer=optax.set_to_zero()), 0)


@pytest.mark.slow
def test_an_optimizer_of_the_runs_numbers_reads_them():
    env = from_gymnax(TableMDP([[0, 0]], [[1, 3]], [False], time_limit=20))
    q = fitted(env=env, optimizer=lambda hparams, rate: optax.sgd(rate * hparams.optimizer_eps * 1e8))
    np.testing.assert_array_equal(q, fitted(env=env))


def test_a_replay_of_your_own_takes_the_place_of_the_configs():
    """One that hands out every reward doubled."""
    replay = uniform_replay(make_ring(size=400, n_step=1, num_envs=4))

    def sample(*arguments):
        batch = replay.sample(*arguments)
        return batch._replace(transition=batch.transition._replace(reward=2 * batch.transition.reward))

    env = from_gymnax(TableMDP([[0, 0]], [[1, 3]], [False], time_limit=20))
    np.testing.assert_allclose(fitted(env=env, replay=replay._replace(sample=sample))[0], [2, 6], atol=1e-3)


@pytest.mark.parametrize("part", Own._fields)
def test_make_train_and_run_many_build_the_program_with_every_part(part, monkeypatch):
    """And ``run_many`` keeps a program for the same part only."""
    config, built = load_config("cartpole_cleanrl", TINY), []

    def make_program(config, own):
        built.append(own)
        return SimpleNamespace(train=lambda hparams, key: hparams.gamma)

    monkeypatch.setattr(building, "make_program", make_program)
    monkeypatch.setattr(building, "map_runs", lambda train, layout: train)
    monkeypatch.setattr(building, "compile_runs", lambda train, *_: train)
    monkeypatch.setattr(building, "_compiled", {})
    one, other, keys = SimpleNamespace(), SimpleNamespace(), jax.random.split(jax.random.key(0), 2)
    make_train(config, **{part: one})
    for mine in (one, one, other):
        run_many(config, config.hparams(), keys, **{part: mine})
    run_many(config, config.hparams(), keys)
    assert [getattr(own, part) for own in built] == [one, one, other, None]
    assert all(own._replace(**{part: None}) == building.NOTHING_OWN for own in built)


FAULTS = {
    # a part of your own: what the config says of the part that it replaces, with which no program is built without it
    "env": (["env.resets=4"], {"env.num_envs": 2}),
    "network": ([], {"network.torso": "cnn", "network.strides": (1, 1)}),
    "head": (PQN, {"distribution.kind": "quantile", "distribution.atoms": 11}),
    "bootstrap": (PQN, {"bootstrap.kind": "double"}),
    "replay": ([], {"replay.size": 4}),
    "optimizer": ([], {"optimizer.centered": True}),
}


@pytest.mark.parametrize("part", FAULTS)
def test_a_fault_of_what_a_part_replaces_is_none(part):
    overrides, wrong = FAULTS[part]
    config = load_config("cartpole_cleanrl", [*TINY, *overrides])
    for key, value in wrong.items():
        section, _, name = key.partition(".")
        config = config.model_copy(update={section: getattr(config, section).model_copy(update={name: value})})
    faults = [fault.key for fault in find_faults(config)]
    assert faults
    own = {
        "env": make_environment(**config.env.making()),
        "network": Table(np.zeros((4, 2))),
        "head": scalar_head("squared"),
        "bootstrap": boltzmann,
        "replay": uniform_replay(make_ring(size=300, n_step=1, num_envs=4)),
        "optimizer": optax.sgd(0.1),
    }
    for other in sorted(set(own) - {part, "replay"}):  # with which an ensemble and learning without replay do not go
        with pytest.raises(ValueError, match=faults[0]):
            make_train(config, **{other: own[other]})
    make_train(config, **{part: own[part]})


@pytest.mark.slow
def test_run_many_takes_the_same_parts():
    config = load_config("cartpole_cleanrl", TINY)
    keys = jax.random.split(jax.random.key(0), 2)
    plain = run_many(config, config.hparams(), keys)
    own = run_many(config, config.hparams(), keys, bootstrap=boltzmann)
    again = run_many(config, config.hparams(), keys, bootstrap=BOOTSTRAPS.names["greedy"].make(config))
    assert not np.array_equal(plain.rows.loss, own.rows.loss)
    np.testing.assert_array_equal(plain.rows.loss, again.rows.loss)


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.key)
def test_a_config_knows_the_names_of_its_tables(axis):
    section, name = axis.key.split(".")
    annotation = Config.model_fields[section].annotation.model_fields[name].annotation
    names = getattr(annotation, "__args__", (False, True))
    assert set(names) == set(axis.names)
    keys = set(config_keys())
    assert all(key in keys for choice in axis.names.values() for key in choice.keys)


def test_a_new_number_is_declared_once():
    """Everything else is derived: its key, its field, its value, and that all its values share a program."""

    class Optimizer(OptimizerConfig):
        momentum: config_module.Annotated[Share, Traced()] = 0.9

    class Extended(Config):
        optimizer: Optimizer = Optimizer()

    extended = Extended.model_validate({"optimizer": {"momentum": 0.5}})
    assert set(traced_keys(Extended)) - set(traced_keys()) == {"optimizer.momentum"}
    assert extended.hparams().optimizer_momentum == np.float32(0.5)
    assert extended.static() == Extended().static()
    assert extended.static() != Extended(optimizer=Optimizer(name="sgd")).static()
    program = jax.jit(chex.assert_max_traces(lambda hparams: 2 * hparams.optimizer_momentum, n=1))
    assert [program(one.hparams()) for one in (Extended(), extended)] == [np.float32(1.8), 1.0]


def test_a_head_says_what_it_takes_of_the_network():
    config = load_config("cartpole_cleanrl", TINY)
    head = HEADS.names["quantile"].make(load_config("cartpole_cleanrl", [*TINY, "distribution.kind=quantile"]))
    train = make_train(config, head=head)  # the config's network gives the head its 51 numbers for each action
    shapes = jax.eval_shape(train, config.hparams(), jax.random.key(0)).params
    assert shapes["params"]["Dense_2"]["weight"].shape == (2 * 51, 16)
    with pytest.raises(ValueError, match=r"needs a network that returns \(1, 2, 51\), not \(1, 2\)"):
        make_train(config, head=head, network=Table(np.zeros((4, 2))))


def _wrong_parts(config):
    head, replay = scalar_head("squared"), uniform_replay(make_ring(size=300, n_step=1, num_envs=4))
    cell = Memory(lambda key, inputs: {}, lambda size: jnp.zeros((size, 2)), lambda params, x, carry: (x, carry))

    def sampling(*arguments):
        batch = replay.sample(*arguments)
        return batch._replace(weight=batch.weight[:, None])

    return {
        "head.q_values": {"head": head._replace(q_values=lambda hparams, out: out[:, :1])},
        "head.loss": {"head": head._replace(loss=lambda *arguments: (jnp.zeros(()), jnp.zeros(())))},
        "head.backup": {"head": head._replace(backup=lambda hparams, value, reward, discount: value[:, None])},
        "replay.reprioritise": {"replay": replay._replace(reprioritise=lambda hparams, state, *rest: (state,))},
        "bootstrap: the policy": {"bootstrap": lambda hparams, estimates: Backup(estimates.target_next()[:, 0])},
        "bootstrap: the bonus": {
            "bootstrap": lambda hparams, estimates: Backup(estimates.target_next(), bonus=jnp.zeros((8, 1)))
        },
        "bootstrap: the entropy": {
            "bootstrap": lambda hparams, estimates: Backup(estimates.target_next(), entropy=jnp.zeros((8, 1)))
        },
        "memory.unroll: the outputs": {"memory": cell._replace(unroll=lambda params, x, carry, start: (x[0], carry))},
        "memory.unroll: the carries": {"memory": cell._replace(unroll=lambda params, x, carry, start: (x, carry))},
        "memory.step: the outputs": {"memory": cell._replace(step=lambda params, x, carry: (x.T, carry))},
        "memory.step: the carry": {"memory": cell._replace(step=lambda params, x, carry: (x, carry[:, :1]))},
        "replay.sample": {"replay": replay._replace(sample=sampling)},
        "replay.add: the state": {"replay": replay._replace(add=lambda hparams, state, steps: (state, 0))},
        "optimizer": {"optimizer": optax.GradientTransformation(lambda params: (), lambda g, state, p: (g, (0,)))},
    }


@pytest.mark.parametrize("part", _wrong_parts(None))
def test_a_part_of_your_own_is_named_where_its_shapes_are_wrong(part):
    remembers = ["network.memory=gru", *SEQUENCES] if "memory" in part else []
    config = load_config("cartpole_cleanrl", [*(PQN if part == "head.backup" else TINY), *remembers])
    with pytest.raises(AssertionError, match=part):  # a network with a memory is made with the program
        train = make_train(config, **_wrong_parts(config)[part])
        jax.eval_shape(train, config.hparams(), jax.random.key(0))
