"""Returns and advantages. Every target is one affine recurrence, solved backwards in time.

    X_t = u_t + w_t X_{t+1}

The functions below differ only in ``u`` and ``w``. They work on ``[T]``, ``[T, B]`` and ``[T, S, B]``
alike and carry gradients; nothing is stopped and nothing is averaged.

Two masks decide what happens at the end of an episode. ``terminated``: no value follows, so it
multiplies the bootstrap. ``terminated | truncated``: the next row belongs to another episode, so it
cuts the recurrence. The last row of a window is cut like a truncation.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled

Array = jax.Array
Method = Literal["scan", "associative"]


@compiled("method", "reverse")
def affine_recurrence(u: Array, w: Array, *, initial: Array | float = 0.0, reverse: bool = True, method: Method | None = None) -> Array:
    """Solve the affine recurrence X_t = u_t + w_t X_{t+1} over the leading axis.

        X_t = u_t + w_t X_{t+1},  X_T = initial          (reverse=True)
        X_t = u_t + w_t X_{t-1},  X_{-1} = initial       (reverse=False)

    Shapes: u, w [T, ...]; initial [...] or scalar; result [T, ...].

    Args:
        u: [T, ...] float, the term that is added at each step.
        w: [T, ...] float, the factor of the neighbouring step; dimensionless.
        initial: [...] or scalar, the value beyond the end.
        reverse: backwards in time if true, forwards if false.
        method: "scan" is sequential, "associative" has depth log T. None chooses by the backend:
            scan on CPU, where it is several times faster; associative on accelerators from 16 steps on.

    Returns:
        [T, ...] float, X.

    Raises:
        TypeError: if u or w is not floating.
        ValueError: if w has not the shape of u, if they are empty, or if method is unknown.

    Properties:
        Linear in u and in initial; differentiable in all three. Time O(T), memory O(T).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.affine_recurrence(jnp.ones(3), jnp.full(3, 0.5)))
        [1.75 1.5  1.  ]

    References:
        Blelloch (1990), Prefix sums and their applications: the associative form
        (w1, u1) o (w2, u2) = (w1 w2, u1 + w1 u2).
    """
    u = _checks.floating("u", u, ndim_at_least=1)
    w = _checks.floating("w", w, ndim_at_least=1)
    _checks.same_shape("u", u.shape, w=w)
    if method is None:
        method = "scan" if jax.default_backend() == "cpu" or u.shape[0] < 16 else "associative"
    start = jnp.broadcast_to(jnp.asarray(initial, u.dtype), u.shape[1:])
    if method == "scan":
        return _affine_scan(u, w, start, reverse)
    if method == "associative":
        edge = -1 if reverse else 0
        u = u.at[edge].add(w[edge] * start)
        _, x = jax.lax.associative_scan(_compose, (w, u), reverse=reverse)
        return x
    raise ValueError(f'method must be "scan", "associative" or None, got {method!r}.')


def _affine_scan(u: Array, w: Array, start: Array, reverse: bool) -> Array:
    def step(x: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        u_t, w_t = row
        x = u_t + w_t * x
        return x, x

    return jax.lax.scan(step, start, (u, w), reverse=reverse)[1]


def _compose(later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
    # associative_scan(reverse=True) hands over the part further along the scan first: it is the inner map.
    w_inner, u_inner = later
    w_outer, u_outer = earlier
    return w_outer * w_inner, u_outer + w_outer * u_inner


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
        Linear in reward and next_value; differentiable in both and in discount. Time and memory O(T).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> no = jnp.zeros(3, bool)
        >>> print(pg.discounted_returns(jnp.ones(3), terminated=no, truncated=no, discount=0.5))
        [1.75 1.5  1.  ]

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 3.3.
    """
    if next_value is None:
        next_value = jnp.zeros_like(_checks.floating("reward", reward))
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
        n = 1 is the TD target, n >= T the bootstrapped Monte-Carlo return. Time O(T log n).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> no = jnp.zeros(3, bool)
        >>> print(pg.n_step_returns(jnp.ones(3), jnp.zeros(3), terminated=no, truncated=no, discount=0.5, n=2))
        [1.5 1.5 1. ]

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 7.1.
    """
    n = _checks.positive_int("n", n)
    reward, next_value, discount_t, cut = _window(reward, next_value, terminated, truncated, discount)
    horizon = reward.shape[0]
    # One step is the affine map x -> u + w x; the window of n steps is their composition, by doubling.
    u, w = reward + discount_t * cut * next_value, discount_t * (1.0 - cut)
    total_u, total_w, done_steps = jnp.zeros_like(u), jnp.ones_like(w), 0
    span = 1
    for bit in bin(min(n, horizon))[:1:-1]:
        if bit == "1":
            total_u = total_u + total_w * _ahead(u, done_steps)
            total_w = total_w * _ahead(w, done_steps)
            done_steps += span
        u, w = u + w * _ahead(u, span), w * _ahead(w, span)
        span *= 2
    return total_u + total_w * _ahead(next_value, done_steps - 1)


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
        Linear in reward and next_value; differentiable in all but the masks. Time and memory O(T).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> no = jnp.zeros(2, bool)
        >>> print(pg.lambda_returns(jnp.ones(2), jnp.ones(2), terminated=no, truncated=no, discount=0.5, lam=0.0))
        [1.5 1.5]

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 12.1.
    """
    reward, next_value, discount_t, cut = _window(reward, next_value, terminated, truncated, discount)
    carry = _checks.broadcastable("lam", lam, reward.shape) * (1.0 - cut)
    return affine_recurrence(
        reward + discount_t * (1.0 - carry) * next_value, jnp.broadcast_to(discount_t * carry, reward.shape), method=method
    )


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
        window goes; with λ < 1 it is biased unless value is exact. Differentiable. Time and memory O(T).

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
    reward, next_value, discount_t, cut = _window(reward, next_value, terminated, truncated, discount)
    value = _checks.floating("value", value)
    _checks.same_shape("reward", reward.shape, value=value)
    lam = _checks.broadcastable("lam", lam, reward.shape)
    delta = reward + discount_t * next_value - value
    return affine_recurrence(delta, jnp.broadcast_to(discount_t * lam * (1.0 - cut), reward.shape), method=method)


def _window(
    reward: Array, next_value: Array, terminated: Array, truncated: Array, discount: Array | float
) -> tuple[Array, Array, Array, Array]:
    """Check a window and return reward, next_value, γ (1 - terminated) and the cut mask as floats."""
    reward = _checks.floating("reward", reward, ndim_at_least=1)
    next_value = _checks.floating("next_value", next_value)
    _checks.same_shape("reward", reward.shape, next_value=next_value)
    terminated = _checks.boolean("terminated", terminated, like=reward)
    truncated = _checks.boolean("truncated", truncated, like=reward)
    discount = _checks.broadcastable("discount", discount, reward.shape)
    cut = (terminated | truncated).at[-1].set(True)
    discount_t = discount * (1.0 - terminated.astype(reward.dtype))
    return reward, next_value, discount_t, cut.astype(reward.dtype)
