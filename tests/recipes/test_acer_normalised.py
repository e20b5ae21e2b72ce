"""ACER with normalisers, discrete and continuous: a raw replay, seen and earned by the statistics of now."""

from typing import Any

import derivations_memory
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world
from entry import as_data, as_numpy
from table import RECIPES

pytestmark = pytest.mark.usefixtures("quick_to_compile")
NORMALISED = {"normalize_observations": True, "normalize_rewards": True}
NUM_BEFORE = 3  # updates, so that statistics have moved and what is replayed was seen under others


class Run:
    """The first updates of a recipe with both normalisers, and the derivation of the last of them."""

    def __init__(self, name: str):
        self.entry = RECIPES[name]
        self.recipe = self.entry.make(**NORMALISED)
        self.hyper = {**self.entry.base, "anneal": 0.0}
        self.states = [self.recipe.init(jax.random.key(3), **self.hyper)]
        for _ in range(NUM_BEFORE):
            self.states.append(self.recipe.update(self.states[-1])[0])
        last = self.states[-1]  # without a memory of the optimiser, as a derivation starts
        self.before = last.replace(opt_state=jax.tree.map(jnp.zeros_like, last.opt_state))
        self.after, self.metrics = self.recipe.update(self.before)
        self.raw = jax.tree.map(lambda x: as_numpy(x, NUM_BEFORE), self.after.windows)

    def derived(self) -> Any:
        before, data = jax.tree.map(as_numpy, self.before), as_data(self.raw)
        network, statistics = before.params
        seen = derivations_memory.normalised(statistics, np.eye(world.NUM_CELLS))
        data.acting = (seen @ network.actor,)  # a table of the raw cells, which are one-hot
        keys = jax.random.split(self.before.key, len(self.entry.keys))
        before = before.replace(average=before.average.network)
        given = self.entry.given(self.entry, keys, before, data)
        scale = before.reward_scale
        sums, _ = derivations_memory.discounted_sums(
            scale.running_return, data.reward, data.done, self.hyper["discount"]
        )
        earned = scale.statistics
        _, var = derivations_memory.merged(earned.mean, earned.var, earned.count, sums.reshape(-1))
        for step in given["steps"]:
            step.obs, step.next_obs = (derivations_memory.normalised(statistics, x) for x in (step.obs, step.next_obs))
            step.reward = np.clip(step.reward / np.sqrt(var + 1e-8), -10, 10)
        tables = (network.actor, network.critic)
        return self.entry.derive(tables, self.entry.memory(tables), data, self.hyper, 0.0, **given)


@pytest.fixture(scope="module", params=["acer", "acer_continuous"])
def run(request: pytest.FixtureRequest, quick_to_compile: None) -> Run:
    return Run(request.param)


def test_one_update_with_normalisers_is_the_update_of_the_paper(run: Run) -> None:
    """Also the windows that were seen under other statistics: by those of now, with the ratios of then."""
    old, new = (derivations_memory.flat(x.params.network) for x in (run.before, run.after))
    tables, _, metrics = run.derived()
    np.testing.assert_allclose(new - old, derivations_memory.flat(tables) - old, rtol=1e-3, atol=5e-6)
    for name, x in metrics.items():
        np.testing.assert_allclose(run.metrics[name], x, rtol=1e-3, atol=5e-6, err_msg=name)


def test_the_replay_holds_what_was_seen_and_earned(run: Run) -> None:
    windows = jax.tree.map(as_numpy, run.after.windows)
    np.testing.assert_array_equal(np.sort(windows.obs, -1)[..., -2:], np.broadcast_to([0.0, 1.0], (4, 5, 8, 2)))
    np.testing.assert_array_equal(windows.reward[:, :, : 2 * world.CHOICE], 1.0)


def test_statistics_are_of_all_that_was_seen_and_of_the_averaged_policy_too(run: Run) -> None:
    obs = as_numpy(run.after.windows.obs).reshape(-1, world.NUM_CELLS)
    for params in (run.after.params, run.after.average):
        assert float(params.statistics.count) == len(obs)
        np.testing.assert_allclose(params.statistics.mean, obs.mean(0), rtol=1e-5)
        np.testing.assert_allclose(params.statistics.var, obs.var(0), rtol=1e-4, atol=1e-6)
    assert float(run.after.reward_scale.statistics.count) == len(obs)
    size = derivations_memory.flat(run.after.params.network).size
    for x in (x for x in jax.tree.leaves(run.after.opt_state) if x.ndim):
        np.testing.assert_array_equal(x[size:], 0.0)  # they are not trained


def test_policy_and_value_take_raw_observations_and_the_statistics_of_the_parameters(run: Run) -> None:
    network, statistics = jax.tree.map(as_numpy, run.after.params)
    seen = jnp.asarray(derivations_memory.normalised(statistics, np.eye(world.NUM_CELLS)), jnp.float32)
    plain = run.entry.make()
    for found, expected in (
        (run.recipe.policy(run.after.params, jnp.eye(world.NUM_CELLS)), plain.policy(network, seen)),
        (run.recipe.value(run.after.params, jnp.eye(world.NUM_CELLS)), plain.value(network, seen)),
    ):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), found, expected)


def test_the_first_update_is_that_without_normalised_observations(run: Run) -> None:
    """Nothing has been seen before: the statistics start from the identity, and are replaced only after the update."""
    plain = run.entry.make(normalize_rewards=True)
    state = plain.update(plain.init(jax.random.key(3), **run.hyper))[0]
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), run.states[1].params.network, state.params
    )
