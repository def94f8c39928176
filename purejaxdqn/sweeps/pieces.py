"""The order of work of a sweep: points in groups that share a program, runs in pieces that fit in memory."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import psutil

from purejaxdqn.core.config import Config
from purejaxdqn.runs.training import Population, shapes_of_run
from purejaxdqn.sweeps.points import Point
from purejaxdqn.system.faults import UserError

PIECES = 16
"""Pieces that a group is cut into on a CPU where it is large enough: what a kill can lose is one of them."""
MOST_RUNS = 1024
"""Runs that an accelerator takes at once; more are hardly faster, and a kill would lose more."""
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class Run(NamedTuple):
    """One run of a sweep."""

    point: int
    seed_index: int


class Group(NamedTuple):
    """Runs of one program."""

    config: Config  # of its first point
    runs: tuple[Run, ...]  # point by point
    run_bytes: int  # the state of one run


class Work(NamedTuple):
    """What there is to do."""

    groups: list[Group]
    sizes: list[int]  # runs in a piece of each group
    devices: tuple[jax.Device, ...]

    @property
    def runs(self) -> int:
        """All runs."""
        return sum(len(group.runs) for group in self.groups)

    @property
    def env_steps(self) -> int:
        """Environment steps of all runs."""
        return sum(len(group.runs) * group.config.total_timesteps for group in self.groups)

    def in_words(self, about_runs: str) -> str:
        """One line: programs, runs, steps, memory, devices."""
        at_once = max((size * group.run_bytes for size, group in zip(self.sizes, self.groups, strict=True)), default=0)
        return (
            f"{_count(len(self.groups), 'program')}, {self.runs} runs ({about_runs}), "
            f"{self.env_steps:,} environment steps, about {in_bytes(at_once)} at once "
            f"on {_count(len(self.devices), f'{self.devices[0].platform} device')}"
        )


def plan_work(
    points: Sequence[Point],
    runs: Iterable[Run],
    *,
    devices: int | None = None,
    memory: int | None = None,
    together: tuple[int, int] | None = None,
) -> Work:
    """Group runs and cut the groups into pieces; nothing is compiled.

    Args:
      points: all points.
      runs: those to do.
      devices: how many of this process's to use; all unless given.
      memory: see ``piece_size``.
      together: runs in a piece on a CPU and on an accelerator, whatever there is to do, where that must stay the same
        from one work to the next; rounded up to fill the devices, and less where memory asks for it.
    """
    groups = group_runs(points, runs)
    used = tuple(jax.local_devices()[:devices])
    if together is None:
        return Work(groups, [piece_size(group, used, memory) for group in groups], used)
    wanted = together[0 if used[0].platform == "cpu" else 1]
    wanted = -(-wanted // len(used)) * len(used)
    return Work(groups, [min(wanted, most_at_once(group.run_bytes, used, memory)) for group in groups], used)


def group_runs(points: Sequence[Point], runs: Iterable[Run]) -> list[Group]:
    """Runs whose points differ in traced numbers only, together; in the order in which they come."""
    groups: dict[Config, list[Run]] = {}
    for run in runs:
        groups.setdefault(points[run.point].config.static(), []).append(run)
    configs = [points[members[0].point].config for members in groups.values()]
    return [
        Group(config, tuple(members), state_bytes(config))
        for config, members in zip(configs, groups.values(), strict=True)
    ]


def state_bytes(config: Config) -> int:
    """Bytes of the state of one run: buffer, parameters, optimiser, environments. Nothing is compiled."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes_of_run(config)))


def piece_size(group: Group, devices: Sequence[jax.Device], memory: int | None = None) -> int:
    """Runs in each of the equal pieces of a group.

    Args:
      group: the runs that are left to do.
      devices: those a piece is laid over.
      memory: bytes that all devices together may use; what the machine has unless given.

    Raises:
      UserError: not even one run fits.
    """
    most = most_at_once(group.run_bytes, devices, memory)
    runs = len(group.runs)
    wanted = -(-runs // PIECES) if devices[0].platform == "cpu" else MOST_RUNS * len(devices)
    return _even(runs, min(most, max(wanted, len(devices))), len(devices))


def most_at_once(run_bytes: int, devices: Sequence[jax.Device], memory: int | None = None) -> int:
    """How many runs fit in memory; see ``piece_size``."""
    cpu = devices[0].platform == "cpu"
    # On a CPU the devices share the memory, and each works on a copy of the state of the run under way. Elsewhere the
    # runs are batched, and what an update computes is held for all of them at once.
    room = (memory or _available_memory(devices)) // run_bytes
    most = room - len(devices) if cpu else room // 2
    if most < 1:
        needed = run_bytes * (1 + len(devices)) if cpu else 2 * run_bytes
        raise UserError(f"--memory: one run needs about {in_bytes(needed)}; make replay.size smaller")
    return int(most)


def _even(runs: int, most: int, devices: int) -> int:
    """A size of at most ``most`` with which few places stay empty: in the last piece, and beside its last run."""
    if runs <= most and runs <= devices:
        return runs
    sizes = [size for size in range(1, most + 1) if size % devices == 0] or [most]
    large = [size for size in sizes if 2 * size >= sizes[-1]]
    return min(large, key=lambda size: (-(-runs // size) * size, -size))


def population_of(points: Sequence[Point], runs: Sequence[Run], size: int) -> Population:
    """The runs as a program takes them; ``size`` places, of which those left over repeat the last run."""
    runs = [*runs, *[runs[-1]] * (size - len(runs))]
    configs = [points[run.point].config for run in runs]
    hparams = jax.tree.map(lambda *leaves: np.stack(leaves), *(config.hparams() for config in configs))
    seeds = np.array([config.seed for config in configs], np.uint32)
    return Population(hparams, seeds, np.array([run.seed_index for run in runs], np.uint32))


def parse_memory(text: str) -> int:
    """``4GiB``, ``800MB`` or a number of bytes.

    Raises:
      UserError: it is none of these.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(k|m|g|ki|mi|gi|)b?", text.strip(), re.IGNORECASE)
    if not match or not float(match[1]):
        raise UserError(f"--memory: {text!r} is not an amount of memory; write 4GiB or 800MB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def in_bytes(count: float) -> str:
    """A number of bytes for people: ``81 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            break
        count /= 1000
    else:
        unit = "TB"
    return f"{count:.3g} {unit}"


def _available_memory(devices: Sequence[jax.Device]) -> int:
    """Bytes that a program may take: four fifths of what is free."""
    if devices[0].platform != "cpu":
        return sum(int(0.8 * _device_limit(device)) for device in devices)
    return int(0.8 * psutil.virtual_memory().available)


def _device_limit(device: Any) -> int:
    statistics = device.memory_stats() or {}
    return statistics.get("bytes_limit", 2**33) - statistics.get("bytes_in_use", 0)
