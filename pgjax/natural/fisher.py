"""The Fisher information of a policy: its products with vectors, and the whole matrix for small networks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._flat import flat, unflatten
from pgjax._types import Params, Policy, RolloutState, Trajectory
from pgjax.estimators.terms import action_distribution, log_prob_taken
from pgjax.expectation.sampling import parts
from pgjax.rollout.policies import apply_policy

Array = jax.Array
Product = Callable[[Params], Params]

__all__ = ["fisher_matrix", "fisher_vector_product", "score_vector_product"]


def fisher_vector_product(params: Params, obs: Any, *, policy: Policy, weight: Array | None = None) -> Product:
    """Make the function that multiplies a direction by the Fisher matrix of a policy, without building the matrix.

        F v = mean_s w(s) J(s)ᵀ F_z(s) J(s) v,   J = ∂z/∂θ,  z the parameters of the distribution π(·|s)

    F_z is the Hessian of KL(π ‖ π_z) at the distribution itself, by the distribution's `kl_divergence`: no action is
    drawn.

    Shapes: obs [..., *obs]; v and F v like params.

    Args:
        params: parameters of the policy, at which the matrix is taken.
        obs: the states s to average over, any batch axes.
        policy: policy(params, obs) -> distribution, (distribution, extras) or a tree of distributions. A recurrent one
            goes in as ``lambda params, _: pg.action_distribution(params, trajectory, policy=..., state=...)``.
        weight: w, of the batch axes, such as a mask or γ^t; None means 1. The mean is over all rows.

    Returns:
        A function v -> F v. The network runs forward once, here; each product is a forward and a backward derivative.

    Raises:
        TypeError: if the policy gives no distribution, or one that has no kl_divergence.
        ValueError: if weight has not the batch axes.

    Properties:
        F is symmetric and positive semidefinite. It equals the Hessian of either Kullback-Leibler divergence between
        old and new policy at the old one, and E ψψᵀ with ψ = ∇ log π.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> policy = lambda loc, obs: pg.Normal(obs * loc[None], 0.5)
        >>> product = pg.natural.fisher_vector_product(jnp.ones(1), jnp.array([[1.0], [3.0]]), policy=policy)
        >>> print(product(jnp.ones(1)))  # the mean of obs² / 0.25
        [20.]

    References:
        Kakade (2001), A natural policy gradient.
        Schulman, Levine, Moritz, Jordan and Abbeel (2015), Trust region policy optimization, appendix C.
    """
    outputs, curvature = _of_policy(params, obs, policy, weight)
    _, forward = jax.linearize(outputs, params)
    backward = jax.linear_transpose(forward, params)
    return lambda v: backward(curvature(forward(v)))[0]


@compiled()
def fisher_matrix(params: Params, obs: Any, *, policy: Policy, weight: Array | None = None) -> Array:
    """Compute the whole Fisher matrix of a policy, for small networks.

        F = mean_s w(s) J(s)ᵀ F_z(s) J(s),  as `fisher_vector_product`

    Shapes: result [P, P], P the number of parameters; axes are params raveled.

    Args:
        params, obs, policy, weight: as `fisher_vector_product`.

    Returns:
        [P, P] float, symmetric and positive semidefinite.

    Raises:
        TypeError, ValueError: as `fisher_vector_product`.

    Properties:
        Memory P², and P products.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> policy = lambda logits, obs: pg.Categorical(obs @ logits[None])
        >>> print(pg.natural.fisher_matrix(jnp.zeros(2), jnp.ones((3, 1)), policy=policy))
        [[ 0.25 -0.25]
         [-0.25  0.25]]

    References:
        Kakade (2001), A natural policy gradient.
    """
    product = fisher_vector_product(params, obs, policy=policy, weight=weight)
    back = unflatten(params)
    cast = lambda tree: jax.tree.map(lambda x, like: x.astype(like.dtype), tree, params)  # noqa: E731
    whole = flat(params)
    return jax.vmap(lambda row: flat(product(cast(back(row)))))(jnp.eye(whole.size, dtype=whole.dtype))


def score_vector_product(
    params: Params, trajectory: Trajectory, *, policy: Policy, state: RolloutState | None = None
) -> Product:
    """Make the function that multiplies a direction by the mean outer product of the scores of the actions taken.

        v -> mean_t,b ψ_t ψ_tᵀ v,   ψ_t = ∇ log π(a_t | s_t)

    Shapes: trajectory leaves [T, B, ...]; v and the result like params.

    Args:
        params: parameters of the policy.
        trajectory: the window; its actions must be those of the policy itself.
        policy: policy(params, obs) -> distribution or (distribution, extras); a recurrent one as in `rollout`.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        A function v -> the product.

    Raises:
        TypeError: if the policy returns no distribution.

    Properties:
        Its expectation is the Fisher matrix; of N rows it has rank N at most. It is the matrix of the normal equations
        of the compatible critic: see `fit_compatible_critic`.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> x, no = jnp.ones((1, 1)), jnp.zeros((1, 1), bool)
        >>> taken = pg.Trajectory(x[..., None], no.astype(int), x, x[..., None], no, no, 0.0 * x, no.astype(int))
        >>> policy = lambda logits, obs: pg.Categorical(obs @ logits[None])
        >>> print(pg.natural.score_vector_product(jnp.zeros(2), taken, policy=policy)(jnp.array([1.0, 0.0])))
        [ 0.25 -0.25]

    References:
        Peters and Schaal (2008), Natural actor-critic.
    """

    def log_prob(params: Params) -> Array:
        return log_prob_taken(action_distribution(params, trajectory, policy=policy, state=state), trajectory)

    rows, forward = jax.linearize(log_prob, params)
    backward = jax.linear_transpose(forward, params)
    return lambda v: backward(forward(v) / rows.size)[0]


def _of_policy(
    params: Params, obs: Any, policy: Policy, weight: Array | None
) -> tuple[Callable[..., list[Array]], Callable[[list[Array]], list[Array]]]:
    """Return params -> z, and u -> F_z u averaged over the rows."""
    distribution = jax.lax.stop_gradient(distribution_of(policy, params, obs))
    kl, at = divergence_from(distribution)
    if weight is not None:
        rows = jax.eval_shape(kl, at).shape
        _checks.require_shape("weight", weight, rows, of="the rows of the policy's distribution")

    def total(z: list[Array]) -> Array:
        each = kl(z)
        return jnp.sum(each if weight is None else weight * each) / each.size

    def outputs(params: Params) -> list[Array]:
        return floating(distribution_of(policy, params, obs))[0]

    return outputs, lambda u: jax.jvp(jax.grad(total), (at,), (u,))[1]


def distribution_of(policy: Policy, params: Params, obs: Any) -> Any:
    """Return what a feed-forward policy gives for observations, without the extras.

    Args:
        policy: policy(params, obs) -> distribution, (distribution, extras), or a dict or list of distributions.
        params: its parameters.
        obs: the observations.

    Returns:
        The distribution or the tree of them.

    Raises:
        TypeError: if it gives something else.
    """
    found: Any = policy(params, obs)
    return found if isinstance(found, dict | list) else apply_policy(lambda *_: found, params, obs, None)[0]


def floating(distribution: Any) -> tuple[list[Array], Callable[[list[Array]], Any]]:
    """Take the floating leaves out of a distribution.

    Args:
        distribution: a distribution or a tree of them.

    Returns:
        The leaves, and the function that puts others in their place.
    """
    leaves, treedef = jax.tree.flatten(distribution)
    structure: Any = treedef
    kept = [jnp.issubdtype(jnp.result_type(x), jnp.floating) for x in leaves]

    def join(floats: list[Array]) -> Any:
        rest = iter(floats)
        return structure.unflatten([next(rest) if keep else x for x, keep in zip(leaves, kept, strict=True)])

    return [x for x, keep in zip(leaves, kept, strict=True) if keep], join


def divergence_from(distribution: Any) -> tuple[Callable[..., Array], list[Array]]:
    """Make the divergence from a distribution a function of the parameters z of another.

    Args:
        distribution: π, a distribution or a tree of independent ones.

    Returns:
        z -> KL(π ‖ π_z) for each row, and the z of the distribution itself.

    Raises:
        TypeError: if there is something in it that has no kl_divergence.
    """
    at, join = floating(distribution)
    for (d,) in parts("the Fisher matrix", distribution)[1]:
        if not hasattr(d, "kl_divergence"):
            raise TypeError(f"the policy's distribution needs kl_divergence, {type(d).__name__} has none.")

    def kl(z: list[Array]) -> Array:
        return sum(d.kl_divergence(other) for d, other in parts("the Fisher matrix", distribution, join(z))[1])

    return kl, at
