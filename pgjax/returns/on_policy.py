"""Returns and advantages of the policy that collected the data."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax.returns._window import checked_window
from pgjax.returns.recurrence import Method, affine_recurrence, weigh

Array = jax.Array


@compiled("method", unit_interval=("discount",))
def discounted_returns(
    reward: Array,
    next_value: Array | None = None,
    *,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    method: Method | None = None,
) -> Array:
    """Compute the discounted return that follows each step of a window.

        G_t = r_t + γ_t G_{t+1}            inside an episode,  γ_t = γ (1 - terminated_t)
        G_t = r_t + γ_t v'_t               where the episode or the window is cut
        v' = 0 without next_value: rewards beyond the cut are then missing from G.

    Shapes: every array [T, ...]; result [T, ...].

    Args:
        reward: [T, ...] float, reward units.
        next_value: [T, ...] float, value of the observation that each step led to, before any reset; or None.
        terminated: [T, ...] bool, the episode ended by itself at this step.
        truncated: [T, ...] bool, the episode was cut by a limit at this step.
        discount: γ, scalar or [T, ...], in [0, 1], per environment step.
        method: see `affine_recurrence`.

    Returns:
        [T, ...] float, the returns, reward units.

    Raises:
        TypeError: if a mask is not boolean or reward is not floating.
        ValueError: if shapes differ, if the window is empty, or if discount is a number outside [0, 1].

    Properties:
        Linear in reward and next_value; differentiable in both and in discount. NaN and infinity do not cross a cut.
        Time and memory O(T).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> no = jnp.zeros(3, bool)
        >>> print(pg.discounted_returns(jnp.ones(3), terminated=no, truncated=no, discount=0.5))
        [1.75 1.5  1.  ]

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 3.3.
    """
    if next_value is None:
        next_value = jnp.zeros_like(_checks.as_floating("reward", reward))
    return lambda_returns(
        reward, next_value, terminated=terminated, truncated=truncated, discount=discount, lam=1.0, method=method
    )


@compiled("n", unit_interval=("discount",))
def n_step_returns(
    reward: Array, next_value: Array, *, terminated: Array, truncated: Array, discount: Array | float, n: int
) -> Array:
    """Compute the n-step return that follows each step, bootstrapped from a value.

        G_t = Σ_{k<m} γ^k r_{t+k} + γ^m v'_{t+m-1},   m = min(n, steps to the next cut)

    with no value after a termination. The end of the window cuts like a truncation.

    Shapes: every array [T, ...]; result [T, ...].

    Args:
        reward: [T, ...] float, reward units.
        next_value: [T, ...] float, value of the observation that each step led to, before any reset.
        terminated: [T, ...] bool, the episode ended by itself at this step.
        truncated: [T, ...] bool, the episode was cut by a limit at this step.
        discount: γ, scalar or [T, ...], in [0, 1], per environment step.
        n: number of rewards before the bootstrap, at least 1; environment steps; static.

    Returns:
        [T, ...] float, the returns, reward units.

    Raises:
        TypeError: if n is not an int, a mask is not boolean, or an array is not floating.
        ValueError: if n < 1, if shapes differ, or if discount is a number outside [0, 1].

    Properties:
        n = 1 is the TD target, n >= T the bootstrapped Monte-Carlo return. NaN and infinity do not cross a cut.
        Time O(T log n).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> no = jnp.zeros(3, bool)
        >>> print(pg.n_step_returns(jnp.ones(3), jnp.zeros(3), terminated=no, truncated=no, discount=0.5, n=2))
        [1.5 1.5 1. ]

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 7.1.
    """
    n = _checks.as_positive_int("n", n)
    reward, next_value, discount_t, cut = checked_window(reward, next_value, terminated, truncated, discount)
    horizon = reward.shape[0]
    # One step is the affine map x -> u + w x; the window of n steps is their composition, by doubling.
    u = reward + jnp.where(cut, weigh(discount_t, next_value), 0.0)
    w = jnp.where(cut, 0.0, discount_t)
    total_u, total_w, done_steps = jnp.zeros_like(u), jnp.ones_like(w), 0
    span = 1
    for bit in bin(min(n, horizon))[:1:-1]:
        if bit == "1":
            total_u = total_u + weigh(total_w, _ahead(u, done_steps))
            total_w = weigh(total_w, _ahead(w, done_steps))
            done_steps += span
        u, w = u + weigh(w, _ahead(u, span)), weigh(w, _ahead(w, span))
        span *= 2
    return total_u + weigh(total_w, _ahead(next_value, done_steps - 1))


def _ahead(x: Array, steps: int) -> Array:
    """Shift x towards the past by ``steps`` rows and fill with zeros."""
    steps = min(steps, x.shape[0])
    return jnp.concatenate([x[steps:], jnp.zeros_like(x[:steps])]) if steps else x


@compiled("method", unit_interval=("discount", "lam"))
def lambda_returns(
    reward: Array,
    next_value: Array,
    *,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    lam: Array | float,
    method: Method | None = None,
) -> Array:
    """Compute the λ-return that follows each step, the geometric mixture of all n-step returns.

        G_t = r_t + γ_t [(1 - λ) v'_t + λ G_{t+1}]     inside an episode,  γ_t = γ (1 - terminated_t)
        G_t = r_t + γ_t v'_t                           where the episode or the window is cut

    Shapes: every array [T, ...]; result [T, ...].

    Args:
        reward: [T, ...] float, reward units.
        next_value: [T, ...] float, value of the observation that each step led to, before any reset.
        terminated: [T, ...] bool, the episode ended by itself at this step.
        truncated: [T, ...] bool, the episode was cut by a limit at this step.
        discount: γ, scalar or [T, ...], in [0, 1], per environment step.
        lam: λ, scalar or [T, ...], in [0, 1]; 0 is the TD target, 1 the bootstrapped return.
        method: see `affine_recurrence`.

    Returns:
        [T, ...] float, the returns, reward units.

    Raises:
        TypeError: if a mask is not boolean or an array is not floating.
        ValueError: if shapes differ, if the window is empty, or if discount or lam is a number outside [0, 1].

    Properties:
        Linear in reward and next_value; differentiable in all but the masks. NaN and infinity do not cross a cut.
        Time and memory O(T).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> no = jnp.zeros(2, bool)
        >>> print(pg.lambda_returns(jnp.ones(2), jnp.ones(2), terminated=no, truncated=no, discount=0.5, lam=0.0))
        [1.5 1.5]

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 12.1.
    """
    reward, next_value, discount_t, cut = checked_window(reward, next_value, terminated, truncated, discount)
    carry = jnp.where(cut, 0.0, _checks.as_scalar_or_shape("lam", lam, reward.shape))
    bootstrap = weigh(discount_t * (1.0 - carry), next_value)
    return affine_recurrence(reward + bootstrap, discount_t * carry, method=method)


@compiled("method", unit_interval=("discount", "lam"))
def gae(
    reward: Array,
    value: Array,
    next_value: Array,
    *,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    lam: Array | float,
    method: Method | None = None,
) -> Array:
    """Compute the generalised advantage estimate of each step.

        δ_t = r_t + γ_t v'_t - v_t,   γ_t = γ (1 - terminated_t)                  (paper: eq. 9 and 10)
        A_t = δ_t + γ_t κ_t λ A_{t+1},   κ_t = 1 - (terminated_t | truncated_t)   (paper: eq. 16)

    The value target that belongs to it is A + value, the λ-return.

    Shapes: every array [T, ...]; result [T, ...].

    Args:
        reward: [T, ...] float, reward units.
        value: [T, ...] float, value of the observation in which each action was chosen.
        next_value: [T, ...] float, value of the observation that each step led to, before any reset.
        terminated: [T, ...] bool, the episode ended by itself at this step.
        truncated: [T, ...] bool, the episode was cut by a limit at this step.
        discount: γ, scalar or [T, ...], in [0, 1], per environment step.
        lam: λ, scalar or [T, ...], in [0, 1]; 0 gives δ, 1 gives the bootstrapped return minus value.
        method: see `affine_recurrence`.

    Returns:
        [T, ...] float, the advantages, reward units.

    Raises:
        TypeError: if a mask is not boolean or an array is not floating.
        ValueError: if shapes differ, if the window is empty, or if discount or lam is a number outside [0, 1].

    Properties:
        With λ = 1 the policy gradient that uses it is unbiased for any value function, as far as the
        window goes; with λ < 1 it is biased unless value is exact. Differentiable. NaN and infinity do not cross a cut.
        Time and memory O(T).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> no = jnp.zeros(2, bool)
        >>> v = jnp.ones(2)
        >>> print(pg.gae(v, v, v, terminated=no, truncated=no, discount=0.5, lam=1.0))
        [0.75 0.5 ]

    References:
        Schulman, Moritz, Levine, Jordan and Abbeel (2016), High-dimensional continuous control using
        generalized advantage estimation, eq. 16.
    """
    reward, next_value, discount_t, cut = checked_window(reward, next_value, terminated, truncated, discount)
    value = _checks.as_floating("value", value)
    _checks.require_same_shape("reward", reward.shape, value=value)
    carry = jnp.where(cut, 0.0, _checks.as_scalar_or_shape("lam", lam, reward.shape))
    delta = reward + weigh(discount_t, next_value) - value
    return affine_recurrence(delta, discount_t * carry, method=method)
