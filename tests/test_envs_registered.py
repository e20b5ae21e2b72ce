"""Every environment that gymnax registers, except the one that downloads its data, rolled out under jit and vmap."""

import functools
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

pytestmark = pytest.mark.usefixtures("quick_to_compile", "foreign_ranks")
NAMES = [name for name in gymnax.registered_envs if "MNIST" not in name]
T, B, SEEDS = 3, 2, 2


def flat(obs: Any, batch_ndim: int) -> Any:
    return obs.reshape((*obs.shape[:batch_ndim], -1))


def acting_in(env: Any, env_params: Any) -> Any:
    """A policy of random logits or means, by the environment's space of actions."""
    space, seen = env.action_space(env_params), env.observation_space(env_params)
    batch_ndim = lambda obs: obs.ndim - len(getattr(seen, "shape", ()))  # noqa: E731

    def policy(params: Any, obs: Any) -> Any:
        total = params * flat(obs, batch_ndim(obs)).mean(-1, keepdims=True)
        if hasattr(space, "n"):
            return pg.Categorical(total * jnp.linspace(-1.0, 1.0, space.n).reshape((1,) * (total.ndim - 1) + (-1,)))
        low, high = (np.broadcast_to(x, space.shape).astype(np.float32) for x in (space.low, space.high))
        spread = jnp.broadcast_to(total, (*total.shape[:-1], *space.shape))
        return pg.TanhNormal(spread, jnp.ones_like(spread), low, high)

    return policy


def is_dear(name: str) -> bool:
    """Most of the time goes to compiling MinAtar's games, of which one stands for all by default."""
    return name.endswith("-MinAtar") and name != "Breakout-MinAtar"


@pytest.mark.parametrize("name", [pytest.param(x, marks=pytest.mark.slow) if is_dear(x) else x for x in NAMES])
def test_rolls_out_under_jit_and_vmap(name: str) -> None:
    env, env_params = gymnax.make(name)
    if name == "FrozenLake-misc":
        env = pg.envs.OneHotObservation(env)
    options = {"policy": acting_in(env, env_params), "env": env, "env_params": env_params, "num_steps": T}

    @jax.vmap
    def begin(key: Any) -> Any:
        return pg.init_rollout(key, env, env_params, num_envs=B)

    @jax.vmap
    def go_on(key: Any, params: Any, state: Any) -> Any:
        return pg.rollout(key, params, state, **options)

    keys, params = jax.random.split(jax.random.key(0), SEEDS), jnp.ones(SEEDS)
    state, window = jax.jit(lambda keys, params: go_on(keys, params, begin(keys)))(keys, params)
    # A second call compiles nothing only if the state has kept its types, weak ones included.
    before = jax.eval_shape(begin, keys)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(state), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
    assert window.reward.shape == window.log_prob.shape == window.terminated.shape == (SEEDS, T, B)
    assert window.reward.dtype == window.log_prob.dtype == jnp.float32
    assert window.terminated.dtype == window.truncated.dtype == jnp.bool_
    assert window.obs.dtype == window.next_obs.dtype == jnp.float32
    for leaf in (window.reward, window.log_prob, window.obs, window.next_obs):
        assert np.isfinite(leaf).all()
    done = np.asarray(window.done)[:, :-1]
    same = np.all(flat(np.asarray(window.next_obs), 3)[:, :-1] == flat(np.asarray(window.obs), 3)[:, 1:], axis=-1)
    np.testing.assert_array_equal(same | done, True)


def test_whole_numbers_are_cast_at_the_boundary() -> None:
    """These give int32 rewards or observations; what the policy and the returns see is floating."""
    examples = {"UmbrellaChain-bsuite": "reward", "BernoulliBandit-misc": "reward", "FourRooms-misc": "obs"}
    for name, key in examples.items():
        env, env_params = gymnax.make(name)
        _, state = jax.eval_shape(env.reset, jax.random.key(0), env_params)
        obs, _, reward, *_ = jax.eval_shape(env.step, jax.random.key(1), state, 0, env_params)
        assert jnp.issubdtype({"reward": reward, "obs": obs}[key].dtype, jnp.integer), f"{name} is no example any more"
        state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=B)
        options = {"policy": acting_in(env, env_params), "env": env, "env_params": env_params, "num_steps": T}
        _, window = jax.eval_shape(functools.partial(pg.rollout, **options), jax.random.key(1), 1.0, state)
        assert window.reward.dtype == window.obs.dtype == window.next_obs.dtype == jnp.float32
