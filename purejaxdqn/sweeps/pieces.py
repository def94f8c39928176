"""How work is divided: points into groups that share a program, and their runs into pieces that fit in memory."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxdqn.core.config import Config
from purejaxdqn.runs.memory import Needs, advice, batched_needs, free_memory, in_bytes, memory_needs
from purejaxdqn.runs.training import Population
from purejaxdqn.sweeps.points import Point
from purejaxdqn.system.faults import UserError
from purejaxdqn.system.messages import counted

PIECES = 16
"""Pieces into which a large group is cut on a CPU; a kill loses one of them."""
MOST_RUNS = 1024
"""Most runs at once on an accelerator; more are hardly faster, and a kill would lose more."""
STATE = 1.6
"""Memory of the state of a run that an accelerator trains with others, relative to its bytes: arrays are padded."""
WORKING = {"gpu": 2.2, "tpu": 5.2}
"""The same of its working memory (``batched_needs``). A TPU pads most of all the sequences of agents that remember.

With both, no row of eight or more seeds that ``benchmarks/accelerators.py`` has counted takes more memory.
"""


class Run(NamedTuple):
    """One run of a sweep."""

    point: int
    seed_index: int


class Group(NamedTuple):
    """Runs that share a program."""

    config: Config  # of the first point
    runs: tuple[Run, ...]  # point by point
    needs: Needs  # of one run; on an accelerator those of ``batched_needs``


class Work(NamedTuple):
    """Runs to train, and how they are divided."""

    groups: list[Group]
    sizes: list[int]  # runs in a piece, for each group
    devices: tuple[jax.Device, ...]

    @property
    def runs(self) -> int:
        """The number of runs."""
        return sum(len(group.runs) for group in self.groups)

    @property
    def env_steps(self) -> int:
        """Environment steps of all runs."""
        return sum(len(group.runs) * group.config.total_timesteps for group in self.groups)

    def in_words(self, about_runs: str) -> str:
        """One line with programs, runs, steps, memory and devices.

        Args:
          about_runs: says in parentheses what the runs are.
        """
        needed = [bytes_at_once(group, size, self.devices) for group, size in zip(self.groups, self.sizes, strict=True)]
        at_once = max(needed, default=0)
        return (
            f"{counted(len(self.groups), 'program')}, {counted(self.runs, 'run')} ({about_runs}), "
            f"{self.env_steps:,} environment steps, about {in_bytes(at_once)} at once "
            f"on {counted(len(self.devices), f'{self.devices[0].platform} device')}"
        )


def plan_work(
    points: Sequence[Point],
    runs: Iterable[Run],
    *,
    devices: int | None = None,
    memory: int | None = None,
    size: int | None = None,
    known: dict[Any, Needs] | None = None,
) -> Work:
    """Group runs and cut the groups into pieces; compiles nothing.

    Args:
      points: all points.
      runs: the runs to train.
      devices: number of this process's devices to use; by default all.
      memory: see ``piece_size``.
      size: runs in a piece, where it must not depend on the number of runs; it is smaller only if memory requires it.
      known: the needs that earlier calls have counted, by the static part of the config; new ones are added.

    Raises:
      UserError: not even one run fits in memory.
    """
    used = tuple(jax.local_devices()[:devices])
    groups = group_runs(points, runs, used[0].platform, known)
    if size is None:
        sizes = [piece_size(group, used, memory) for group in groups]
    else:  # an even part of it, so that a little more or less free memory mostly gives the same one
        sizes = [_even(size, min(size, most_at_once(group, used, memory)), len(used)) for group in groups]
    return Work(groups, sizes, used)


def all_runs(points: Sequence[Point], num_seeds: int) -> list[Run]:
    """Every run of all points, point by point."""
    return [Run(point, seed_index) for point in range(len(points)) for seed_index in range(num_seeds)]


def group_runs(
    points: Sequence[Point], runs: Iterable[Run], platform: str = "cpu", known: dict[Any, Needs] | None = None
) -> list[Group]:
    """Group the runs whose points differ in traced numbers only; the order is that of ``runs``. See ``plan_work``."""
    static_part = functools.cache(lambda point: points[point].config.static())
    groups: dict[Config, list[Run]] = {}
    for run in runs:
        groups.setdefault(static_part(run.point), []).append(run)
    known = {} if known is None else known
    count = memory_needs if platform == "cpu" else batched_needs
    found = []
    for static, members in groups.items():
        config = points[members[0].point].config
        if static not in known:  # counting traces a run
            known[static] = count(config)
        found.append(Group(config, tuple(members), known[static]))
    return found


def piece_size(group: Group, devices: Sequence[jax.Device], memory: int | None = None) -> int:
    """Runs in each of the pieces of a group.

    Args:
      group: the runs to train.
      devices: over which a piece is spread.
      memory: bytes that all devices together may use; by default what the machine has.

    Raises:
      UserError: not even one run fits.
    """
    most = most_at_once(group, devices, memory)
    runs = len(group.runs)
    wanted = -(-runs // PIECES) if devices[0].platform == "cpu" else MOST_RUNS * len(devices)
    return _even(runs, min(most, max(wanted, len(devices))), len(devices))


def most_at_once(group: Group, devices: Sequence[jax.Device], memory: int | None = None) -> int:
    """The number of runs that fit in memory; see ``piece_size``."""
    free, one = free_memory(devices) if memory is None else memory, bytes_at_once(group, 1, devices)
    most = free // one
    if devices[0].platform != "cpu":  # each device has its own memory, of which --memory may ask for more than is usual
        of_one = min(free_memory([device]) for device in devices)
        most = min(most, max(of_one, free / len(devices)) // one * len(devices))
    elif most >= len(devices):
        most = len(devices) + (free - bytes_at_once(group, len(devices), devices)) // group.needs.state
    if most < 1:
        raise UserError(
            f"--memory: one run needs about {in_bytes(one)}; {advice(group.config, _scaled(group, devices))}"
        )
    return int(most)


def bytes_at_once(group: Group, size: int, devices: Sequence[jax.Device]) -> float:
    """The memory that a piece of ``size`` runs takes.

    On a CPU the devices share the memory, and each works on a copy of one run's state. On accelerators the runs are
    batched: the draws, rollouts and intermediate results of all of them exist at once.
    """
    state, working, _ = _scaled(group, devices)
    if devices[0].platform == "cpu":
        return size * state + min(size, len(devices)) * (state + working)
    return size * (state + working)


def _scaled(group: Group, devices: Sequence[jax.Device]) -> Needs:
    """The needs of a run as the compiler of these devices is expected to fill them."""
    platform, needs = devices[0].platform, group.needs
    if platform == "cpu":
        return needs
    factor = WORKING.get(platform, max(WORKING.values()))
    return needs._replace(state=STATE * needs.state, working=factor * needs.working)


def _even(runs: int, most: int, devices: int) -> int:
    """A size of at most ``most`` that leaves few places empty in the last piece."""
    if runs <= most and runs <= devices:
        return runs
    sizes = [size for size in range(1, most + 1) if size % devices == 0] or [most]
    large = [size for size in sizes if 2 * size >= sizes[-1]]
    return min(large, key=lambda size: (-(-runs // size) * size, -size))


def cut(runs: Sequence[Run], size: int) -> list[tuple[Run, ...]]:
    """Pieces of ``size`` runs; the last may have fewer."""
    return [tuple(runs[first : first + size]) for first in range(0, len(runs), size)]


def pad(runs: Sequence[Run], size: int) -> list[Run]:
    """``size`` places: the runs, then the last run again."""
    return [*runs, *[runs[-1]] * (size - len(runs))]


def population_of(points: Sequence[Point], runs: Sequence[Run]) -> Population:
    """The runs as a program takes them."""
    configs = [points[run.point].config for run in runs]
    hparams = jax.tree.map(lambda *leaves: np.stack(leaves), *(config.hparams() for config in configs))
    seeds = np.array([config.seed for config in configs], np.uint32)
    return Population(hparams, seeds, np.array([run.seed_index for run in runs], np.uint32))
