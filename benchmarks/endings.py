"""How do CartPole agents lose episodes: does the cart leave the track, or does the pole fall?

Uses four settings from the tuning of `configs/cartpole_100k.yaml`, with sixty agents each: those of the fifth round of
`tuning.py` (`--out` also accepts that round's directory, and resumes what is in it). Every agent plays 2,000 greedy
episodes, because most agents fail too rarely to show it in the 100 episodes of a final evaluation.

    python -m benchmarks.endings          a quarter of an hour: results/endings.csv
    python -m benchmarks.endings --quick  under a minute: two settings, short, nothing kept
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, tuning
from purejaxdqn import configure_cpu
from purejaxdqn.config.building import make_q_values
from purejaxdqn.environments.registry import Environment, make_environment
from purejaxdqn.policies.policies import load_params

ROUND = "cartpole_100k_fifth"
SETTINGS = (  # of this round
    "",
    "gamma=0.995 n_step=5",
    "gamma=0.995 n_step=5 env.normalize=true",
    "gamma=0.995 n_step=5 env.normalize=true network.dueling=true",
)
EPISODES = 2_000


class Endings(NamedTuple):
    """How N episodes of CartPole ended; an episode is lost if it ends before its time limit."""

    by_cart: Any  # [N] bool: lost, with the cart beyond the end of the track
    by_pole: Any  # [N] bool: lost otherwise
    position: Any  # [N] of the cart at the end, in metres from the middle


def greedy_endings(
    env: Environment, q_values: Callable[[Any], Any], env_params: Any, key: Any, *, episodes: int
) -> Endings:
    """Play CartPole greedily, one episode in each of ``episodes`` environments. Consumes ``key``."""
    keys = jax.random.split(key, episodes + 1)
    obs, state = env.reset(env_params, keys[1:])

    def body(carry: tuple, _: None) -> tuple:
        key, obs, state, lost, position = carry
        keys = jax.random.split(key, episodes + 1)
        action = jnp.argmax(q_values(obs), axis=-1)
        obs, state, step = env.step(env_params, keys[1:], state, obs, action)
        position = jnp.where(lost, position, step.next_obs[:, 0])
        return (keys[0], obs, state, lost | (step.terminated & ~step.truncated), position), None

    start = (keys[0], obs, state, jnp.zeros(episodes, bool), jnp.zeros(episodes))
    (*_, lost, position), _ = jax.lax.scan(body, start, length=env_params.max_steps_in_episode)
    outside = jnp.abs(position) > env_params.x_threshold
    return Endings(lost & outside, lost & ~outside, position)


def main() -> None:
    arguments = harness.parser(__doc__, quick="two settings, two agents each, 12,000 steps; nothing kept")
    arguments.add_argument("--out", type=Path, metavar="DIR", help="keep the runs here, and resume runs that are here")
    given = arguments.parse_args()
    configure_cpu()
    chosen = tuning.TUNED[ROUND]
    settings, episodes = SETTINGS, EPISODES
    if given.quick:
        chosen, settings, episodes = chosen._replace(seeds=2, steps=12_000), SETTINGS[::3], 100
    lines = []
    with harness.runs_in(None if given.quick else given.out) as folder:
        for setting in settings:
            run = folder / f"{ROUND}-{tuning.TUNED[ROUND].changes.index(setting)}"
            summary = harness.train((chosen.config,), tuning.overrides(chosen, setting), run)
            lines.append(line(setting, np.array(summary["final_eval_return"]), play(run, episodes), chosen.best))
    print(harness.table(lines))
    if not given.quick:
        print(harness.write("endings", lines))


def play(run: Path, episodes: int) -> Endings:
    """Play N episodes with each of S agents of a finished run, from the same N start states; leaves [S, N]."""
    config, params = load_params(run)
    env = make_environment(**config.env.making())
    q_values, hparams = make_q_values(config, env), config.hparams()
    # The default parameters are Python numbers: the time limit must be static, as it is the length of the scan.
    env_params, key = env.default_params, jax.random.key(config.seed + 1)

    @jax.jit
    def one(params: Any) -> Endings:
        return greedy_endings(env, lambda obs: q_values(hparams, params, obs), env_params, key, episodes=episodes)

    agents = [one(jax.tree.map(lambda leaf, k=k: leaf[k], params)) for k in range(config.num_seeds)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *agents)


def line(setting: str, scores: np.ndarray, ended: Endings, best: float | None) -> dict[str, Any]:
    """Return a row of the table, from the agents' scores [S] and the endings of their episodes [S, N]."""
    by_cart, by_pole = ended.by_cart.sum(-1), ended.by_pole.sum(-1)
    lost = by_cart + by_pole
    lasted = ~(ended.by_cart | ended.by_pole)
    return {
        "setting": setting or "none",
        "agents": len(scores),
        "agents below 500 over 100 episodes": int((scores < best).sum()),
        f"agents that lose one of {ended.position.shape[1]:,}": int((lost > 0).sum()),
        "of those, most by the cart": int(((lost > 0) & (by_cart > by_pole)).sum()),
        "episodes lost": int(lost.sum()),
        "of those, by the cart": int(by_cart.sum()),
        "metres from the middle at the time limit": float(np.abs(ended.position)[lasted].mean())
        if lasted.any()
        else "",
    }


if __name__ == "__main__":
    main()
