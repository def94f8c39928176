"""The benchmark of the family's costs: what it compares computes the same, and every choice has its rival."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import family
from purejaxdqn.config.building import make_parts, make_program
from purejaxdqn.dqn.learner import make_learner
from purejaxdqn.environments.registry import make_environment

SETTING = "120-84, batch 128"


@pytest.fixture(scope="module")
def env():
    return make_environment("CartPole-v1")


def one_batch(config, env):
    return jax.tree.map(lambda leaf: leaf[0], family.make_batches(config, env, steps=1))


@pytest.mark.parametrize("choice", [name for name in family.CHOICES if name not in family.NOT_IN_RLAX])
def test_every_choice_has_an_update_through_rlax_with_the_same_arguments_and_results(choice, env):
    config = family.make_config(SETTING, choice)
    learning = make_learner(make_parts(config, env))
    hparams, batch = config.hparams(), one_batch(config, env)
    learner = jax.eval_shape(learning.init, hparams, jax.random.key(0))
    arguments = hparams, learner, batch, jax.random.key(0), jnp.float32(1e-3)
    ours = jax.eval_shape(learning.update, *arguments)
    theirs = jax.eval_shape(family.rlax_update(config, env), *arguments)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), ours) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), theirs
    )


@pytest.mark.parametrize("choice", ["dqn", "double", "dueling", "c51", "quantile"])
def test_without_noise_the_update_through_rlax_leads_to_the_same_network(choice, env):
    config = family.make_config(SETTING, choice)
    learning = make_learner(make_parts(config, env))
    hparams, batch = config.hparams(), one_batch(config, env)
    learner = jax.jit(learning.init)(hparams, jax.random.key(0))
    learner = learner._replace(target=jax.tree.map(lambda leaf: leaf * 0.9, learner.online))
    arguments = hparams, learner, batch, jax.random.key(0), jnp.float32(1e-3)
    ours, theirs = (jax.jit(update)(*arguments) for update in (learning.update, family.rlax_update(config, env)))
    np.testing.assert_allclose(ours[2].loss, theirs[2].loss, rtol=1e-5)
    if choice in ("c51", "quantile"):  # gradients near zero, whose sign is all that Adam's first step sees
        return
    for mine, its, before in zip(*(jax.tree.leaves(one.online) for one in (ours[0], theirs[0], learner)), strict=True):
        np.testing.assert_allclose(mine - before, its - before, rtol=1e-3, atol=1e-6)
        assert np.abs(mine - before).max() > 1e-4


@pytest.mark.parametrize("name", family.TRAININGS)
@pytest.mark.parametrize("preset", family.PRESETS)
def test_a_training_is_plain_dqn_with_one_preset_and_all_its_steps_are_counted(name, preset):
    config = family.training_config(name, preset)
    assert (config.n_step, config.replay.kind) == (
        3 if preset == "n_step" else 1,
        "prioritised" if preset == "per" else "uniform",
    )
    assert (config.distribution.kind, config.bootstrap.kind) == ("scalar", "greedy")
    plan = make_program(config).plan
    assert plan.epochs == 1
    assert plan.periods * plan.iterations * plan.rollout * plan.num_envs == family.STEPS
