"""PPO with a divergence penalty: its direction, its weight, and that it is nothing where the policy has not moved."""

from typing import Any

import derivations_penalty
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recall
import world
from derivations import Adam, flat
from entry import NUM_UPDATES, as_data, as_numpy, order, window
from table import RECIPES

import pgjax as pg
from pgjax.recipes import kl_ppo

pytestmark = pytest.mark.usefixtures("quick_to_compile")
ENTRY = RECIPES["kl_ppo"]
DIVERGENCES = {
    "forward": derivations_penalty.forward_divergence,
    "reverse": derivations_penalty.reverse_divergence,
}


@pytest.mark.parametrize("direction", DIVERGENCES)
def test_identity_31_the_penalty_and_its_gradient_are_zero_at_the_old_policy_and_its_hessian_is_fishers(
    direction: str, x64: None
) -> None:
    logits = jnp.array([0.3, -0.4, 1.1])
    old = pg.Categorical(logits)

    def penalty(logits: Any) -> Any:
        new = pg.Categorical(logits)
        kl = old.kl_divergence(new) if direction == "forward" else new.kl_divergence(old)
        return pg.kl_penalty_loss(jnp.zeros(()), jnp.zeros(()), kl=kl, coefficient=1.0)

    p = np.exp(logits) / np.exp(logits).sum()
    fisher = sum(p[a] * np.outer(np.eye(3)[a] - p, np.eye(3)[a] - p) for a in range(3))
    np.testing.assert_allclose(penalty(logits), 0.0, atol=1e-15)
    np.testing.assert_allclose(jax.grad(penalty)(logits), 0.0, atol=1e-15)
    np.testing.assert_allclose(jax.hessian(penalty)(logits), fisher, rtol=1e-12, atol=1e-15)
    away = logits + jnp.array([0.5, 0.0, -0.5])  # by enumeration, and nothing of it is zero
    q = np.exp(away) / np.exp(away).sum()
    kl, slope = DIVERGENCES[direction](p, q)
    np.testing.assert_allclose(penalty(away), kl, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(penalty)(away), slope, rtol=1e-10)
    assert np.abs(slope).max() > 0.05


def first_update(**settings: Any) -> Any:
    """(state before, state after, metrics) of one update under the base's hyper-parameters."""
    recipe = ENTRY.make(**settings)
    before = recipe.init(jax.random.key(7), **ENTRY.base)
    return before, *recipe.update(before)


def test_the_reverse_penalty_is_that_of_the_paper_and_not_the_forward_one() -> None:
    before, after, metrics = first_update(penalty="reverse")
    keys = jax.random.split(before.key, 3)
    one = jax.tree.map(lambda x: x[None], (keys, before))
    data = as_data(jax.tree.map(lambda x: as_numpy(x[0]), window(ENTRY)(*one)[2]))
    tables = (as_numpy(before.params.actor), as_numpy(before.params.critic))
    hyper = {name: float(x) for name, x in before.hyper._asdict().items()}
    size = flat(tables).size
    rows = np.asarray(order(keys[2], num_epochs=2, num_minibatches=4))
    for direction, fits in (("reverse", True), ("forward", False)):
        wanted, _, expected = derivations_penalty.kl_ppo(
            tables, Adam(0, np.zeros(size), np.zeros(size)), data, hyper, 0.0, order=rows, kl_coef=hyper["kl_coef"],
            divergence=DIVERGENCES[direction],
        )  # fmt: skip
        assert np.allclose(after.params.actor, wanted[0], rtol=1e-4, atol=2e-6) == fits
        assert np.isclose(metrics["divergence"], expected["divergence"], rtol=1e-4) == fits


def test_the_weight_of_the_penalty_does_not_matter_before_the_first_step() -> None:
    """One step for each rollout: the gradient is that without a penalty. From the second on it matters, by the laws."""
    recipe = ENTRY.make(num_epochs=1, num_minibatches=1)
    states = jax.vmap(lambda x: recipe.init(jax.random.key(7), **{**ENTRY.base, "kl_coef": x}))(jnp.array([0.0, 5.0]))
    after, metrics = jax.vmap(recipe.update)(states)
    np.testing.assert_allclose(*after.params.actor, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(*metrics["grad_norm"], rtol=1e-5)
    assert metrics["divergence"][0] > 1e-4


def test_a_memory_a_squashed_normal_and_normalisers_meet_the_penalty_where_they_acted() -> None:
    """Without a learning rate the ratio is 1 and the divergence 0 in every row; with one they are not."""
    settings = {"num_epochs": 2, "num_minibatches": 4, "total_steps": 64 * NUM_UPDATES, "penalty": "reverse"}
    recipe = kl_ppo.make_train(*recall.task(), **recall.SIZES, **recall.WITH_MEMORY, **settings)
    state = recipe.init(jax.random.key(2), learning_rate=0.02)
    for _ in range(3):
        state, metrics = recipe.update(state)
        assert metrics["divergence"] > 1e-5
    still = state.replace(hyper=state.hyper._replace(learning_rate=jnp.float32(0.0)))
    metrics = recipe.update(still)[1]
    assert metrics["kl"] < 1e-12
    assert abs(metrics["divergence"]) < 1e-6


def test_a_penalty_is_forward_or_reverse() -> None:
    with pytest.raises(ValueError, match=r'^penalty must be "forward" or "reverse", got \'both\''):
        kl_ppo.make_train(*world.world(), total_steps=10_000, penalty="both")  # type: ignore[arg-type]
