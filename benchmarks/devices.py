"""Accelerators that JAX compiles for without one at hand, from their descriptions.

A TPU needs the package libtpu (`pip install -e '.[tpu]'`), in the release that belongs to jax. A GPU needs JAX's GPU
packages (`pip install -e '.[cuda12]'`, five gigabytes); to compile for a described device, two of them will do, half a
gigabyte: `pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt`, in the version of jax.
"""

import importlib.util
import os
from typing import Any, NamedTuple


class Accelerator(NamedTuple):
    """A device, by its maker's data sheet."""

    platform: str  # tpu or gpu
    memory: float  # bytes
    bytes_a_second: float  # of its memory
    topology: str  # the smallest that JAX describes, of a TPU
    kind: str  # of a TPU, as its runtime calls it; else the part of the description that differs


ACCELERATORS = {
    "TPU v5e": Accelerator("tpu", 16e9, 819e9, "v5e:2x2", "v5litepod-4"),
    "TPU v6e": Accelerator("tpu", 32e9, 1.64e12, "v6e:2x2", "v6e-4"),
    "H100": Accelerator("gpu", 80e9, 3.35e12, "1x1x1", "NVIDIA H100 80GB HBM3"),
    "H200": Accelerator("gpu", 141e9, 4.8e12, "1x1x1", "NVIDIA H200"),
}
"""Cloud TPU's and NVIDIA's data sheets; the H100 is the SXM, as is the H200."""

_HOPPER = """
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  memory_bandwidth: {bandwidth:.0f}
  device_memory_size: {memory:.0f}
  l2_cache_size: 52428800
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_core_limit: 2048
  threads_per_block_limit: 1024
  threads_per_warp: 32
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{kind}"
"""
"""Description of a GPU for XLA (``GpuTargetConfigProto``)."""

_TPU_SETTING = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""What libtpu would otherwise ask a server of Google's cloud for; and that other processes may compile, too."""


def missing(name: str) -> str:
    """Return why programs cannot be compiled for a device here, or nothing if they can."""
    needed = {"tpu": ("libtpu",), "gpu": ("jax_cuda12_plugin", "jax_cuda13_plugin")}[ACCELERATORS[name].platform]
    found = any(importlib.util.find_spec(package) for package in needed)
    return "" if found else f"{' or '.join(needed)} is not installed"


def described(name: str) -> list[Any]:
    """Return one described device as a list. JAX must not have started, as some settings are read when it does."""
    device = ACCELERATORS[name]
    os.environ["JAX_PLATFORMS"] = "cpu"  # it would otherwise look for a driver
    if device.platform == "tpu":
        os.environ |= {**_TPU_SETTING, "TPU_ACCELERATOR_TYPE": device.kind}
    else:
        os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    from jax.experimental import topologies

    if device.platform == "tpu":
        return topologies.get_topology_desc(platform="tpu", topology_name=device.topology).devices[:1]
    description = _HOPPER.format(bandwidth=device.bytes_a_second, memory=device.memory, kind=device.kind)
    topology = topologies.get_topology_desc(
        device.topology, platform="cuda", topology=device.topology, target_config=description
    )
    return list(topology.devices[:1])
