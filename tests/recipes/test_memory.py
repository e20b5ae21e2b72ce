"""What A2C and PPO can carry: a memory, normalisers, squashed actions, networks of any framework."""

from types import SimpleNamespace
from typing import Any

import derivations_memory
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recall
from entry import as_numpy

import pgjax as pg
from pgjax.recipes import a2c, ppo

pytestmark = pytest.mark.usefixtures("quick_to_compile")
MODULES = {"a2c": a2c, "ppo": ppo}
EPOCHS = {"num_epochs": 2, "num_minibatches": 4}
HYPER = {"learning_rate": 0.02, "discount": 0.9, "lam": 0.8, "entropy_coef": 0.1, "max_grad_norm": 0.3, "anneal": 0.0}


class Carried:
    """A recipe on the memory task, its programs and its first updates."""

    def __init__(self, name: str, **settings: Any):
        self.name = name
        self.settings = {**recall.SIZES, **(EPOCHS if name == "ppo" else {}), **settings}
        self.recipe = MODULES[name].make_train(*recall.task(), total_steps=300 * 64, **self.settings)
        self.states = [self.recipe.init(jax.random.key(2), **HYPER)]
        self.metrics = []
        for _ in range(3):
            state, metrics = self.recipe.update(self.states[-1])
            self.states.append(state)
            self.metrics.append(metrics)


@pytest.fixture(scope="module", params=MODULES)
def carried(request: pytest.FixtureRequest, quick_to_compile: None) -> Carried:
    return Carried(request.param, **recall.WITH_MEMORY)


def test_one_update_with_a_memory_and_normalisers_is_the_update_of_the_paper(carried: Carried) -> None:
    """From the third state: statistics differ from their start, episodes run across the window's edge."""
    before = carried.states[2]
    before = before.replace(opt_state=jax.tree.map(jnp.zeros_like, before.opt_state))
    keys = jax.random.split(before.key, 3 if carried.name == "ppo" else 2)
    env, env_params = recall.task()
    rollout, t = pg.rollout(
        keys[1], before.params, before.rollout, policy=carried.recipe.policy, env=env, env_params=env_params,
        num_steps=recall.NUM_STEPS,
    )  # fmt: skip
    names = ("obs", "next_obs", "reward", "log_prob", "step", "raw_action", "terminated")
    data = SimpleNamespace(**{name: as_numpy(getattr(t, name)) for name in names}, done=np.asarray(t.done))
    assert t.truncated.any()
    assert t.terminated.any()
    more = {}
    if carried.name == "ppo":
        rows = jnp.arange(recall.NUM_ENVS)
        more["order"] = np.asarray(pg.epochs(keys[2], 0, rows, step=lambda c, x: (c, x), num_axes=1, **EPOCHS)[1])
    hyper = {name: float(x) for name, x in before.hyper._asdict().items() if x is not None}
    state = jax.tree.map(as_numpy, before)
    network, ready = getattr(derivations_memory, carried.name)(state, data, hyper, **more)
    after = carried.recipe.update(before)[0]
    old, new = (derivations_memory.flat(x.params.network) for x in (before, after))
    np.testing.assert_allclose(new - old, derivations_memory.flat(network) - old, rtol=2e-3, atol=5e-6)
    np.testing.assert_allclose(after.params.statistics.mean, ready["mean"], rtol=1e-5)
    np.testing.assert_allclose(after.params.statistics.var, ready["var"], rtol=1e-4)
    np.testing.assert_array_equal(after.rollout.policy_state, rollout.policy_state)


def test_statistics_are_frozen_where_the_policy_is_evaluated(carried: Carried) -> None:
    """recipe.policy and recipe.value take raw observations and state.params, and nothing else."""
    state = carried.states[-1]
    env, env_params = recall.Recall(), recall.RecallParams()
    memory = jnp.zeros((5, recall.HIDDEN))
    result = pg.evaluate(
        jax.random.key(0), state.params, policy=carried.recipe.policy, env=env, env_params=env_params, num_episodes=5,
        policy_state=memory,
    )  # fmt: skip
    np.testing.assert_array_equal(result.episode_length, recall.LENGTH)
    obs = 100.0 + 20.0 * jax.random.normal(jax.random.key(1), (5, 2))
    network, statistics = state.params
    assert float(statistics.count) == 3 * recall.NUM_ENVS * recall.NUM_STEPS
    by_hand = (obs - statistics.mean[None]) / jnp.sqrt(statistics.var + 1e-8)[None]
    np.testing.assert_allclose(
        carried.recipe.policy(state.params, obs, memory)[0].loc,
        recall.policy(network, by_hand, memory)[0].loc,
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        carried.recipe.value(state.params, obs, memory), recall.value(network, by_hand, memory), rtol=1e-4
    )


def test_the_statistics_are_not_trained(carried: Carried) -> None:
    """They have no gradient: the optimiser's memory of them stays 0."""
    state = carried.states[-1]
    size = derivations_memory.flat(state.params.network).size
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert len(moments) == 2
    for x in moments:
        assert x[:size].any()
        np.testing.assert_array_equal(x[size:], 0.0)


def test_the_scale_of_the_rewards_is_carried_and_metrics_keep_reward_units(carried: Carried) -> None:
    scale = carried.states[-1].reward_scale
    assert float(scale.statistics.count) == 3 * recall.NUM_ENVS * recall.NUM_STEPS
    assert 0.05 < float(scale.statistics.var) < 1.0
    last = carried.states[-1].rollout.episode_return
    np.testing.assert_allclose(carried.metrics[-1]["episode_return"], np.mean(last), rtol=1e-6)
    assert np.abs(last).max() <= 1.0


def ratios_at_rest(recipe: Any, state: Any, clip: float) -> dict[str, Any]:
    """The metrics of an update that moves nothing, so that every minibatch is a first one."""
    dtype = state.hyper.clip.dtype
    still = state.hyper._replace(learning_rate=jnp.zeros((), dtype), clip=jnp.asarray(clip, dtype))
    return recipe.update(state.replace(hyper=still))[1]


def test_the_ratio_is_one_before_the_first_step_recurrent_normalised_and_squashed(carried: Carried) -> None:
    """What acted is what the loss is computed with, in every update: to 1e-6 as the root mean square over the rows.

    In float32 a single row may be off by some units in the last place of its log-probability; how many depends on the
    processor.
    """
    if carried.name != "ppo":
        pytest.skip("A2C has no ratio")
    for state in carried.states:
        metrics = ratios_at_rest(carried.recipe, state, 4e-6)
        assert metrics["clip_fraction"] == 0.0
        assert metrics["kl"] < 0.5e-12  # half the mean square of the log-ratios


def test_without_rounding_the_ratio_is_one_in_every_row(x64: None, quick_to_compile: None) -> None:
    """The same in float64, to 1e-12."""
    start = jnp.zeros((recall.NUM_ENVS, recall.HIDDEN))
    carried = Carried("ppo", **recall.WITH_MEMORY | {"policy_state": start})
    for state in carried.states:
        assert ratios_at_rest(carried.recipe, state, 1e-12)["clip_fraction"] == 0.0


def test_minibatches_of_a_recurrent_policy_divide_the_environments() -> None:
    with pytest.raises(ValueError, match="num_minibatches=32 must divide the 16 rows"):
        ppo.make_train(
            *recall.task(), **recall.SIZES, **recall.WITH_MEMORY, total_steps=64, num_epochs=1, num_minibatches=32
        )


def test_a_memory_solves_what_no_policy_without_one_can() -> None:
    """1 is the best; without a memory the action cannot depend on the cue, and earns 0 on average."""
    earned = {}
    for name, functions in (("with", recall.WITH_MEMORY), ("without", recall.WITHOUT)):
        recipe = ppo.make_train(*recall.task(), **recall.SIZES, **functions, **EPOCHS, total_steps=250 * 64)
        _, metrics = recipe(jax.random.key(0), learning_rate=0.02, discount=0.9, entropy_coef=0.0)
        earned[name] = float(metrics["episode_return"][-50:].mean())
    assert earned["with"] > 0.8
    assert abs(earned["without"]) < 0.2
