"""How fast are the suites of environments through their adapters, and what do fewer resets save and change?

- ``rates``: environment steps a second of random actions in one compiled scan: the adapter with resets, compared with
  the suite's own step, with its own resets if it has them. Interleaved, on one thread; suites that are not installed
  are left out and listed.
- ``craftax``: the same for Craftax-Classic with one new world for each environment in a step (``env.resets: all``),
  and with fewer.
- ``resets``: how often an episode begins in the same state as another, if episodes end independently of each
  other, and the expected share; and the same counted in Craftax-Classic under random actions, if it is installed.

    python -m benchmarks.suites                    all parts: half an hour on two idle cores
    python -m benchmarks.suites --part resets      one part
    python -m benchmarks.suites --part rates --only pgx:2048    one environment
    python -m benchmarks.suites --quick            a minute: few steps, nothing kept
"""

import csv
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness

CRAFTAX = "craftax:Craftax-Classic-Symbolic-v1"
SAMPLE = {
    "xminigrid:MiniGrid-Empty-5x5": {},
    "xminigrid:MiniGrid-DoorKey-5x5": {},
    "jumanji:Snake-v1": {"num_rows": 6, "num_cols": 6},
    "jumanji:Game2048-v1": {},
    "pgx:2048": {},
    "octax:brix": {},
    "octax:pong": {},
    CRAFTAX: {},
}
"""Environments and their arguments."""
SLOW = ("octax", "craftax")
NUM_ENVS = 64
STEPS = 8_000
SLOW_STEPS = 50
RESETS = ("all", 16, 4, 1)
SHARED = ((64, 200, 4), (64, 200, 1), (64, 20, 4), (256, 140, 4), (256, 280, 4), (1024, 200, 16), (1024, 200, 64))
"""Environments, mean length of an episode, fresh states a step. The shipped config of Craftax has 256 environments and
4 fresh states; its episodes last 140 steps at the start of training and 280 at its end (row craftax/classic)."""


class Bare(NamedTuple):
    """A suite's own functions of one environment."""

    reset: Callable[[Any], Any]  # key -> state
    step: Callable[[Any, Any, Any], tuple[Any, Any]]  # key, state, action -> state, what the step shows
    num_actions: int


def main() -> None:
    parser = harness.parser(__doc__, quick="few steps, nothing kept", rounds=9)
    parser.add_argument("--part", choices=("rates", "craftax", "resets"), nargs="+")
    parser.add_argument("--only", choices=SAMPLE, nargs="+", help="environments of `rates`; the other rows stay")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return
    for part in arguments.part or ("resets", "rates", "craftax"):
        rows = _PARTS[part](arguments)
        if not rows:
            continue
        print(harness.table(rows), flush=True)
        if not arguments.quick:
            if part == "rates" and arguments.only:
                rows = [*(one for one in stored_rates() if one["environment"] not in arguments.only), *rows]
                rows.sort(key=lambda row: list(SAMPLE).index(row["environment"]))
            print(harness.write(f"suites_{part}", rows))


def rates(arguments: Any) -> list[dict[str, Any]]:
    """Steps a second of each environment, through its adapter and without."""
    from purejaxdqn.environments.importing import is_installed
    from purejaxdqn.environments.listed import suite_of

    rows = []
    for env_id, kwargs in SAMPLE.items():
        if env_id not in (arguments.only or SAMPLE):
            continue
        suite = suite_of(env_id)
        assert suite
        if not is_installed(suite):
            print(f"{env_id} is left out: {suite} is not installed", flush=True)
            continue
        steps = (SLOW_STEPS if suite in SLOW else STEPS) // (10 if arguments.quick else 1)
        task = {
            "env_id": env_id,
            "kwargs": kwargs,
            "steps": steps,
            "rounds": 1 if arguments.quick else arguments.rounds,
        }
        found = harness.answer(harness.start("benchmarks.suites", task, env={"NPROC": "1"}))
        rows.append({"environment": env_id, **found})
    return rows


def stored_rates() -> list[dict[str, Any]]:
    """The rows of ``rates`` that are in the results."""
    with (harness.RESULTS / "suites_rates.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def craftax(arguments: Any) -> list[dict[str, Any]]:
    """Steps a second of Craftax-Classic by the number of fresh worlds in a step."""
    from purejaxdqn.environments.importing import is_installed

    if not is_installed("craftax"):
        print("craftax is left out: it is not installed")
        return []
    rows: list[dict[str, Any]] = []
    for resets in RESETS[::3] if arguments.quick else RESETS:
        task = {
            "env_id": CRAFTAX,
            "kwargs": {},
            "steps": SLOW_STEPS // (10 if arguments.quick else 1),
            "rounds": 1 if arguments.quick else arguments.rounds,
            "resets": resets,
        }
        found = harness.answer(harness.start("benchmarks.suites", task, env={"NPROC": "1"}))["adapter"]
        rows.append(
            {
                "resets": resets,
                "steps a second": found,
                "ratio": found / (rows or [{"steps a second": found}])[0]["steps a second"],
            }
        )
    return rows


def work(task: Mapping[str, Any]) -> None:
    """The worker: print the rate of the adapter and, unless ``resets`` is given, that of the suite and their ratio."""
    import json

    from purejaxdqn import configure_cpu

    configure_cpu()
    import jax

    from purejaxdqn.environments.registry import make_environment

    resets = task.get("resets", "all")
    env = make_environment(task["env_id"], task["kwargs"], resets=None if resets == "all" else resets)
    programs = {"adapter": scan_of_adapter(env, task["steps"])}
    if "resets" not in task:
        programs["suite"] = scan_of_suite(bare(task["env_id"], task["kwargs"]), task["steps"])
    compiled = {name: jax.jit(program).lower(jax.random.key(0)).compile() for name, program in programs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in compiled}
    for round_ in range(task["rounds"] + 1):
        for name, program in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(program(jax.random.key(round_)))
            if round_:  # the first is a rehearsal
                seconds[name].append(time.perf_counter() - start)
    print(json.dumps(summarise(seconds, task["steps"] * NUM_ENVS)))


def summarise(seconds: Mapping[str, Sequence[float]], steps: int) -> dict[str, float]:
    """The median rate of each program, and of the adapter and the suite the median ratio of a round.

    In a round the two run one after the other, so a machine that slows down for some rounds slows both.
    """
    rates = {name: steps / statistics.median(found) for name, found in seconds.items()}
    if "suite" in seconds:
        in_turn = zip(seconds["suite"], seconds["adapter"], strict=True)
        rates["ratio"] = statistics.median(suite / adapter for suite, adapter in in_turn)
    return rates


def scan_of_adapter(env: Any, steps: int) -> Callable[[Any], Any]:
    """A program key -> sums of what random actions see in a batch that resets itself."""
    import jax
    import jax.numpy as jnp

    def program(key: Any) -> Any:
        reset_key, key = jax.random.split(key)
        obs, state = env.reset(env.default_params, jax.random.split(reset_key, NUM_ENVS))

        def body(carry: tuple, key: Any) -> tuple:
            obs, state = carry
            action = jax.random.randint(key, (NUM_ENVS,), 0, env.num_actions)
            obs, state, happened = env.step(env.default_params, jax.random.split(key, NUM_ENVS), state, obs, action)
            shown = (happened.next_obs, happened.reward, happened.terminated, happened.next_legal)
            return (obs, state), sum(jnp.sum(leaf) for leaf in jax.tree.leaves(shown))

        return jax.lax.scan(body, (obs, state), jax.random.split(key, steps))[1].sum()

    return program


def scan_of_suite(own: Bare, steps: int) -> Callable[[Any], Any]:
    """The same of a suite's own functions, mapped over environments."""
    import jax
    import jax.numpy as jnp

    def program(key: Any) -> Any:
        reset_key, key = jax.random.split(key)
        state = jax.vmap(own.reset)(jax.random.split(reset_key, NUM_ENVS))

        def body(state: Any, key: Any) -> tuple:
            action = jax.random.randint(key, (NUM_ENVS,), 0, own.num_actions)
            state, shown = jax.vmap(own.step)(jax.random.split(key, NUM_ENVS), state, action)
            return state, sum(jnp.sum(leaf) for leaf in jax.tree.leaves(shown))

        return jax.lax.scan(body, state, jax.random.split(key, steps))[1].sum()

    return program


def bare(env_id: str, kwargs: Mapping[str, Any]) -> Bare:
    """A suite's own step: with its own resets where it has them (xminigrid, jumanji, pgx, craftax), else without."""
    from purejaxdqn.environments.importing import import_adapter

    suite, _, name = env_id.partition(":")
    import_adapter(suite)  # which knows how to import it
    return {"xminigrid": _xminigrid, "jumanji": _jumanji, "pgx": _pgx, "octax": _octax, "craftax": _craftax}[suite](
        name, kwargs
    )


def _xminigrid(name: str, kwargs: Mapping[str, Any]) -> Bare:
    import xminigrid
    from xminigrid.wrappers import GymAutoResetWrapper

    env, params = xminigrid.make(name, **kwargs)
    env = GymAutoResetWrapper(env)

    def step(key: Any, timestep: Any, action: Any) -> tuple:
        after = env.step(params, timestep, action)
        return after, (after.observation, after.reward, after.step_type)

    return Bare(lambda key: env.reset(params, key), step, env.num_actions(params))


def _jumanji(name: str, kwargs: Mapping[str, Any]) -> Bare:
    import jumanji
    from jumanji.wrappers import AutoResetWrapper

    env = AutoResetWrapper(jumanji.make(name, **kwargs))

    def step(key: Any, state: Any, action: Any) -> tuple:
        state, after = env.step(state, action)
        return state, (after.observation, after.reward, after.discount)

    return Bare(lambda key: env.reset(key)[0], step, int(env.action_spec.num_values))


def _pgx(name: str, kwargs: Mapping[str, Any]) -> Bare:
    import pgx
    from pgx.experimental import auto_reset

    env = pgx.make(name)
    stepping = auto_reset(env.step, env.init)

    def step(key: Any, state: Any, action: Any) -> tuple:
        state = stepping(state, action, key)
        return state, (state.observation, state.rewards, state.terminated)

    return Bare(env.init, step, env.num_actions)


def _octax(name: str, kwargs: Mapping[str, Any]) -> Bare:
    from octax.environments import create_environment

    env, _ = create_environment(name, **kwargs)

    def step(key: Any, state: Any, action: Any) -> tuple:
        state, frames, reward, terminated, truncated, _ = env.step(state, action)
        return state, (frames, reward, terminated, truncated)

    return Bare(lambda key: env.reset(key)[0], step, env.num_actions)


def _craftax(name: str, kwargs: Mapping[str, Any]) -> Bare:
    from craftax.craftax_env import make_craftax_env_from_name

    env = make_craftax_env_from_name(name, auto_reset=True)

    def step(key: Any, state: Any, action: Any) -> tuple:
        obs, state, reward, done, _ = env.step(key, state, action, env.default_params)
        return state, (obs, reward, done)

    return Bare(lambda key: env.reset(key, env.default_params)[1], step, env.num_actions)


def resets(arguments: Any) -> list[dict[str, Any]]:
    """Shares of episodes that begin in a state which another one shares."""
    from purejaxdqn.environments.importing import is_installed
    from purejaxdqn.environments.registry import make_environment

    rows = []

    def add(episodes: str, num_envs: int, length: float, fresh: int, measured: float) -> None:
        rows.append(
            {
                "episodes": episodes,
                "num_envs": num_envs,
                "mean episode length": round(length),
                "resets": fresh,
                "share measured": round(measured, 4),
                "share expected": round(expected_share(num_envs, length, fresh), 4),
            }
        )

    for num_envs, length, fresh in SHARED:
        steps = 200 if arguments.quick else 50_000
        measured, _ = shared_starts(coin(length, fresh), num_envs, steps=steps)
        add("independent", num_envs, length, fresh, measured)
    if not is_installed("craftax"):
        print("craftax is left out: it is not installed")
    elif not arguments.quick:
        measured, length = shared_starts(make_environment(CRAFTAX, resets=4), 256, steps=1_000)
        add("Craftax-Classic, random actions", 256, length, 4, measured)
    return rows


def coin(length: float, fresh: int) -> Any:
    """An environment whose episodes end with probability 1 / length in a step; its state is a random number."""
    import jax
    import jax.numpy as jnp

    from purejaxdqn.environments.batched import Single, batched

    def begin(key: Any, params: Any) -> tuple:
        number = jax.random.bits(key, (1,), jnp.uint32)
        return number, number

    def step(key: Any, state: Any, action: Any, params: Any) -> tuple:
        return state, state, jnp.float32(0), jax.random.uniform(key) < 1 / length, jnp.bool_(False)

    return batched(Single("coin", 1, begin, step), resets=fresh)


def shared_starts(env: Any, num_envs: int, *, steps: int) -> tuple[float, float]:
    """Play random actions.

    Returns:
      The share of the episodes that begin in the state in which another one begins in the same step, and the mean
      number of steps between two beginnings.
    """
    import jax
    import jax.numpy as jnp

    from purejaxdqn.core.keys import data_of_keys

    def sums(state: Any) -> Any:
        """A number for each environment that hardly two different states have in common [E] uint32."""
        total = jnp.zeros(num_envs, jnp.uint32)
        for place, leaf in enumerate(jax.tree.leaves(data_of_keys(state))):
            bits = leaf.astype(jnp.float32) if leaf.dtype == bool else leaf
            bits = jax.lax.bitcast_convert_type(bits, jnp.uint32) if bits.dtype == jnp.float32 else bits
            bits = bits.reshape(num_envs, -1).astype(jnp.uint32)
            factors = jax.random.bits(jax.random.key(place), bits.shape[1:], jnp.uint32)
            total += jnp.sum(bits * factors, axis=1, dtype=jnp.uint32)
        return total

    @jax.jit
    def play(key: Any) -> Any:
        first = env.reset(env.default_params, jax.random.split(key, num_envs))

        def body(carry: tuple, key: Any) -> tuple:
            obs, state = carry
            choice, chance = jax.random.split(key)
            action = jax.random.randint(choice, (num_envs,), 0, env.num_actions)
            keys = jax.random.split(chance, num_envs)
            obs, state, happened = env.step(env.default_params, keys, state, obs, action)
            return (obs, state), (happened.terminated | happened.truncated, sums(state))

        return jax.lax.scan(body, first, jax.random.split(key, steps))[1]

    ended, began = jax.device_get(play(jax.random.key(0)))
    shared = 0
    for row, numbers in zip(ended, began, strict=True):
        _, counts = np.unique(numbers[row], return_counts=True)
        shared += int(counts[counts > 1].sum())
    return shared / int(ended.sum()), ended.size / int(ended.sum())


def expected_share(num_envs: int, length: float, fresh: int) -> float:
    """The same by the binomial distribution of the number of episodes that end in a step."""
    from scipy.stats import binom

    ending = np.arange(num_envs + 1)
    each, more = np.divmod(ending, fresh)  # fresh states with one episode more than the others
    shared = np.where(each >= 2, ending, np.where(each == 1, 2 * more, 0))
    chance = binom.pmf(ending, num_envs, 1 / length)
    return float((chance * shared).sum() / (chance * ending).sum())


_PARTS: Mapping[str, Callable[[Any], list[dict[str, Any]]]] = {"rates": rates, "craftax": craftax, "resets": resets}


if __name__ == "__main__":
    main()
