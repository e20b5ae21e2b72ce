"""What is made of the returns of several trajectories together: means of the others, or of all, and GRPO's advantage.

Groups of trajectories that share a start state are compared among themselves: `repeat_states` makes them, [G, N] for
one number each, [T, G, N] for windows: the members are the last axis.
"""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled

Array = jax.Array


@compiled("axis")
def leave_one_out(return_: Array, mask: Array | None = None, *, axis: int = -1) -> Array:
    """Compute, for each environment, the mean return of all the others.

        b_i = 1/(N-1) Σ_{j≠i} G_j

    Subtracted from one return for each answer to a prompt, or each trajectory from one start state, it is RLOO.

    Shapes: return_ [T, B] or [..., N]; result alike.

    Args:
        return_: [..., N] float, returns of N independent trajectories along axis.
        mask: [..., N] bool, True for the entries that count; None counts all.
        axis: the axis of the independent trajectories; static: the last one of [T, B], and of groups [T, G, N].
            Returns [T, B, A] of agents need axis=1, functools.partial(leave_one_out, axis=1) as a function: agents
            share environments, so what one does changes the returns of the others.

    Returns:
        [..., N] float, the baseline of each; 0 where no other trajectory counts.

    Raises:
        TypeError: if return_ is not floating or mask is not boolean.
        ValueError: if there are fewer than two trajectories, or shapes differ.

    Properties:
        Keeps the gradient unbiased: b_i does not depend on trajectory i. G_i - b_i = N/(N-1) (G_i - mean). For
        small N it may raise the variance. One pass, no N x N matrix.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.leave_one_out(jnp.array([1.0, 2.0, 6.0])))
        [4.  3.5 1.5]

    References:
        Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!
        Ahmadian et al. (2024), Back to basics: revisiting REINFORCE-style optimization for learning from human feedback
        in LLMs.
    """
    return_ = _checks.as_floating("return_", return_, ndim_at_least=1)
    if return_.shape[axis] < 2:
        raise ValueError(
            f"return_ must hold at least 2 trajectories along axis {axis}, got shape {list(return_.shape)}. "
            "One trajectory has no others: use baseline=None, a constant or a value baseline."
        )
    mask = jnp.ones_like(return_, bool) if mask is None else _checks.as_boolean("mask", mask, like=return_)
    origin = _origin(jnp.max(return_, axis, keepdims=True, where=mask, initial=-jnp.inf))
    masked = jnp.where(mask, return_ - origin, 0.0)
    others = mask.sum(axis, keepdims=True) - mask
    return jnp.where(others > 0, origin + (masked.sum(axis, keepdims=True) - masked) / jnp.maximum(others, 1), 0.0)


@compiled("axis")
def batch_mean(return_: Array, *, axis: int = -1) -> Array:
    """Compute the mean return over the environments at each step, the own return included.

        b_t = 1/N Σ_j G_tj

    Shapes: return_ [T, B]; result alike.

    Args:
        return_: [..., N] float, returns of N trajectories along axis.
        axis: the axis of the trajectories, as for `leave_one_out`; static.

    Returns:
        [..., N] float, the mean, repeated along axis.

    Raises:
        TypeError: if return_ is not floating.
        ValueError: if return_ is empty.

    Properties:
        Sees its own sample: the expected gradient shrinks to (N-1)/N of the true one, direction unchanged.
        `leave_one_out` is the same without the shrinkage. With one return for each answer to a prompt it is the
        baseline of Dr. GRPO.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.batch_mean(jnp.array([1.0, 2.0, 6.0])))
        [3. 3. 3.]

    References:
        Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!
        Liu et al. (2025), Understanding R1-Zero-like training: a critical perspective.
    """
    return_ = _checks.as_floating("return_", return_, ndim_at_least=1)
    origin = _origin(return_.max(axis, keepdims=True))
    return jnp.broadcast_to(origin + (return_ - origin).mean(axis, keepdims=True), return_.shape)


@compiled("axis")
def grpo_advantages(return_: Array, length: Array | None = None, *, eps: Array | float = 1e-4, axis: int = -1) -> Array:
    """Compute the advantages of GRPO: returns standardised within their group, divided by the length of each.

        A_i = (R_i - mean(R)) / (std(R) + ε) / L_i

    Shapes: return_ [..., N]; result alike.

    Args:
        return_: [..., N] float, R, the return of each of N members along axis, of groups that share a start state.
        length: [..., N], L, steps of each member, at least 1; None divides by no length.
        eps: ε, reward units, more than 0.
        axis: the axis of the members, as for `leave_one_out`; static.

    Returns:
        [..., N] float, the weights of the scores; 0 in a group whose returns are equal.

    Raises:
        TypeError: if return_ is not floating.
        ValueError: if a group has fewer than two members, or shapes differ.

    Properties:
        Biased: the group's own deviation changes the direction of the gradient and gives each start state another
        weight, small where returns differ much; the length favours short members of positive advantage and long ones of
        negative. return_ - `batch_mean` (Dr. GRPO) leaves out both and shrinks the gradient to (N-1)/N of it;
        return_ - `leave_one_out` (RLOO) is unbiased. std is that of a sample, divided by N - 1. No gradient flows.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.grpo_advantages(jnp.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]), eps=1e-6).round(3))
        [[-1.  0.  1.]
         [ 0.  0.  0.]]

    References:
        Shao et al. (2024), DeepSeekMath: pushing the limits of mathematical reasoning in open language models.
        Liu et al. (2025), Understanding R1-Zero-like training: a critical perspective.
    """
    return_ = jax.lax.stop_gradient(_checks.as_floating("return_", return_, ndim_at_least=1))
    if return_.shape[axis] < 2:
        raise ValueError(
            f"return_ must hold groups of at least 2 along axis {axis}, got shape {list(return_.shape)}. One member "
            "has nobody to be compared with: repeat its start state, see repeat_states."
        )
    centred = return_ - _origin(return_.max(axis, keepdims=True))
    centred = centred - centred.mean(axis, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centred).sum(axis, keepdims=True) / (return_.shape[axis] - 1))
    advantages = centred / (deviation + eps)
    if length is None:
        return advantages
    length = _checks.as_array("length", length)
    _checks.require_same_shape("return_", return_.shape, length=length)
    return advantages / jax.lax.stop_gradient(length).astype(advantages.dtype)


def _origin(largest: Array) -> Array:
    """Return what to count returns from, so that the mean of equal returns is that return without a rounding error.

    An optimiser that scales gradients up would make a step of the error.
    """
    return jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0.0))
