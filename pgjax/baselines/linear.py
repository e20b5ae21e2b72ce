"""Baselines that are linear in features, fitted by ridge regression on other trajectories."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax.baselines._folds import checked_folds, solve_ridge, sum_over_others

Array = jax.Array


@compiled()
def time_features(obs: Array, step: Array) -> Array:
    """Compute the features of the classic linear baseline: observations, their squares, and powers of the time.

        φ = (o, o², τ, τ², τ³, 1),   o = obs clipped to ±10,  τ = step / 100

    Shapes: obs [T, B, D]; step [T, B]; result [T, B, 2 * D + 4].

    Args:
        obs: [T, B, D] float.
        step: [T, B] int, `trajectory.step`.

    Returns:
        [T, B, 2 * D + 4] float, the features.

    Raises:
        TypeError: if obs is not floating or step no integer.
        ValueError: if obs has not the axes of step and one more.

    Properties:
        One choice of features for `fit_linear_baseline`; `jax.nn.one_hot` of a state or of the step is another.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.time_features(jnp.array([[[20.0]]]), jnp.array([[50]])).ravel())
        [ 10.    100.      0.5     0.25    0.125   1.   ]

    References:
        Duan, Chen, Houthooft, Schulman and Abbeel (2016), Benchmarking deep reinforcement learning for continuous
        control.
    """
    obs, step = _checks.as_floating("obs", obs, ndim_at_least=1), _checks.as_integer("step", step)
    _checks.require_shape("obs", obs, (*step.shape, obs.shape[-1]), "[T, B, D]")
    clipped = jnp.clip(obs, -10.0, 10.0)
    time = step.astype(obs.dtype)[..., None] / 100.0
    return jnp.concatenate(
        [clipped, clipped * clipped, time, time * time, time * time * time, jnp.ones_like(time)], axis=-1
    )


@compiled()
def fit_linear_baseline(
    features: Array, return_: Array, weight: Array | None = None, *, ridge: Array | float = 1e-5
) -> Array:
    """Fit the weights of a linear baseline to returns by ridge regression.

        min_β Σ w (G - φᵀβ)² + ridge Σ_f β_f² Σ w φ_f²

    Shapes: features [..., F]; return_ [...]; result [F].

    Args:
        features: [..., F] float, φ, for instance `time_features`.
        return_: [...] float, G, what is to be predicted.
        weight: [...] float, w, at least 0. `square_scores` make the prediction the baseline that reduces the variance
            of each step by itself most; a mask as numbers leaves rows out. None is 1.
        ridge: what is added to the diagonal of the normal equations, as a share of it: the same for features of any
            scale. Dependent features, such as states that were not visited, need more than 0.

    Returns:
        [F] float, β, for `linear_baseline` on the batches that follow; 0 for a feature that is 0 everywhere.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes differ.

    Properties:
        Used on the batch that it was fitted to it sees the own return, and biases the gradient by O(1/B): use it on the
        next batch, or `cross_fitted_baseline`. Time O(N F²), N the number of rows.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> features = jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
        >>> print(pg.fit_linear_baseline(features, jnp.array([1.0, 3.0, 5.0]), ridge=0.0).round(3))
        [1. 2.]

    References:
        Duan, Chen, Houthooft, Schulman and Abbeel (2016), Benchmarking deep reinforcement learning for continuous
        control.
    """
    features, return_, weight = _checked(features, return_, weight)
    gram = jnp.einsum("...,...f,...g->fg", weight, features, features)
    return solve_ridge(gram, jnp.einsum("...,...f,...->f", weight, features, return_), ridge)


@compiled()
def linear_baseline(features: Array, beta: Array) -> Array:
    """Compute the baseline that is linear in features.

        b = stop(φᵀβ)

    Shapes: features [..., F]; beta [F]; result [...].

    Args:
        features: [..., F] float, φ.
        beta: [F] float, β, from `fit_linear_baseline`.

    Returns:
        [...] float, the baseline, without gradient.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if beta has not one entry for each feature.

    Properties:
        Keeps the gradient unbiased if β was fitted to other trajectories and the features do not look at the own
        action or what came of it.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.linear_baseline(jnp.array([[1.0, 2.0]]), jnp.array([0.5, 3.0])))
        [6.5]

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 13.4.
    """
    features, beta = _checks.as_floating("features", features, ndim_at_least=1), _checks.as_floating("beta", beta)
    _checks.require_shape("beta", beta, features.shape[-1:], "[F]")
    return jax.lax.stop_gradient(features @ beta)


@compiled("num_folds")
def cross_fitted_baseline(
    features: Array,
    return_: Array,
    weight: Array | None = None,
    *,
    num_folds: int | None = None,
    ridge: Array | float = 1e-5,
) -> Array:
    """Compute for each trajectory the linear baseline that was fitted to the other folds of the batch.

        b_i = stop(φ_iᵀβ_{-i}),   β_{-i} from `fit_linear_baseline` on the trajectories that are not in the fold of i

    Shapes: features [T, B, F]; return_ [T, B]; result [T, B].

    Args:
        features: [T, B, ..., F] float, φ.
        return_: [T, B, ...] float, G, of trajectories along axis 1, independent from one another. Further axes share
            them.
        weight: [T, B, ...] float, w, as for `fit_linear_baseline`.
        num_folds: folds of trajectories that are next to one another, from 1 to B; None is B, every trajectory left
            out in turn; 2 lets two halves swap; 1 leaves out nothing; static.
        ridge: as for `fit_linear_baseline`.

    Returns:
        [T, B, ...] float, the baseline, without gradient.

    Raises:
        TypeError: if an array is not floating or num_folds is not an int.
        ValueError: if shapes differ, or there are fewer trajectories than folds, or one alone to be left out.

    Properties:
        Keeps the gradient unbiased with two folds or more, whatever the features of the own states, weights and ridge
        are. With num_folds=1 biased by O(1/B). Memory O((T + F) B F); num_folds systems of F equations.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> return_ = jnp.array([[1.0, 2.0, 6.0]])
        >>> print(pg.cross_fitted_baseline(jnp.ones((1, 3, 1)), return_, ridge=0.0))
        [[4.  3.5 1.5]]

    References:
        Peters and Schaal (2008), Reinforcement learning of motor skills with policy gradients.
        Chernozhukov, Chetverikov, Demirer, Duflo, Hansen, Newey and Robins (2018), Double/debiased machine learning for
        treatment and structural parameters, on cross-fitting.
    """
    features, return_, weight = _checked(features, return_, weight)
    if return_.ndim < 2:
        raise ValueError(f"return_ must have shape [T, B, ...], got {list(return_.shape)}. Add the axis of the batch.")
    num_folds = checked_folds(num_folds, return_.shape[1])
    gram = jnp.einsum("tb...,tb...f,tb...g->bfg", weight, features, features)
    target = jnp.einsum("tb...,tb...f,tb...->bf", weight, features, return_)
    beta = solve_ridge(sum_over_others(gram, num_folds), sum_over_others(target, num_folds), ridge)
    return jax.lax.stop_gradient(jnp.einsum("tb...f,bf->tb...", features, beta))


def _checked(features: Array, return_: Array, weight: Array | None) -> tuple[Array, Array, Array]:
    features = _checks.as_floating("features", features, ndim_at_least=1)
    return_ = _checks.as_floating("return_", return_)
    weight = jnp.ones_like(return_) if weight is None else _checks.as_floating("weight", weight)
    _checks.require_shape("features", features, (*return_.shape, features.shape[-1]), "[..., F]")
    _checks.require_same_shape("return_", return_.shape, weight=weight)
    return features, return_, weight
