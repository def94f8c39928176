"""The agent: the axes of the DQN family wired into init, act, update and sync."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from purejaxdqn.core.bootstrap import make_bootstrap
from purejaxdqn.core.config import Config, OptimizerConfig
from purejaxdqn.core.environments import Environment
from purejaxdqn.core.heads import scalar_head
from purejaxdqn.core.networks import make_network
from purejaxdqn.core.types import Array, Batch, HParams, LearnerState, Network, Params, UpdateStats


class Agent(NamedTuple):
    """Pure functions; B is the batch of a call."""

    init: Callable[[Array], LearnerState]  # key (consumed)
    q_values: Callable[[Params, Array], Array]  # obs[B, O] -> [B, A]
    update: Callable[[HParams, LearnerState, Batch, Array], tuple[LearnerState, Array, UpdateStats]]
    # batch, env_step[] -> learner, TD error[B], stats
    sync: Callable[[HParams, LearnerState], LearnerState]


def make_agent(config: Config, env: Environment, network: Network | None = None) -> Agent:
    """Wire the agent that ``config`` describes; ``network`` takes the place of its Q-network."""
    head = scalar_head(config.loss)
    bootstrap = make_bootstrap(config.bootstrap.kind)
    net: Network = network or make_network(
        num_actions=env.num_actions,
        hidden=config.network.hidden,
        activation=config.network.activation,
        layer_norm=config.network.layer_norm,
    )

    def optimizer(hparams: HParams, env_step: Array) -> optax.GradientTransformation:
        return make_optimizer(config.optimizer, hparams, env_step)

    def init(key: Array) -> LearnerState:
        online = net.init(key, jnp.zeros((1, *env.obs_shape), env.obs_dtype))
        # The state an optimiser starts from depends on none of its numbers.
        opt_state = make_optimizer(config.optimizer, Config().hparams(), jnp.zeros(())).init(online)
        return LearnerState(online, jax.tree.map(jnp.copy, online), opt_state)

    def loss(online: Params, batch: Batch, target: Array) -> tuple[Array, Array]:
        out = net.apply(online, batch.transition.obs)
        losses, td_error = head.loss(out, batch.transition.action, target)
        return jnp.mean(batch.weight * losses), td_error

    def update(hparams: HParams, learner: LearnerState, batch: Batch, env_step: Array) -> Any:
        transition = batch.transition
        next_out = net.apply(learner.target, transition.next_obs)
        policy = bootstrap(
            lambda: head.q_values(net.apply(learner.online, transition.next_obs)), head.q_values(next_out)
        )
        reward = jnp.clip(hparams.reward_scale * transition.reward, -hparams.reward_clip, hparams.reward_clip)
        target = head.target(next_out, policy, reward, transition.discount)
        (loss_value, td_error), grads = jax.value_and_grad(loss, has_aux=True)(learner.online, batch, target)
        grad_norm = optax.tree.norm(grads)
        grads = optax.tree.scale(jnp.minimum(1.0, hparams.max_grad_norm / grad_norm), grads)
        updates, opt_state = optimizer(hparams, env_step).update(grads, learner.opt_state, learner.online)
        online = optax.apply_updates(learner.online, updates)
        stats = UpdateStats(loss=loss_value, q_value=jnp.mean(target - td_error), grad_norm=grad_norm)
        return LearnerState(online, learner.target, opt_state), td_error, stats

    def sync(hparams: HParams, learner: LearnerState) -> LearnerState:
        return learner._replace(target=optax.incremental_update(learner.online, learner.target, hparams.tau))

    def q_values(params: Params, obs: Array) -> Array:
        return head.q_values(net.apply(params, obs))

    # Said in every trace: on a GPU the default precision of matrix products may be TF32.
    at_precision = jax.default_matmul_precision(config.precision)
    return Agent(init=init, q_values=at_precision(q_values), update=at_precision(update), sync=sync)


def make_optimizer(config: OptimizerConfig, hparams: HParams, env_step: Array) -> optax.GradientTransformation:
    """The optimiser at ``env_step``; annealed, its rate goes to 0 in a straight line over the horizon."""
    rate = hparams.learning_rate
    if config.anneal:
        rate = rate * jnp.maximum(0.0, 1.0 - env_step / hparams.horizon)
    match config.name:
        case "adam":
            return optax.adam(rate, eps=hparams.optimizer_eps)
        case "adamw":
            return optax.adamw(rate, eps=hparams.optimizer_eps)
        case "rmsprop":
            return optax.rmsprop(rate, decay=0.95, eps=hparams.optimizer_eps)
        case "sgd":
            return optax.sgd(rate)
        case _:
            raise ValueError(f"no optimizer is called {config.name!r}")
