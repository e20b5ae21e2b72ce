"""Baselines of least variance against exact optima, and every form over all groups of trajectories."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from known_answers import PRINTED, TWO_STATE_THREE
from tabular import every_trajectory, miss, policy, random_window

import pgjax as pg
from pgjax import exact

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")
close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)
FAR = 1e-3  # a bias that nobody could take for rounding


def quantities(batch: Any, logits: Any, mdp: Any) -> tuple[Any, Any, Any]:
    """By NumPy: scores [T, N, P], discounted rewards [T, N], weights γ^t [T, 1]."""
    obs, action, reward = (np.asarray(x) for x in (batch.obs, batch.action, batch.reward))
    probs = np.asarray(jax.nn.softmax(logits))
    score = obs[..., None] * (np.eye(probs.shape[1])[action] - obs @ probs)[..., None, :]
    weight = float(mdp.discount) ** np.arange(len(reward))[:, None]
    return score.reshape(*reward.shape, -1), weight * reward, weight


def to_go(rewards: Any) -> Any:
    return np.cumsum(rewards[::-1], 0)[::-1]


@functools.cache
def three_steps() -> Any:
    """two_state over three steps: the problem, all trajectories, and what the library says of them, in one program."""
    mdp, logits, batch, weights = every_trajectory("two_state", 3)
    score, rewards, weight = quantities(batch, logits, mdp)
    total, later = np.tile(rewards.sum(0), (3, 1)), to_go(rewards) / weight
    time = np.broadcast_to(np.eye(3)[:, None], (*later.shape, 3))
    both = np.einsum("tni,tnj->tnij", time, np.asarray(batch.obs)).reshape(*later.shape, -1)
    steps = np.broadcast_to(weight, later.shape)
    forms: dict[str, dict[str, Any]] = {
        "constant": {"earned": total},
        "each parameter": {"earned": total, "per_parameter": True},
        "step": {"earned": later, "features": time, "step_weight": steps},
        "step and state": {"earned": later, "features": both, "step_weight": steps},
        "step, each parameter": {"earned": later, "features": time, "step_weight": steps, "per_parameter": True},
    }  # fmt: skip

    @jax.jit
    def every(logits: Any) -> Any:
        found = {}
        for name, kwargs in forms.items():
            options = {"policy": policy, **kwargs}
            beta = pg.fit_optimal_baseline(logits, batch, weight=weights, ridge=0.0, **options)

            def contributions(beta: Any, options: Any = options) -> Any:
                return pg.optimal_baseline_gradient.per_trajectory(logits, batch, coefficients=beta, **options)[0]

            def variance(beta: Any, contributions: Any = contributions) -> Any:
                flat = contributions(beta).reshape(len(weights), -1)
                return weights @ jnp.sum((flat - (weights @ flat)[None]) ** 2, 1)

            found[name] = (beta, contributions(beta), variance(beta), jax.grad(variance)(beta), variance(0 * beta))
        cumulative = pg.square_scores(logits, batch, policy=policy, cumulative=True)
        return found, cumulative, pg.square_scores(logits, batch, policy=policy)

    return mdp, logits, weights, (score, rewards, weight), every(logits)


def test_the_fit_on_all_trajectories_is_the_exact_optimum() -> None:
    mdp, logits, weights, _, (found, _, _) = three_steps()
    timed, probs = mdp.replace(horizon=3), jax.nn.softmax(logits)
    close(found["constant"][0][0], exact.optimal_return_baseline(timed, probs))
    close(found["each parameter"][0].ravel(), exact.optimal_parameter_baseline(timed, probs))
    close(found["each parameter"][0].ravel()[::2], TWO_STATE_THREE.parameter_baseline, atol=PRINTED[10])
    best = exact.trajectory_optimal_baseline(timed, probs)
    close(found["step and state"][0].reshape(3, 2), best, atol=1e-9)
    close(found["step and state"][2], exact.pair_variance(timed, exact.gpomdp_pair(timed, probs, baseline=best)))
    truth = tabular.gradient(mdp, logits, 3)
    for name, (_, contributions, variance, slope, without) in found.items():
        assert miss(contributions, weights, truth) < 1e-12, name
        close(slope, 0.0, atol=1e-10)
        assert float(variance) < float(without) - 0.5, name


def test_the_golden_variances_of_the_best_baselines() -> None:
    _, _, _, _, (found, _, _) = three_steps()
    golden = functools.partial(np.testing.assert_allclose, rtol=1e-8)
    golden(found["constant"][4], TWO_STATE_THREE.reinforce_variance)
    golden(found["constant"][2], TWO_STATE_THREE.scalar_baseline_variance)
    golden(found["each parameter"][2], TWO_STATE_THREE.parameter_baseline_variance)
    assert float(found["step and state"][2]) < float(found["step"][2]) - FAR / 2
    # Each parameter of a table is read in one state alone: a baseline of its own is one for each state.
    close(found["step, each parameter"][2], found["step and state"][2])


def test_the_best_baseline_of_each_step_is_the_joint_optimum_over_reward_indices() -> None:
    """Σ_l Z_l (γ^l r_l - b_l): its normal equations by NumPy; indices by themselves are best one by one only."""
    mdp, logits, weights, (score, rewards, weight), (found, cumulative, _) = three_steps()
    weights, z = np.asarray(weights), np.cumsum(score, 0)
    gram = np.einsum("n,lnp,mnp->lm", weights, z, z)
    close(gram, np.diag(gram)[np.minimum.outer(np.arange(3), np.arange(3))])  # E[Z_l Z_m] = E[Z_min²]
    estimate = np.einsum("lnp,ln->np", z, rewards)
    joint = np.linalg.solve(gram, np.einsum("n,lnp,np->l", weights, z, estimate))
    beta = weight[:, 0] * np.asarray(found["step"][0])
    close(beta - np.append(beta[1:], 0.0), joint)
    variance = lambda b: tabular.trace_of_covariance(np.einsum("lnp,ln->np", z, rewards - b[:, None]), weights)  # noqa: E731
    close(found["step"][2], variance(joint))
    square = np.sum(z**2, -1)
    close(cumulative, square)
    alone = np.einsum("n,ln,ln->l", weights, square, rewards) / (square @ weights)
    got = pg.optimal_baseline(jnp.asarray(rewards), cumulative * weights[None], num_folds=1)
    close(got, np.tile(alone[:, None], (1, len(weights))))
    _, _, batch, _ = every_trajectory("two_state", 3)
    each, _ = pg.gpomdp.per_trajectory(logits, batch, policy=policy, discount=mdp.discount, baseline=got)
    close(tabular.trace_of_covariance(each, weights), variance(alone))
    assert variance(joint) < variance(alone) - 1e-3 < variance(np.zeros(3))


@functools.cache
def triples() -> Any:
    """two_state over two steps: every form on each of the 16³ groups of three trajectories, in one program."""
    mdp, logits, batch, weights = every_trajectory("two_state", 2)
    index, law = exact.groups(weights, 3)
    _, rewards, weight = quantities(batch, logits, mdp)
    later, total = jnp.asarray(to_go(rewards) / weight), jnp.asarray(np.tile(rewards.sum(0), (2, 1)))

    def estimates(group: Any) -> Any:
        part = jax.tree.map(lambda x: x[:, group], batch)
        g, whole, steps = later[:, group], total[:, group], tabular.weight(part, mdp)
        of = functools.partial(
            pg.optimal_baseline_gradient, logits, part, policy=policy, earned=g, step_weight=steps, ridge=1e-3
        )
        subtracting = lambda b: pg.reinforce(  # noqa: E731
            logits, part, policy=policy, discount=mdp.discount, baseline=b, step_weight=steps
        )[0]
        square = pg.square_scores(logits, part, policy=policy)
        fit = pg.fit_optimal_baseline(
            logits, part, policy=policy, earned=g, step_weight=steps, ridge=1e-3, features=part.obs
        )
        found = {
            "given": of(features=part.obs, coefficients=jnp.array([1.3, -0.4]))[0],
            "fitted to itself": of(features=part.obs, coefficients=fit)[0],
            "plug-in with states": of(features=part.obs, num_folds=1)[0],
            "weighted mean plug-in": subtracting(pg.optimal_baseline(g, square, num_folds=1)),
            "weighted mean others": subtracting(pg.optimal_baseline(g, square)),
            "step others": subtracting(pg.step_baseline(g, part.step, square)),
            "step plug-in": subtracting(pg.step_baseline(g, part.step, square, num_folds=1)),
            "linear others": subtracting(pg.cross_fitted_baseline(part.obs, g, square)),
            "linear two halves": subtracting(pg.cross_fitted_baseline(part.obs, g, num_folds=2)),
            "linear plug-in": subtracting(pg.cross_fitted_baseline(part.obs, g, square, num_folds=1)),
        }
        for name, folds in (("others", None), ("two halves", 2), ("plug-in", 1)):
            for each in (False, True):
                label = f"{'each' if each else 'one'} {name}"
                found[label] = of(earned=whole, num_folds=folds, per_parameter=each)[0]
        found["states, others"] = of(features=part.obs)[0]
        found["states, two halves, each"] = of(features=part.obs, num_folds=2, per_parameter=True)[0]
        return found

    return law, tabular.gradient(mdp, logits, 2), jax.jit(jax.vmap(estimates))(index)


def test_what_is_fitted_to_others_is_unbiased_and_what_sees_itself_is_not() -> None:
    law, truth, found = triples()
    plug_in = {name for name in found if "plug-in" in name or "itself" in name}
    assert len(plug_in) == 7
    # Total returns with scores weighed by γ^t do not have the gradient as their mean: a baseline must keep their own.
    for name, estimates in found.items():
        target = truth
        if name.startswith(("one", "each")):
            target = -tabular.mean(found_without_baseline(), law)
        off = miss(estimates, law, target)
        assert off > FAR if name in plug_in else off < 1e-13, (name, off)
    close(found["fitted to itself"], found["plug-in with states"], atol=1e-12)


@functools.cache
def found_without_baseline() -> Any:
    """Σ_t γ^t ψ_t R, the mean over each group, by NumPy."""
    mdp, logits, batch, weights = every_trajectory("two_state", 2)
    index, _ = exact.groups(weights, 3)
    score, rewards, weight = quantities(batch, logits, mdp)
    each = -np.einsum("tnp,tn,n->np", score, np.broadcast_to(weight, rewards.shape), rewards.sum(0))
    return each[np.asarray(index)].mean(1).reshape(-1, 2, 2)


def test_square_scores_and_masks_agree_with_loops() -> None:
    batch, logits = random_window(5, 3), tabular.problem("three_state")[1]
    score, _, _ = quantities(batch, logits, tabular.problem("three_state")[0])
    mask = np.random.default_rng(6).random(batch.reward.shape) < 0.7
    hidden = jnp.where(mask[..., None], batch.obs, jnp.nan)
    score = np.where(mask[..., None], score, 0.0)
    running, z = np.zeros(score.shape[1:]), []
    for t in range(len(score)):
        running = score[t] + running * (~np.asarray(batch.done[t - 1]) if t else np.zeros(3, bool))[:, None]
        z.append(running)
    shown = batch.replace(obs=hidden)
    close(pg.square_scores(logits, shown, policy=policy, mask=mask), np.sum(score**2, -1))
    close(pg.square_scores(logits, shown, policy=policy, mask=mask, cumulative=True), np.sum(np.stack(z) ** 2, -1))
    earned = jnp.where(mask, batch.reward, jnp.nan)
    got, info = pg.optimal_baseline_gradient.per_trajectory(logits, shown, policy=policy, earned=earned, mask=mask)
    psi, y = score.sum(0), np.einsum("tnp,tn->np", score, np.where(mask, batch.reward, 0.0))
    for b in range(3):
        rest = [j for j in range(3) if j != b]
        beta = np.sum(psi[rest] * y[rest]) / np.sum(psi[rest] ** 2) / (1 + 1e-5)
        close(got[b].ravel(), -(y[b] - beta * psi[b]))
    assert int(info.num_nonfinite.sum()) == 0
    each, _ = pg.optimal_baseline_gradient.per_trajectory(
        logits, shown, policy=policy, earned=earned, mask=mask, per_parameter=True, ridge=0.5
    )
    for b in range(3):
        rest = [j for j in range(3) if j != b]
        square = np.sum(psi[rest] ** 2, 0)
        beta = np.where(square > 0, np.sum(psi[rest] * y[rest], 0) / np.where(square > 0, 1.5 * square, 1.0), 0.0)
        close(each[b].ravel(), -(y[b] - beta * psi[b]))


@pytest.mark.parametrize("each", [False, True])
def test_agents_share_the_fold_of_their_column_and_params_are_any_pytree(each: bool) -> None:
    batch, logits = random_window(7, 4, 2), tabular.problem("three_state")[1]
    params = {"a": logits, "b": jnp.zeros(2)}
    act = lambda params, obs: pg.Categorical(obs @ params["a"] + jnp.broadcast_to(params["b"], (*obs.shape[:-1], 2)))  # noqa: E731
    estimate = functools.partial(pg.optimal_baseline_gradient.per_trajectory, params, policy=act, per_parameter=each)
    grads, _ = estimate(batch, earned=batch.reward)
    assert jax.tree.map(jnp.shape, grads) == {"a": (4, 2, 3, 2), "b": (4, 2, 2)}
    # The parameters in one leaf: a bias is the row of an observation that is 1.
    one = batch.replace(obs=jnp.concatenate([batch.obs, jnp.ones_like(batch.obs[..., :1])], -1))
    whole, _ = pg.optimal_baseline_gradient.per_trajectory(
        jnp.concatenate([logits, jnp.zeros((1, 2))]), one, policy=policy, earned=batch.reward, per_parameter=each
    )
    close(jnp.concatenate([grads["a"], grads["b"][..., None, :]], -2), whole)
    # Nothing of column 0, of either agent, is in the coefficients of column 0.
    other = batch.reward.at[:, 0].multiply(2.0)
    changed, _ = estimate(batch, earned=other)
    plain, _ = estimate(batch, earned=batch.reward, num_folds=1)
    own = lambda earned: pg.reinforce.per_trajectory(  # noqa: E731
        params, batch.replace(reward=earned), policy=act, discount=0.0
    )[0]
    jax.tree.map(
        lambda x, y, p, q: close((x - y)[0], (p - q)[0]), changed, grads, own(other), own(batch.reward)
    )  # fmt: skip
    assert np.abs(plain["a"] - grads["a"]).max() > FAR


def test_bad_arguments_are_refused_by_name() -> None:
    batch, logits = random_window(8, 3), tabular.problem("three_state")[1]
    call = functools.partial(pg.optimal_baseline_gradient, logits, policy=policy)
    earned, one = batch.reward, random_window(8, 1)
    for act, error, message in (
        (lambda: call(one, earned=one.reward), ValueError, "num_folds=None leaves each .* got 1"),
        (lambda: call(batch, earned=earned, num_folds=4), ValueError, "num_folds=4 must not exceed the 3"),
        (lambda: call(batch, earned=earned[0]), ValueError, "earned must have the shape of trajectory.reward"),
        (lambda: call(batch, earned=earned, features=earned), ValueError, r"features must have shape \[T, B, F\]"),
        (
            lambda: call(batch, earned=earned, coefficients=jnp.ones(2)),
            ValueError,
            r"coefficients must have shape \[F\] = \[1\]",
        ),
        (
            lambda: call(batch, earned=earned, coefficients=jnp.ones((3, 2)), per_parameter=True),
            ValueError,
            r"each leaf of coefficients must have shape \[..., F\] = \[3, 2, 1\]",
        ),
        (
            lambda: pg.fit_optimal_baseline(logits, batch, policy=policy, earned=earned, weight=jnp.ones(2)),
            ValueError,
            r"weight must have shape \[B\] = \[3\], got \[2\]",
        ),
    ):
        with pytest.raises(error, match=message):
            act()
