"""Coefficients of control variates, Stein's identity and interpolation: exact means by lists and quadrature."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from tabular import every_trajectory, mean, miss, policy, random_window

import pgjax as pg
from pgjax import exact
from pgjax import expectation as ex

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)

# --- coefficients -----------------------------------------------------------------------------------------------------

LOC, SCALE = 0.4, 0.7
TRUTH = np.cos(LOC) * np.exp(-0.5 * SCALE**2) - 2.0 * LOC  # of E sin a - a², by the characteristic function


@functools.cache
def pairs() -> tuple[pg.Trajectory, np.ndarray]:
    """One step of a normal bandit: every pair of nodes as two columns, [1, 400, 2], and its weight."""
    x, w = np.polynomial.hermite_e.hermegauss(20)
    both = np.stack(np.meshgrid(x, x, indexing="ij"), -1).reshape(1, -1, 2)
    action = LOC + SCALE * both
    one, no = np.ones_like(action), np.zeros(action.shape, bool)
    reward = np.sin(action) - action**2
    batch = pg.Trajectory(one[..., None], action[..., None], reward, None, ~no, no, one, no.astype(int))
    return jax.tree.map(jnp.asarray, batch), np.outer(w, w).ravel() / w.sum() ** 2


def bell(loc: Any, obs: Any) -> pg.Normal:
    return pg.Normal(obs * loc, SCALE)


def curved(obs: Any, action: Any) -> Any:
    return 1.3 * jnp.sin(2.0 * action[..., 0]) + 0.8 * action[..., 0]


PHI = pg.linearized_critic(curved, lambda obs: obs * LOC)


@functools.cache
def with_coefficients() -> dict[str, tuple[float, np.ndarray]]:
    """The exact mean of the estimate for each way to choose the coefficient, and the coefficients; one program."""
    batch, weights = pairs()

    @jax.jit
    def run(batch: Any) -> dict[str, Any]:
        control = PHI(batch.obs, batch.action) - PHI(batch.obs, batch.obs * LOC)
        others = pg.leave_one_out_covariance(batch.reward, control)
        own = pg.single_sample_covariance(batch.reward, control)
        chosen = {
            "none": jnp.zeros_like(control),
            "regression": pg.leave_one_out_coefficient(batch.reward, control),
            "conservative": pg.conservative_coefficient(others),
            "aggressive": pg.aggressive_coefficient(others),
            "own conservative": pg.conservative_coefficient(own),
            "own aggressive": pg.aggressive_coefficient(own),
        }
        return {
            name: (
                pg.control_variate.per_trajectory(
                    jnp.float64(LOC), batch, policy=bell, advantage=batch.reward, critic=PHI, rule=ex.at_mode,
                    coefficient=coefficient,
                )[0],
                coefficient,
            )
            for name, coefficient in chosen.items()
        }  # fmt: skip

    return {name: (-float(weights @ np.asarray(g).mean(1)), np.asarray(c)) for name, (g, c) in run(batch).items()}


@pytest.mark.parametrize("name", ["none", "regression", "conservative", "aggressive"])
def test_coefficients_of_the_other_trajectories_keep_the_mean(name: str) -> None:
    got, coefficient = with_coefficients()[name]
    np.testing.assert_allclose(got, TRUTH, rtol=0, atol=1e-10)
    assert name == "none" or len(np.unique(coefficient)) > 1


@pytest.mark.parametrize("name", ["own conservative", "own aggressive"])
def test_coefficients_of_the_own_step_bias_as_published(name: str) -> None:
    got, _ = with_coefficients()[name]
    assert abs(got - TRUTH) > 0.01
    # The bias is that of the formula, summed by hand over one column.
    x, w = np.polynomial.hermite_e.hermegauss(20)
    w, slope = w / w.sum(), 2.6 * np.cos(2.0 * LOC) + 0.8
    action = LOC + SCALE * x
    reward, control = np.sin(action) - action**2, slope * SCALE * x
    eta = np.sign(reward * control) if "aggressive" in name else (reward * control > 0).astype(float)
    level = float(curved(np.ones(1), np.full((1, 1), LOC))[0])  # of the critic at its point, which has no gradient
    by_hand = w @ ((reward - eta * (level + control)) * x / SCALE + eta * slope)
    np.testing.assert_allclose(got, by_hand, rtol=0, atol=1e-10)


def test_coefficients_are_sums_over_the_steps_of_other_columns() -> None:
    random = np.random.default_rng(0)
    a, c, mask = random.normal(size=(4, 2, 3)), random.normal(size=(4, 2, 3)), random.random((4, 2, 3)) < 0.6
    covariance, coefficient = pg.leave_one_out_covariance(a, c, mask), pg.leave_one_out_coefficient(a, c, mask)
    for s, b in np.ndindex(2, 3):
        rest = [(t, j) for t in range(4) for j in range(3) if j != b and mask[t, s, j]]
        products, squares = [a[t, s, j] * c[t, s, j] for t, j in rest], [c[t, s, j] ** 2 for t, j in rest]
        close(covariance[:, s, b], np.mean(products))
        close(coefficient[:, s, b], np.sum(products) / np.sum(squares))
    close(pg.leave_one_out_coefficient(a, 0.0 * c), 0.0)
    close(pg.conservative_coefficient(jnp.array([0.2, 0.0, -1.0])), [1.0, 0.0, 0.0])
    close(pg.aggressive_coefficient(jnp.array([0.2, 0.0, -1.0])), [1.0, 0.0, -1.0])
    for function in (pg.leave_one_out_covariance, pg.leave_one_out_coefficient):
        with pytest.raises(ValueError, match="advantage must hold at least 2 trajectories, got shape"):
            function(np.ones((4, 1)), np.ones((4, 1)))
        with pytest.raises(ValueError, match="control must have the shape of advantage"):
            function(np.ones((4, 2)), np.ones((4, 3)))


def test_a_fitted_control_of_whole_gradients_is_unbiased_over_pairs() -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", 2)
    arguments = {"policy": policy, "discount": mdp.discount, "step_weight": tabular.weight(batch, mdp)}
    plain = np.asarray(pg.reinforce.per_trajectory(logits, batch, **arguments)[0])
    other = np.asarray(pg.reinforce.per_trajectory(logits, batch, baseline=jnp.float64(1.0), **arguments)[0])
    control = plain - other  # of mean zero: one baseline is as unbiased as another
    groups, group_weights = (np.asarray(x) for x in exact.groups(weights, 2))
    left = jax.jit(jax.vmap(pg.leave_one_out_control))(plain[groups], control[groups])
    truth = tabular.gradient(mdp, logits, 2)
    assert miss(left.mean(1), group_weights, truth) < 1e-12
    # For two trajectories the coefficient is that of the other one alone.
    square = np.maximum((control**2).sum((1, 2)), 1e-300)
    eta = (plain * control).sum((1, 2)) / square
    close(left[:, 0], plain[groups[:, 0]] - eta[groups[:, 1], None, None] * control[groups[:, 0]])
    # Fitted on the trajectory itself it has another mean.
    own = plain - eta[:, None, None] * control
    assert miss(own, weights, truth) > 0.05
    with pytest.raises(ValueError, match="control must have the tree structure of contributions"):
        pg.leave_one_out_control(plain, {"a": control})
    with pytest.raises(ValueError, match="contributions must hold at least 2 trajectories"):
        pg.leave_one_out_control(plain[:1], control[:1])


# --- Stein's identity -------------------------------------------------------------------------------------------------


def test_identity_20_score_function_and_path_have_the_same_mean_on_smooth_functions() -> None:
    def phi(a: Any) -> Any:
        return jnp.sin(2.0 * a[..., 0]) + 0.3 * a[..., 0] ** 3

    def each(rule: Any, jump: float) -> np.ndarray:
        f = lambda a: phi(a) + jump * (a[..., 0] > LOC)  # noqa: E731
        noise, weights = ex.nodes(rule, pg.Normal(jnp.zeros(1), 1.0), size=24)
        one = jax.grad(lambda p, noise: rule.given(noise, pg.Normal(p[:1], jnp.exp(p[1:])), f))
        rows = jax.jit(jax.vmap(one, (None, 0)))(jnp.array([LOC, np.log(SCALE)]), noise)
        return weights @ np.asarray(rows)

    by_score, by_path = each(ex.score_function, 0.0), each(ex.pathwise, 0.0)
    np.testing.assert_allclose(by_score, by_path, rtol=0, atol=1e-11)
    wave = 2.0 * np.cos(2.0 * LOC) * np.exp(-2.0 * SCALE**2)
    np.testing.assert_allclose(by_path[0], wave + 0.9 * (LOC**2 + SCALE**2), rtol=0, atol=1e-11)
    assert abs(each(ex.score_function, 1.0)[0] - each(ex.pathwise, 1.0)[0]) > 0.1  # a jump is not smooth


# --- interpolation ----------------------------------------------------------------------------------------------------


def critic(table: Any, obs: Any, action: Any) -> Any:
    return jnp.take_along_axis(obs @ table, action[..., None], -1)[..., 0]


@functools.cache
def interpolated() -> dict[str, Any]:
    """Contributions for several shares, with and without the control variate, and what they lie between."""
    mdp, logits, batch, weights = every_trajectory("two_state", 2)
    table = pg.bind(critic, jnp.asarray(np.random.default_rng(3).normal(size=(2, 2))))
    returns = pg.discounted_returns(
        batch.reward, terminated=batch.terminated, truncated=batch.truncated, discount=mdp.discount
    )
    common = {"policy": policy, "critic": table, "rule": ex.enumerated, "step_weight": tabular.weight(batch, mdp)}

    @jax.jit
    def run(logits: Any) -> dict[str, Any]:
        found: dict[str, Any] = {
            f"share {share}, coefficient {eta}": pg.interpolated_gradient.per_trajectory(
                logits, batch, advantage=returns, share=share, coefficient=eta, **common
            )[0]
            for share in (0.0, 0.3, 1.0)
            for eta in (0.0, 1.0)
        }
        found["variate"] = pg.control_variate.per_trajectory(logits, batch, advantage=returns, **common)[0]
        found["score"] = pg.control_variate.per_trajectory(logits, batch, advantage=returns, coefficient=0.0, **common)[
            0
        ]
        found["critic"] = pg.expected_gradient.per_trajectory(logits, batch, **common)[0]
        return found

    return {**run(logits), "weights": weights, "truth": tabular.gradient(mdp, logits, 2)}


def test_interpolation_runs_in_a_line_from_the_control_variate_to_the_critic() -> None:
    found = interpolated()
    for eta, start in ((0.0, "score"), (1.0, "variate")):
        at = {share: found[f"share {share}, coefficient {eta}"] for share in (0.0, 0.3, 1.0)}
        close(at[0.0], found[start])
        close(at[1.0], found["critic"])
        close(at[0.3], 0.7 * found[start] + 0.3 * found["critic"])
    weights, truth = found["weights"], found["truth"]
    bias = [mean(x, weights) + truth for x in at.values()]
    assert np.abs(bias[0]).max() < 1e-12
    assert np.abs(bias[2]).max() > 0.1
    close(bias[1], 0.3 * bias[2])


def test_interpolation_with_the_exact_critic_is_unbiased_for_any_share() -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", 1)
    common = {"policy": policy, "critic": pg.bind(critic, jnp.asarray(mdp.reward)), "rule": ex.enumerated}
    share = jnp.asarray(np.random.default_rng(4).uniform(size=(1, 1))) * jnp.ones_like(batch.reward)
    got, _ = pg.interpolated_gradient.per_trajectory(logits, batch, advantage=batch.reward, share=share, **common)
    assert miss(got, weights, tabular.gradient(mdp, logits, 1)) < 1e-12
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 1.5"):
        pg.interpolated_gradient(logits, batch, advantage=batch.reward, share=1.5, **common)


def test_a_control_variate_that_sees_the_future_is_refused() -> None:
    """What came after the action, times the action or alone; what a critic may see goes through."""
    batch = random_window(0, 4)
    later = jnp.cumsum(batch.reward[::-1], axis=0)[::-1]
    call = lambda critic, estimator=pg.control_variate, **more: estimator(  # noqa: E731
        jnp.zeros((3, 2)), batch, policy=policy, advantage=batch.reward, critic=critic, rule=ex.enumerated, **more
    )
    for critic in (lambda obs, action: later, lambda obs, action: later * action):
        with pytest.raises(ValueError, match=r"critic must look at the observation and the action alone.*baseline"):
            call(critic)
        with pytest.raises(ValueError, match="such as what was earned after the action"):
            call(critic, pg.interpolated_gradient, share=0.5)
    assert np.isfinite(call(lambda obs, action: 2.0 * action + obs[..., 0])[0]).all()
