"""ACER's estimator: truncation and correction are importance sampling, and its trust region is a projection."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

pytestmark = pytest.mark.usefixtures("quick_to_compile")
STATES, ACTIONS, DISCOUNT = 3, 3, 0.8


def policy(params: Any, obs: Any) -> pg.Categorical:
    return pg.Categorical(obs @ params["logits"])


def critic(params: Any, obs: Any) -> jax.Array:
    return obs @ params["q"]


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


class Problem:
    """A decision process with deterministic steps, a policy, and its exact action values."""

    def __init__(self, seed: int):
        random = np.random.default_rng(seed)
        self.logits, self.mu = random.normal(size=(STATES, ACTIONS)), random.normal(size=(STATES, ACTIONS))
        self.reward = random.normal(size=(STATES, ACTIONS))
        self.next = random.integers(STATES, size=(STATES, ACTIONS))
        pi = softmax(self.logits)
        moves = np.eye(STATES)[self.next]  # [S, A, S]
        v = np.linalg.solve(
            np.eye(STATES) - DISCOUNT * np.einsum("sa,sax->sx", pi, moves), np.sum(pi * self.reward, -1)
        )
        self.q = self.reward + DISCOUNT * moves @ v
        self.params = {"logits": jnp.asarray(self.logits), "q": jnp.asarray(self.q)}

    def every_step(self) -> tuple[pg.Trajectory, pg.Categorical, np.ndarray]:
        """Every state and action as a window of one step; what acted; and the probability of each action."""
        s, a = (x.ravel() for x in np.mgrid[:STATES, :ACTIONS])
        obs, no = np.eye(STATES)[s][None], np.zeros((1, s.size), bool)
        behaviour = softmax(self.mu)
        trajectory = pg.Trajectory(
            jnp.asarray(obs), jnp.asarray(a[None]), jnp.asarray(self.reward[s, a][None]),
            jnp.asarray(np.eye(STATES)[self.next[s, a]][None]), no, no, jnp.asarray(np.log(behaviour[s, a])[None]),
            np.zeros((1, s.size), np.int32),
        )  # fmt: skip
        return trajectory, pg.Categorical(jnp.asarray(self.mu[s][None])), behaviour[s, a]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", range(3))
def test_identity_10_truncation_and_correction_are_importance_sampling_at_exact_values(seed: int) -> None:
    """Summed over all actions of another policy, for any c; not without the correction or with a wrong critic."""
    problem = Problem(seed)
    trajectory, behaviour, probability = problem.every_step()
    pi, v = softmax(problem.logits), np.sum(softmax(problem.logits) * problem.q, -1, keepdims=True)
    exact = -pi * (problem.q - v)  # Σ_a π A ∇log π, with respect to the logits; the scores' means are 0

    def expected(clip_rho: float, params: Any, behaviour: Any) -> np.ndarray:
        each, _ = pg.acer.per_trajectory(
            params, trajectory, policy=policy, critic=critic, behaviour=behaviour, discount=DISCOUNT, clip_rho=clip_rho
        )
        return np.einsum("b,bsa->sa", probability, each["logits"])

    own = policy(problem.params, trajectory.obs)
    wrong = problem.params | {"q": problem.params["q"] + jnp.asarray(np.random.default_rng(9).normal(size=(3, 3)))}
    for clip_rho in (0.2, 0.7, *np.random.default_rng(seed).uniform(0.5, 3.0, 3), np.inf):
        np.testing.assert_allclose(expected(clip_rho, problem.params, behaviour), exact, atol=1e-12)
    assert np.abs(expected(1.0, problem.params, own) - exact).max() > 1e-2  # π <= c π: no correction
    assert np.abs(expected(0.5, wrong, behaviour) - exact).max() > 1e-2


def some_window(seed: int) -> tuple[pg.Trajectory, pg.Categorical]:
    """Windows of 5 steps in 4 environments, of another policy, with both kinds of end."""
    random = np.random.default_rng(seed)
    mu = random.normal(size=(5, 4, ACTIONS))
    action = random.integers(ACTIONS, size=(5, 4))
    log_mu = np.log(np.take_along_axis(softmax(mu), action[..., None], -1)[..., 0])
    obs, next_obs = (np.eye(STATES)[random.integers(STATES, size=(5, 4))] for _ in range(2))
    ends = random.random((2, 5, 4)) < 0.2
    next_obs[:-1] = np.where((ends[0] | ends[1])[:-1, :, None], next_obs[:-1], obs[1:])
    reward = random.normal(size=(5, 4))
    fields: Any = (obs, action, reward, next_obs, *ends, log_mu, np.zeros((5, 4), np.int32))
    return pg.Trajectory(*(jnp.asarray(x) for x in fields)), pg.Categorical(jnp.asarray(mu))


@pytest.mark.usefixtures("x64")
def test_without_truncation_it_is_off_policy_actor_critic_with_retrace() -> None:
    params, (t, behaviour) = Problem(1).params, some_window(0)
    options = {"policy": policy, "critic": critic, "behaviour": behaviour, "discount": DISCOUNT, "lam": 0.7}
    pi = softmax(np.asarray(t.obs @ params["logits"]))
    take = lambda x: np.take_along_axis(np.asarray(x), np.asarray(t.action)[..., None], -1)[..., 0]  # noqa: E731
    q, q_next = np.asarray(t.obs @ params["q"]), np.asarray(t.next_obs @ params["q"])
    v_next = np.sum(softmax(np.asarray(t.next_obs @ params["logits"])) * q_next, -1)
    log_ratio = np.log(take(pi)) - np.asarray(t.log_prob)
    target = pg.retrace(
        t.reward, jnp.asarray(take(q)), jnp.asarray(v_next), log_ratio=jnp.asarray(log_ratio),
        terminated=t.terminated, truncated=t.truncated, discount=DISCOUNT, lam=0.7,
    )  # fmt: skip
    weight = np.exp(log_ratio) * (np.asarray(target) - np.sum(pi * q, -1))
    scores = np.eye(ACTIONS)[np.asarray(t.action)] - pi
    actor = -np.einsum("tb,tbs,tba->sa", weight, t.obs, scores) / 4
    error = take(q) - np.asarray(target)
    values = np.einsum("tb,tbs,tba->sa", error, t.obs, np.eye(ACTIONS)[np.asarray(t.action)]) / 4
    grads, info = pg.acer(params, t, **options, clip_rho=np.inf, value_coef=0.5)
    np.testing.assert_allclose(grads["logits"], actor, atol=1e-12)
    np.testing.assert_allclose(grads["q"], 0.5 * values, atol=1e-12)
    np.testing.assert_allclose(info.targets["value_target"], target, atol=1e-12)
    assert np.abs(pg.acer(params, t, **options, clip_rho=1.0)[0]["logits"] - actor).max() > 1e-2


@pytest.mark.usefixtures("x64")
def test_the_trust_region_holds_in_every_state_and_at_infinity_there_is_none() -> None:
    params, (t, behaviour) = Problem(1).params, some_window(0)
    average = params | {"logits": params["logits"] + jnp.asarray(np.random.default_rng(3).normal(size=(3, 3)))}
    options = {"policy": policy, "critic": critic, "behaviour": behaviour, "discount": DISCOUNT, "clip_rho": 2.0}
    free, seen = pg.acer(params, t, **options)
    same, _ = pg.acer(params, t, **options, average_params=average, max_divergence=np.inf)
    np.testing.assert_array_equal(free["logits"], same["logits"])
    normal = softmax(np.asarray(t.obs @ params["logits"])) - softmax(np.asarray(t.obs @ average["logits"]))
    g = np.asarray(seen.targets["direction"])
    for bound in (0.3, 0.01):
        grads, info = pg.acer(params, t, **options, average_params=average, max_divergence=bound)
        z = np.asarray(info.targets["direction"])
        assert (np.sum(normal * z, -1) <= bound + 1e-12).all()
        inside = np.sum(normal * g, -1) <= bound
        assert 0 < inside.sum() < inside.size
        np.testing.assert_allclose(info.metrics["projected_fraction"], 1 - inside.mean())
        np.testing.assert_array_equal(z[inside], g[inside])
        assert np.abs(grads["logits"] - free["logits"]).max() > 1e-3
        np.testing.assert_array_equal(grads["q"], same["q"])


@pytest.mark.usefixtures("x64")
def test_the_projection_satisfies_the_conditions_of_the_nearest_point() -> None:
    """z - g = -λ k with λ >= 0, kᵀz <= δ, and λ (kᵀz - δ) = 0; also for δ < 0, for no normal, and for no bound."""
    random = np.random.default_rng(0)
    g, k = random.normal(size=(2, 200, 4))
    k[:20] = 0.0
    bound = random.normal(size=200)
    bound[:20] = np.abs(bound[:20])
    z = np.asarray(pg.project_to_halfspace(jnp.asarray(g), jnp.asarray(k), bound=jnp.asarray(bound)))
    slack = np.sum(k * z, -1) - bound
    assert (slack <= 1e-12).all()
    square = np.sum(k * k, -1)
    multiplier = np.where(square > 0, np.sum(k * (g - z), -1) / np.where(square > 0, square, 1), 0)
    assert (multiplier >= 0).all()
    np.testing.assert_allclose(g - z, multiplier[:, None] * k, atol=1e-12)
    np.testing.assert_allclose(multiplier * slack, 0.0, atol=1e-12)
    feasible = np.sum(k * g, -1) <= bound
    assert 50 < feasible.sum() < 150
    np.testing.assert_array_equal(z[feasible], g[feasible])
    np.testing.assert_array_equal(pg.project_to_halfspace(jnp.asarray(g), jnp.asarray(k), bound=np.inf), g)
    with pytest.raises(ValueError, match="gradient"):
        pg.project_to_halfspace(jnp.ones((2, 3)), jnp.ones((2, 2)), bound=1.0)


def test_actions_that_the_behaviour_could_not_take_are_counted_by_the_correction() -> None:
    """Also with c infinite, where 0 times infinity must not be NaN: then importance sampling cannot know of them."""
    params, (t, _) = Problem(1).params, some_window(0)
    mask = jnp.arange(3) < 2
    behaviour = pg.Categorical(jnp.zeros((5, 4, 3)), mask=mask[None, None])
    t = t.replace(action=jnp.minimum(t.action, 1), log_prob=jnp.full((5, 4), np.log(0.5)))
    for clip_rho in (1.0, np.inf):
        grads, _ = pg.acer(
            params, t, policy=policy, critic=critic, behaviour=behaviour, discount=DISCOUNT, clip_rho=clip_rho
        )
        assert np.isfinite(grads["logits"]).all()


def test_what_the_correction_needs_is_asked_for_by_name() -> None:
    params, (t, behaviour) = Problem(1).params, some_window(0)
    options = {"policy": policy, "critic": critic, "behaviour": behaviour, "discount": DISCOUNT}
    with pytest.raises(ValueError, match="the result of critic"):
        pg.acer(params, t, **options | {"critic": state_value})
    with pytest.raises(TypeError, match="what policy returns must be a Categorical, got Normal"):
        pg.acer(params, t, **options | {"policy": normal})
    with pytest.raises(TypeError, match="behaviour must be a Categorical, got Normal"):
        pg.acer(params, t, **options | {"behaviour": normal(params, t.obs)})
    with pytest.raises(ValueError, match="logits of behaviour"):
        pg.acer(params, t, **options | {"behaviour": pg.Categorical(behaviour.logits[..., :2])})


def state_value(params: Any, obs: Any) -> jax.Array:
    return obs @ params["q"][:, 0]


def normal(params: Any, obs: Any) -> pg.Normal:
    return pg.Normal(obs @ params["logits"], 1.0)
