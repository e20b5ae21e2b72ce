"""Wrappers nest in any order: the same process, and no reset inside the loop where a pool was asked for."""

from dataclasses import dataclass
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from probes import collect, start

import pgjax as pg
from pgjax.envs import FiveValueAdapter, FlattenObservation, OneHotObservation, PooledReset, TimeLimit, Wrapper

pytestmark = pytest.mark.usefixtures("quick_to_compile")
B, SIZE, LIMIT = 4, 3, 5


@dataclass(frozen=True)
class Marked(probes.PytreeProbe):
    """Each reset of one environment takes one logarithm of the gamma function, which nothing else does."""

    def reset_env(self, key: Any, params: Any) -> Any:
        obs, state = super().reset_env(key, params)
        return obs, state.replace(cue=state.cue + 0.0 * jax.lax.lgamma(3.0 + state.cue))


class MarkedFiveValues(probes.FiveValues):
    def reset(self, key: Any, params: Any) -> Any:
        obs, _ = super().reset(key, params)
        obs = obs + jax.lax.lgamma(3.0 + obs).astype(int) * 0
        return obs, obs


def resets(jaxpr: Any) -> int:
    """How many environments are reset in one pass through a program, each loop body counted once."""
    number = 0
    for equation in jaxpr.eqns:
        if equation.primitive is jax.lax.lgamma_p:
            number += equation.outvars[0].aval.size
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                number += resets(getattr(inner, "jaxpr", inner))
    return number


def program(function: Any, *args: Any) -> Any:
    return jax.make_jaxpr(function)(*args).jaxpr


def policy(params: Any, obs: Any) -> pg.Categorical:
    lead = jax.tree.leaves(obs)[0].shape[:1]
    return pg.Categorical(jnp.zeros((*lead, 2)))


def in_rollout(env: Any) -> int:
    state = jax.eval_shape(lambda: start(env, num_envs=B))
    return resets(program(lambda state: collect(env, state=state, policy=policy, num_steps=2), state))


def in_start(env: Any) -> int:
    return resets(program(lambda: start(env, num_envs=B)))


MARKED = Marked("constant", length=10**6)
POOLED = {
    "limit outside": lambda env: TimeLimit(PooledReset(env, SIZE), LIMIT),
    "limit inside": lambda env: PooledReset(TimeLimit(env, LIMIT), SIZE),
    "flattened outside": lambda env: FlattenObservation(TimeLimit(PooledReset(env, SIZE), LIMIT)),
    "flattened between": lambda env: TimeLimit(FlattenObservation(PooledReset(env, SIZE)), LIMIT),
    "flattened inside": lambda env: TimeLimit(PooledReset(FlattenObservation(env), SIZE), LIMIT),
    "wrapper between": lambda env: TimeLimit(Wrapper(PooledReset(env, SIZE)), LIMIT),
    "two limits outside": lambda env: TimeLimit(TimeLimit(PooledReset(env, SIZE), LIMIT), LIMIT + 2),
    "a limit on each side": lambda env: TimeLimit(PooledReset(TimeLimit(env, LIMIT + 2), SIZE), LIMIT),
}
POOLED_FIVE = {
    "adapter innermost, limit outermost": lambda env: TimeLimit(PooledReset(FiveValueAdapter(env), SIZE), LIMIT),
    "adapter innermost, pool outermost": lambda env: PooledReset(TimeLimit(FiveValueAdapter(env), LIMIT), SIZE),
    "adapter outermost": lambda env: FiveValueAdapter(TimeLimit(PooledReset(env, SIZE), LIMIT)),
    "adapter outside the pool": lambda env: TimeLimit(FiveValueAdapter(PooledReset(env, SIZE)), LIMIT),
}


@pytest.mark.parametrize("name", [*POOLED, *POOLED_FIVE])
def test_finding_6_a_pool_resets_nothing_inside_the_loop_in_any_order(name: str) -> None:
    env = POOLED[name](MARKED) if name in POOLED else POOLED_FIVE[name](MarkedFiveValues())
    assert in_rollout(env) == 0
    assert in_start(env) == B * SIZE


def test_the_count_of_resets_sees_those_that_are_made() -> None:
    assert in_rollout(TimeLimit(MARKED, LIMIT)) == B
    assert in_rollout(MARKED) == 2 * B  # both steps at once, before the loop
    assert in_start(TimeLimit(MARKED, LIMIT)) == B


class Fresh(Wrapper):
    """A user's wrapper that starts episodes in its own way and knows nothing of `restart`."""

    def reset(self, key: Any, params: Any = None) -> Any:
        obs, state = super().reset(key, params)
        return obs + 100.0, state


def test_a_wrapper_that_changes_only_its_reset_is_restarted_by_it() -> None:
    """At the price of the resets that it makes, and never without its change."""
    _, window = collect(TimeLimit(Fresh(probes.Probe("constant", length=10**6)), 2), num_steps=5)
    np.testing.assert_array_equal(window.obs[:, 0, 0], [100, 1, 100, 1, 100])
    assert in_rollout(TimeLimit(Fresh(PooledReset(FlattenObservation(MARKED), SIZE)), 2)) == B * SIZE


def played(env: Any, env_params: Any = None) -> pg.Trajectory:
    _, window = collect(env, env_params, num_steps=18, num_envs=B, policy=policy, actions=np.zeros((18, B), int))
    return jax.tree.map(np.asarray, window)


def same(actual: Any, desired: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, actual, desired)


def test_finding_6_either_order_of_a_limit_and_a_pool_is_the_same_process() -> None:
    env = probes.Probe("observation", length=10**6, chance=0.1)
    outside, inside = played(POOLED["limit outside"](env)), played(POOLED["limit inside"](env))
    same(outside, inside)
    assert outside.terminated.any()
    assert outside.truncated.any()
    assert outside.step.max() == LIMIT - 1


def test_an_older_environment_may_be_limited_inside_or_outside_of_its_adapter() -> None:
    """It ends after two or three steps and is cut after two: where both fall together, both are said."""
    envs = TimeLimit(FiveValueAdapter(probes.FiveValues()), 2), FiveValueAdapter(TimeLimit(probes.FiveValues(), 2))
    outside, inside = map(played, envs)
    same(outside, inside)
    assert (outside.terminated & outside.truncated).any()
    np.testing.assert_array_equal(outside.truncated, outside.step == 1)
    np.testing.assert_array_equal(outside.terminated, outside.next_obs == 3)


def test_an_encoder_and_a_pool_commute() -> None:
    env, params = gymnax.make("FrozenLake-misc")
    orders = (
        lambda env: OneHotObservation(PooledReset(env, 2)),
        lambda env: PooledReset(OneHotObservation(env), 2),
        lambda env: TimeLimit(OneHotObservation(PooledReset(env, 2)), 99),
    )
    windows = [played(order(env), params) for order in orders]
    for window in windows[1:]:
        same(window, windows[0])
    assert windows[0].obs.shape == (18, B, 16)


def test_a_pooled_start_keeps_its_own_observation() -> None:
    """The cue of an episode is in its state and in what is seen: a state beside another's observation would tell."""
    env = PooledReset(probes.Probe("observation", length=2), 4)
    before = jax.tree.map(np.asarray, start(env, num_envs=B))
    np.testing.assert_array_equal(before.env_state.pool_obs[..., 1], before.env_state.pool_state.cue)
    np.testing.assert_array_equal(before.env_state.env_state.cue, before.obs[:, 1])
    _, window = jax.tree.map(np.asarray, collect(env, num_steps=20, num_envs=B))
    np.testing.assert_array_equal(window.next_obs[..., 1], window.obs[..., 1])
    np.testing.assert_array_equal(window.reward, window.obs[..., 1])
    assert len(np.unique(window.obs[window.step == 0][:, 1])) == 2
