"""Every key is used once: no two of those that a rollout or an evaluation hands out are equal or parent and child."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from flax import struct
from gymnax.environments import environment

import pgjax as pg
from pgjax.distributions import draw_noise
from pgjax.envs import TimeLimit, boundary

pytestmark = pytest.mark.usefixtures("quick_to_compile")
T, B, PARTS = 3, 2, 4


def parts_of(key: Any) -> Any:
    """The four 16-bit parts of a key, which float32 holds exactly."""
    words = jax.random.key_data(key)
    return jnp.stack([words[0] >> 16, words[0] & 0xFFFF, words[1] >> 16, words[1] & 0xFFFF]).astype(jnp.float32)


def words_of(parts: Any) -> np.ndarray:
    """The keys that `parts_of` took apart: [..., 4] -> [N, 2] uint32."""
    parts = np.asarray(parts).reshape(-1, PARTS).astype(np.uint32)
    return np.stack([parts[:, 0] << 16 | parts[:, 1], parts[:, 2] << 16 | parts[:, 3]], axis=-1)


@struct.dataclass
class KeyState(environment.EnvState):
    time: Any
    start: Any  # parts of the key of the reset


@dataclass(frozen=True)
class ShowsKeys(environment.Environment[KeyState, probes.ProbeParams]):
    """Shows the key that it is given: of the reset at the start of an episode, of the step afterwards.

    Twelve agents are paid the parts of the keys of the reset, of the last step and of the last action.
    """

    length: int = 1
    agents: tuple[int, ...] = (3 * PARTS,)

    @property
    def default_params(self) -> probes.ProbeParams:
        return probes.ProbeParams(length=self.length)

    def reset_env(self, key: Any, params: probes.ProbeParams) -> Any:
        return self.shown(key), KeyState(time=0, start=parts_of(key))

    def step_env(self, key: Any, state: KeyState, action: Any, params: probes.ProbeParams) -> Any:
        after = KeyState(time=state.time + 1, start=state.start)
        ended = after.time >= params.length
        paid = jnp.where(ended, jnp.concatenate([state.start, parts_of(key), action[0]]), 0.0)
        return self.shown(key), after, paid, ended, {}

    def shown(self, key: Any) -> Any:
        return jnp.broadcast_to(parts_of(key), (3 * PARTS, PARTS))


@struct.dataclass
class KeyDrawn:
    """A distribution whose action is the key that it is drawn with."""

    obs: Any

    def sample(self, key: Any) -> Any:
        return jnp.broadcast_to(parts_of(key), (*self.obs.shape[:-1], PARTS))

    def log_prob(self, action: Any) -> Any:
        return jnp.zeros(self.obs.shape[:-1])


@struct.dataclass
class KeyAsNoise(KeyDrawn):
    """The same of noise that is drawn ahead."""

    has_noise: ClassVar[bool] = True
    event_ndim: ClassVar[int] = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.obs.shape[:-1])

    def base_noise(self, key: Any) -> Any:
        return self.sample(key)

    def sample_from(self, noise: Any) -> Any:
        return noise


def require_apart(root: Any, *keys: np.ndarray) -> None:
    """No key among [N, 2] arrays of them occurs twice, is the root, or is made by splitting another one."""
    shown = [tuple(key) for key in np.concatenate(keys)]
    assert len(set(shown)) == len(shown)
    assert tuple(np.asarray(jax.random.key_data(root))) not in shown
    for key in np.concatenate(keys):
        children = np.asarray(jax.random.key_data(jax.random.split(jax.random.wrap_key_data(key), 32)))
        assert not {tuple(child) for child in children} & set(shown)


def play(env: Any, distribution: Any = KeyDrawn) -> pg.Trajectory:
    policy = lambda params, obs: distribution(obs)  # noqa: E731  a new program each time
    return jax.tree.map(np.asarray, probes.collect(env, num_steps=T, num_envs=B, policy=policy, params=None)[1])


def keys_of(window: pg.Trajectory) -> tuple[np.ndarray, ...]:
    acts, steps, starts = window.action[:, :, 0], window.next_obs[:, :, 0], window.obs[:, :, 0]
    return words_of(acts[:, 0]), words_of(steps), words_of(starts)


def test_a_rollout_uses_each_key_once() -> None:
    window = play(ShowsKeys())
    np.testing.assert_array_equal(window.action[:, :1], window.action[:, 1:])  # one key for a step of the whole batch
    require_apart(jax.random.key(1), *keys_of(window))


def test_a_rollout_draws_its_noise_with_a_key_of_its_own() -> None:
    acts, steps, starts = keys_of(play(ShowsKeys(), KeyAsNoise))
    assert len(np.unique(acts, axis=0)) == 1  # all noise of a window in one draw
    require_apart(jax.random.key(1), acts[:1], steps, starts)


def test_starts_drawn_as_needed_are_those_drawn_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As beyond 1 MiB of them, which 2048 environments and 128 steps take."""
    ahead = play(ShowsKeys())
    monkeypatch.setattr(boundary, "_MOST_BYTES_AHEAD", {})
    monkeypatch.setattr(boundary, "_MOST_BYTES_AHEAD_ELSEWHERE", 0)
    needed = play(ShowsKeys())
    jax.tree.map(np.testing.assert_array_equal, needed, ahead)
    require_apart(jax.random.key(1), *keys_of(needed))


def test_beyond_a_mebibyte_starts_are_drawn_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    state = jax.eval_shape(lambda: probes.start(probes.TERMINATES, num_envs=64))
    like = (state.obs, state.env_state)
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(like)) == 64 * 16
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    for num_steps, ahead in ((1024, True), (1025, False)):
        _, drawn = jax.eval_shape(
            lambda key, n=num_steps: boundary.draw_randomness(
                key, probes.TERMINATES, None, start_like=like, num_steps=n
            ),
            jax.random.key(0),
        )
        assert (drawn.start is not None) == (drawn.start_keys is None) == ahead
        assert drawn.keys.shape == (num_steps, 64)


def test_an_environment_that_resets_by_itself_splits_its_keys() -> None:
    """The wrapper gives one half of a key to the step and the other to the start that follows."""
    require_apart(jax.random.key(1), *keys_of(play(TimeLimit(ShowsKeys(length=9), 1))))


@pytest.mark.parametrize("env", [ShowsKeys(length=2), TimeLimit(ShowsKeys(length=2), 9)])
def test_an_evaluation_uses_each_key_once(env: Any) -> None:
    policy = lambda params, obs: KeyDrawn(obs)  # noqa: E731
    key = jax.random.key(3)
    paid, _ = pg.evaluate(key, None, policy=policy, env=env, env_params=None, num_episodes=B)
    starts, steps, acts = (words_of(x) for x in np.split(np.asarray(paid), 3, axis=-1))
    np.testing.assert_array_equal(acts[0], acts[1])
    require_apart(key, starts, steps, acts[:1])


def test_the_starts_of_a_rollout_are_independent_of_one_another() -> None:
    """The same for `init_rollout`: as many starts as environments."""
    obs = np.asarray(probes.start(ShowsKeys(), num_envs=8).obs)[:, 0]
    require_apart(jax.random.key(0), words_of(obs))


@pytest.mark.parametrize(
    "distribution",
    [
        pg.Categorical(jnp.zeros((5, 3))),
        pg.Normal(jnp.zeros((5, 2)), jnp.ones((5, 2))),
        pg.MultiCategorical((jnp.zeros((5, 3)), jnp.zeros((5, 2)))),
        pg.Normal(jnp.zeros((5, 2, 2)), jnp.ones((5, 2, 2))),
        pg.Categorical(jnp.zeros(3)),
    ],
    ids=["categorical", "normal", "multi", "agents", "no batch"],
)
def test_noise_of_many_draws_is_that_of_one_large_batch(distribution: Any) -> None:
    noise = np.asarray(draw_noise(distribution, jax.random.key(0), num_draws=7))
    assert noise.shape == (7, *distribution.shape)
    assert len(np.unique(noise)) == noise.size
