"""Which achievements of Craftax do trained agents unlock, and which does a random policy?

The share of episodes in which each achievement is unlocked (Hafner 2022, section 3.3; Matthews et al. 2024), for the
greedy policies of a finished run, as the mean over its agents, and for uniformly random actions. The last row is
Crafter's score: the geometric mean of the shares in per cent, exp(mean(ln(1 + share))) - 1 (Hafner 2022, eq. 1).

    python -m benchmarks.achievements RUN                  a run directory of craftax; a few minutes for each agent
    python -m benchmarks.achievements RUN --episodes 20    fewer episodes for each agent and the random policy
    python -m benchmarks.achievements --quick              three minutes: trains for 4,096 steps, nothing kept
"""

import enum
import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from purejaxdqn.system.faults import UserError

SEED = 5_200
"""Of the episodes."""
QUICK = ("total_timesteps=4096", "evaluation.every=4096", "evaluation.episodes=1", "evaluation.final_episodes=1")


def main() -> None:
    parser = harness.parser(__doc__, quick="a short run, two episodes, nothing kept")
    parser.add_argument("run", type=Path, nargs="?", help="a finished run directory")
    parser.add_argument("--episodes", type=harness.positive, default=100, metavar="N", help="of each agent")
    arguments = parser.parse_args()
    if arguments.run is None and not arguments.quick:
        parser.error("name a run directory")
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.quick:
            harness.train(("craftax/classic_symbolic",), QUICK, Path(scratch, "run"))
            rows = measure(Path(scratch, "run"), episodes=2)
        else:
            try:
                rows = measure(arguments.run, episodes=arguments.episodes)
            except UserError as error:
                parser.error(str(error))
    print(harness.table(rows))
    if not arguments.quick:
        print(harness.write("achievements", rows))


def measure(run: Path, *, episodes: int) -> list[dict[str, Any]]:
    """Return the share of episodes by achievement, in per cent, for the run's agents and for random actions.

    Raises:
      UserError: ``run`` is not a finished run, or is not one of craftax.
    """
    from purejaxdqn import configure_cpu

    configure_cpu()
    import jax

    from purejaxdqn.config.building import make_q_values
    from purejaxdqn.core.algorithm import greedy
    from purejaxdqn.environments.registry import make_environment, underlying_environment
    from purejaxdqn.policies.policies import load_params

    config, params = load_params(run)
    suite, _, name = config.env.id.partition(":")
    if suite != "craftax":
        raise UserError(f"{run} is a run of {config.env.id}, not of craftax")
    single = underlying_environment(config.env.id, dict(config.env.kwargs))
    names = achievements_of(name)
    q_values, hparams = make_q_values(config, make_environment(**config.env.making())), config.hparams()

    def agent(policy: Any) -> Any:
        def choose(obs: Any, key: Any) -> Any:
            return greedy(q_values(hparams, policy, obs), ())

        return unlocked(single, choose, jax.random.key(SEED), episodes=episodes)

    def choose_at_random(obs: Any, key: Any) -> Any:
        return jax.random.randint(key, obs.shape[:1], 0, single.num_actions)

    ours = np.mean(jax.lax.map(agent, params), axis=(0, 1))
    random = np.mean(unlocked(single, choose_at_random, jax.random.key(SEED + 1), episodes=episodes), axis=0)
    return [
        {"achievement": name, "trained (%)": round(100 * float(one), 1), "random (%)": round(100 * float(other), 1)}
        for name, one, other in zip([*names, "score"], with_score(ours), with_score(random), strict=True)
    ]


def with_score(shares: np.ndarray) -> np.ndarray:
    """Shares [A] with their score appended: the geometric mean of 1 + percentages, less 1, as a share [A + 1]."""
    return np.append(shares, np.expm1(np.mean(np.log1p(100 * shares))) / 100)


def achievements_of(name: str) -> list[str]:
    """The achievements of an environment of craftax, in the order of its state."""
    world = "craftax_classic" if "Classic" in name else "craftax"
    achievements: type[enum.Enum] = importlib.import_module(f"craftax.{world}.constants").Achievement
    return [one.name.lower().replace("_", " ") for one in sorted(achievements, key=lambda one: one.value)]


def unlocked(single: Any, choose: Callable[[Any, Any], Any], key: Any, *, episodes: int) -> Any:
    """Which achievements [N, A] were unlocked in each of N episodes. Consumes ``key``.

    Args:
      single: the environment.
      choose: obs [N, O], key (consumed) -> actions [N].
      key: for worlds, steps and actions.
      episodes: N.
    """
    import jax
    import jax.numpy as jnp

    params = single.with_params({})
    reset_key, key = jax.random.split(key)
    obs, state = jax.vmap(single.reset, (0, None))(jax.random.split(reset_key, episodes), params)

    def body(carry: tuple) -> tuple:
        time, key, obs, state, running, found = carry
        key, choice_key, step_key = jax.random.split(key, 3)
        keys = jax.random.split(step_key, episodes)
        action = choose(obs, choice_key)
        obs, state, _, ended, _ = jax.vmap(single.step, (0, 0, 0, None))(keys, state, action, params)
        found = found | (state.achievements.astype(bool) & running[:, None])
        return time + 1, key, obs, state, running & ~ended, found

    def goes_on(carry: tuple) -> Any:
        return jnp.any(carry[4]) & (carry[0] < single.time_limit)

    found = jnp.zeros(state.achievements.shape, bool)
    carry = (jnp.int32(0), key, obs, state, jnp.ones(episodes, bool), found)
    return jax.lax.while_loop(goes_on, body, carry)[5]


if __name__ == "__main__":
    main()
