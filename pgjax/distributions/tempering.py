"""Distributions made flatter or more peaked, for acting otherwise than one learns."""

import dataclasses
from typing import Any

import jax

from pgjax import _checks
from pgjax.distributions.bernoulli import Bernoulli
from pgjax.distributions.beta import Beta
from pgjax.distributions.categorical import Categorical
from pgjax.distributions.multi_categorical import MultiCategorical
from pgjax.distributions.normal import Normal
from pgjax.distributions.one_hot import OneHotCategorical
from pgjax.distributions.tanh_normal import TanhNormal

Array = jax.Array


def tempered(distribution: Any, temperature: Array | float) -> Any:
    """Flatten a distribution by a temperature above 1, or sharpen it by one below.

        μ(a) ∝ π(a)^(1/τ)

    Discrete logits are divided by τ, the deviations of a normal are multiplied by √τ. A TanhNormal is tempered before
    it is squashed.

    Shapes: leaves of the distribution as they are; temperature a scalar.

    Args:
        distribution: one of this package's, or one with a method tempered(temperature).
        temperature: τ, positive, dimensionless; 1 leaves the distribution as it is.

    Returns:
        A distribution of the same class. With τ > 1 the ratio π/μ is bounded: by K^(1 - 1/τ) for one choice among K
        actions, by τ^(D/2) for a normal of D components.

    Raises:
        TypeError: for a distribution of another package that cannot be tempered.
        ValueError: if temperature is a Python number that is not positive.
    """
    _checks.require_positive("temperature", temperature, remedy="For the likeliest action take mode().")
    if hasattr(distribution, "tempered"):
        return distribution.tempered(temperature)
    if isinstance(distribution, Normal | TanhNormal):
        return dataclasses.replace(distribution, scale=distribution.scale * temperature**0.5)
    if isinstance(distribution, Beta):
        alpha, beta = ((x - 1.0) / temperature + 1.0 for x in (distribution.alpha, distribution.beta))
        return dataclasses.replace(distribution, alpha=alpha, beta=beta)
    if isinstance(distribution, Categorical | OneHotCategorical | MultiCategorical | Bernoulli):
        logits = jax.tree.map(lambda x: x / temperature, distribution.logits)
        return dataclasses.replace(distribution, logits=logits)
    raise TypeError(
        f"a {type(distribution).__name__} cannot be tempered. Make the flatter distribution where the policy is made."
    )
