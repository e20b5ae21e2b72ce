"""Noise for exploration: correlated in time, on the actions of a target, and of other size in each environment."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax.distributions._base import companion

Array = jax.Array


@compiled("num_steps")
def ornstein_uhlenbeck(
    key: Array, state: Array, *, num_steps: int, theta: Array | float = 0.15, restart: Array | None = None
) -> tuple[Array, Array]:
    """Continue Ornstein-Uhlenbeck noise of unit variance: exploration that is correlated in time.

        x <- (1 - θ) x + √(1 - (1 - θ)²) ε,   ε ~ N(0, 1);   started from N(0, 1), so that Var x = 1 at all times

    The stationary form: the deviation of the noise is that of the `ClippedNormal` that it is given to, whatever θ.
    Lillicrap et al. add σ ε in place of the root, so that their deviation is σ / √(1 - (1 - θ)²) of this one; with
    θ = 0.15 and σ = 0.2 it is 0.38.

    Shapes: state [B, D]; noise [T, B, D], T = num_steps.

    Args:
        key: a JAX random key; it is consumed.
        state: [B, D] float, the noise of the step before; at the start ``jax.random.normal(key, (B, D))``.
        num_steps: T, at least 1; static.
        theta: θ between 0 and 1, how much is forgotten in a step; 1 is white noise. Scalar.
        restart: [B] bool, rows whose episode starts at the first step: their past is forgotten. None restarts none.

    Returns:
        (state [B, D] after the last step, noise [T, B, D]): for ``rollout(noise=noise)``.

    Raises:
        TypeError: if state is not floating, or num_steps is not an int.
        ValueError: if num_steps < 1, or shapes differ.

    Properties:
        The correlation of two steps that lie k apart is (1 - θ)^k.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> state, noise = pg.exploration.ornstein_uhlenbeck(
        ...     jax.random.key(0), jnp.zeros((3, 2)), num_steps=4)
        >>> print(noise.shape, bool((noise[-1] == state).all()))
        (4, 3, 2) True

    References:
        Uhlenbeck and Ornstein (1930), On the theory of the Brownian motion.
        Lillicrap et al. (2016), Continuous control with deep reinforcement learning.
    """
    state, num_steps = (
        _checks.as_floating("state", state, ndim_at_least=1),
        _checks.as_positive_int("num_steps", num_steps),
    )
    kept = 1.0 - _checks.as_scalar_or_shape("theta", theta, ()).astype(state.dtype)
    fresh = jax.random.normal(key, (num_steps, *state.shape), state.dtype)
    spread = jnp.sqrt(1.0 - jnp.square(kept))
    if restart is not None:
        restart = _checks.as_boolean("restart", restart)
        _checks.require_leading_shape("state", state, restart.shape, of="restart")
        # A row that restarts begins at a draw of its own: one that is not used otherwise.
        again = jnp.broadcast_to(jnp.expand_dims(restart, range(restart.ndim, state.ndim)), state.shape)
        first = jnp.where(again, fresh[0], kept * state + spread * fresh[0])
    else:
        first = kept * state + spread * fresh[0]

    def step(x: Array, epsilon: Array) -> tuple[Array, Array]:
        x = kept * x + spread * epsilon
        return x, x

    last, rest = jax.lax.scan(step, first, fresh[1:])
    return last, jnp.concatenate([first[None], rest])


@compiled()
def smooth_action(
    key: Array,
    action: Array,
    *,
    scale: Array | float = 0.2,
    clip: Array | float = 0.5,
    low: Array | float = -1.0,
    high: Array | float = 1.0,
) -> Array:
    """Add clipped noise to the action of a target policy, so that a critic's peaks are not exploited.

        a~ = clip(a + (high − low)/2 · clip(σ ε, −c, c), low, high),   ε ~ N(0, 1)

    Shapes: action [..., D]; low, high broadcast to it; result like action.

    Args:
        key: a JAX random key; it is consumed.
        action: [..., D] float, action units.
        scale: σ, in half widths of the box, scalar; 0 leaves actions within the box as they are, bit for bit.
        clip: c, in half widths of the box, scalar.
        low: [..., D] float or scalar, lower bounds, action units.
        high: [..., D] float or scalar, upper bounds, action units.

    Returns:
        [..., D] float within [low, high], action units.

    Raises:
        TypeError: if action is not floating.
        ValueError: if a bound does not broadcast to it, or scale or clip is no scalar.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> smoothed = pg.exploration.smooth_action(jax.random.key(0), jnp.full(1000, 0.75), clip=0.5)
        >>> print(smoothed.min(), smoothed.max())
        0.25 1.0

    References:
        Fujimoto, van Hoof and Meger (2018), Addressing function approximation error in actor-critic methods.
    """
    action = _checks.as_floating("action", action)
    low, high = (companion(name, x, action, of="action") for name, x in (("low", low), ("high", high)))
    scale, clip = (
        _checks.as_scalar_or_shape(name, x, ()).astype(action.dtype) for name, x in (("scale", scale), ("clip", clip))
    )
    noise = jnp.clip(scale * jax.random.normal(key, action.shape, action.dtype), -clip, clip)
    return jnp.clip(action + 0.5 * (high - low) * noise, low, high)


def spread_of_scales(num_envs: int, *, smallest: float, largest: float) -> Array:
    """Spread scales of noise evenly over environments, so that some explore widely and some hardly.

        σ_b = smallest + (largest − smallest) b / (B − 1)

    Shapes: result [B, 1], to broadcast over the components of an action.

    Args:
        num_envs: B, at least 1.
        smallest: scale of the first environment, not negative.
        largest: scale of the last one.

    Returns:
        [B, 1] float, the scales; for one environment the mean of both.

    Raises:
        TypeError: if num_envs is not an int.
        ValueError: if num_envs < 1, or if not 0 <= smallest <= largest.

    Example:
        >>> import pgjax as pg
        >>> print(pg.exploration.spread_of_scales(3, smallest=0.1, largest=0.5)[:, 0])
        [0.1 0.3 0.5]

    References:
        Seo, Sferrazza, Geng, Nauman, Yin and Abbeel (2025), FastTD3: simple, fast, and capable reinforcement learning
        for humanoid control.
    """
    num_envs = _checks.as_positive_int("num_envs", num_envs)
    if not 0 <= smallest <= largest:
        raise ValueError(f"smallest and largest must be 0 <= smallest <= largest, got {smallest} and {largest}.")
    if num_envs == 1:
        return jnp.full((1, 1), 0.5 * (smallest + largest))
    return jnp.linspace(smallest, largest, num_envs)[:, None]
