"""A duelling actor-critic: units of the box, what it shares, and what is refused."""

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world_of_boxes as boxes

import pgjax as pg
from pgjax.networks import (
    ActorCritic,
    ContinuousQNetwork,
    ConvActorCritic,
    DuellingActorCritic,
    GaussianPolicy,
    default_duelling_actor_critic,
)

pytestmark = pytest.mark.usefixtures("quick_to_compile")
KEY = jax.random.key(0)


def test_equal_places_inside_the_box_are_equal_whatever_its_units() -> None:
    env = boxes.Box(low=(-1.0, 2.0), high=(3.0, 2.5))
    model = default_duelling_actor_critic(env, None, features=(4,))
    assert model == default_duelling_actor_critic(env, None, features=(4,))
    obs = jax.random.normal(KEY, (3, 2))
    params = model.init(KEY, obs)
    inside, there = jnp.array([[0.5, -0.5]] * 3), jnp.array([[1.0 + 0.5 * 2.0, 2.25 - 0.5 * 0.25]] * 3)
    judged = model.apply(params, obs, there, method="advantage")
    assert judged.shape == (3,)
    plain = ContinuousQNetwork((4,), jnp.tanh).apply({"params": params["params"]["critic"]}, obs, inside)
    np.testing.assert_allclose(judged, plain, rtol=1e-5)
    assert np.abs(judged - model.apply(params, obs, inside, method="advantage")).max() > 1e-2


@pytest.mark.parametrize("images", [False, True])
def test_action_values_are_centred_and_the_networks_stand_on_one_trunk_only_for_images(images: bool) -> None:
    base: Any = (ConvActorCritic if images else ActorCritic)(GaussianPolicy(1), features=(8,), activation=jnp.tanh)
    model = DuellingActorCritic(base)
    obs = jax.random.normal(KEY, (2, 5, 5, 3) if images else (2, 3))
    params = model.init(KEY, obs)
    distribution, value, _ = model.apply(params, obs)
    draws = pg.distributions.action_from_noise(
        distribution, pg.distributions.draw_noise(distribution, jax.random.key(1), num_draws=4)
    )[0]
    each = np.stack([model.apply(params, obs, u, draws, method="action_value") for u in draws])
    np.testing.assert_allclose(each.mean(0), value, rtol=1e-5)
    assert np.abs(each - value[None]).max() > 1e-3
    # An advantage that is not linear in observation and action: its slope along the action depends on both.
    judge = lambda a, o: model.apply(params, o, jnp.full((2, 1), a), method="advantage")[0]  # noqa: E731
    at = [judge(a + 0.5, o) - judge(a, o) for a in (-0.3, 0.7) for o in (obs, 2.0 * obs)]
    assert len({round(float(x), 6) for x in at}) == 4
    of_advantage = jax.grad(lambda p: model.apply(p, obs, draws[0], method="advantage").sum())(params)["params"]["base"]
    reached = sum(np.abs(x).sum() for x in jax.tree.leaves(of_advantage))
    assert (reached > 0) == images


@pytest.mark.parametrize(
    ("env", "error", "message"),
    [
        (gymnax.make("CartPole-v1")[0], TypeError, "env must have actions in a box"),
        (boxes.Box(low=(-np.inf,), high=(1.0,)), ValueError, "env must have bounded actions"),
    ],
)
def test_what_is_no_bounded_box_is_refused(env: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        default_duelling_actor_critic(env, getattr(env, "default_params", None))
    with pytest.raises(error, match=message):
        pg.recipes.acer_continuous.make_train(env, getattr(env, "default_params", None))
