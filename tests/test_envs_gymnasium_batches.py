"""Batches of environments on the host: whose state may be stepped, who is closed, and which VectorEnvs there may be."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax.envs import from_gymnasium

pytest.importorskip("gymnasium")

import gymnasium as gym
from hosted import OBS_SPACE, Count, begun, rolled, several

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def test_a_state_is_used_once() -> None:
    state, step = begun(from_gymnasium(several(Count)))
    newer = step(state)
    np.testing.assert_array_equal(newer.time, [1, 1])
    with pytest.raises(Exception, match="is of step 0 of its batch, which is at step 1"):
        step(state)
    np.testing.assert_array_equal(step(newer).time, [2, 2])


@pytest.mark.parametrize(
    "rows", [lambda x: x[::-1], lambda x: x[:1], lambda x: jnp.concatenate([x, x])], ids=["turned", "one", "doubled"]
)
def test_rows_are_stepped_all_together_and_in_order(rows: Any) -> None:
    env = from_gymnasium(several(Count))
    state, _ = begun(env)
    wrong = jax.tree.map(rows, state)
    action = jnp.zeros(wrong.index.shape, int)
    with pytest.raises(Exception, match="must hold all 2 environments of its batch, in their order"):
        jax.vmap(env.step, in_axes=(None, 0, 0))(jax.random.key(0), wrong, action)


def test_a_reset_takes_the_batch_that_was_used_longest_ago() -> None:
    env = from_gymnasium(several(Count), max_batches=2)
    first, step = begun(env)
    second, _ = begun(env)
    first = step(first)
    vectors = [batch.vector for batch in env._batches]
    begun(env)  # takes the second, whose turn it is
    assert [batch.vector for batch in env._batches] == vectors
    first = step(first)
    with pytest.raises(Exception, match="belongs to no batch of environments that is still there"):
        step(second)
    begun(env, 3)  # another number: the oldest is closed
    assert vectors[1].closed
    np.testing.assert_array_equal(step(first).time, [3, 3])


def test_a_state_of_another_environment_is_refused() -> None:
    state, _ = begun(from_gymnasium(several(Count)))
    _, step = begun(from_gymnasium(several(Count)))
    with pytest.raises(Exception, match="cannot be resumed from a saved state"):
        step(state)
    env = from_gymnasium(several(Count))
    with pytest.raises(TypeError, match="env_state must be a HostState"):
        env.step(jax.random.key(0), jnp.int32(0), jnp.int32(0))


def test_a_closed_environment_is_refused() -> None:
    env = from_gymnasium(several(Count))
    state, step = begun(env)
    env.close()
    with pytest.raises(Exception, match="environments are closed"):
        step(state)
    with pytest.raises(Exception, match="environments are closed"):
        begun(env)
    vector = several(Count)(2)
    state, step = begun(from_gymnasium(vector))
    vector.close()
    with pytest.raises(Exception, match="the VectorEnv is closed"):
        step(state)


def test_a_given_vector_env_is_the_only_batch() -> None:
    env = from_gymnasium(several(Count)(2))
    state, step = begun(env)
    with pytest.raises(Exception, match="num_envs must be 2, what the given VectorEnv holds, got 3"):
        begun(env, 3)
    state = step(state)
    newer, _ = begun(env)
    with pytest.raises(Exception, match="belongs to no batch"):
        step(state)
    np.testing.assert_array_equal(step(newer).time, [1, 1])


@pytest.mark.parametrize("given", [False, True], ids=["made", "given"])
def test_an_error_on_the_host_is_told_and_ends_the_batch(given: bool) -> None:
    class Fails(Count):
        fails_at = 2

    make = several(Fails)
    env = from_gymnasium(make(2) if given else make)
    state, step = begun(env)
    state = step(state)
    with pytest.raises(Exception, match="the robot fell over"):
        step(state)
    with pytest.raises(Exception, match="belongs to no batch of environments that is still there"):
        step(state)
    state, step = begun(env)
    np.testing.assert_array_equal(step(state).time, [1, 1])


# VectorEnvs that are not Gymnasium's.


class Bare(gym.vector.VectorEnv):
    """Two counters in one array, reset in the same step, with one seed for all; the last observations stacked."""

    num_envs = 2
    single_observation_space, single_action_space = OBS_SPACE, gym.spaces.Discrete(2)
    says_last = True

    def __init__(self, mode: Any = gym.vector.AutoresetMode.SAME_STEP):
        self.metadata = {"autoreset_mode": mode}

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        assert isinstance(seed, int)
        self.count = np.array([0, 1])
        return self.observed(), {}

    def observed(self) -> Any:
        return np.stack([self.count, self.count], 1).astype(float)

    def step(self, actions: Any) -> Any:
        self.count += 1
        last, done = self.observed(), self.count >= 3
        self.count[done] = 0
        info = {"final_obs": last} if self.says_last and done.any() else {}
        return self.observed(), actions, np.zeros(2, bool), done, info


def test_a_vector_env_of_another_kind() -> None:
    _, window = rolled(jax.random.key(0), from_gymnasium(Bare()), np.tile([0, 1], (4, 1)))
    np.testing.assert_array_equal(window.obs[..., 0], [[0, 1], [1, 2], [2, 0], [0, 1]])
    np.testing.assert_array_equal(window.next_obs[..., 1], [[1, 2], [2, 3], [3, 1], [1, 2]])
    np.testing.assert_array_equal(window.truncated, np.array([[0, 0], [0, 1], [1, 0], [0, 0]], bool))
    np.testing.assert_array_equal(window.reward, np.tile([0.0, 1.0], (4, 1)))


def test_one_that_hides_the_last_observation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"autoreset_mode SAME_STEP, got NextStep of Bare"):
        from_gymnasium(Bare(gym.vector.AutoresetMode.NEXT_STEP))
    silent = Bare()
    silent.says_last = False
    state, step = begun(from_gymnasium(silent))
    state = step(state)
    with pytest.raises(Exception, match="must give the last observation as info"):
        step(state)


def test_what_is_no_vector_env_is_refused() -> None:
    with pytest.raises(TypeError, match="make must be a function of num_envs"):
        from_gymnasium(Count())
    with pytest.raises(TypeError, match=r"make must give a gymnasium.vector.VectorEnv, got Count"):
        from_gymnasium(lambda num_envs: Count())
    with pytest.raises(ValueError, match=r"got 2 for make\(1\)"):
        from_gymnasium(lambda num_envs: several(Count)(2))
    with pytest.raises(ValueError, match="max_batches"):
        from_gymnasium(several(Count), max_batches=0)
    with pytest.raises(TypeError, match=r"options \['render_mode'\] go with the name"):
        from_gymnasium(several(Count), render_mode="human")
