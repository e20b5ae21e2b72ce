"""DiCE and Loaded DiCE against the derivatives of the exact objective, and products with Hessians."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from tabular import every_trajectory, policy, random_window

import pgjax as pg
from pgjax import exact

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
HORIZON = 3


def orders(function: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any, Any]]:
    """Gradient, Hessian and third derivative."""
    return lambda x: (jax.grad(function)(x), jax.hessian(function)(x), jax.jacfwd(jax.hessian(function))(x))


@functools.cache
def truth(name: str, horizon: int = HORIZON) -> Any:
    """Derivatives of minus the exact objective, by backward recursion over the values."""
    mdp, logits = tabular.problem(name)
    return jax.jit(orders(lambda x: -tabular.objective(mdp, x, horizon)))(logits)


def errors(found: Any, wanted: Any) -> list[float]:
    return [float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in zip(found, wanted, strict=True)]


def shares(weights: Any) -> np.ndarray:
    """What makes a plain mean over the columns of [T, N] the expectation, where it is multiplied in."""
    return np.asarray(weights)[None] * len(weights)


def scaled(batch: pg.Trajectory, weights: Any) -> pg.Trajectory:
    """The batch whose plain mean is the expectation, for surrogates that are linear in the rewards."""
    return batch.replace(reward=batch.reward * shares(weights))


def to_go(batch: pg.Trajectory, discount: float) -> np.ndarray:
    returns, later = np.zeros(batch.reward.shape), np.zeros(batch.reward.shape[1:])
    for t in reversed(range(len(returns))):
        later = np.asarray(batch.reward[t]) + discount * later * ~np.asarray(batch.done[t])
        returns[t] = later
    return returns


@pytest.mark.parametrize("name", ["two_state", "three_state"])
def test_identity_14_dice_has_the_derivatives_of_the_objective_up_to_the_third(name: str) -> None:
    mdp, logits, batch, weights = every_trajectory(name, HORIZON)
    of_state = np.einsum("tns,ts->tn", batch.obs, np.random.default_rng(0).normal(size=(HORIZON, len(logits))))

    def derivatives(logits: Any, baseline: Any) -> Any:
        return orders(
            lambda x: pg.dice.surrogate(
                x, scaled(batch, weights), policy=policy, discount=mdp.discount, baseline=baseline
            )
        )(logits)

    program = jax.jit(derivatives)
    for baseline in (0.0 * of_state, of_state):
        found = program(logits, baseline * shares(weights))
        assert max(errors(found, truth(name))) < 1e-12
    assert min(np.abs(x).max() for x in truth(name)) > 0.05
    # A baseline that knows the action is no baseline, in any order.
    found = program(logits, np.asarray(batch.action) * shares(weights))
    assert min(errors(found, truth(name))) > 0.01


def advantages(kind: str, mdp: Any, logits: Any, batch: pg.Trajectory) -> np.ndarray:
    values = np.asarray(tabular.values_over_time(mdp, logits, HORIZON))
    if kind == "one step, exact value":
        now = np.einsum("tns,ts->tn", batch.obs, values[:-1])
        after = np.einsum("tns,ts->tn", batch.next_obs, values[1:])
        return np.asarray(batch.reward) + mdp.discount * after - now
    if kind == "one step, wrong value":
        wrong = np.linspace(1.0, -2.0, values.shape[1])
        now, after = np.asarray(batch.obs) @ wrong, np.asarray(batch.next_obs) @ wrong
        return np.asarray(batch.reward) + mdp.discount * np.where(batch.done, 0.0, after) - now
    wrong = np.linspace(-1.0, 1.5, values.size).reshape(values.shape)
    return to_go(batch, mdp.discount) - np.einsum("tns,ts->tn", batch.obs, wrong[:-1])


@functools.cache
def loaded() -> Callable[[Any, Any], Any]:
    """Derivatives of Loaded DiCE on the process of two states, for any advantages and λ_D: one program."""
    mdp, logits, batch, weights = every_trajectory("two_state", HORIZON)

    def derivatives(advantage: Any, lam: Any) -> Any:
        return orders(
            lambda x: pg.loaded_dice.surrogate(
                x, batch, policy=policy, advantage=advantage * shares(weights), dice_lam=lam,
                step_weight=tabular.weight(batch, mdp),
            )
        )(logits)  # fmt: skip

    return jax.jit(derivatives)


def test_identity_14_loaded_dice_at_lam_1_has_the_derivatives_of_the_objective() -> None:
    mdp, logits, batch, _ = every_trajectory("two_state", HORIZON)
    for kind in ("returns, wrong value", "one step, exact value"):
        found = loaded()(advantages(kind, mdp, logits, batch), 1.0)
        assert max(errors(found, truth("two_state"))) < 1e-12, kind
    wrong = loaded()(advantages("one step, wrong value", mdp, logits, batch), 1.0)
    assert min(errors(wrong, truth("two_state"))) > 0.01


def state_sums(name: str, of_action: Callable[[Any], Any]) -> Any:
    """Σ_t γ^t Σ_s Pr(s_t = s) Σ_a π(a|s) Q_t(s, a) of_action(logits)[s, a], as sums over states."""
    mdp, logits = tabular.problem(name)
    probs, values = jax.nn.softmax(logits), tabular.values_over_time(mdp, logits, HORIZON)
    terms, mass = jnp.asarray(of_action(logits)), mdp.initial
    total: Any = 0.0
    for t in range(HORIZON):
        q = mdp.reward + mdp.discount * mdp.transition @ values[t + 1]
        total = total + mdp.discount**t * jnp.einsum("s,sa,sa,sa...->...", mass, probs, q, terms)
        mass = jnp.einsum("s,sa,sax->x", mass, probs, mdp.transition)
    return total


def test_identity_15_the_hessians_of_a_plain_surrogate_and_of_low_variance_curvature_are_others() -> None:
    """What they estimate in place of the Hessian is known in closed form: sums of ∇²log π, and of ∇²π."""
    mdp, logits, batch, weights = every_trajectory("two_state", HORIZON)

    def plain(x: Any) -> Any:
        return pg.reinforce.surrogate(
            x, scaled(batch, weights), policy=policy, discount=mdp.discount, step_weight=tabular.weight(batch, mdp)
        )

    gradient, hessian, _ = truth("two_state")
    close(jax.grad(plain)(logits), gradient)
    got = jax.jit(jax.hessian(plain))(logits)
    close(got, -state_sums("two_state", jax.hessian(jax.nn.log_softmax)))
    assert errors([got], [hessian])[0] > 0.5

    advantage = to_go(batch, mdp.discount)
    first, curvature, third = loaded()(advantage, 0.0)
    close(first, gradient)
    probs = jax.nn.softmax(logits)
    close(curvature, -state_sums("two_state", lambda x: jax.hessian(jax.nn.softmax)(x) / probs[..., *[None] * 4]))
    assert errors([curvature, third], truth("two_state")[1:]) > [0.1, 0.1]


def test_lam_weighs_products_of_scores_by_their_distance_and_leaves_the_gradient() -> None:
    mdp, _, batch, _ = every_trajectory("two_state", HORIZON)
    advantage = to_go(batch, mdp.discount)
    lams = (0.0, 0.3, 0.6, 1.0)
    found = [loaded()(advantage, lam) for lam in lams]
    for gradient, _, _ in found:
        close(gradient, found[0][0])
    # Over three steps the Hessian is a polynomial of degree 2 in λ_D: three values tell the fourth.
    curve = np.polyfit(lams[:3], np.stack([np.ravel(h) for _, h, _ in found[:3]]), 2)
    close(np.polyval(curve, 1.0), np.ravel(found[3][1]), atol=1e-11)
    assert np.abs(curve[0]).max() > 0.01


def test_scores_do_not_reach_over_the_end_of_an_episode() -> None:
    """Two episodes in one column add up, whether the first terminates or is truncated: for any weights of the columns.

    Their probabilities would not do: what leaks from one independent episode into another has mean 0.
    """
    mdp, logits, first, first_weights = every_trajectory("two_state", 2)
    both, _ = exact.join((first, first_weights), (first, first_weights))
    table = np.random.default_rng(3).normal(size=(len(first_weights),) * 2)

    @jax.jit
    def derivatives(batch: Any, weights: Any) -> Any:
        many = batch.replace(reward=batch.reward * weights[None] * len(weights))
        returns = pg.discounted_returns(
            many.reward, terminated=many.terminated, truncated=many.truncated, discount=mdp.discount
        )
        kwargs = {"policy": policy, "advantage": returns, "step_weight": tabular.weight(batch, mdp)}
        surrogates = (
            lambda x: pg.dice.surrogate(x, many, policy=policy, discount=mdp.discount),
            lambda x: pg.loaded_dice.surrogate(x, many, **kwargs),
        )
        return [(jax.grad(s)(logits), jax.hessian(s)(logits)) for s in surrogates]

    wanted = derivatives(first, jnp.asarray(table.sum(0) + table.sum(1)))
    for batch in (both, both.replace(terminated=both.truncated, truncated=both.terminated)):
        for found, true in zip(derivatives(batch, jnp.asarray(table.ravel())), wanted, strict=True):
            assert max(errors(found, true)) < 1e-11
            assert min(np.abs(x).max() for x in true) > 0.1


def test_the_gradient_is_that_of_weighted_reinforce_trajectory_by_trajectory() -> None:
    window = random_window(1, 5)
    _, logits = tabular.problem("three_state")
    random = np.random.default_rng(2)
    mask, baseline = jnp.asarray(random.random((7, 5)) < 0.6), jnp.asarray(random.normal(size=(7, 5)))
    weight = pg.discount_weight(window.step, 0.8)
    kwargs = {"policy": policy, "mask": mask}

    def rows(amount: Any) -> Any:
        """Contributions of the scores times any amount, column by column, with scores written out."""
        probs = jax.nn.softmax(logits)[window.obs.argmax(-1)]
        score = jax.nn.one_hot(window.action, 2) - probs
        return -np.einsum("tb,tbs,tba->bsa", np.where(mask, weight * amount, 0.0), window.obs, score)

    returns = to_go(window, 0.8)
    others = (returns.sum(1, keepdims=True) - returns) / 4
    for b, subtracted in ((baseline, baseline), (pg.leave_one_out, others)):
        found, info = pg.dice.per_trajectory(logits, window, discount=0.8, baseline=b, **kwargs)
        close(found, rows(returns - subtracted))
        close(info.loss, -np.sum(np.asarray(weight * window.reward), 0))
    whole, _ = pg.dice(logits, window, discount=jnp.full((7, 5), 0.8), baseline=baseline, **kwargs)
    close(whole, rows(returns - baseline).mean(0))
    for lam in (0.0, 0.5, 1.0):
        found, info = pg.loaded_dice.per_trajectory(
            logits, window, advantage=baseline, step_weight=weight, dice_lam=lam, **kwargs
        )
        close(found, rows(baseline))
        close(info.loss, 0.0)


def test_masked_scores_are_as_if_their_policy_were_fixed_and_hold_what_they_will() -> None:
    """With the scores of one state left out, all derivatives are those with respect to the logits of the other."""
    mdp, logits, batch, weights = every_trajectory("two_state", HORIZON)
    mask = batch.obs[..., 0] > 0
    broken = batch.replace(obs=jnp.where(mask[..., None], batch.obs, jnp.nan), action=jnp.where(mask, batch.action, 0))
    many = scaled(broken, weights)
    weight = tabular.weight(batch, mdp)
    advantage = jnp.where(mask, to_go(batch, mdp.discount) * shares(weights), jnp.nan)
    kwargs = {"policy": policy, "mask": mask}
    surrogates = (
        lambda x: pg.dice.surrogate(x, many, discount=mdp.discount, **kwargs),
        lambda x: pg.loaded_dice.surrogate(x, many, advantage=advantage, step_weight=weight, **kwargs),
    )
    first = jnp.array([1.0, 0.0])
    gradient, hessian, _ = truth("two_state")
    for surrogate in surrogates:
        got = jax.jit(lambda x, s=surrogate: (jax.grad(s)(x), jax.hessian(s)(x)))(logits)
        close(got[0], np.einsum("s,sa->sa", first, gradient))
        close(got[1], np.einsum("s,x,saxb->saxb", first, first, hessian))


def test_a_scalar_discount_and_the_rewards_carry_gradients() -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", HORIZON)

    def estimate(discount: Any, bonus: Any) -> Any:
        moved = batch.replace(reward=batch.reward + bonus[batch.obs.argmax(-1), batch.action])
        return jax.value_and_grad(
            lambda x: pg.dice.surrogate(x, scaled(moved, weights), policy=policy, discount=discount)
        )(logits)

    def exactly(discount: Any, bonus: Any) -> Any:
        process = mdp.replace(discount=discount, reward=mdp.reward + bonus)
        return jax.value_and_grad(lambda x: -tabular.objective(process, x, HORIZON))(logits)

    at = (jnp.asarray(mdp.discount), jnp.zeros((2, 2)))
    found, wanted = (jax.jit(jax.jacrev(f, (0, 1)))(*at) for f in (estimate, exactly))
    jax.tree.map(close, found, wanted)
    assert all(np.abs(x).max() > 0.05 for x in jax.tree.leaves(wanted))


def test_products_with_the_hessian_are_those_of_the_exact_one_for_dice_alone() -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", HORIZON)
    params = {"first": logits[0], "rest": (logits[1:],)}
    vector = {"first": jnp.array([0.3, -1.0]), "rest": (jnp.array([[2.0, 0.7]]),)}
    table = lambda p: jnp.concatenate([p["first"][None], p["rest"][0]])  # noqa: E731
    wanted = np.einsum("abcd,cd->ab", truth("two_state")[1], table(vector))
    of_params = lambda p, obs: policy(table(p), obs)  # noqa: E731
    kwargs = {"policy": of_params, "discount": mdp.discount}

    @jax.jit
    def products(params: Any, batch: Any) -> Any:
        return [
            pg.hessian_vector_product(params, lambda p, e=e, more=more: e.surrogate(p, batch, **kwargs, **more))(vector)
            for e, more in ((pg.dice, {}), (pg.reinforce, {"step_weight": tabular.weight(batch, mdp)}))
        ]

    right, wrong = products(params, scaled(batch, weights))
    close(table(right), wanted)
    assert np.abs(table(wrong) - wanted).max() > 0.1
    cubic = pg.hessian_vector_product(jnp.array([1.0, 2.0]), lambda x: x[0] ** 2 * x[1])
    close(jax.vmap(cubic)(jnp.eye(2)), [[4.0, 2.0], [2.0, 0.0]])


def test_what_makes_no_sense_is_refused_by_name() -> None:
    window = random_window(0, 2)
    _, logits = tabular.problem("three_state")
    kwargs = {"policy": policy, "advantage": jnp.ones((7, 2))}
    with pytest.raises(ValueError, match=r"^dice_lam must be a scalar, got shape \[7, 2\]"):
        pg.loaded_dice(logits, window, **kwargs, dice_lam=jnp.ones((7, 2)))
    with pytest.raises(ValueError, match=r"^dice_lam must lie in \[0, 1\]"):
        pg.loaded_dice(logits, window, **kwargs, dice_lam=1.5)
    with pytest.raises(ValueError, match=r"^advantage must have the shape of trajectory.reward"):
        pg.loaded_dice(logits, window, policy=policy, advantage=jnp.ones(2))
    with pytest.raises(ValueError, match=r"^discount must be a scalar or have shape"):
        pg.dice(logits, window, policy=policy, discount=jnp.ones(2))
    with pytest.raises(TypeError, match=r"^mask must be boolean"):
        pg.dice(logits, window, policy=policy, discount=0.9, mask=jnp.ones((7, 2)))
    with pytest.raises(ValueError, match=r"^surrogate must give one number, got shape \[2\]"):
        pg.hessian_vector_product(jnp.ones(2), lambda x: x**2)
    with pytest.raises(TypeError, match=r"^surrogate must be a function"):
        pg.hessian_vector_product(jnp.ones(2), 3.0)
    product = pg.hessian_vector_product(jnp.ones(2), lambda x: jnp.sum(x**3))
    with pytest.raises(ValueError, match=r"^each leaf of vector must have the shape of its leaf of params"):
        product(jnp.ones(3))
    with pytest.raises(ValueError, match=r"^vector must have the tree structure of params"):
        product({"x": jnp.ones(2)})
