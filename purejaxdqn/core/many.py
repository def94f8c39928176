"""Many runs at once: seeds and hyper-parameters spread over devices.

Runs do not communicate, so a program over many is the program of one, mapped. On a CPU the runs of a device follow one
another (batching them is no faster, and small kernels stay in cache); on an accelerator ``vmap`` batches them. Either
way one program is compiled, however many runs there are.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from purejaxdqn.core.config import HParams
from purejaxdqn.core.keys import data_of_keys, with_keys
from purejaxdqn.core.types import Array


class Layout(NamedTuple):
    """``size`` places for runs. The first ``num_runs`` are used; the others repeat the last run."""

    num_runs: int
    devices: tuple[jax.Device, ...]
    batch_size: int  # runs that are vmapped together
    batches: int  # per device, one after another

    @property
    def size(self) -> int:
        """Places on all devices together."""
        return len(self.devices) * self.batches * self.batch_size

    @property
    def platform(self) -> str:
        """``cpu``, ``gpu`` or ``tpu``."""
        return self.devices[0].platform

    @property
    def sharding(self) -> NamedSharding:
        """The leading axis over the devices."""
        mesh = Mesh(np.asarray(self.devices), ("runs",), axis_types=(AxisType.Auto,))
        return NamedSharding(mesh, PartitionSpec("runs"))

    def fill(self, tree: Any) -> Any:
        """Leaves [num_runs, ...] -> [size, ...]."""
        places = np.minimum(np.arange(self.size), self.num_runs - 1)
        return jax.tree.map(lambda leaf: leaf[places], tree)

    def put(self, tree: Any) -> Any:
        """``fill``, and shard the leaves over the devices; these may belong to several processes."""
        return jax.device_put(self.fill(tree), self.sharding)

    def take(self, tree: Any) -> Any:
        """Leaves [size, ...] -> [num_runs, ...]."""
        return jax.tree.map(lambda leaf: leaf[: self.num_runs], tree)


def lay_out(num_runs: int, *, devices: Sequence[jax.Device] | None = None, batch_size: int | None = None) -> Layout:
    """Spread ``num_runs`` evenly over ``devices`` (all local ones unless given).

    Args:
      num_runs: at least 1.
      devices: no more are used than there are runs.
      batch_size: runs to vmap together on a device; unless given, 1 on a CPU and all of them elsewhere.
    """
    devices = tuple(devices or jax.local_devices())[:num_runs]
    per_device = -(-num_runs // len(devices))
    if batch_size is None:
        batch_size = 1 if devices[0].platform == "cpu" else per_device
    batch_size = min(batch_size, per_device)
    return Layout(num_runs, devices, batch_size, batches=-(-per_device // batch_size))


def map_runs(function: Callable[[HParams, Any], Any], layout: Layout, *, in_place: bool = False) -> Any:
    """The jitted ``function(hparams, x)`` of one run, as a function of runs: all leaves get an axis [size].

    Args:
      function: of one run.
      layout: the places of the runs.
      in_place: ``function`` returns ``(x, y)`` with an ``x`` like the one it got. The memory of ``x`` is
        donated and holds the result, so that a large state never exists twice.
    """
    batched = _squeezed(function) if layout.batch_size == 1 else jax.vmap(function)

    def on_device(hparams: HParams, x: Any) -> Any:
        if layout.batches == 1:
            return batched(hparams, x)
        if in_place:
            return _scan_in_place(batched, layout, hparams, x)
        hparams, x = _split_batches(layout.batches, (hparams, x))
        return _join_batches(jax.lax.map(lambda args: batched(*args), (hparams, x)))

    spec = layout.sharding.spec
    sharded = jax.shard_map(on_device, mesh=layout.sharding.mesh, in_specs=spec, out_specs=spec, check_vma=False)
    return jax.jit(
        sharded,
        in_shardings=layout.sharding,
        out_shardings=layout.sharding,
        donate_argnums=(1,) if in_place else (),
    )


def _squeezed(function: Callable) -> Callable:
    def of_one(*args: Any) -> Any:
        out = function(*jax.tree.map(lambda leaf: leaf[0], args))
        return jax.tree.map(lambda leaf: leaf[None], out)

    return of_one


def _split_batches(batches: int, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.reshape(batches, -1, *leaf.shape[1:]), tree)


def _join_batches(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def _scan_in_place(function: Callable, layout: Layout, hparams: HParams, x: Any) -> Any:
    """``lax.map`` for ``function(hparams, x) -> (x, y)`` whose ``x`` is updated where it lies.

    Keys are carried as their words: ``jax.debug_key_reuse`` does not follow which part of an array of keys is used.
    """

    def body(data: Any, first: Array) -> Any:
        cut = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=first, slice_size=layout.batch_size)
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=first, axis=0)
        mine, y = function(jax.tree.map(cut, hparams), with_keys(jax.tree.map(cut, data), x))
        return jax.tree.map(put, data, data_of_keys(mine)), y

    data, y = jax.lax.scan(body, data_of_keys(x), layout.batch_size * jnp.arange(layout.batches))
    return with_keys(data, x), _join_batches(y)
