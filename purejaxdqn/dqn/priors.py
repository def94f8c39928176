"""Randomised prior functions (Osband et al. 2018): fixed random networks that are added to learned ones."""

from typing import Any

from purejaxdqn.core.types import Array, Params
from purejaxdqn.dqn.memory import Memory
from purejaxdqn.dqn.networks import QFunction
from purejaxdqn.dqn.types import Quantiles


def add_prior(network: QFunction, prior: Params, scale: Array) -> QFunction:
    """``network`` plus ``scale`` times the same network with the parameters ``prior``, which get no gradient.

    A head with fractions adds the values at the same fractions. Noise is that of the learned network alone. With a
    memory, both networks carry one of their own.
    """

    def add(out: Any, known: Any) -> Any:
        if isinstance(out, Quantiles):
            return out._replace(values=out.values + scale * known.values)
        return out + scale * known

    def apply(
        params: Params, obs: Array, noise: Array | None, fractions: Array | None, carry: Any = (), start: Any = ()
    ) -> tuple[Any, Any]:
        mine, priors = carry or ((), ())
        out, carries = network.apply(params, obs, noise, fractions, mine, start)
        known, prior_carries = network.apply(prior, obs, None, fractions, priors, start)
        return add(out, known), carry and (carries, prior_carries)

    return network._replace(apply=apply, memory=network.memory and _two(network.memory))


def _two(memory: Memory) -> Memory:
    """A memory of two networks, whose carries are a pair."""
    return memory._replace(carry=lambda batch: (memory.carry(batch), memory.carry(batch)))
