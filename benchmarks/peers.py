"""How fast is a run, compared with other implementations of the same agent?

CartPole with CleanRL's hyperparameters (but a warm-up of only 1,000 steps, so that slow contenders need not run
long). Each contender runs in a separate process, in interleaved rounds:

- PyTorch: a plain DQN in a Python loop over Gymnasium's vectorised environments (`baselines/torch_dqn.py`);
- Stable-Baselines3: its DQN, configured to do the same work (`baselines/sb3_dqn.py`);
- JAX loop: the same Python loop with a jitted update (`baselines/jax_dqn.py`);
- rejax: its DQN, configured to do the same work, with vmapped seeds (`baselines/rejax_dqn.py`);
- scan and cond: a typical pure-JAX DQN, with vmapped seeds and XLA's default threads (`baselines/scan_dqn.py`);
- purejaxdqn: this project as its command runs it, including evaluation, which the others do not do;
- products alone: no agent, only the matrix products of an update in float32, for every ten steps. No agent that
  computes these products on these cores can be faster (`limit.py` has them by size).

Rates do not include compilation. With eight seeds, a Python loop runs one process with one thread on every core, and
its rate is the sum over processes; the same holds for the products. PyTorch with Stable-Baselines3, and rejax, run in
virtual environments of their own, which the script creates on first use. `solved.py` measures the time to a solved
agent.

    python -m benchmarks.peers            about 10 minutes on two cores
    python -m benchmarks.peers --quick    under a minute: short runs of one seed, one round
    python -m benchmarks.peers --check    do the contenders learn? trains for 200,000 steps, shows the last returns
"""

import json
import statistics
import time
from typing import Any

from benchmarks import contenders, harness
from benchmarks.baselines.setting import Setting
from benchmarks.contenders import OURS, PRODUCTS, Contender, in_turn, measure_train, rows_of

SEEDS = (1, 8)
WARMUP = 1_000


CONTENDERS = {
    "PyTorch": Contender(31_000, {1: 7.0, 8: 7.0}, loop=True, venv="torch"),
    "Stable-Baselines3": Contender(21_000, {1: 15.0, 8: 15.0}, loop=True, venv="torch"),
    "JAX loop": Contender(31_000, loop=True),
    "rejax": Contender(51_000, venv="rejax"),
    "scan and cond": Contender(101_000, {1: 1.8, 8: 3.0}),
    OURS: Contender(251_000),
    PRODUCTS: Contender(251_000, loop=True),
}


def main() -> None:
    parser = harness.parser(__doc__, quick="short runs, one round", rounds=5)
    parser.add_argument(
        "--check", action="store_true", help="train each contender for longer and print its last returns"
    )
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(**arguments.worker)))
        return
    if arguments.check:
        agents = [name for name in CONTENDERS if name != PRODUCTS]
        rows = [{"contender": name, "last returns": run(name, 1, 200_000)["last_return"]} for name in agents]
        print(harness.table(rows))
        return
    rounds, counts = (1, SEEDS[:1]) if arguments.quick else (arguments.rounds, SEEDS)
    rows = [row for seeds in counts for row in compare(seeds, rounds, shorter=4 if arguments.quick else 1)]
    print(f"{harness.machine()}; medians of {rounds} interleaved rounds\n")
    print(harness.table(rows))
    if not arguments.quick:
        print(harness.write("peers", rows))


def compare(seeds: int, rounds: int, *, shorter: int) -> list[dict[str, Any]]:
    """Run all contenders in turn; return one row per contender."""

    def measure_one(name: str) -> dict[str, Any]:
        fewer = shorter * (2 if seeds > 1 and not CONTENDERS[name].loop else 1)
        return run(name, seeds, WARMUP + (CONTENDERS[name].steps - WARMUP) // fewer // 500 * 500)

    return rows_of(in_turn(list(CONTENDERS), measure_one, rounds), CONTENDERS, seeds, target="target")


def run(name: str, seeds: int, steps: int) -> dict[str, Any]:
    """Run one contender."""
    env = {"NPROC": "1"} if name in ("JAX loop", PRODUCTS) else {}
    return contenders.run(__spec__.name, CONTENDERS[name], {"name": name, "steps": steps}, seeds=seeds, env=env)


def measure(*, name: str, seeds: int, steps: int, seed: int) -> dict[str, Any]:
    """Measure the rate over all seeds of this process, with the warm-up and without compilation."""
    setting = Setting(total_timesteps=steps, warmup=WARMUP)
    match name:
        case contenders.OURS:
            from benchmarks.throughput import ours

            overrides = [f"num_seeds={seeds}", f"total_timesteps={steps}", f"schedule.warmup={WARMUP}"]
            return ours(overrides=overrides, cached=False)
        case "scan and cond":
            from benchmarks.baselines.scan_dqn import make_train

            train = make_train(setting)
            return measure_train(steps, seeds, lambda key: train(key)[1])
        case "rejax":
            from benchmarks.baselines.rejax_dqn import make_algorithm

            algorithm = make_algorithm(setting)
            return measure_train(steps, seeds, lambda key: algorithm.train(key)[0].q_ts.params)
        case "Stable-Baselines3":
            from benchmarks.baselines.sb3_dqn import run

            return report(setting, run(setting, seed), 0.0)
        case contenders.PRODUCTS:
            from benchmarks.limit import UPDATES_A_CALL, xla_products

            products = xla_products(1)
            seconds = statistics.median(products() for _ in range(steps // setting.train_every // UPDATES_A_CALL))
            return {"rate": setting.train_every / seconds, "compile_seconds": 0.0, "last_return": None}
        case _:
            return measure_loop(name, setting, seed)


def measure_loop(name: str, setting: Setting, seed: int) -> dict[str, Any]:
    """Measure a Python loop; functions that compile are called once before."""
    import numpy as np

    from benchmarks.baselines import python_loop

    agent: python_loop.Agent
    if name == "PyTorch":
        from benchmarks.baselines.torch_dqn import TorchAgent

        agent = TorchAgent(setting, seed)
    else:
        from benchmarks.baselines.jax_dqn import JaxAgent

        agent = JaxAgent(setting, seed)
    before = time.perf_counter()
    obs, ones = np.zeros((setting.batch_size, 4), np.float32), np.zeros(setting.batch_size, np.float32)
    agent.act(obs[: setting.num_envs])
    agent.learn(python_loop.Batch(obs, ones.astype(np.int64), ones, obs, ones))
    return report(setting, python_loop.run(agent, setting, seed), time.perf_counter() - before)


def report(setting: Setting, loop: Any, seconds: float) -> dict[str, Any]:
    """Return the results of a Python loop; ``seconds`` include compilation, ``loop.seconds`` do not."""
    last = loop.returns[-max(1, len(loop.returns) // 20) :]
    return {
        "rate": setting.total_timesteps / loop.seconds,
        "compile_seconds": max(0.0, seconds - loop.seconds),
        "last_return": [round(statistics.mean(last), 1)],
    }


if __name__ == "__main__":
    main()
