"""A scalar linear-quadratic problem to certify estimators on; quadrature takes the place of enumeration."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import _checks
from pgjax._types import Params, Policy, Trajectory
from pgjax.certify.problems._float64 import exactly
from pgjax.distributions import Normal
from pgjax.exact.enumeration import gauss_hermite
from pgjax.exact.lqr.environment import LQREnvironment
from pgjax.exact.lqr.system import LQR

Array = jax.Array

# Second moments of the estimators are of degree eight at most in each of the normal variables.
NODES = 5


@dataclasses.dataclass(frozen=True, eq=False)
class LQRProblem:
    """A scalar linear-quadratic system with a normal policy around a linear feedback: see `lqr_problem`.

    Shapes: params [1, 1].

    Args:
        name: what it is called in tables.
        lqr: the system, in float64, with a horizon.
        params: [1, 1] float64, the gain.
    """

    name: str
    lqr: LQR
    params: Array

    directions = ("discounted",)
    takes_rules = False
    # The value that an observation without time can have is that of the first step.
    offers = frozenset({"own data", "whole episodes", "equal lengths", "smooth samples", "differentiable steps"})

    @property
    def discount(self) -> float:
        """γ, a number in [0, 1]."""
        return float(self.lqr.discount)

    @property
    def num_steps(self) -> int:
        """Length of a trajectory, environment steps."""
        return int(self.lqr.horizon)  # type: ignore[arg-type]

    @functools.cached_property
    def policy(self) -> Policy:
        """policy(params, obs) -> Normal(-K x, σ)."""
        scale = float(np.sqrt(np.asarray(self.lqr.action_covariance)[0, 0]))

        def act(params: Params, obs: Array) -> Normal:
            loc = -obs @ params.T
            return Normal(loc, jnp.full_like(loc, scale))

        return act

    @property
    def collecting_policy(self) -> Policy:
        """The same policy."""
        return self.policy

    @exactly
    def objective(self) -> float:
        """Scalar: minus the expected discounted cost."""
        return float(self.lqr.objective(self.params))

    @exactly
    def _cost_to_go(self) -> tuple[Array, Array]:
        return self.lqr.cost_to_go(self.params)

    @functools.cached_property
    def value(self) -> Callable[[Params, Array], Array]:
        """The value of a state at the first step, value(params, obs), a constant in params."""

        def value(params: Params, obs: Array) -> Array:
            matrices, offsets = self._cost_to_go
            return -(jnp.einsum("...i,ij,...j->...", obs, matrices[0], obs) + offsets[0])

        return value

    @functools.cached_property
    def erring_value(self) -> Callable[[Params, Array], Array]:
        """Half of it."""
        return lambda params, obs: 0.5 * self.value(params, obs)

    @functools.cached_property
    def critic(self) -> Callable[[Array, Array], Array]:
        """The value of an action at the first step but for a constant, critic(obs, action), a constant in params."""

        def critic(obs: Array, action: Array) -> Array:
            lqr, matrix = self.lqr, self._cost_to_go[0][1]
            after = obs @ lqr.A.T + action @ lqr.B.T
            cost = jnp.einsum("...i,ij,...j->...", obs, lqr.Q, obs)
            cost += jnp.einsum("...i,ij,...j->...", action, lqr.R, action)
            return -(cost + self.discount * jnp.einsum("...i,ij,...j->...", after, matrix, after))

        return critic

    @functools.cached_property
    def erring_critic(self) -> Callable[[Array, Array], Array]:
        """Half of it."""
        return lambda obs, action: 0.5 * self.critic(obs, action)

    @exactly
    def known(self) -> dict[str, Any]:
        """The one direction that is known, [1], by name."""
        return {"discounted": np.asarray(self.lqr.policy_gradient(self.params)).ravel()}

    def direction(self, name: str = "discounted") -> Array:
        """Compute the gradient of the objective (ascent), the one direction that is known here.

        Args:
            name: "discounted".

        Returns:
            [1] float.

        Raises:
            ValueError: if there is no such direction.
        """
        if name not in self.directions:
            raise ValueError(
                f"direction must be 'discounted' on a linear-quadratic problem, got {name!r}. Leave it out."
            )
        return jnp.asarray(self.known[name])

    def count(self) -> float:
        """Count the nodes of the quadrature.

        Returns:
            Their number.
        """
        return float(NODES ** (2 * self.num_steps))

    @exactly
    def enumerated(self) -> tuple[Trajectory, Array]:
        """A quadrature batch [num_steps, N] and its weights [N]: moments of polynomials in it are exact."""
        lqr, horizon = self.lqr, self.num_steps
        # The first state, then an action and a disturbance for each step; the last disturbance touches nothing.
        nodes, weights = gauss_hermite(NODES, (2 * horizon,))
        x = lqr.initial_mean[0] + jnp.sqrt(lqr.initial_covariance[0, 0]) * nodes[:, 0]
        rows = []
        for t in range(horizon):
            push = jnp.sqrt(lqr.action_covariance[0, 0]) * nodes[:, 1 + t]
            disturbance = nodes[:, 1 + horizon + t] if t < horizon - 1 else jnp.zeros_like(x)
            action = -self.params[0, 0] * x + push
            after = lqr.A[0, 0] * x + lqr.B[0, 0] * action + jnp.sqrt(lqr.noise_covariance[0, 0]) * disturbance
            rows.append((x, action, -(lqr.Q[0, 0] * x**2 + lqr.R[0, 0] * action**2), after))
            x = after
        obs, action, reward, next_obs = (jnp.stack(column) for column in zip(*rows, strict=True))
        step = jnp.broadcast_to(jnp.arange(horizon, dtype=jnp.int32)[:, None], reward.shape)
        distribution = self.policy(self.params, obs[..., None])
        return Trajectory(
            obs=obs[..., None],
            action=action[..., None],
            reward=reward,
            next_obs=next_obs[..., None],
            terminated=step == horizon - 1,
            truncated=jnp.zeros(step.shape, bool),
            log_prob=distribution.log_prob(action[..., None]),
            step=step,
            raw_action=action[..., None],
        ), weights

    @functools.cached_property
    def environment(self) -> LQREnvironment:
        """The same system to roll out in."""
        return LQREnvironment(self.lqr)


def lqr_problem(name: str, lqr: LQR, gain: Array, *, num_steps: int | None = None) -> LQRProblem:
    """Build a linear-quadratic problem to certify estimators on, in float64.

    Shapes: gain [1, 1].

    Args:
        name: what it is called in tables.
        lqr: a scalar system.
        gain: [1, 1] float, K, the parameter of the policy.
        num_steps: length of a trajectory, environment steps; None takes the horizon of the system.

    Returns:
        The problem.

    Raises:
        TypeError: if num_steps is not an int.
        ValueError: if the system is not scalar, or there is no number of steps.

    Example:
        >>> from pgjax import exact
        >>> problem = exact.lqr_problem("scalar", *exact.scalar_lqr(), num_steps=2)
        >>> print(problem.count(), f"{problem.objective:.2f}")
        625.0 -2.00
    """
    num_steps = lqr.horizon if num_steps is None else num_steps
    horizon = _checks.as_positive_int("num_steps", num_steps)
    _checks.require_shape("lqr.B", lqr.B, (1, 1), "[1, 1]")
    _checks.require_shape("gain", gain, (1, 1), "[1, 1]")
    with jax.enable_x64(True):
        names = [f.name for f in dataclasses.fields(lqr) if f.name != "horizon"]
        arrays = {field: jnp.asarray(np.asarray(getattr(lqr, field)), float) for field in names}
        return LQRProblem(name, LQR(**arrays, horizon=horizon), jnp.asarray(gain, float))
