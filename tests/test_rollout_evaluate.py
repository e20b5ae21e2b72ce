"""Evaluation: whole episodes, one from each environment, so that long ones count as much as short ones."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from probes import coin, start

import pgjax as pg
from pgjax.envs import FiveValueAdapter
from pgjax.rollout import evaluation

pytestmark = pytest.mark.usefixtures("quick_to_compile")
CHANCE = 0.2  # each step of RANDOM_LENGTH ends the episode with this probability


def evaluate(env: Any, env_params: Any = None, *, seed: int = 0, num_episodes: int = 4, **kwargs: Any) -> Any:
    kwargs = {"policy": coin, "params": 0.0, **kwargs}
    return pg.evaluate(
        jax.random.key(seed), kwargs.pop("params"), env=env, env_params=env_params, num_episodes=num_episodes, **kwargs
    )


def test_long_episodes_count_as_much_as_short_ones() -> None:
    """The length is geometric with mean 5. Averaging what ended within a window would say much less."""
    number = 4096
    result = evaluate(probes.RANDOM_LENGTH, num_episodes=number, max_steps=500)
    assert result.episode_return.shape == result.episode_length.shape == (number,)
    np.testing.assert_array_equal(result.episode_return, result.episode_length)
    lengths = np.asarray(result.episode_length)
    error = np.sqrt((1 - CHANCE) / CHANCE**2 / number)
    assert abs(lengths.mean() - 1 / CHANCE) < 4 * error
    for k in (1, 5, 12):  # the whole law, not only its mean
        tail = (1 - CHANCE) ** k
        assert abs((lengths > k).mean() - tail) < 4 * np.sqrt(tail * (1 - tail) / number)
    early = lengths[lengths <= 6].mean()  # what a window of six steps would have seen end
    assert early < 1 / CHANCE - 20 * error


def test_each_environment_plays_its_first_episode_only() -> None:
    """Each first episode earns one a step, every later one a hundred times its number more."""
    lengths = jnp.array([1, 7, 2, 5])
    result = evaluate(probes.CountsEpisodes(), {"length": lengths})
    np.testing.assert_array_equal(result.episode_length, lengths)
    np.testing.assert_array_equal(result.episode_return, lengths)


def test_without_a_limit_it_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that never ends has no return. One that declares longer episodes than the default plays them."""
    monkeypatch.setattr(evaluation, "MOST_STEPS", 6)
    never = evaluate(probes.NeverEnds())
    assert np.isnan(never.episode_return).all()
    assert np.isnan(never.episode_length).all()
    declared = probes.ProbeParams(length=jnp.array([4, 9, 7, 9]), max_steps_in_episode=jnp.array([3, 9, 8, 7]))
    np.testing.assert_array_equal(evaluate(probes.Probe(), declared).episode_length, [3, 9, 7, 7])


def test_a_limit_that_is_declared_and_not_kept_cuts_nothing() -> None:
    env, params = FiveValueAdapter(probes.FiveValues(), max_steps=9), probes.ProbeParams(max_steps_in_episode=1)
    assert set(np.unique(evaluate(env, params, num_episodes=8).episode_length)) == {2.0, 3.0}


def test_what_outlasts_the_limit_is_not_a_number() -> None:
    params = probes.ProbeParams(length=jnp.array([1, 7, 3, 4]))
    result = evaluate(probes.CONSTANT_REWARD, params, max_steps=3)
    for field in (result.episode_return, result.episode_length):
        np.testing.assert_array_equal(field, [1.0, np.nan, 3.0, np.nan])


def test_an_episode_whose_return_is_not_a_number_stays_so() -> None:
    """It is over: the next one in the same environment must not take its place."""
    params = probes.ProbeParams(length=jnp.array([10**6, 60, 1, 2]), chance=jnp.array([CHANCE, 0.0, 0.0, 0.0]))
    usual, broken = (
        evaluate(probes.RANDOM_LENGTH, params.replace(bonus=jnp.array([bonus, 0.0, 0.0, 0.0])))
        for bonus in (0.0, jnp.nan)
    )
    np.testing.assert_array_equal(broken.episode_length, usual.episode_length)
    assert usual.episode_length[0] < 30  # then others of other lengths follow, while the second plays its 60 steps
    np.testing.assert_array_equal(broken.episode_return, usual.episode_return.at[0].set(jnp.nan))


def test_truncated_episodes_are_whole_too() -> None:
    np.testing.assert_array_equal(evaluate(probes.TRUNCATES).episode_length, 4)


def test_greedy_takes_the_mode() -> None:
    env = probes.Probe("action", length=8)
    params = jnp.float32(0.5)  # heads a little more likely
    assert np.all(evaluate(env, params=params, greedy=True).episode_return == 8.0)
    sampled = evaluate(env, params=params).episode_return
    assert np.ptp(sampled) > 0


def test_the_same_key_gives_the_same_and_another_key_another() -> None:
    lengths = [evaluate(probes.RANDOM_LENGTH, seed=seed, num_episodes=64).episode_length for seed in (0, 0, 1)]
    np.testing.assert_array_equal(lengths[0], lengths[1])
    assert np.any(lengths[0] != lengths[2])


def test_vmap_over_policies_equals_a_loop() -> None:
    env = probes.Probe("action", length=5)
    params = jnp.array([-2.0, 0.0, 2.0])
    run = lambda p: evaluate(env, params=p)  # noqa: E731
    batched = jax.vmap(run)(params)
    for actual, *singles in zip(batched, *map(run, params), strict=True):
        np.testing.assert_array_equal(actual, np.stack(singles))


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"num_episodes": 0}, ValueError, "^num_episodes must be at least 1"),
        ({"num_episodes": 1.5}, TypeError, "^num_episodes must be a Python int"),
        ({"max_steps": 0}, ValueError, "^max_steps must be at least 1"),
        ({"max_steps": 9.0}, TypeError, "^max_steps must be a Python int"),
        ({"policy": 3}, TypeError, "^policy must be a function"),
        ({"policy": None}, TypeError, "^policy must be a function, got NoneType"),
        ({"policy": lambda p, o: o}, TypeError, "^policy must return a distribution"),
        ({"policy_state": jnp.zeros(3)}, ValueError, "^every leaf of policy_state"),
    ],
)
def test_bad_evaluations_are_named(changes: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        evaluate(probes.TERMINATES, **changes)


def test_greedy_needs_a_mode() -> None:
    class Modeless:
        def log_prob(self, action: Any) -> Any:
            return jnp.zeros(action.shape)

    with pytest.raises(TypeError, match=r"^greedy=True needs a distribution with a method mode\(\), got Modeless"):
        evaluate(probes.TERMINATES, policy=lambda params, obs: Modeless(), greedy=True)


# The probes mean what they say: each has a value that follows from its definition.


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (probes.CONSTANT_REWARD, 1.0),
        (probes.DELAYED_REWARD, 1.0),
        (probes.TERMINATES, 4.0),
        (probes.TRUNCATES, 4.0),
        (probes.BOTH_AT_ONCE, 4.0),
    ],
)
def test_probes_earn_what_they_should(env: Any, expected: float) -> None:
    np.testing.assert_array_equal(evaluate(env).episode_return, expected)


def test_the_reward_that_is_the_observation() -> None:
    env = probes.REWARD_IS_OBSERVATION
    _, window = probes.collect(env)
    np.testing.assert_array_equal(window.reward, window.obs[..., 1])
    assert set(np.unique(window.reward)) == {-1.0, 1.0}
    assert np.all(evaluate(probes.ACTION_REWARD, params=jnp.float32(50.0)).episode_return == 1.0)


@pytest.mark.parametrize(
    ("env", "ends", "last"),
    [(probes.TERMINATES, "terminated", 1.0), (probes.TRUNCATES, "truncated", 10.0), (probes.BOTH_AT_ONCE, "both", 1.0)],
)
def test_an_end_bootstraps_as_its_mask_says(env: Any, ends: str, last: float) -> None:
    """Rewards of 1 and a value of 10, which is right for an episode without end at a discount of 0.9."""
    _, window = probes.collect(env, num_steps=6)
    at_end = np.asarray(window.step == 3)
    np.testing.assert_array_equal(window.terminated, at_end & (ends != "truncated"))
    np.testing.assert_array_equal(window.truncated, at_end & (ends != "terminated"))
    value = lambda params, obs: jnp.full(obs.shape[:-1], 10.0)  # noqa: E731
    v, next_value = pg.bootstrap_values(None, window, value=value)
    masks = {"terminated": window.terminated, "truncated": window.truncated}
    returns = pg.gae(window.reward, v, next_value, **masks, discount=0.9, lam=1.0) + v
    np.testing.assert_allclose(returns[4:], 10.0, rtol=1e-6)  # the window's own edge bootstraps
    expected = 10.0 if last > 1 else 10.0 * (1 - 0.9 ** (4 - np.arange(4.0)))
    np.testing.assert_allclose(returns[:4], np.broadcast_to(np.reshape(expected, (-1, 1)), (4, 4)), rtol=1e-6)


def test_start_is_the_state_before_anything_happened() -> None:
    state = start(probes.TERMINATES)
    np.testing.assert_array_equal(state.num_episodes, 0)
    np.testing.assert_array_equal(state.step, 0)
    np.testing.assert_array_equal(state.running_return, 0.0)
    assert np.isnan(state.episode_return).all()
    assert np.isnan(state.episode_length).all()
