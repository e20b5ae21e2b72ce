"""Natural gradients and trust regions: directions, invariance, bounds that hold, steps that are refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pgjax as pg
from pgjax import exact, natural

pytestmark = pytest.mark.usefixtures("quick_to_compile", "x64")

MATRIX = np.array([[2.0, 0.3, 0.0], [0.3, 1.0, 0.2], [0.0, 0.2, 0.5]])
GRADIENT = np.array([1.0, -2.0, 0.5])


def fisher(v: Any) -> Any:
    return jnp.asarray(MATRIX) @ v


def of(transform: Any, updates: Any, params: Any = None, **extra: Any) -> Any:
    return transform.update(updates, transform.init(params), params, **extra)


def test_conjugate_gradients_solve_the_damped_system_and_stop_where_they_are_told() -> None:
    for damping in (0.0, 0.7):
        found, _ = of(natural.scale_by_natural_gradient(3, damping, 0.0), GRADIENT, fisher=fisher)
        np.testing.assert_allclose(found, np.linalg.solve(MATRIX + damping * np.eye(3), GRADIENT), atol=1e-12)
    one, _ = of(natural.scale_by_natural_gradient(1, 0.0), GRADIENT, fisher=fisher)
    length = GRADIENT @ GRADIENT / (GRADIENT @ MATRIX @ GRADIENT)  # the first iteration is steepest descent
    np.testing.assert_allclose(one, length * GRADIENT, atol=1e-12)
    tree = {"a": GRADIENT[:1], "b": GRADIENT[1:]}
    split = lambda v: {"a": v[:1], "b": v[1:]}  # noqa: E731
    by_part, _ = of(
        natural.scale_by_natural_gradient(3, 0.0, 0.0), tree,
        fisher=lambda v: split(fisher(jnp.concatenate([v["a"], v["b"]]))),
    )  # fmt: skip
    np.testing.assert_allclose(
        np.concatenate([by_part["a"], by_part["b"]]), np.linalg.solve(MATRIX, GRADIENT), atol=1e-12
    )


def test_a_step_is_scaled_to_its_divergence_and_nothing_is_made_of_nothing() -> None:
    found, _ = of(natural.scale_to_divergence(0.02), GRADIENT, fisher=fisher)
    np.testing.assert_allclose(0.5 * found @ MATRIX @ found, 0.02, rtol=1e-12)
    np.testing.assert_allclose(np.cross(found, GRADIENT), 0.0, atol=1e-12)
    bounded, _ = of(natural.scale_to_divergence(0.02, max_scale=1e-3), GRADIENT, fisher=fisher)
    np.testing.assert_allclose(bounded, 1e-3 * GRADIENT, rtol=1e-12)
    for nothing in (np.zeros(3), np.array([np.nan, 1.0, 1.0]), np.array([np.inf, 1.0, 1.0])):
        np.testing.assert_array_equal(of(natural.scale_to_divergence(0.02), nothing, fisher=fisher)[0], 0.0)
    np.testing.assert_array_equal(of(natural.scale_to_divergence(0.02), GRADIENT, fisher=lambda v: -v)[0], 0.0)


def line(x: Any) -> Any:
    return jnp.sum((x - 1.0) ** 2)


@pytest.mark.parametrize(
    ("max_kl", "step", "scale"),
    [
        (np.inf, 1.0, 1.0),  # allowed as it is
        (np.inf, 2.0, 0.5),  # ends at the value where it started: not lower, so shortened
        (0.26, 1.0, 0.5),  # too far
        (0.24, 1.0, 0.25),
        (1e-9, 1.0, 0.0),  # never within the lengths that are tried
        (np.inf, -1.0, 0.0),  # uphill
        (np.inf, np.nan, 0.0),
    ],
)
def test_the_line_search_takes_the_first_length_that_is_allowed_and_lower(
    max_kl: float, step: float, scale: float
) -> None:
    start = jnp.zeros(1)
    taken, state = of(
        natural.backtrack(max_kl, 0.5, 10), jnp.full(1, step), start, objective=line, divergence=lambda x: jnp.sum(x**2)
    )
    np.testing.assert_allclose(taken, scale * step if scale else 0.0)
    assert state.scale == scale
    end = scale * step if scale else 0.0
    np.testing.assert_allclose(state.divergence, end**2, rtol=1e-6)
    np.testing.assert_allclose(state.improvement, 1 - (end - 1) ** 2, rtol=1e-6)


def test_where_the_objective_is_no_number_the_search_goes_on() -> None:
    broken = lambda x: jnp.where(x[0] > 0.4, jnp.nan, line(x))  # noqa: E731
    _, state = of(
        natural.backtrack(1.0, 0.5, 10), jnp.ones(1), jnp.zeros(1), objective=broken, divergence=lambda x: jnp.sum(x**2)
    )
    assert state.scale == 0.25


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="num_iters must be at least 1"):
        natural.scale_by_natural_gradient(0)
    with pytest.raises(TypeError, match="max_steps must be a Python int"):
        natural.backtrack(max_steps=2.0)
    with pytest.raises(ValueError, match="max_kl must be at least 0, got -1"):
        natural.trpo(-1)
    for shrink in (0.0, 1, 1.5):
        with pytest.raises(ValueError, match=r"shrink must lie in \(0, 1\), got"):
            natural.backtrack(shrink=shrink)
    with pytest.raises(TypeError, match="fisher must be a function"):
        of(natural.scale_by_natural_gradient(), GRADIENT, fisher=MATRIX)
    with pytest.raises(TypeError, match="fisher"):
        of(natural.scale_by_natural_gradient(), GRADIENT)
    with pytest.raises(TypeError, match="objective must be a function"):
        of(natural.backtrack(), GRADIENT, GRADIENT, objective=1.0, divergence=line)
    with pytest.raises(TypeError, match="backtrack needs params"):
        of(natural.backtrack(), GRADIENT, objective=line, divergence=line)


def on_table(matrix: Any) -> tuple[Any, Any]:
    """The exact problem of two_state with logits = matrix @ phi: the loss, and the policy, as functions of phi."""
    mdp = exact.two_state()
    table = lambda phi: (matrix @ phi).reshape(2, 2)  # noqa: E731
    loss = lambda phi: -exact.objective(mdp, jax.nn.softmax(table(phi)))  # noqa: E731
    policy = lambda phi, obs: pg.Categorical(obs @ table(phi))  # noqa: E731
    return loss, policy


def test_identity_17_the_policy_moves_alike_however_it_is_parametrised() -> None:
    """In probabilities: to first order the same under logits = W phi; the plain gradient moves otherwise."""
    random = np.random.default_rng(0)
    mdp, logits = exact.two_state(), np.asarray(exact.two_state_logits()).ravel()
    weight = exact.visitation(mdp, jax.nn.softmax(jnp.asarray(logits.reshape(2, 2))))
    weight = weight / weight.mean()
    velocities: dict[bool, list[Any]] = {True: [], False: []}
    for matrix in (np.eye(4), random.normal(size=(4, 4))):
        loss, policy = on_table(jnp.asarray(matrix))
        phi = jnp.asarray(np.linalg.solve(matrix, logits))
        gradient = jax.grad(loss)(phi)
        fisher = natural.fisher_vector_product(phi, np.eye(2), policy=policy, weight=weight)
        step, _ = of(natural.scale_by_natural_gradient(100, 0.0, 1e-14), gradient, fisher=fisher)
        probs = lambda phi, policy=policy: policy(phi, jnp.eye(2)).probs  # noqa: E731
        for along, direction in ((True, step), (False, gradient)):
            velocities[along].append(jax.jvp(probs, (phi,), (direction,))[1])
    np.testing.assert_allclose(velocities[True][0], velocities[True][1], atol=1e-8)
    assert np.abs(velocities[False][0] - velocities[False][1]).max() > 0.1
    # The closed form: the policy moves along π A / (1 - γ), here with the minus of a descent direction.
    advantage = exact.advantage(mdp, jax.nn.softmax(jnp.asarray(logits.reshape(2, 2))))
    probs = jax.nn.softmax(jnp.asarray(logits.reshape(2, 2)))
    visits = exact.visitation(mdp, probs)
    np.testing.assert_allclose(velocities[True][0] / visits.sum(), -probs * advantage, atol=1e-9)


def test_trpo_keeps_its_bound_improves_and_goes_along_the_natural_gradient() -> None:
    """From 20 random tables: KL <= δ always, and close to it; for a small δ the direction is the natural gradient's."""
    loss, policy = on_table(jnp.eye(4))
    obs = jnp.eye(2)

    def stepped(phi: Any, max_kl: Any) -> tuple[Any, Any, Any]:
        old = jax.lax.stop_gradient(policy(phi, obs))
        fisher = natural.fisher_vector_product(phi, obs, policy=policy)
        divergence = lambda x: old.kl_divergence(policy(x, obs)).mean()  # noqa: E731
        gradient = jax.grad(loss)(phi)
        step, state = of(
            natural.trpo(max_kl, 20, 1e-10), gradient, phi, fisher=fisher, objective=loss, divergence=divergence
        )
        direction, _ = of(natural.scale_by_natural_gradient(20, 1e-10), gradient, fisher=fisher)
        return step, state, (divergence(phi + step), loss(phi) - loss(phi + step), direction)

    run = jax.jit(jax.vmap(stepped, in_axes=(0, None)))
    tables = jnp.asarray(np.random.default_rng(0).normal(size=(20, 4)))
    steps, state, (kl, gain, direction) = run(tables, 0.01)
    assert (kl <= 0.01).all()
    assert (kl > 0.004).all()
    assert (gain > 0).all()
    np.testing.assert_allclose(state[-1].divergence, kl, rtol=1e-5)
    steps, _, (kl, _, direction) = run(tables, 1e-8)
    cosine = -np.sum(steps * direction, 1) / np.linalg.norm(steps, axis=1) / np.linalg.norm(direction, axis=1)
    np.testing.assert_allclose(cosine, 1.0, atol=1e-9)
    np.testing.assert_allclose(kl, 1e-8, rtol=0.4)  # a step is shortened by 0.8 where the model falls short


def test_a_step_that_is_scaled_to_the_bound_is_not_shortened_for_rounding() -> None:
    """Of a Gaussian with a linear mean the divergence is quadratic, so that the full step lies on the bound."""
    policy = lambda weights, obs: pg.Normal(obs @ weights, jnp.full(2, 0.5, jnp.float32))  # noqa: E731

    def stepped(key: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key, 4)
        obs, weights, drawn, advantage = (
            jax.random.normal(key, shape, jnp.float32)
            for key, shape in zip(keys, ((64, 4), (4, 2), (64, 2), (64,)), strict=True)
        )
        old, action = policy(weights, obs), obs @ weights + 0.5 * drawn
        objective = lambda x: -jnp.mean(jnp.exp(policy(x, obs).log_prob(action) - old.log_prob(action)) * advantage)  # noqa: E731
        _, state = of(
            natural.trpo(0.01, 10, 0.0), jax.grad(objective)(weights), weights, objective=objective,
            fisher=natural.fisher_vector_product(weights, obs, policy=policy),
            divergence=lambda x: jnp.mean(old.kl_divergence(policy(x, obs))),
        )  # fmt: skip
        return state[-1].scale, state[-1].divergence

    scale, divergence = jax.jit(jax.vmap(stepped))(jax.random.split(jax.random.key(0), 50))
    np.testing.assert_array_equal(scale, 1.0)
    np.testing.assert_allclose(divergence, 0.01, rtol=1e-5)


def test_parameters_that_the_objective_does_not_know_stay_where_they_are() -> None:
    params = {"policy": jnp.zeros(2), "other": jnp.ones(3)}
    policy = lambda p, obs: pg.Categorical(obs @ p["policy"][None])  # noqa: E731
    obs, old = jnp.ones((1, 1)), pg.Categorical(jnp.zeros((1, 2)))
    objective = lambda p: -policy(p, obs).probs[0, 0]  # noqa: E731
    step, _ = of(
        natural.trpo(), jax.grad(objective)(params), params, objective=objective,
        fisher=natural.fisher_vector_product(params, obs, policy=policy),
        divergence=lambda p: old.kl_divergence(policy(p, obs)).mean(),
    )  # fmt: skip
    np.testing.assert_array_equal(step["other"], 0.0)
    assert step["policy"][0] > 0.1
    assert optax.apply_updates(params, step)["policy"].dtype == params["policy"].dtype
