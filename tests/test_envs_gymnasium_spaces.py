"""Spaces of environments on the host: what becomes of their numbers on the device and back, and which are refused."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax.envs import Choices, from_gymnasium

pytest.importorskip("gymnasium")

import gymnasium as gym
from hosted import Count, begun, rolled, seeds_of, several

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def test_numbers_reach_the_device_in_32_bits_and_choices_count_from_0() -> None:
    class Cut(Count):
        limit = 2

    env = from_gymnasium(several(Cut))
    seen, done = env.observation_space(), env.action_space()
    np.testing.assert_array_equal([seen.low, seen.high], np.float32([[-9.0, 0.0], [99.0, np.inf]]))
    assert (seen.dtype, pg.envs.observation_dtype(env), done.n) == (np.float32, np.float32, 3)
    actions = np.array([[0, 1], [2, 0], [1, 1], [0, 2]])
    _, window = rolled(jax.random.key(5), env, actions)
    np.testing.assert_array_equal(window.reward, actions + 5.0)
    np.testing.assert_array_equal(window.obs[:, 0, 0], [0, 1, 0, 1])
    np.testing.assert_array_equal(window.next_obs[:, 0, 0], [1, 2, 1, 2])
    np.testing.assert_array_equal(window.truncated[:, 0], [False, True] * 2)
    assert not window.terminated.any()
    np.testing.assert_array_equal(window.obs[0, :, 1], [seed % 10 for seed in seeds_of(jax.random.key(5), 2)])


FRAMES = gym.spaces.Box(0, 255, (2, 2), np.uint8)
KINDS: Any = {
    "frames": FRAMES,
    "long": gym.spaces.Box(-(2**40), 2**40, (2,), np.int64),
    "card": gym.spaces.Discrete(4, start=-1),
    "cards": gym.spaces.MultiDiscrete([3, 4], start=[1, 2]),
    "bits": gym.spaces.MultiBinary(3),
    "pair": gym.spaces.Tuple((gym.spaces.Discrete(2), gym.spaces.Box(-1.0, 1.0, (2, 1), np.float64))),
}


class Everything(Count):
    """Sees and does one of each kind."""

    observation_space = gym.spaces.Dict(KINDS)
    action_space = gym.spaces.Dict(KINDS)
    given: ClassVar[list[Any]] = []

    def step(self, action: Any) -> Any:
        self.given.append(action)
        return super().step(action)

    def observed(self) -> Any:
        frames = np.full((2, 2), 200 + self.step_of_episode, np.uint8)
        pair = 1, np.array([[0.5], [-0.25]])
        whole = {"long": np.array([7, -8]), "card": np.int64(2), "cards": np.array([1, 5]), "bits": np.int8([1, 0, 1])}
        return {"frames": frames, "pair": pair, **whole}


def test_every_kind_of_space_goes_both_ways() -> None:
    env = from_gymnasium(several(Everything))
    dtypes = {"frames": np.uint8, "long": np.int32, "card": np.int32, "cards": np.int32, "bits": np.int8}
    obs, state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 2))
    assert {name: obs[name].dtype for name in dtypes} == {name: np.dtype(x) for name, x in dtypes.items()}
    assert [x.dtype for x in obs["pair"]] == [np.int32, np.float32]
    np.testing.assert_array_equal(obs["frames"], np.full((2, 2, 2), 200))
    np.testing.assert_array_equal([obs["long"][1], obs["cards"][1]], [[7, -8], [0, 3]])  # from 0 on
    np.testing.assert_array_equal(obs["card"], [3, 3])
    np.testing.assert_array_equal(obs["pair"][1][1], [[0.5], [-0.25]])
    space = env.action_space().spaces
    assert (space["cards"], space["bits"]) == (Choices((3, 4)), Choices((2, 2, 2)))
    assert space["card"].n == 4
    assert space["long"].high[0] == 2**31 - 1
    action = {
        "frames": jnp.full((2, 2, 2), 255, jnp.uint8), "long": jnp.array([[3, -4]] * 2), "card": jnp.array([0, 3]),
        "cards": jnp.array([[0, 0], [2, 3]]), "bits": jnp.array([[True, False, True]] * 2),
        "pair": (jnp.array([0, 1]), jnp.array([[[0.1], [-0.7]], [[1.0], [0.0]]])),
    }  # fmt: skip
    Everything.given.clear()
    jax.vmap(env.step, in_axes=(None, 0, 0))(jax.random.key(0), state, action)
    _, second = Everything.given
    assert all(space.contains(x) for x in Everything.given for space in [Everything.action_space])
    assert (second["card"], second["cards"].tolist(), second["bits"].tolist()) == (2, [3, 5], [1, 0, 1])
    assert (second["long"].tolist(), second["frames"].tolist()) == ([3, -4], [[255, 255], [255, 255]])
    np.testing.assert_array_equal(second["pair"][1], [[1.0], [0.0]])
    np.testing.assert_allclose(Everything.given[0]["pair"][1], [[0.1], [-0.7]], rtol=1e-6)


def test_other_spaces_and_other_shapes_are_refused() -> None:
    class Talks(Count):
        observation_space = gym.spaces.Text(5)

    with pytest.raises(TypeError, match="the observation space must be Box, Discrete"):
        from_gymnasium(several(Talks))
    vector = several(Count)(1)
    vector.envs[0].wrong_shape = True
    vector._observations = np.zeros((1, 3))
    with pytest.raises(Exception, match=r"observation of reset must have the shape \[1, 2\]"):
        begun(from_gymnasium(vector), 1)
    env = from_gymnasium(several(Count))
    _, state = jax.eval_shape(env.reset, jax.random.key(0))
    for action, error, message in (
        (jnp.zeros(2, int), ValueError, r"action must have the shape \[\] of the action space"),
        (jnp.zeros(()), TypeError, "action must be an integer array"),
        ({"a": 0}, ValueError, "action must have the tree structure of the action space"),
    ):
        with pytest.raises(error, match=message):
            jax.eval_shape(lambda state, action=action: env.step(jax.random.key(0), state, action), state)
