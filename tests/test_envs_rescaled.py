"""Observations in units of the bounds of their space: where they come from, and what is left alone."""

import dataclasses
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from gymnax.environments import spaces

import pgjax as pg
from pgjax.envs import RescaledObservation, TimeLimit, Wrapper

pytestmark = pytest.mark.usefixtures("quick_to_compile")
KEY = jax.random.key(0)
CAR, CAR_PARAMS = gymnax.make("MountainCar-v0")


def pushes(params: Any, obs: Any) -> pg.exploration.HeldCategorical:
    return pg.exploration.HeldCategorical(jnp.zeros((*obs.shape[:-1], 3)), hold=25)


def play(env: Any, env_params: Any, num_envs: int = 4) -> pg.Trajectory:
    state = pg.init_rollout(KEY, env, env_params, num_envs=num_envs)
    return pg.rollout(KEY, (), state, policy=pushes, env=env, env_params=env_params, num_steps=200)[1]


@pytest.mark.parametrize("limited", [False, True])
def test_low_becomes_minus_one_and_high_one_in_what_is_seen_and_in_what_is_seen_last(limited: bool) -> None:
    env = RescaledObservation(CAR)
    there, plain = (TimeLimit(e, 90) if limited else e for e in (env, CAR))
    seen, expected = play(there, CAR_PARAMS), play(plain, CAR_PARAMS)
    assert np.asarray(expected.done).any()
    low, high = np.array([-1.2, -0.07]), np.array([0.6, 0.07])
    for name in ("obs", "next_obs"):
        found, before = np.asarray(getattr(seen, name)), np.asarray(getattr(expected, name))
        np.testing.assert_allclose(found, 2 * (before - low) / (high - low) - 1, atol=1e-5)
        assert np.abs(found[..., 1]).max() > 0.3  # the velocity, which is 0.07 at most
    np.testing.assert_array_equal(seen.reward, expected.reward)
    np.testing.assert_array_equal(seen.done, expected.done)
    space = env.observation_space(CAR_PARAMS)
    np.testing.assert_array_equal(space.low, [-1.0, -1.0])
    np.testing.assert_array_equal(space.high, [1.0, 1.0])
    assert space.shape == (2,)


def test_bounds_are_those_of_each_environment_by_itself() -> None:
    rows = dataclasses.replace(CAR_PARAMS, max_speed=jnp.array([0.07, 0.07, 0.035, 0.035]))
    found, before = (np.asarray(play(env, rows).obs) for env in (RescaledObservation(CAR), CAR))
    np.testing.assert_allclose(found[..., 1], before[..., 1] / np.array([0.07, 0.07, 0.035, 0.035]), atol=1e-5)


def test_a_component_without_bounds_stays_as_it_is() -> None:
    env, env_params = gymnax.make("CartPole-v1")
    obs = jnp.array([2.4, -3.0, 0.1, 5.0])
    found = RescaledObservation(env).encode(obs, env_params)
    np.testing.assert_allclose(found, [0.5, -3.0, 0.1 / 0.41887903, 5.0], rtol=1e-6)
    space = RescaledObservation(env).observation_space(env_params)
    np.testing.assert_array_equal(space.high[jnp.array([0, 2])], 1.0)
    assert (space.high[jnp.array([1, 3])] > 1e30).all()


class Frames(Wrapper):
    """A user's environment that shows bytes, its bounds single numbers."""

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(0, 255, (1,), jnp.uint8)


class Numbers(Wrapper):
    """A user's environment whose observation is one of several."""

    def observation_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(4)


def test_bytes_become_floats_and_a_space_without_bounds_is_refused() -> None:
    found = RescaledObservation(Frames(CAR)).encode(jnp.array([0, 255, 51], jnp.uint8), CAR_PARAMS)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [-1.0, 1.0, -0.6], atol=1e-6)
    with pytest.raises(TypeError, match="env must have observations of one array, got dict"):
        RescaledObservation(probes.PytreeProbe("constant", length=3)).reset(KEY)
    with pytest.raises(TypeError, match="env must have observations in a box, got the observation space"):
        RescaledObservation(Numbers(CAR)).reset(KEY, CAR_PARAMS)
