"""What must be settled before JAX starts: threads and devices of a CPU, and the compilation cache."""

import itertools
import os
from pathlib import Path

import platformdirs

from purejaxdqn.core.config import Config

LARGE_STEP_FLOPS = 3e7
"""Floating-point operations of a gradient step from which one run is faster with a pool of threads.

Measured by ``benchmarks/throughput.py --part threads``: one thread wins at 10 million, the pool at 67 million."""


def configure_cpu(*, devices: int | None = None, threads: int | None = 1) -> None:
    """Give the CPU backend ``devices`` host devices with ``threads`` threads each.

    Call it before the first JAX computation. What the user has set in the environment stays as it is
    (``NPROC``, ``JAX_NUM_CPU_DEVICES``, ``XLA_FLAGS``). A GPU or TPU is not affected.

    Args:
      devices: host devices; one for every core this process may use unless given.
      threads: threads of XLA's pool; None leaves one for each core. DQN's kernels are so small that
        handing them to another thread costs more than it saves.

    Raises:
      RuntimeError: JAX has already started.
    """
    import jax

    if threads is not None:
        os.environ.setdefault("NPROC", str(threads))
    set_by_user = "JAX_NUM_CPU_DEVICES" in os.environ
    if not set_by_user and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", devices or usable_cores())


def configure_cpu_for(config: Config) -> None:
    """``configure_cpu`` as measured best for a run (``benchmarks/throughput.py``).

    Several seeds, or a small network: a device for every core, one thread each. One seed of a large
    network: one device with all threads.
    """
    if takes_default_pool(config):
        configure_cpu(devices=1, threads=None)
    else:
        configure_cpu(devices=min(config.num_seeds, usable_cores()))


def takes_default_pool(config: Config) -> bool:
    """Whether a run is faster on one device with all threads."""
    return config.num_seeds == 1 and gradient_step_flops(config) >= LARGE_STEP_FLOPS


def gradient_step_flops(config: Config) -> float:
    """Operations of an update's matrix products but for the input layer of an MLP: target, online, and twice back."""
    hidden, distribution = config.network.hidden, config.distribution
    widths = (1024, *hidden) if config.network.torso == "minatar_cnn" else hidden  # of 10 x 10 pictures
    products = sum(a * b for a, b in itertools.pairwise(widths))
    if distribution.kind in ("iqn", "fqf"):  # the embedding of fractions by 64 cosines
        products += distribution.atoms * 64 * hidden[-1]
    return 8.0 * config.replay.batch_size * products


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache directory, unless JAX_COMPILATION_CACHE_DIR says where."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_directory()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def cache_directory() -> Path:
    """Where compiled programs are kept."""
    return Path(platformdirs.user_cache_dir("purejaxdqn")) / "xla"
