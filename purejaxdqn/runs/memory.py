"""The memory that runs need, counted from shapes before anything is compiled or written."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxdqn.config.building import make_program
from purejaxdqn.core.config import Config
from purejaxdqn.core.draws import NO_LEARNING, LearnDraws, draw
from purejaxdqn.core.loop import Program
from purejaxdqn.core.plan import batch_size_of, make_plan
from purejaxdqn.core.types import RunnerState
from purejaxdqn.environments.registry import INPUTS
from purejaxdqn.runs.training import shapes_of_run
from purejaxdqn.system.collector import collector_paused
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.liveness import most_alive
from purejaxdqn.system.runtime import convolutions_of

_SMALL = 2**29
"""Bytes that JAX and its compiler take themselves. Runs that need fewer are not compared with the free memory."""
_ROW_BYTES, _RUN_BYTES = 60, 200
"""Bytes on the host of the metrics of one run and one epoch, and of the rest of a run, at least."""


class Needs(NamedTuple):
    """Bytes that one run needs."""

    state: float  # replay, parameters, optimiser, environments: what lives as long as the run
    working: float  # beside it, at least, in the part of a run that needs most
    part: str = "period"  # that part: "warm-up", "period", "evaluation" or "update"


def memory_needs(config: Config) -> Needs:
    """The needs of one run, whose parts need random draws and a rollout, or environments; compiles nothing."""
    return _memory_needs(config, make_program(config))[0]


def _memory_needs(config: Config, program: Program) -> tuple[Needs, dict[str, float], RunnerState]:
    """The needs of one run, those of its parts, and its state as shapes."""
    with collector_paused():
        state = jax.eval_shape(program.init, config.hparams(), jax.random.key(0))
    plan, env = program.plan, program.env
    rollout = 2 * plan.rollout * plan.num_envs * math.prod(env.obs_shape) * np.dtype(env.obs_dtype).itemsize
    one_env = _bytes((state.actors.env_state, state.actors.obs)) // plan.num_envs
    parts = {
        "warm-up": _draw_bytes(program, plan.warmup, 1, NO_LEARNING),
        "period": rollout + _draw_bytes(program, plan.iterations, plan.rollout, program.algorithm.draws),
        "evaluation": one_env * max(plan.episodes, plan.final_episodes),
    }
    return _largest(_bytes(state), parts), parts, state


def batched_needs(config: Config) -> Needs:
    """The needs of one of many runs that train together on an accelerator; traces a run, and compiles nothing.

    All that a run makes beside its state, most of it in a gradient step, then exists for all runs at once. On a CPU it
    exists for one run of each device.
    """
    program = make_program(config)
    needs, parts, state = _memory_needs(config, program)
    hparams = config.hparams()
    with collector_paused():
        init = jax.make_jaxpr(program.init)(hparams, jax.random.key(0))
        epoch = jax.make_jaxpr(lambda hparams, state: program.segment(hparams, state, 1))(hparams, state)
        finish = jax.make_jaxpr(program.finish)(hparams, state)
    in_place = [False] * len(jax.tree.leaves(hparams)) + [True] * len(jax.tree.leaves(state))
    parts["warm-up"] = max(parts["warm-up"], most_alive(init.jaxpr) - needs.state)
    parts["evaluation"] = max(parts["evaluation"], most_alive(finish.jaxpr))
    of_epoch = most_alive(epoch.jaxpr, in_place)
    evaluation = parts["evaluation"] * program.plan.episodes / program.plan.final_episodes
    most_of_it = {"period": parts["period"], "evaluation": evaluation}
    part = next((name for name, count in most_of_it.items() if 2 * count > of_epoch), "update")
    parts[part] = max(parts.get(part, 0), of_epoch)
    return _largest(needs.state, parts)


def _largest(state: float, parts: dict[str, float]) -> Needs:
    part = max(parts, key=lambda one: parts[one])
    return Needs(state, parts[part], part)


def _draw_bytes(program: Program, length: int, rollout: int, learning: LearnDraws) -> int:
    draws = functools.partial(draw, length=length, rollout=rollout, num_envs=program.plan.num_envs, learning=learning)
    return _bytes(jax.eval_shape(draws, jax.random.key(0)))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def state_bytes(config: Config) -> int:
    """Bytes of the state of one run; compiles nothing."""
    return _bytes(shapes_of_run(config))


def check_memory(config: Config, *, seeds_at_once: int | None = None) -> None:
    """Refuse a run whose seeds together cannot fit in this machine's memory; small runs are not checked.

    Args:
      config: of the run.
      seeds_at_once: seeds batched on a device; by default 1 on a CPU, and all of them on an accelerator.

    Raises:
      UserError: says how much memory is needed.
    """
    generous = _generous_bytes(config)
    if generous < _SMALL:
        return
    devices = jax.local_devices()[: config.num_seeds]
    free = free_memory(devices, share=1.0)
    if generous < free / 8:
        return  # counting takes a few tenths of a second, which most runs need not wait
    places = -(-config.num_seeds // len(devices)) * len(devices)
    on_cpu = devices[0].platform == "cpu"
    batch = seeds_at_once or (1 if on_cpu else places)
    needs = memory_needs(config) if on_cpu and batch == 1 else batched_needs(config)
    at_once = min(places, batch * len(devices))
    needed = places * needs.state + at_once * needs.working
    if needed > free:
        seeds = "1 seed needs" if config.num_seeds == 1 else f"{config.num_seeds} seeds need"
        how = advice(config, needs, seeds=config.num_seeds, at_once=at_once)
        if at_once > len(devices) and places * needs.state + len(devices) * needs.working <= free:
            how = f"train fewer at once (--seeds-at-once), or {how}"
        raise UserError(f"{seeds} about {in_bytes(needed)} of memory, and {in_bytes(free)} are free; {how}")


def _generous_bytes(config: Config) -> float:
    """An upper bound of the bytes that all seeds of a run need, from its config; infinite if there is none."""
    if config.env.kwargs or config.env.id not in INPUTS:
        return math.inf
    inputs, plan = INPUTS[config.env.id] * config.env.frame_stack, make_plan(config)
    replay, network = config.replay, config.network
    kept = (replay.size or 0) + plan.num_envs * (plan.warmup + plan.iterations * plan.rollout)
    steps = kept + plan.episodes + plan.final_episodes
    updates = plan.iterations * (config.schedule.gradient_steps or config.rollout.epochs) * batch_size_of(config)
    layers = convolutions_of(config)
    features = layers[-1].outputs if layers else inputs
    widths = (1024, *network.hidden, 4 * network.memory_size, 20 * config.distribution.atoms)
    weights = (features + sum(widths)) * max(widths) + sum(layer.products for layer in layers)
    carried = network.memory_size if network.memory != "none" else 0
    learners = config.num_seeds * config.ensemble.members
    return learners * (16.0 * steps * (inputs + carried + 64) + 64.0 * updates + 64.0 * weights)


def advice(config: Config, needs: Needs, *, seeds: int = 1, at_once: int = 1) -> str:
    """Which keys of this config make the larger of its needs smaller; see ``check_memory`` for the numbers of seeds."""
    if seeds * needs.state > at_once * needs.working:
        return _smaller_state(config, seeds=seeds)
    return f"make {_listed([*(['num_seeds'] if at_once > 1 else []), *_keys_of(needs.part, config)])} smaller"


def _keys_of(part: str, config: Config) -> list[str]:
    """The keys that make the needs of a part of a run smaller."""
    if part == "warm-up":
        return ["schedule.warmup"] if config.schedule.warmup else ["env.num_envs"]
    if part == "evaluation":
        return ["evaluation.episodes", "evaluation.final_episodes"]
    period = ["schedule.target_every"] if config.schedule.target_every else []
    if part == "period":
        if config.replay.kind != "none":
            return ["the intervals of schedule"]
        return ["env.num_envs", "rollout.steps", "rollout.epochs", *period]
    batch = ["replay.batch_size"] if config.replay.kind != "none" else ["env.num_envs", "rollout.steps"]
    members = ["ensemble.members"] if config.ensemble.members > 1 else []
    atoms = ["distribution.atoms"] if config.distribution.kind != "scalar" else []
    return [*batch, "network.hidden", *members, *atoms]


def _smaller_state(config: Config, *, seeds: int = 1) -> str:
    """Which keys of this config make the state of its runs smaller."""
    largest = ["replay.size"] if config.replay.kind != "none" else ["env.num_envs", "network.hidden"]
    return f"make {_listed([*(['num_seeds'] if seeds > 1 else []), *largest])} smaller"


def _listed(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def check_results(runs: int, epochs: int, *, option: str) -> None:
    """Refuse so many runs that their results cannot fit in this machine's memory, before the runs are listed.

    Raises:
      UserError: names ``option``.
    """
    needed, free = runs * (_RUN_BYTES + epochs * _ROW_BYTES), available_memory()
    if needed > free:
        results = f"the results of {runs} runs need about {in_bytes(needed)} of memory"
        raise UserError(f"{option}: {results}, and {in_bytes(free)} are free")


def in_bytes(count: float) -> str:
    """A number of bytes in words: ``81 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            break
        count /= 1000
    else:
        unit = "TB"
    return f"{count:.3g} {unit}"


def free_memory(devices: Sequence[jax.Device], *, share: float = 0.8) -> int:
    """Bytes that a program may use: a share of the free memory of the devices together."""
    if devices[0].platform != "cpu":
        return sum(int(share * _device_limit(device)) for device in devices)
    return int(share * available_memory())


def available_memory() -> int:
    """Bytes of this machine's memory that are free, or can be made so."""
    import psutil  # late: importing it takes longer than a small run's start may

    return psutil.virtual_memory().available


def _device_limit(device: Any) -> int:
    statistics = device.memory_stats() or {}
    return statistics.get("bytes_limit", 2**33) - statistics.get("bytes_in_use", 0)
