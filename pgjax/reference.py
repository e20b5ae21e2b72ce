"""The gradient of a real problem to any accuracy: the mean of very many estimates, in the memory of a few."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._flat import flat, unflatten
from pgjax._types import Params

Array = jax.Array
Estimate = Callable[[Array, Params], Params]


@struct.dataclass
class GradientReference:
    """The mean of many independent estimates of one gradient, and how far to trust it."""

    gradient: Params  # like params: the mean, with the sign of the estimates
    standard_error: Params  # like params: of each entry of the mean
    variance: Array  # scalar: trace of the covariance of one estimate
    num_estimates: int = struct.field(pytree_node=False)  # static, as are the next two
    num_trajectories: int = struct.field(pytree_node=False)
    num_steps: int = struct.field(pytree_node=False)  # environment steps

    @property
    def relative_error(self) -> Array:
        """Scalar: expected distance from the true gradient over the length of the mean, √(tr Cov / n) / |ḡ|.

        The cosine of another vector to the mean misses the cosine to the true gradient by about half its square.
        """
        squares = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(self.gradient))
        return jnp.sqrt(self.variance / self.num_estimates / squares)


@struct.dataclass
class _Moments:
    """Count, mean [P] and sum of squared deviations [P] of what has been seen."""

    count: Array
    mean: Array
    squares: Array


@compiled("estimate", "num_batches", "trajectories_per_batch", "steps_per_batch")
def reference_gradient(
    key: Array,
    params: Params,
    *,
    estimate: Estimate,
    num_batches: int,
    trajectories_per_batch: int = 1,
    steps_per_batch: int = 1,
) -> GradientReference:
    """Compute the mean of many independent estimates of a gradient, with its standard error.

        ḡ = 1/n Σ_i g_i,   g_i = estimate(fold_in(key, i), params),   standard error √(Var g / n)

    Mean and squared deviations are merged as they come, in two levels, so that rounding stays below the noise.

    Shapes: gradient and standard_error like params; variance scalar.

    Args:
        key: a PRNG key, consumed.
        params: parameters of the policy.
        estimate: estimate(key, params) -> gradient, a pytree like params, one for each batch: for instance
            `init_rollout`, `rollout` and an estimator. Static.
        num_batches: n, number of estimates, at least 2; static.
        trajectories_per_batch: trajectories in one estimate, kept for the record; static.
        steps_per_batch: environment steps in one estimate, kept for the record; static.

    Returns:
        `GradientReference`. Its gradient has the sign of the estimates: a descent direction for those of the library.

    Raises:
        TypeError: if estimate is not a function or a count is not an int.
        ValueError: if num_batches < 2, another count < 1, or the estimate is not like params.

    Properties:
        As biased as one estimate is, and n times less variable. Memory that of one estimate and three gradients,
        whatever n is. The first estimates of a longer run are those of a shorter one. It is not
        differentiable. Runs with other keys are put together by `merge_references`.

    Example:
        >>> import jax, pgjax as pg, pgjax.exact as exact
        >>> from pgjax.reference import reference_gradient
        >>> env = exact.TabularEnvironment(exact.two_state().replace(horizon=3))
        >>> policy = lambda params, obs: pg.Categorical(obs @ params)
        >>> def estimate(key, params):
        ...     start, run = jax.random.split(key)
        ...     state = pg.init_rollout(start, env, env.default_params, num_envs=64)
        ...     _, trajectory = pg.rollout(
        ...         run, params, state, policy=policy, env=env, env_params=env.default_params, num_steps=3)
        ...     return pg.reinforce(params, trajectory, policy=policy, discount=1.0)[0]
        >>> reference = reference_gradient(
        ...     jax.random.key(0), exact.two_state_logits(), estimate=estimate, num_batches=1000,
        ...     trajectories_per_batch=64, steps_per_batch=192)
        >>> reference.num_steps, bool(reference.relative_error < 0.02)
        (192000, True)

    References:
        Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance.
        Ilyas et al. (2020), A closer look at deep policy gradients, on gradients from many samples as a reference.
    """
    _checks.require_callable("estimate", estimate)
    num_batches = _checks.as_positive_int("num_batches", num_batches, at_least=2)
    trajectories = _checks.as_positive_int("trajectories_per_batch", trajectories_per_batch)
    steps = _checks.as_positive_int("steps_per_batch", steps_per_batch)
    like = jax.eval_shape(estimate, key, params)
    _checks.require_same_structure("estimate(key, params)", like, params, of="params")
    # Blocks of √n estimates, then the blocks: each sum has about √n terms.
    block = math.isqrt(num_batches - 1) + 1

    def one(index: Array, moments: _Moments) -> _Moments:
        row = flat(estimate(jax.random.fold_in(key, index), params))
        return _merge(moments, _Moments(jnp.ones_like(moments.count), row, jnp.zeros_like(row)))

    def many(index: Array, moments: _Moments) -> _Moments:
        first = index * block
        return _merge(moments, jax.lax.fori_loop(first, jnp.minimum(first + block, num_batches), one, nothing))

    # zeros_like keeps the type that the estimate has inside shard_map: the carry of a loop needs it from the start.
    zeros = jnp.zeros_like(jax.eval_shape(flat, like))
    nothing = _Moments(jnp.zeros((), zeros.dtype), zeros, zeros)
    moments = jax.lax.fori_loop(0, -(-num_batches // block), many, nothing)
    spread, back = moments.squares / (num_batches - 1), unflatten(like)
    return GradientReference(
        gradient=back(moments.mean),
        standard_error=back(jnp.sqrt(spread / num_batches)),
        variance=jnp.sum(spread),
        num_estimates=num_batches,
        num_trajectories=num_batches * trajectories,
        num_steps=num_batches * steps,
    )


@compiled()
def merge_references(first: GradientReference, second: GradientReference) -> GradientReference:
    """Combine the references of two runs with different keys into that of one long run.

        n = n_1 + n_2,   ḡ = (n_1 ḡ_1 + n_2 ḡ_2) / n,   squared deviations add, and n_1 n_2 / n (ḡ_1 - ḡ_2)²

    Shapes: as those of the references.

    Args:
        first: from `reference_gradient`.
        second: another of the same problem, from an independent key.

    Returns:
        `GradientReference` with the counts added; what one run over both sets of estimates would give.

    Raises:
        ValueError: if their gradients differ in structure or shape.
    """
    _checks.require_same_structure("second", second.gradient, first.gradient, of="first")
    parts = [_moments_of(reference) for reference in (first, second)]
    _checks.require_same_shape("first", parts[0].mean.shape, second=parts[1].mean)
    moments, count = _merge(*parts), first.num_estimates + second.num_estimates
    spread, back = moments.squares / (count - 1), unflatten(first.gradient)
    return GradientReference(
        gradient=back(moments.mean),
        standard_error=back(jnp.sqrt(spread / count)),
        variance=jnp.sum(spread),
        num_estimates=count,
        num_trajectories=first.num_trajectories + second.num_trajectories,
        num_steps=first.num_steps + second.num_steps,
    )


def _merge(first: _Moments, second: _Moments) -> _Moments:
    """Moments of two sets seen together; the second holds at least one."""
    count = first.count + second.count
    share, gap = second.count / count, second.mean - first.mean
    squares = first.squares + second.squares + jnp.square(gap) * (first.count * share)
    return _Moments(count, first.mean + gap * share, squares)


def _moments_of(reference: GradientReference) -> _Moments:
    mean, error = flat(reference.gradient), flat(reference.standard_error)
    count = jnp.asarray(reference.num_estimates, mean.dtype)
    return _Moments(count, mean, jnp.square(error) * count * (count - 1))
