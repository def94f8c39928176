"""How an agent's episodes of CartPole end, with agents made so that it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.endings import Endings, greedy_endings, line
from purejaxdqn.environments.registry import make_environment


def leaning(target):
    """Push so that the pole leans by ``target`` (radians), which takes the cart that way, faster and faster."""

    def q_values(obs):
        return jnp.stack([jnp.zeros(len(obs)), obs[:, 2] + 0.5 * obs[:, 3] - target], -1)

    return q_values


def steady(obs):
    """Lean back towards the middle."""
    lean = -0.05 * obs[:, 0] - 0.1 * obs[:, 1]
    return jnp.stack([jnp.zeros(len(obs)), obs[:, 2] + 0.5 * obs[:, 3] - lean], -1)


def always_right(obs):
    return jnp.tile(jnp.array([0.0, 1.0]), (len(obs), 1))


@pytest.fixture(scope="module")
def play():
    env = make_environment("CartPole-v1")

    def play(q_values):
        return jax.device_get(greedy_endings(env, q_values, env.default_params, jax.random.key(0), episodes=8))

    return play


@pytest.mark.parametrize(
    "q_values, by_cart, by_pole",
    [(leaning(0.1), True, False), (always_right, False, True), (steady, False, False)],
    ids=["leaning", "always right", "steady"],
)
def test_it_is_told_how_episodes_end(play, q_values, by_cart, by_pole):
    ended = play(q_values)
    assert (ended.by_cart == by_cart).all()
    assert (ended.by_pole == by_pole).all()
    assert ((np.abs(ended.position) > 2.4) == by_cart).all()


def test_a_line_counts_agents_and_episodes():
    by_cart = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0]], bool)
    by_pole = np.array([[0, 0, 1], [0, 0, 0], [0, 0, 1]], bool)
    place = np.array([[3.0, -3.0, 0.0], [0.5, -1.0, 0.0], [1.0, 9.0, 9.0]])
    told = line("", np.array([400.0, 500.0, 499.0]), Endings(by_cart, by_pole, place), 500.0)
    assert list(told.values()) == ["none", 3, 2, 2, 1, 5, 3, pytest.approx(2.5 / 4)]
