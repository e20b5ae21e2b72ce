"""Natural gradients: Fisher matrices, trust regions and Kronecker-factored curvature, as optax transforms."""

from pgjax.losses import adapt_kl_coefficient
from pgjax.natural.compatible import (
    compatible_features,
    compatible_value,
    deterministic_compatible_value,
    fit_compatible_critic,
)
from pgjax.natural.fisher import fisher_matrix, fisher_vector_product, score_vector_product
from pgjax.natural.kfac import KroneckerFactors, kronecker_factors
from pgjax.natural.kfac_step import scale_by_kfac
from pgjax.natural.transforms import (
    BacktrackState,
    backtrack,
    scale_by_natural_gradient,
    scale_to_divergence,
    trpo,
)

__all__ = [
    "BacktrackState",
    "KroneckerFactors",
    "adapt_kl_coefficient",
    "backtrack",
    "compatible_features",
    "compatible_value",
    "deterministic_compatible_value",
    "fisher_matrix",
    "fisher_vector_product",
    "fit_compatible_critic",
    "kronecker_factors",
    "scale_by_kfac",
    "scale_by_natural_gradient",
    "scale_to_divergence",
    "score_vector_product",
    "trpo",
]
