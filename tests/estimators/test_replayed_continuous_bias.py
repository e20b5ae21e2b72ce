"""The mean of ACER for continuous actions, by quadrature: unbiased with the correction, biased without it."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import exact

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

DISCOUNT = 0.8
LINE, CURVE = 0.7, -0.9  # exact action values Q(u) = 1 + LINE u + CURVE u², u before squashing
OWN, OTHER = np.array([0.3, 0.6]), np.array([-0.2, 0.9])  # mean and scale of π and μ
UNBOUNDED: dict[str, Any] = {
    "normal": lambda loc, scale: pg.Normal(loc, scale),
    "squashed": lambda loc, scale: pg.TanhNormal(loc, scale, -2.0, 2.0),
}


def every_action(kind: str, num_nodes: int = 90) -> tuple[pg.Trajectory, Any, np.ndarray, np.ndarray]:
    """Each pair of an action that was taken and one that is drawn anew: (window, μ, noise, weights)."""
    nodes = np.linspace(OTHER[0] - 7 * OTHER[1], OTHER[0] + 7 * OTHER[1], num_nodes)
    chance = lambda law: np.exp(-0.5 * ((nodes - law[0]) / law[1]) ** 2) / law[1] / np.sqrt(2 * np.pi)  # noqa: E731
    width = nodes[1] - nodes[0]
    weights = width * chance(OTHER)[:, None] * width * chance(OWN)[None]
    taken, anew = (x.ravel()[None, :, None] for x in np.meshgrid(nodes, nodes, indexing="ij"))
    behaviour = UNBOUNDED[kind](jnp.full(taken.shape, OTHER[0]), OTHER[1])
    action, raw, log_prob = pg.distributions.action_from_noise(behaviour, jnp.asarray((taken - OTHER[0]) / OTHER[1]))
    obs, no = np.ones_like(taken), np.zeros(taken.shape[:2], bool)
    reward = 1 + LINE * taken + CURVE * taken**2 - DISCOUNT * 1.5  # the state ahead is worth 1.5
    obs, next_obs, reward = (jnp.asarray(x) for x in (obs, 0 * obs, reward[..., 0]))
    step = no.astype(np.int32)
    window = pg.Trajectory(obs, action, reward, next_obs, no, no, log_prob, step).replace(raw_action=raw)
    ends = np.ones_like(taken)  # the mean over ±1 is exact for what is quadratic
    noise = np.stack([(anew - OWN[0]) / OWN[1], ends, -ends])
    return window, behaviour, noise, weights.ravel()


@functools.cache
def expected_gradient_of(kind: str) -> Any:
    window, behaviour, noise, weights = every_action(kind)

    def policy(params: Any, obs: Any) -> Any:
        return UNBOUNDED[kind](params["loc"] + 0 * obs, jnp.exp(params["log_scale"]))

    def state_value(params: Any, obs: Any) -> Any:
        exact = 1 + LINE * OWN[0] + CURVE * (OWN[0] ** 2 + OWN[1] ** 2)
        return jnp.where(obs[..., 0] == 0, 1.5, exact)

    def advantage(params: Any, obs: Any, action: Any) -> Any:
        u = (jnp.arctanh(action / 2.0) if kind == "squashed" else action)[..., 0]
        return params["line"] * u + params["curve"] * u**2

    @jax.jit
    def expected(clip_rho: Any, line: Any, curve: Any, behaviour: Any) -> Any:
        params = {"loc": jnp.asarray(OWN[0]), "log_scale": jnp.log(OWN[1]), "line": line, "curve": curve}
        each, _ = pg.acer_continuous.per_trajectory(
            params, window, policy=policy, value=state_value, critic=advantage, behaviour=behaviour,
            noise=jnp.asarray(noise), discount=DISCOUNT, clip_rho=clip_rho,
        )  # fmt: skip
        return jnp.stack([weights @ each["loc"], weights @ each["log_scale"]])

    own = policy({"loc": OWN[0], "log_scale": np.log(OWN[1])}, window.obs)
    return lambda c, line=LINE, curve=CURVE, mu=behaviour: np.asarray(expected(c, line, curve, mu)), own


@pytest.mark.parametrize("kind", UNBOUNDED)
def test_truncation_and_correction_are_importance_sampling_at_exact_values(kind: str) -> None:
    """In expectation over both actions, for any c; not without the correction, nor with a wrong critic."""
    expected, own = expected_gradient_of(kind)
    exact = -np.array([LINE + 2 * CURVE * OWN[0], 2 * CURVE * OWN[1] ** 2])  # of E_π Q, as a descent direction
    for clip_rho in (0.3, 0.8, 1.4, np.inf):
        np.testing.assert_allclose(expected(clip_rho), exact, atol=1e-10)
    uncorrected = expected(0.8, mu=own)  # an action drawn anew has ratio 1 then, and 1 - c of it is no correction
    wrong = expected(0.8, line=0.0, curve=0.0)
    assert np.abs(uncorrected - exact).max() > 1e-2
    assert np.abs(wrong - exact).max() > 1e-2
    np.testing.assert_allclose(expected(np.inf, line=0.0, curve=0.0), exact, atol=1e-10)  # no critic, no bias


def test_on_own_data_no_value_and_no_critic_biases_it_where_there_is_no_discount_to_drop() -> None:
    """By quadrature over whole episodes of a linear-quadratic system; a truncated ratio without a correction does."""
    lqr, gain = exact.scalar_lqr()
    problem = exact.lqr_problem("undiscounted", dataclasses.replace(lqr, discount=jnp.ones(())), gain, num_steps=2)
    (entry,) = [c for c in exact.registry() if c.estimator is pg.acer_continuous]
    truncated = lambda p, t: entry.arguments(p, t) | {"clip_rho": 0.5}  # noqa: E731  its drawn action is the mean
    right, wrong = exact.certify_all(
        [
            dataclasses.replace(entry, claim="gradient"),
            dataclasses.replace(entry, name="truncated", arguments=truncated),
        ],
        problem,
    )
    assert right.unbiased
    assert right.relative_bias < 1e-10
    assert wrong.relative_bias > 1e-1
