"""The axis of the agents in recipes that have one network for all: one agent with the axis is one without."""

import inspect
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table import RECIPES

import pgjax as pg
from pgjax import recipes

pytestmark = pytest.mark.usefixtures("quick_to_compile")
SIZES = {
    **{"num_envs": 4, "num_steps": 4, "total_steps": 1_000_000, "num_minibatches": 2, "num_iterations": 2},
    **{"num_pairs": 2, "num_particles": 3, "group_size": 2, "capacity": 3},
}
WITH_ACTION_VALUES = ("acer_continuous", "d4pg", "ddpg", "dpg", "fasttd3", "reppo", "sac", "sac_discrete", "td3")
NAMES = [name for name in RECIPES if "," not in name and "maddpg" not in name and name not in WITH_ACTION_VALUES]
RECURRENT = ("a2c", "grpo", "impala", "one_step_actor_critic", "ppg", "ppo", "reinforce")


class Copies:
    """An environment seen by agents of these axes at once; the first of them acts, and all are paid."""

    def __init__(self, env: Any, *agents: int):
        self.env, self.agents = env, agents

    def reset(self, key: Any, params: Any) -> Any:
        obs, state = self.env.reset(key, params)
        return self.of_all(obs), state

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        first = action[(0,) * len(self.agents)]
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, first, params)
        final = self.of_all(info["final_observation"])
        return self.of_all(obs), state, self.of_all(reward), terminated, truncated, {"final_observation": final}

    def of_all(self, x: Any) -> Any:
        return jnp.broadcast_to(x, (*self.agents, *x.shape))

    def action_space(self, params: Any) -> Any:
        return self.env.action_space(params)

    def observation_space(self, params: Any) -> Any:
        return self.env.observation_space(params)


def make(name: str, *agents: int, **options: Any) -> Any:
    env, env_params = gymnax.make("CartPole-v1")
    make_train = getattr(recipes, name).make_train
    taken = inspect.signature(make_train).parameters
    sizes = {size: x for size, x in SIZES.items() if size in taken}
    return make_train(Copies(env, *agents), env_params, **sizes, **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_keeps_its_shapes_with_several_agents(name: str) -> None:
    recipe = make(name, 2)
    state = jax.eval_shape(recipe.init, jax.random.key(0))
    after, metrics = jax.eval_shape(recipe.update, state)
    described = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (state, after)]
    assert described[0] == described[1]
    assert {x.shape for x in jax.tree.leaves(metrics)} == {()}


@pytest.mark.parametrize("name", WITH_ACTION_VALUES[1:])
def test_a_recipe_for_one_agent_says_so(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"^env must have one agent, got agents of the axes \(2,\). Take maddpg for several"
    ):
        make(name, 2)


@pytest.mark.parametrize("name", RECURRENT)
def test_the_memory_of_a_recurrent_model_has_the_axis(name: str) -> None:
    model = pg.networks.default_recurrent_actor_critic(*gymnax.make("CartPole-v1"), hidden=8)
    state = jax.eval_shape(make(name, 2, model=model).init, jax.random.key(0))
    assert {x.shape for x in jax.tree.leaves(state.rollout.policy_state)} == {(4, 2, 8)}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("average_reward_actor_critic", {}),
        ("eligibility_traces", {"traces": "dutch", "weight_by_discount": True}),
        ("off_pac", {"emphatic": True}),
        ("grpo", {"advantage": "grpo"}),
        ("grpo", {"advantage": "rloo"}),
        ("grpo", {"advantage": "remax"}),
    ],
)
def test_one_agent_with_the_axis_learns_what_it_learns_without(name: str, options: dict[str, Any]) -> None:
    ends = []
    for agents in ((), (1,)):
        recipe = make(name, *agents, **options)
        state = recipe.init(jax.random.key(1))
        for _ in range(3):
            state, metrics = recipe.update(state)
        ends.append(jax.tree.map(np.asarray, (state.params, metrics)))
    for x, y in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
