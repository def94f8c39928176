"""Randomised prior functions (Osband et al. 2018): fixed random networks that are added to learned ones."""

from typing import Any

from purejaxdqn.core.types import Array, Params, Quantiles
from purejaxdqn.dqn.networks import QFunction


def add_prior(network: QFunction, prior: Params, scale: Array) -> QFunction:
    """``network`` plus ``scale`` times the same network with the parameters ``prior``, which get no gradient.

    A head with fractions adds the values at the same fractions. Noise is that of the learned network alone. With a
    memory, both networks carry one of their own.
    """

    def add(out: Any, known: Any) -> Any:
        if isinstance(out, Quantiles):
            return out._replace(values=out.values + scale * known.values)
        return out + scale * known

    def apply(params: Params, obs: Array, noise: Array | None, fractions: Array | None) -> Any:
        return add(network.apply(params, obs, noise, fractions), network.apply(prior, obs, None, fractions))

    def recall(
        params: Params, obs: Array, noise: Array | None, fractions: Array | None, carry: Any, start: Array
    ) -> tuple[Any, Any]:
        out, carries = network.apply(params, obs, noise, fractions, carry[0], start)
        known, prior_carries = network.apply(prior, obs, None, fractions, carry[1], start)
        return add(out, known), (carries, prior_carries)

    if network.memory is None:
        return network._replace(apply=apply)
    fresh = network.memory.carry
    memory = network.memory._replace(carry=lambda batch: (fresh(batch), fresh(batch)))
    return network._replace(apply=recall, memory=memory)
