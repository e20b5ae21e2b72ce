"""Actors with critics of their actions: what goes in and comes out, units of the box, and what is refused."""

from types import SimpleNamespace
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world_of_boxes as boxes

from pgjax.networks import (
    ActorWithCritics,
    DeterministicPolicy,
    action_box,
    count_actions,
    default_actor_with_critics,
)

pytestmark = pytest.mark.usefixtures("quick_to_compile")
KEY = jax.random.key(0)


class Switches(boxes.Box):
    """Several yes-or-no choices at once, whose space has a number n too."""

    def __init__(self) -> None:
        super().__init__(low=(0.0,), high=(1.0,))

    def action_space(self, params: Any = None) -> Any:
        return SimpleNamespace(n=3, shape=(3,))


class WholeNumbers(boxes.Box):
    """A box of whole numbers, which no float is."""

    def action_space(self, params: Any = None) -> Any:
        return SimpleNamespace(low=np.zeros(1), high=np.full(1, 3.0), shape=(1,), dtype=np.dtype("int32"))


def parts(model: Any, obs: Any, *action: Any) -> tuple[Any, Any]:
    """(distribution, values) of a module that is initialised part by part."""
    actor = model.init(KEY, obs, method="policy")
    critics = model.init(KEY, obs, *action, method="action_value")
    assert set(actor["params"]).isdisjoint(critics["params"])
    return model.apply(actor, obs, method="policy"), model.apply(critics, obs, *action, method="action_value")


@pytest.mark.parametrize("num_outputs", [None, 5])
def test_a_box_has_values_of_an_action_by_each_critic(num_outputs: int | None) -> None:
    env, env_params = gymnax.make("Pendulum-v1")
    model = default_actor_with_critics(env, env_params, features=(8,), num_critics=3, num_outputs=num_outputs)
    distribution, values = parts(model, jnp.ones((4, 2, 3)), jnp.ones((4, 2, 1)))
    assert distribution.mode().shape == (4, 2, 1)
    assert values.shape == (3, 4, 2, *([] if num_outputs is None else [num_outputs]))
    assert len(np.unique(np.asarray(values)[:, 0, 0].reshape(-1))) == 3 * (num_outputs or 1)
    assert model == default_actor_with_critics(env, env_params, features=(8,), num_critics=3, num_outputs=num_outputs)


@pytest.mark.parametrize("name", ["CartPole-v1", "Breakout-MinAtar"])
def test_discrete_actions_have_a_value_each(name: str) -> None:
    """Breakout shows planes, which go through a convolution in each trunk."""
    env, env_params = gymnax.make(name)
    obs, _ = env.reset(KEY, env_params)
    model = default_actor_with_critics(env, env_params, features=(8,))
    distribution, values = parts(model, jnp.stack([obs, obs]))
    assert distribution.probs.shape == (2, env.action_space(env_params).n)
    assert values.shape == (2, *distribution.probs.shape)


def test_the_actor_and_the_critics_know_a_box_with_bounds_of_its_own_for_each_coordinate() -> None:
    env, env_params = boxes.Box(low=(-1.0, 2.0), high=(3.0, 2.5)), None
    model = default_actor_with_critics(env, env_params, features=(4,))
    obs = jnp.ones((1, 2))
    actor = jax.tree.map(lambda x: 100.0 * x, model.init(KEY, obs, method="policy"))
    flipped = jax.tree.map(lambda x: -x, actor)
    ends = np.sort([model.apply(p, obs, method="policy").mode()[0] for p in (actor, flipped)], axis=0)
    assert (ends >= [-1.0, 2.0]).all()
    assert (ends <= [3.0, 2.5]).all()
    # Equal places inside the box are equal to the critics, whatever its units.
    plain = ActorWithCritics(DeterministicPolicy(2), features=(4,))
    critics = model.init(KEY, obs, jnp.zeros((1, 2)), method="action_value")
    inside = jnp.array([[0.5, -0.5]])
    there = jnp.array([[1.0 + 0.5 * 2.0, 2.25 - 0.5 * 0.25]])
    np.testing.assert_allclose(
        model.apply(critics, obs, there, method="action_value"),
        plain.apply(critics, obs, inside, method="action_value"),
        rtol=1e-5,
    )
    other = model.apply(critics, obs, there + jnp.array([[0.0, 0.1]]), method="action_value")
    assert np.abs(other - model.apply(critics, obs, there, method="action_value")).min() > 1e-3


@pytest.mark.parametrize("layer_norm", [True, False])
def test_with_normalised_layers_critics_are_blind_to_the_scale_of_the_first_weights(layer_norm: bool) -> None:
    env, env_params = gymnax.make("Pendulum-v1")
    model = default_actor_with_critics(env, env_params, features=(16,), num_critics=1, layer_norm=layer_norm)
    obs, action = jax.random.normal(KEY, (3, 3)), jnp.ones((3, 1))
    critics = model.init(KEY, obs, action, method="action_value")

    def enlarge(path: Any, x: Any) -> Any:
        name = jax.tree_util.keystr(path)
        return 7.0 * x if "Dense_0" in name and "Head" not in name else x

    larger = jax.tree_util.tree_map_with_path(enlarge, critics)
    values = [model.apply(params, obs, action, method="action_value") for params in (critics, larger)]
    assert np.allclose(*values, rtol=1e-3) == layer_norm


def test_the_outermost_bounds_of_all_environments_are_the_box() -> None:
    low, high = action_box(boxes.Box(low=(-1.0, 2.0), high=(3.0, 2.5)), None)
    np.testing.assert_array_equal([low, high], [[-1.0, 2.0], [3.0, 2.5]])
    assert low.dtype == high.dtype == np.float32


@pytest.mark.parametrize(
    ("env", "error", "message"),
    [
        (gymnax.make("CartPole-v1")[0], TypeError, "env must have actions in a box, one vector of floats, got"),
        (boxes.Box(low=(-np.inf, 0.0), high=(1.0, 1.0)), ValueError, r"env must have bounded actions, .*\[-inf, 0.0\]"),
        (boxes.Box(low=(1.0,), high=(1.0,)), ValueError, "env must have bounded actions, low below high"),
        (WholeNumbers(low=(0.0,), high=(3.0,)), TypeError, "env must have actions in a box, one vector of floats, got"),
    ],
)
def test_what_is_no_bounded_box_is_refused(env: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        action_box(env, getattr(env, "default_params", None))


def test_discrete_actions_are_counted_and_others_are_refused() -> None:
    assert [count_actions(*gymnax.make(name)) for name in ("CartPole-v1", "Acrobot-v1")] == [2, 3]
    for env in (boxes.Box(low=(0.0,), high=(1.0,)), Switches()):
        with pytest.raises(TypeError, match="env must have discrete actions, one whole number from 0 on, got"):
            count_actions(env, env.default_params)
    with pytest.raises(TypeError, match="env must have discrete actions"):
        default_actor_with_critics(Switches(), boxes.BoxParams())
