"""Settings that must be made before JAX starts: threads and devices of a CPU, and the compilation cache."""

import itertools
import math
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import platformdirs

from purejaxdqn.core.config import Config
from purejaxdqn.core.kernels import LARGE_PRODUCT
from purejaxdqn.core.plan import batch_size_of
from purejaxdqn.dqn.networks import filters_of
from purejaxdqn.environments.listed import LISTED
from purejaxdqn.environments.registry import INPUTS
from purejaxdqn.system.faults import UserError, reason_of

LARGE_STEP_FLOPS = 3e7
"""From this many floating-point operations of a gradient step on, one run is faster with a pool of threads.

Measured by ``benchmarks/throughput.py --part threads``: one thread is faster at 10 million, the pool at 67 million."""


def configure_cpu(*, devices: int | None = None, threads: int | None = 1) -> None:
    """Give the CPU backend ``devices`` host devices with ``threads`` threads each.

    Call it before the first JAX computation; later it only warns that it has no effect. It does not change what you
    have set in the environment (``NPROC``, ``JAX_NUM_CPU_DEVICES``, ``XLA_FLAGS``), and does not affect a GPU or TPU.

    Args:
      devices: host devices; by default one for each core that this process may use.
      threads: threads of each device; None means one for each core. DQN's kernels are so small that
        handing them to another thread costs more than it saves.
    """
    import jax

    if threads is not None:
        os.environ.setdefault("NPROC", str(threads))
    set_by_user = "JAX_NUM_CPU_DEVICES" in os.environ
    if not set_by_user and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        try:
            jax.config.update("jax_num_cpu_devices", devices or usable_cores())
        except RuntimeError:
            warnings.warn("configure_cpu has no effect: JAX has already started", stacklevel=2)


def configure_cpu_for(*configs: Config, runs: int | None = None, devices: int | None = None) -> None:
    """Call ``configure_cpu`` with what ``benchmarks/throughput.py`` measured as fastest for runs of these configs.

    That is one device for each core or run, whichever are fewer, with one thread each; if a network is large, one
    thread for each core.

    Args:
      configs: of the runs.
      runs: number of runs; by default the first config's seeds.
      devices: use at most this many.
    """
    large = any(takes_default_pool(config) for config in configs)
    configure_cpu(devices=min(runs or configs[0].num_seeds, devices or usable_cores()), threads=None if large else 1)


_SETTINGS = {
    "jax_enable_x64": False,
    "jax_numpy_rank_promotion": "allow",
    "jax_numpy_dtype_promotion": "standard",
    "jax_threefry_partitionable": True,
    "jax_debug_nans": False,  # it stops at NaNs that mean "no episode ended"; ``train --debug-nans`` does not
    "jax_debug_infs": False,
}
"""Settings of JAX that would stop the commands or change their results; elsewhere in the environment they may be set
for other programs."""


def start_jax() -> None:
    """Start JAX for a command, after ``configure_cpu``.

    Raises:
      UserError: names the environment variables with which it does not start.
    """
    import jax

    for name, value in _SETTINGS.items():
        jax.config.update(name, value)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        given = [
            f"{name}={value}" for name, value in os.environ.items() if name.startswith(("JAX_PLATFORM", "JAX_NUM"))
        ]
        reason = reason_of(error) if str(error) else "there is no such device"
        raise UserError(f"JAX does not start with {' '.join(given) or 'its defaults'}: {reason}") from error


def takes_default_pool(config: Config) -> bool:
    """Whether a run has work for several threads.

    The size of XLA's pool determines how it splits large operations, and so the last bits of their sums. The pool of
    a large network is therefore the same for one seed and for many; operations of a small network are never split.
    If the size of the observations is not known before JAX starts, the network counts as large.
    """
    return gradient_step_flops(config) >= LARGE_STEP_FLOPS or estimated_largest_product(config) >= LARGE_PRODUCT


def estimated_largest_product(config: Config) -> float:
    """Elements of the largest matrix product of an update, assuming three actions; infinite if it is not known."""
    hidden, distribution, batch_size = config.network.hidden, config.distribution, batch_size_of(config)
    fractions = distribution.kind in ("iqn", "fqf")
    widths = (*hidden, 3 if fractions else 3 * distribution.atoms)
    layers = convolutions_of(config)
    inputs = math.inf if config.env.kwargs else config.env.frame_stack * INPUTS.get(config.env.id, math.inf)
    if layers:
        inputs = layers[-1].outputs
    elif config.network.torso == "one_hot":  # no product with the inputs
        inputs = hidden[0]
    rows = batch_size * distribution.atoms if fractions else batch_size
    images = max((batch_size * layer.outputs for layer in layers), default=0)
    return max(rows * max(widths), images, *(a * b for a, b in itertools.pairwise((inputs, *widths))))


def gradient_step_flops(config: Config) -> float:
    """Floating-point operations of an update's matrix products, without the input layer of an MLP.

    Counted are one forward pass of the target network, and of the online network one forward and two backward.
    """
    hidden, distribution = config.network.hidden, config.distribution
    layers = convolutions_of(config)
    widths = (layers[-1].outputs, *hidden) if layers else hidden
    products = sum(a * b for a, b in itertools.pairwise(widths))
    if config.network.torso == "cnn":  # MinAtar's convolution is small beside the layer after it
        products += sum(layer.products for layer in layers)
    if distribution.kind in ("iqn", "fqf"):  # the embedding of fractions by 64 cosines
        products += distribution.atoms * 64 * hidden[-1]
    return 8.0 * batch_size_of(config) * products * config.ensemble.members


class _Convolution(NamedTuple):
    """A layer of convolutions over one picture."""

    outputs: float  # filters times places; infinite if the size of the pictures is not known
    products: float


def convolutions_of(config: Config) -> list[_Convolution]:
    """The convolutions of a network, over MinAtar's pictures of 10 x 10 where it is MinAtar's."""
    row, found = LISTED.get(config.env.id), []
    known = config.network.torso == "minatar_cnn" or (row and not config.env.kwargs and len(row.shape) >= 2)
    height, width = row.shape[:2] if row and len(row.shape) >= 2 and config.network.torso == "cnn" else (10, 10)
    channels = config.env.frame_stack * row.inputs / (height * width) if row else 1
    for layer in filters_of(config.network):
        height, width = ((side - layer.kernel) // layer.stride + 1 for side in (height, width))
        outputs = layer.channels * height * width if known else math.inf
        found.append(_Convolution(outputs, outputs * channels * layer.kernel**2))
        channels = layer.channels
    return found


def usable_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_compilation_cache() -> None:
    """Keep compiled programs in ``JAX_COMPILATION_CACHE_DIR``, or by default in the user's cache directory."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_directory()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def cache_directory() -> Path:
    """The default directory of compiled programs."""
    return Path(platformdirs.user_cache_dir("purejaxdqn")) / "xla"
