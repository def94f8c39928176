"""The agent: the axes of the DQN family wired into init, act, update and sync.

Every member of the family makes the same backup, and differs in what the words mean (``bootstrap``, ``heads``):

    target = reward + bonus + discount * (sum_a policy(a) Z(next_obs, a) + entropy)
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from purejaxdqn.core.compiling import LARGE_PRODUCT
from purejaxdqn.core.config import Config, OptimizerConfig
from purejaxdqn.core.types import Array, Batch, HParams, LearnerState, Network, Params, Quantiles, UpdateStats
from purejaxdqn.dqn.bootstrap import Known, make_bootstrap
from purejaxdqn.dqn.heads import make_head
from purejaxdqn.dqn.networks import QFunction, adapt, make_network, noise_size, proposes_fractions
from purejaxdqn.dqn.observations import Statistics, normalize, nothing_seen, see
from purejaxdqn.environments.registry import Environment


class Agent(NamedTuple):
    """Pure functions; B is the batch of a call."""

    init: Callable[[HParams, Array], LearnerState]  # key (consumed)
    policy: Callable[[LearnerState], Params]  # all that acting needs; what ``q_values`` takes
    q_values: Callable[..., Array]  # hparams, policy, obs[B, O], key=None -> [B, A]; a key (consumed) turns noise on
    see: Callable[[LearnerState, Array], LearnerState]  # obs[N, O] as the environments gave them
    update: Callable[[HParams, LearnerState, Batch, Array, Array], tuple[LearnerState, Array, UpdateStats]]
    # batch, key (consumed), env_step[] -> learner, TD error[B], stats
    sync: Callable[[HParams, LearnerState], LearnerState]


class _Draws(NamedTuple):
    """The randomness of one update; None where nothing wants it."""

    online: Array | None  # [noise_size] noise of the online network
    target: Array | None  # ... of the target network
    selection: Array | None  # ... of the online network where it only chooses actions (Fortunato et al. 2018, eq. 18)
    fractions: Array | None  # [B, K] at which the online network is asked
    target_fractions: Array | None  # [B, K] ... and the target network


def make_agent(config: Config, env: Environment, network: Network | None = None) -> Agent:
    """Wire the agent that ``config`` describes; ``network`` takes the place of its Q-network.

    Raises:
      ValueError: ``network`` does not return what the config's distribution needs.
    """
    distribution, normalizes = config.distribution, config.env.normalize
    head = make_head(distribution.kind, loss=config.loss, atoms=distribution.atoms, risk=distribution.risk)
    bootstrap = make_bootstrap(config.bootstrap.kind)
    net = adapt(network) if network else _own_network(config, env)
    blank = jnp.zeros((1, *env.obs_shape), env.obs_dtype)

    def inputs(observations: Any, obs: Array) -> Array:
        """What the network sees of ``obs``."""
        features = env.features(obs)
        return normalize(observations, features) if normalizes else features

    def init(hparams: HParams, key: Array) -> LearnerState:
        observations = nothing_seen(env.features(blank)[0]) if normalizes else ()
        online = net.init(key, inputs(observations, blank), hparams.sigma)
        # The state an optimiser starts from depends on none of its numbers.
        opt_state = make_optimizer(config.optimizer, Config().hparams(), jnp.zeros(())).init(online)
        return LearnerState(online, jax.tree.map(jnp.copy, online), opt_state, observations)

    def mean_q(hparams: HParams, params: Params, x: Array, noise: Array | None) -> Array:
        return head.q_values(hparams, net.apply(params, x, noise, head.acting_fractions(hparams)))

    numbers = Config().hparams()._replace(v_min=0.0, v_max=1.0)  # shapes depend on none of them
    learner = jax.eval_shape(init, numbers, jax.random.key(0))
    size = noise_size(learner.online)
    _check_output(config, net, learner.online, jax.eval_shape(inputs, learner.observations, blank), env.num_actions)

    def draw(key: Array, batch_size: int) -> _Draws:
        noise_key, fraction_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (3, size)) if size else (None, None, None)
        shape = (2, batch_size, distribution.atoms)
        fractions = jax.random.uniform(fraction_key, shape) if head.draws_fractions else (None, None)
        return _Draws(*noise, *fractions)

    def policy(learner: LearnerState) -> Params:
        if not normalizes:
            return learner.online
        return {"network": learner.online, "observations": learner.observations._asdict()}

    def q_values(hparams: HParams, policy: Params, obs: Array, key: Array | None = None) -> Array:
        online, observations = (policy["network"], Statistics(**policy["observations"])) if normalizes else (policy, ())
        noise = None if key is None or not size else jax.random.normal(key, (obs.shape[0], size))
        return mean_q(hparams, online, inputs(observations, obs), noise)

    def see_obs(learner: LearnerState, obs: Array) -> LearnerState:
        return learner._replace(observations=see(learner.observations, env.features(obs))) if normalizes else learner

    def update(hparams: HParams, learner: LearnerState, batch: Batch, key: Array, env_step: Array) -> Any:
        draws = draw(key, batch.weight.shape[0])
        obs, action, reward, discount, next_obs = batch.transition
        obs, next_obs = inputs(learner.observations, obs), inputs(learner.observations, next_obs)
        next_out = net.apply(learner.target, next_obs, draws.target, draws.target_fractions)
        known = Known(
            target_next=lambda: (
                mean_q(hparams, learner.target, next_obs, draws.target)
                if head.draws_fractions  # the mean is taken at other fractions than the target
                else head.q_values(hparams, next_out)
            ),
            online_next=lambda: mean_q(hparams, learner.online, next_obs, draws.selection),
            target_now=lambda: mean_q(hparams, learner.target, obs, draws.target),
            action=action,
        )
        backup = bootstrap(hparams, known)
        reward = reward + backup.bonus + discount * backup.entropy
        target = head.target(hparams, next_out, backup.policy, reward, discount)

        def loss(online: Params) -> tuple[Array, tuple[Array, Array]]:
            out = net.apply(online, obs, draws.online, draws.fractions)
            losses, td_error = head.loss(hparams, out, action, target)
            q_values = jnp.take_along_axis(head.q_values(hparams, out), action[:, None], axis=1)
            return jnp.mean(batch.weight * losses), (td_error, jnp.mean(q_values))

        (loss_value, (td_error, q_value)), grads = jax.value_and_grad(loss, has_aux=True)(learner.online)
        online, opt_state, grad_norm = step(hparams, learner, grads, env_step)
        stats = UpdateStats(loss=loss_value, q_value=q_value, grad_norm=grad_norm)
        return learner._replace(online=online, opt_state=opt_state), td_error, stats

    def step(hparams: HParams, learner: LearnerState, grads: Params, env_step: Array) -> tuple[Params, Any, Array]:
        """Clip by the global norm and take the optimiser's step -> online, opt_state, norm[] before clipping.

        What proposes fractions learns apart from the rest: slowly, unclipped and outside the norm (Yang et al. 2019).
        """
        nothing = jax.tree.map(lambda _: False, grads)
        apart = proposes_fractions(grads) if distribution.kind == "fqf" else nothing
        grad_norm = global_norm(jax.tree.map(lambda grad, alone: None if alone else grad, grads, apart))
        scale = jnp.where(grad_norm > hparams.max_grad_norm, hparams.max_grad_norm / grad_norm, 1.0)
        grads = jax.tree.map(lambda grad, alone: grad if alone else scale * grad, grads, apart)
        optimizer = make_optimizer(config.optimizer, hparams, env_step)
        updates, opt_state = optimizer.update(grads, learner.opt_state, learner.online)
        rate = hparams.fraction_rate
        updates = jax.tree.map(lambda change, alone: rate * change if alone else change, updates, apart)
        return optax.apply_updates(learner.online, updates), opt_state, grad_norm

    def sync(hparams: HParams, learner: LearnerState) -> LearnerState:
        return learner._replace(target=optax.incremental_update(learner.online, learner.target, hparams.tau))

    # Said in every trace: on a GPU the default precision of matrix products may be TF32.
    at_precision = jax.default_matmul_precision(config.precision)
    return Agent(init, policy, at_precision(q_values), see_obs, at_precision(update), sync)


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
            if config.centered:
                return optax.chain(_scale_by_deviation(0.95, hparams.optimizer_eps), optax.scale_by_learning_rate(rate))
            return optax.rmsprop(rate, decay=0.95, eps=hparams.optimizer_eps)
        case "sgd":
            return optax.sgd(rate)
        case _:
            raise ValueError(f"no optimizer is called {config.name!r}")


def _scale_by_deviation(decay: float, eps: Array) -> optax.GradientTransformation:
    """Divide by the root of the running variance plus ``eps`` (Graves 2013, eq. 38 to 41).

    optax's own takes the root of what rounding can make negative, where a gradient hardly changes.
    """

    def init(params: Params) -> tuple[Params, Params]:
        return optax.tree.zeros_like(params), optax.tree.zeros_like(params)

    def update(grads: Params, state: tuple[Params, Params], params: Params = None) -> tuple[Params, Any]:
        mean = optax.tree.update_moment(grads, state[0], decay, 1)
        square = optax.tree.update_moment(grads, state[1], decay, 2)

        def scale(grad: Array, mean: Array, square: Array) -> Array:
            return grad * jax.lax.rsqrt(jnp.maximum(square - mean**2, 0.0) + eps)

        return jax.tree.map(scale, grads, mean, square), (mean, square)

    return optax.GradientTransformation(init, update)


def global_norm(tree: Params) -> Array:
    """The Euclidean norm [] of all leaves together."""
    return optax.tree.norm(jax.tree.map(lambda x: x if x.size < LARGE_PRODUCT else _norms_of_parts(x), tree))


def _norms_of_parts(x: Array) -> Array:
    """Norms whose own norm is that of ``x``, of parts with up to 32 entries each.

    A large gradient comes of a large product, and a program with one does without the library whose sums are fast
    (``compile_lowered``). XLA's own add one number after the other, unless many short ones stand beside each other.
    """
    pieces = x.reshape(math.gcd(x.size, 32), -1)
    return jnp.sqrt(functools.reduce(jnp.add, jnp.square(pieces)))


def _own_network(config: Config, env: Environment) -> QFunction:
    return make_network(
        num_actions=env.num_actions,
        distribution=config.distribution.kind,
        atoms=config.distribution.atoms,
        torso=config.network.torso,
        hidden=config.network.hidden,
        activation=config.network.activation,
        layer_norm=config.network.layer_norm,
        dueling=config.network.dueling,
        noisy=config.network.noisy,
    )


def _check_output(config: Config, net: QFunction, params: Params, x: Any, num_actions: int) -> None:
    """Refuse a network whose output is not what the distribution takes."""
    kind, atoms = config.distribution.kind, config.distribution.atoms
    out = jax.eval_shape(net.apply, params, x, None, jnp.zeros(atoms))
    if isinstance(out, Quantiles):
        return
    wanted = (1, num_actions) if kind == "scalar" else (1, num_actions, atoms)
    if kind in ("iqn", "fqf"):
        raise ValueError(f"distribution {kind} needs the config's own network")
    if getattr(out, "shape", None) != wanted:
        raise ValueError(f"distribution {kind} needs a network that returns {wanted}, not {getattr(out, 'shape', out)}")
