"""Fisher matrices against explicit sums over actions, against Hessians of divergences, and the compatible critic."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import exact
from pgjax.natural import compatible_features, compatible_value, fisher_matrix, fisher_vector_product

pytestmark = pytest.mark.usefixtures("quick_to_compile", "x64")
OBS = np.random.default_rng(0).normal(size=(5, 3))


def weights(seed: int, *shapes: tuple[int, ...]) -> Any:
    random = np.random.default_rng(seed)
    return [jnp.asarray(random.normal(size=shape)) for shape in shapes]


def layered(params: Any, obs: Any) -> Any:
    return jnp.tanh(obs @ params[0]) @ params[1]


POLICIES = {
    "categorical": (lambda p, obs: pg.Categorical(layered(p, obs)), [(3, 4), (4, 3)]),
    "masked": (
        lambda p, obs: pg.Categorical(layered(p, obs), jnp.broadcast_to(jnp.arange(3) < 2, (5, 3))),
        [(3, 4), (4, 3)],
    ),
    "normal": (
        lambda p, obs: pg.Normal(layered(p, obs), jnp.broadcast_to(jnp.exp(p[2])[None], (5, 2))),
        [(3, 4), (4, 2), (2,)],
    ),
    "squashed": (
        lambda p, obs: pg.TanhNormal(layered(p, obs), jnp.exp(0.3 * layered(p, obs)), -2.0, 3.0),
        [(3, 4), (4, 2)],
    ),
    "beta": (
        lambda p, obs: pg.Beta(1 + jax.nn.softplus(layered(p, obs)), 1 + jnp.exp(layered(p, obs))),
        [(3, 4), (4, 1)],
    ),
    "bernoulli": (lambda p, obs: pg.Bernoulli(layered(p, obs)), [(3, 4), (4, 2)]),
    "two parts": (
        lambda p, obs: {"a": pg.Categorical(layered(p, obs)), "b": pg.Normal(obs @ p[2], 0.5)},
        [(3, 4), (4, 3), (3, 1)],
    ),
}


def divergence(a: Any, b: Any) -> Any:
    return sum(a[k].kl_divergence(b[k]) for k in a) if isinstance(a, dict) else a.kl_divergence(b)


@pytest.mark.parametrize("name", POLICIES)
def test_identity_16_products_are_those_of_the_hessian_of_either_divergence(name: str) -> None:
    """At the old policy; away from it the Hessian is another matrix."""
    policy, shapes = POLICIES[name]
    params = weights(1, *shapes)
    flat, back = jax.flatten_util.ravel_pytree(params)
    old = jax.lax.stop_gradient(policy(params, OBS))
    forward = jax.jit(jax.hessian(lambda x: jnp.mean(divergence(old, policy(back(x), OBS)))))
    reverse = jax.jit(jax.hessian(lambda x: jnp.mean(divergence(policy(back(x), OBS), old))))
    matrix = np.asarray(fisher_matrix(params, OBS, policy=policy))
    np.testing.assert_allclose(matrix, forward(flat), atol=1e-12)
    np.testing.assert_allclose(matrix, reverse(flat), atol=1e-12)
    assert np.abs(matrix - forward(flat + 0.3)).max() > 1e-2
    v = weights(2, *shapes)
    product = fisher_vector_product(params, OBS, policy=policy)(v)
    np.testing.assert_allclose(
        jax.flatten_util.ravel_pytree(product)[0], matrix @ jax.flatten_util.ravel_pytree(v)[0], atol=1e-12
    )
    assert np.linalg.eigvalsh(matrix)[0] > -1e-12


@pytest.mark.parametrize("name", ["categorical", "masked", "bernoulli"])
def test_it_is_the_mean_outer_product_of_scores_over_all_actions(name: str) -> None:
    policy, shapes = POLICIES[name]
    params = weights(1, *shapes)
    actions, probs = policy(params, OBS).support()
    total: Any = 0.0
    for action, p in zip(actions, np.asarray(probs), strict=True):
        if not p.any():
            continue
        scores = compatible_features(params, OBS, action, policy=policy)
        rows = np.concatenate([np.asarray(x).reshape(5, -1) for x in scores], axis=1)
        rows = np.where(p[:, None] > 0, rows, 0.0)
        total = total + np.einsum("n,np,nq->pq", p, rows, rows) / 5
    np.testing.assert_allclose(fisher_matrix(params, OBS, policy=policy), total, atol=1e-12)


def test_rows_are_weighted_and_extras_left_out() -> None:
    policy, shapes = POLICIES["categorical"]
    params = weights(1, *shapes)
    weight = jnp.array([1.0, 0.0, 2.0, 0.5, 0.0])
    each = [fisher_matrix(params, OBS[i : i + 1], policy=policy) for i in range(5)]
    expected = sum(w * x for w, x in zip(weight, each, strict=True)) / 5
    with_extras = lambda p, obs: (policy(p, obs), {"value": obs})  # noqa: E731
    np.testing.assert_allclose(fisher_matrix(params, OBS, policy=with_extras, weight=weight), expected, atol=1e-13)
    with pytest.raises(ValueError, match="weight must have the shape of the rows"):
        fisher_matrix(params, OBS, policy=policy, weight=weight[:4])
    with pytest.raises(TypeError, match="policy must return a distribution"):
        fisher_matrix(params, OBS, policy=layered)


def tabular() -> tuple[Any, Any, Any]:
    mdp = exact.two_state()
    logits = exact.two_state_logits()
    probs = jax.nn.softmax(logits)
    visits = exact.visitation(mdp, probs)
    return mdp, logits, np.asarray(visits / visits.sum())


def test_on_a_table_it_is_the_exact_fisher_matrix() -> None:
    mdp, logits, share = tabular()
    policy = lambda table, obs: pg.Categorical(obs @ table)  # noqa: E731
    found = fisher_matrix(logits, np.eye(len(share)), policy=policy, weight=jnp.asarray(share * len(share)))
    np.testing.assert_allclose(found, exact.fisher_matrix(mdp, logits).reshape(found.shape), atol=1e-14)


def every_pair(mdp: Any, logits: Any, share: Any, copies: int) -> tuple[pg.Trajectory, Any]:
    """Every pair of a state and an action, as often as the policy comes to it, up to rounding to 1/copies."""
    number = np.round(copies * share[:, None] * np.asarray(jax.nn.softmax(logits))).astype(int)
    state, action = (np.repeat(x, number.ravel()) for x in np.divmod(np.arange(number.size), number.shape[1]))
    zeros = np.zeros((1, len(state)))
    advantage = np.asarray(exact.advantage(mdp, jax.nn.softmax(logits)))[state, action][None]
    obs = np.eye(len(share))[state][None]
    window = pg.Trajectory(obs, action[None], zeros, obs, zeros > 0, zeros > 0, zeros, zeros.astype(int))
    return window, advantage


def test_identity_17_the_compatible_critic_is_the_natural_gradient_and_leaves_the_gradient_exact() -> None:
    """F w = (1 - γ) ∇J, and w ψ in place of the advantage gives the gradient that the advantage gives."""
    mdp, logits, share = tabular()
    policy = lambda table, obs: pg.Categorical(obs @ table)  # noqa: E731
    window, advantage = every_pair(mdp, logits, share, 400)
    w = pg.natural.fit_compatible_critic(logits, window, policy=policy, advantage=advantage, num_iters=50, damping=0.0)
    natural = exact.natural_gradient(mdp, logits) * (1 - mdp.discount)
    np.testing.assert_allclose(w, natural, rtol=2e-2, atol=2e-3)  # pairs are counted in whole copies
    found = compatible_value(w, logits, window, policy=policy)
    slope = lambda a: jax.grad(  # noqa: E731
        lambda table: jnp.mean(a * pg.log_prob_taken(pg.action_distribution(table, window, policy=policy), window))
    )(logits)
    np.testing.assert_allclose(slope(found), slope(advantage), atol=1e-10)
    product = pg.natural.score_vector_product(logits, window, policy=policy)
    np.testing.assert_allclose(product(w), slope(advantage), atol=1e-10)
    scores = compatible_features(logits, window.obs, window.action, policy=policy)
    np.testing.assert_allclose(np.einsum("tbsa,sa->tb", scores, w), found, atol=1e-12)
    with pytest.raises(ValueError, match="advantage must have the shape of trajectory"):
        pg.natural.fit_compatible_critic(logits, window, policy=policy, advantage=advantage[0])
