"""Environments of this project in which most steps give no reward.

sparse:MountainCar        1 where the car reaches the top, 0 elsewhere
sparse:CartPoleSwingUp    a pole that hangs: 1 for each step in which it stands upright, and a cost of moving
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxdqn.core.types import Array
from purejaxdqn.environments.batched import Single


class Car(NamedTuple):
    """The state of the mountain car."""

    position: Array  # []
    velocity: Array  # []


def mountain_car(*, time_limit: int = 200) -> Single:
    """The mountain car (Moore 1990; as MountainCar-v0 of Gymnasium) with a reward of 1 at the top, and else 0.

    Observations are position and velocity, scaled to [-1, 1]. An agent that learns of -1 a step, as in MountainCar-v0,
    is driven away from where it has been; here there is no reward before the top, where the episode terminates.

    Args:
      time_limit: steps of an episode.
    """
    low, high, fastest, goal = -1.2, 0.6, 0.07, 0.5

    def observe(car: Car) -> Array:
        middle, width = (low + high) / 2, (high - low) / 2
        return jnp.stack([(car.position - middle) / width, car.velocity / fastest])

    def reset(key: Array, params: Any) -> tuple[Array, Car]:
        car = Car(jax.random.uniform(key, (), minval=-0.6, maxval=-0.4), jnp.float32(0))
        return observe(car), car

    def step(key: Array, car: Car, action: Array, params: Any) -> tuple[Array, Car, Array, Array, Array]:
        velocity = car.velocity + 0.001 * (action - 1) - 0.0025 * jnp.cos(3 * car.position)
        velocity = jnp.clip(velocity, -fastest, fastest)
        position = jnp.clip(car.position + velocity, low, high)
        velocity = jnp.where((position == low) & (velocity < 0), 0.0, velocity)
        car, there = Car(position, velocity), position >= goal
        return observe(car), car, there.astype(jnp.float32), there, jnp.bool_(False)

    return Single(
        env_id="sparse:MountainCar",
        num_actions=3,
        reset=reset,
        step=step,
        time_limit=time_limit,
        bounds=lambda: (-1, 1),
        solved_at=0.9,
    )


class Pole(NamedTuple):
    """The state of cart and pole; the angle is 0 where the pole stands upright."""

    x: Array  # [] metres
    x_dot: Array  # []
    theta: Array  # [] radians
    theta_dot: Array  # []


def cartpole_swingup(*, time_limit: int = 500, height: float = 0.8, move_cost: float = 0.1) -> Single:
    """A pole on a cart that begins hanging down (after the task of bsuite: Osband et al. 2020, appendix A).

    Actions push to the left, not at all, or to the right. A step pays 1 if the pole is higher than ``height``, the cart
    within 1 of the middle and the pole slower than 1 radian a second, and costs ``move_cost`` if it pushes. The episode
    terminates where the cart leaves [-3, 3]. The equations of motion are those of Barto et al. 1983 without friction.
    An observation has x and its speed in units of 3, sine, cosine and speed of the angle, and whether the pole is paid.

    Args:
      time_limit: steps of an episode, 0.02 seconds each.
      height: the cosine of the angle from which the pole counts as upright.
      move_cost: of a push.
    """
    mass, pole_mass, half, gravity, force, tau, edge = 1.1, 0.1, 0.5, 9.8, 10.0, 0.02, 3.0

    def upright(pole: Pole) -> Array:
        return (jnp.cos(pole.theta) > height) & (jnp.abs(pole.x) < 1) & (jnp.abs(pole.theta_dot) < 1)

    def observe(pole: Pole) -> Array:
        x, x_dot, theta, theta_dot = pole
        paid = upright(pole).astype(jnp.float32)
        return jnp.stack([x / edge, x_dot / edge, jnp.sin(theta), jnp.cos(theta), theta_dot, paid])

    def reset(key: Array, params: Any) -> tuple[Array, Pole]:
        x, x_dot, theta, theta_dot = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        pole = Pole(x, x_dot, theta + math.pi, theta_dot)
        return observe(pole), pole

    def step(key: Array, pole: Pole, action: Array, params: Any) -> tuple[Array, Pole, Array, Array, Array]:
        x, x_dot, theta, theta_dot = pole
        sin, cos = jnp.sin(theta), jnp.cos(theta)
        push = force * (action - 1) + pole_mass * half * theta_dot**2 * sin
        theta_acc = (gravity * sin - cos * push / mass) / (half * (4 / 3 - pole_mass * cos**2 / mass))
        x_acc = (push - pole_mass * half * theta_acc * cos) / mass
        pole = Pole(x + tau * x_dot, x_dot + tau * x_acc, theta + tau * theta_dot, theta_dot + tau * theta_acc)
        reward = upright(pole).astype(jnp.float32) - move_cost * (action != 1)
        return observe(pole), pole, reward, jnp.abs(pole.x) > edge, jnp.bool_(False)

    return Single(
        env_id="sparse:CartPoleSwingUp",
        num_actions=3,
        reset=reset,
        step=step,
        time_limit=time_limit,
    )


_ENVIRONMENTS: Mapping[str, Callable[..., Single]] = {
    "MountainCar": mountain_car,
    "CartPoleSwingUp": cartpole_swingup,
}
NAMES = tuple(f"sparse:{name}" for name in _ENVIRONMENTS)


def make(name: str, kwargs: Mapping[str, Any]) -> Single:
    """The environment ``sparse:<name>``."""
    return _ENVIRONMENTS[name](**kwargs)
