"""What is the best possible return of the small environments, and what does a random policy get?

Small environments are written as tables of transitions and rewards, and solved by backward induction from their time
limit, without a discount. A random policy is simulated. The learning table takes targets from both.

    python -m benchmarks.optimal [--quick]
    python -m benchmarks.optimal --suites               the random policy in the rows of other suites, if installed
    python -m benchmarks.optimal --suites octax/brix    in some of them

The last two keep the lines of other rows.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

RANDOM_OF_SUITES = "random_suites"
"""The results of ``--suites``, which need packages that few have; the table of ``learning.py`` reads them."""


class Mdp(NamedTuple):
    """A tabular Markov decision process with a finite horizon."""

    transition: np.ndarray  # [S, A, S]; rows sum to 1, or to less where an episode may end
    reward: np.ndarray  # [S, A] expected
    start: np.ndarray  # [S] probabilities
    horizon: int  # steps


def best_return(mdp: Mdp) -> float:
    """Expected return of the best policy within the horizon (backward induction: Puterman 1994, section 4.5)."""
    value = np.zeros(len(mdp.start))
    for _ in range(mdp.horizon):
        value = (mdp.reward + mdp.transition @ value).max(-1)
    return float(mdp.start @ value)


def frozen_lake(env: Any, params: Any) -> Mdp:
    """FrozenLake: a slip moves to either side of the chosen direction, each with half the probability of a slip."""
    from gymnax.environments.misc.frozen_lake import GOAL, HOLE, START

    tiles = np.asarray(env.desc)
    slips = {0: env.success_rate, 1: (1 - env.success_rate) / 2, -1: (1 - env.success_rate) / 2}
    transition, reward = np.zeros((tiles.size, 4, tiles.size)), np.zeros((tiles.size, 4))
    for place, action, offset in np.ndindex(tiles.size, 4, 3):
        chance = slips[offset - 1] if env.is_slippery else float(offset == 1)
        move = ((0, -1), (1, 0), (0, 1), (-1, 0))[(action + offset - 1) % 4]
        row, column = np.clip(np.array(divmod(place, tiles.shape[1])) + move, 0, np.array(tiles.shape) - 1)
        tile = tiles[row, column]
        reward[place, action] += chance * (tile == GOAL)
        if tile not in (HOLE, GOAL):
            transition[place, action, row * tiles.shape[1] + column] += chance
    return Mdp(transition, reward, (tiles.ravel() == START).astype(float), params.max_steps_in_episode)


def four_rooms(env: Any, params: Any) -> Mdp:
    """FourRooms with its fixed start and goal.

    gymnax draws one of all four actions, the chosen one included, with a probability of 4/3 of ``fail_prob``.
    """
    free, goal = np.asarray(env.env_map), tuple(np.asarray(env.goal_fixed))
    moves = np.asarray(env.directions)
    random = float(params.fail_prob) * 4 / 3
    transition, reward = np.zeros((free.size, 4, free.size)), np.zeros((free.size, 4))
    for y, x in np.argwhere(free):
        for action, moved in np.ndindex(4, 4):
            chance = random / 4 + (1 - random) * (action == moved)
            to = tuple(np.array((y, x)) + moves[moved])
            to = to if free[to] else (y, x)
            place = np.ravel_multi_index((y, x), free.shape)
            if to == goal:
                reward[place, action] += chance
            else:
                transition[place, action, np.ravel_multi_index(to, free.shape)] += chance
    start = np.zeros(free.shape)
    start[tuple(np.asarray(env.pos_fixed))] = 1.0
    return Mdp(transition, reward, start.ravel(), params.max_steps_in_episode)


def deep_sea(env: Any, params: Any) -> Mdp:
    """Deterministic DeepSea: the state is the column; every step goes one row down, so the time step is the row."""
    size, last = env.size, env.size - 1
    transition, reward = np.zeros((size, 2, size)), np.zeros((size, 2))
    for column in range(size):
        transition[column, 0, max(column - 1, 0)] = 1.0
        transition[column, 1, min(column + 1, last)] = 1.0
        reward[column, 1] = (column == last) - params.unscaled_move_cost / size
    return Mdp(transition, reward, np.eye(size)[0], size)


def catch(env: Any, params: Any) -> Mdp:
    """Catch: a state is the ball's row and column and the paddle's column."""
    rows, columns = env.rows, env.columns
    shape = (rows, columns, columns)  # the ball's row and column, the paddle's column
    count = int(np.prod(shape))
    transition, reward = np.zeros((count, 3, count)), np.zeros((count, 3))
    for y, ball, paddle, action in np.ndindex(rows - 1, columns, columns, 3):
        here = np.ravel_multi_index((y, ball, paddle), shape)
        moved = int(np.clip(paddle + action - 1, 0, columns - 1))
        if y + 1 == rows - 1:
            reward[here, action] = 1.0 if moved == ball else -1.0
        else:
            transition[here, action, np.ravel_multi_index((y + 1, ball, moved), shape)] = 1.0
    start = np.zeros(shape)
    start[0, :, columns // 2] = 1 / columns
    return Mdp(transition, reward, start.ravel(), params.max_steps_in_episode)


def discounting_chain(env: Any, params: Any) -> Mdp:
    """DiscountingChain as one choice: the reward of each first action, if it is paid before the time limit."""
    pays = np.where(np.arange(env.n_actions) == env.mapping_seed, params.optimal_return, 1.0)
    pays = pays * (np.asarray(params.reward_timestep) <= params.max_steps_in_episode)
    return Mdp(np.zeros((1, env.n_actions, 1)), pays[None], np.ones(1), 1)


def umbrella_chain(env: Any, params: Any) -> Mdp:
    """UmbrellaChain as one choice in each of two states; the random rewards on the way are 0 on average."""
    return Mdp(np.zeros((2, 2, 2)), np.where(np.eye(2), 1.0, -1.0), np.full(2, 0.5), 1)


TABLES: dict[str, Callable[[Any, Any], Mdp]] = {
    "Catch-bsuite": catch,
    "DeepSea-bsuite": deep_sea,
    "DiscountingChain-bsuite": discounting_chain,
    "FourRooms-misc": four_rooms,
    "FrozenLake-misc": frozen_lake,
    "UmbrellaChain-bsuite": umbrella_chain,
}
"""Environments whose best return is computed. For the others it is not known, or (MetaMaze) it needs memory."""


def best_return_of(env_id: str, **kwargs: Any) -> float | None:
    """Return the best possible expected return with gymnax's default parameters; None if it is not computed."""
    from purejaxdqn.environments.registry import underlying_environment

    if env_id not in TABLES:
        return None
    env = underlying_environment(env_id, kwargs)
    return best_return(TABLES[env_id](env, env.default_params))


def random_returns(env_id: str, *, episodes: int, seed: int = 0, **kwargs: Any) -> np.ndarray:
    """Return undiscounted returns [episodes] of uniformly random legal actions, each episode in its own environment."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn.environments.registry import underlying_environment

    if ":" in env_id:
        return random_legal_returns(env_id, episodes=episodes, seed=seed, **kwargs)
    env = underlying_environment(env_id, kwargs)
    params = env.default_params

    def episode(key: jax.Array) -> jax.Array:
        reset_key, run_key = jax.random.split(key)
        _, state = env.reset(reset_key, params)

        def going(carry: tuple[Any, ...]) -> jax.Array:
            return ~carry[2]

        def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            key, state, _, total = carry
            key, action_key, step_key = jax.random.split(key, 3)
            action = jax.random.randint(action_key, (), 0, env.num_actions)
            _, state, reward, terminated, truncated, _ = env.step(step_key, state, action, params)
            return key, state, jnp.asarray(terminated | truncated), total + jnp.asarray(reward, jnp.float32)

        # A reset leaves weak types in the state; one step outside the loop makes them strong, as the loop needs.
        first = step((run_key, state, jnp.asarray(False), jnp.float32(0)))
        return jax.lax.while_loop(going, step, first)[3]

    return np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(seed), episodes)))


def random_legal_returns(
    env_id: str, *, episodes: int, seed: int = 0, legal_only: bool = True, **kwargs: Any
) -> np.ndarray:
    """The same in an environment of any suite; of legal actions, or with ``legal_only=False`` of all."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn.core.draws import random_action
    from purejaxdqn.environments.registry import make_environment

    env = make_environment(env_id, kwargs, legal_only=legal_only)

    def going(carry: tuple[Any, ...]) -> jax.Array:
        return jnp.any(carry[3])

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        key, obs, state, running, total = carry
        key, action_key, step_key = jax.random.split(key, 3)
        bits = jax.random.bits(action_key, (episodes,), jnp.uint32)
        action = random_action(bits, env.legal(env.default_params, state), env.num_actions)
        step_keys = jax.random.split(step_key, episodes)
        obs, state, happened = env.advance(env.default_params, step_keys, state, obs, action)
        total += jnp.where(running, happened.reward, 0.0)
        return key, obs, state, running & ~(happened.terminated | happened.truncated), total

    @jax.jit
    def play(key: jax.Array) -> jax.Array:
        reset_key, key = jax.random.split(key)
        obs, state = env.reset(env.default_params, jax.random.split(reset_key, episodes))
        start = (key, obs, state, jnp.ones(episodes, bool), jnp.zeros(episodes))
        return jax.lax.while_loop(going, step, start)[4]

    return np.asarray(play(jax.random.key(seed)))


def mean_and_error(returns: np.ndarray) -> tuple[float, float]:
    """Return the mean of returns [N] and its standard error."""
    return float(returns.mean(dtype=np.float64)), float(returns.std(ddof=1) / np.sqrt(len(returns)))


def stored_random(row: str) -> tuple[float, float] | None:
    """Return the stored mean return of random actions in a row of ``learning.py`` and its error; None if not there."""
    return next(((float(one["random"]), float(one["its error"])) for one in _stored() if one["row"] == row), None)


def _stored() -> list[dict[str, Any]]:
    from benchmarks import harness

    path = harness.RESULTS / f"{RANDOM_OF_SUITES}.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def play_suites(names: Sequence[str], episodes: int) -> Iterator[Mapping[str, Any]]:
    """Yield a line for each of these rows whose suite is installed."""
    from benchmarks.learning import ROWS, kwargs_of, read_environment
    from purejaxdqn.environments.importing import is_installed
    from purejaxdqn.environments.listed import suite_of

    for name in names or [name for name, row in ROWS.items() if row.group == "suites"]:
        row, env_id = ROWS[name], read_environment(name)
        if is_installed(suite_of(env_id)):
            legal_only = "env.legal_only=false" not in row.overrides
            returns = random_legal_returns(env_id, episodes=episodes, legal_only=legal_only, **kwargs_of(row))
            mean, error = mean_and_error(returns)
            yield {"row": name, "environment": env_id, "random": mean, "its error": error}


def main() -> None:
    from benchmarks import harness

    parser = harness.Options(__doc__)
    parser.add_argument("--suites", nargs="*", metavar="ROW", help="rows of learning.py in other suites than gymnax")
    parser.add_argument("--quick", action="store_true", help="100 random episodes instead of 1,000, nothing kept")
    arguments = parser.parse_args()
    episodes = 100 if arguments.quick else 1_000
    if arguments.suites is not None:
        found = list(play_suites(arguments.suites, episodes))
        print(harness.table(found))
        if not arguments.quick:
            kept = [one for one in _stored() if one["row"] not in {line["row"] for line in found}]
            print(harness.write(RANDOM_OF_SUITES, [*kept, *found]))
        return
    rows = []
    for env_id in (*TABLES, "MetaMaze-misc", "Pong-misc"):
        mean, error = mean_and_error(random_returns(env_id, episodes=episodes))
        best = best_return_of(env_id)
        rows.append({"environment": env_id, "best": "" if best is None else best, "random": mean, "its error": error})
    print(harness.table(rows))
    if not arguments.quick:
        print(harness.write("optimal", rows))


if __name__ == "__main__":
    main()
