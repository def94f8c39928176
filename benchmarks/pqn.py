"""How fast is a PQN run, compared with other implementations of the same agent?

Two settings of its paper (Gallici et al. 2024): CartPole with 32 environments and MinAtar Breakout with 128; see
`baselines/setting.py`. Each contender runs in a separate process, in interleaved rounds:

- rejax: its PQN, configured to do the same work, with vmapped seeds (`baselines/rejax_pqn.py`);
- one scan: a PQN in plain JAX, written like public implementations, with vmapped seeds (`baselines/scan_pqn.py`);
- purejaxdqn: this project as its command runs it, including evaluation, which the others do not do;
- products alone: no agent, only the matrix products of a rollout and its gradient steps, in float32, in the
  layout that is fastest here (`pqn_products.py`).

The other two count a time limit as a termination, as public implementations do, and the plain scan therefore makes its
targets from the Q-values of acting. Ours needs the values of true final observations, and computes those of all next
observations in another forward pass; rejax does so, too, in every environment step. Rates do not include compilation.
With one seed the products use all cores or one, whichever is faster; with eight, one process on every core. rejax runs
in a separate virtual environment, which the script creates on first use.

    python -m benchmarks.pqn            both tables, about 20 minutes on two cores
    python -m benchmarks.pqn --parts    only the second: the time that is not spent on products, one seed
    python -m benchmarks.pqn --quick    under a minute: short runs of one seed, one round, CartPole, no parts
    python -m benchmarks.pqn --check    do the contenders learn? trains for longer, shows the last returns
"""

import json
from typing import Any

from benchmarks import contenders, harness
from benchmarks.baselines.setting import ROLLOUT_SETTINGS
from benchmarks.contenders import OURS, PRODUCTS, Contender, in_turn, measure_train, rows_of
from benchmarks.pqn_parts import CONFIGS, overrides_of

SEEDS = (1, 8)
REJAX, SCAN = "rejax", "one scan"
CONTENDERS = {
    "CartPole": {
        REJAX: Contender(40, {1: 1.6, 8: 3.0}, venv="rejax"),
        SCAN: Contender(60, {1: 1.6, 8: 3.0}),
        OURS: Contender(120),
        PRODUCTS: Contender(20, {1: 0.7}, loop=True),
    },
    "Breakout": {
        REJAX: Contender(12, {1: 5.0, 8: 3.0}, venv="rejax"),
        SCAN: Contender(12, {1: 5.0, 8: 3.0}),
        OURS: Contender(60),
        PRODUCTS: Contender(20, {1: 0.7}, loop=True),
    },
}
"""By setting; ``steps`` are rollouts here."""
CHECKED = {"CartPole": 150, "Breakout": 80}
"""Rollouts after which each contender has learned something: 300,000 steps."""


def main() -> None:
    parser = harness.parser(__doc__, quick="CartPole, short runs of one seed, one round", rounds=5)
    parser.add_argument("--parts", action="store_true", help="only the table of parts")
    parser.add_argument(
        "--check", action="store_true", help="train each contender for longer and print its last returns"
    )
    parser.add_argument("--setting", choices=ROLLOUT_SETTINGS, nargs="+", default=list(ROLLOUT_SETTINGS))
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(**arguments.worker)))
        return
    rounds = 1 if arguments.quick else arguments.rounds
    settings = arguments.setting[:1] if arguments.quick else arguments.setting
    if arguments.check:
        print(harness.table([row for setting in settings for row in check(setting)]))
        return
    print(f"{harness.machine()}; medians of {rounds} interleaved rounds\n")
    if not arguments.parts:
        counts = SEEDS[:1] if arguments.quick else SEEDS
        rows = [row for one in settings for n in counts for row in compare(one, n, rounds, quick=arguments.quick)]
        show("pqn", rows, kept=not arguments.quick)
    if arguments.parts or not arguments.quick:
        show("pqn_parts", [row for one in settings for row in parts(one, rounds)], kept=not arguments.quick)


def compare(setting: str, seeds: int, rounds: int, *, quick: bool) -> list[dict[str, Any]]:
    """Run all contenders in turn; return one row per contender."""
    all_of_them = CONTENDERS[setting]

    def measure_one(name: str) -> dict[str, Any]:
        fewer = (4 if quick else 1) * (2 if seeds > 1 and not all_of_them[name].loop else 1)
        return run(setting, name, seeds, max(2, all_of_them[name].steps // fewer))

    rows = rows_of(in_turn(list(all_of_them), measure_one, rounds), all_of_them, seeds, target="target")
    return [{"setting": setting, **row} for row in rows]


def run(setting: str, name: str, seeds: int, rollouts: int, *, check: bool = False) -> dict[str, Any]:
    """Run one contender; its reply has its last returns if it is a ``check``."""
    task = {"setting": setting, "name": name, "rollouts": rollouts, "check": check}
    threads: list[dict[str, str]] = [{}]
    if name == PRODUCTS:
        threads = [{"NPROC": "1"}, {}] if seeds == 1 else [{"NPROC": "1"}]
    contender = CONTENDERS[setting][name]
    replies = [contenders.run(__spec__.name, contender, task, seeds=seeds, env=env) for env in threads]
    return max(replies, key=lambda reply: reply["rate"])


def check(setting: str) -> list[dict[str, Any]]:
    """Train each agent with one seed for longer; return its last returns."""
    agents = [name for name in CONTENDERS[setting] if name != PRODUCTS]
    replies = {name: run(setting, name, 1, CHECKED[setting], check=True) for name in agents}
    return [
        {"setting": setting, "contender": name, "last returns": reply["last_return"]} for name, reply in replies.items()
    ]


def parts(setting: str, rounds: int) -> list[dict[str, Any]]:
    """Return the table of parts of one setting, by the threads that the command takes."""
    task = {"setting": setting, "name": "parts", "rollouts": rounds}
    return list(harness.answer(harness.start(__spec__.name, task))["rows"])


def show(name: str, rows: list[dict[str, Any]], *, kept: bool) -> None:
    """Print a table, and write it if it is ``kept``."""
    print(harness.table(rows), "", sep="\n", flush=True)
    if kept:
        print(harness.write(name, rows), "", sep="\n", flush=True)


def measure(
    *, setting: str, name: str, rollouts: int, seeds: int = 1, seed: int = 0, check: bool = False
) -> dict[str, Any]:
    """Measure a contender's rate over all seeds of this process, without compilation; or return the table of parts.

    Args:
      setting: of ``ROLLOUT_SETTINGS``.
      name: the contender, or "parts".
      rollouts: of each seed; of the parts, the rounds.
      seeds: trained in this process.
      seed: unused; workers of what runs seeds as processes get their number.
      check: whether rejax evaluates at the end, which takes time.
    """
    chosen = ROLLOUT_SETTINGS[setting]
    total_timesteps = rollouts * chosen.rollout
    match name:
        case contenders.OURS:
            from benchmarks.throughput import ours

            overrides = [*overrides_of(chosen), f"num_seeds={seeds}", f"total_timesteps={total_timesteps}"]
            return ours(configs=CONFIGS, overrides=overrides, cached=False)
        case "one scan":
            from benchmarks.baselines.scan_pqn import make_train

            train = make_train(chosen, total_timesteps)
            return measure_train(total_timesteps, seeds, lambda key: train(key)[1])
        case "rejax":
            from benchmarks.baselines.rejax_pqn import make_algorithm

            algorithm = make_algorithm(chosen, total_timesteps, evaluates=check)
            if check:
                return measure_train(total_timesteps, seeds, lambda key: algorithm.train(key)[1])
            return measure_train(total_timesteps, seeds, lambda key: algorithm.train(key)[0].q_ts.params)
        case contenders.PRODUCTS:
            from benchmarks.pqn_products import fastest_products

            seconds = fastest_products(chosen, rollouts)
            return {"rate": chosen.rollout / seconds, "compile_seconds": 0.0, "last_return": None}
        case _:
            from benchmarks.pqn_parts import measure_parts

            return {"rows": [{"setting": setting, **row} for row in measure_parts(chosen, rounds=rollouts)]}


if __name__ == "__main__":
    main()
