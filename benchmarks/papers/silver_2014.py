"""The stochastic policy gradient, its mean and its variance, as the noise of the policy goes to zero."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import COLOURS, save

import pgjax as pg
from papers._form import Finding, number, panels, verdicts
from pgjax.expectation import at_mode

TITLE = "The deterministic gradient is the limit of the stochastic one"
REFERENCE = "Silver, Lever, Heess, Degris, Wierstra and Riedmiller (2014), *Deterministic policy gradient algorithms*."
CLAIM = (
    "As the deviation σ of a normal policy goes to zero, the gradient of its return tends to the deterministic policy "
    "gradient, the sum over states of ∇μ(s) ∂q(s, a)/∂a at a = μ(s). The score function gets there by a difference of "
    "large numbers: its variance grows without bound, where the deterministic gradient draws no action at all. Here a "
    "point on a line takes two steps under smooth rewards that are not quadratic; means and variances are sums over "
    "all nodes of the noise."
)
DISCOUNT, START = 0.9, 0.4
PARAMS = (0.7, -0.3)  # slope and constant of the mean


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured."""

    points: int  # values of σ
    nodes: int  # for the noise of each of the two actions


FULL, FAST = Size(25, 48), Size(7, 24)


def _reward(s: Any, a: Any) -> Any:
    return jnp.cos(2.0 * a) - 0.5 * jnp.square(jnp.sin(s + a))


def _next(s: Any, a: Any) -> Any:
    return 0.8 * s + 0.5 * jnp.sin(a)


def _mean(params: Any, s: Any) -> Any:
    return params[0] * s + params[1]


def _policy(sigma: Any, params: Any, obs: Any) -> pg.Normal:
    return pg.Normal(_mean(params, obs[..., :1]), jnp.broadcast_to(sigma, (*obs.shape[:-1], 1)))


def _critic(params: Any, obs: Any, action: Any) -> Any:
    """The action value of the deterministic policy; an observation is the place and the step."""
    s, a = obs[..., 0], action[..., 0]
    later = _next(s, a)
    value = jnp.where(obs[..., 1] < 0.5, _reward(later, _mean(params, later)), 0.0)
    return _reward(s, a) + DISCOUNT * value


def _rollouts(params: Any, actions_of: Any) -> pg.Trajectory:
    """Two steps for each column of noise, [2, B]."""
    s, rows = jnp.full(actions_of.shape[1], START), []
    for t in range(2):
        a = _mean(params, s) + actions_of[t]
        later = _next(s, a)
        stamp = lambda x, k: jnp.stack([x, jnp.full_like(x, k)], -1)  # noqa: E731
        rows.append((stamp(s, t), a[:, None], _reward(s, a), stamp(later, t + 1)))
        s = later
    obs, action, reward, next_obs = (jnp.stack(x) for x in zip(*rows, strict=True))
    step = jnp.broadcast_to(jnp.arange(2)[:, None], reward.shape)
    return pg.Trajectory(obs, action, reward, next_obs, step == 1, step < 0, jnp.zeros_like(reward), step)


def _at(params: Any, sigma: Any, size: int) -> dict[str, Any]:
    """The gradient of the return at σ, and mean and variance of one trajectory's score-function gradient."""
    x, w = np.polynomial.hermite_e.hermegauss(size)
    noise = sigma * jnp.stack([g.ravel() for g in jnp.meshgrid(x, x)])
    weights = jnp.asarray(np.outer(w, w).ravel() / np.sum(w) ** 2)

    def value(params: Any) -> Any:
        return weights @ (jnp.asarray([1.0, DISCOUNT]) @ _rollouts(params, noise).reward)

    each, _ = pg.reinforce.per_trajectory(
        params, _rollouts(params, noise), policy=pg.bind(_policy, sigma), discount=DISCOUNT,
        step_weight=jnp.asarray([[1.0], [DISCOUNT]]) * jnp.ones(noise.shape),
    )  # fmt: skip
    mean = weights @ -each
    return {"gradient": jax.grad(value)(params), "mean": mean, "variance": weights @ jnp.square(-each - mean).sum(1)}


def measure(size: Size) -> dict[str, Any]:
    """At each σ; and the deterministic gradient, by the rule at the mode."""
    with jax.enable_x64(True):
        params, sigmas = jnp.asarray(PARAMS), np.geomspace(0.01, 1.0, size.points)
        found = jax.jit(lambda s: jax.lax.map(lambda sigma: _at(params, sigma, size.nodes), s))(jnp.asarray(sigmas))
        still = _rollouts(params, jnp.zeros((2, 1)))
        limit, _ = pg.expected_gradient(
            params, still, policy=pg.bind(_policy, jnp.asarray(1.0)), rule=at_mode, critic=pg.bind(_critic, params),
            step_weight=jnp.asarray([[1.0], [DISCOUNT]]),
        )  # fmt: skip
        limit = -limit
        distance = jnp.linalg.norm(found["gradient"] - limit, axis=1) / jnp.linalg.norm(limit)
        return {
            "sigma": sigmas.tolist(),
            "distance": distance.tolist(),
            "variance": (found["variance"] / jnp.sum(jnp.square(limit))).tolist(),
            "error": float(jnp.max(jnp.abs(found["mean"] - found["gradient"]))),
        }


def draw(figures: dict[str, Any], path: Path) -> None:
    """Distance of the gradient from its limit, and the variance of one trajectory, against σ."""
    figure, grid = panels(1, 2)
    for panel, name, colour in zip(grid[0], ("distance", "variance"), COLOURS, strict=False):
        panel.plot(figures["sigma"], figures[name], "o-", color=colour, markersize=3.5)
        panel.set(xscale="log", yscale="log", xlabel="deviation σ of the policy")
    grid[0, 0].set(title="stochastic less deterministic gradient", ylabel="distance / norm of the deterministic one")
    grid[0, 1].set(title="score function, one trajectory", ylabel="variance / square of that norm")
    save(figure, path)


def _slope(figures: dict[str, Any], name: str) -> float:
    """Exponent of σ over the smallest third of its values."""
    few = max(len(figures["sigma"]) // 3, 2)
    return float(np.polyfit(np.log(figures["sigma"][:few]), np.log(figures[name][:few]), 1)[0])


def verdict(figures: dict[str, Any]) -> str:
    """Say how fast both go where they go."""
    distance, variance = _slope(figures, "distance"), _slope(figures, "variance")
    smallest, largest = figures["sigma"][0], figures["sigma"][-1]
    return verdicts(
        Finding(
            "The stochastic gradient tends to the deterministic one.",
            figures["distance"][0] < 1e-2 and distance > 1.0,
            f"at σ = {smallest:g} it is off by {number(figures['distance'][0])} of its norm, at σ = {largest:g} by "
            f"{number(figures['distance'][-1])}; the distance falls as σ to the power {distance:.2f}.",
        ),
        Finding(
            "The variance of the score function grows without bound on the way.",
            variance < -1.0,
            f"as σ to the power {variance:.2f}, to {number(figures['variance'][0])} squared norms of the gradient at "
            f"σ = {smallest:g}; its mean is the gradient all the same, to {number(figures['error'])}.",
        ),
    )
