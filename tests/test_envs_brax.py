"""Environments of Brax through the adapter: those of a stand-in of its documented form, and Brax's own where it is."""

import warnings
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import pgjax as pg
from pgjax.envs import Brax, PooledReset, from_brax
from pgjax.envs.boundary import draw_randomness

pytestmark = pytest.mark.usefixtures("quick_to_compile")
T, B, LIMIT = 12, 2, 5


@struct.dataclass
class State:
    """What Brax's states hold."""

    pipeline_state: Any
    obs: Any
    reward: Any
    done: Any
    metrics: Any = struct.field(default_factory=dict)
    info: Any = struct.field(default_factory=dict)


class Walk:
    """Walks by its action from a drawn place, and is done beyond 1. Brax's habits: done is 0.0 or 1.0, a reward 1.0."""

    action_size = 1
    boolean = False  # MuJoCo Playground has environments that are done by a bool

    def reset(self, rng: Any) -> State:
        place = jax.random.uniform(rng, (1,), minval=-0.5, maxval=0.5)
        done = jnp.bool_(False) if self.boolean else jnp.zeros(())
        return State(place, self.seen(place), jnp.zeros(()), done, {"moved": jnp.zeros(())}, {"rng": rng})

    def step(self, state: State, action: Any) -> State:
        place = state.pipeline_state + action
        over = place[0] > 1
        return state.replace(  # type: ignore[attr-defined]
            pipeline_state=place,
            obs=self.seen(place),
            reward=1.0,
            done=over if self.boolean else jnp.where(over, 1.0, 0.0),
            metrics={"moved": action[0]},
        )

    def seen(self, place: Any) -> Any:
        return jnp.concatenate([place, place * jnp.array([[2.0]])[0]])


def rolled(env: Any, actions: Any) -> Any:
    """(window, the keys of its steps) of given actions from key 0."""
    key = jax.random.key(0)
    state = pg.init_rollout(key, env, None, num_envs=actions.shape[1])
    _, drawn = draw_randomness(key, env, None, start_like=(state.obs, state.env_state), num_steps=len(actions))
    policy = lambda params, obs: pg.exploration.Deterministic(jnp.zeros(actions.shape[1:]))  # noqa: E731
    options: Any = {"policy": policy, "env": env, "env_params": None, "num_steps": len(actions), "actions": actions}
    return pg.rollout(key, None, state, **options)[1], drawn.keys


def own_loop(inside: Any, actions: Any, keys: Any, limit: int) -> Any:
    """Brax's reset and step, one environment at a time, with a limit counted here."""
    step, reset = jax.jit(inside.step), jax.jit(inside.reset)
    rows: Any = []
    for i, start in enumerate(jax.random.split(jax.random.key(0), actions.shape[1])):
        state, time = reset(start), 0
        for t in range(len(actions)):
            new, time = step(state, actions[t, i]), time + 1
            terminated, truncated = bool(new.done), time == limit
            rows.append((state.obs, new.obs, new.reward, terminated, truncated))
            state, time = (reset(jax.random.split(keys[t, i])[1]), 0) if terminated or truncated else (new, time)
    names = ("obs", "next_obs", "reward", "terminated", "truncated")
    by_env = (np.stack(x).reshape(actions.shape[1], len(actions), *np.shape(x[0])) for x in zip(*rows, strict=True))
    return {name: x.swapaxes(0, 1) for name, x in zip(names, by_env, strict=True)}


@pytest.mark.parametrize("boolean", [False, True])
def test_a_rollout_is_the_environments_own_loop(boolean: bool) -> None:
    """An end of its own terminates, the limit truncates, and what was seen last comes before the reset."""
    inside = Walk()
    inside.boolean = boolean
    actions = jax.random.uniform(jax.random.key(4), (T, B, 1), minval=-0.1, maxval=0.8)
    window, keys = rolled(from_brax(inside, episode_length=LIMIT), actions)
    own = own_loop(inside, actions, keys, LIMIT)
    for name, x in own.items():
        np.testing.assert_allclose(getattr(window, name), x, rtol=1e-6, atol=1e-6, err_msg=name)
    assert window.terminated.any()
    assert (window.truncated & ~window.terminated).any()
    assert (window.next_obs[..., 0][window.terminated] > 1).all()
    assert window.reward.dtype == jnp.float32


def test_spaces() -> None:
    class Named(Walk):
        action_size = 3

        def seen(self, place: Any) -> Any:
            return {"state": jnp.concatenate([place, place]), "privileged": place}

    env = from_brax(Named())
    act, seen = env.action_space(None), env.observation_space(None).spaces
    assert (act.low, act.high, act.shape) == (-1.0, 1.0, (3,))
    assert {name: (box.shape, box.low, box.high) for name, box in seen.items()} == {
        "state": ((2,), -jnp.inf, jnp.inf),
        "privileged": ((1,), -jnp.inf, jnp.inf),
    }
    assert env.max_steps == 1000
    with pytest.raises(ValueError, match=r"action must have the shape of env.action_size, \[3\]"):
        jax.eval_shape(lambda key: env.step(key, env.reset(key)[1], jnp.zeros(1)), jax.random.key(0))


def test_starts_can_be_drawn_ahead() -> None:
    """With one start for each environment, every episode begins as the first: what Brax's own wrapper does."""
    env = PooledReset(from_brax(Walk(), episode_length=3), size=1)
    window, _ = rolled(env, jnp.zeros((7, B, 1)))
    np.testing.assert_array_equal(window.truncated[:, 0], np.arange(7) % 3 == 2)
    np.testing.assert_array_equal(window.obs, np.broadcast_to(window.obs[0], window.obs.shape))
    fresh, _ = rolled(from_brax(Walk(), episode_length=3), jnp.zeros((7, B, 1)))
    assert (fresh.obs[3] != fresh.obs[0]).all()


def test_what_is_not_a_bare_environment_is_refused() -> None:
    class Wrapped(Walk):
        def __init__(self, env: Any):
            self.env = env

    auto = type("AutoResetWrapper", (Wrapped,), {})
    for env in (auto(Walk()), Wrapped(auto(Walk())), type("EpisodeWrapper", (Wrapped,), {})(Walk())):
        with pytest.raises(ValueError, match=r"must not be wrapped in (AutoReset|Episode)Wrapper: it hides"):
            from_brax(env)
    from_brax(Wrapped(Walk()))
    with pytest.raises(TypeError, match="with a method reset, got SimpleNamespace"):
        Brax(SimpleNamespace())
    with pytest.raises(TypeError, match="a whole number action_size"):
        Brax(SimpleNamespace(reset=len, step=len))
    with pytest.raises(ValueError, match="episode_length"):
        from_brax(Walk(), episode_length=0)

    class Grows(Walk):
        def step(self, state: State, action: Any) -> State:
            return super().step(state, action).replace(info={"rng": state.info["rng"], "more": 0})  # type: ignore[attr-defined]

    grows = Brax(Grows())
    with pytest.raises(ValueError, match=r"the state of env.step must have the tree structure"):
        jax.eval_shape(lambda key: grows.step_env(key, grows.reset(key)[1], jnp.zeros(1)), jax.random.key(0))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:brax")
@pytest.mark.parametrize("name", ["inverted_pendulum", pytest.param("hopper", marks=pytest.mark.slow)])
def test_a_rollout_is_braxs_own_loop(name: str) -> None:
    """Full pushes to one side tip the pole before the limit, none leaves it upright until then; a hopper stands."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        envs = pytest.importorskip("brax.envs")
        inside = envs.get_environment(name, backend="spring")  # the quickest to compile
    size = inside.action_size
    actions = jnp.stack([jnp.ones((30, size)), jnp.zeros((30, size))], 1)
    with jax.numpy_rank_promotion("allow"):
        window, keys = rolled(from_brax(inside, episode_length=20), actions)
        own = own_loop(inside, actions, keys, 20)
    for field, x in own.items():
        np.testing.assert_allclose(getattr(window, field), x, rtol=1e-5, atol=1e-5, err_msg=field)
    assert window.terminated[:20, 0].any() == (name == "inverted_pendulum")
    np.testing.assert_array_equal(window.truncated[:, 1], np.arange(30) == 19)
    assert np.abs(window.next_obs[19, 1] - window.obs[20, 1]).max() > 1e-3
    with pytest.raises(ValueError, match="must not be wrapped in AutoResetWrapper"):
        from_brax(envs.create(name, backend="spring"))
