"""Estimates of KL(π ‖ ref) from single actions, and what their gradients are worth: the two are different questions."""

import jax
import jax.numpy as jnp

from pgjax._compile import compiled
from pgjax._ratios import k3_of
from pgjax.losses._pair import as_pair

Array = jax.Array


@compiled()
def kl_k1(log_prob: Array, ref_log_prob: Array) -> Array:
    """Compute the plain estimate of KL(π ‖ ref) of each step: for the reward, never as a loss.

        k1 = log π(a|s) - log ref(a|s),   a ~ π

    Shapes: log_prob, ref_log_prob [T, ...]; result [T, ...].

    Args:
        log_prob: [T, ...] float, nats, of the actions taken under the policy that took them.
        ref_log_prob: [T, ...] float, nats, of the same actions under the reference.

    Returns:
        [T, ...] float, nats, of either sign.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        Unbiased as a value. Its gradient at fixed actions is the score, whose expectation is 0: as a loss it does
        nothing but add noise. In the reward, ``reward - coefficient * kl_k1(trajectory.log_prob, ref_log_prob)``, a
        constant there, it makes any estimator follow the objective minus the coefficient times the divergence of whole
        trajectories, whose later terms depend on earlier actions. Actions of another policy need the weight π/μ.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.kl_k1(jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))))
        [ 0.6931472 -0.4054651]

    References:
        Schulman (2020), Approximating KL divergence, who names k1, k2 and k3.
        Tang and Munos (2025), On a few pitfalls in KL divergence gradient estimation for RL.
    """
    log_prob, ref_log_prob = as_pair("log_prob", log_prob, "ref_log_prob", ref_log_prob)
    return log_prob - ref_log_prob


@compiled()
def kl_k2(log_prob: Array, ref_log_prob: Array) -> Array:
    """Compute half the squared log-ratio of each step: a loss with the gradient of KL(π ‖ ref).

        k2 = ½ (log π(a|s) - log ref(a|s))²,   a ~ π

    Shapes: log_prob, ref_log_prob [T, ...]; result [T, ...].

    Args:
        log_prob: [T, ...] float, nats, of the actions taken under the policy that took them, differentiable.
        ref_log_prob: [T, ...] float, nats, of the same actions under the reference.

    Returns:
        [T, ...] float, nats, never negative.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        Its gradient at fixed actions, log(π/ref) ∇log π, is unbiased for that of KL(π ‖ ref) in each state. As a value
        it is biased by terms of third order in the log-ratio. The states that the policy visits count as given: the
        gradient of the divergence of whole trajectories is that of `kl_k1` in the reward. Actions of another policy
        need the weight π/μ as a constant.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> half, quarter = jnp.log(jnp.array([0.5])), jnp.log(jnp.array([0.25]))
        >>> print(pg.kl_k2(half, quarter), jax.grad(lambda x: pg.kl_k2(x, quarter).sum())(half))
        [0.2402265] [0.6931472]

    References:
        Schulman (2020), Approximating KL divergence.
        Tang and Munos (2025), On a few pitfalls in KL divergence gradient estimation for RL.
    """
    log_prob, ref_log_prob = as_pair("log_prob", log_prob, "ref_log_prob", ref_log_prob)
    return 0.5 * jnp.square(log_prob - ref_log_prob)


@compiled()
def kl_k3(log_prob: Array, ref_log_prob: Array) -> Array:
    """Compute the estimate of KL(π ‖ ref) of each step that is never negative: a loss with another gradient.

        k3 = r - 1 - log r,   r = ref(a|s) / π(a|s),   a ~ π

    Shapes: log_prob, ref_log_prob [T, ...]; result [T, ...].

    Args:
        log_prob: [T, ...] float, nats, of the actions taken under the policy that took them, differentiable.
        ref_log_prob: [T, ...] float, nats, of the same actions under the reference; log r above 20 is taken as 20,
            and has no gradient there.

    Returns:
        [T, ...] float, nats, never negative.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        Unbiased as a value, with little variance near the reference and heavy tails where ref exceeds π. Its gradient
        at fixed actions, (1 - r) ∇log π, is unbiased for that of the *other* divergence, KL(ref ‖ π), in each state.
        For the gradient of KL(π ‖ ref) use `kl_k2`, or `kl_k1` as a constant in the reward. As a constant in the reward
        k3 gives the difference of the two gradients, so that both places together give that of KL(π ‖ ref). The mean
        of k3 is `pgjax.diagnostics.approximate_kl` of the log-ratio.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> half, quarter = jnp.log(jnp.array([0.5])), jnp.log(jnp.array([0.25]))
        >>> print(pg.kl_k3(half, quarter), jax.grad(lambda x: pg.kl_k3(x, quarter).sum())(half))
        [0.19314718] [0.5]

    References:
        Schulman (2020), Approximating KL divergence.
        Tang and Munos (2025), On a few pitfalls in KL divergence gradient estimation for RL.
    """
    log_prob, ref_log_prob = as_pair("log_prob", log_prob, "ref_log_prob", ref_log_prob)
    return k3_of(ref_log_prob - log_prob)
